"""Robustness: corruptions against their definitions, attacks against linear models whose answer is known, maps before and
after.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import data, tiny_vqa
from PIL import Image
from torch import nn

from mmgradcam import InputError, Target, Task, explain, hirescam, layercam
from mmgradcam.images.pictures import PreparedImage, Preprocess
from mmgradcam.metrics import corruptions, robustness
from mmgradcam.metrics.corruption_robustness import asking, corruption_sweep
from mmgradcam.metrics.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    brightness,
    contrast,
    corrupted,
    defocus_blur,
    gaussian_blur,
    gaussian_noise,
    jpeg,
    pixelate,
    shot_noise,
)
from mmgradcam.metrics.robustness import adversarial, fgsm, pgd
from mmgradcam.tasks import Layer, load


def grey(value: int, side: int = 64) -> Image.Image:
    return Image.new("RGB", (side, side), (value,) * 3)


def dot(side: int = 224) -> np.ndarray[Any, Any]:
    """Black with one white pixel in the middle: a blur of it is its kernel."""
    pixels = np.zeros((side, side, 3))
    pixels[side // 2, side // 2] = 1
    return pixels


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("severity", "sigma"), list(zip(SEVERITIES, (0.08, 0.12, 0.18, 0.26, 0.38), strict=True)))
def test_gaussian_noise_has_the_published_deviation(severity: int, sigma: float) -> None:
    made = gaussian_noise(np.full((100, 100, 3), 0.5), severity, RNG) - 0.5
    assert made.std() == pytest.approx(sigma, rel=0.03)
    assert abs(made.mean()) < 0.01


@pytest.mark.parametrize(("severity", "photons"), list(zip(SEVERITIES, (60, 25, 12, 5, 3), strict=True)))
def test_shot_noise_counts_photons(severity: int, photons: int) -> None:
    """Of a Poisson count, the variance is the mean: value / photons after scaling back."""
    made = shot_noise(np.full((100, 100, 3), 0.4), severity, RNG)
    assert made.mean() == pytest.approx(0.4, abs=0.01)
    assert made.var() == pytest.approx(0.4 / photons, rel=0.05)
    assert np.allclose(made * photons, np.rint(made * photons))


@pytest.mark.parametrize(("severity", "sigma"), list(zip(SEVERITIES, (1, 2, 3, 4, 6), strict=True)))
def test_gaussian_blur_is_scikit_images(severity: int, sigma: float) -> None:
    filters = pytest.importorskip("skimage.filters", reason="the oracle is scikit-image")
    pixels = np.random.default_rng(1).random((224, 224, 3))
    expected = filters.gaussian(pixels, sigma=sigma, channel_axis=-1)
    np.testing.assert_allclose(gaussian_blur(pixels, severity, RNG), expected, atol=1e-6)


def test_defocus_is_a_mean_over_a_disc() -> None:
    """At severity 1 and 224 pixels the rim is sharp: 29 pixels lie within 3 of the middle, each gets 1/29."""
    made = defocus_blur(dot(), 1, RNG)[..., 0]
    y, x = np.mgrid[-112:112, -112:112]
    assert made[x * x + y * y <= 9] == pytest.approx(np.full(29, 1 / 29), abs=1e-6)
    assert made.sum() == pytest.approx(1)
    spreads = [((x * x + y * y) * defocus_blur(dot(), s, RNG)[..., 0]).sum() for s in SEVERITIES]
    assert spreads == sorted(spreads)
    small = defocus_blur(dot(112), 3, RNG)[..., 0]
    assert (small > 1e-3).sum() < (defocus_blur(dot(), 3, RNG)[..., 0] > 1e-3).sum() / 2.5


def test_brightness_adds_to_the_value_alone() -> None:
    """(0.2, 0.4, 0.1) + 0.2: value 0.4 -> 0.6, so all times 1.5; black becomes grey; white stays."""
    pixels = np.array([[[0.2, 0.4, 0.1], [0, 0, 0], [1, 1, 1]]])
    assert brightness(pixels, 2, RNG)[0] == pytest.approx(np.array([[0.3, 0.6, 0.15], [0.2, 0.2, 0.2], [1, 1, 1]]))


@pytest.mark.parametrize(
    ("severity", "more", "left", "share"), list(zip(SEVERITIES, (0.1, 0.2, 0.3, 0.4, 0.5), (0.4, 0.3, 0.2, 0.1, 0.05), (0.6, 0.5, 0.4, 0.3, 0.25), strict=True))
)  # fmt: skip
def test_light_contrast_and_pixels_of_each_severity(severity: int, more: float, left: float, share: float) -> None:
    pixels = np.random.default_rng(severity).random((20, 40, 3)) * 0.45
    value = pixels.max(-1, keepdims=True)
    np.testing.assert_allclose(brightness(pixels, severity, RNG), pixels / value * (value + more))
    bright = brightness(pixels + 0.55, severity, RNG)
    np.testing.assert_allclose(bright.max(-1), np.minimum((pixels + 0.55).max(-1) + more, 1))
    mean = pixels.mean((0, 1))
    np.testing.assert_allclose(contrast(pixels, severity, RNG), mean + left * (pixels - mean))
    made = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    small = made.resize((int(40 * share), int(20 * share)), Image.Resampling.BOX).resize((40, 20), Image.Resampling.BOX)
    assert (np.rint(pixelate(pixels, severity, RNG) * 255) == np.asarray(small)).all()
    tiny = np.array([[[0.2, 0.4, 0.6]]])
    np.testing.assert_allclose(pixelate(tiny, severity, RNG), tiny)


@pytest.mark.parametrize(
    ("severity", "radius", "rim", "reach"), [(1, 3, 0.1, 1), (2, 4, 0.5, 1), (3, 6, 0.5, 1), (4, 8, 0.5, 1), (5, 10, 0.5, 2)]
)
@pytest.mark.parametrize("side", [112, 224, 40])
def test_a_lens_out_of_focus_is_a_disc_blurred_at_its_rim(
    severity: int, radius: int, rim: float, reach: int, side: int
) -> None:
    wide = max(1.0, radius * side / 224)
    y, x = np.mgrid[-40:41, -40:41]
    disc = (x * x + y * y <= wide * wide).astype(float)
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / rim) ** 2)
    soft = np.outer(line, line) / line.sum() ** 2
    kernel = sum(
        soft[reach + i, reach + j] * np.roll(disc / disc.sum(), (i, j), (0, 1))
        for i in range(-reach, reach + 1)
        for j in range(-reach, reach + 1)
    )
    made = defocus_blur(dot(side), severity, RNG)[..., 1]
    middle = side // 2
    half = min(40, middle - 1)
    np.testing.assert_allclose(
        made[middle - half : middle + half, middle - half : middle + half], kernel[40 - half : 40 + half, 40 - half : 40 + half], atol=1e-12
    )  # fmt: skip


def test_contrast_draws_towards_the_mean_of_each_channel() -> None:
    """Mean 0.4; 0.2 -> 0.4 - 0.2 * 0.2 = 0.36 at severity 3."""
    pixels = np.array([[[0.2, 0.0, 0.5], [0.6, 1.0, 0.5]]])
    assert contrast(pixels, 3, RNG)[0] == pytest.approx(np.array([[0.36, 0.4, 0.5], [0.44, 0.6, 0.5]]))


def test_pixelating_leaves_boxes_of_the_mean() -> None:
    """Severity 2 halves 8 x 8 to 4 x 4: each 2 x 2 block becomes its mean, rounded to 8 bits."""
    pixels = np.rint(np.random.default_rng(2).random((8, 8, 3)) * 255) / 255
    made = pixelate(pixels, 2, RNG)
    assert made == pytest.approx(pixels.reshape(4, 2, 4, 2, 3).mean((1, 3)).repeat(2, 0).repeat(2, 1), abs=1 / 255)


def test_jpeg_is_pillows_at_the_published_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    saved = Image.Image.save
    monkeypatch.setattr(
        Image.Image, "save", lambda self, to, kind, quality: asked.append(quality) or saved(self, to, kind, quality=quality)
    )
    pixels = np.random.default_rng(3).random((32, 32, 3))
    errors = [float(np.abs(jpeg(pixels, s, RNG) - pixels).mean()) for s in SEVERITIES]
    assert asked == [25, 18, 15, 10, 7]
    assert errors[0] < errors[-1]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_and_boxes_are_those_of_the_picture_itself(severity: int) -> None:
    picture = Image.fromarray(np.random.default_rng(severity).integers(0, 256, (24, 16, 3), dtype=np.uint8))
    pixels, data, share = np.asarray(picture) / 255, io.BytesIO(), (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    picture.save(data, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    np.testing.assert_allclose(jpeg(pixels, severity, RNG), np.asarray(Image.open(data)) / 255)
    for one in (picture, picture.crop((0, 0, 16, 3)), picture.crop((0, 0, 3, 24))):
        small = one.resize((max(1, int(one.width * share)), max(1, int(one.height * share))), Image.Resampling.BOX)
        expected = np.asarray(small.resize(one.size, Image.Resampling.BOX)) / 255
        np.testing.assert_allclose(pixelate(np.asarray(one) / 255, severity, RNG), expected)


def test_what_a_corruption_is_given_and_what_is_kept_of_it() -> None:
    """Values in 0..1, the severity and noise of the seed; what comes out is cut to 0..1 and rounded to 8 bits."""
    picture = Image.fromarray(np.random.default_rng(4).integers(0, 256, (9, 11, 3), dtype=np.uint8))
    asked = []

    def shifting(by: float) -> Any:
        return lambda pixels, severity, rng: asked.append((severity, rng.random())) or pixels + by

    values = np.asarray(picture).astype(int)
    for by in (0, 7, -7, 300, -300):
        made = np.asarray(corrupted(picture, shifting(by / 255), 4, seed=3))
        assert (made == np.clip(values + by, 0, 255)).all()
    assert (np.asarray(corrupted(picture, shifting(0.6 / 255), 1)) == np.clip(values + 1, 0, 255)).all()
    assert asked == [(4, np.random.default_rng(3).random())] * 5 + [(1, np.random.default_rng(0).random())]
    grey = corrupted(picture.convert("L"), shifting(0), 1)
    assert (np.asarray(grey) == np.asarray(picture.convert("L"))[..., None]).all()
    with pytest.raises(InputError, match="expected 1 to 5, got 6"):
        corrupted(picture, shifting(0), 6)


def test_corrupted_is_repeatable_and_refuses_other_severities() -> None:
    picture = Image.fromarray(np.random.default_rng(4).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    for kind in CORRUPTIONS:
        one, again = (np.asarray(corrupted(picture, kind, 3, seed=5)) for _ in range(2))
        assert one.shape == (40, 30, 3)
        assert (one == again).all()
        assert (one != np.asarray(picture)).any()
    assert (np.asarray(corrupted(picture, gaussian_noise, 3, 5)) != np.asarray(corrupted(picture, gaussian_noise, 3, 6))).any()
    with pytest.raises(InputError, match="expected 1 to 5, got 0"):
        corrupted(picture, jpeg, 0)
    assert {kind.__name__ for kind in CORRUPTIONS} <= set(vars(corruptions))


class Halves(nn.Module):
    """Three classes: how bright the left half is, how bright the right half is, and a constant; linear in the pixels."""

    def __init__(self, gain: float = 40.0) -> None:
        super().__init__()
        self.view = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.view.weight, 1 / 3)
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        seen = self.view(pixels)
        left, right = seen[..., :4].mean((1, 2, 3)), seen[..., 4:].mean((1, 2, 3))
        return self.gain * torch.stack([left, right, torch.full_like(left, -1.0)], 1)


def halves(**fit: Any) -> Layer:
    task = Layer(Halves(), "view", ["left", "right", "none"], Preprocess((8, 8), (0.5,) * 3, (0.25,) * 3, **fit))
    task.method = hirescam
    return task


def lit(left: int, right: int) -> Image.Image:
    pixels = np.full((8, 8, 3), left, dtype=np.uint8)
    pixels[:, 4:] = right
    return Image.fromarray(pixels)


attacks = pytest.mark.parametrize("attack", [pgd, fgsm])


@attacks
def test_an_attack_on_a_linear_model_darkens_what_speaks_for_the_class_and_brightens_the_rest(attack: Any) -> None:
    """The gradient's sign is known, so the best picture within eps is: the left 8 darker, the right 8 brighter."""
    pytest.importorskip("torchattacks", reason="attacks come from torchattacks")
    made = adversarial(halves(), lit(120, 110), "left", attack=attack, eps=8 / 255)
    seen = np.asarray(made.picture).astype(int)
    assert (seen[:, :4] == 112).all()
    assert (seen[:, 4:] == 118).all()
    assert made.distance == pytest.approx(8 / 255, abs=1e-6)
    logits = 40 * (np.array([112, 118]) / 255 - 0.5) / 0.25
    assert made.wrong == "right"
    assert made.probability == pytest.approx(1 / (1 + np.exp(logits[0] - logits[1])), abs=1e-3)
    assert made.was > 0.99 > 0.05 > made.now
    assert not made.fooled
    assert adversarial(halves(), lit(120, 110), "left", attack=attack, eps=20 / 255).fooled


