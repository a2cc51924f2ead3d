"""Metrics that ask the model again: values worked by hand on 3 x 3 maps, and how often the encoder runs."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmgradcam import InputError, ModelError, Probe, Target, Task, compare, explain
from mmgradcam.explaining.model_input import ModelInput
from mmgradcam.images.pictures import PreparedImage, Preprocess, whole
from mmgradcam.methods import occlusion
from mmgradcam.metrics import (
    Variants,
    average_drop,
    confidence_vs_area,
    deletion,
    deletion_insertion,
    imputation,
    increase,
    insertion,
    occlusion_correlation,
    rank_correlation,
    road,
    shown,
)
from mmgradcam.metrics.deletion_insertion import SHARES, _ranks, imputed
from mmgradcam.metrics.imputation import TOLERANCE, impute
from mmgradcam.metrics.perturbations import Seen, fill_black, fill_blur, fill_mean
from mmgradcam.tasks import load

WEIGHTS = torch.tensor([[9.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])


class Weighing(Task):
    """The score is the weighted sum of a 3 x 3 picture's red, and so what every pixel is worth is known."""

    unit = "logit"

    def __init__(self) -> None:
        self.encodes: list[int] = []

    def prepare(self, image: Image.Image) -> PreparedImage:
        return whole(image.resize((3, 3), Image.Resampling.NEAREST))

    def encode(self, image: Tensor) -> Tensor:
        self.encodes.append(len(image))
        return image[:, :1]

    def targets(self, features: Tensor, signs: Sequence[int] = (1,), **query: Any) -> list[Target]:
        return [Target(f"sum {s}", s) for s in signs]

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        signs = torch.tensor([t.value for t in targets], dtype=features.dtype)
        return (features[:, 0] * WEIGHTS).sum((1, 2)) * signs

    def log_prob(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return torch.nn.functional.logsigmoid(self.score(features, targets) / 10)


def own(features: Tensor, gradients: Tensor) -> Tensor:
    return (features * gradients).sum(1)


def backwards(features: Tensor, gradients: Tensor) -> Tensor:
    return 10 - (features * gradients).sum(1)


def white() -> Image.Image:
    return Image.new("RGB", (9, 9), (255, 255, 255))


def test_deletion_and_insertion_are_the_areas_worked_by_hand() -> None:
    made = explain(Weighing(), white(), method=own)
    ninths = [i / 9 for i in range(10)]
    # Hottest first: 45, 36, 28, 21, 15, 10, 6, 3, 1, 0, by the trapezoid rule over ninths.
    left = [45, 36, 28, 21, 15, 10, 6, 3, 1, 0]
    area = sum((a + b) / 2 for a, b in zip(left[:-1], left[1:], strict=True)) / 9
    assert deletion(made, fill_black, ninths).item() == pytest.approx(area, rel=1e-5)
    put = [45 - v for v in left]
    area = sum((a + b) / 2 for a, b in zip(put[:-1], put[1:], strict=True)) / 9
    assert insertion(made, fill_black, ninths).item() == pytest.approx(area, rel=1e-5)
    worst = explain(Weighing(), white(), method=backwards)
    assert deletion(worst, fill_black, ninths).item() == pytest.approx(45 - deletion(made, fill_black, ninths).item(), rel=1e-5)
    assert insertion(worst, fill_black, ninths).item() == pytest.approx(
        45 - insertion(made, fill_black, ninths).item(), rel=1e-5
    )


def test_areas_are_over_the_shares_that_are_asked_for_and_counts_are_rounded() -> None:
    made = explain(Weighing(), white(), method=own)
    # Of nine pixels, 5.4 and 0.9 are left of the coldest, so 5 and 1: 1 + ... + 5 and 1.
    assert deletion(made, fill_black, (0.4, 0.9)).item() == pytest.approx((15 + 1) / 2)
    # 0.9, 3.6 and 9 of the hottest: 9, then 9 + 8 + 7 + 6, then all.
    assert insertion(made, fill_black, (0.1, 0.4, 1.0)).item() == pytest.approx(
        (0.3 * (9 + 30) / 2 + 0.6 * (30 + 45) / 2) / 0.9
    )
    assert SHARES == (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def test_equal_pixels_go_in_an_order_that_is_random_and_the_same_for_every_map() -> None:
    even = _ranks(torch.full((6, 7), 0.3)).flatten().tolist()
    assert sorted(even) == list(range(42))
    assert even not in (list(range(42)), list(range(41, -1, -1)))
    assert even == _ranks(torch.zeros(6, 7)).flatten().tolist()
    drawn = torch.randperm(42, generator=torch.Generator().manual_seed(0)).tolist()
    assert [even[at] for at in drawn] == list(range(42)), "published figures rest on this order"
    heat = torch.tensor([0.5, 0.0, 0.5, 1.0, 0.0, 0.5]).repeat(7)
    ranks = _ranks(heat.view(6, 7)).flatten().tolist()
    slow = sorted(range(42), key=lambda i: (-heat[i], even[i]))  # the hottest first, and ties as of an even map
    assert [slow.index(i) for i in range(42)] == ranks


def test_road_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """With black in place of neighbours: what is left without the coldest less what is left without the hottest, halved."""
    monkeypatch.setattr(deletion_insertion, "imputed", fill_black)
    made = explain(Weighing(), white(), method=own)
    thirds = [(39 - 21) / 2, (24 - 6) / 2]  # without 3: 9 to 4 and 1 to 6; without 6: 9 to 7 and 1 to 3
    assert road(made, (1 / 3, 2 / 3)).item() == pytest.approx(sum(thirds) / 2)
    assert road(made, (1 / 9,)).item() == pytest.approx((44 - 36) / 2)


def test_blur_is_that_of_scipy() -> None:
    """A Gaussian of a tenth of the shorter side, cut at three deviations, mirrored at the edge without repeating it."""
    from scipy.ndimage import correlate1d

    view = ModelInput(white(), "", torch.rand(3, 41, 57), (0.0, 0.0, 1.0, 1.0), prepared=True)
    seen = Seen(Weighing(), view)
    for share, radius in ((0.1, 12), (0.01, 1), (0.5, 40)):
        sigma = share * 41
        weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
        slow = seen.pixels.double().numpy()
        for axis in (1, 2):
            slow = correlate1d(slow, weights / weights.sum(), axis, mode="mirror")
        torch.testing.assert_close(seen.fill_blur(share).double(), torch.from_numpy(slow), rtol=1e-4, atol=1e-5)
    half = torch.zeros(41, 57)
    half[:, :20] = 1
    mixed = fill_blur(seen, half)
    assert torch.equal(mixed[:, :, :20], seen.pixels[:, :, :20])
    assert torch.equal(mixed[:, :, 20:], seen.fill_blur(0.1)[:, :, 20:])
    quarter = seen.kept(torch.full((41, 57), 0.25), torch.zeros(3, 41, 57))
    torch.testing.assert_close(quarter, seen.pixels / 4)


def test_middle_grey_stands_for_half_of_what_is_taken_away() -> None:
    made = explain(Weighing(), white(), method=own)
    gone = Variants([made]).ask([(0, torch.zeros(3, 3))], fill_mean)
    assert gone.item() == pytest.approx(45 * 128 / 255, rel=1e-5)


class Padded(Weighing):
    """A model whose picture is padded with its mean colour and normalised."""

    def prepare(self, image: Image.Image) -> PreparedImage:
        return Preprocess((6, 6), (0.6, 0.4, 0.3), (0.2, 0.2, 0.2))(image)

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return features.sum((1, 2, 3))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_of_one_grey_is_hidden_by_the_grey_that_is_asked_for(level: int) -> None:
    """As the model sees it: normalised, and the padding left alone. Where the picture is that grey, hiding changes nothing."""
    made = explain(Padded(), Image.new("RGB", (16, 8), (level,) * 3), method=own)
    (seen,) = Variants([made]).seen
    assert torch.equal(seen.plain(level), seen.pixels)
    assert float(seen.pixels.std((1, 2)).min()) > 0.1, "the padding differs"
    for other in {0, 128, 255} - {level}:
        value = (other / 255 - torch.tensor([0.6, 0.4, 0.3])) / 0.2
        torch.testing.assert_close(seen.plain(other)[:, 3], value[:, None].expand(3, 6))
        torch.testing.assert_close(seen.plain(other)[:, 0], seen.pixels[:, 0])
    assert torch.equal(fill_black(seen, torch.zeros(6, 6)), seen.plain(0))


def test_confidences_of_what_is_shown_are_those_of_the_paper() -> None:
    made = explain(Weighing(), white(), method=own)
    full, part = shown(made)
    heat = WEIGHTS / 9
    expected = 1 / (1 + math.exp(-float((heat * WEIGHTS).sum()) / 10))
    assert full.item() == pytest.approx(1 / (1 + math.exp(-4.5)), rel=1e-5)
    assert part.item() == pytest.approx(expected, rel=1e-5)
    assert average_drop(full.tolist(), part.tolist()) == pytest.approx((full.item() - expected) / full.item())
    assert increase(full.tolist(), part.tolist()) == 0


def test_extents_keep_what_lies_above_a_quantile() -> None:
    areas, relative = confidence_vs_area(explain(Weighing(), white(), method=own), (0.0, 0.5, 1.0, 0.3))
    assert areas[0].tolist() == pytest.approx([1, 5 / 9, 1 / 9, 6 / 9])  # the quantile .3 lies above the third lowest
    sigmoid = [1 / (1 + math.exp(-v / 10)) for v in (45, 9 + 8 + 7 + 6 + 5, 9, 45 - 6)]
    assert relative[0].tolist() == pytest.approx([v / sigmoid[0] for v in sigmoid], rel=1e-5)


def test_extents_keep_as_much_of_a_sparse_map_as_of_any_other() -> None:
    def sparse(features: Tensor, gradients: Tensor) -> Tensor:
        return (own(features, gradients) - 7).clamp(min=0)  # 9 and 8 alone are left

    areas, relative = confidence_vs_area(explain(Weighing(), white(), method=sparse), (0.25, 0.5, 0.875))
    assert areas[0].tolist() == pytest.approx([7 / 9, 5 / 9, 2 / 9])
    sigmoid = [1 / (1 + math.exp(-v / 10)) for v in (45, 17)]
    assert relative[0, 2].item() == pytest.approx(sigmoid[1] / sigmoid[0], rel=1e-5)
    assert (relative[0, :2] < 1).all()


def test_a_contrast_has_no_confidence() -> None:
    task = load("scenes-vqa", device="cpu")
    made = explain(task, example(), question="what color is the cube?", contrast="purple")
    for measure in (shown, confidence_vs_area):
        with pytest.raises(InputError, match="a contrast"):
            measure(made)


def test_road_prefers_the_right_order() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3)).astype(np.uint8))
    good, bad = (explain(Weighing(), picture, method=method) for method in (own, backwards))
    assert road(good).item() > road(bad).item()


