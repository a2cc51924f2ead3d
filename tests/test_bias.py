"""Bias: statistics by hand and by simulation; a planted bias is found, a balanced set leaves the report silent."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import chromium, tiny_captioner, tiny_vqa
from PIL import Image
from torch import Tensor

from mmgradcam import InputError, Target, Task, explain, hirescam
from mmgradcam.datasets.biased_scenes import EVEN, GROUPS, HEADS, PLANTED, TRADES, biased_photos, make_figure
from mmgradcam.datasets.records import ObjectAnnotation, Phrase, Question, Sample
from mmgradcam.metrics import significance
from mmgradcam.metrics.significance import between, corrected, holm, within
from mmgradcam.scenes.render import render
from mmgradcam.scenes.scene import COLORS
from mmgradcam.studies.bias import ask_question, bias_report, outside, phrase, thing
from mmgradcam.studies.bias_report import BiasReport
from mmgradcam.studies.word_bias import contrasting, word_bias_report


def test_p_is_the_share_of_all_regroupings_that_differ_as_much() -> None:
    """All 20 ways to part six values in halves, counted one by one."""
    first, second = [4.0, 5.0, 3.0], [1.0, 2.0, 3.5]
    every, as_large = np.array(first + second), 0
    for chosen in itertools.combinations(range(6), 3):
        rest = [i for i in range(6) if i not in chosen]
        as_large += abs(every[list(chosen)].mean() - every[rest].mean()) >= abs(np.mean(first) - np.mean(second)) - 1e-12
    assert between("x", first, second).p == pytest.approx(as_large / 20, abs=0.02)


def test_p_of_pairs_is_the_share_of_all_signs_that_differ_as_much() -> None:
    """Gains 1, 2, 3: of the 8 signs only all plus and all minus reach their mean, 2."""
    made = within("x", [2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert made.difference == pytest.approx(2.0)
    assert made.p == pytest.approx(2 / 8, abs=0.02)
    assert made.paired


def test_the_interval_is_that_of_the_means() -> None:
    """Of many normal values the bootstrap's interval is the textbook's: +- 1.96 standard errors."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, 400), rng.normal(0, 2, 300)
    made = between("x", list(first), list(second))
    error = 1.96 * np.sqrt(first.var() / 400 + second.var() / 300)
    assert made.high - made.low == pytest.approx(2 * error, rel=0.06)
    assert (made.low + made.high) / 2 == pytest.approx(first.mean() - second.mean(), abs=0.1 * error)


def test_chance_is_called_a_difference_no_more_often_than_it_says() -> None:
    """200 tests of nothing: about 5% below 0.05 alone, and hardly any family of ten once corrected."""
    rng = np.random.default_rng(1)
    rows = [between("x", list(rng.normal(size=20)), list(rng.normal(size=20)), resamples=400, seed=i) for i in range(200)]
    assert 2 <= sum(row.p < 0.05 for row in rows) <= 20
    families = [any(row.found for row in corrected(rows[i : i + 10])) for i in range(0, 200, 10)]
    assert sum(families) <= 3


