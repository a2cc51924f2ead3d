"""Words and actions that a model is sure of: exact down to the rounding of the precision, and marked below it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Bent, Classes, Encoder, tiny_captioner, tiny_vqa
from hub_models import saved
from PIL import Image
from torch import Tensor, nn

from mmgradcam import Explanation, ModelError, Target, Task, explain, gradcam_pp, hirescam, log_prob, normgrad, rise, smooth
from mmgradcam.engine import scores
from mmgradcam.tasks import Policy, load
from mmgradcam.tasks.classes import likelihood_of
from mmgradcam.tasks.vqa import AnswerTarget
from mmgradcam.utils.precision import exponents, initial, kept_in_range, lost, rounded, times

LACKS = [1e-3, 1e-6, 1e-8, 1e-12]
"""1 - p of what is explained."""


def exact(logits: Tensor, index: int) -> Tensor:
    """log p in float64, by the definition: -log1p(sum over the others of exp(z_j - z_t))."""
    assert logits.dtype == torch.float64
    above = logits - logits[index]
    return -torch.log1p(torch.cat([above[:index], above[index + 1 :]]).exp().sum())


def raise_to(logits: Tensor, index: int, lack: float) -> float:
    """What must be added to a logit for its probability to be 1 - lack."""
    rest = torch.cat([logits[:index], logits[index + 1 :]]).double().logsumexp(0)
    return float(rest - logits[index].double()) + math.log1p(-lack) - math.log(lack)


def off(found: Tensor, wanted: Tensor) -> float:
    """The largest error, of the largest magnitude there is."""
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("lack", [0.9, 0.5, 1e-3, 1e-6, 1e-8, 1e-12, 1e-20, 1e-30])
def test_value_and_gradient_are_those_of_float64(lack: float) -> None:
    logits = torch.randn(2, 3, 50) * 3
    index = torch.randint(50, (2, 3))
    for row, t in zip(logits.flatten(0, 1), index.flatten().tolist(), strict=True):
        row[t] += raise_to(row, t, lack)
    leaf = logits.clone().requires_grad_()
    found = log_prob(leaf, index)
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    tolerance = 1e-6 * max(1.0, -math.log(lack) / 8)  # the rounding of the logits' difference
    for row, t, one, slope in zip(
        logits.flatten(0, 1), index.flatten().tolist(), found.flatten(), gradient.flatten(0, 1), strict=True
    ):
        wide = row.double().requires_grad_()
        value = exact(wide, t)
        (wanted,) = torch.autograd.grad(value, wide)
        assert one.item() == pytest.approx(value.item(), rel=tolerance)
        torch.testing.assert_close(slope.double(), wanted, rtol=2 * tolerance, atol=0)


def test_it_can_be_differentiated_twice_and_has_no_nan() -> None:
    logits, index = torch.randn(3, 5).double().requires_grad_(), torch.tensor([0, 4, 2])
    torch.testing.assert_close(log_prob(logits, index), logits.log_softmax(-1).gather(1, index[:, None])[:, 0])
    assert torch.autograd.gradcheck(lambda z: log_prob(z, index), logits)
    assert torch.autograd.gradgradcheck(lambda z: log_prob(z, index), logits)
    contrast = torch.tensor([1, -1, 2])
    difference = log_prob(logits, index) - log_prob(logits, contrast.clamp(min=0))
    torch.testing.assert_close(log_prob(logits, index, contrast)[[0, 2]], difference[[0, 2]])
    torch.testing.assert_close(log_prob(logits, index, contrast)[1], log_prob(logits, index)[1])
    for only in (torch.full((1, 4), -torch.inf).index_fill(1, torch.tensor(2), 1.0), torch.ones(1, 1)):
        leaf = only.requires_grad_()
        value = log_prob(leaf, torch.tensor([leaf.argmax()]))
        assert value.item() == 0
        assert not torch.autograd.grad(value, leaf)[0].any()


def test_half_precision_is_computed_in_float32() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        logits = torch.tensor([1.0, 14.0], dtype=dtype)
        assert log_prob(logits, torch.tensor(1)).item() == pytest.approx(-math.log1p(math.exp(-13)), rel=1e-6)


def test_what_was_subtracted_from_one_is_known_by_its_rounding() -> None:
    logits = torch.randn(4000, 30) * 3
    index = torch.randint(30, (4000,))
    lacks = 10 ** (torch.rand(4000) * -7 - 3)
    for row, t, lack in zip(logits, index.tolist(), lacks.tolist(), strict=True):
        row[t] += raise_to(row, t, lack)
    true = log_prob(logits, index)
    small = -true < 7 * torch.finfo(torch.float32).eps
    assert small.sum() > 1000
    assert rounded(true).float().mean() < 1e-3
    plain = rounded(logits.log_softmax(-1).gather(1, index[:, None])[:, 0])
    assert plain[small].float().mean() > 0.99
    assert not plain[-true > 12 * torch.finfo(torch.float32).eps].any()
    assert exponents(torch.tensor([-1e-30, -1e-30, -0.2])).tolist() == [99.0, 99.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_multiples_of_the_rounding_are_known_within_six_of_their_own(dtype: torch.dtype) -> None:
    """n steps of half a machine epsilon, off by so many of the value's own roundings: within six, and not beyond."""
    own = torch.finfo(dtype).eps

    def known(count: float, off: float = 0.0) -> bool:
        return bool(rounded(torch.tensor(-count * own / 2 * (1 + off * own), dtype=dtype)))

    for count in (1, 4, 16):
        assert [known(count, off) for off in (0, -5.5, -6.5)] == [True, True, False], count
    assert [known(count) for count in (0, 0.5, 17, -1, -3)] == [True, False, False, False, False]
    assert not rounded(torch.tensor(-(2.0**-100), dtype=dtype))
    assert [rounded(torch.tensor(-torch.finfo(dtype).tiny * part, dtype=dtype)).item() for part in (0.5, 1)] == [True, False]
    assert not rounded(torch.tensor([-torch.inf, torch.nan], dtype=dtype)).any()
    assert not rounded(torch.tensor(-0.0234, dtype=torch.bfloat16)), "no multiple within 2^-7"
    steps = torch.tensor([4, 4 * (1 - 2**-8), 4 * (1 - 2**-7), 4 * (1 + 2**-7), 4 * (1 + 2**-6), 4.1])
    half = (-steps * torch.finfo(torch.float32).eps / 2).bfloat16()
    assert rounded(half).tolist() == [True, True, False, True, False, False]