def solved_whole(plane: np.ndarray, known: np.ndarray) -> np.ndarray:
    """ROAD's linear system written out and solved dense: each unknown pixel the weighted mean of its 8 neighbours."""
    high, wide = plane.shape
    place = {tuple(at): i for i, at in enumerate(np.argwhere(~known))}
    matrix, right = np.zeros((len(place), len(place))), np.zeros(len(place))
    for (y, x), i in place.items():
        for dy, dx in itertools.product((-1, 0, 1), repeat=2):
            near = (y + dy, x + dx)
            if (dy, dx) == (0, 0) or not (0 <= near[0] < high and 0 <= near[1] < wide):
                continue
            weight = 1 / 12 if dy and dx else 1 / 6
            matrix[i, i] += weight
            if near in place:
                matrix[i, place[near]] -= weight
            else:
                right[i] += weight * plane[near]
    solved = plane.copy()
    solved[~known] = np.linalg.solve(matrix, right)
    return solved


@pytest.mark.parametrize(("shape", "hole"), [((12, 12), "dots"), ((47, 40), "dots"), ((50, 43), "block"), ((1, 9), "block")])
def test_imputed_pixels_solve_the_system_of_road(shape: tuple[int, int], hole: str) -> None:
    """Against the system solved whole: holes of single pixels, and one that takes up most of the picture."""
    draw = np.random.default_rng(1)
    planes = np.stack([draw.random(shape), 5 * draw.random(shape) - 2])
    known = draw.random(shape) < 0.4
    if hole == "block":
        known = np.ones(shape, bool)
        known[2 * (shape[0] > 1) : -1 or None, 1:-2] = False
    solved = np.stack([solved_whole(plane, known) for plane in planes])
    hidden = np.where(known, planes, 1e6)  # what stood in the hole must not matter
    made = impute(hidden, known)
    assert np.array_equal(made[:, known], planes[:, known])
    assert np.abs(made - solved).max() <= TOLERANCE * planes[:, known].std()
    assert np.abs(impute(hidden, known, 1e-9) - solved).max() <= 1e-9 * planes[:, known].std()
    assert np.array_equal(impute(planes, np.ones(shape, bool)), planes)


