"""Where maps lie and how far they agree: by hand on 3 x 3 maps, written out slowly, and against other libraries."""

from __future__ import annotations

import itertools
import math
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmgradcam import InputError
from mmgradcam.datasets.records import mask_of
from mmgradcam.images.regions import fill_holes, mask_box, segment_boxes
from mmgradcam.metrics import (
    agreement,
    agreement_with_attention,
    agreement_with_boxes,
    agreement_with_clicks,
    box_iou,
    box_of,
    centre_in,
    class_ious,
    energy_inside,
    f1_iou,
    func_iou,
    inside_outside,
    loc_delta,
    localization_error,
    localized,
    mean_iou,
    obj_iou,
    otsu,
    peak_in,
    pixel_box,
    pointing_with_reject,
    random_in,
    rank_correlation,
    reject_threshold,
    save_seed,
    seed_mask,
    seeds,
    widened,
)

HEAT = np.array([[0.0, 0.2, 0.1], [0.0, 1.0, 0.5], [0.1, 0.0, 0.1]], np.float32)
MASK = np.array([[0, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
BOX = (1, 1, 3, 2)


def bumpy(seed: int, size: tuple[int, int] = (40, 52)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cells = torch.from_numpy(rng.random((1, 1, 7, 9), dtype=np.float32) ** 4)
    heat = torch.nn.functional.interpolate(cells, size=size, mode="bilinear")[0, 0].numpy()
    return heat / heat.max()


def reached(free: np.ndarray, start: tuple[int, int], diagonal: bool) -> set[tuple[int, int]]:
    """The pixels that a flood from `start` reaches over true ones."""
    found, waiting = {start}, [start]
    while waiting:
        y, x = waiting.pop()
        for dy, dx in itertools.product((-1, 0, 1), repeat=2):
            at = (y + dy, x + dx)
            near = diagonal or not (dy and dx)
            if near and at not in found and 0 <= at[0] < free.shape[0] and 0 <= at[1] < free.shape[1] and free[at]:
                found.add(at)
                waiting.append(at)
    return found


@pytest.mark.parametrize("seed", range(60))
def test_holes_and_segments_are_those_of_a_flood(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sides = rng.integers(1, 13, 2) if seed >= 20 else (7 + seed % 3, 9)  # lines and single pixels, too
    mask = rng.random(sides) < (0.4, 0.6, 0.8, 1.0)[seed % 4]
    before = mask.copy()
    outside = reached(np.pad(~mask, 1, constant_values=True), (0, 0), diagonal=False)
    filled = fill_holes(mask)
    assert filled.tolist() == [[(y + 1, x + 1) not in outside for x in range(mask.shape[1])] for y in range(len(mask))]
    assert np.array_equal(mask, before)
    segments: list[set[tuple[int, int]]] = []
    for y, x in np.argwhere(mask).tolist():
        if not any((y, x) in one for one in segments):
            segments.append(reached(mask, (y, x), diagonal=True))
    segments.sort(key=len, reverse=True)  # stable: of equally many pixels, the segment that a reader meets first
    pixels = [tuple(zip(*one, strict=True)) for one in segments]
    boxes = [(min(x), min(y), max(x) + 1, max(y) + 1) for y, x in pixels]
    assert segment_boxes(mask) == boxes
    assert box_of(mask.astype(np.float32)) == (boxes[0] if boxes else None)
    if mask.any():
        ys, xs = np.nonzero(mask)
        assert mask_box(mask) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_what_is_a_hole() -> None:
    ring = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]], bool)
    assert fill_holes(ring)[2].tolist() == [True] * 4, "a diagonal gap lets nothing in"
    open_ = ring.copy()
    open_[3, 2] = False
    assert np.array_equal(fill_holes(open_), open_)
    assert fill_holes(np.ones((2, 3), bool)).all()
    nothing = np.zeros((2, 3), bool)
    assert not fill_holes(nothing).any()
    assert segment_boxes(nothing) == []
    assert segment_boxes(nothing[:0]) == segment_boxes(nothing[:, :0]) == []
    assert fill_holes(nothing[:, :0]).shape == (2, 0)
    assert mask_box(nothing) == (0, 0, 0, 0)
    assert segment_boxes(np.array([[1, 0, 0, 1], [1, 0, 0, 0]], bool)) == [(0, 0, 1, 2), (3, 0, 4, 1)], "rows end at the edge"


def test_where_points_lie_by_hand() -> None:
    even, odd = np.zeros((4, 6), bool), np.zeros((5, 3), bool)
    even[2, 3] = odd[2, 1] = True
    assert centre_in(even)
    assert centre_in(odd)
    assert not centre_in(~even)
    assert random_in(even) == 1 / 24
    tie = np.array([[0.0, 3.0], [3.0, 0.0]], np.float32)
    assert peak_in(tie, np.array([[0, 1], [0, 0]], bool))
    assert not peak_in(tie, np.array([[1, 0], [1, 1]], bool)), "of equal peaks the first counts"
    assert not peak_in(0 * tie, np.ones((2, 2), bool))
    heat = np.array([[4.0, 2.0], [0.0, 1.0]], np.float32)
    assert inside_outside(heat, np.array([[1, 1], [0, 0]], bool)) == (0.75, 0.125)
    assert inside_outside(heat, np.ones((2, 2), bool)) == (7 / 16, 0.0)
    assert inside_outside(heat, np.zeros((2, 2), bool)) == (0.0, 7 / 16)
    assert inside_outside(0 * heat, np.array([[1, 1], [0, 0]], bool)) == (0.0, 0.0)
    assert inside_outside(heat / 16, np.array([[1, 1], [0, 0]], bool)) == (0.75, 0.125)


def test_the_share_of_heat_inside() -> None:
    assert energy_inside(HEAT, MASK) == pytest.approx(1.5 / 2.0)
    assert energy_inside(0 * HEAT, MASK) == 0.0
    assert energy_inside(np.ones((3, 3), np.float32), MASK) == pytest.approx(2 / 9)


def test_pointing_with_a_tolerance_in_pixels() -> None:
    """A peak hits a mask that is at most so far from it, from the middle of a pixel to that of the other (Zhang et al. 2016)."""
    mask, heat = np.zeros((40, 40), bool), np.zeros((40, 40), np.float32)
    mask[10, 10] = True
    for (y, x), distance in {(10, 25): 15, (19, 22): 15, (10, 26): 16, (21, 21): math.hypot(11, 11), (10, 10): 0}.items():
        heat[:] = 0
        heat[y, x] = 2
        for tolerance in (0, 14.9, 15, 15.6):
            assert peak_in(heat, mask, tolerance) == (distance <= tolerance)
    assert peak_in(heat, mask), "without tolerance by default"
    assert not peak_in(0 * heat, mask, 100)
    assert not peak_in(heat, 0 * mask > 0, 100), "there is nothing to be near to"
    assert np.argwhere(widened(mask, 1)).tolist() == [[9, 10], [10, 9], [10, 10], [10, 11], [11, 10]]
    assert widened(mask, 1.5).sum() == 9
    assert widened(mask, 0) is mask
    with pytest.raises(InputError, match="tolerance of 0 pixels or more, got -1"):
        peak_in(heat, mask, -1)


def test_pointing_with_the_reject_option() -> None:
    # accepted at 0.5 and above: a hit; a miss; absent (wrong). Rejected: absent (right); present (wrong).
    tops, hits, present = [0.9, 0.8, 0.5, 0.4, 0.3], [1, 0, 0, 0, 1], [1, 1, 0, 0, 1]
    assert pointing_with_reject(tops, hits, present, 0.5) == pytest.approx(2 / 5)
    assert pointing_with_reject(tops, hits, present, 0.0) == pytest.approx(2 / 5)
    assert pointing_with_reject(tops, hits, present, 0.6) == pytest.approx(3 / 5)
    assert pointing_with_reject([1.0], [True], [False], 0.5) == 0.0  # a hit on what is not there
    assert reject_threshold(tops, hits, present) == 0.8
    assert reject_threshold([2.0, 1.0], [False, False], [False, False]) == math.inf
    assert reject_threshold([2.0, 1.0], [True, True], [True, True]) == 1.0


@pytest.mark.parametrize("seed", range(30))
def test_the_best_threshold_is_that_of_trying_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tops = (rng.integers(0, 6, 12) / 4).tolist()
    present = rng.random(12) < 0.5
    hits = present & (rng.random(12) < 0.6)
    tried = [(pointing_with_reject(tops, hits, present, t), -t) for t in [*tops, math.inf]]
    best, lowest = max(tried)
    found = reject_threshold(tops, hits, present)
    assert pointing_with_reject(tops, hits, present, found) == best
    assert found == -lowest


def test_boxes_and_their_overlap() -> None:
    assert box_of(HEAT) == (1, 0, 3, 2)
    assert box_of(HEAT * 7) == (1, 0, 3, 2)
    assert box_of(HEAT, 0.5) == BOX
    assert box_of(0 * HEAT) is None
    assert box_iou((1, 0, 3, 2), BOX) == 0.5
    assert box_iou((0, 0, 1, 1), (1, 0, 2, 1)) == box_iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0.0
    assert box_iou((0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 1.0, 1.0)) == pytest.approx(0.25)
    assert localized(HEAT, [(0, 2, 1, 3), BOX])
    assert localized(HEAT, [BOX], iou=0.5), "enough is enough"
    assert not localized(HEAT, [BOX], iou=0.51)
    assert not localized(HEAT, [(0, 1, 2, 2)]), "a half at least, if nothing is said"
    assert box_of(np.full((2, 3), 0.4, np.float32), 1.0) == (0, 0, 3, 2), "at the share, too"
    assert box_of(HEAT, 0.0) == (0, 0, 3, 3), "what is 0 is no segment, and corners connect"
    assert box_iou((0, 0, 4, 2), (1, 1, 2, 5)) == pytest.approx(1 / (8 + 4 - 1))
    assert box_iou((0, 0, 1, 1), (2, 2, 3, 3)) == box_iou((0, 0, 1, 3), (2, 1, 3, 2)) == 0.0
    assert localized(HEAT, [BOX], share=0.5, iou=1.0)
    assert not localized(HEAT, [])
    assert not localized(0 * HEAT, [BOX])


def test_the_box_is_that_of_the_largest_segment_wherever_it_lies() -> None:
    two = np.array([[9, 0, 0, 5], [0, 0, 0, 0], [4, 0, 5, 5], [0, 0, 0, 0]], np.float32)
    assert box_of(two) == (2, 2, 4, 3)
    assert box_of(two[:, :2]) == (0, 0, 1, 1), "the first of equally large ones"
    assert box_of(two[:3, :1]) == (0, 0, 1, 1)
    assert box_of(two[:, 1:]) == (1, 2, 3, 3)


def test_ilsvrc_localization_error() -> None:
    right = [[True, False, False], [False, True, False], [False, False, True], [True, False, False]]
    located = [[True, False, False], [True, True, False], [True, True, False], [False, True, True]]
    assert localization_error(right, located, top=1) == 0.75
    assert localization_error(right, located, top=2) == localization_error(right, located, top=5) == 0.5
    assert localization_error([[True]], [[True]], top=1) == 0.0
    with pytest.raises(InputError, match="top of 1 or more"):
        localization_error(right, located, top=0)
    with pytest.raises(InputError, match="one row of predictions"):
        localization_error(right, located[:3], top=1)


def test_loc_of_gradcam_pp() -> None:
    assert loc_delta(HEAT, BOX, 0.0) == pytest.approx(2 / (2 + 4))
    assert loc_delta(HEAT, BOX, 0.25) == 1.0
    assert loc_delta(HEAT, BOX, 0.5) == pytest.approx(1 / 2)
    assert loc_delta(3 * HEAT + 7, BOX, 0.25) == 1.0
    assert loc_delta(HEAT, MASK, 0.0) == loc_delta(HEAT, BOX, 0.0)
    two = MASK.copy()
    two[0, :2] = True
    assert loc_delta(HEAT, two, 0.0) == pytest.approx(3 / (4 + 3))
    picture = np.full((3, 3, 3), 9, np.uint8)
    assert loc_delta(HEAT, BOX, 0.0, picture) == loc_delta(HEAT, BOX, 0.0)
    picture[1, 1] = 0
    assert loc_delta(HEAT, BOX, 0.0, picture) == pytest.approx(1 / (2 + 4))
    assert loc_delta(0 * HEAT, BOX, 0.0) == loc_delta(0 * HEAT, 0 * MASK > 0, 0.0) == 0.0


def test_otsu_by_hand() -> None:
    # Between-class variances, up to 1/81: 6 * 3 * (17/30 - .05)^2 = 4.8 above .1, 7 * 2 * (.75 - .5/7)^2 = 6.4 above .2,
    # 8 * 1 * (1 - .125)^2 = 6.1 above .5.
    assert otsu(HEAT) == np.float32(0.2)
    assert otsu(np.full((3, 3), 0.3, np.float32)) == np.float32(0.3)


def test_token_activation_map_measures() -> None:
    assert obj_iou(HEAT, MASK) == 1.0
    wider = MASK.copy()
    wider[0, 1] = True
    assert obj_iou(HEAT, wider) == pytest.approx(2 / 3)
    assert obj_iou(0 * HEAT, MASK) == 0.0
    assert func_iou([HEAT], 0.2) == pytest.approx(6 / 9)
    assert func_iou([HEAT, 0 * HEAT], 0.2) == pytest.approx((6 / 9 + 1) / 2)
    assert f1_iou(0.5, 1.0) == pytest.approx(2 / 3)
    assert f1_iou(0.0, 0.0) == 0.0


def test_the_mean_of_both_token_activation_measures_is_harmonic() -> None:
    assert f1_iou(0.2, 0.3) == pytest.approx(0.24)
    assert f1_iou(0.0, 0.5) == 0.0


def test_seeds_by_hand() -> None:
    other = np.array([[0.3, 0.2, 0.0], [0.0, 0.4, 1.0], [0.0, 0.0, 0.1]], np.float32)
    seeds = seed_mask([HEAT, other], [5, 9])
    assert seeds.dtype == np.uint8
    assert seeds.tolist() == [[9, 255, 0], [0, 5, 9], [0, 0, 0]]
    assert seed_mask([HEAT, other], [5, 5]).tolist() == [[5, 5, 0], [0, 5, 5], [0, 0, 0]]
    assert seed_mask([HEAT, 0 * HEAT], [5, 9], share=0.0).tolist() == [[0, 5, 5], [0, 5, 5], [5, 0, 5]]


SEED = np.array([[0, 1, 0], [0, 255, 1], [0, 1, 2]], np.uint8)
TRUTH = np.array([[0, 1, 1], [0, 1, 255], [0, 0, 2]], np.uint8)


def test_mean_iou_by_hand() -> None:
    assert class_ious([SEED], [TRUTH], 4)[:3].tolist() == [3 / 5, 1 / 4, 1.0]
    assert math.isnan(class_ious([SEED], [TRUTH], 4)[3])
    assert mean_iou([SEED], [TRUTH], 4) == pytest.approx((3 / 5 + 1 / 4 + 1) / 3)
    assert mean_iou((s for s in [SEED, TRUTH]), (t for t in [TRUTH, TRUTH]), 4) == pytest.approx((7 / 9 + 4 / 7 + 1) / 3)


def test_mean_iou_written_out_slowly() -> None:
    rng = np.random.default_rng(0)
    seeds, truths = ([rng.integers(0, 4, (5, 6)).astype(np.uint8) for _ in range(3)] for _ in range(2))
    pairs = [(int(s), int(t)) for a, b in zip(seeds, truths, strict=True) for s, t in zip(a.ravel(), b.ravel(), strict=True)]
    ious = [sum(s == t == c for s, t in pairs) / sum(c in (s, t) for s, t in pairs) for c in range(4)]
    assert class_ious(seeds, truths, 4).tolist() == pytest.approx(ious)


def test_labels_at_the_ends_are_counted_and_void_is_not() -> None:
    nothing = np.zeros((2, 2), np.uint8)
    assert class_ious([nothing], [nothing], 1).tolist() == [1.0]
    assert class_ious([nothing + 255], [nothing], 1).tolist() == [0.0], "what is nobody's is wrong where there is a class"
    assert np.isnan(class_ious([nothing], [nothing + 255], 2)).all()
    assert np.isnan(class_ious([nothing], [nothing + 7], 2, ignore=7)).all()
    assert seed_mask([HEAT, 3 * HEAT.T], [1, 254]).tolist() == [[0, 1, 0], [254, 254, 1], [0, 254, 0]]


def test_colours_are_those_of_the_kit_of_voc() -> None:
    """Bits 0, 3 and 6 of a label are the top three bits of red, 1, 4 and 7 of green, 2 and 5 of blue (VOCdevkit's colormap)."""
    for label in range(256):
        bits = [label >> n & 1 for n in range(8)]
        red, green = (128 * bits[n] + 64 * bits[n + 3] + 32 * bits[n + 6] for n in (0, 1))
        assert seeds.voc_colour(label) == (red, green, 128 * bits[2] + 64 * bits[5])
        assert seeds._palette()[3 * label : 3 * label + 3] == list(seeds.voc_colour(label))
    assert len(seeds._palette()) == 768
    assert seeds._palette() is seeds._palette(), "made once"


def test_a_seed_is_saved_with_the_colours_of_voc(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 2], [3, 15, 20], [255, 0, 0]], np.uint8)
    path = save_seed(mask, tmp_path / "seeds" / "one.png")
    saved = Image.open(path)
    assert saved.mode == "P"
    assert np.array_equal(np.asarray(saved), mask)
    colours = np.asarray(saved.convert("RGB")).reshape(-1, 3).tolist()
    assert colours[:7] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192]]


