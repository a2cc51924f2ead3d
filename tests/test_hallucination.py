"""What words rest on, and whether they are made up: by hand on tasks of a line, and on scenes whose truth is known."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy.stats import mannwhitneyu
from torch import Tensor

from mmgradcam import Explanation, InputError, Target, Task, explain, hirescam
from mmgradcam.cli.tables import show_answers, show_words
from mmgradcam.explaining.model_input import model_input_of
from mmgradcam.images.clips import Clip
from mmgradcam.images.pictures import PreparedImage, to_tensor
from mmgradcam.metrics.grounding import Prior, _shown, grounding, language_prior, log_probs_of
from mmgradcam.metrics.hallucination import (
    COLUMNS,
    LIMITS,
    annotate_hallucination,
    calibrated,
    calibrations,
    chances,
    columns,
    evidence,
    hallucination_probability,
    is_hallucinated,
    shifted,
)
from mmgradcam.metrics.perturbations import Seen
from mmgradcam.render.pages import page
from mmgradcam.scenes.captions import judge
from mmgradcam.scenes.render import render
from mmgradcam.scenes.scene import make_scene
from mmgradcam.scenes.splits import seeds
from mmgradcam.tasks import load

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "bundled"))
try:
    calibrating: Any = import_module("calibrate_hallucination")
    lying: Any = import_module("hallucination_data")
finally:
    sys.path.pop(0)

GREY = 128 / 255


class Colors(Task):
    """Says a color as likely as the picture's mean of it."""

    unit = "log-probability"

    def encode(self, images: Tensor) -> Tensor:
        return images

    def targets(self, features: Tensor, **query: Any) -> Sequence[Target]:
        return [Target(name, c) for c, name in enumerate(("red", "green", "blue"))]

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        means = features.mean((2, 3)).clamp(min=1e-6).log()
        return means[torch.arange(len(targets)), [t.value for t in targets]]