def test_holm_corrects_by_hand_worked_values() -> None:
    """0.01 x 4 = 0.04; 0.02 x 3 = 0.06; 0.03 x 2 = 0.06; 0.5."""
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(("resamples", "width", "sizes"), [(10, 3, [4, 4, 2]), (8, 3, [4, 4]), (3, 3, [3]), (2, 100, [1, 1])])
def test_as_many_are_drawn_as_asked_for_a_bounded_number_at_a_time(
    monkeypatch: pytest.MonkeyPatch, resamples: int, width: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(significance, "_AT_ONCE", 13)
    asked: list[int] = []
    made = significance._draws(lambda n: np.full(n, float(asked.append(n) or n)), resamples, width)
    assert asked == sizes
    assert made.tolist() == [float(n) for n in sizes for _ in range(n)]


def test_the_limits_of_what_is_sure_and_what_is_found() -> None:
    """Below 0.05, with 0 outside the interval, and no less than what counts."""

    def row(low: float, high: float, adjusted: float, least: float = 0.0) -> significance.Difference:
        return significance.Difference("x", 0.75, 0.25, (3, 4), low, high, 0.01, adjusted, least=least)

    cases = [
        (row(0.1, 0.9, 0.049), True),
        (row(0.1, 0.9, 0.05), False),
        (row(-0.9, -0.1, 0.01), True),
        (row(-0.1, 0.9, 0.01), False),
    ]
    cases += [(row(0.0, 0.9, 0.01), False), (row(-0.9, 0.0, 0.01), False)]
    assert [one.sure for one, _ in cases] == [sure for _, sure in cases] == [one.found for one, _ in cases]
    assert row(0.1, 0.9, 0.01, least=0.5).found
    assert not row(0.1, 0.9, 0.01, least=0.51).found
    assert not row(0.1, 0.9, 0.06, least=0.5).found
    assert row(0.1, 0.9, 0.01).difference == 0.5


def test_a_row_has_means_counts_and_quantiles_of_what_was_drawn() -> None:
    """p is one more than those as large, over one more than all (Phipson and Smyth 2010); rounding makes none larger."""
    drawn, chance = np.arange(1000.0), np.array([2.0, -2.0, 1.9, 0.0, 2 - 1e-13, 2 - 1e-11, -2 - 1e-13])
    made = significance._made("x", 3.0, 1.0, (5, 6), 2.0, drawn, chance, True, False)
    assert made == significance.Difference("x", 3.0, 1.0, (5, 6), 24.975, 974.025, 5 / 8, 5 / 8, paired=True, share=False)
    same = between("x", [1.0, 1.0], [1.0, 1.0, 1.0], share=True, resamples=3)
    assert (same.p, same.counts, same.share, same.paired, same.low, same.high) == (1.0, (2, 3), True, False, 0.0, 0.0)
    pair = within("x", [1.0, 2.0], [1.0, 2.0], share=True, resamples=3)
    assert (pair.p, pair.counts, pair.share, pair.paired) == (1.0, (2, 2), True, True)
    assert within("x", [1.0, 2.0, 4.0], [0.0, 0.0, 0.0], seed=1) != within("x", [1.0, 2.0, 4.0], [0.0, 0.0, 0.0], seed=2)


def test_what_is_sure_but_less_than_counts_is_not_found() -> None:
    first, second = [0.5, 0.51] * 50, [0.505, 0.515] * 50
    for least, found in ((0.004, True), (0.006, False)):
        (row,) = corrected([between("x", first, second, share=True)], least)
        assert row.sure
        assert row.found is found
    (row,) = corrected([between("x", first, second)], 0.006)
    assert row.found


@pytest.mark.parametrize(
    ("first", "second"), [([1.0], [1.0, 2.0]), ([], []), ([1.0, float("nan")], [1.0, 2.0]), ([[1.0], [2.0]], [1.0, 2.0])]
)
def test_values_that_cannot_be_compared_are_refused(first: Any, second: Any) -> None:
    with pytest.raises(InputError, match="heat on head: expected two or more numbers in each group"):
        between("heat on head", first, second)
    with pytest.raises(InputError, match="expected two values of each picture, got 2 and 3"):
        within("heat on head", [1.0, 2.0], [1.0, 2.0, 3.0])


class Painted(Task):
    """Its map is the picture's red channel for "red" and its blue for "blue"; it says what there is more of."""

    name, unit, method = "painted <b>", "logit", staticmethod(hirescam)

    def encode(self, images: Tensor) -> Tensor:
        return images

    def targets(self, features: Tensor, classes: Sequence[str] | None = None) -> list[Target]:
        red, blue = float(features[:, 0].sum()), float(features[:, 2].sum())
        likely = "red" if red > blue else "blue"
        return [Target(c, 0 if c == "red" else 2, probability=0.75 if c == likely else 0.25) for c in classes or [likely]]

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return torch.stack([row[t.value].sum() for row, t in zip(features, targets, strict=True)])


def halved(name: str, group: str, left: int, right: int, label: str = "red") -> Sample:
    """8 x 8: red `left` on the left half, which is the thing, `right` on the other, and a little blue all over."""
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:, :4, 0], pixels[:, 4:, 0], pixels[..., 2] = left, right, 10
    return Sample(name, Image.fromarray(pixels), objects=(ObjectAnnotation(label, ((0.0, 0.0, 0.5, 1.0),)),), group=group)