def test_rank_correlation_by_hand() -> None:
    one = np.arange(1.0, 10).reshape(3, 3)
    other = one.copy()
    other[0, 0], other[2, 2] = 9, 1
    assert rank_correlation(one, other) == pytest.approx(1 - 6 * (64 + 64) / (9 * 80))
    assert rank_correlation(one, one**3) == pytest.approx(1.0)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
    assert rank_correlation(np.array([[1, 2], [2, 3]]), np.array([[1, 2], [3, 4]])) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    # Cells of 1.5 x 1.5 pixels average to 1, 11/9, 1, 11/9.
    odd = np.array([[0, 0, 0], [0, 9, 1], [0, 0, 0]])
    assert rank_correlation(odd, np.array([[1, 2], [3, 4]]), side=2) == pytest.approx(2 / math.sqrt(4 * 5))


def test_maps_that_rank_nothing_correlate_with_nothing() -> None:
    ramp = np.arange(300.0).reshape(15, 20)
    assert rank_correlation(np.full((15, 20), 0.1), ramp) == 0.0
    assert rank_correlation(ramp, np.zeros((3, 3))) == 0.0
    assert math.isnan(rank_correlation(np.array([[1.0, 2.0, np.nan]]), np.array([[1.0, 2.0, 3.0]]))), "NaN has no rank"
    # Averaging rounds; equal areas must tie all the same.
    halves = np.where(np.arange(30)[:, None] < 15, 0.1, 0.7) * np.ones((30, 23))
    rows = np.repeat([0.0, 1.0], [7, 7])[:, None] * np.ones((14, 14))
    assert rank_correlation(halves, rows) == pytest.approx(1.0)


