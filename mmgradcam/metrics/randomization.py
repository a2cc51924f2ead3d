"""The model parameter randomization test: the layers of a copy of a model made random, from the last that runs to the first."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmgradcam.engine import encode, scores
from mmgradcam.errors import InputError, ModelError
from mmgradcam.explaining.explainer import BoundExplainer
from mmgradcam.explanation import Explanation
from mmgradcam.layers import preserve_state, record_calls
from mmgradcam.metrics.similarity import Floats, floats, spearman, ssim
from mmgradcam.task import Target, Task
from mmgradcam.utils.locks import exclusive

HOW = ("cascading", "independent")


@dataclass(frozen=True)
class Stage:
    """What became of the maps when some layers were made random.

    Attributes:
        layers: their names, the last to run first.
        reset: how many of them were made anew by their own `reset_parameters`; the others got normal numbers of the mean and
            deviation of their own weights.
        absolute: (K,) rank correlation of the maps' absolute values with those of the explanation.
        positive: (K,) the same of the maps' positive parts, which is what is drawn.
        ssim: (K,) structural similarity of the positive parts.
        scores: (K,) the targets' scores.
    """

    layers: tuple[str, ...]
    reset: int
    absolute: Floats
    positive: Floats
    ssim: Floats
    scores: Floats


def explainer_of(explanation: Explanation) -> BoundExplainer:
    """The way an explanation was made.

    Raises:
        InputError: it was loaded from a file, so that there is no model to ask, or has no targets.
    """
    if not explanation.targets:
        raise InputError("a check needs a target, and this explanation has none")
    again: BoundExplainer = explanation.explainer
    return again


def parameter_randomization(
    explanation: Explanation, seed: int = 0, how: str = "cascading", stages: int | None = 8
) -> list[Stage]:
    """The model parameter randomization test: maps of what the model learned must change when that is thrown away.

    The layers of a copy of the model are made random, in the order from the last that runs down to the first, and the same
    targets are explained anew by the same method.

    Source: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 4.

    Args:
        explanation: made by `explain`; its model stays as it is.
        seed: of the random weights.
        how: "cascading", each stage beside all before it, so that the last is a model that learned nothing; or "independent",
            each stage alone.
        stages: at most so many, of layers that follow each other, about equally many in each; None for one per layer.

    Returns:
        A `Stage` for each, from the head down.

    Raises:
        InputError: no such way; or the model has no weights.
        ModelError: the model cannot be copied.
    """
    if how not in HOW:
        raise InputError(f'randomized: expected how="cascading" or "independent", got {how!r}')
    again = explainer_of(explanation)
    task, target_layers = copied(again.how.task, again.how.target_layers)
    layers = layers_of(task, again.view.pixels, explanation.targets)
    size = len(layers) if stages is None else max(1, min(stages, len(layers)))
    made = []
    for part in np.array_split(np.arange(len(layers)), size):
        some = [layers[i] for i in part]
        before = [{k: v.clone() for k, v in layer.own().items()} for layer in some]
        anew = sum(reset(layer.module, seed, int(i)) for i, layer in zip(part, some, strict=True))
        (other,) = again.of([explanation.targets], [again.view.pixels], {"task": task, "target_layers": target_layers})
        names = tuple(layer.name for layer in some)
        pairs = [(part_of(explanation.maps), part_of(other.maps)) for part_of in (torch.abs, torch.relu)]
        absolute, positive = (spearman(*pair) for pair in pairs)
        made.append(Stage(names, anew, absolute, positive, ssim(*pairs[1]), floats(other.scores)))
        if how == "independent":
            for layer, kept in zip(some, before, strict=True):
                layer.put(kept)
    return made


def label_randomization(explanation: Explanation, seeds: Sequence[int] = (0, 1, 2)) -> Floats:
    """How alike maps are to those of models of the same make that learned nothing: `parameter_randomization`'s last stage,
    several times.

    A single random model may look where the trained one does by chance; an edge detector looks there every time.

    Args:
        explanation: made by `explain`; its model stays as it is.
        seeds: of the random models, each of which encodes the picture once.

    Returns:
        (models, K) rank correlations of the positive maps.
    """
    again = explainer_of(explanation)
    task, target_layers = copied(again.how.task, again.how.target_layers)
    layers = layers_of(task, again.view.pixels, explanation.targets)
    learned = [{k: v.clone() for k, v in layer.own().items()} for layer in layers]
    made = []
    for seed in seeds:
        for number, (layer, kept) in enumerate(zip(layers, learned, strict=True)):
            layer.put(kept)
            reset(layer.module, seed, number)
        (other,) = again.of([explanation.targets], [again.view.pixels], {"task": task, "target_layers": target_layers})
        made.append(spearman(torch.relu(explanation.maps), torch.relu(other.maps)))
    return np.stack(made)


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


def copied(task: Task, target_layers: Sequence[Any]) -> tuple[Task, tuple[Any, ...]]:
    """A copy of a task with its models, and the target layers that are layers of them.

    Raises:
        ModelError: it cannot be copied.
    """
    try:
        with task.exclusive():
            made: tuple[Task, tuple[Any, ...]] = copy.deepcopy((task, tuple(target_layers)))
    except (TypeError, RuntimeError) as error:
        raise ModelError(f"{task.name}: cannot be copied to make its weights random: {error}") from error
    shared = {id(p) for root in task.modules() for p in root.parameters()}
    if any(id(p) in shared for root in made[0].modules() for p in root.parameters()):
        raise ModelError(f"{task.name}: its copy shares weights with it; let copy.deepcopy copy them")
    return made


def layers_of(task: Task, pixels: Tensor, targets: Sequence[Target]) -> list[Weights]:
    """The layers that hold weights, the last to run first; a module around others stands where the first of them does.

    Raises:
        InputError: the model has no weights.
    """
    roots = task.modules()
    with preserve_state(roots), record_calls(roots) as order, torch.no_grad():
        device = next((p.device for root in roots for p in root.parameters()), pixels.device)
        scores(task, encode(task, pixels[None].to(device), []).features.detach(), targets)
    at = {module: i for i, module in enumerate(order)}
    found: dict[nn.Module, tuple[int, Weights]] = {}
    for root in roots:
        every = dict(root.named_modules())
        for name, module in every.items():
            if module in found or not any(True for _ in module.parameters(recurse=False)):
                continue
            around = [root, *(every[path] for path in accumulate(name.split("."), "{}.{}".format) if path)]
            inside = [[at[m] for m in outer.modules() if m in at] for outer in reversed(around)]
            children = [at[m] for m in module.modules() if m in at and m is not module]
            place = min(children) if children else next((max(some) for some in inside if some), len(order))
            found[module] = place, Weights(name or type(root).__name__, module)
    if not found:
        raise InputError(f"{task.name} has no weights to make random")
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
    with exclusive([torch.default_generator]), torch.random.fork_rng([d.index or 0 for d in devices]), torch.no_grad():
        torch.manual_seed(1_000_003 * seed + number)
        if anew is not None:
            anew()
            return True
        for p in module.parameters(recurse=False):
            mean, deviation = (p.mean(), p.std()) if p.numel() > 1 else (torch.zeros_like(p), p.abs())
            p.copy_(mean + deviation * torch.randn_like(p))
    return False