def test_one_known_pixel_fills_the_picture() -> None:
    known = np.zeros((30, 30), bool)
    known[29, 0] = True
    assert impute(np.where(known, 0.7, 0.0)[None], known) == pytest.approx(np.full((1, 30, 30), 0.7))


def test_a_filling_that_does_not_settle_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imputation, "_MOST", 1)
    known = np.random.default_rng(0).random((60, 60)) < 0.2
    with pytest.raises(ModelError, match="did not reach"):
        impute(np.random.default_rng(1).random((1, 60, 60)), known, 1e-9)
    monkeypatch.undo()
    with pytest.raises(ModelError, match=r"did not reach -.* in 100 steps"):
        impute(np.random.default_rng(1).random((1, 6, 6)), np.eye(6, dtype=bool), -1.0)


@pytest.mark.parametrize("kind", ["picture", "clip", "tiles"])
def test_what_is_imputed_of_pictures_clips_and_tiles(kind: str) -> None:
    """Frames and tiles are each filled on their own, with noise of a hundredth; where nothing is kept stands middle grey."""
    pixels = torch.rand({"picture": (3, 9, 8), "clip": (3, 2, 9, 8), "tiles": (2, 3, 9, 8)}[kind])
    box = (0.0, 0.0, 1.0, 1.0)
    view = ModelInput(white(), "", pixels, (box, box) if kind == "tiles" else box, prepared=True)
    seen = Seen(Weighing(), view)
    mask = (torch.rand(seen.shape) < 0.5).float()
    made = imputed(seen, mask)
    frames = {"picture": lambda x: x[None], "clip": lambda x: x.transpose(0, 1), "tiles": lambda x: x}[kind]
    for frame, found, known in zip(frames(pixels), frames(made), mask.reshape(-1, 9, 8).bool(), strict=True):
        slow = torch.from_numpy(np.stack([solved_whole(plane, known.numpy()) for plane in frame.double().numpy()]))
        off = (found - slow)[:, ~known] / pixels.std()
        assert torch.equal(found[:, known], frame[:, known])
        assert 0.007 < float(off.std()) < 0.013
        assert abs(float(off.mean())) < 0.004
    gone = imputed(seen, torch.zeros(seen.shape))
    torch.testing.assert_close(gone, pixels.mean((-2, -1), keepdim=True).expand_as(pixels), atol=0.05, rtol=0)
    assert torch.equal(made, imputed(seen, mask))


