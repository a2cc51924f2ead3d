"""The check of one map: its rule on both sides of each limit, what hiding costs by hand, and the words that people read."""

from __future__ import annotations

import json
import math
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Classes
from PIL import Image
from torch import Tensor, nn

from mmgradcam import Explanation, InputError, Target, Task, explain, hirescam
from mmgradcam.cli.tables import show_verdicts
from mmgradcam.explanation import FAIL, PASS, WEAK, SanityResult
from mmgradcam.images.pictures import PreparedImage, whole
from mmgradcam.metrics import sanity
from mmgradcam.metrics.sanity import (
    has_likelihood,
    hottest,
    random_parts,
    sanity_check,
    sanity_result_of,
    topk_occlusion_drop,
    topk_sufficiency,
    within,
)
from mmgradcam.metrics.sensitivity import Noise
from mmgradcam.render.pages import page
from mmgradcam.storage.record import sanity_results_of
from mmgradcam.storage.version1 import upgraded

GOOD = {
    "weights": 0.08, "noise": 0.93, "hot_tenth": 2.1, "other_tenth": 0.3, "hot_quarter": 2.0, "other_quarter": 0.9,
    "shown_quarter": 0.4, "shown_other": 0.2,
}  # fmt: skip


def test_a_map_that_passes_says_what_hiding_costs() -> None:
    made = sanity_result_of(None, "nats", GOOD)
    assert str(made) == (
        "map passes: the map changes when the model's weights are made random (r .08), holds under noise (r .93), and "
        "hiding its hottest tenth costs 2.1 nats, a random tenth .30"
    )
    assert (made.passes, made.fails, made.figures) == (True, False, GOOD)
    assert "the map changes somewhat when" in sanity_result_of(None, "nats", {**GOOD, "weights": 0.5}).reason
    assert "the map changes when" in sanity_result_of(None, "nats", {**GOOD, "weights": 0.49}).reason
    quarter = sanity_result_of(None, "of the logit", {**GOOD, "hot_tenth": 0.0, "hot_quarter": 1.9})
    assert quarter.reason.endswith("hiding its hottest quarter costs 1.9 of the logit, a random quarter .90")
    enough = sanity_result_of(None, "nats", {**GOOD, "hot_tenth": 0.4, "hot_quarter": 0.7, "shown_quarter": 2.4})
    assert enough.reason.endswith(
        "hiding its hottest tenth costs .40 nats, a random tenth .30; showing nothing but its hottest quarter gives back 2.4, "
        "a random quarter .20"
    )