def test_what_rounding_sets_apart_is_tied_and_what_is_larger_is_not() -> None:
    """To 12 digits of the largest value."""
    other = np.array([[1.0, 2.0, 3.0]])
    assert rank_correlation(np.array([[0.0, 1 - 4e-12, 1.0]]), other) == pytest.approx(1.0)
    assert rank_correlation(np.array([[0.0, 1 - 4e-13, 1.0]]), other) == pytest.approx(1.5 / math.sqrt(1.5 * 2))


def test_maps_of_one_size_no_larger_than_the_side_are_compared_as_they_are() -> None:
    one, other = np.random.default_rng(4).random((2, 4, 3))
    ranks = [np.argsort(np.argsort(values.ravel())) for values in (one, other)]
    for side in (4, 5, 14):
        assert rank_correlation(one, other, side) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert rank_correlation(one, other, 3) != pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert rank_correlation(one, other, side=1) == 0.0
    assert agreement._shares(5, 3) is agreement._shares(5, 3), "made once"


def test_cells_are_means_of_equal_areas() -> None:
    rng = np.random.default_rng(3)
    wide, small = rng.random((28, 42)), rng.random((14, 14))
    pooled = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(wide)[None], 14)[0].numpy()
    assert agreement_with_attention(wide, small)["linear"] == pytest.approx(np.corrcoef(pooled.ravel(), small.ravel())[0, 1])
    assert rank_correlation(np.kron(small, np.ones((16, 16))), small) == pytest.approx(1.0)