def test_shares_of_heat_and_accuracy_are_counted_by_hand() -> None:
    """Group a: 100 : 50, so 2/3 of the heat on the thing; group b: 50 : 150, so 1/4; two of b's are truly blue, and said red."""
    photos = [halved(f"a{i}", "a", 100, 50) for i in range(6)] + [halved(f"b{i}", "b", 50, 150) for i in range(4)]
    photos += [halved(f"c{i}", "b", 50, 150, "blue") for i in range(2)] + [halved("d", "elsewhere", 1, 1)]
    made = bias_report(Painted(), photos, ("a", "b"), regions={"it": thing("red"), "elsewhere": outside(thing("red"))}, batch=5)
    rows = {row.what: row for row in made.rows}
    assert made.counts == (6, 6)
    assert rows["right"].first == 1.0
    assert rows["right"].second == pytest.approx(4 / 6)
    assert rows["probability of what is right"].second == pytest.approx((4 * 0.75 + 2 * 0.25) / 6)
    assert "heat on it" not in rows
    assert "heat on it: not compared, 6 and 4 pictures" in made.notes
    assert "1 pictures of neither group were left out" in made.notes
    more = [halved(f"e{i}", "b", 50, 150) for i in range(2)]
    rows = {row.what: row for row in bias_report(Painted(), photos + more, ("a", "b"), regions={"it": thing("red")}).rows}
    assert rows["heat on it"].first == pytest.approx(2 / 3, abs=1e-4)
    assert rows["heat on it"].second == pytest.approx(1 / 4, abs=1e-4)
    assert rows["heat on it"].found


def test_without_regions_every_label_and_the_rest_are_looked_at() -> None:
    photos = [halved(str(i), "ab"[i % 2], 60, 60) for i in range(10)]
    made = bias_report(Painted(), photos, ("a", "b"))
    rows = {row.what: row for row in made.rows}
    assert rows["heat on red"].first == rows["heat elsewhere"].first == pytest.approx(0.5, abs=1e-4)
    assert not made.found
    assert made.sanity_result.startswith(
        "No difference found at this size: 4 things tested over 5 pictures of “a” and 5 of “b”."
    )


def test_regions_are_unions_of_what_is_known_or_none() -> None:
    shape = 4, 4
    boxes = {"a": ((0.0, 0.0, 0.5, 0.5),), "b": ((0.5, 0.5, 1.0, 1.0),)}
    objects = tuple(ObjectAnnotation(label, box) for label, box in boxes.items())
    phrases = tuple(Phrase(0, 0, 0, "it", (label,), box) for label, box in boxes.items())
    photo = Sample("x", Image.new("RGB", shape), phrases=phrases, objects=(*objects, ObjectAnnotation("nowhere")))
    for region in (thing, phrase):
        (first, both), none = (region(*labels)(photo, shape) for labels in (("a",), ())), region("c")(photo, shape)
        assert none is None
        assert first.sum() == 4
        assert both.sum() == 8
        assert (outside(region("a"))(photo, shape) == ~first).all()
        assert outside(region("c"))(photo, shape) is None
    assert thing("nowhere")(photo, shape) is None


def test_maps_that_show_nothing_are_counted_and_are_no_share_of_heat() -> None:
    photos = [halved(f"a{i}", "a", 100, 100) for i in range(6)] + [halved(f"b{i}", "b", 0, 0) for i in range(6)]
    made = bias_report(Painted(), photos, ("a", "b"), regions={"it": thing("red")})
    rows = {row.what: row for row in made.rows}
    assert (rows["maps that show nothing"].first, rows["maps that show nothing"].second) == (0, 1)
    assert "heat on it: not compared, 6 and 0 pictures" in made.notes


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="at least 5 pictures of each group, got 6 of 'a', 0 of 'b', and 2 of none"):
        bias_report(Painted(), [halved(str(i), "a" if i < 6 else "c", 9, 9) for i in range(8)], ("a", "b"))
    with pytest.raises(InputError, match="expected a photo with its class"):
        bias_report(Painted(), [Sample("x", Image.new("RGB", (8, 8)), group="a")], ("a", "b"))


def test_a_report_is_saved_whole_and_its_text_is_escaped(tmp_path: Path) -> None:
    photos = [halved(f"<i>{i}", "<script>" if i % 2 else "b", 90 + 60 * (i % 2), 90) for i in range(12)]
    made = bias_report(Painted(), photos, ("<script>", "b"))
    assert [path.name for path in made.save(tmp_path / "report")] == ["report.json", "index.html"]
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "painted <b>" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert told["sanity_result"] == made.sanity_result
    assert [one["what"] for one in told["measures"] if one["found"]] == [row.what for row in made.rows if row.found]
    assert "heat on red" in [row.what for row in made.found]
    for row in made.rows:
        assert f"{100 * row.first:.1f}%" in str(made)
    coarse = bias_report(Painted(), photos, ("<script>", "b"), least=0.5)
    assert coarse.found == []
    assert coarse.sanity_result.endswith("Sure, but under 50 points: heat on red, heat elsewhere.")
    made.save(tmp_path / "one.json")
    assert json.loads((tmp_path / "one.json").read_text()) == told
    with pytest.raises(InputError, match=r"ends in \.json or \.html"):
        made.save(tmp_path / "one.txt")