class Answers(Colors):
    """Answers with a color, by the picture's shares of red, green and blue; scores are no log-probabilities."""

    unit = "logit"

    def targets(self, features: Tensor, question: str = "", top: int = 1, answer: str | None = None) -> Sequence[Target]:
        p = self.log_prob(features, super().targets(features)).exp().tolist()
        made = [Target(t.label, t.value, probability=p[t.value]) for t in super().targets(features)]
        return [t for t in made if t.label == answer] or sorted(made, key=lambda t: -p[t.value])[:top]

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return features.mean((2, 3))[torch.arange(len(targets)), [t.value for t in targets]]

    def log_prob(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        means = features.mean((2, 3)).double().expand(len(targets), -1)
        return (means / means.sum(1, keepdim=True)).log()[torch.arange(len(targets)), [t.value for t in targets]]


def plain(*color: int, size: tuple[int, int] = (12, 9)) -> Image.Image:
    return Image.new("RGB", size, color)


def test_grounding_by_hand() -> None:
    made = explain(Colors(), plain(204, 51, 102))
    assert grounding(made) == pytest.approx([math.log(0.8 / GREY), math.log(0.2 / GREY), math.log(0.4 / GREY)], abs=1e-5)
    assert grounding(made, plain(51, 51, 204, size=(40, 20))) == pytest.approx([math.log(4), 0, -math.log(2)], abs=1e-5)
    assert grounding(made, "blur") == pytest.approx([0, 0, 0], abs=1e-5)
    assert grounding(made, lambda pixels: pixels / 2) == pytest.approx([math.log(2)] * 3, abs=1e-5)
    half = Image.new("RGB", (8, 8), (255, 0, 0))
    half.paste((0, 0, 255), (4, 0, 8, 8))
    assert grounding(explain(Colors(), half), plain(255, 255, 255)) == pytest.approx(
        [-math.log(2), math.log(1e-6), -math.log(2)], abs=1e-4
    )


def test_many_are_as_each_alone_and_are_encoded_together() -> None:
    task, sizes = Colors(), []
    pictures = [plain(i + 1, 2 * i + 1, 99, size=(9, 9 if i < 4 else 12)) for i in range(6)]
    made = explain(task, pictures)
    alone = [log_probs_of([one], ["grey", "blur"])[0] for one in made]
    task.encode = lambda images: (sizes.append(len(images)), images)[1]  # type: ignore[func-returns-value, method-assign]
    together = log_probs_of(made, ["grey", "blur"], batch=9)
    assert sizes == [9, 3, 6]
    sizes.clear()
    log_probs_of(made, ["grey", "blur"], batch=1)
    assert sizes == [3] * 6, "of one picture, at least"
    np.testing.assert_allclose(np.array(together), np.array(alone), atol=1e-6)
    np.testing.assert_allclose(grounding(made, "blur"), np.array(alone)[:, 0] - np.array(alone)[:, 2], atol=1e-6)


def test_what_explain_noted_needs_no_model(tmp_path: Path) -> None:
    made = explain(Colors(), plain(204, 51, 102), grounding=True)
    made.save(tmp_path / "made.npz")
    assert grounding(Explanation.load(tmp_path / "made.npz")) == pytest.approx(
        grounding(explain(Colors(), plain(204, 51, 102))), abs=1e-5
    )


def test_what_explain_noted_is_of_grey_and_of_nothing_else() -> None:
    made = explain(Colors(), plain(204, 51, 102), grounding=True)
    assert grounding(made, "blur") == pytest.approx([0, 0, 0], abs=1e-5)
    assert grounding(made, plain(51, 51, 204)) == pytest.approx([math.log(4), 0, -math.log(2)], abs=1e-5)


def test_of_a_clip_every_frame_is_another_picture_cut_to_its_aspect() -> None:
    class Films(Colors):
        def prepare(self, clip: Any) -> PreparedImage:
            assert clip.rate == 5.0
            return PreparedImage(torch.stack([to_tensor(frame) for frame in clip.frames], 1), (0.0, 0.0, 1.0, 1.0))

    frames = [plain(10 * n, 0, 0, size=(12, 8)) for n in range(3)]
    seen = Seen(Films(), model_input_of(Films(), Clip(tuple(frames), 5.0, "film")))
    other = plain(255, 0, 0, size=(8, 24))
    other.paste((0, 0, 255), (0, 10, 8, 14))
    shown = _shown(seen, other)
    assert shown.shape == (3, 3, 8, 12)
    assert torch.equal(shown, to_tensor(ImageOps.fit(other, (12, 8)))[:, None].expand(3, 3, 8, 12))
    assert shown[2].mean() > 0.5, "of the middle"


def test_of_a_prepared_tensor_it_is_the_mean_color() -> None:
    pixels = torch.zeros(3, 8, 8)
    pixels[0, :, :4] = 1
    assert grounding(explain(Colors(), pixels)) == pytest.approx([0, 0, 0], abs=1e-5)
    assert grounding(explain(Colors(), pixels), pixels / 4) == pytest.approx([math.log(4), 0, 0], abs=1e-5)
    with pytest.raises(InputError, match="expected a prepared tensor, as the explanation was made of one, got a picture"):
        grounding(explain(Colors(), pixels), plain(1, 2, 3))


def test_what_cannot_be_said_is_one_line(tmp_path: Path) -> None:
    class Blind(Colors):
        unit = "logit"

    made = explain(Blind(), plain(1, 2, 3), grounding=True)
    with pytest.raises(InputError, match=r"^Blind: grounding needs log-probabilities of its targets, and it has none; .*$"):
        grounding(made)
    with pytest.raises(InputError, match=r"^Blind: grounding needs log-probabilities"):
        hallucination_probability(made, calibrations()["answers"])
    with pytest.raises(InputError, match=r"^annotate_hallucination: no flag is calibrated for Blind; fitted=calibrations.*$"):
        hallucination_probability(made)
    assert not calibrated(made)
    with pytest.raises(InputError, match='without: expected "grey", "blur" or another picture, got \'gray\''):
        grounding(explain(Colors(), plain(1, 2, 3)), "gray")
    explain(Colors(), plain(1, 2, 3)).save(tmp_path / "made.npz")
    with pytest.raises(InputError, match="needs the model, and the explanation was loaded from a file"):
        hallucination_probability(Explanation.load(tmp_path / "made.npz"), calibrations()["words"])
    with pytest.raises(InputError, match=r"expected an explanation of one question's answer"):
        language_prior(explain(Colors(), plain(1, 2, 3)))


def test_the_language_prior_by_hand() -> None:
    made = explain(Answers(), plain(150, 75, 25), question="which color?")
    prior = language_prior(made, top=2)
    assert (prior.answer, prior.others, prior.elsewhere) == ("red", None, ())
    assert (prior.seen, prior.grey, prior.explained) == pytest.approx((0.6, 1 / 3, 5 / 9), abs=1e-6)
    assert dict(prior.blind) == pytest.approx({"red": 1 / 3, "green": 1 / 3}, abs=1e-6)
    prior = language_prior(made, [plain(25, 75, 150), plain(50, 50, 150)], top=2)
    assert prior.others == pytest.approx((0.1 + 0.2) / 2, abs=1e-6)
    assert prior.explained == pytest.approx(0.25, abs=1e-6)
    assert [label for label, _ in prior.elsewhere] == ["blue", "green"]
    assert [p for _, p in prior.elsewhere] == pytest.approx([0.6, 0.25], abs=1e-6)
    assert (
        str(prior)
        == "red: p 0.60 given the picture, 0.33 given grey, 0.15 given other pictures; without it the likeliest are blue 0.60, green 0.25"
    )


def test_columns_and_shifts_by_hand() -> None:
    rows = np.log(np.array([[0.8, 0.5], [0.2, 0.5], [0.8, 0.5], [0.4, 0.5], [0.4, 0.5], [0.8, 0.5]]))
    spread = math.log(2) * math.sqrt(0.4 * 0.6)  # two of five lower by log 2
    np.testing.assert_allclose(
        columns(rows), [[math.log(0.8), math.log(4), math.log(spread)], [math.log(0.5), 0, math.log(0.01)]]
    )
    pixels = torch.arange(9.0).view(1, 3, 3)
    assert shifted(pixels, 1 / 3, 0).tolist() == [[[0, 0, 1], [3, 3, 4], [6, 6, 7]]]
    assert shifted(pixels, -1 / 3, -1 / 3).tolist() == [[[4, 5, 5], [7, 8, 8], [7, 8, 8]]]


def test_evidence_is_what_the_picture_grey_and_four_shifts_say() -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (50, 100, 3), dtype=np.uint8)
    array[:, :4, 0], array[-3:, :, 1], array[..., 2] = 255, 255, 90  # what shifts repeat, so that two means change
    made = explain(Colors(), Image.fromarray(array))
    moved = [array, np.full_like(array, 128)]
    for right, down in ((3, 0), (-2, 1), (0, -2), (3, 2)):  # shares .03, -.025, -.04 of 100 x 50, rounded to even
        padded = np.pad(array, ((9, 9), (9, 9), (0, 0)), mode="edge")
        moved.append(padded[9 - down : 59 - down, 9 - right : 109 - right])
    rows = np.log(np.stack([one.reshape(-1, 3).mean(0) / 255 for one in moved]))
    steady = rows[[0, 2, 3, 4, 5]].std(0)
    assert steady.max() > 0.01 > steady.min()
    expected = np.stack([rows[0], rows[0] - rows[1], np.log(np.maximum(steady, 0.01))], 1)
    np.testing.assert_allclose(evidence([made])[0], expected, atol=1e-4)