def test_agreement_with_boxes_by_hand() -> None:
    assert agreement_with_boxes(HEAT, [(1 / 3, 1 / 3, 1.0, 2 / 3)]) == pytest.approx(
        {"peak": 1.0, "energy": 0.75, "area": 2 / 9, "iou": 0.5}
    )
    assert agreement_with_boxes(HEAT, [(0.0, 0.0, 0.3, 0.3), (0.0, 0.0, 0.6, 0.3)]) == pytest.approx(
        {"peak": 0.0, "energy": 0.1, "area": 2 / 9, "iou": 1 / 5}
    )


def test_boxes_in_fractions_cover_the_pixels_that_records_give_them() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        shape = tuple(rng.integers(1, 9, 2).tolist())
        a, b = np.sort(rng.random((2, 2)) * 1.3 - 0.1, 0).clip(0, 1.1)
        box = (a[0], a[1], b[0], b[1])
        x0, y0, x1, y1 = pixel_box(box, shape)
        mask = np.zeros(shape, bool)
        mask[y0:y1, x0:x1] = True
        assert np.array_equal(mask, mask_of([box], shape)), (box, shape)


def test_agreement_with_clicks_by_hand() -> None:
    mean, spread = 2.0 / 9, math.sqrt(1.32 / 9 - (2.0 / 9) ** 2)
    found = agreement_with_clicks(HEAT, [(0.5, 0.5), (1.0, 1.0)])
    assert found == pytest.approx({"nss": (1.1 / 2 - mean) / spread, "hit": 0.5, "area": 3 / 9})
    everywhere = [((x + 0.5) / 3, (y + 0.5) / 3) for x in range(3) for y in range(3)]
    assert agreement_with_clicks(HEAT, everywhere) == pytest.approx({"nss": 0.0, "hit": 3 / 9, "area": 3 / 9}, abs=1e-6)
    assert agreement_with_clicks(np.full((3, 3), 0.1, np.float32), [(0, 0)]) == {"nss": 0.0, "hit": 1.0, "area": 1.0}
    assert agreement_with_clicks(0 * HEAT, [(0, 0)]) == {"nss": 0.0, "hit": 0.0, "area": 0.0}


