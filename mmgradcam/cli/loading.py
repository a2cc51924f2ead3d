"""What the command line names: models, methods and layers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgradcam.cli.tables import doing
from mmgradcam.errors import InputError, one_line

if TYPE_CHECKING:
    from mmgradcam.task import Task


@dataclass(frozen=True)
class Map:
    """How a map is asked for on the command line."""

    name: str | None
    smoothgrad: int
    layers: list[str] | None
    grounding: bool = False
    check: bool = False

    def method(self, task: Task) -> Any:
        from mmgradcam.methods import gradcam, smooth

        chosen = method_of(self.name)
        return smooth(chosen or task.method or gradcam, self.smoothgrad) if self.smoothgrad else chosen

    def target_layers(self, task: Task) -> Any:
        return target_layers_of(task, self.layers)


COMMANDS = {"observations": "policy", "clips": "video", "caption": "caption", "question": "vqa", "classes": "classify"}
"""What each command needs a task to support."""


def load_asked(model: str, device: str, asked: str | None = None, encoder: Path | None = None) -> Task:
    """A model by name, which must support what is asked, a key of `COMMANDS`."""
    with doing(f"loading {model}"):
        from mmgradcam import checkpoints, tasks

        apart = encoder is not None and checkpoints.needs_encoder(model)  # the variable may be set for another model
        task = tasks.load(model, device, encoder=encoder if apart else None)
    if asked is not None and asked not in (supported := supported_by(task)):
        wanted = asked if asked in ("clips", "observations") else f"{asked}="
        fitting = " or ".join(f"`mmgradcam {command}`" for key, command in COMMANDS.items() if key in supported)
        lacking = {"clips": "it would need a `clip_length`", "observations": "write it as a `Policy` of mmgradcam.tasks"}
        needed = lacking.get(asked, f"its `targets` would need a parameter {asked}")
        hint = f"; try {fitting}" if task.query_types & COMMANDS.keys() or task.clip_length else f"; {needed}"
        raise InputError(f"{model} is a {type(task).__name__} model, expected one asked with {wanted}{hint}")
    return task


def supported_by(task: Task) -> frozenset[str]:
    """Which of the keys of `COMMANDS` a task supports; "classes" also of one that predicts without being asked for anything."""
    from mmgradcam.task import query_parameters

    if task.clip_length is not None:
        return frozenset({"clips"})
    needed = {one.name for one in query_parameters(task) if one.default is one.empty} & task.query_types
    return task.query_types & COMMANDS.keys() or frozenset(() if needed else ("classes",))


def captioner(device: str, encoder: Path | None) -> Task:
    """The photo captioner, or the small one where the encoder that the first stands on cannot be had."""
    from mmgradcam.tasks.loading import NoEncoder

    try:
        return load_asked("photo-captioner", device, "caption", encoder)
    except NoEncoder as error:
        complain(f"{error}; photo-captioner-small, which needs no download, captions instead")
        return load_asked("photo-captioner-small", device, "caption")


def answerer(device: str, encoder: Path | None) -> Task:
    """The model that answers about photos; there is no smaller one to fall back to."""
    from mmgradcam.tasks.loading import NoEncoder

    try:
        return load_asked("photo-vqa", device, "question", encoder)
    except NoEncoder as error:
        raise InputError(
            f"{error}. Without it: --model takes models of the hub that are here (docs/models.md), and scenes-vqa, which needs "
            "no download, answers about rendered scenes"
        ) from None


def method_of(name: str | None) -> Any:
    """A method by its name; None stays None."""
    from mmgradcam.explaining import arguments

    return arguments.method_of(name)


def names_of(text: str) -> list[str]:
    """Names separated by commas, each with its settings in brackets if it has some.

    >>> names_of("gradcam, smooth(rise(count=9, cells=3), count=4)")
    ['gradcam', 'smooth(rise(count=9, cells=3), count=4)']
    """
    names, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth <= 0:
            names.append("")
        else:
            names[-1] += character
    return [name.strip() for name in names if name.strip()]


def target_layers_of(task: Task, layers: list[str] | None) -> list[Any] | None:
    """The layers of --layer, as a task has them; none of them is the features; None where none is named."""
    if layers and "none" in layers and len(layers) > 1:
        raise InputError("--layer none stands alone; to fuse it with others, name the encoder's last layer instead")
    return None if not layers else [] if layers == ["none"] else [task.target_layer(name) for name in layers]


def complain(error: Exception | str) -> None:
    print(one_line(f"mmgradcam: {' '.join(str(error).split())}"), file=sys.stderr)
