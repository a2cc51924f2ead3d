"""Methods down to the pixels, and those that look at the head or at every bias, against the slow and obvious way."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Bent, Classes, Encoder, Linear, tiny_captioner
from torch import Tensor, nn

from mmgradcam import InputError, ModelError, explain, gradcam, gradcam_pp, hirescam
from mmgradcam.methods import (
    cam,
    deconvnet,
    fullgrad,
    gradient_x_input,
    guided_backprop,
    guided_gradcam,
    guided_gradcam_pp,
    integrated_gradients,
)
from mmgradcam.tasks import Layer


def gradient(task: Classes, pixels: Tensor, index: int) -> Tensor:
    x = pixels.clone().requires_grad_()
    return torch.autograd.grad(task.head(task.encoder(x[None].clone()))[0, index], x)[0]


def test_gradient_times_input(classes: Classes, pixels: Tensor) -> None:
    made = explain(classes, pixels, method=gradient_x_input)
    for index, one in enumerate(made):
        torch.testing.assert_close(one.map, (gradient(classes, pixels, index) * pixels).sum(0).float())


def test_integrated_gradients_are_their_formula_and_complete(classes: Classes, pixels: Tensor) -> None:
    few = explain(classes, pixels, method=partial(integrated_gradients, steps=3, baseline=0.2))
    for index, one in enumerate(few):
        way = pixels - 0.2
        slopes = [gradient(classes, 0.2 + (s + 0.5) / 3 * way, index) for s in range(3)]
        torch.testing.assert_close(one.map, (way * torch.stack(slopes).mean(0)).sum(0).float())
    many = explain(classes, pixels, method=partial(integrated_gradients, steps=400))
    blank = explain(classes, torch.zeros_like(pixels), method=hirescam)
    torch.testing.assert_close(many.maps.sum((1, 2)), many.scores - blank.scores, rtol=2e-3, atol=2e-4)


class Written(nn.Module):
    """A net of three ReLUs, written in one of the ways people write them."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.first, self.second, self.out = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 2, stride=2), nn.Linear(5, 3)
        self.bend = nn.ReLU(inplace=way == "module in place")
        self.way: Callable[[Tensor], Tensor] = {
            "module": self.bend,
            "module in place": self.bend,
            "function": F.relu,
            "function in place": partial(F.relu, inplace=True),
            "torch": torch.relu,
            "torch in place": torch.relu_,
            "method": lambda x: x.relu(),
            "method in place": lambda x: x.relu_(),
            "clamp": lambda x: x.clamp(min=0),
            "clamp_min": lambda x: torch.clamp_min(x, 0.0),
            "relu6": lambda x: F.relu6(x / 100) * 100,
            "unused value": self._and_goes_on,
        }[way]

    @staticmethod
    def _and_goes_on(x: Tensor) -> Tensor:
        x.relu_()
        return x

    def forward(self, x: Tensor) -> Tensor:
        features = self.way(self.second(self.way(self.first(x))))
        return self.out(self.way(features.mean((2, 3)) - 0.05))


WAYS = [
    "module", "module in place", "function", "function in place", "torch", "torch in place", "method", "method in place",
    "clamp", "clamp_min", "relu6", "unused value",
]  # fmt: skip


def by_hand(pixels: Tensor, index: int, rule: str) -> Tensor:
    """The rule written out: backward through each layer, one at a time."""
    net = Written("function").double()
    a = net.first(pixels[None])
    b = net.second(a.clamp(min=0))
    c = b.clamp(min=0).mean((2, 3)) - 0.05

    def through(g: Tensor, x: Tensor) -> Tensor:
        return g.clamp(min=0) * (x > 0 if rule == "guided" else 1)

    g = through(net.out.weight[index][None], c)[:, :, None, None].expand_as(b) / b[0, 0].numel()
    g = F.conv_transpose2d(through(g, b), net.second.weight, stride=2)
    return F.conv_transpose2d(through(g, a), net.first.weight, padding=1)[0].detach()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