@pytest.mark.parametrize(
    "points", [[], [(1.01, 0.5)], [(0.5, 1.01)], [(-0.01, 0.5)], [(0.5, -0.01)], [(0.5, 0.5)] * 3 + [(2.0, 0.0)]]
)
def test_points_lie_on_the_picture(points: list[tuple[float, float]]) -> None:
    with pytest.raises(InputError, match=r"points in fractions 0..1 of the picture, one at least, got") as caught:
        agreement_with_clicks(HEAT, points)
    assert str(caught.value).endswith(f"got {points[:3]}")


def test_agreement_does_not_depend_on_the_scale_of_the_heat() -> None:
    points = [(0.5, 0.5), (1.0, 1.0), (0.0, 0.0)]
    for scale in (7.0, 0.01):
        heat = (scale * HEAT).astype(np.float32)
        assert agreement_with_clicks(heat, points) == pytest.approx(agreement_with_clicks(HEAT, points))
        assert agreement_with_boxes(heat, [(0, 0, 0.5, 0.5)]) == pytest.approx(agreement_with_boxes(HEAT, [(0, 0, 0.5, 0.5)]))
        assert agreement_with_attention(heat, HEAT) == pytest.approx({"rank": 1.0, "linear": 1.0, "overlap": 1.0})
    assert agreement_with_boxes(0 * HEAT, [(0, 0, 1, 1)]) == {"peak": 0.0, "energy": 0.0, "area": 1.0, "iou": 0.0}
    point = np.array([[0, 0], [0, 3]], np.float32)
    assert agreement_with_attention(point, point) == pytest.approx({"rank": 1.0, "linear": 1.0, "overlap": 1.0})
    weakly_grounded = 1e-14 * np.arange(12.0).reshape(3, 4)
    assert rank_correlation(weakly_grounded, np.arange(12.0).reshape(3, 4)) == pytest.approx(1.0)