@pytest.mark.browser
def test_the_page_fits_a_phone(tmp_path: Path) -> None:
    photos = [halved(str(i), "ab"[i % 2], 90 + 60 * (i % 2), 90) for i in range(12)]
    (file,) = bias_report(Painted(), photos, ("a", "b")).save(tmp_path / "page.html")
    probe = "<script>document.title='W'+(document.documentElement.scrollWidth<=innerWidth)</script>"
    text = file.read_text().replace("default-src 'none';", "default-src 'none';script-src 'unsafe-inline';")
    file.write_text(text.replace("</body>", probe + "</body>"))
    command = [
        str(chromium()),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=420,900",
        "--dump-dom",
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "<title>Wtrue</title>" in done.stdout


def test_a_contrast_is_the_difference_of_two_scores_and_of_their_slopes(picture: Image.Image) -> None:
    task = single(tiny_captioner("transformer"))
    one, other = (
        explain(task, picture, caption=f"a {color} ball", method=hirescam, target_layers=()) for color in ("red", "blue")
    )
    made = explain(contrasting(task, one.targets[1], other.targets[1]), picture, method=hirescam, target_layers=())
    assert made.label == "red rather than blue"
    assert made.score == pytest.approx(float(one.scores[1] - other.scores[1]), abs=1e-6)
    signed = explain(task, picture, caption="a red ball", method=signed_hirescam, target_layers=())
    rival = explain(task, picture, caption="a blue ball", method=signed_hirescam, target_layers=())
    drawn = explain(contrasting(task, one.targets[1], other.targets[1]), picture, method=signed_hirescam, target_layers=())
    torch.testing.assert_close(drawn.maps[0], signed.maps[1] - rival.maps[1], atol=1e-6, rtol=1e-4)
    assert "scores" not in vars(task)


def single(task: Any) -> Any:
    for module in task.modules():
        module.float()
    return task


def signed_hirescam(features: Tensor, gradients: Tensor) -> Tensor:
    return (features * gradients).sum(1)


def captioned(i: int, color: str) -> Sample:
    pixels = np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    caption = ("A", color.upper() if i % 3 else color, "ball")
    boxes = ((0.0, 0.0, 0.5, 0.5),)
    return Sample(
        f"{color}{i}", Image.fromarray(pixels), captions=(("a", "cube"), caption), objects=(ObjectAnnotation("ball", boxes),)
    )


def test_two_words_are_scored_in_each_others_place() -> None:
    task = single(tiny_captioner("lstm"))
    photos = [captioned(i, "red") for i in range(5)] + [captioned(i + 5, "blue") for i in range(5)]
    odd = [Sample("two", photos[0].image, captions=(("a", "red", "and", "blue", "ball"),))]
    unknown = [Sample("unknown", photos[0].image, captions=(("a", "red", "dragon"),))]
    made = word_bias_report(task, photos + odd + unknown, ("red", "blue"))
    rows = {row.what: row for row in made.rows}
    scores = {
        (i, color): explain(task, photo.image, caption=f"a {color} ball").scores
        for i, photo in enumerate(photos)
        for color in ("red", "blue")
    }
    margins = [float(scores[i, "red"][1] - scores[i, "blue"][1]) * (1 if i < 5 else -1) for i in range(10)]
    assert rows["log-probability of the right word less the other's"].first == pytest.approx(np.mean(margins[:5]), abs=1e-5)
    assert rows["log-probability of the right word less the other's"].second == pytest.approx(np.mean(margins[5:]), abs=1e-5)
    assert rows["prefers the right word"].second == pytest.approx(np.mean([m > 0 for m in margins[5:]]))
    rest = rows["log-probability of the caption's other words, with red and with blue"]
    assert rest.paired
    for mean, color in ((rest.first, "red"), (rest.second, "blue")):
        assert mean == pytest.approx(np.mean([float(scores[i, color][[0, 2]].sum()) for i in range(10)]), abs=1e-5)
    assert "1 captions were left out, which the model cannot read" in made.notes
    task.unit = "word logit"
    logits = {row.what: row for row in word_bias_report(task, photos, ("red", "blue")).rows}
    assert logits[rest.what].first == pytest.approx(rest.first, abs=1e-4)
    assert "word logit of the right word less the other's" in logits
    assert "1 pictures of neither group were left out" in made.notes


def test_questions_are_asked_and_their_answers_judged() -> None:
    task = single(tiny_vqa())
    photos = [
        Sample(
            str(i),
            captioned(i, "red").image,
            group="ab"[i % 2],
            questions=(Question("what color is the ball", "color", ("red",)),),
        )
        for i in range(10)
    ]
    made = bias_report(task, photos, ("a", "b"), ask=ask_question, regions={})
    said = [explain(task, p.image, question="what color is the ball").labels[0] == "red" for p in photos]
    rows = {row.what: row for row in made.rows}
    assert (rows["right"].first, rows["right"].second) == (np.mean(said[::2]), np.mean(said[1::2]))
    with pytest.raises(InputError, match="expected a photo with a question"):
        bias_report(task, [Sample("x", photos[0].image, group="a")], ("a", "b"), ask=ask_question)


def test_the_bias_is_planted_as_often_as_said_and_shows() -> None:
    made = [make_figure(seed, PLANTED) for seed in range(3000)]
    for trade, share in zip(TRADES, PLANTED, strict=True):
        assert np.mean([f.agrees for f in made if f.trade == trade]) == pytest.approx(share, abs=0.03)
    assert np.mean([make_figure(seed, EVEN).agrees for seed in range(3000)]) == pytest.approx(0.5, abs=0.03)
    assert [make_figure(seed, PLANTED) for seed in range(5)] == made[:5]
    photos = biased_photos("train", 60, PLANTED)
    for trade, share in zip(TRADES, PLANTED, strict=True):
        groups = [photo.group for photo in photos if photo.objects[0].label == trade]
        assert groups.count("agrees") == int(share * len(groups) + 1e-9)
    for figure in made[:10]:
        _, head, tool = figure.scene.objects[-3:]
        assert tool.kind == TRADES[figure.trade]
        assert (head.color == HEADS[figure.trade]) == figure.agrees
        picture = render(figure.scene, 64)
        color = np.asarray(picture.image)[picture.masks[-2]].mean(0)
        nearest = min(HEADS.values(), key=lambda name: float(np.abs(color / color.max() - np.array(COLORS[name])).sum()))
        assert nearest == head.color
        assert picture.masks[-1].sum() > 20


@pytest.fixture(scope="module")
def demo() -> Any:
    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "papers"))
    try:
        yield importlib.import_module("bias_demo")
    finally:
        sys.path.pop(0)


