"""The bundled models do what their cards say, on held-out scenes: enough of them to see a loss of quality."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from safetensors import safe_open

from mmgradcam import checkpoints, explain
from mmgradcam.bulk.evaluate import evaluate
from mmgradcam.data.render import render
from mmgradcam.data.scenes import make_scene
from mmgradcam.tasks import load

SCENES = 64


def test_the_models_promised_are_there() -> None:
    assert checkpoints.names() == ["scenes-captioner", "scenes-captioner-transformer", "scenes-vqa", "scenes-vqa-transformer"]
    sizes = [(checkpoints.folder(name) / "model.safetensors").stat().st_size for name in checkpoints.names()]
    assert max(sizes) < 10 * 2**20
    assert sum(sizes) < 25 * 2**20


@pytest.mark.parametrize("name", checkpoints.names())
def test_weights_are_plain_half_precision_tensors(name: str) -> None:
    with safe_open(str(checkpoints.folder(name) / "model.safetensors"), "pt") as file:
        tensors = [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118
    assert all(t.dtype in (torch.float16, torch.int64) and torch.isfinite(t).all() for t in tensors)


@pytest.mark.parametrize("name", checkpoints.names())
def test_a_model_is_as_good_as_its_card(name: str) -> None:
    """Within what chance allows for so few scenes: 4 standard errors below the card's figures, or 5 points."""
    task = load(name, device="cpu")
    steps: list[int] = []

    def counting(items: Iterable[int], count: int) -> Iterator[int]:
        for item in items:
            steps.append(count)
            yield item

    found, card = evaluate(task, SCENES, progress=counting), checkpoints.config(checkpoints.folder(name))["figures"]
    assert steps == [2, 2]
    kind = "statements" if "statements" in card else "accuracy"
    _near(found[kind]["all"], card[kind]["all"], found[kind]["number"])
    for role, f in found["localization"].items():
        told: dict[str, Any] = card["localization"][role]
        _near(f["peak"], told["peak"], f["count"])
        _near(f["strict"], told["strict"], f["count"])
        _near(1 - f["swapped"], 1 - told["swapped"], f["count"])
        assert f["inside_outside"] > 0.5 * told["inside_outside"]
        assert f["centre"] < 0.5
        assert f["random"] < 0.2


def _near(found: float, told: float, count: int) -> None:
    assert found > told - max(0.05, 4 * (told * (1 - told) / count) ** 0.5), (found, told)


def test_generated_captions_are_the_likeliest_word_by_word() -> None:
    picture = render(make_scene(31)).image
    task = load("scenes-captioner", device="cpu")
    generated = explain(task, picture)
    given = explain(task, picture, caption=generated.text)
    assert torch.allclose(generated.scores, given.scores, atol=1e-4)
    assert torch.allclose(generated.maps, given.maps, atol=1e-3)
