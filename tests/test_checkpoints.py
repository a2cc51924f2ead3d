"""The bundled models do what their cards say, on held-out scenes: enough of them to see a loss of quality."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
import torch
from conftest import data
from safetensors import safe_open

from mmgradcam import checkpoints, explain
from mmgradcam.datasets.scene_source import scenes
from mmgradcam.datasets.sources import open_data
from mmgradcam.evaluation.goto import evaluate_goto
from mmgradcam.evaluation.reports import figures_of
from mmgradcam.evaluation.run import audit
from mmgradcam.scenes.render import render
from mmgradcam.scenes.scene import make_scene
from mmgradcam.tasks import load

SCENES, PHOTOS = 64, 30
OF_SCENES = [name for name in checkpoints.names() if name.startswith("scenes-")]
OF_PHOTOS = [name for name in checkpoints.names() if name.startswith("photo-")]


def test_the_models_promised_are_there() -> None:
    assert OF_SCENES == ["scenes-captioner", "scenes-captioner-transformer", "scenes-vqa", "scenes-vqa-transformer"]
    assert OF_PHOTOS == ["photo-captioner", "photo-captioner-small", "photo-captioner-transformer", "photo-vqa"]
    sizes = [(checkpoints.folder(name) / "model.safetensors").stat().st_size for name in checkpoints.names()]
    assert max(sizes) < 10 * 2**20
    assert sum(sizes) < 25 * 2**20


@pytest.mark.parametrize("name", checkpoints.names())
def test_weights_are_plain_tensors_of_few_bits(name: str) -> None:
    with safe_open(str(checkpoints.folder(name) / "model.safetensors"), "pt") as file:
        tensors = [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118
    assert all(t.dtype in (torch.float16, torch.int8, torch.int64) and torch.isfinite(t).all() for t in tensors)


def test_answers_about_photos_rest_on_the_picture() -> None:
    """Each kind of question gains 15 points by the picture, and over the usual answer; maps of right answers, over the centre."""
    card = checkpoints.config(checkpoints.folder("photo-vqa"))["figures"]
    kinds = card["kinds"]
    assert len(kinds) == 14
    for kind, found in kinds.items():
        own, *without = (found[key]["mean"] for key in ("correct", "blind_accuracy", "majority_prior"))
        assert own >= max(without) + 0.15, kind
    assert card["all"]["pointing_correct"]["mean"] >= card["all"]["baseline_center_correct"]["mean"] + 0.15


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_SCENES)
def test_a_model_is_as_good_as_its_card(name: str) -> None:
    """Within what chance allows for so few scenes: 4 standard errors below the card's figures, or 5 points."""
    task = load(name, device="cpu")
    steps: list[int] = []

    def counting(items: Iterable[int], count: int) -> Iterator[int]:
        for item in items:
            steps.append(count)
            yield item

    made = audit(
        task, scenes("test", generated=True), [task.method], ["pointing", "heat", "statements"], limit=SCENES, batch=32,
        progress=counting,
    )  # fmt: skip
    found, card = figures_of(made, made.methods[0]), checkpoints.config(checkpoints.folder(name))["figures"]
    assert steps == [2, 2]
    own = found["all"]["correct"]
    _near(own["mean"], card["all"]["correct"]["mean"], own["rows"])
    captions = "caption_true" in card["all"]
    for role in ("kind", "color") if captions else (None,):
        f, told = (one["kinds"][role] if role else one["all"] for one in (found, card))
        rows = f["pointing"]["rows"]
        _near(f["pointing"]["mean"], told["pointing"]["mean"], rows)
        _near(f["pointing_unfilled"]["mean"], told["pointing_unfilled"]["mean"], rows)
        _near(1 - f["pointing_swapped_pairs"]["mean"], 1 - told["pointing_swapped_pairs"]["mean"], rows)
        assert f["inside_outside"]["mean"] > 0.5 * told["inside_outside"]["mean"]
        assert f["baseline_center"]["mean"] < 0.5
        assert f["baseline_random"]["mean"] < 0.2