def test_agreement_with_attention_by_hand() -> None:
    found = agreement_with_attention(np.array([[1, 0], [0, 1]], np.float32), np.array([[6, 2], [0, 0]]))
    assert found == pytest.approx({"rank": 1 / math.sqrt(4 * 4.5), "linear": 2 / math.sqrt(24), "overlap": 0.5})
    assert agreement_with_attention(HEAT, 255 * HEAT)["overlap"] == pytest.approx(1.0)
    assert agreement_with_attention(HEAT, 0 * HEAT) == {"rank": 0.0, "linear": 0.0, "overlap": 0.0}


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda: energy_inside(HEAT, MASK[:2]), "mask of the heat's size"),
        (lambda: loc_delta(HEAT, MASK[:2], 0.5), "mask of the heat's size"),
        (lambda: obj_iou(HEAT, MASK[:, :1]), "mask of the heat's size"),
        (lambda: pointing_with_reject([1.0], [True], [], 0.5), "as many tops"),
        (lambda: reject_threshold([], [], []), "one at least"),
        (lambda: box_of(HEAT, 15), "in 0..1"),
        (lambda: localization_error([[True]], [[True, False]], 1), "one row of predictions"),
        (lambda: localization_error([], [], 1), "one row of predictions"),
        (lambda: func_iou([], 0.5), "function words"),
        (lambda: seed_mask([HEAT], [255]), "1..254"),
        (lambda: seed_mask([HEAT], [1, 2]), "one class"),
        (lambda: mean_iou([SEED], [TRUTH], 2), "labels below 2, got 2"),
        (lambda: mean_iou([SEED], [TRUTH, TRUTH], 4), "as many seeds"),
        (lambda: mean_iou([], [], 4), "got none"),
        (lambda: save_seed(SEED, "seed.jpg"), "ends in .png"),
        (lambda: rank_correlation(HEAT, HEAT[0]), "two maps over height and width"),
        (lambda: rank_correlation(HEAT[0], HEAT), "two maps over height and width"),
        (lambda: rank_correlation(HEAT, HEAT[:0]), r"side of 1 or more, got \(3, 3\), \(0, 3\), 14"),
        (lambda: rank_correlation(HEAT, HEAT, side=0), "side of 1 or more"),
        (lambda: box_of(HEAT, -0.1), "in 0..1, got -0.1"),
        (lambda: box_of(HEAT, 1.1), "in 0..1, got 1.1"),
        (lambda: seed_mask([HEAT], [0]), "1..254"),
        (lambda: seed_mask([], []), "got 0 maps"),
        (lambda: seed_mask([HEAT, HEAT[:2]], [1, 2]), "mask of the heat's size"),
        (lambda: mean_iou([TRUTH], [SEED], 2), "labels below 2, got 2"),
        (lambda: class_ious([SEED], [TRUTH[:2]], 4), "mask of the heat's size"),
        (lambda: agreement_with_boxes(HEAT, []), "got none"),
        (lambda: agreement_with_clicks(HEAT, [(12, 40)]), "in fractions"),
        (lambda: agreement_with_attention(HEAT, -HEAT), "maps >= 0"),
    ],
)
def test_mistakes_are_told_in_a_line(mistake: object, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        mistake()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(12))
def test_otsu_is_the_best_of_all_cuts(seed: int) -> None:
    """Written out: the variance between the classes of each of 255 cuts, in whole numbers."""
    rng = np.random.default_rng(seed)
    heat = rng.random(rng.integers(1, 20, 2)) ** (1 + seed % 4) * 10.0 ** (-seed)
    heat = (np.round(heat / heat.max() * 5) / 5 if seed % 3 == 0 else heat).astype(np.float32)
    low, high = float(heat.min()), float(heat.max())
    if low == high:
        assert otsu(heat) == low
        return
    edges = np.linspace(low, high, 257)
    bins = [min(int(np.searchsorted(edges, value, side="right")) - 1, 255) for value in heat.ravel().astype(float)]
    best, found = Fraction(-1), low
    for cut in range(1, 256):
        under, over = [b for b in bins if b < cut], [b for b in bins if b >= cut]
        between = len(under) * len(over) * (Fraction(sum(under), len(under)) - Fraction(sum(over), len(over))) ** 2
        if between > best:
            best, found = between, max(v for v, b in zip(heat.ravel().tolist(), bins, strict=True) if b < cut)
    assert otsu(heat) == found