def test_the_class_to_be_seen_can_be_named() -> None:
    """Towards "none" the left half darkens: by 16 it is still the likeliest, by 60 it is not."""
    pytest.importorskip("torchattacks", reason="attacks come from torchattacks")
    made = adversarial(halves(), lit(100, 60), ["left", "right"], wrong="none", eps=16 / 255, steps=20)
    assert (np.asarray(made.picture)[:, :4] == 84).all()
    assert made.wrong == "left"
    assert not made.fooled
    much = adversarial(halves(), lit(100, 60), ["left", "right"], wrong="none", eps=60 / 255, steps=20)
    assert (np.asarray(much.picture)[:, :4] == 40).all()
    assert much.wrong == "none"
    assert much.fooled
    assert made.before.labels == made.after.labels == ["left", "right"]


def test_maps_before_and_after_are_compared_target_by_target() -> None:
    pytest.importorskip("torchattacks", reason="attacks come from torchattacks")
    left = np.zeros((8, 8), bool)
    left[:, :4] = True
    picture = lit(220, 200)
    made = adversarial(halves(), picture, ["left", "right"], masks=[left, left], eps=8 / 255, method=hirescam)
    for i, label in enumerate(("left", "right")):
        clean = explain(halves(), picture, classes=[label])
        attacked = explain(halves(), made.pixels, classes=[label])
        torch.testing.assert_close(made.before.maps[i], clean.maps[0])
        torch.testing.assert_close(made.after.maps[i], attacked.maps[0])
    assert made.correlations == pytest.approx((1, 1))
    assert made.overlaps == (1, 1)
    assert made.peaks == ((True, True), (False, False))
    assert made.after.box == made.before.box
    with pytest.raises(InputError, match="expected one per true class, 2, got 1"):
        adversarial(halves(), picture, ["left", "right"], masks=[left])


