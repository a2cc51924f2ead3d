"""Making the layers of a copy of a model random, from the last that runs to the first."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmgradcam.engine import encode, scores
from mmgradcam.errors import InputError, ModelError
from mmgradcam.seam import left_as_found, ran
from mmgradcam.task import Target, Task


@dataclass(frozen=True)
class Weights:
    """A layer that holds weights of its own, and what it is called."""

    name: str
    module: nn.Module

    def own(self) -> dict[str, Tensor]:
        """Its parameters and buffers, without those of layers inside it."""
        return {**dict(self.module.named_parameters(recurse=False)), **dict(self.module.named_buffers(recurse=False))}

    def put(self, values: dict[str, Tensor]) -> None:
        """Sets them."""
        with torch.no_grad():
            for name, tensor in self.own().items():
                tensor.copy_(values[name])


def copied(task: Task, taps: Sequence[Any]) -> tuple[Task, tuple[Any, ...]]:
    """A copy of a task with its models, and the taps that are layers of them.

    Raises:
        ModelError: it cannot be copied.
    """
    try:
        made: tuple[Task, tuple[Any, ...]] = copy.deepcopy((task, tuple(taps)))
    except (TypeError, RuntimeError) as error:
        raise ModelError(f"{task.name or type(task).__name__}: cannot be copied to make its weights random: {error}") from error
    shared = {id(p) for root in task.modules() for p in root.parameters()}
    if any(id(p) in shared for root in made[0].modules() for p in root.parameters()):
        raise ModelError(f"{task.name or type(task).__name__}: its copy shares weights with it; let copy.deepcopy copy them")
    return made


def layers_of(task: Task, pixels: Tensor, targets: Sequence[Target]) -> list[Weights]:
    """The layers that hold weights, the last to run first; a module around others stands where the first of them does.

    Raises:
        InputError: the model has no weights.
    """
    roots = task.modules()
    with left_as_found(roots), ran(roots) as order, torch.no_grad():
        device = next((p.device for root in roots for p in root.parameters()), pixels.device)
        scores(task, encode(task, pixels[None].to(device), []).features.detach(), targets)
    at = {module: i for i, module in enumerate(order)}
    found: dict[nn.Module, tuple[int, Weights]] = {}
    for root in roots:
        every = dict(root.named_modules())
        for name, module in every.items():
            if module in found or not any(True for _ in module.parameters(recurse=False)):
                continue
            path = name.split(".") if name else []
            around = [every[".".join(path[:n])] for n in range(len(path), -1, -1)]
            inside = [[at[m] for m in outer.modules() if m in at] for outer in around]
            children = [at[m] for m in module.modules() if m in at and m is not module]
            place = min(children) if children else next((max(some) for some in inside if some), len(order))
            found[module] = place, Weights(name or type(root).__name__, module)
    if not found:
        raise InputError(f"{task.name or type(task).__name__} has no weights to make random")
    return [layer for _, layer in sorted(found.values(), key=lambda pair: -pair[0])]


def reset(module: nn.Module, seed: int, number: int) -> bool:
    """Makes a layer's own weights random, and says whether by its own `reset_parameters`.

    Else each tensor gets normal numbers of its mean and deviation, and a single number one of its size.

    Args:
        module: the layer, changed in place.
        seed: of the numbers.
        number: of the layer, so that each gets others.
    """
    devices = {p.device for p in module.parameters(recurse=False) if p.device.type == "cuda"}
    anew = getattr(module, "reset_parameters", None)
    with torch.random.fork_rng([d.index or 0 for d in devices]), torch.no_grad():
        torch.manual_seed(1_000_003 * seed + number)
        if anew is not None:
            anew()
            return True
        for p in module.parameters(recurse=False):
            mean, deviation = (p.mean(), p.std()) if p.numel() > 1 else (torch.zeros_like(p), p.abs())
            p.copy_(mean + deviation * torch.randn_like(p))
    return False