@pytest.mark.parametrize(
    ("figures", "short", "why"),
    [
        ({"weights": 0.8}, FAIL, "little of the map changes when the model's weights are made random (r .80)"),
        ({"weights": 0.79}, PASS, ""),
        ({"noise": 0.49}, FAIL, "noise that nobody would see makes another map of it (r .49)"),
        ({"noise": 0.5}, PASS, ""),
        ({"noise": math.nan}, FAIL, "another map of it (r nan)"),
        ({"weights": math.nan}, FAIL, "little of the map changes"),
        ({"weights": 0.9, "noise": 0.1, "hot_tenth": 0.0, "hot_quarter": 0.0}, FAIL, "little of the map changes"),
        ({"noise": -0.2, "hot_tenth": 0.0, "hot_quarter": 0.0}, FAIL, "another map of it (r -.20)"),
        ({"hot_tenth": 0.61, "hot_quarter": 0.9}, PASS, ""),
        ({"hot_tenth": 0.6, "other_tenth": 0.3, "hot_quarter": 0.9, "shown_quarter": 9.0}, PASS, "random tenth .30"),
        ({"hot_tenth": 0.59, "hot_quarter": 0.9}, WEAK, "hottest tenth costs .59 nats, hardly more than a random tenth (.30)"),
        ({"hot_tenth": 0.3, "hot_quarter": 1.21}, PASS, ""),
        ({"hot_tenth": 0.3, "hot_quarter": 1.19}, WEAK, "quarter costs 1.2 nats, hardly more than a random quarter (.90)"),
        ({"hot_tenth": 0.36, "hot_quarter": 0.9, "shown_quarter": 1.21}, PASS, "gives back 1.2"),
        ({"hot_tenth": 0.3, "hot_quarter": 0.96, "shown_quarter": 1.21}, PASS, "gives back 1.2"),
        ({"hot_tenth": 0.34, "hot_quarter": 0.94, "shown_quarter": 9.0}, WEAK, "hardly more"),
        ({"hot_tenth": 0.36, "hot_quarter": 0.9, "shown_quarter": 1.19}, WEAK, "hardly more"),
        ({"hot_tenth": 0.36, "hot_quarter": 0.9, "shown_quarter": 1.21, "shown_other": 0.3}, WEAK, "hardly more"),
        ({"hot_tenth": 0.3, "hot_quarter": 0.9}, WEAK, "hottest tenth costs .30 nats, no more than a random tenth (.30)"),
        (
            {"hot_tenth": 0.05, "other_tenth": 0.0, "hot_quarter": 0.0, "shown_quarter": 1.5, "shown_other": 0.5},
            PASS,
            "costs .05 nats, a random tenth 0;",
        ),
        (
            {"hot_tenth": 0.05, "other_tenth": 0.0, "hot_quarter": 0.0, "shown_quarter": 1.4, "shown_other": 0.5},
            WEAK,
            "costs .05 nats",
        ),
        ({"weights": 0.004}, PASS, "made random (r 0),"),
        ({"weights": -0.006}, PASS, "made random (r -.01),"),
        ({"hot_tenth": 0.95, "hot_quarter": 0.9}, PASS, "costs 0.9 nats"),
        ({"hot_tenth": 0.949, "hot_quarter": 0.9}, PASS, "costs .95 nats"),
        ({"hot_tenth": 10.06}, PASS, "costs 10.1 nats"),
        ({"hot_tenth": -0.004, "hot_quarter": 0.2}, WEAK, "costs 0 nats, no more"),
        ({"hot_tenth": 0.1, "hot_quarter": 0.4}, WEAK, "hottest tenth costs .10 nats, no more than a random tenth (.30)"),
    ],
)
def test_each_limit_on_both_sides(figures: dict[str, float], short: str, why: str) -> None:
    made = sanity_result_of(None, "nats", {**GOOD, **figures})
    assert made.status == short
    assert why in made.reason
    gain = max(
        made.figures["hot_tenth"] - made.figures["other_tenth"], made.figures["hot_quarter"] - made.figures["other_quarter"]
    )
    assert ("showing nothing but" in made.reason) == (made.passes and gain < 0.3)
    assert (made.passes, made.fails) == (short == PASS, short == FAIL)


def test_a_map_that_shows_nothing_fails_with_the_reason() -> None:
    assert str(sanity_result_of("no gradient", "nats", GOOD)) == "map fails: the map shows nothing (no gradient)"