def test_attacks_are_those_of_torchattacks_with_the_settings_of_their_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    stub = SimpleNamespace(
        PGD=lambda model, **how: asked.append((model, how)), FGSM=lambda model, **how: asked.append((model, how))
    )
    monkeypatch.setitem(sys.modules, "torchattacks", stub)
    model = nn.Identity()
    pgd(model, 0.08, 5)
    fgsm(model, 0.08, 5)
    assert asked == [(model, {"eps": 0.08, "alpha": pytest.approx(2.5 * 0.08 / 5), "steps": 5}), (model, {"eps": 0.08})]


def test_overlaps_are_of_the_boxes_of_the_largest_segments_and_0_where_there_is_none() -> None:
    def stub(*boxes: list[tuple[int, ...]]) -> Any:
        maps = torch.arange(4.0).view(1, 2, 2).expand(len(boxes), 2, 2)
        parts = [SimpleNamespace(boxes=lambda found=found: found) for found in boxes]
        return type("Stub", (list,), {"maps": maps})(parts)

    one = stub([(0, 0, 4, 2), (6, 6, 7, 7)], [(0, 0, 1, 1)], [], [])
    other = stub([(2, 0, 4, 2), (0, 0, 4, 2)], [], [(0, 0, 1, 1)], [])
    assert robustness.compared(one, other) == (pytest.approx((1, 1, 1, 1)), (0.5, 0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="zip"):
        robustness.compared(one, stub([]))


@pytest.mark.parametrize(
    ("probability", "wrong", "fooled"), [(0.991, "cat", True), (0.99, "cat", False), (0.991, "dog", False)]
)
def test_a_model_is_fooled_that_is_surer_than_99_percent_of_what_is_not_there(
    probability: float, wrong: str, fooled: bool
) -> None:
    before: Any = SimpleNamespace(labels=["dog", "man"])
    pixels = torch.zeros(3, 1, 1)
    made = robustness.Adversarial(pixels, lit(0, 0), wrong, probability, 0.9, 0.1, 0.0, before, before, (), ())
    assert made.fooled is fooled
    assert made.peaks == ()


@pytest.mark.parametrize(
    ("features", "labels", "count"),
    [((2, 3, 3), None, 0), ((1,), None, 1), ((2,), None, 2), ((2, 1, 1), ["a", "b", "c"], 3), ((3,), ["a"], 1)],
)
def test_what_knows_fewer_than_two_classes_cannot_be_attacked(
    features: tuple[int, ...], labels: list[str] | None, count: int
) -> None:
    """By its labels, else by how many numbers its features have, if they are a row."""

    class Known(Task):
        name = "known"

        def encode(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(1, *features)

        def targets(self, features: torch.Tensor, classes: list[int]) -> list[Target]:
            return [Target(str(c), c) for c in classes]

        def score(self, features: torch.Tensor, targets: Sequence[Target]) -> torch.Tensor:
            raise AssertionError("it is never asked")

    task, pixels = Known(), torch.zeros(3, 2, 2)
    if labels:
        task.labels = labels  # type: ignore[attr-defined]
    if count < 2:
        with pytest.raises(InputError, match=r"known: expected a classifier, asked with classes=\[...\]"):
            robustness._Logits(task, pixels, pixels + 1, pixels)
    else:
        assert [t.value for t in robustness._Logits(task, pixels, pixels + 1, pixels).every] == list(range(count))


def test_pixels_and_the_0_to_1_of_an_attack_are_each_others_inverse_and_padding_is_fixed() -> None:
    low, high = torch.tensor([-1.0, 0.0, 3.0, 2.0]).view(1, 2, 2), torch.tensor([1.0, 0.5, 3.0 + 5e-7, 0.0]).view(1, 2, 2)
    task = halves()
    clean = torch.tensor([0.5, 0.125, 3.0, 0.5]).view(1, 2, 2)
    task.encode = lambda pixels: torch.zeros(1, 3)  # type: ignore[method-assign]
    task.targets = lambda features, classes: [Target(str(c), c) for c in classes]  # type: ignore[method-assign, assignment, misc]
    made = robustness._Logits(task, low, high, clean)
    assert made.free.tolist() == [[[True, True], [False, True]]]
    assert made.unit(clean).tolist() == [[[0.75, 0.25], [0.0, 0.75]]]
    assert torch.equal(made.pixels(made.unit(clean)), clean)
    assert made.unit(clean + torch.tensor([9.0, -9.0]).view(2, 1)).tolist() == [[[1.0, 1.0], [0.0, 1.0]]]
    assert made.pixels(torch.ones(1, 2, 2)).tolist() == [[[1.0, 0.5], [3.0, 0.0]]]
    assert made.every[1].value == 1


def test_what_is_seen_in_tiles_cannot_be_attacked() -> None:
    task = halves()
    task.prepare = lambda image: PreparedImage(torch.zeros(2, 3, 8, 8), ((0, 0, 1, 1),) * 2)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="sees the picture in tiles; attack a model that sees it whole"):
        robustness._prepared(task, lit(0, 0))


def test_padding_is_not_attacked_and_the_seed_decides() -> None:
    tall = Image.new("RGB", (8, 16), (120, 120, 120))
    before = halves(how="pad").prepare(tall).pixels

    def noise(model: nn.Module, eps: float, steps: int) -> Any:
        return lambda pixels, labels: (pixels + eps * (2 * torch.rand_like(pixels) - 1)).clamp(0, 1)

    one, again, other = (adversarial(halves(how="pad"), tall, "left", attack=noise, seed=s) for s in (0, 0, 1))
    outside = [0, 1, 6, 7]
    assert torch.equal(one.pixels[..., outside], before[..., outside])
    assert not torch.equal(one.pixels[..., 2:6], before[..., 2:6])
    assert torch.equal(one.pixels, again.pixels)
    assert not torch.equal(one.pixels, other.pixels)


def test_the_model_and_the_stream_of_chance_are_left_as_they_were() -> None:
    pytest.importorskip("torchattacks", reason="attacks come from torchattacks")
    task = halves()
    task.model.train()
    chance = torch.random.get_rng_state()
    adversarial(task, lit(120, 110), "left")
    assert task.model.training
    assert all(p.requires_grad and p.grad is None for p in task.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), chance)


