"""Hub models: the feature layer changes nothing, the gradient there is the unsplit model's, maps land where they belong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_models import TALKING, saved
from PIL import Image
from torch import Tensor

from mmgradcam import InputError, ModelError, explain, gradcam, hirescam, layercam, smooth
from mmgradcam.tasks import load
from mmgradcam.tasks.hub.tiled import Tiled

CAPTION, QUESTION = "a dog catches red frisbee", "what color is the ball?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module", params=TALKING)
def task(request: pytest.FixtureRequest, folder: Path) -> Any:
    made = load(folder / request.param if (folder / request.param).exists() else saved(request.param, folder))
    made.model.double()
    return made


def picture(width: int = 56, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def asked(task: Any) -> dict[str, Any]:
    return {"caption": CAPTION} if "caption" in task.adapter.query_types else {"question": QUESTION, "answer": "blue dog"}


def place(task: Any) -> tuple[Any, str, str]:
    """Of the unsplit model: who makes the features, by which of its functions, and under which name they come."""
    model, kind = task.model, type(task.model).__name__
    if kind.startswith("Git"):
        return model.git.image_encoder, "forward", "last_hidden_state"
    if kind == "VisionEncoderDecoderModel":
        return model.encoder, "forward", "last_hidden_state"
    if kind.startswith("Blip"):
        return model.vision_model, "forward", "last_hidden_state"
    if kind.startswith("Florence"):
        return model.model.vision_tower, "forward", "last_hidden_state"
    if kind.startswith("LlavaOnevision"):
        return model.model.multi_modal_projector, "forward", ""
    return model.model, "get_image_features", "pooler_output"


@contextmanager
def pooled(task: Any) -> Iterator[list[Tensor]]:
    """Within, what the unsplit model's own code makes of the picture is kept, with a graph from there on."""
    kept: list[Tensor] = []
    owner, name, key = place(task)
    own = getattr(owner, name)

    def made(*args: Any, **more: Any) -> Any:
        found = own(*args, **more)
        if not key:
            kept.append(found.detach().requires_grad_())
            return kept[0]
        several = found[key] if isinstance(found[key], (list, tuple)) else [found[key]]
        leaves = [x.detach().requires_grad_() for x in several]
        deep = [[x.detach().requires_grad_() for x in layer] for layer in found.get("deepstack_features") or []]
        if deep:
            found["deepstack_features"] = deep
        kept.extend([*leaves, *(x for layer in deep for x in layer)])
        found[key] = leaves if isinstance(found[key], (list, tuple)) else leaves[0]
        return found

    setattr(owner, name, made)
    try:
        yield kept
    finally:
        delattr(owner, name)


def test_words_rely_on_the_picture_by_what_they_lose_without_it(task: Any) -> None:
    """In a batch as alone, whatever the model keeps of the picture it encoded last; the maps are as they were."""
    pictures, grey = [picture(), picture(40, 56)], Image.new("RGB", (56, 40), (128, 128, 128))
    plain, told = (explain(task, pictures, **asked(task), grounding=grounding) for grounding in (False, True))
    blind = explain(task, grey, **asked(task))
    for one, other in zip(plain, told, strict=True):
        torch.testing.assert_close(one.maps, other.maps)
    relied = [target.grounding for target in told[0].targets]
    np.testing.assert_allclose(relied, (plain[0].scores - blind.scores).numpy(), atol=1e-5)
    alone = explain(task, pictures[1], **asked(task), grounding=True)
    np.testing.assert_allclose([t.grounding for t in told[1].targets], [t.grounding for t in alone.targets], atol=1e-5)


