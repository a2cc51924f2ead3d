"""What holds for every method, whatever it asks of the model."""

from __future__ import annotations

import gc
import inspect
import resource
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from conftest import Classes, Encoder
from test_layers import state, used
from torch import Tensor, nn

from mmgradcam import explain, methods
from mmgradcam.methods import ablation_cam, cam, gradcam, gradcam_pp, gradcam_pp_code, occlusion, product, rise, smooth

EVERY: dict[str, Any] = {
    name: getattr(methods, name) for name in methods.__all__ if name not in ("mean", "product", "smooth", "cam")
} | {
    "smooth": smooth(gradcam, count=3),
    "rise": partial(rise, count=6),
    "occlusion": partial(occlusion, size=4),
    "smooth_gradcam_pp": partial(methods.smooth_gradcam_pp, count=3),
    "integrated_gradients": partial(methods.integrated_gradients, steps=4),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_method_leaves_the_model_as_it_found_it(name: str, classes: Classes, pixels: Tensor) -> None:
    before = state(used(classes))
    made = explain(classes, [pixels, pixels], method=EVERY[name])
    assert state(classes) == before
    assert bool((made[0].maps != 0).any())
    torch.testing.assert_close(made[0].maps, made[1].maps)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("name", EVERY)
def test_a_method_that_is_stopped_leaves_the_model_as_it_found_it(
    name: str, classes: Classes, pixels: Tensor, error: type[BaseException]
) -> None:
    before, score = state(used(classes)), classes.score

    def fail(features: Tensor, targets: Any) -> Tensor:
        score(features, targets)
        raise error("stop")

    classes.score = fail  # type: ignore[method-assign]
    with pytest.raises(error, match="stop"):
        explain(classes, pixels, method=EVERY[name])
    assert state(classes) == before
    x = torch.tensor([-1.0], requires_grad=True)
    assert torch.autograd.grad(torch.relu(x).sum() + (-x).relu().sum(), x)[0].item() == -1


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_a_frozen_model_without_gradients_can_be_asked(
    name: str, around: Callable[[], Any], classes: Classes, pixels: Tensor
) -> None:
    expected = explain(classes, pixels, method=EVERY[name]).maps
    for module in classes.modules():
        module.requires_grad_(False)
    with around():
        made = explain(classes, pixels.clone(), method=EVERY[name])
    torch.testing.assert_close(made.maps, expected)


UNSCALED = {gradcam_pp, gradcam_pp_code}
"""Their formulas compare powers of the gradient, so that their picture depends on the scale of the score."""


@pytest.mark.parametrize(
    "name",
    [n for n, m in EVERY.items() if m not in UNSCALED and n not in ("smooth_gradcam_pp", "score_cam", "guided_gradcam_pp")],
)
def test_a_scaled_target_gives_the_same_picture(name: str, classes: Classes, pixels: Tensor) -> None:
    plain, score = explain(classes, pixels, method=EVERY[name]), classes.score
    classes.score = lambda features, targets: score(features, targets) * 1e-8  # type: ignore[method-assign]
    for a, b in zip(plain, explain(classes, pixels, method=EVERY[name]), strict=True):
        torch.testing.assert_close(torch.from_numpy(a.heat()), torch.from_numpy(b.heat()), rtol=1e-3, atol=1e-4)


class Volume(nn.Module):
    """Features on a grid of three dimensions: the picture three times over, dimmed."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x, x / 2, x / 4], 2)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in EVERY
        if n not in ("score_cam", "guided_backprop", "deconvnet", "guided_gradcam", "guided_gradcam_pp", "fullgrad")
    ],
)
def test_a_grid_of_three_dimensions(name: str, pixels: Tensor) -> None:
    task = Classes(Volume(), nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(3 * 3 * 8 * 8, 4)).double())
    made = explain(task, pixels, method=EVERY[name])
    flat = Classes(nn.Sequential(Volume(), nn.Flatten(3), nn.Unflatten(3, (8, 8)), nn.Flatten(2, 3)), task.head)
    flat.encode = lambda images: Volume()(images).flatten(2, 3)  # type: ignore[method-assign]
    same = explain(flat, pixels, method=EVERY[name])
    torch.testing.assert_close(made.maps.flatten(1), same.maps.flatten(1))
    assert made.maps.shape in ((3, 3, 8, 8), (3, 8, 8))


def test_not_a_number_in_a_gradient_is_said_and_never_drawn(classes: Classes, pixels: Tensor) -> None:
    classes.score = lambda features, targets: (features * 0).sum((1, 2, 3)).sqrt()  # type: ignore[method-assign]
    made = explain(classes, pixels)
    assert made.warnings == ["not finite"] * 3
    assert not made[0].heat().any()


def test_every_method_says_its_formula_source_and_shapes() -> None:
    for name in methods.__all__:
        doc = inspect.getdoc(getattr(methods, name)) or ""
        assert "Returns:" in doc, name
        assert "Args:" in doc, name
        if name not in ("mean", "product"):
            assert "Source:" in doc, name


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read as Linux counts it")
def test_ten_thousand_explanations_leak_nothing() -> None:
    task = Classes(nn.Conv2d(3, 4, 2, 2), nn.Sequential(nn.Flatten(), nn.Linear(4 * 4 * 4, 4)), classes=[1])
    pixels = torch.rand(50, 3, 8, 8)

    def some(count: int) -> tuple[int, int]:
        for i in range(count // 50):
            explain(task, pixels, method=(gradcam, ablation_cam)[i % 20 == 0], batch=50)
        gc.collect()
        return sum(issubclass(type(o), Tensor) for o in gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    tensors, peak = some(1000)
    after, later = some(10_000)
    assert after == tensors
    assert later - peak < 20 * 1024


def test_methods_for_several_layers_are_fused_alike(classes: Classes, pixels: Tensor) -> None:
    for method in (gradcam, ablation_cam, smooth(gradcam, count=2, sigma=0.0)):
        both = explain(classes, pixels, method=method, target_layers=["bend", "norm"]).maps
        each = [explain(classes, pixels, method=method, target_layers=[target_layer]).maps for target_layer in ("bend", "norm")]
        torch.testing.assert_close(both, product(each), rtol=1e-4, atol=1e-6)


def test_cam_is_among_the_methods_and_needs_its_head() -> None:
    linear = Classes(Encoder(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)))
    before = state(linear)
    assert explain(linear, torch.rand(3, 8, 8), method=cam).maps.shape == (3, 4, 4)
    assert state(linear) == before