def test_chances_by_hand() -> None:
    fitted = {"limits": [[-1, 1], [0, 9]], "mean": [0.5, 1.0], "std": [2.0, 4.0], "weights": [3.0, -1.0], "bias": -0.25}
    x = np.array([[0.9, 3.0], [5.0, 3.0], [-7.0, 10.0]])  # beyond the limits is as at them
    z = [-0.25 + 3 * 0.2 - 0.5, -0.25 + 3 * 0.25 - 0.5, -0.25 - 3 * 0.75 - 2.0]
    np.testing.assert_allclose(chances(fitted, x), 1 / (1 + np.exp(-np.array(z))))


def test_the_threshold_itself_is_not_flagged() -> None:
    made = explain(Colors(), plain(204, 51, 102))
    even = {**calibrations()["words"], "weights": [0.0, 0.0, 0.0], "bias": 0.0}
    for threshold, doubted in ((0.5, False), (0.4999, True)):
        fitted = {**even, "threshold": threshold}
        assert is_hallucinated(made, fitted).tolist() == [doubted] * 3
        assert [(t.is_hallucinated, t.hallucination_probability) for t in annotate_hallucination(made, fitted).targets] == [
            (doubted, 0.5)
        ] * 3


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("scenes-captioner", "words"), ("scenes-captioner-transformer", "words"), ("scenes-vqa", "answers"),
        ("scenes-vqa-transformer", "answers"), ("photo-captioner-small", "photos"),
    ],
)  # fmt: skip
def test_each_model_has_the_flag_fitted_on_its_kind(name: str, kind: str) -> None:
    task = Colors()
    task.name = name
    made = explain(task, plain(204, 51, 102))
    assert calibrated(made)
    fitted = calibrations()[kind]
    assert (
        hallucination_probability(made).tolist()
        == hallucination_probability(made, fitted).tolist()
        == hallucination_probability([made])[0].tolist()
    )
    assert is_hallucinated(made).tolist() == (hallucination_probability(made) > fitted["threshold"]).tolist()
    assert [tuple(limits) for limits in fitted["limits"]] == list(LIMITS)
    assert 0.5 <= fitted["threshold"] < 1


