"""The verb: a task, pictures and a method make explanations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.explaining.arguments import AnyMethod, check_settings, described, fusion_of, method_of, target_layers_of, task_of
from mmgradcam.explaining.explainer import Explainer
from mmgradcam.explanation import Explanation
from mmgradcam.methods import gradcam, product
from mmgradcam.task import Fusion, Query, Task


@overload
def explain(
    task: Task | str, inputs: list[Any] | tuple[Any, ...], *, method: AnyMethod | str | None = ..., target_layers: Any = ...,
    fuse: Fusion | str | None = ..., each: Sequence[Query] | None = ..., autocast: torch.dtype | None = ...,
    memory: int | None = ..., batch: int = ..., create_graph: bool = ..., grounding: bool = ..., only: Any = ..., **query: Any,
) -> list[Explanation]: ...  # fmt: skip


@overload
def explain(
    task: Task | str, inputs: Any, *, method: AnyMethod | str | None = ..., target_layers: Any = ...,
    fuse: Fusion | str | None = ..., each: Sequence[Query] | None = ..., autocast: torch.dtype | None = ...,
    memory: int | None = ..., batch: int = ..., create_graph: bool = ..., grounding: bool = ..., only: Any = ..., **query: Any,
) -> Explanation: ...  # fmt: skip


def explain(
    task: Task | str,
    inputs: Any,
    *,
    method: AnyMethod | str | None = None,
    target_layers: Any = None,
    fuse: Fusion | str | None = None,
    each: Sequence[Query] | None = None,
    autocast: torch.dtype | None = None,
    memory: int | None = None,
    batch: int = 16,
    create_graph: bool = False,
    grounding: bool = False,
    only: Any = None,
    **query: Any,
) -> Explanation | list[Explanation]:
    """Shows where in the picture each target came from.

    The encoder runs once per picture. The task's model is left as it was found: modes, `requires_grad`, `.grad`, statistics
    and hooks, also after an exception. Threads may share it: calls about one model, or about models that share modules or
    parameters, wait for each other (`mmgradcam.utils.locks.exclusive`).

    Args:
        task: the model, seen as a `Task`; or the name of a bundled model, which stays loaded.
        inputs: a picture or a list of them; each a path, a Pillow image, an array (H, W[, 3 or 4]) of uint8 or of floats in
            0..1, for a model of clips a `Clip` or a film's path, or a tensor (3, h, w) that is already prepared for the model.
        method: how a map is made: a function of (features, gradients), such as `gradcam` or `layercam`, or of a `Probe`, which
            asks the model again, such as `rise` or `smooth(layercam)`; or its name. By default the task's own choice, else
            `gradcam`.
        target_layers: layers upstream of the features at which to take maps instead, for a finer picture: a module of the
            task's model, its dotted name or a `TargetLayer`, or several. By default the task's own choice; () is the features
            themselves.
        fuse: how the maps of several target layers become one: `product`, `mean` or another function; by default the task's own
            choice, else their product.
        each: one query per picture, added to `query`.
        autocast: lower precision for the encoder, such as torch.bfloat16; maps stay float32.
        memory: bytes that rows of features may take; by default 256 MiB on a CPU and half of what is free on a GPU.
        batch: pictures encoded together.
        create_graph: maps and scores stay in the autograd graph, so that they can stand in a loss, and the model runs in the
            mode and with the parameters it is in: nothing of it is set aside. For gradient methods.
        grounding: say of each target how much more likely the picture makes it than a grey one does (one of its mean color, for
            a tensor), which is encoded too: `Target.grounding`. Targets that have no log-probability get none.
        only: which of the targets to explain, so that nothing is computed of the others: what an `Explanation` takes in square
            brackets, such as a word, a position, a phrase, ("dog", 1) or slice(2, 5), or a list of these. Words of a phrase or
            slice are one target, the sum of their scores. By default all targets, each by itself.
        **query: what to explain, as the task's `targets` names it: caption="...", question="...", classes=[281].

    Returns:
        An `Explanation`, or a list of them for a list of inputs.

    Raises:
        InputError: the picture, the query or a setting cannot be used.
        ModelError: the task's model gives no usable gradient or score.
    """
    many = isinstance(inputs, (list, tuple)) or (isinstance(inputs, Tensor) and inputs.dim() == 4)
    sources = list(inputs) if many else [inputs]
    how = _how(task, (method,), target_layers, fuse, autocast, memory, batch, create_graph, grounding, only)
    made = [one for (one,) in how.all(sources, each, query)]
    return made if many else made[0]


def compare(
    task: Task | str,
    inputs: Sequence[Any],
    methods: Sequence[AnyMethod | str],
    *,
    target_layers: Any = None,
    fuse: Fusion | str | None = None,
    each: Sequence[Query] | None = None,
    autocast: torch.dtype | None = None,
    memory: int | None = None,
    batch: int = 16,
    grounding: bool = False,
    **query: Any,
) -> list[list[Explanation]]:
    """Explains the same targets by several methods: one encode per picture for all of them, one backward for all gradient ones.

    Args:
        task: as of `explain`.
        inputs: pictures, each as of `explain`.
        methods: as of `explain`.
        target_layers: as of `explain`, for all methods.
        fuse: as of `explain`.
        each: one query per picture, added to `query`.
        autocast: as of `explain`.
        memory: as of `explain`.
        batch: pictures encoded together.
        grounding: as of `explain`.
        **query: what to explain.

    Returns:
        For each picture, one explanation per method, in their order.

    Raises:
        InputError: the picture or the query cannot be used, or there is no method.
        ModelError: the task's model gives no usable gradient or score.
    """
    for what, given in (("pictures", inputs), ("methods", methods)):
        if isinstance(given, str) or not isinstance(given, (Sequence, Tensor)):
            raise InputError(f"compare: expected a list of {what}, got {described(given)}")
    if not methods:
        raise InputError("compare: expected at least one method, got none")
    how = _how(task, methods, target_layers, fuse, autocast, memory, batch, False, grounding, None)
    return how.all(list(inputs), each, query)


def _how(
    given: Task | str, methods: Sequence[AnyMethod | str | None], target_layers: Any, fuse: Fusion | str | None,
    autocast: torch.dtype | None, memory: int | None, batch: int, graph: bool, grounding: bool, only: Any,
) -> Explainer:  # fmt: skip
    """What a call was told, names looked up and defaults filled in."""
    task = task_of(given)
    check_settings(autocast, memory, batch)
    chosen = tuple(method_of(method) or task.method or gradcam for method in methods)
    places, fusion = (
        target_layers_of(task.target_layers if target_layers is None else target_layers),
        fusion_of(fuse) or task.fuse or product,
    )
    return Explainer(task, chosen, places, fusion, autocast, memory, batch, graph, grounding, only)