def unsplit(task: Any, pixels: Any, told: Any) -> Tensor:
    """Logits of the text's tokens by the model's own forward from the processor's own pixels."""
    ids = torch.tensor([[*told.prompt.tokens, *told.text[:-1]]])
    kind = type(task.model).__name__
    seen = {"pixel_values": pixels["pixel_values"].double()}
    if kind == "BlipForQuestionAnswering":
        states = task.model.vision_model(**seen)["last_hidden_state"]
        read = task.model.text_encoder(
            input_ids=torch.tensor([told.prompt.tokens]), encoder_hidden_states=states
        ).last_hidden_state
        begun = torch.tensor([[5, *told.text[:-1]]])
        return task.model.text_decoder(input_ids=begun, encoder_hidden_states=read).logits[0]
    if kind.startswith("Florence") or (kind.startswith("Blip2") and not task.adapter.one_stream):
        begun = torch.tensor([[task.adapter.begin, *told.text[:-1]]])
        return task.model(**seen, input_ids=torch.tensor([told.prompt.tokens]), decoder_input_ids=begun).logits[0]
    if kind == "VisionEncoderDecoderModel":
        return task.model(**seen, decoder_input_ids=ids).logits[0, len(told.prompt.tokens) - 1 :]
    more = {k: v for k, v in pixels.items() if k not in ("pixel_values", "pixel_mask")}
    if not kind.startswith("LlavaOne"):
        more.pop("image_sizes", None)
    if kind.startswith("Qwen"):
        more["mm_token_type_ids"] = (ids == task.adapter.image).int()
    if kind.startswith("Pali"):
        more["token_type_ids"] = torch.tensor([[0] * len(told.prompt.tokens) + [1] * (len(told.text) - 1)])
    logits = task.model(**seen, input_ids=ids, **more).logits[0]
    return logits[-ids.shape[1] :][len(told.prompt.tokens) - 1 :]


def processed(task: Any) -> Any:
    processor = getattr(task.adapter, "processor", None)
    if processor is None or type(task.model).__name__.startswith("Florence"):
        return {"pixel_values": task.prepare(picture()).pixels[None]}
    if isinstance(task.adapter, Tiled):
        made = processor(images=[picture()], text=[task.adapter.written("a")], return_tensors="pt")
        return {k: v for k, v in made.items() if k not in ("input_ids", "attention_mask", "token_type_ids")}
    return processor.image_processor(picture(), return_tensors="pt")


def test_the_seam_gives_the_models_own_logits(task: Any) -> None:
    made = explain(task, picture(), **asked(task))
    told = made.targets[0].value
    logp = unsplit(task, processed(task), told).log_softmax(-1)
    for one in made:
        at = list(one.targets[0].value.positions)
        own = logp[at, [told.text[i] for i in at]].sum()
        assert one.score == pytest.approx(own.item(), abs=1e-5)