def small_figure(i: int, trade: str, agrees: bool) -> Sample:
    """What `biased_photos` renders, in 24 x 24 pixels: a head in one of two colours, and an upright or a slanted cross below."""
    rng = np.random.default_rng(i)
    pixels = np.full((24, 24, 3), 90.0) + rng.normal(0, 6, (24, 24, 3))
    head, tool = np.zeros((24, 24), bool), np.zeros((24, 24), bool)
    x = int(rng.integers(2, 16))
    head[2:8, x : x + 6] = True
    first = HEADS[trade] if agrees else next(color for name, color in HEADS.items() if name != trade)
    pixels[head] = 255 * np.array(COLORS[first])
    shape = np.eye(7, dtype=bool) | np.eye(7, dtype=bool)[::-1]
    if trade == "keeper":
        shape = np.zeros((7, 7), bool)
        shape[3] = shape[:, 3] = True
    x, y = int(rng.integers(1, 17)), int(rng.integers(10, 17))
    tool[y : y + 7, x : x + 7] = shape
    pixels[tool] = 225
    objects = (ObjectAnnotation(trade, pixels=tool), ObjectAnnotation("head", pixels=head))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return Sample(str(i), image, objects=objects, group=GROUPS[not agrees])


def small_figures(count: int, agreeing: float, start: int) -> list[Sample]:
    """As many of each trade, and in each as exact a share that agrees."""
    few = count // 2
    return [small_figure(start + i, list(TRADES)[i % 2], (i // 2 + 0.5) / few < agreeing) for i in range(count)]


def test_the_report_finds_the_planted_bias_and_is_silent_without(demo: Any) -> None:
    held = small_figures(160, 0.5, 10_000)

    def told(agreeing: float, epochs: int) -> BiasReport:
        task = demo.train(small_figures(384, agreeing, 0), epochs, width=12, rate=1e-2)
        return bias_report(task, held, GROUPS, regions={"head": thing("head"), "tool": thing(*TRADES)}, resamples=2000)

    planted, even = told(0.98, 8), told(0.5, 12)
    assert {"right", "heat on head"} <= {row.what for row in planted.found}
    apart, alike = (next(row for row in report.rows if row.what == "right") for report in (planted, even))
    assert apart.difference > 0.2
    assert min(alike.first, alike.second) > 0.9
    assert even.found == []
    assert "No difference found at this size" in even.sanity_result