def test_occlusion_agrees_with_itself_and_not_with_its_opposite() -> None:
    task, picture = load("scenes-captioner", device="cpu"), example()
    covered = functools.partial(occlusion, size=32, stride=16)

    def opposite(probe: Probe) -> Tensor:
        return -occlusion(probe, size=32, stride=16)

    made = compare(task, [picture], [covered, opposite], caption="a red cube")[0]
    own, contrast = (occlusion_correlation(one, size=32) for one in made)
    assert own.shape == (3,)
    assert float(own.min()) > 0.5, "but for the negative part, which is not drawn, it is the same map"
    assert float(contrast.max()) < -0.2


def test_what_speaks_against_a_target_is_ranked_below_what_says_nothing() -> None:
    """Covering a pixel of negative weight raises the score: such pixels are the last, not equal to those of no weight."""

    class Signed(Weighing):
        def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
            return (features[:, 0] * torch.tensor([[4.0, 3.0, 2.0], [1.0, 0.0, -1.0], [-2.0, -3.0, -4.0]])).sum((1, 2))

    made = explain(Signed(), white(), method=own)
    occluded = made.with_method(functools.partial(occlusion, size=1, stride=1)).maps[0]
    # Of nine ranks, the map's positive part ties the last five; the occlusion map ranks all nine.
    ours, theirs = np.array([9, 8, 7, 6, 3, 3, 3, 3, 3.0]), np.arange(9.0, 0, -1)
    assert occluded.flatten().argsort(descending=True).tolist() == list(range(9))
    expected = np.corrcoef(ours, theirs)[0, 1]
    variants = Variants([made])
    assert rank_correlation(variants.heat(0).numpy(), occluded.numpy()) == pytest.approx(expected)
    assert occlusion_correlation(made, size=1).item() == pytest.approx(expected)