def test_relus_are_caught_however_they_are_written(way: str, rule: str, pixels: Tensor) -> None:
    net = Written(way).double()
    before = {name: (m.training, len(m._forward_hooks), type(m)) for name, m in net.named_modules()}
    method = guided_backprop if rule == "guided" else deconvnet
    made = explain(Layer(net, "second"), pixels, method=method, classes=[0, 1, 2])
    for index, one in enumerate(made):
        torch.testing.assert_close(one.map, by_hand(pixels, index, rule).abs().amax(0).float(), rtol=1e-5, atol=1e-7)
    assert bool((made.maps != 0).any())
    assert {name: (m.training, len(m._forward_hooks), type(m)) for name, m in net.named_modules()} == before
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    torch.relu(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1]


def test_the_heads_relus_follow_the_rule_too(pixels: Tensor) -> None:
    whole = Written("function").double()
    split = Classes(nn.Identity(), whole)
    split.encode = lambda images: F.relu(whole.second(F.relu(whole.first(images))))  # type: ignore[method-assign]
    split.score = lambda features, targets: whole.out(F.relu(features.mean((2, 3)) - 0.05))[  # type: ignore[method-assign]
        torch.arange(len(targets)), torch.tensor([t.value for t in targets])
    ]
    split.modules = lambda: [whole]  # type: ignore[method-assign]
    made = explain(split, pixels, method=guided_backprop)
    for index, one in enumerate(made):
        torch.testing.assert_close(one.map, by_hand(pixels, index, "guided").abs().amax(0).float(), rtol=1e-5, atol=1e-7)


def test_a_model_without_relus_is_refused_and_smooth_activations_are_warned_of(pixels: Tensor) -> None:
    smooth = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).double()
    with pytest.raises(ModelError, match="ran no ReLU"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explain(Layer(smooth, "0"), pixels, method=guided_backprop)
    mixed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.warns(UserWarning, match="GELU of this model went by its own gradient"):
        explain(Layer(mixed, "0"), pixels.float(), method=guided_backprop)


@pytest.mark.parametrize(("guided", "coarse"), [(guided_gradcam, gradcam), (guided_gradcam_pp, gradcam_pp)])
def test_guided_cams_are_the_product_at_the_pixels(classes: Classes, pixels: Tensor, guided: Any, coarse: Any) -> None:
    made = explain(classes, pixels, method=guided)
    large = F.interpolate(explain(classes, pixels, method=coarse).maps[:, None], size=(8, 8), mode="bilinear")[:, 0]
    torch.testing.assert_close(made.maps, explain(classes, pixels, method=guided_backprop).maps * large)
    assert bool((made.maps > 0).any())


def linear_task() -> tuple[Classes, Linear]:
    model = Linear().double().eval()
    task = Classes(model, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head))
    task.encode = lambda images: model.features(images)  # type: ignore[method-assign]
    return task, model


def test_cam_is_the_classifiers_own_weights(pixels: Tensor) -> None:
    task, model = linear_task()
    for asked in (task, Layer(nn.Sequential(Features(model), nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head), "0")):
        made = explain(asked, pixels, method=cam, classes=[0, 1, 2])
        features = model.features(pixels[None])[0].detach()
        for i, one in enumerate(made):
            slow = (model.head.weight[i].detach()[:, None, None] * features).sum(0)
            torch.testing.assert_close(one.map, slow.float(), rtol=1e-4, atol=1e-6)


class Features(nn.Module):
    def __init__(self, model: Linear) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.features(x)


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).square()[:, :4]


@pytest.mark.parametrize(("head", "why"), [(Bent(), "the same at every cell"), (Squared(), "depends on the features")])
def test_cam_is_refused_under_other_heads(pixels: Tensor, head: nn.Module, why: str) -> None:
    with pytest.raises(InputError, match=f"cam: expected a head of global average pooling and one linear layer.*{why}"):
        explain(Classes(Encoder().double().eval(), head.double()), pixels, method=cam)