def test_how_far_a_question_explains_its_answer() -> None:
    some = (("a", 0.4), ("b", 0.3), ("c", 0.2), ("d", 0.1))
    assert Prior("a", 0.5, 0.2, None, some, ()).explained == 0.4
    assert Prior("a", 0.5, 0.2, 0.3, some, some[::-1]).explained == 0.6
    assert Prior("a", 0.2, 0.5, None, some, ()).explained == 1.0
    assert Prior("a", 0.0, 0.0, None, some, ()).explained == 1.0
    assert str(Prior("a", 0.5, 0.2, None, some, ())).endswith(
        "0.20 given grey; without it the likeliest are a 0.40, b 0.30, c 0.20"
    )
    assert str(Prior("a", 0.5, 0.2, 0.3, some, some[::-1])).endswith("the likeliest are d 0.10, c 0.20, b 0.30")


def test_what_was_noted_of_some_is_asked_of_all(tmp_path: Path) -> None:
    made = explain(Colors(), plain(204, 51, 102), grounding=True)
    expected = grounding(made)
    made.targets = [replace(target, grounding=99.0 if n else None) for n, target in enumerate(made.targets)]
    np.testing.assert_allclose(grounding(made), expected, atol=1e-5)
    pixels = torch.rand(3, 8, 8)
    with pytest.raises(InputError, match=r"expected a tensor \(3, 8, 8\), got \(3, 4, 8\)"):
        grounding(explain(Colors(), pixels), pixels[:, :4])
    with pytest.raises(InputError, match="expected explanations of one model, got several models'"):
        grounding([explain(Colors(), pixels), explain(Colors(), pixels)], "blur")
    assert grounding([], "blur") == []


@pytest.mark.parametrize("kind", ["words", "answers", "photos"])
def test_the_less_likely_the_more_it_is_made_up(kind: str) -> None:
    fitted = calibrations()[kind]
    assert fitted["columns"] == list(COLUMNS)
    for column, rises in ((0, False), (2, True)):
        x = np.tile([-0.7, 1.0, -3.0], (9, 1))
        x[:, column] = np.linspace(*fitted["limits"][column], 9)
        steps = np.diff(chances(fitted, x))
        assert (steps > 0).all() if rises else (steps < 0).all()
    p = chances(fitted, np.array([[-50.0, 0, 0], [-12.0, 0, 0]]))
    assert p[0] == p[1] > 0.5