def test_the_patch_of_occlusion_agreement_is_a_seventh_of_the_shorter_side() -> None:
    class Patches(Weighing):
        def prepare(self, image: Image.Image) -> PreparedImage:
            return whole(image)

        def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
            ramp = torch.linspace(-1, 2, features[0, 0].numel()).view(features.shape[2:])
            return (features[:, 0] * ramp).sum((1, 2)) + features[:, 0].square().mean((1, 2))

    rng = np.random.default_rng(0)
    for shape, side in (((8, 20), 2), ((29, 24), 3)):
        made = explain(Patches(), Image.fromarray(rng.integers(0, 255, (*shape, 3)).astype(np.uint8)), method=own)
        covered = made.with_method(functools.partial(occlusion, size=side, stride=max(1, side // 2))).maps[0].numpy()
        expected = rank_correlation(Variants([made]).heat(0).numpy(), covered)
        assert occlusion_correlation(made).item() == pytest.approx(expected, abs=1e-6)


def test_the_same_mask_of_the_same_picture_is_encoded_once() -> None:
    task = Weighing()
    made = explain(task, [white(), Image.new("RGB", (9, 9), (200, 0, 0))], method=own, signs=[1, 2, 1])
    variants = Variants(made)
    task.encodes.clear()
    deletion(variants, fill_black, (0.0, 0.5, 1.0))
    # Of each picture three masks, which its three targets share: their maps have the same order.
    assert variants.encodes == sum(task.encodes) == 6
    assert len(task.encodes) == 1, "all pictures go together"
    base = variants.base()
    told = variants.ask([(row, torch.ones(3, 3)) for row in range(6)], fill_black)
    torch.testing.assert_close(told, base)


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_pictures_of_unlike_sizes_are_asked_in_any_order(batch: int) -> None:
    class Summing(Weighing):
        def prepare(self, image: Image.Image) -> PreparedImage:
            return whole(image)

        def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
            return features.sum((1, 2, 3)) * torch.tensor([t.value for t in targets])

    task, rng = Summing(), np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (*shape, 3)).astype(np.uint8)) for shape in ((8, 9), (10, 8), (8, 9))]
    variants = Variants(explain(task, pictures, method=own, signs=[1, -2]), batch=batch)
    assert variants.rows == [(e, k) for e in range(3) for k in range(2)]
    asked = [(int(row), (torch.rand(variants.seen[row // 2].shape) < 0.5).float()) for row in rng.integers(0, 6, 40)]
    task.encodes.clear()
    told = variants.ask([*asked, *asked[:5]], fill_black)
    red = [torch.from_numpy(np.array(picture))[..., 0] / 255 for picture in pictures]
    slow = [float((red[row // 2] * mask).sum()) * (1, -2)[row % 2] for row, mask in [*asked, *asked[:5]]]
    assert told.tolist() == pytest.approx(slow, rel=1e-4)
    assert max(task.encodes) <= batch
    assert variants.encodes == sum(task.encodes)
    # Asked 16 batches at a time: what is asked twice within them is encoded once.
    assert sum(task.encodes) == (45 if batch < 3 else 40)
    assert [len(part) for part in variants.split(told[:6])] == [2, 2, 2]
    assert variants.ask([], fill_black).tolist() == []
    assert [variants.target(3).value, len(variants)] == [-2, 6]


def test_a_probability_is_1_at_most_but_for_rounding() -> None:
    told = torch.tensor([-3.0, 0.0, 0.0009])
    assert deletion_insertion._probable(told) is told
    for much in (0.0011, 0.9):
        with pytest.raises(InputError, match=r"one of them is exp\(0.*a contrast \(against=\)"):
            deletion_insertion._probable(torch.tensor([-3.0, much]))


def test_masks_are_taken_up_sixteen_batches_at_a_time() -> None:
    variants, taken, known = Variants([explain(Weighing(), white(), method=own)], batch=2), [], []

    def asked() -> Any:
        for n in range(40):
            taken.append(n)
            yield 0, torch.zeros(3, 3)

    variants.ask(asked(), lambda seen, mask: known.append(len(taken)) or fill_black(seen, mask))
    assert known == [32, 40]


def example() -> Image.Image:
    from mmgradcam.scenes import render
    from mmgradcam.scenes.scene import make_scene

    return render.render(make_scene(90001)).image


@pytest.mark.parametrize("name", ["scenes-captioner", "scenes-captioner-transformer", "scenes-vqa"])
def test_bundled_models_are_asked_again(name: str) -> None:
    task = load(name, device="cpu")
    query = {"question": "what color is the cube?", "top": 2} if "vqa" in name else {"caption": "a red cube"}
    made = explain(task, example(), **query)
    variants = Variants([made])
    torch.testing.assert_close(
        variants.ask([(r, torch.ones(variants.seen[0].shape)) for r in range(len(variants))], fill_mean), variants.base(), atol=1e-3, rtol=1e-3,
    )  # fmt: skip
    full, _ = shown(variants)
    named = [t.probability for t in made.targets]
    told = [math.exp(v) for v in made.scores.tolist()] if named[0] is None else named
    assert full.tolist() == pytest.approx(told, abs=1e-3)


def test_clips_are_asked_again() -> None:
    from mmgradcam.scenes.motion import make_motion, render_motion

    moving = render_motion(make_motion(90003))
    made = explain(load("clips-motion", device="cpu"), moving.clip)
    assert deletion(made, shares=(0.0, 0.3)).item() < made.score
    full, _ = shown(made)
    assert full.item() == pytest.approx(made.targets[0].probability, abs=1e-3)  # type: ignore[arg-type]


def test_an_action_is_asked_again_on_other_observations() -> None:
    pytest.importorskip("minigrid", reason="minigrid is not installed")
    from mmgradcam.scenes.goto import WORLD, from_above

    seen, _ = from_above(WORLD).reset(seed=90001)
    policy: Any = load("babyai-goto", device="cpu")
    made = explain(policy.at(seen), policy.picture(seen), grounding=True)
    variants = Variants([made])
    pixels = variants.seen[0].pixels
    # A policy looks at its observation, whatever picture it is shown: nothing to see is the mean color of that.
    torch.testing.assert_close(variants.seen[0].plain(0), pixels.mean((1, 2), keepdim=True).expand_as(pixels))
    gone = variants.ask([(0, torch.zeros(pixels.shape[1:]))], fill_mean).item()
    assert gone < made.score - 0.5
    assert made.targets[0].grounding == pytest.approx(made.score - gone, abs=1e-4)
    assert deletion(made).item() < made.score - 0.2


def test_what_cannot_be_asked_says_why() -> None:
    class Silent(Weighing):
        def log_prob(self, features: Tensor, targets: Sequence[Target]) -> None:  # type: ignore[override]
            return None

    with pytest.raises(ModelError, match="has no probabilities; give it a `log_prob`"):
        shown(explain(Silent(), white(), method=own))
    with pytest.raises(InputError, match="at least one explanation, got none"):
        Variants([])
    with pytest.raises(InputError, match="of one model, got several"):
        Variants([explain(Weighing(), white()), explain(Weighing(), white())])


def test_an_explanation_from_a_file_says_that_it_has_no_model(tmp_path: Any) -> None:
    from mmgradcam import Explanation

    explain(Weighing(), white(), method=own).save(tmp_path / "made.npz")
    with pytest.raises(InputError, match="needs the model"):
        deletion(Explanation.load(tmp_path / "made.npz"))


def test_the_same_picture_changed_is_another() -> None:
    """Of an attacked or noisy copy the user's picture is the same, and what the model sees is not."""
    made = explain(Weighing(), white(), method=own)
    black = made.explainer.of([made.targets], [made.explainer.view.pixels * 0])[0]
    variants = Variants([made, black])
    told = variants.ask([(row, torch.ones(3, 3)) for row in range(2)], fill_mean)
    torch.testing.assert_close(told, variants.base())
    assert told.tolist() == [45, 0]


def test_a_picture_asked_about_twice_is_changed_once() -> None:
    task, picture = Weighing(), white()
    made = [one for (one,) in compare(task, [picture, picture], [own], each=[{"signs": [1]}, {"signs": [2]}])]
    variants = Variants(made)
    deletion(variants, fill_black, (0.0, 0.5, 1.0))
    assert variants.encodes == 3


def test_methods_that_cannot_be_hashed_are_methods_too() -> None:
    @dataclass
    class Times:
        factor: float

        def __call__(self, features: Tensor, gradients: Tensor) -> Tensor:
            return own(features, gradients) * self.factor

    made = compare(Weighing(), [white()], [Times(2), own, Times(3)])[0]
    assert [one.maps[0, 0, 0].item() for one in made] == [18, 9, 27]