class Tilted(nn.Module):
    """Pooling that weighs the last cell a little more than the others."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.with_method = by

    def forward(self, x: Tensor) -> Tensor:
        tilt = torch.ones_like(x[0, 0])
        tilt[-1, -1] += self.with_method
        return (x * tilt).mean((2, 3))[:, :4]


def test_cam_allows_for_rounding_and_no_more(pixels: Tensor) -> None:
    encoder = Encoder().double().eval()
    made, even = (explain(Classes(encoder, Tilted(by)), pixels, method=cam) for by in (5e-5, 0.0))
    torch.testing.assert_close(made.maps, even.maps, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="the same at every cell"):
        explain(Classes(encoder, Tilted(5e-4)), pixels, method=cam)


def test_cam_of_one_cell_is_refused(pixels: Tensor) -> None:
    pooled = nn.Sequential(Encoder(), nn.AdaptiveAvgPool2d(1)).double().eval()
    with pytest.raises(InputError, match="a single cell, and so no map"):
        explain(Classes(pooled, nn.Sequential(nn.Flatten(), nn.Linear(5, 4)).double()), pixels, method=cam)


@pytest.mark.parametrize("grid", [(3, 1), (1, 3), (2, 2)])
def test_cam_of_a_grid_of_one_row_or_column(grid: tuple[int, int], pixels: Tensor) -> None:
    pooled = nn.Sequential(Encoder(), nn.AdaptiveAvgPool2d(grid)).double().eval()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)).double()
    made = explain(Classes(pooled, head), pixels, method=cam)
    with torch.no_grad():
        expected = torch.einsum("kc,chw->khw", head[2].weight, pooled(pixels[None])[0])
    torch.testing.assert_close(made.maps, expected[: len(made)].float())


def test_cam_of_words_is_refused() -> None:
    with pytest.raises(InputError, match="cam: expected a head"):
        explain(tiny_captioner("lstm"), torch.randn(3, 16, 16).double(), method=cam, caption="a red ball")


class Rectified(nn.Module):
    """Convolutions with and without bias, batch norms, ReLUs: what FullGrad is defined for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.second, self.other = nn.Conv2d(6, 5, 2, stride=2), nn.BatchNorm2d(5, affine=False)
        self.out = nn.Linear(5, 3)
        for norm in (self.norm, self.other):
            norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        self.norm.weight.data.uniform_(0.5, 2), self.norm.bias.data.normal_()
        self.double().eval()

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.other(self.second(F.relu(self.norm(self.first(x))))))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.features(x).mean((2, 3)))


def test_fullgrad_is_its_formula_and_its_parts_sum_to_the_score(pixels: Tensor) -> None:
    net = Rectified()
    made = explain(Layer(net, "second"), pixels, method=fullgrad, classes=[0, 1, 2])
    for index, one in enumerate(made):
        x = pixels[None].clone().requires_grad_()
        normed = net.norm(net.first(x))
        conved = net.second(F.relu(normed))
        othered = net.other(conved)
        score = net.out(F.relu(othered).mean((2, 3)))[0, index]
        g = torch.autograd.grad(score, [x, normed, conved, othered])
        biases = [
            net.norm.bias - net.norm.weight * net.norm.running_mean / (net.norm.running_var + 1e-5).sqrt(),
            net.second.bias,
            -net.other.running_mean / (net.other.running_var + 1e-5).sqrt(),
        ]
        parts = [(g[0] * x).sum(1, keepdim=True)] + [
            s * b[None, :, None, None] for s, b in zip(g[1:], biases, strict=True) if b is not None
        ]
        total = sum(p.sum() for p in parts)
        torch.testing.assert_close(total + net.out.bias[index], score)
        slow = torch.zeros(8, 8, dtype=torch.float64)
        for p in parts:
            for channel in p[0].detach().abs():
                scaled = (
                    (channel - channel.min()) / (channel.max() - channel.min())
                    if channel.max() > channel.min()
                    else channel * 0
                )
                slow += F.interpolate(scaled[None, None], size=(8, 8), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(one.map, slow.float(), rtol=1e-4, atol=1e-5)


def test_fullgrad_of_words() -> None:
    made = explain(tiny_captioner("lstm"), torch.randn(3, 16, 16).double(), method=fullgrad, caption="a red ball")
    assert made.maps.shape == (3, 16, 16)
    assert bool((made.maps.flatten(1).amax(1) > 0).all())
