"""Methods that ask the model again, each against its paper's formula written out slowly on tiny float64 nets."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Bent, Classes, Encoder, tiny_captioner, tiny_vqa
from torch import Tensor, nn

from mmgradcam import Explanation, InputError, ModelError, explain, gradcam, gradcam_pp, hirescam, layercam
from mmgradcam.methods import (
    ablation_cam,
    gradient_x_input,
    integrated_gradients,
    occlusion,
    rise,
    score_cam,
    smooth,
    smooth_gradcam_pp,
)
from mmgradcam.methods.perturbation import noisy, random_masks
from mmgradcam.tasks import Layer

ASKING = {
    "smooth": smooth(gradcam, count=3),
    "smooth of asking": smooth(gradient_x_input, count=2),
    "smooth_gradcam_pp": partial(smooth_gradcam_pp, count=3),
    "score_cam": score_cam,
    "ablation_cam": ablation_cam,
    "occlusion": partial(occlusion, size=4),
    "rise": partial(rise, count=12, cells=3),
}


def plain(task: Classes, pixels: Tensor, index: int) -> float:
    with torch.no_grad():
        return float(task.head(task.encoder(pixels[None]))[0, index])


def seen(task: Classes, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return task.encoder(pixels[None])[0]


def gradient(task: Classes, features: Tensor, index: int) -> Tensor:
    leaf = features.clone().requires_grad_()
    return torch.autograd.grad(task.head(leaf[None])[0, index], leaf)[0]


def test_smooth_is_the_mean_and_deviation_over_noisy_copies(classes: Classes, pixels: Tensor) -> None:
    made = explain(classes, pixels, method=smooth(gradcam, count=4, sigma=0.2, seed=7))
    copies = noisy(pixels[None], 4, 0.2, 7)
    maps = torch.stack([explain(classes, copy, method=gradcam).maps for copy in copies])
    torch.testing.assert_close(made.maps, maps.mean(0))
    assert made.std is not None
    torch.testing.assert_close(made.std, maps.std(0))
    assert made.metadata.method == "smooth(gradcam, count=4, sigma=0.2, seed=7)"
    assert float((copies - pixels).std()) == pytest.approx(0.2 * float(pixels.max() - pixels.min()), rel=0.1)


def test_a_method_with_a_spread_of_its_own_is_smoothed_by_its_maps(classes: Classes, pixels: Tensor) -> None:
    drawn = partial(rise, count=6, cells=2)
    made = explain(classes, pixels, method=smooth(drawn, count=3, sigma=0.2, seed=1))
    maps = torch.stack([explain(classes, copy, method=drawn).maps for copy in noisy(pixels[None], 3, 0.2, 1)])
    torch.testing.assert_close(made.maps, maps.mean(0))


def test_more_copies_than_memory_holds_are_refused(classes: Classes, pixels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in (smooth(gradcam, count=10**9), partial(smooth_gradcam_pp, count=10**9)):
        with pytest.raises(
            InputError, match="expected at most 11,184,810 noisy copies of a picture of this size, got 1,000,000,000"
        ):
            explain(classes, pixels, method=method)
    for settings in ({"count": 10**9}, {"count": 1}, {"cells": 0}, {"cells": 10**6}, {"share": 1.0}):
        with pytest.raises(InputError, match=r"rise: expected count in 2..1,000,000, cells in 1..8 and share in 0..1, got"):
            explain(classes, pixels, method=partial(rise, **settings))
    monkeypatch.setattr("mmgradcam.methods.perturbation.MOST_NOISE", 4 * 3 * 8 * 8 * 5)
    assert noisy(pixels[None], 5, 0.1, 0).shape == (5, 3, 8, 8)
    with pytest.raises(InputError, match="at most 5 noisy copies"):
        noisy(pixels[None], 6, 0.1, 0)


def test_without_noise_smooth_is_the_method_and_nothing_spreads(classes: Classes, pixels: Tensor) -> None:
    made = explain(classes, pixels, method=smooth(hirescam, count=2, sigma=0.0))
    torch.testing.assert_close(made.maps, explain(classes, pixels, method=hirescam).maps)
    assert made.std is not None
    torch.testing.assert_close(made.std, torch.zeros_like(made.std), atol=1e-6, rtol=0)


@pytest.mark.parametrize("subset", [{}, {"maps": [0, 3]}, {"neurons": True}])
def test_smooth_gradcam_pp_is_its_formula(classes: Classes, pixels: Tensor, subset: dict[str, Any]) -> None:
    neurons = torch.rand(4, 4) > 0.5
    chosen = {"neurons": neurons} if "neurons" in subset else subset
    made = explain(classes, pixels, method=partial(smooth_gradcam_pp, count=5, sigma=0.3, seed=2, **chosen))
    a = seen(classes, pixels)
    for index, one in enumerate(made):
        slopes = [gradient(classes, seen(classes, copy), index) for copy in noisy(pixels[None], 5, 0.3, 2)]
        slow = torch.zeros(4, 4, dtype=torch.float64)
        for k in subset.get("maps", range(5)):
            weight = 0.0
            for i in range(4):
                for j in range(4):
                    d1, d2, d3 = (sum(float(g[k, i, j]) ** p for g in slopes) / 5 for p in (1, 2, 3))
                    below = 2 * d2 + float(a[k].sum()) * d3
                    if "neurons" not in subset or neurons[i, j]:
                        weight += (d2 / below if below else 0.0) * max(0.0, d1)
            slow += weight * a[k]
        if "neurons" in subset:
            slow *= neurons
        torch.testing.assert_close(one.map, slow.clamp(min=0).float(), rtol=1e-4, atol=1e-7)
    assert made.std is not None
    assert bool((made.std > 0).any())


def test_score_cam_is_its_formula(classes: Classes, pixels: Tensor) -> None:
    made = explain(classes, pixels, method=score_cam)
    a = seen(classes, pixels)
    masks = []
    for k in range(5):
        if a[k].max() > a[k].min():
            scaled = (a[k] - a[k].min()) / (a[k].max() - a[k].min())
            masks.append((k, F.interpolate(scaled[None, None], size=(8, 8), mode="bilinear", align_corners=False)[0, 0]))
    assert len(masks) > 2
    for index, one in enumerate(made):
        scores = {k: math.exp(plain(classes, pixels * mask, index)) for k, mask in masks}
        slow = sum(score / sum(scores.values()) * a[k] for k, score in scores.items())
        torch.testing.assert_close(one.map, slow.clamp(min=0).float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("at", ["the feature layer", "a target layer", "a target layer with a layout"])
def test_ablation_cam_is_its_formula(pixels: Tensor, at: str) -> None:
    encoder, head = Encoder().double().eval(), Bent().double().eval()
    task = Classes(encoder, head)
    whole = nn.Sequential(encoder, head)
    as_is = {"a target layer with a layout": lambda x: x.flatten(2).unflatten(2, (4, 4))}.get(at)
    asked = task if at == "the feature layer" else Layer(whole, whole[0], layout=as_is)
    made = explain(asked, pixels, method=ablation_cam, classes=[0, 1, 2])
    a = seen(task, pixels)
    for index, one in enumerate(made):
        y = plain(task, pixels, index)
        slow = torch.zeros(4, 4, dtype=torch.float64)
        for k in range(5):
            without = a.clone()
            without[k] = 0
            slow += (y - float(head(without[None])[0, index].detach())) / abs(y) * a[k]
        torch.testing.assert_close(one.map, slow.clamp(min=0).float(), rtol=1e-4, atol=1e-6)
    if at == "the feature layer":
        assert task.encodes == [1]


def test_occlusion_is_its_formula(classes: Classes, pixels: Tensor) -> None:
    made = explain(classes, pixels, method=partial(occlusion, size=3, stride=2, value=0.5))
    corners = [(y, x) for y in (0, 2, 4, 5) for x in (0, 2, 4, 5)]
    for index, one in enumerate(made):
        total, count = torch.zeros(8, 8, dtype=torch.float64), torch.zeros(8, 8)
        for y, x in corners:
            covered = pixels.clone()
            covered[:, y : y + 3, x : x + 3] = 0.5
            total[y : y + 3, x : x + 3] += plain(classes, pixels, index) - plain(classes, covered, index)
            count[y : y + 3, x : x + 3] += 1
        torch.testing.assert_close(one.map, (total / count).float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 72), (72, 8)])
def test_occlusion_by_default_covers_the_shorter_side_of_a_long_picture(shape: tuple[int, int]) -> None:
    task = Classes(nn.Identity(), nn.Sequential(nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), nn.Linear(12, 4)))
    pixels = torch.rand(3, *shape)
    made = explain(task, pixels, method=occlusion)
    assert made.maps.shape == (3, *shape)
    torch.testing.assert_close(made.maps, explain(task, pixels, method=partial(occlusion, size=8)).maps)


@pytest.mark.parametrize("centred", [True, False])
def test_rise_is_its_formula(classes: Classes, pixels: Tensor, centred: bool) -> None:
    made = explain(classes, pixels, method=partial(rise, count=40, cells=3, share=0.4, seed=5, centred=centred))
    masks = torch.cat(list(random_masks(pixels[None], 40, 3, 0.4, 5, 16)))
    assert masks.shape == (40, 8, 8)
    assert float(masks.mean()) == pytest.approx(0.4, abs=0.1)
    for index, one in enumerate(made):
        scores = [plain(classes, pixels * mask, index) for mask in masks]
        less = sum(scores) / 40 if centred else 0.0
        each = torch.stack([(score - less) * mask / 0.4 for score, mask in zip(scores, masks, strict=True)])
        torch.testing.assert_close(one.map, each.mean(0).float(), rtol=1e-4, atol=1e-6)
        assert made.std is not None
        torch.testing.assert_close(made.std[index], (each.std(0, correction=0) / 40**0.5).float(), rtol=1e-4, atol=1e-6)


def test_the_masks_of_rise_are_grids_enlarged_and_shifted() -> None:
    """Petsiuk 2018, section 3.2: cells of 5 x 3 pixels, one cell more each way, cut at a corner within the first cell."""
    cells, high, wide, count, share = 2, 5, 3, 7, 0.3
    masks = torch.cat(list(random_masks(torch.zeros(1, 3, 9, 6), count, cells, share, 4, batch=3)))
    draw = torch.Generator().manual_seed(4)
    grids = (torch.rand(count, 1, cells, cells, generator=draw) < share).float()[:, 0]
    ys, xs = (torch.randint(0, most, (count,), generator=draw) for most in (high, wide))
    assert ys.max() > 0
    assert xs.max() > 0

    def weight(cell: int, pixel: int, size: int) -> float:
        place = min(max((pixel + 0.5) * cells / ((cells + 1) * size) - 0.5, 0), cells - 1)
        return max(0.0, 1 - abs(place - cell))

    for mask, grid, y0, x0 in zip(masks, grids, ys.tolist(), xs.tolist(), strict=True):
        slow = [
            [
                sum(
                    float(grid[i, j]) * weight(i, y + y0, high) * weight(j, x + x0, wide)
                    for i in range(cells)
                    for j in range(cells)
                )
                for x in range(6)
            ]
            for y in range(9)
        ]
        torch.testing.assert_close(mask, torch.tensor(slow), atol=1e-5, rtol=0)


def test_what_is_no_channel_of_a_picture_weighs_nothing_in_score_cam() -> None:
    """A feature map that is the same everywhere makes no mask; where all are, there is no map."""
    task = Classes(nn.Identity(), Bent(), classes=[0])
    task.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    assert not explain(task, torch.full((3, 8, 8), 0.3), method=score_cam).maps.any()
    pixels = torch.rand(3, 8, 8)
    pixels[1] = 5.0
    made = explain(task, pixels, method=score_cam)
    masks = [(pixels[k] - pixels[k].min()) / (pixels[k].max() - pixels[k].min()) for k in (0, 2)]
    weights = torch.stack([task.head((pixels * mask)[None])[0, 0] for mask in masks]).softmax(0)
    torch.testing.assert_close(made.map, (weights[0] * pixels[0] + weights[1] * pixels[2]).detach())


def test_a_spread_is_that_of_grad_cam_pp_over_the_noisy_copies(classes: Classes, pixels: Tensor) -> None:
    made = explain(classes, pixels, method=partial(smooth_gradcam_pp, count=4, sigma=0.3, seed=2))
    copies = noisy(pixels[None], 4, 0.3, 2)
    maps = torch.stack([explain(classes, copy, method=gradcam_pp).maps for copy in copies])
    assert made.std is not None
    torch.testing.assert_close(made.std, maps.std(0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("maps", "same"), [([0, 4], [0, 4]), (range(5), None), ([2, 2], [2])])
def test_feature_maps_at_the_ends_may_be_chosen(classes: Classes, pixels: Tensor, maps: Any, same: Any) -> None:
    made, other = (explain(classes, pixels, method=partial(smooth_gradcam_pp, count=2, maps=m)).maps for m in (maps, same))
    torch.testing.assert_close(made, other)


def test_settings_are_by_default_what_is_documented(classes: Classes, pixels: Tensor) -> None:
    documented: list[tuple[Any, Any]] = [
        (occlusion, partial(occlusion, size=1, stride=1, value=0.0)),
        (rise, partial(rise, count=1000, cells=7, share=0.5, seed=0, centred=True)),
        (smooth(gradcam), smooth(gradcam, count=25, sigma=0.15, seed=0)),
        (smooth_gradcam_pp, partial(smooth_gradcam_pp, count=25, sigma=0.15, seed=0, maps=None, neurons=None)),
        (integrated_gradients, partial(integrated_gradients, steps=32, baseline=0.0)),
    ]
    for by_default, written_out in documented:
        made, same = (explain(classes, pixels, method=method, classes=[0]) for method in (by_default, written_out))
        assert made.maps.any()
        assert torch.equal(made.maps, same.maps), by_default


def test_pixels_between_the_squares_of_occlusion_are_0(classes: Classes, pixels: Tensor) -> None:
    made = explain(classes, pixels, method=partial(occlusion, size=2, stride=3), classes=[1]).map
    expected = torch.zeros(8, 8)
    for y in (0, 3, 6):
        for x in (0, 3, 6):
            covered = pixels.clone()
            covered[:, y : y + 2, x : x + 2] = 0
            expected[y : y + 2, x : x + 2] = plain(classes, pixels, 1) - plain(classes, covered, 1)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("side", "size"), [(21, 3), (24, 3), (25, 4), (31, 4), (32, 5), (38, 5), (3, 1), (1, 1)])
def test_a_square_of_occlusion_is_a_seventh_of_the_picture(side: int, size: int) -> None:
    task = Classes(nn.Identity(), nn.Sequential(nn.AdaptiveAvgPool2d((3, 3)), nn.Flatten(), nn.Linear(27, 4)), classes=[0])
    pixels = torch.rand(3, side, side)
    made = [explain(task, pixels, method=m).map for m in (occlusion, partial(occlusion, size=size, stride=max(1, size // 2)))]
    assert torch.equal(*made)


def test_squares_of_occlusion_by_default() -> None:
    """A seventh of the longer side, half a square between them, and the last one at the edge."""
    task = Classes(nn.Identity(), nn.Sequential(nn.AdaptiveAvgPool2d((3, 3)), nn.Flatten(), nn.Linear(27, 4)), classes=[0])
    pixels = torch.rand(3, 20, 29)
    made = explain(task, pixels, method=occlusion)
    assert task.encodes[1:] != []
    torch.testing.assert_close(made.maps, explain(task, pixels, method=partial(occlusion, size=4, stride=2)).maps)
    whole = explain(task, pixels, method=partial(occlusion, size=20, stride=9)).map
    assert torch.equal(whole[:, 0], whole[:1, 0].expand(20)), "a square as high as the picture"
    every = explain(task, pixels[:, :8, :8], method=partial(occlusion, size=1)).map
    torch.testing.assert_close(every, explain(task, pixels[:, :8, :8], method=partial(occlusion, size=1, stride=1)).map)


def test_rise_finds_what_the_score_rests_on() -> None:
    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, :4, :4].mean((1, 2, 3))[:, None].expand(-1, 4)

    task = Classes(nn.Identity(), Corner(), classes=[0])
    heat = explain(task, torch.ones(3, 16, 16), method=partial(rise, count=400, cells=4)).map
    assert float(heat[:4, :4].mean()) > 4 * float(heat[8:, 8:].abs().mean())


@pytest.mark.parametrize("name", ASKING)
def test_an_asking_method_works_on_every_task_and_a_batch_is_a_loop(name: str) -> None:
    for task, query in (
        (tiny_captioner("lstm"), {"caption": "a red ball and a cube"}),
        (tiny_captioner("transformer"), {"caption": "a red ball"}),
        (tiny_vqa("transformer"), {"question": "what color is the ball", "answer": "red", "contrast": "2"}),
    ):
        several = [torch.randn(3, 16, 16).double() for _ in range(2)]
        together = explain(task, several, method=ASKING[name], **query)
        for pixels, made in zip(several, together, strict=True):
            alone = explain(task, pixels, method=ASKING[name], batch=5, memory=1, **query)
            torch.testing.assert_close(made.maps, alone.maps)
            torch.testing.assert_close(made.scores, explain(task, pixels, method=gradcam, **query).scores)
            assert (made.std is None) == (alone.std is None)


@pytest.mark.parametrize("name", ASKING)
def test_an_asking_method_is_the_same_each_time(name: str, classes: Classes, pixels: Tensor) -> None:
    first, again = (explain(classes, pixels, method=ASKING[name]).maps for _ in range(2))
    assert torch.equal(first, again)
    assert bool((first != 0).any())


@pytest.mark.parametrize("name", [n for n in ASKING if n != "smooth of asking"])
def test_each_changed_picture_is_encoded_once_for_all_targets(name: str, classes: Classes, pixels: Tensor) -> None:
    explain(classes, pixels, method=ASKING[name], classes=[0, 1, 2, 3])
    most = {"smooth": 3, "smooth_gradcam_pp": 3, "score_cam": 5, "ablation_cam": 0, "occlusion": 9, "rise": 12}[name]
    assert sum(classes.encodes) <= 1 + most


@pytest.mark.parametrize("name", ASKING)
def test_asking_methods_take_layers_and_fuse_them(name: str, classes: Classes, pixels: Tensor) -> None:
    made = explain(
        classes, pixels, method=ASKING[name], target_layers=["bend", "norm"] if name != "smooth_gradcam_pp" else ["bend"]
    )
    assert made.maps.shape[1:] == (8, 8)


def test_the_spread_is_saved_and_read_back(classes: Classes, pixels: Tensor, tmp_path: Path) -> None:
    made = explain(classes, pixels, method=smooth(layercam, count=2))
    made.save(tmp_path / "e.npz")
    read = Explanation.load(tmp_path / "e.npz")
    assert made.std is not None
    assert read.std is not None
    assert torch.equal(read.std, made.std)
    assert read[1].std is not None
    assert torch.equal(read[1].std[0], made.std[1])


def test_phrases_are_joint_for_asking_methods_too() -> None:
    task = tiny_captioner("lstm")
    words = explain(task, torch.randn(3, 16, 16).double(), method=ablation_cam, caption="a red ball")
    phrase = words[1:3]
    assert phrase.label == "red ball"
    assert phrase.score == pytest.approx(float(words.scores[1:3].sum()), rel=1e-5)


WRONG: dict[str, tuple[Any, str]] = {
    "one copy": (smooth(gradcam, count=1), "at least 2 copies"),
    "negative noise": (smooth(gradcam, sigma=-0.1), "sigma >= 0"),
    "no such map": (partial(smooth_gradcam_pp, count=2, maps=[9]), r"feature maps in 0\.\.4, got \[9\]"),
    "other neurons": (partial(smooth_gradcam_pp, count=2, neurons=torch.ones(2, 2)), r"a mask of shape \(4, 4\)"),
    "a huge square": (partial(occlusion, size=9), r"size in 1\.\.8"),
    "no such map below": (partial(smooth_gradcam_pp, count=2, maps=[-1]), r"feature maps in 0\.\.4, got \[-1\]"),
    "no map after the last": (partial(smooth_gradcam_pp, count=2, maps=[5]), r"feature maps in 0\.\.4, got \[5\]"),
    "no maps": (partial(smooth_gradcam_pp, count=2, maps=[]), r"feature maps in 0\.\.4, got \[\]"),
    "no square": (partial(occlusion, size=0), r"size in 1\.\.8"),
    "no step": (partial(occlusion, size=2, stride=0), "stride >= 1"),
    "no masks": (partial(rise, count=0), r"count in 2\.\.1,000,000"),
    "one mask": (partial(rise, count=1), r"count in 2\.\.1,000,000"),
    "no cells": (partial(rise, cells=0), r"cells in 1\.\.8"),
    "more cells than pixels": (partial(rise, cells=9), r"cells in 1\.\.8"),
    "nothing kept": (partial(rise, share=0.0), r"share in 0\.\.1"),
    "all kept": (partial(rise, share=1.0), r"share in 0\.\.1"),
    "no way": (partial(integrated_gradients, steps=0), "1 step or more, and at most .* got 0"),
    "three arguments": (lambda a, b, c: a, r"a function of \(features, gradients\) or of \(probe\), got one of \(a, b, c\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_out_of_range_are_said(name: str, classes: Classes, pixels: Tensor) -> None:
    method, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        explain(classes, pixels, method=method)


def test_an_asking_method_that_returns_no_maps_is_said(classes: Classes, pixels: Tensor) -> None:
    with pytest.raises(ModelError, match=r"method <lambda>: expected maps \(3, \*grid\), got \(1, 5, 4, 4\)"):
        explain(classes, pixels, method=lambda probe: probe.features)


def test_smooth_gradcam_pp_refuses_signed_features(classes: Classes, pixels: Tensor) -> None:
    with pytest.raises(InputError, match="expected features >= 0"):
        explain(classes, pixels, method=partial(smooth_gradcam_pp, count=2), target_layers=["first"])