def test_the_check_puts_the_figures_together(classes: Classes, pixels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def label_randomization(explanation: Explanation, seeds: range) -> Any:
        asked.append(seeds)
        return np.array([[0.1, 0.2, 0.9], [0.3, 0.4, 0.9], [0.2, 0.6, 0.9]])

    def noise(explanation: Explanation, seed: int) -> Noise:
        asked.append(seed)
        return Noise(np.zeros(3), np.array([0.9, 0.8, 0.7]), np.zeros((8, 3)))

    def hidden(explanation: Explanation, area: float, *, seed: int) -> Any:
        asked.append((area, seed))
        return np.array([1.0, 0.1, 1.0]) * area, np.array([0.2, 0.3, 0.1]) * area

    def only(explanation: Explanation, area: float, *, seed: int) -> Any:
        asked.append((area, "shown", seed))
        return np.array([3.0, 0.1, 3.0]), np.array([1.5, 0.3, 0.1])

    for name, function in (
        ("label_randomization", label_randomization),
        ("noise_sensitivity", noise),
        ("topk_occlusion_drop", hidden),
        ("topk_sufficiency", only),
    ):
        monkeypatch.setattr(sanity, name, function)
    made = sanity_check(explain(classes, pixels, method=hirescam), seed=2)
    assert asked == [range(6, 9), 2, (0.1, 2), (0.25, 2), (0.25, "shown", 2)]
    first = made.sanity_results[0]
    assert first is not None
    assert first.figures == pytest.approx(
        {
            "weights": 0.2, "noise": 0.9, "hot_tenth": 0.1, "other_tenth": 0.02, "hot_quarter": 0.25, "other_quarter": 0.05,
            "shown_quarter": 3.0, "shown_other": 1.5,
        }
    )  # fmt: skip
    assert [one and one.status for one in made.sanity_results] == [PASS, WEAK, FAIL]
    assert "costs .25 of the score, a random quarter .05; showing" in first.reason
    asked.clear()
    sanity_check(explain(classes, pixels, method=hirescam))
    assert asked == [range(3), 0, (0.1, 0), (0.25, 0), (0.25, "shown", 0)]


class Corner(Task):
    """The mean of the upper left quarter of the picture, and of nothing but it."""

    unit = "log-probability"

    def __init__(self) -> None:
        self.scale = nn.Conv2d(3, 1, 1)
        nn.init.constant_(self.scale.weight, 1.0)
        nn.init.zeros_(self.scale.bias)

    def encode(self, images: Tensor) -> Tensor:
        return self.scale(images)

    def targets(self, features: Tensor) -> list[Target]:
        return [Target("corner")]

    def score(self, features: Tensor, targets: list[Target]) -> Tensor:
        return features[:, 0, :8, :8].mean((1, 2)) - 3


def test_hiding_costs_what_the_part_is_worth() -> None:
    heat = torch.zeros(10, 10)
    heat[2, 3] = 1.0
    assert hottest(heat, 1).nonzero().tolist() == [[2, 3]]
    inside = within((-0.25, 0.0, 1.25, 1.0), (2, 10, 12))  # two frames, padded left and right by two cells
    assert inside.float().mean((0, 1)).tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    parts = random_parts(inside, 32, 4, 0)
    assert [int(part.sum()) for part in parts] == [32] * 4
    assert not any((part & ~inside).any() for part in parts)
    assert (parts[0] != parts[1]).any()
    x = torch.zeros(3, 16, 16)
    x[:, :8, :8] = 1.0
    made = explain(Corner(), x, method=hirescam)
    hot, other = topk_occlusion_drop(made, area=0.25)
    assert hot[0] == pytest.approx(3 * (1 - 0.25), abs=1e-5)  # its three channels become the picture's mean, a quarter
    assert 0 < other[0] < hot[0] / 2
    cold = explain(Corner(), x, method=lambda features, gradients: torch.relu(1 - features).sum(1))
    hot, other = topk_occlusion_drop(cold, area=0.25)
    assert hot[0] == pytest.approx(0, abs=1e-6)
    assert other[0] > 0.05


class Apart(Corner):
    """The mean of the upper left quarter less that of the rest, which speaks against it."""

    unit = "score"

    def score(self, features: Tensor, targets: list[Target]) -> Tensor:
        corner = features[:, 0, :8, :8].sum((1, 2))
        return 1 + corner / 64 - (features[:, 0].sum((1, 2)) - corner) / 192


def test_of_the_hottest_part_only_what_has_heat_is_hidden() -> None:
    x = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    made = explain(Apart(), x, method=hirescam)
    grey = x.mean((1, 2), keepdim=True).expand_as(x)

    def cost(*masks: Tensor) -> float:
        return float(np.mean([float(made.score - explain(Apart(), torch.where(m, grey, x)).score) for m in masks]))

    corner = torch.zeros(16, 16, dtype=torch.bool)
    corner[:8, :8] = True
    hot, other = topk_occlusion_drop(made, area=0.5, count=3, seed=4)
    assert hot[0] == pytest.approx(cost(corner), abs=1e-5)
    assert other[0] == pytest.approx(cost(*random_parts(torch.ones(16, 16, dtype=torch.bool), 128, 3, 4)), abs=1e-5)
    heat, rest = torch.relu(made.maps[0]), torch.ones(16, 16, dtype=torch.bool)
    hot, other = topk_sufficiency(made, count=3, seed=4)  # a quarter
    parts = random_parts(rest, 64, 3, 4)
    assert hot[0] == pytest.approx(cost(rest) - cost(~corner), abs=1e-5)
    assert other[0] == pytest.approx(cost(rest) - cost(*(~part for part in parts)), abs=1e-5)
    hot, other = topk_sufficiency(made)  # a quarter, and eight random parts of seed 0
    assert hot[0] == pytest.approx(cost(rest) - cost(~corner), abs=1e-5)
    assert other[0] == pytest.approx(cost(rest) - cost(*(~part for part in random_parts(rest, 64, 8, 0))), abs=1e-5)
    assert topk_occlusion_drop(made, area=0.001)[0] == pytest.approx(cost(hottest(heat, 1)), abs=1e-5)  # one pixel at least
    hot, other = topk_occlusion_drop(made)  # a tenth, and eight random parts of seed 0
    assert hot[0] == pytest.approx(cost(hottest(heat, 26)), abs=1e-5)
    assert other[0] == pytest.approx(cost(*random_parts(torch.ones(16, 16, dtype=torch.bool), 26, 8, 0)), abs=1e-5)


def test_pixels_whose_middle_lies_on_the_edge_of_the_picture_are_padding() -> None:
    for low, high, kept in ((-0.125, 0.875, [0, 1, 1, 1]), (0.125, 1.125, [1, 1, 1, 0]), (-0.12, 0.88, [1, 1, 1, 1])):
        assert within((low, 0.0, high, 1.0), (2, 4)).int().tolist() == [kept] * 2
        assert within((0.0, low, 1.0, high), (3, 4, 2)).int().tolist() == [[[one] * 2 for one in kept]] * 3


def test_parts_by_hand() -> None:
    ties = torch.tensor([[1.0, 2.0, 1.0], [2.0, 1.0, 0.0]])
    assert hottest(ties, 3).tolist() == [[True, True, False], [True, False, False]]  # of equals the first
    assert not hottest(ties, 0).any()
    clip = random_parts(torch.ones(3, 8, 8, dtype=torch.bool), 30, 1, 5)[0]
    assert (clip[0] == clip[1]).float().mean() > 0.9  # one blob through all frames
    one, same, other = (random_parts(torch.ones(8, 8, dtype=torch.bool), 20, 2, seed) for seed in (3, 3, 4))
    assert (one[0] == same[0]).all()
    assert (one[0] != other[0]).any()
    small, large = (random_parts(torch.ones(8, 8, dtype=torch.bool), size, 1, 3)[0] for size in (10, 30))
    assert not (small & ~large).any()  # a larger part of the same seed holds the smaller one
    upper = within((0.0, -1.0, 1.0, 1.0), (4, 2))  # the picture is the lower half of what the model sees
    assert upper.tolist() == [[False, False], [False, False], [True, True], [True, True]]
    assert has_likelihood(Corner())
    assert not has_likelihood(Apart())


EVIL = "</script><img src=x onerror=alert(1)>&\"'"


def test_verdicts_are_drawn_escaped_and_kept(classes: Classes, pixels: Tensor, tmp_path: Path) -> None:
    made = sanity_check(explain(classes, pixels, method=hirescam))
    made.sanity_results[1] = SanityResult("weak", EVIL, {"weights": 0.5})
    text = made.save(tmp_path / "page.html")[0].read_text(encoding="utf-8")
    body = text[text.index("<body>") :]
    assert "<img src=x" not in body
    assert unescape(body).count(EVIL) == 1
    assert body.count('<p class="sanity ') == 3
    assert (
        "sanity"
        not in (explain(classes, pixels).save(tmp_path / "plain.html")[0].read_text().split("<body>")[1].split("<script>")[0])
    )
    made.save(tmp_path / "kept.npz")
    back = Explanation.load(tmp_path / "kept.npz")
    assert back.sanity_results == made.sanity_results
    assert back[1].sanity_result == made.sanity_results[1]
    assert [one.sanity_result for one in made] == made.sanity_results
    assert made.describe()["targets"][1]["sanity_result"]["figures"] == {"weights": 0.5}


def test_people_read_that_the_map_passes_not_that_the_word_is_true(
    classes: Classes, pixels: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = explain(classes, pixels, method=hirescam)
    made.sanity_results = [SanityResult(short, "why", {"weights": 0.1}) for short in (PASS, WEAK, FAIL)]
    body = unescape(page(made)).split("<body>")[1].split("<script>")[0]
    for n, (headline, tone) in enumerate((("map passes", "pass"), ("map is weak", "weak"), ("map fails", "fail"))):
        assert f'<span class="mark {tone}">{headline}</span>' in body
        assert f'class="sanity {tone}" data-of="{n}"' in body
    caveat = "A map that passes shows what the model rests a word or answer on, not that it is true."
    assert body.count(caveat) == 1
    show_verdicts(made)
    told = capsys.readouterr().out
    assert [line.split("  ")[-1] for line in told.splitlines()] == [
        "map passes: why", "map is weak: why", "map fails: why", caveat,
    ]  # fmt: skip
    made.save(tmp_path / "kept")
    kept = json.loads((tmp_path / "kept" / "explanation.json").read_text())["targets"]
    assert [one["sanity_result"]["status"] for one in kept] == ["pass", "weak", "fail"]
    assert "trust" not in body + told
    made.sanity_results = [None] * 3
    show_verdicts(made)
    assert capsys.readouterr().out == ""
    assert caveat not in page(made)


def test_what_was_saved_in_earlier_words_is_shown_in_these() -> None:
    said = ["trust it", "map is weak", "do not trust it"]
    figures = {"hot": 2.0, "other": 0.3}
    old = {"targets": [{"verdict": {"short": short, "why": "because", "figures": figures}} for short in said]}
    back = sanity_results_of(upgraded(old))
    assert [one and one.status for one in back] == [PASS, WEAK, FAIL]
    assert [one and (one.reason, one.figures) for one in back] == [("because", figures)] * 3


def test_a_status_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="status: expected pass, weak, fail, got 'trust it'"):
        SanityResult("trust it", "because")


class Padded(Corner):
    """Sees a picture in the middle of pixels three times as many."""

    def prepare(self, image: Image.Image) -> PreparedImage:
        pixels = torch.zeros(3, 16, 48)
        pixels[:, :, 16:32] = whole(image).pixels
        return PreparedImage(pixels, (-1.0, 0.0, 2.0, 1.0))

    def score(self, features: Tensor, targets: list[Target]) -> Tensor:
        return features[:, 0, :, 16:24].mean((1, 2)) + features[:, 0, :, :16].mean((1, 2))


def test_what_a_picture_was_padded_with_is_neither_hidden_nor_counted() -> None:
    picture = Image.new("RGB", (16, 16))
    picture.paste((255, 255, 255), (0, 0, 8, 16))

    def beyond(features: Tensor, gradients: Tensor) -> Tensor:
        made = torch.zeros(len(features), 16, 48)
        made[:, :, :16], made[:, :, 16:24] = 9.0, torch.linspace(1.0, 2.0, 16)[:, None]
        return made

    made, grey = explain(Padded(), picture, method=beyond), 3 * 128 / 255
    assert topk_occlusion_drop(made, area=0.5)[0] == pytest.approx(
        3 - grey, abs=1e-5
    )  # all of the white half and nothing beyond
    assert topk_occlusion_drop(made, area=0.25)[0] == pytest.approx((3 - grey) / 2, abs=1e-5)
    assert topk_sufficiency(made, area=0.5)[0] == pytest.approx(3 - grey, abs=1e-5)
