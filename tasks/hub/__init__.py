"""Models that people have already: of the hub, of folders laid out as the hub's, of torchvision and timm.

Each family is one file here with two functions: `supports(architecture)`, whether it knows models whose config names that
class, and `build(source)`, the task.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from mmgradcam.errors import InputError
from mmgradcam.task import Task

PREFIXES = ("torchvision:", "timm:")
FILE = "classifier.json"
"""Names, in a folder, the torchvision or timm classifier that its weights are for, and their classes."""


def build(name: str, device: str, device_map: Any = None) -> Task:
    """A task by hub id, by folder, or as "torchvision:NAME" or "timm:NAME"; on the CPU unless spread.

    Args:
        name: which.
        device: where it will go: a GPU keeps the precision its weights were saved in.
        device_map: how a hub model is spread over several devices.

    Raises:
        InputError: there is no such model, it cannot be fetched, or no family here knows it.
    """
    from mmgradcam.tasks.fetching import source
    from mmgradcam.tasks.hub import classifiers

    prefix, _, rest = name.partition(":")
    if prefix == "torchvision":
        return classifiers.from_torchvision(rest)
    if prefix == "timm":
        return classifiers.from_timm(rest)
    if (Path(name) / FILE).is_file():
        return classifiers.from_folder(Path(name))
    if classifiers.is_timm(Path(name)):
        return classifiers.from_timm_folder(Path(name))
    found = source(name, device, device_map)
    for module in pkgutil.iter_modules(__path__):
        family = importlib.import_module(f"{__name__}.{module.name}")
        if hasattr(family, "supports") and family.supports(found.architecture):
            task: Task = family.build(found)
            return task
    raise InputError(f"{name}: {found.architecture} is of no family mmgradcam knows; docs/models.md says which there are")
