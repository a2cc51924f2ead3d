"""How much a word or an answer rests on the picture: told, drawn and saved."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmgradcam import Explanation, explain
from mmgradcam.render.pages import page, times
from mmgradcam.tasks import VQA, Captioning, load


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    image = Image.new("RGB", (96, 96), (90, 90, 90))
    image.paste((220, 30, 30), (20, 30, 60, 70))
    return image


@pytest.mark.parametrize("unit", ["log-probability", "word logit"])
def test_it_is_the_log_probability_less_that_of_a_grey_picture(unit: str, picture: Image.Image) -> None:
    task = load("scenes-captioner", device="cpu")
    assert isinstance(task, Captioning)
    task.unit = unit
    made = explain(task, picture, caption="a red cube", grounding=True)
    grey = Image.new("RGB", picture.size, (128, 128, 128))
    tokens = torch.tensor([[1, *task.vocabulary.encode(["a", "red", "cube"])]])
    likely = []
    with torch.no_grad():
        for shown in (picture, grey):
            features = task.encode(task.prepare(shown).pixels[None])
            logp = task.head.out(torch.stack(list(task.head.steps(features, tokens)), 1)).log_softmax(-1)[0]
            likely.append([float(logp[i, tokens[0, i + 1]]) for i in range(3)])
    for target, seen, blind in zip(made.targets, *likely, strict=True):
        assert target.grounding == pytest.approx(seen - blind, abs=1e-3)


def test_an_answer_relies_on_the_picture_too(picture: Image.Image) -> None:
    task = load("scenes-vqa", device="cpu")
    assert isinstance(task, VQA)
    made = explain(task, picture, question="what color is the cube?", answer="red", contrast="blue", grounding=True)
    features, blank = (
        task.encode(task.prepare(shown).pixels[None]).detach()
        for shown in (picture, Image.new("RGB", picture.size, (128,) * 3))
    )
    asked = torch.tensor([made.targets[0].value.question])
    seen, blind = (task.head(x, asked).detach().log_softmax(-1)[0] for x in (features, blank))
    red, blue = task.labels.index("red"), task.labels.index("blue")
    assert made.targets[0].grounding == pytest.approx(float(seen[red] - blind[red]), abs=1e-3)
    assert made.targets[1].grounding == pytest.approx(float(seen[red] - seen[blue] - blind[red] + blind[blue]), abs=1e-3)


def test_grey_is_encoded_once_and_only_if_asked_for(picture: Image.Image) -> None:
    task = load("scenes-captioner", device="cpu")
    sizes: list[int] = []
    whole = task.encode
    task.encode = lambda images: (sizes.append(len(images)), whole(images))[1]  # type: ignore[func-returns-value, method-assign]
    made = explain(task, [picture] * 3, caption="a red cube", batch=2)
    assert sum(sizes) == 3
    assert made[0].targets[0].grounding is None
    sizes.clear()
    explain(task, [picture] * 3, caption="a red cube", batch=2, grounding=True)
    assert sum(sizes) == 3 + 1
    sizes.clear()
    task.fit = replace(task.fit, mean=(0.4, 0.4, 0.4))
    explain(task, [picture, picture.resize((96, 48)), picture], caption="a red cube", grounding=True)
    assert sum(sizes) == 3 + 3  # grey padded otherwise is another picture


def relied(grounding: float, picture: Image.Image) -> Explanation:
    made = explain(load("scenes-captioner", device="cpu"), picture, caption="a red cube", grounding=True)[2]
    assert isinstance(made, Explanation)
    object.__setattr__(made.targets[0], "grounding", grounding)
    return made


def test_a_word_that_hardly_rests_on_the_picture_is_drawn_faintly(picture: Image.Image) -> None:
    plain = np.asarray(picture).astype(float)
    strong, weakly_grounded = (np.asarray(relied(r, picture).overlay()).astype(float) for r in (math.log(1.6), math.log(1.4)))
    assert np.abs(weakly_grounded - plain).mean() < 0.5 * np.abs(strong - plain).mean()
    assert "about as likely without the image (×1.1)" in page(relied(0.1, picture))
    assert "likelier without the image (×0.1)" in page(relied(math.log(0.1), picture))
    assert "×3.0 as likely with the image" in page(relied(math.log(3), picture))


def test_it_is_saved_and_read_back(picture: Image.Image, tmp_path: Path) -> None:
    made = explain(load("scenes-captioner", device="cpu"), picture, caption="a red cube", grounding=True)
    made.save(tmp_path / "saved")
    back = Explanation.load(tmp_path / "saved")
    assert [t.grounding for t in back.targets] == pytest.approx([t.grounding for t in made.targets])
    assert [one.caption() for one in back] == [one.caption() for one in made]


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "×1.0"), (-0.7, "×0.5"), (-3.4, "×0.03"), (-50.0, "<×0.01"), (2.3, "×10"), (50.0, ">×999")]
)
def test_how_many_times_is_short(value: float, said: str) -> None:
    assert times(value) == said
