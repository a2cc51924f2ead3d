"""ViLT: patches the model shuffles are put in order again, and its answers are its classifier's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hub_models import saved
from PIL import Image

from mmgradcam import InputError, explain, hirescam
from mmgradcam.tasks import load

QUESTION = "what color is the ball?"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: Any = load(saved("vilt", tmp_path_factory.mktemp("hub")))
    made.model.double()
    return made


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8))


def test_logits_and_gradients_are_the_unsplit_models(task: Any) -> None:
    """Whatever order the model shuffles the patches into."""
    embeddings = task.model.vilt.embeddings
    own, kept = embeddings.visual_embed, []

    def keep(*args: Any, **more: Any) -> Any:
        made, mask, index = own(*args, **more)
        kept[:] = [made.detach().requires_grad_(), index]
        return kept[0], mask, index

    pixels = task.prepare(picture()).pixels[None].double()
    ids = torch.tensor([task.tokenizer(QUESTION)["input_ids"]])
    embeddings.visual_embed = keep
    try:
        logits = task.model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels).logits[0]
    finally:
        del embeddings.visual_embed
    made = explain(task, picture(), question=QUESTION, answer=task.labels, method=hirescam)
    torch.testing.assert_close(made.scores, logits.detach().float(), atol=1e-5, rtol=1e-5)
    leaf, (place, (_, columns)) = kept
    for one, logit in zip(made, logits, strict=True):
        gradient = torch.autograd.grad(logit, leaf, retain_graph=True)[0]
        cells = (leaf * gradient).sum(-1)[0, 1:]
        for value, (row, column) in zip(cells, place[0].tolist(), strict=True):
            assert one.map[row, column].item() == pytest.approx(value.item(), abs=1e-5)
        assert one.map.shape[1] == columns


@pytest.mark.parametrize("at", [(0.1, 0.15), (0.45, 0.8), (0.9, 0.4)])
def test_a_lit_patch_is_seen_where_it_is(task: Any, at: tuple[float, float]) -> None:
    dark = Image.new("RGB", (84, 40), (90, 90, 90))
    lit = dark.copy()
    x, y = round(at[0] * 84), round(at[1] * 40)
    lit.paste((255, 255, 255), (x - 2, y - 2, x + 2, y + 2))
    with torch.no_grad():
        before, after = (task.encode(task.prepare(image).pixels[None].double())[0] for image in (dark, lit))
    change = (after - before).abs().sum(0)
    row, column = divmod(int(change.argmax()), change.shape[1])
    assert abs((column + 0.5) / change.shape[1] - at[0]) < 1.01 / change.shape[1]
    assert abs((row + 0.5) / change.shape[0] - at[1]) < 1.01 / change.shape[0]


def test_answers_contrasts_and_the_questions_words(task: Any) -> None:
    blue, contrast = explain(task, picture(), question=QUESTION, answer="blue", contrast="red")
    red = explain(task, picture(), question=QUESTION, answer="red")
    assert contrast.score == pytest.approx(blue.score - red.score, abs=1e-5)
    assert [word for word, _ in blue.importances] == ["what", "color", "is", "the", "ball"]
    assert any(value != 0 for _, value in blue.importances)
    assert len(explain(task, picture(), question=QUESTION, top=3)) == 3


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({}, "question="),
        ({"question": " "}, "question: expected a sentence"),
        ({"question": QUESTION, "answer": "blu"}, "blue"),
        ({"question": QUESTION, "answer": "red", "contrast": "red"}, "another"),
        ({"question": QUESTION, "top": 9}, "1 to 3"),
        ({"question": "a " * 600}, "at most"),
        ({"question": QUESTION, "caption": "a dog"}, "caption"),
    ],
)
def test_what_it_cannot_be_asked_is_said(task: Any, query: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        explain(task, picture(), **query)