@pytest.mark.slow
def test_the_policy_goes_where_it_is_told_as_its_card_says() -> None:
    pytest.importorskip("minigrid", reason="minigrid is not installed")
    card = checkpoints.config(checkpoints.folder("babyai-goto"))["figures"]
    assert card["success"] >= 0.95
    task = load("babyai-goto", device="cpu")
    _near(evaluate_goto(task, 60, maps=False)["success"], card["success"], 60)
    found = evaluate_goto(task, 12)["pointing"]
    _near(found["own"], card["pointing"]["own"], 12)  # steps of an episode are alike
    assert found["random"] < 0.1


@pytest.mark.slow
def test_the_model_of_clips_is_as_good_as_its_card() -> None:
    card = checkpoints.config(checkpoints.folder("clips-motion"))["figures"]
    rivals, metrics = list(card["faithfulness"]), ["pointing", "heat", "accuracy", "drop"]
    made = audit(load("clips-motion", device="cpu"), open_data("motions"), rivals, metrics, limit=24)
    found = {name: figure.mean for name, figure in made.figures(rivals[0]).items()}
    for name in ("top1_accuracy", "pointing"):
        _near(found[name], card["all"][name]["mean"], 24)  # frames of a clip are alike
    assert found["inside_outside"] > 0.5 * card["all"]["inside_outside"]["mean"]
    for method, told in card["faithfulness"].items():
        assert abs(made.figures(method, "true")["average_drop"].mean - told["average_drop"]) < 0.15


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", OF_PHOTOS)
def test_a_model_is_as_good_on_photos_as_its_card(name: str) -> None:
    photos = open_data(data() / "flickr8k" / "val.parquet")
    apart = data() / "mobilenet_v2_1.0_224" if checkpoints.needs_encoder(name) else None
    task, card = load(name, device="cpu", encoder=apart), checkpoints.config(checkpoints.folder(name))["figures"]
    made = audit(
        task, photos, [task.method], ["pointing", "answers", "correct_answers"] if "vqa" in name else ["pointing"], limit=PHOTOS
    )
    (method,) = made.methods
    found, told = made.figures(method), card["all"]
    if "vqa" in name:
        _near(found["correct"].mean, told["correct"]["mean"], found["correct"].rows)
        assert found["correct"].mean > found["blind_accuracy"].mean + 0.1
        for kind in made.kinds():
            if one := made.figures(method, kind).get("pointing_correct"):
                _near(one.mean, card["kinds"][kind]["pointing_correct"]["mean"], one.rows)
        return
    assert found["pointing"].rows > 300
    _near(found["pointing"].mean, told["pointing"]["mean"], found["pointing"].rows)
    assert found["pointing"].mean > found["pointing_swapped"].mean + 0.1
    of_captions = audit(task, photos, [task.method], ["captions"], limit=120).wholes(method)
    assert of_captions["bleu4"] > card["wholes"]["bleu4"] - 0.05  # of 120 photos it varies by 2 points


@pytest.mark.parametrize("name", ["photo-captioner-small"])
def test_a_photo_is_captioned_without_any_download(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.cbook import get_sample_data

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = explain(load(name, device="cpu"), get_sample_data("grace_hopper.jpg", asfileobj=False))
    assert "woman" in words.labels or "man" in words.labels
    assert all(one.map.max() > 0 for one in words)


def _near(found: float, told: float, count: int) -> None:
    assert found > told - max(0.05, 4 * (told * (1 - told) / count) ** 0.5), (found, told)


def test_generated_captions_are_the_likeliest_word_by_word() -> None:
    picture = render(make_scene(31)).image
    task = load("scenes-captioner", device="cpu")
    generated = explain(task, picture)
    given = explain(task, picture, caption=generated.text)
    assert torch.allclose(generated.scores, given.scores, atol=1e-4)
    assert torch.allclose(generated.maps, given.maps, atol=1e-3)