def test_the_gradient_at_the_seam_is_the_unsplit_models(task: Any) -> None:
    made = explain(task, picture(), method=hirescam, **asked(task))
    told = made.targets[0].value
    with pooled(task) as kept:
        logp = unsplit(task, processed(task), told).log_softmax(-1)
    for one in made:
        at = list(one.targets[0].value.positions)
        gradients = torch.autograd.grad(logp[at, [told.text[i] for i in at]].sum(), kept, retain_graph=True)
        channels = 1 if kept[0].dim() == 4 else -1
        cells = sum((leaf * gradient).sum(channels).flatten() for leaf, gradient in zip(kept, gradients, strict=True))
        own = cells[-one.map.numel() :].view_as(one.map)
        assert bool((own != 0).any())
        torch.testing.assert_close(one.map, own.float(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("at", [(0.15, 0.15), (0.45, 0.8), (0.9, 0.4)])
def test_a_lit_patch_is_seen_where_it_is(task: Any, at: tuple[float, float]) -> None:
    """What changes most in the features lies over what changed in the picture, also where it is not square."""
    kept = {}
    for name, parameter in task.model.named_parameters():
        if "vision_tower" in name and ("out_proj" in name or ("attn" in name and ".proj." in name)):
            # Random attention can carry more from other patches than a patch has of its own.
            kept[name] = parameter.data.clone()
            parameter.data.zero_()
    dark = Image.new("RGB", (84, 40), (90, 90, 90))
    box = task.prepare(dark).box
    if not isinstance(task.adapter, Tiled):  # a place that no cropping cuts away
        at = box[0] + at[0] * (box[2] - box[0]), box[1] + at[1] * (box[3] - box[1])
    x, y = at[0] * 84, at[1] * 40
    lit = dark.copy()
    lit.paste((255, 255, 255), (round(x) - 2, round(y) - 2, round(x) + 2, round(y) + 2))
    before, after = (features_of(task, image) for image in (dark, lit))
    for name, value in kept.items():
        task.model.get_parameter(name).data.copy_(value)
    planes = (after - before).abs().sum(0)
    planes, boxes = (planes, box) if isinstance(task.adapter, Tiled) else (planes[None], [box])
    shown = 0
    for change, (x0, y0, x1, y1) in zip(planes, boxes, strict=True):
        x, y = (at[0] - x0) / (x1 - x0), (at[1] - y0) / (y1 - y0)
        if 0.05 < x < 0.95 and 0.05 < y < 0.95:
            row, column = divmod(int(change.argmax()), change.shape[1])
            assert abs((column + 0.5) / change.shape[1] - x) < 1.01 / change.shape[1]
            assert abs((row + 0.5) / change.shape[0] - y) < 1.01 / change.shape[0]
            shown += 1
    assert shown == (2 if isinstance(task.adapter, Tiled) else 1)


def features_of(task: Any, image: Image.Image) -> Tensor:
    """(C, h, w) what maps are taken from."""
    kept: list[Tensor] = []

    def keep(features: Tensor, gradients: Tensor) -> Tensor:
        kept.append(features[0])
        return features.sum(1)

    explain(task, image, method=keep, **asked(task))
    return kept[0]


def test_the_vision_encoder_runs_once_writing_included(task: Any) -> None:
    names = ("vision_model", "vision_tower", "visual", "image_encoder", "encoder")
    vision = next(m for n, m in task.model.named_modules() if n.split(".")[-1] in names)
    runs: list[int] = []
    handle = vision.register_forward_hook(lambda *_: runs.append(1))
    query = {} if "caption" in task.adapter.query_types else {"question": QUESTION}
    made = explain(task, picture(), **query)
    handle.remove()
    assert len(made.targets) >= 1
    assert len(runs) == 1


def test_words_are_whole_and_made_of_all_their_tokens(task: Any) -> None:
    if "caption" not in task.adapter.query_types:
        pytest.skip("answers are one target each")
    made = explain(task, picture(), caption=CAPTION)
    assert made.labels == CAPTION.split()
    positions = [t.value.positions for t in made.targets]
    assert positions == [(0,), (1,), (2, 3), (4,), (5, 6)]
    joint = made["red frisbee"]
    assert joint.score == pytest.approx(made["red"].score + made["frisbee"].score, abs=1e-4)


def test_the_prompt_is_the_processors_own(task: Any) -> None:
    processor = getattr(task.adapter, "processor", None)
    if processor is None:
        pytest.skip("reads no picture in its text")
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        written = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
    else:
        written = QUESTION
    own = processor(images=picture(), text=written)["input_ids"][0]
    made = explain(task, picture(), question=QUESTION, answer="blue")
    assert list(made.targets[0].value.prompt.tokens) == list(own)


def test_a_batch_is_a_loop(task: Any) -> None:
    several = [picture(), picture().rotate(180), picture(112, 40), picture(40, 56)]
    if "caption" in task.adapter.query_types:
        each: list[dict[str, Any]] = [{"caption": CAPTION}, {"caption": "two cats on the grass"}] * 2
    else:
        each = [{"question": QUESTION, "answer": "blue dog"}, {"question": "is the cat red?", "answer": "a"}] * 2
    if isinstance(task.adapter, Tiled):
        assert len({len(task.prepare(image).box) for image in several}) > 1, "the tiles of these pictures are equally many"
    together = explain(task, several, each=each)
    for image, made, query in zip(several, together, each, strict=True):
        alone = explain(task, image, **query)
        assert made.labels == alone.labels
        torch.testing.assert_close(made.scores, alone.scores, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(made.maps, alone.maps, atol=1e-6, rtol=1e-4)


def test_a_contrast_is_the_difference_and_the_questions_words_are_weighed(task: Any) -> None:
    if "question" not in task.adapter.query_types:
        pytest.skip("answers no questions")
    made = explain(task, picture(), question=QUESTION, answer="blue dog", contrast="red")
    blue, contrast = made
    red = explain(task, picture(), question=QUESTION, answer="red")[0]
    assert contrast.score == pytest.approx(blue.score - red.score, abs=1e-4)
    torch.testing.assert_close(contrast.map, blue.map - red.map, atol=1e-5, rtol=1e-3)
    assert [word for word, _ in blue.importances] == ["what", "color", "is", "the", "ball"]
    assert any(value != 0 for _, value in blue.importances)


@pytest.mark.parametrize("method", [gradcam, layercam, smooth(hirescam, count=2)])
def test_other_methods_work_too(task: Any, method: Any) -> None:
    made = explain(task, picture(), method=method, **asked(task))
    assert torch.isfinite(made.maps).all()
    assert bool((made.maps != 0).any())


def test_top_answers_are_the_models_beams(task: Any) -> None:
    if "question" not in task.adapter.query_types:
        pytest.skip("answers no questions")
    made = explain(task, picture(), question=QUESTION, top=2)
    assert len(set(made.labels)) == len(made) <= 2
    assert all(made.labels)
    assert [t.probability for t in made.targets] == pytest.approx(made.scores.exp().tolist(), rel=1e-3)


def test_what_a_model_does_not_take_is_said(task: Any) -> None:
    takes = task.adapter.query_types
    wrong = (
        {"question": QUESTION} if "question" not in takes else {"caption": CAPTION} if "caption" not in takes else {"top": 3}
    )
    with pytest.raises(InputError, match="is asked with"):
        explain(task, picture(), **wrong)


def test_a_layer_nothing_reads_is_said(folder: Path) -> None:
    """LLaVA reads the vision encoder's last layer but one."""
    task: Any = load(folder / "llava" if (folder / "llava").exists() else saved("llava", folder))
    vision = next(name for name, _ in task.model.named_modules() if name.endswith("layers.1") and "vision" in name)
    with pytest.raises(ModelError, match=r"no gradient (can reach|reaches)"):
        explain(task, picture(), caption=CAPTION, target_layers=[vision])
    made = explain(task, picture(), caption=CAPTION, target_layers=[vision.replace("layers.1", "layers.0")])
    assert made.maps.shape == (5, 4, 4)


@pytest.mark.parametrize("name", ["blip", "llava", "smolvlm"])
def test_half_precision_draws_the_same_picture(folder: Path, name: str) -> None:
    made: Any = load(folder / name if (folder / name).exists() else saved(name, folder))
    exact = explain(made, picture(), caption=CAPTION)
    made.model.bfloat16()
    rough = explain(made, picture(), caption=CAPTION)
    assert rough.maps.dtype == torch.float32
    for a, b in zip(exact, rough, strict=True):
        assert torch.cosine_similarity(a.map.flatten(), b.map.flatten(), 0) > 0.95


def test_a_model_can_be_spread_over_devices(folder: Path) -> None:
    pytest.importorskip("accelerate")
    where = folder / "llava" if (folder / "llava").exists() else saved("llava", folder)
    spread = explain(load(where, device_map={"": "cpu"}), picture(), caption=CAPTION)
    torch.testing.assert_close(spread.maps, explain(load(where, "cpu"), picture(), caption=CAPTION).maps)


def test_the_models_own_generation_settings_are_kept(task: Any) -> None:
    """What forbids tokens or stops a text holds; what would return something else than tokens does not get in the way."""
    query = {} if "caption" in task.adapter.query_types else {"question": QUESTION}
    told = explain(task, picture(), **query).targets[0].value
    with torch.no_grad():
        features = task.encode(task.prepare(picture()).pixels[None].double())

    def text() -> tuple[int, ...]:
        with torch.no_grad():
            return task.adapter.write(features, told.prompt, 40, 1)[0].tokens

    kept = task.adapter.generator.generation_config
    texts = [task.text(told.text[:n]) for n in range(1, len(told.text) + 1)]
    stop = (texts[len(texts) // 2] or texts[-1])[-2:]
    first = next(n for n, some in enumerate(texts, 1) if stop in some)
    try:
        task.adapter.generator.generation_config = own = type(kept)(
            **{**kept.to_dict(), "return_dict_in_generate": True, "output_scores": True, "num_beams": 3, "temperature": 0.5}
        )
        before = own.to_dict()
        assert text() == told.text
        own.stop_strings = [stop]
        assert text() == told.text[:first]
        own.stop_strings, own.suppress_tokens = None, [told.text[0]]
        assert told.text[0] not in text()
        assert getattr(task.adapter, "image", -1) not in text()
        own.suppress_tokens = None
        assert own.to_dict() == before
        assert task.adapter.generator.generation_config is own
    finally:
        task.adapter.generator.generation_config = kept


def test_settings_that_are_not_used_are_told(folder: Path) -> None:
    made: Any = load(folder / "blip" if (folder / "blip").exists() else saved("blip", folder))
    made.adapter.generator.generation_config.update(do_sample=True, num_beams=4, temperature=0.3, repetition_penalty=1.2)
    with pytest.warns(UserWarning, match=r"own do_sample=True, num_beams=4 is not used"):
        type(made)(made.adapter)


def test_a_text_that_is_cut_says_so(task: Any, tmp_path: Path) -> None:
    query = {} if "caption" in task.adapter.query_types else {"question": QUESTION}
    whole = explain(task, picture(), max_new_tokens=100, **query)
    text = whole.targets[0].value.text
    most = len(text) - 1
    short = explain(task, picture(), max_new_tokens=most, **query)
    assert short.targets[0].value.text == text[:most]
    (said,) = short.metadata.remarks
    assert f"cut after {most} tokens" in said
    assert bool(whole.metadata.remarks) == (len(text) == 100)
    assert short.describe()["remarks"] == [said]
    short.save(tmp_path)
    assert said in (tmp_path / "index.html").read_text()
    assert short.load(tmp_path).metadata.remarks == (said,)
    for wrong in (0, -1, True, "9"):
        with pytest.raises(InputError, match="max_new_tokens: expected a whole number of 1 or more"):
            explain(task, picture(), max_new_tokens=wrong, **query)


def test_a_processor_without_chat_template_is_said(task: Any) -> None:
    """And a prompt that holds the picture's token is taken as it is."""
    processor = getattr(task.adapter, "processor", None)
    if not getattr(processor, "chat_template", None):
        pytest.skip("needs no chat template")
    whole = task.adapter.written("what color is the ball ?")
    expected = explain(task, picture(), caption=CAPTION, prompt="what color is the ball ?")
    kept, processor.chat_template = processor.chat_template, None
    try:
        with pytest.raises(InputError, match="no chat template"):
            explain(task, picture(), caption=CAPTION)
        own = explain(task, picture(), caption=CAPTION, prompt=whole)
    finally:
        processor.chat_template = kept
    torch.testing.assert_close(own.scores, expected.scores)


def test_a_tensor_for_a_model_of_tiles_is_said(task: Any) -> None:
    if not isinstance(task.adapter, Tiled):
        pytest.skip("sees one picture")
    for pixels in (torch.zeros(3, 32, 32), torch.zeros(2, 3, 32, 32), task.prepare(picture()).pixels):
        with pytest.raises(InputError, match=r"expected a (picture|prepared tensor)"):
            explain(task, pixels, caption=CAPTION)