def test_what_cannot_be_attacked_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(InputError, match=r"attacks need torchattacks; install it with pip install \"mmgradcam\[robust\]\""):
        adversarial(halves(), lit(120, 110), "left")
    with pytest.raises(InputError, match="no class is called 'middle'"):
        adversarial(halves(), lit(120, 110), "middle")


def test_a_sweep_keeps_the_targets_and_counts_by_hand() -> None:
    """Brightness 1 adds 0.1 to both halves: scores grow by 40 * 0.1 / 0.25 = 16; maps keep their order."""
    picture = lit(100, 80)
    rows = corruption_sweep(halves(), picture, kinds=[brightness, gaussian_noise], severities=[1, 4], top=2)
    assert [(r.kind, r.severity, r.label) for r in rows] == [
        (kind, severity, label)
        for kind in ("brightness", "gaussian_noise")
        for severity in (1, 4)
        for label in ("left", "right")
    ]
    assert rows[0].change == pytest.approx(16, abs=0.35)
    assert rows[0].correlation == pytest.approx(1)
    noisy = corrupted(picture, gaussian_noise, 4)
    expected = explain(halves(), noisy, classes=["left"])
    assert rows[6].score == pytest.approx(expected.score)
    assert rows[6].clean == pytest.approx(explain(halves(), picture, classes=["left"]).score)
    assert rows[6].correlation < 0.9