def caption_of(head: str, lack: float, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Tensor, Tensor]:
    """A captioner in float32, sure of the word "ball" of "a red ball and", its pixels, and its float64 map and score."""
    from mmgradcam.tasks.nets.evidence import EvidenceCaptioner

    task = tiny_captioner("lstm" if head == "evidence" else head)
    if head == "evidence":
        torch.manual_seed(5)
        task.head = EvidenceCaptioner("lstm", len(task.vocabulary), 6, 8, looked_for=6).eval()
    for module in task.modules():
        module.float()
    pixels = torch.randn(3, 16, 16)
    ids = torch.tensor([[1, *task.vocabulary.encode(["a", "red", "ball", "and"])]])
    token = int(ids[0, 3])
    wide = copy.deepcopy(task)
    for module in wide.modules():
        module.double()

    def biases(one: Any) -> Tensor:
        return (one.head.out.words if head == "evidence" else one.head.out).bias

    with monkeypatch.context() as all_of_it:
        all_of_it.setattr(Tensor, "float", lambda x: x)  # detectors compute in float32 otherwise
        features = wide.encode(pixels[None].double()).detach().requires_grad_()
        with torch.no_grad():
            logits = wide.head.out(wide.head.steps(features, ids[:, :-1])[2])[0]
            biases(task)[token] += raise_to(logits, token, lack)
            biases(wide).copy_(biases(task))
        score = exact(wide.head.out(wide.head.steps(features, ids[:, :-1])[2])[0], token)
    assert -score.item() == pytest.approx(lack, rel=1e-2)
    (gradient,) = torch.autograd.grad(score, features)
    return task, pixels, torch.cat([(features * gradient).sum(1)[0].detach().flatten(), score.detach()[None]])


