"""Maps that stay in the graph: they can stand in a loss, and the model is then left in the user's hands."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import Bent, Classes, Encoder, tiny_captioner
from torch import Tensor

from mmgradcam import InputError, explain, gradcam, hirescam, layercam
from mmgradcam.methods import eigencam, gradcam_pp, rise, xgradcam


def teacher_and_student() -> tuple[Classes, Classes]:
    torch.manual_seed(1)
    pair = [Classes(Encoder(), Bent()) for _ in range(2)]
    return pair[0], pair[1]


@pytest.mark.parametrize("target_layers", [(), ("norm",), ("bend", "second")])
def test_a_step_on_a_map_loss_brings_the_maps_nearer(target_layers: tuple[str, ...]) -> None:
    """Distillation as Grad-CAM++ has it: the student's maps are drawn towards the teacher's."""
    teacher, student = teacher_and_student()
    pixels = torch.rand(4, 3, 8, 8)
    wanted = torch.cat([e.maps for e in explain(teacher, pixels, method=layercam, target_layers=target_layers, classes=[0, 2])])
    parameters = [p for m in student.modules() for p in m.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    losses = []
    for _ in range(6):
        made = explain(student, pixels, method=layercam, target_layers=target_layers, classes=[0, 2], create_graph=True)
        loss = (torch.cat([e.maps for e in made]) - wanted).square().sum()
        optimizer.zero_grad()
        loss.backward()
        assert any(p.grad is not None and bool(p.grad.any()) for p in parameters)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(m.training for m in student.modules())


@pytest.mark.parametrize("method", [gradcam, hirescam, layercam, gradcam_pp, xgradcam])
def test_the_gradient_of_a_map_is_that_of_finite_differences(classes: Classes, pixels: Tensor, method: Any) -> None:
    weight = classes.encoder.second.weight

    def total() -> Tensor:
        return explain(classes, pixels, method=method, classes=[0, 1, 2, 3], create_graph=True).maps.square().sum()

    (gradient,) = torch.autograd.grad(total(), weight)
    assert bool((gradient != 0).any())
    index, step = (0, 0, 0, 0), 1e-6
    with torch.no_grad():
        ends = []
        for sign in (1, -1):
            weight[index] += sign * step
            ends.append(float(total().detach()))
            weight[index] -= sign * step
    assert float(gradient[index]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-2, abs=1e-6)


def test_maps_and_scores_in_the_graph_are_those_without(classes: Classes, pixels: Tensor) -> None:
    plain = explain(classes, pixels, target_layers=["second"])
    graphed = explain(classes, pixels, target_layers=["second"], create_graph=True)
    torch.testing.assert_close(graphed.maps.detach(), plain.maps)
    torch.testing.assert_close(graphed.scores.detach(), plain.scores)
    assert graphed.maps.requires_grad
    assert graphed.scores.requires_grad
    assert not plain.maps.requires_grad


@pytest.mark.parametrize("head", ["lstm", "transformer"])
def test_words_of_a_caption_in_a_loss(head: str) -> None:
    task = tiny_captioner(head)
    pixels = torch.randn(3, 16, 16).double()
    made = explain(task, pixels, method=hirescam, target_layers=(), caption="a red ball", create_graph=True)
    torch.testing.assert_close(
        made.maps.detach(), explain(task, pixels, method=hirescam, target_layers=(), caption="a red ball").maps
    )
    made.maps.square().sum().backward()
    assert all(p.grad is not None for p in task.encoder.parameters())


def test_graphed_explanations_still_draw(classes: Classes, pixels: Tensor) -> None:
    made = explain(classes, pixels, create_graph=True)
    assert made[0].overlay().size == (8, 8)
    assert made[0].heat().max() <= 1


def test_methods_without_a_graph_are_refused(classes: Classes, pixels: Tensor) -> None:
    with pytest.raises(InputError, match="create_graph: rise asks the model again"):
        explain(classes, pixels, method=rise, create_graph=True)
    assert explain(classes, pixels, method=eigencam, create_graph=True).maps.requires_grad