def test_only_what_is_said_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, scene = load("scenes-vqa", device="cpu"), render(make_scene(90_000)).image
    wary = {**calibrations()["answers"], "threshold": -1.0}  # everything it speaks of is flagged
    question = "how many things are there?"
    ranked = explain(task, scene, question=question, top=3, contrast="4")
    assert [target.asserted for target in ranked.targets] == [True, False, False, False]  # the answer, the contrast, runners-up
    assert np.isnan(hallucination_probability(ranked)).tolist() == [False, True, True, True]
    assert is_hallucinated(ranked, wary).tolist() == [True, False, False, False]
    marked = annotate_hallucination(ranked, wary)
    assert [target.is_hallucinated for target in marked.targets] == [True, False, False, False]
    assert [target.hallucination_probability is None for target in marked.targets] == [False, True, True, True]
    assert (
        unescape(page(marked)).count("may be hallucinated: P") == 3
    )  # the chip, what is said when it is pointed at, the table
    chips = [re.findall(r'<button class="[^"]*\bhallucinated"', page(one)) for one in (marked, ranked)]
    assert [len(found) for found in chips] == [1, 0]
    show_answers(marked)
    assert capsys.readouterr().out.count("may be hallucinated") == 1
    runner_up = annotate_hallucination(ranked[3], wary)  # taken out alone, it is first, and still nobody said it
    assert (runner_up.targets[0].is_hallucinated, runner_up.targets[0].hallucination_probability) == (False, None)
    marked.save(tmp_path / "kept")
    kept = json.loads((tmp_path / "kept" / "explanation.json").read_text())["targets"]
    assert [(t["asserted"], t["is_hallucinated"], t["hallucination_probability"] is None) for t in kept] == [
        (True, True, False)
    ] + [(False, False, True)] * 3
    assert [target.asserted for target in Explanation.load(tmp_path / "kept").targets] == [True, False, False, False]
    given = explain(task, scene, question=question, answer=["1", "4"], contrast="2")
    assert [target.asserted for target in given.targets] == [True, False, True]
    assert np.isnan(hallucination_probability(given)).tolist() == [False, True, False]
    assert [target.asserted for target in explain(task, scene, questions=[question] * 2).targets] == [True, True]


def test_classes_are_said_where_the_model_predicts_them() -> None:
    from mmgradcam.tasks.classes import targets_of

    logits, names = torch.tensor([0.2, -0.3, 2.0, 1.0]), ["a", "b", "c", "d"]

    def said(**query: Any) -> dict[str, bool]:
        return {target.label: target.asserted for target in targets_of(logits, names, **query)}

    assert said(top=3, contrast="a") == {"c": True, "c rather than a": False, "d": False, "a": False}
    assert said(classes=["b", "c"]) == {"b": False, "c": True}
    assert said(several=True) == {"c": True, "d": True, "a": True}
    assert said(several=True, classes=["b", "d"], top=1) == {"b": False, "d": True, "c": True}


def test_a_lie_is_one_word_that_is_false() -> None:
    scenes = [make_scene(seed) for seed in seeds("validation", 60)]
    told = [(scene, lie) for scene, lie in zip(scenes, lying.lies(scenes, 0), strict=True) if lie]
    roles = [lie.role for _, lie in told]
    assert len(told) > 55
    assert max(map(roles.count, lying.ROLES)) - min(map(roles.count, lying.ROLES)) <= 4
    for scene, lie in told:
        assert all(claim.true for claim in judge(lie.true.words, scene).claims)
        judged = judge(lie.words, scene)
        assert judged.roles[lie.position] == lie.role
        assert not judged.refers[lie.position]
        other = [k for k, (a, b) in enumerate(zip(lie.words, lie.true.words, strict=True)) if a != b]
        assert other in ([lie.position], [lie.position - 1, lie.position])


def test_figures_by_hand() -> None:
    score, false = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert calibrating.roc_auc(score, false) == 0.75
    assert calibrating.roc_auc(np.zeros(4), false) == 0.5
    assert calibrating.average_precision(score, false) == pytest.approx((1 + 2 / 3) / 2)
    assert calibrating.calibration_error(score, false) == pytest.approx((0.1 + 0.4 + 0.65 + 0.2) / 4)