@pytest.mark.parametrize("lack", LACKS)
@pytest.mark.parametrize("rounds", [True, False])
@pytest.mark.parametrize("head", ["lstm", "transformer", "evidence"])
def test_sure_words_of_a_captioner(head: str, rounds: bool, lack: float, monkeypatch: pytest.MonkeyPatch) -> None:
    task, pixels, wanted = caption_of(head, lack, monkeypatch)
    if not rounds:
        monkeypatch.setattr("mmgradcam.engine._rounds", lambda *_: iter(()))
    one = explain(task, pixels, method=hirescam, target_layers=(), caption="a red ball and")[2]
    assert one.warning in (None, "no positive evidence")
    assert one.score == pytest.approx(wanted[-1].item(), rel=1e-5)
    assert off(one.map.flatten(), wanted[:-1]) < 1e-4
    if not rounds and head != "evidence":
        graphed = explain(task, pixels, method=hirescam, target_layers=(), caption="a red ball and", create_graph=True)[2]
        assert off(graphed.map.detach().flatten(), wanted[:-1]) < 1e-4


@pytest.mark.parametrize("lack", [1e-30, 1e-36])
def test_maps_are_in_the_units_of_the_score_to_the_end_of_the_range(lack: float, monkeypatch: pytest.MonkeyPatch) -> None:
    task, pixels, wanted = caption_of("transformer", lack, monkeypatch)
    one = explain(task, pixels, method=hirescam, target_layers=(), caption="a red ball and")[2]
    assert one.warning in (None, "no positive evidence")
    assert off(one.map.flatten(), wanted[:-1]) < 1e-3


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 0.06), (torch.float16, 0.006)])
@pytest.mark.parametrize("lack", LACKS)
@pytest.mark.parametrize("head", ["lstm", "transformer"])
def test_sure_words_in_half_precision(
    head: str, lack: float, dtype: torch.dtype, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's own rounding is in all logits: the score may be off by 10%, the picture by few roundings."""
    task, pixels, wanted = caption_of(head, lack, monkeypatch)
    for module in task.modules():
        module.to(dtype)
    for rounds in (True, False):
        if not rounds:
            monkeypatch.setattr("mmgradcam.engine._rounds", lambda *_: iter(()))
        one = explain(task, pixels.to(dtype), method=hirescam, target_layers=(), caption="a red ball and")[2]
        assert one.warning in (None, "no positive evidence")
        assert one.score == pytest.approx(wanted[-1].item(), rel=0.1)
        assert off(one.map.flatten().double() / one.score, wanted[:-1] / wanted[-1]) < error


def test_float16_gradients_are_brought_into_range() -> None:
    """Rows whose gradients overflow, underflow, or are 0, at first."""
    slopes, runs = torch.tensor([1e6, 1e-3, 1e-9, 0.0, 1.0]), []

    def work(powers: Tensor) -> list[Tensor]:
        runs.append(powers)
        return [(slopes * torch.exp2(powers))[:, None].half()]

    (found,), powers = kept_in_range(work, torch.zeros(5), 1)
    assert torch.isfinite(found).all()
    assert powers[4] == 0
    torch.testing.assert_close(found[:, 0].float() * torch.exp2(-powers), slopes, rtol=1e-3, atol=0)
    assert powers.tolist() == [-8, 8, 24, 48, 0], "by 8 at a time, six times at most"
    assert len(runs) == 7
    runs.clear()
    assert kept_in_range(work, torch.tensor([0.0, 0.0, 0.0, 122.0, 0.0]), 1)[1][3] == 126, "2^127 is the end of float32"
    runs.clear()
    kept_in_range(lambda powers: [work(powers)[0].float()], torch.zeros(5), 1)
    assert len(runs) == 1, "float32 needs no second backward"


@pytest.mark.parametrize(("peak", "runs", "power"), [(-8, 1, 0), (-7, 1, 0), (-9, 2, 8), (-17, 3, 16), (0, 1, 0)])
def test_float16_gradients_of_six_binary_digits_to_spare_stay_as_they_are(peak: int, runs: int, power: int) -> None:
    done: list[Tensor] = []

    def work(powers: Tensor) -> list[Tensor | None]:
        done.append(powers)
        return [None, (torch.tensor([[1.0, -1.0], [-(2.0**peak), 0.0]]) * torch.exp2(powers)[:, None]).half()]

    found, powers = kept_in_range(work, torch.zeros(2), 2)
    assert (len(done), powers.tolist()) == (runs, [0, power])
    assert found[0] is None
    done.clear()
    kept_in_range(work, torch.zeros(2), 1)
    assert len(done) == 1, "of the second input nobody asked that it stays in range"


def test_rows_in_two_dimensions_are_as_those_in_one() -> None:
    """Powers of (rounds, images), and logits of (captions, words, vocabulary)."""
    slopes = torch.tensor([[2.0**-12, 1.0, 2.0**-20], [-1.0, -(2.0**-12), 0.5]])[..., None] * torch.tensor(
        [1.0, -0.5, 0.0, 0.25]
    )

    def work(powers: Tensor) -> list[Tensor]:
        return [(slopes.view(*powers.shape, 4) * torch.exp2(powers)[..., None]).half()]

    (found,), powers = kept_in_range(work, torch.zeros(2, 3), 1)
    (one,), alone = kept_in_range(work, torch.zeros(6), 1)
    assert torch.equal(found.view(6, 4), one)
    assert torch.equal(powers.flatten(), alone)
    logits, index = torch.randn(2, 3, 5), torch.tensor([[0, 1, 2], [3, 4, 0]])
    contrast = torch.tensor([[1, -1, 0], [-1, 2, 4]])
    flat = log_prob(logits.flatten(0, 1), index.flatten(), contrast.flatten())
    assert torch.equal(log_prob(logits, index, contrast), flat.view(2, 3))


def test_gradients_below_the_range_are_lost_row_by_row() -> None:
    tiny = torch.finfo(torch.float32).tiny
    gradients = torch.tensor([[tiny / 2, 0.0], [-tiny / 2, 0.0], [-1.0, 0.0], [tiny, 0.0], [0.0, 0.0]])
    places = [(torch.ones(5, 2), gradients)]
    scores = torch.tensor([-1.0] * 5)
    assert lost("logit", scores, [gradients], places).tolist() == [True, True, False, False, False]
    assert lost("logit", scores, [gradients * 2**20], places).tolist() == [True, True, False, False, False]
    assert lost("logit", scores, [gradients.half()], [(torch.ones(5, 2), gradients.sign())]).tolist() == [False] * 5
    small = torch.tensor([[2.0**-20, 0.0], [1.0, 0.0]]).half()
    assert lost("logit", scores[:2], [small], [(torch.ones(2, 2), torch.ones(2, 2))]).tolist() == [True, False]


@pytest.mark.parametrize("lack", LACKS)
def test_likelihoods_of_answers_and_classes(lack: float) -> None:
    task = tiny_vqa("lstm")
    for module in task.modules():
        module.float()
    features, question = task.encoder(torch.randn(1, 3, 16, 16)).detach(), (4, 5, 6)
    targets = [Target("blue", AnswerTarget(question, 1)), Target("blue, not red", AnswerTarget(question, 1, 0))]
    logits = task.head(features, torch.tensor([question]))[0].detach()
    with torch.no_grad():
        task.head.out[-1].bias[1] += raise_to(logits, 1, lack)
    logits = task.head(features, torch.tensor([question]))[0].detach()
    wanted = [exact(logits.double(), 1).item(), (logits[1] - logits[0]).item()]
    assert task.log_prob(features, targets).tolist() == pytest.approx(wanted, rel=1e-5)
    made = [Target("b", (1, None)), Target("b, not a", (1, 0))]
    assert likelihood_of(logits[None], made).tolist() == pytest.approx(wanted, rel=1e-5)
    assert likelihood_of(logits[None], made, several=True)[0].item() == pytest.approx(
        torch.nn.functional.logsigmoid(logits[1].double()).item(), rel=1e-5
    )


class Actor(nn.Module):
    """A policy's logits of three actions over a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 8, 4, 2), nn.ReLU(), nn.Conv2d(8, 6, 3, 2), nn.ReLU())
        self.out = nn.LazyLinear(3)
        self(torch.zeros(1, 3, 32, 32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        return self.out(y.flatten(1)), y.mean((1, 2, 3))


def acting(lack: float) -> tuple[Policy, Any, Tensor, Tensor]:
    """A policy sure of an action, an observation, and the features and gradient of its log-probability in float64."""
    net, seen = Actor(), np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    wide = copy.deepcopy(net).double()
    features = wide.conv(torch.from_numpy(seen).permute(2, 0, 1)[None].double() / 255).detach().requires_grad_()
    with torch.no_grad():
        net.out.bias[1] += raise_to(wide.out(features.flatten(1))[0], 1, lack)
        wide.out.bias.copy_(net.out.bias)
    score = exact(wide.out(features.flatten(1))[0], 1)
    (gradient,) = torch.autograd.grad(score, features)
    return Policy(net, "conv", ["left", "right", "jump"], "log-probability"), seen, features.detach(), gradient


@pytest.mark.parametrize("lack", LACKS)
def test_sure_actions_of_a_policy(lack: float) -> None:
    task, seen, features, gradient = acting(lack)
    bound = task.at(seen)
    made = explain(bound, task.picture(seen), method=hirescam, action="right", contrast="jump", value=True)
    assert made.labels == ["right", "right rather than jump", "state value"]
    assert off(made[0].map, (features * gradient).sum(1)[0]) < 1e-4
    assert -made[0].score == pytest.approx(lack, rel=1e-2)
    told = task.values(seen)
    assert told[1].item() == pytest.approx(made[0].score, rel=1e-5)
    assert made[1].score == pytest.approx((told[1] - told[2]).item(), rel=1e-5)
    assert bound.seen is not None
    torch.testing.assert_close(bound.seen, told)
    assert made[2].score == pytest.approx(features.mean().item(), rel=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def blip(folder: Path) -> Path:
    return saved("blip", folder)


def sure(task: Any, picture: Image.Image, lack: float) -> Target:
    """A generative model made sure of the word "red" of a caption."""
    out = task.model.text_decoder.cls.predictions.decoder
    target = explain(task, picture, caption="a dog red ball").targets[2]
    token = target.value.text[target.value.positions[0]]
    with torch.no_grad():
        features = task.encode(task.prepare(picture).pixels[None])
        logits = task.adapter.read(features, [target.value.prompt], [list(target.value.text)])[0, target.value.positions[0]]
        out.bias[token] += raise_to(logits.double(), token, lack)
    return target


@pytest.mark.parametrize("lack", LACKS)
def test_sure_words_of_a_generative_model(blip: Path, picture: Image.Image, lack: float) -> None:
    task: Any = load(blip)
    target = sure(task, picture, lack)
    wide: Any = load(blip)
    wide.model.load_state_dict(task.model.state_dict())
    wide.model.double()
    features = wide.encode(wide.prepare(picture).pixels[None].double()).detach().requires_grad_()
    at = target.value.positions[0]
    logits = wide.adapter.read(features, [target.value.prompt], [list(target.value.text)])[0, at]
    score = exact(logits, target.value.text[at])
    (gradient,) = torch.autograd.grad(score, features)
    wanted = (features * gradient).sum(1)[0, 1:].detach()  # the class token has no place
    one = explain(task, picture, method=hirescam, caption="a dog red ball")[2]
    assert one.warning in (None, "no positive evidence")
    assert one.score == pytest.approx(score.item(), rel=1e-4)
    assert off(one.map.flatten(), wanted) < 1e-4
    for dtype, error in ((torch.bfloat16, 0.1), (torch.float16, 0.03)):
        task.model.to(dtype)
        half = explain(task, picture, method=hirescam, caption="a dog red ball")[2]
        assert half.warning in (None, "no positive evidence")
        assert off(half.map.flatten() / half.score, wanted / score.detach()) < error


def test_what_both_texts_of_a_contrast_begin_with_leaves_no_rounding(folder: Path, picture: Image.Image) -> None:
    """log p(red) - log p(red ball) is -log p(ball | red), however sure that is."""
    task: Any = load(saved("blip-vqa", folder))
    query: dict[str, Any] = {"question": "what color is the ball?", "method": hirescam}
    whole = explain(task, picture, answer="dog red", **query)
    prompt, text = whole.targets[0].value.prompt, whole.targets[0].value.text
    with torch.no_grad():
        features = task.encode(task.prepare(picture).pixels[None])
        logits = task.adapter.read(features, [prompt], [list(text)])[0, -1].double()
        task.model.text_decoder.cls.predictions.decoder.bias[text[-1]] += raise_to(logits, text[-1], 1e-9)
    contrast = explain(task, picture, answer="dog", contrast="dog red", **query)[1]
    last = whole.explainer(Target("red", type(whole.targets[0].value)(prompt, text, (len(text) - 1,))))
    assert contrast.score == pytest.approx(-last.score, rel=1e-4)
    assert contrast.score == pytest.approx(1e-9, rel=1e-2)
    assert off(contrast.map, -last.map.double()) < 1e-4


@pytest.mark.parametrize("head", ["lstm", "transformer"])
def test_below_the_range_it_is_said_and_nothing_is_drawn(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, pixels, _ = caption_of(head, 1e-3, monkeypatch)
    with torch.no_grad():
        task.head.out.bias[task.vocabulary.encode(["ball"])[0]] += 200
    made = explain(task, pixels, target_layers=(), caption="a red ball and")
    assert made.warnings[2] == "below rounding"
    one = made["ball"]
    assert one.score == 0
    assert one.caption() == "below rounding"
    assert not one.maps.any()
    assert not one.heat().any()
    assert one.peak is None
    made.save(tmp_path / "folder")
    assert Explanation.load(tmp_path / "folder").warnings == made.warnings
    page = (tmp_path / "folder" / "index.html").read_text()
    assert "“ball”: below rounding; no heat is drawn" in page


class Own(Task):
    """A user's own task whose scores are log-probabilities, by whichever function."""

    unit = "log-probability"

    def __init__(self, function: Any) -> None:
        torch.manual_seed(2)
        self.encoder, self.head, self.function = Encoder().eval(), Bent(classes=8).eval(), function

    def encode(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def targets(self, features: Tensor) -> list[Target]:
        return [Target("sure", (3, None)), Target("sure rather than another", (3, 4))]

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        logits = self.head(features)
        own = self.function(logits, torch.tensor([t.value[0] for t in targets]))
        other = self.function(logits, torch.tensor([t.value[1] or 0 for t in targets]))
        return torch.where(torch.tensor([t.value[1] is None for t in targets]), own, own - other)


def plain(logits: Tensor, index: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(1, index[:, None])[:, 0]


def by_softmax(logits: Tensor, index: Tensor) -> Tensor:
    return logits.softmax(-1).gather(1, index[:, None])[:, 0].log()


def by_sigmoid(logits: Tensor, index: Tensor) -> Tensor:
    rest = logits.scatter(1, index[:, None], -torch.inf).logsumexp(1)
    return torch.nn.functional.logsigmoid(logits.gather(1, index[:, None])[:, 0] - rest)


@pytest.mark.parametrize(
    ("function", "lack", "warning"),
    [
        (plain, 1e-2, None), (plain, 1e-5, None), (plain, 5e-7, "below rounding"), (plain, 1e-7, "below rounding"),
        (plain, 1e-9, "below rounding"), (plain, 1e-12, "below rounding"), (by_softmax, 1e-7, "below rounding"),
        (log_prob, 5e-7, None), (log_prob, 1e-7, None), (log_prob, 1e-12, None), (log_prob, 1e-30, None),
        (by_sigmoid, 1e-7, None),
    ],
)  # fmt: skip
def test_a_users_own_log_softmax_is_marked_where_rounding_is_left(function: Any, lack: float, warning: str | None) -> None:
    task, pixels = Own(function), torch.rand(3, 8, 8)
    with torch.no_grad():
        logits = task.head(task.encoder(pixels[None]))[0]
        task.head.outer.bias[3] += raise_to(logits, 3, lack)
        task.head.outer.bias[4] += 1.0
    made = explain(task, pixels, method=hirescam)
    assert made.warnings[0] == warning or (warning is None and made.warnings[0] == "no positive evidence")
    assert bool(made[0].map.any()) == (warning is None)
    assert made.warnings[1] in (None, "no positive evidence"), "of a contrast the large parts cancel"


@pytest.mark.parametrize(("method", "marked"), [(smooth(hirescam, count=2, sigma=0.0), True), (partial(rise, count=4), False)])
@pytest.mark.parametrize("lack", [1e-2, 1e-9])
def test_methods_that_take_many_gradients_are_marked_where_all_are_rounding(method: Any, marked: bool, lack: float) -> None:
    task, pixels = Own(plain), torch.rand(3, 8, 8)
    with torch.no_grad():
        task.head.outer.bias[3] += raise_to(task.head(task.encoder(pixels[None]))[0], 3, lack)
    made = explain(task, pixels, method=method)
    assert (made.warnings[0] == "below rounding") == (marked and lack < 1e-6)
    assert made.warnings[1] != "below rounding"
    if made.warnings[0] == "below rounding":
        assert not made[0].map.any()


def test_a_contrast_that_is_a_tie_is_drawn() -> None:
    task, pixels = Own(plain), torch.rand(3, 8, 8)
    with torch.no_grad():
        logits = task.head(task.encoder(pixels[None]))[0]
        task.head.outer.bias[4] += logits[3] - logits[4]
    tie = explain(task, pixels, method=hirescam)[1]
    assert abs(tie.score) < 1e-6
    assert tie.warning in (None, "no positive evidence")
    assert tie.map.any()


class Narrow(Own):
    """Its features reach the logits through a number so small that a gradient of 1e-34 would lose its digits on the way."""

    def targets(self, features: Tensor) -> list[Target]:
        return [Target("sure", (3, None))]

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return super().score(features * 1e8 * 1e-8, targets)


def test_digits_are_kept_on_the_way_back() -> None:
    task, pixels = Narrow(log_prob), torch.rand(3, 8, 8)
    with torch.no_grad():
        logits = task.head(task.encoder(pixels[None]))[0]
        task.head.outer.bias[3] += raise_to(logits, 3, 1e-34)
    made, features = explain(task, pixels, method=hirescam), task.encoder(pixels[None]).detach().double().requires_grad_()
    (gradient,) = torch.autograd.grad(exact(copy.deepcopy(task.head).double()(features)[0], 3), features)
    assert off(made.map, (features * gradient).sum(1)[0].detach()) < 1e-4


@pytest.mark.parametrize(("scale", "warning"), [(1e-30, None), (1e-42, "below rounding"), (0.0, "no gradient")])
def test_gradients_below_the_normal_numbers_of_float32_are_marked(scale: float, warning: str | None) -> None:
    task: Any = Classes(Encoder().eval(), Bent().eval())
    score = task.score
    task.score = lambda features, targets: score(features, targets) * scale
    made = explain(task, torch.rand(3, 8, 8), method=lambda a, g: (a * g).abs().sum(1))
    assert made.warnings == [warning] * 3
    assert bool(made.maps.any()) == (warning is None)


def test_methods_that_square_the_gradient_keep_small_ones() -> None:
    features, gradients = torch.rand(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    for method in (gradcam_pp, normgrad):
        small = method(features, gradients * 2**-100)
        wide = method(features.double(), gradients.double() * 2**-100)
        assert off(small, wide) < 1e-5


def test_scores_keep_more_than_the_precision_of_the_features() -> None:
    task = Own(log_prob)
    for module in task.modules():
        module.bfloat16()
    with torch.no_grad():
        task.head.outer.bias[3] += 16
        features = task.encoder(torch.rand(2, 3, 8, 8).bfloat16())
    found = scores(task, features, task.targets(features))
    assert found.dtype == torch.float32
    assert torch.equal(found[:, 0], log_prob(task.head(features), torch.tensor([3, 3])))


def test_scores_that_are_not_finite_are_refused_without_a_gradient_too() -> None:
    """`engine.scores` is what methods that ask the model again go by."""

    def broken(features: Tensor, targets: Any) -> Any:
        return real(features, targets) / 0.0

    asked = [Target("sure", (3, None)), Target("sure rather than another", (3, 4))]
    task: Any = Own(log_prob)
    features, real = task.encoder(torch.rand(2, 3, 8, 8)), task.score
    task.score = broken
    with pytest.raises(ModelError, match=r"the score of 'sure'.* is -inf"):
        scores(task, features, asked)
    shared: Any = tiny_captioner("lstm")
    features = shared.encoder(torch.randn(2, 3, 16, 16).double())
    words = shared.targets(features[:1], caption="a red ball")
    together = shared.scores
    shared.scores = lambda features, targets: [group.log() for group in together(features, targets)]
    with pytest.raises(ModelError, match="the score of 'a', 'red', 'ball' is nan"):
        scores(shared, features, words)


def test_a_log_probability_that_is_rounding_is_lost_where_the_features_move_it_little() -> None:
    """By less than 2^-6 of the first place's features times gradients, all signs counted; other units are not subtracted from
    1.
    """
    moves = torch.tensor([2.0**-6, 2.0**-6 - 2.0**-20, 0.0, 2.0**-6 - 2.0**-20, 1.0])
    x = torch.ones(5, 2, 1, 2) * torch.tensor([1.0, -1.0])
    place = (x * 2, (moves / 8)[:, None, None, None].expand(5, 2, 1, 2).clone())
    large = (x, torch.ones(5, 2, 1, 2))
    scores = torch.tensor([0.0, 0.0, 0.0, -1.0, 0.0])
    for places in ([place], [place, large]):
        arrived = [gradients for _, gradients in places]
        assert lost("log-probability", scores, arrived, places).tolist() == [False, True, True, False, False]
        assert not lost("logit", scores, arrived, places).any()
    assert not lost("log-probability", scores, [large[1], place[1]], [large, place]).any()


def test_powers_of_two_that_bring_the_slope_of_a_log_probability_to_one() -> None:
    told = {-3.0: 0, -200.0: 0, -0.4: 1, -1e-6: 19, -1e-40: 126, -1e-38: 126, 0.0: 0, 1e-6: 0, 2.0: 0}
    assert exponents(torch.tensor(list(told))).tolist() == list(told.values())
    rows = torch.ones(2, 3, 2)
    assert torch.equal(
        times(rows, torch.tensor([[0.0, 1.0, -2.0], [3.0, 0.0, 0.0]]))[..., 1], torch.tensor([[1, 2, 0.25], [8, 1, 1]])
    )


def test_gradients_that_are_all_negative_have_a_size() -> None:
    for size, expected in ((1e-3, False), (1e-40, True)):
        raw = torch.tensor([[[-size, -size / 2]]])
        assert lost("logit", torch.ones(1), [raw], [(torch.ones_like(raw), raw)]).tolist() == [expected]


def test_powers_stay_below_what_the_precision_holds() -> None:
    assert initial("log-probability", torch.tensor([-6e-8], dtype=torch.half)).tolist() == [15.0]
    assert initial("log-probability", torch.tensor([-1e-30])).tolist() == [99.0]
    assert initial("logit", torch.tensor([-1e-30])).tolist() == [0.0]