@pytest.mark.parametrize("seed", range(12))
def test_segments_and_otsu_against_scikit_image(seed: int) -> None:
    from skimage import filters, measure

    heat = bumpy(seed)
    for share in (0.0, 0.15, 0.5, 1.0):
        regions = measure.regionprops(measure.label((heat >= share * heat.max()) & (heat > 0), connectivity=2))
        y0, x0, y1, x1 = max(regions, key=lambda r: r.area).bbox
        assert box_of(heat, share) == (x0, y0, x1, y1)
    noise = np.random.default_rng(seed).random(heat.shape) < 0.45
    boxes = [(r.bbox[1], r.bbox[0], r.bbox[3], r.bbox[2]) for r in measure.regionprops(measure.label(noise, connectivity=2))]
    assert sorted(segment_boxes(noise)) == sorted(boxes)
    outside = measure.label(np.pad(~noise, 1, constant_values=True), connectivity=1)
    assert np.array_equal(fill_holes(noise), outside[1:-1, 1:-1] != outside[0, 0])
    assert abs(otsu(heat) - filters.threshold_otsu(heat)) <= float(heat.max() - heat.min()) / 512 * 1.001


@pytest.mark.parametrize("seed", range(12))
def test_rank_correlation_against_scipy(seed: int) -> None:
    from scipy import stats

    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, 8 + 20 * seed, (2, 14, 13))
    assert rank_correlation(one, other) == pytest.approx(stats.spearmanr(one.ravel(), other.ravel()).statistic)


def test_energy_and_pointing_against_quantus() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantus = pytest.importorskip("quantus", reason="Quantus, of the bench extra, is not installed")
        rng = np.random.default_rng(0)
        heats, masks = rng.random((20, 1, 9, 8), dtype=np.float32), rng.random((20, 1, 9, 8)) < 0.3
        told = {"a_batch": heats, "s_batch": masks}
        mass = quantus.RelevanceMassAccuracy(disable_warnings=True).evaluate_batch(**told)
        inside = quantus.AttributionLocalisation(disable_warnings=True).evaluate_batch(x_batch=heats, **told)
        hits = quantus.PointingGame(disable_warnings=True).evaluate_batch(**told)
    ours = [energy_inside(heat[0], mask[0]) for heat, mask in zip(heats, masks, strict=True)]
    assert ours == pytest.approx(mass, rel=1e-5)
    assert ours == pytest.approx(inside, rel=1e-5)
    assert [peak_in(heat[0], mask[0]) for heat, mask in zip(heats, masks, strict=True)] == [bool(hit) for hit in hits]
