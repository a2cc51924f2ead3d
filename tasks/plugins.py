"""Tasks of others: in packages that are installed beside this one, and in files of the user's own."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
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
    task, or a class or function that makes one when called without arguments; while it is loaded, it can import the modules
    that lie beside it. Both are code of the user's own machine that he installed or wrote; nothing is fetched.

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
    path = path.resolve()
    called = f"mmgradcam_of_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(called, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module
    try:
        with _beside(path.parent):
            spec.loader.exec_module(module)
            made = getattr(module, name, None)
            return made() if callable(made) and not isinstance(made, Task) else made
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}:{name} failed: {_line(error)}") from error


class _Beside:
    """Finds the modules of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = {inspect.getmodulename(path.name) for path in folder.iterdir() if path.is_file()}
        packages = {path.parent.name for path in folder.glob("*/*.py")}
        own = __name__.partition(".")[0]
        self.names = {name for name in files | packages if name and name != own and not _installed(name)}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(self.folder)]) if name in self.names else None

    def loaded(self) -> dict[str, Any]:
        """Modules of these names, whatever folder they are of."""
        return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in self.names}

    def holds(self, module: Any) -> bool:
        file = getattr(module, "__file__", None)
        return file is not None and Path(file).resolve().is_relative_to(self.folder)


def _installed(name: str) -> bool:
    """Whether a module is Python's own or installed: not found in the current folder or that of the script that runs alone."""
    if name in sys.stdlib_module_names:
        return True
    found = PathFinder.find_spec(name, [path for path in sys.path[1:] if path not in ("", os.getcwd())])
    if found is not None and found.loader is not None:
        return True
    others = [finder for finder in sys.meta_path if finder not in (BuiltinImporter, FrozenImporter, PathFinder)]
    return any(finder.find_spec(name, None) is not None for finder in others)


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Within, modules of the folder can be imported; what is Python's own or installed goes before them.

    After, `sys.modules` knows none of them that it did not know before: files of other folders have neighbours of these names.
    """
    finder = _Beside(folder)
    before = finder.loaded()
    for name, module in before.items():
        if not finder.holds(module):
            del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.path_importer_cache.pop(str(folder), None)
        for name in finder.loaded():
            del sys.modules[name]
        sys.modules.update(before)


def _task(name: str, made: Any) -> Task:
    if not isinstance(made, Task):
        raise InputError(f"{name}: expected a Task, or what makes one without arguments; got {type(made).__name__}")
    return made


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