@pytest.mark.parametrize("values", [2, 5, 1000])
def test_auc_is_that_of_all_pairs_and_of_mann_and_whitney(values: int) -> None:
    rng = np.random.default_rng(values)
    for count in range(2, 30):
        score, false = rng.integers(0, values, count).astype(float), rng.permutation(count) < 1 + count // 4
        pairs = [(a > b) + (a == b) / 2 for a in score[false] for b in score[~false]]
        assert calibrating.roc_auc(score, false) == pytest.approx(np.mean(pairs))
        statistic = mannwhitneyu(score[false], score[~false], method="asymptotic").statistic
        assert calibrating.roc_auc(score, false) == pytest.approx(statistic / len(pairs))
    assert np.isnan(calibrating.roc_auc(score, np.ones(count, bool)))
    assert np.isnan(calibrating.roc_auc(score[:0], false[:0]))


def test_the_fit_finds_what_made_the_data() -> None:
    rng = np.random.default_rng(0)
    x = np.c_[rng.uniform(-8, 0, 20_000), rng.uniform(-6, 6, 20_000), rng.uniform(-4, 1, 20_000)]
    truth = 1 / (1 + np.exp(-(-2 - 0.8 * x[:, 0] - 0.3 * x[:, 1] + 0.5 * x[:, 2])))
    fitted = calibrating.fit(x, rng.random(20_000) < truth, np.full(20_000, 1 / 20_000), [0, 1, 2], ridge=0.0)
    np.testing.assert_allclose(np.array(fitted["weights"]) / fitted["std"], [-0.8, -0.3, 0.5], atol=0.05)


@pytest.fixture(scope="module")
def told() -> list[tuple[Explanation, bool]]:
    """Of 60 test scenes that nothing was fitted or reported on: a word that is true, and the false one in its place."""
    task = load("scenes-captioner", device="cpu")
    scenes = [make_scene(seed) for seed in seeds("test", 60, 5000)]
    found = [(scene, lie) for scene, lie in zip(scenes, lying.lies(scenes, 1), strict=True) if lie]
    each = [{"phrases": [(words, lie.position, lie.position) for words in (lie.true.words, lie.words)]} for _, lie in found]
    return explain(
        task, [render(scene, 128).image for scene, _ in found], each=each, method=hirescam, target_layers=(), batch=30
    )


def test_false_words_of_fresh_scenes_are_told_from_true_ones(told: list[Explanation]) -> None:
    chance = np.array(hallucination_probability(told))
    assert len(chance) > 55
    true, false = chance.T
    assert (false[:, None] > true).mean() > 0.85
    threshold = calibrations()["words"]["threshold"]
    assert (false > threshold).mean() > 0.75
    assert (true > threshold).mean() < 0.2
    assert is_hallucinated(told[0]).tolist() == [bool(p > threshold) for p in chance[0]]


def test_a_hallucinated_word_is_marked_where_it_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = make_scene(5)  # a blue cylinder, alone
    made = explain(load("scenes-captioner", device="cpu"), render(scene, 128).image, caption="a green cylinder", grounding=True)
    before = [target.hallucination_probability for target in made.targets]
    doubted = annotate_hallucination(made)
    assert before == [target.hallucination_probability for target in made.targets] == [None] * 3
    assert [target.is_hallucinated for target in doubted.targets] == [False, True, False]
    said = f"may be hallucinated: P {doubted.targets[1].hallucination_probability:.2f}".replace("P 0.", "P .")
    assert unescape(page(doubted)).count(said) == 3  # the chip, what is said when it is pointed at, the table
    assert "may be hallucinated" not in page(made)
    show_words(doubted)
    assert f"green     {said}\n" in capsys.readouterr().out
    doubted.save(tmp_path / "kept")
    kept = json.loads((tmp_path / "kept" / "explanation.json").read_text())["targets"]
    assert [t["is_hallucinated"] for t in kept] == [False, True, False]
    assert (
        Explanation.load(tmp_path / "kept").targets[1].hallucination_probability == doubted.targets[1].hallucination_probability
    )
