"""Tasks of others: in packages that are installed beside this one, and in files of the user's own."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from mmgradcam.errors import InputError
from mmgradcam.task import Task

GROUP = "mmgradcam.models"
"""Of the entry points that packages offer models under."""


def offered() -> list[str]:
    """Names of the packages' entry points: what stands before the colon."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def find(name: str) -> Task | None:
    """A task by "PLUGIN:NAME" or "FILE.py:NAME"; None where a name is neither.

    A plugin is an entry point of the group "mmgradcam.models": a function that makes a task of the NAME. In a file, NAME is a
    task, or a class or function that makes one when called without arguments. Both are code of the user's own machine that he
    installed or wrote; nothing is fetched.

    Raises:
        InputError: the file or plugin fails, or makes something else.
    """
    before, colon, rest = name.rpartition(":")
    if not colon:
        return None
    if before.endswith(".py"):
        return _task(name, _of_file(Path(before), rest))
    before, _, rest = name.partition(":")
    points = [point for point in entry_points(group=GROUP) if point.name == before]
    if not points:
        return None
    try:
        made = points[0].load()(rest)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name}: the plugin {points[0].value} failed: {_line(error)}") from error
    return _task(name, made)


def _of_file(path: Path, name: str) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a Python file that holds {name}")
    called = f"mmgradcam_of_{path.stem}"
    spec = importlib.util.spec_from_file_location(called, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module
    try:
        spec.loader.exec_module(module)
        made = getattr(module, name, None)
        return made() if callable(made) and not isinstance(made, Task) else made
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}:{name} failed: {_line(error)}") from error


def _task(name: str, made: Any) -> Task:
    if not isinstance(made, Task):
        raise InputError(f"{name}: expected a Task, or what makes one without arguments; got {type(made).__name__}")
    return made


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