def test_a_sweep_asks_for_what_was_said_of_the_clean_picture() -> None:
    """Lit left, the right half becomes likelier under no corruption here but one of the user's own, which mirrors."""

    def mirrored(pixels: Any, severity: int, rng: Any) -> Any:
        return pixels[:, ::-1]

    (row,) = corruption_sweep(halves(), lit(100, 60), kinds=[mirrored], severities=[1])
    assert row.label == "left"
    assert row.kind == "mirrored"
    assert row.change == pytest.approx(-40 * 40 / 255 / 0.25, abs=1e-3)


def test_any_task_can_be_asked_for_the_same_again(picture: Image.Image) -> None:
    task = tiny_vqa()
    for module in task.modules():
        module.float()
    made = explain(task, picture, question="what color is the ball", method=layercam)
    again = explain(asking(task, made.targets), picture, method=layercam)
    torch.testing.assert_close(again.maps, made.maps)
    assert again.labels == made.labels
    rows = corruption_sweep(task, picture, kinds=[contrast], severities=[5], question="what color is the ball", method=layercam)
    assert [row.label for row in rows] == made.labels


DOGS = range(152, 270)
"""ImageNet's breeds, counted from 1 as this model counts."""


@pytest.mark.data
def test_a_real_mobilenet_is_fooled_and_its_maps_are_compared() -> None:
    """Photos in which somebody boxed a dog and the model sees one: within 8/255 it sees an airliner, at p > 0.99."""
    pytest.importorskip("torchattacks", reason="attacks come from torchattacks")
    import datasets

    task: Any = load(data() / "mobilenet_v2_1.0_224")
    rows = datasets.load_dataset("parquet", data_files=str(data() / "flickr8k" / "val.parquet"), split="train")
    fooled, seen, correlations = 0, 0, []
    for row in rows:
        if seen == 2:
            break
        if not any("dog" in phrase["text"].split() and phrase["boxes"] for phrase in row["phrases"]):
            continue
        photo = row["image"].convert("RGB").resize((row["width"], row["height"]))
        label = explain(task, photo).labels[0]
        if task.labels.index(label) not in DOGS:
            continue
        seen += 1
        made = adversarial(task, photo, label, wrong="airliner", steps=25)
        fooled += made.fooled and made.wrong == "airliner"
        assert made.distance <= 8 / 255 + 1e-6
        correlations.append(made.correlations[0])
    print(f"rank correlations of the true class's maps, before and after: {[round(c, 2) for c in correlations]}")
    assert fooled == seen == 2
    assert all(-1 <= c <= 1 for c in correlations)
