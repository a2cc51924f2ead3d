"""What callers give: names looked up, and what cannot be used refused in one line that says what to give instead."""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor, nn

from mmgradcam import methods
from mmgradcam.errors import InputError
from mmgradcam.explaining.trial import kind_of
from mmgradcam.layers import TargetLayer
from mmgradcam.probe import AskingMethod
from mmgradcam.task import Fusion, Method, Query, Task, check_texts, query_parameters
from mmgradcam.utils.locks import exclusive

AnyMethod = Method | AskingMethod
FUSIONS = ("mean", "product")
OPTIONS = ("autocast", "batch", "create_graph", "each", "fuse", "memory", "method", "only", "grounding", "target_layers")
"""Of `explain`, besides its query."""

_LOADING = object()


def task_of(given: Task | str) -> Task:
    """A task as it is, or the bundled model of that name, loaded once.

    Raises:
        InputError: it is neither.
    """
    if isinstance(given, Task):
        return given
    wraps = "Layer(model, layer) of mmgradcam.tasks for a classifier, load('org/name' or its folder) for a model of the hub"
    if isinstance(given, str):
        with exclusive([_LOADING]):
            return _bundled(given)
    if isinstance(given, nn.Module):
        what = f"{type(given).__name__}, a model alone"
        raise InputError(f"expected a Task, got {what}: wrap it as {wraps}, or write a Task (docs/custom-heads.md)")
    if isinstance(given, type):
        raise InputError(f"expected a Task, got the class {given.__name__}: make one, {given.__name__}(...)")
    raise InputError(f"expected a Task or the name of a bundled model first, got {described(given)}; make one as {wraps}")


@functools.lru_cache(maxsize=4)
def _bundled(name: str) -> Task:
    from mmgradcam import checkpoints
    from mmgradcam.tasks import load

    if name not in checkpoints.names():
        raise InputError(
            f"no bundled model is called {name!r}; {nearest(name, checkpoints.names())}. For others, give a task: "
            f"mmgradcam.tasks.load({name!r}) takes folders, hub ids, torchvision:NAME, timm:NAME and FILE.py:NAME"
        )
    task: Task = load(name)
    return task


def method_names() -> list[str]:
    """Functions of `mmgradcam.methods` that draw a map as they are."""
    return [name for name in methods.__all__ if name not in (*FUSIONS, "smooth")]


def method_of(given: AnyMethod | str | None) -> AnyMethod | None:
    """A method as it is, or by its name, with settings if wanted; None stays None.

    >>> from mmgradcam.utils.naming import name_of
    >>> name_of(method_of("rise(count=500, cells=5)"))
    'rise(count=500, cells=5)'
    >>> name_of(method_of("smooth(layercam, count=50)"))
    'smooth(layercam, count=50)'

    Raises:
        InputError: there is no such method or setting, a setting is of another type, or it is no function.
    """
    factory: object = methods.smooth
    if given is factory or (isinstance(given, str) and given.strip() in ("smooth", "smooth()")):
        raise InputError("smooth takes a method and makes another of it; give smooth(gradcam), smooth(hirescam), ...")
    if isinstance(given, str):
        return _named(given)
    if given is not None and not callable(given):
        raise InputError(f"method: expected a function or a name, such as gradcam or 'gradcam', got {described(given)}")
    return given


def settings_of(name: str) -> dict[str, inspect.Parameter]:
    """The settings of a method of `mmgradcam.methods`, or of `smooth`, by name: its parameters that have a default."""
    parameters = inspect.signature(getattr(methods, name)).parameters
    return {key: one for key, one in parameters.items() if one.default is not one.empty}


LONGEST_METHOD = 1000
"""Characters of a method's name and settings."""


def _named(text: str) -> AnyMethod:
    """A method by its name, or by a call that gives its settings as literals."""
    try:
        tree = ast.parse(text.strip()[:LONGEST_METHOD], mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = ast.Name(text)
    name = ast.unparse(tree.func) if isinstance(tree, ast.Call) else ast.unparse(tree)
    within, given = (tree.args, tree.keywords) if isinstance(tree, ast.Call) else ([], [])
    if name == "smooth" and len(within) == 1:
        smoothed = method_of(ast.unparse(within[0]))
        return methods.smooth(smoothed or methods.gradcam, **_settings(name, given))
    if name not in method_names():
        raise InputError(f"there is no method {text[:60]!r}; {nearest(text.partition('(')[0], method_names())}")
    if within:
        example = next((f"{key}={one.default!r}" for key, one in settings_of(name).items()), "")
        got = ast.unparse(within[0])[:60]
        raise InputError(f"{name}: expected settings by name, such as {name}({example}), got {got}")
    made: AnyMethod = getattr(methods, name)
    return functools.partial(made, **_settings(name, given)) if given else made


def _settings(name: str, given: Sequence[ast.keyword]) -> dict[str, Any]:
    """The values of a call's keywords, each of the type that the method's parameter has."""
    known = settings_of(name)
    made: dict[str, Any] = {}
    for one in given:
        if one.arg not in known:
            wrong = f"{name} has no setting {one.arg or '**'!r}"
            raise InputError(f"{wrong}; {nearest(str(one.arg), list(known))}" if known else f"{wrong}: it has none")
        kind, got = known[one.arg].annotation, ast.unparse(one.value)[:60]
        try:
            made[one.arg] = ast.literal_eval(one.value)
        except ValueError:
            raise InputError(f"{name}: {one.arg}: expected {kind}, got {got}") from None
        if not _is(made[one.arg], get_type_hints(getattr(methods, name))[one.arg]):
            raise InputError(f"{name}: {one.arg}: expected {kind}, got {got}")
    return made


def _is(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as an annotation names it; where a tensor is wanted, lists are left to the method."""
    from pydantic import TypeAdapter, ValidationError

    if Tensor in get_args(hint):
        return value is None or isinstance(value, (list, tuple))
    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def fusion_of(given: Fusion | str | None) -> Fusion | None:
    """A fusion as it is, or by its name; None stays None.

    Raises:
        InputError: there is no such fusion.
    """
    if isinstance(given, str) and given in FUSIONS:
        made: Fusion = getattr(methods, given)
        return made
    if given is not None and not callable(given):
        raise InputError(f"fuse: expected product, mean or a function of your own, got {described(given)}")
    return given


def target_layers_of(given: Any) -> tuple[Any, ...]:
    """One layer, or several, as a tuple of them; a module that holds others is one layer.

    Raises:
        InputError: it is no layer.
    """
    if isinstance(given, (str, nn.Module, TargetLayer)):
        return (given,)
    if not isinstance(given, Sequence):
        raise InputError(
            f"target layers: expected layers (modules, their dotted names or TargetLayers), got {described(given)}"
        )
    return tuple(given)


def check_settings(autocast: Any, memory: Any, batch: Any) -> None:
    """Refuses settings of `explain` that cannot be used.

    Raises:
        InputError: one is of another type or range.
    """
    if autocast is not None and not (isinstance(autocast, torch.dtype) and autocast.is_floating_point):
        raise InputError(f"autocast: expected a floating-point dtype such as torch.bfloat16, got {described(autocast)}")
    for name, value in (("memory", memory), ("batch", batch)):
        if not (name == "memory" and value is None) and (type(value) is not int or value < 1):
            what = "bytes, a whole number of 1 or more" if name == "memory" else "a whole number of 1 or more"
            raise InputError(f"{name}: expected {what}, got {described(value)}")


def queries_of(task: Task, query: Query, each: Sequence[Query] | None, count: int) -> list[Query]:
    """The query of each of so many pictures.

    Raises:
        InputError: `each` does not fit the pictures; or the task's `targets` does not take what is asked, or lacks something.
    """
    if each is not None and (isinstance(each, (str, Mapping)) or len(each) != count):
        got = str(len(each)) if isinstance(each, Sequence) and not isinstance(each, str) else described(each)
        raise InputError(f"each: expected a list of one query per picture, {count}, got {got}")
    if each is not None and (wrong := [one for one in each if not isinstance(one, Mapping)]):
        raise InputError(f"each: expected queries such as {{'question': '...'}}, got {described(wrong[0])}")
    made: list[Query] = [{**query, **one} for one in each] if each else [dict(query)] * count
    for one in made:
        check_texts(one)
    if getattr(task.targets_of_each, "__func__", None) is Task.targets_of_each:
        taken = query_parameters(task)
        named = [p for p in taken if p.kind is not p.VAR_KEYWORD]
        for one in made:
            if named == taken:
                refuse_unknown(task, one, [p.name for p in named])
            if lacking := [p.name for p in named if p.default is p.empty and p.name not in (*one, "size")]:
                raise InputError(f"{task.name} needs {lacking[0]}=..., which was not given")
    return made


def refuse_unknown(task: Task, query: Iterable[str], known: Sequence[str], asked: str = "") -> None:
    """Refuses what a task cannot be asked with.

    Args:
        task: which is asked.
        query: the names of what it is asked with.
        known: the names it takes.
        asked: how it is asked, for the message; by default the names.

    Raises:
        InputError: there is a name it does not take; the nearest one that it or `explain` takes is given.
    """
    unknown = sorted(set(query) - set(known))
    if unknown:
        near = difflib.get_close_matches(unknown[0], [*known, *OPTIONS], n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}=?" if near else ""
        how = asked or (f"with {', '.join(f'{name}=' for name in known)}" if known else "without anything")
        raise InputError(f"{task.name} is asked {how}; got {', '.join(f'{name}=' for name in unknown)}{hint}")


def nearest(name: str, known: Sequence[str]) -> str:
    """The question "did you mean ..?", with the known names that are most like this one, or all of them."""
    return f"did you mean {' or '.join(difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known)}?"


def described(given: Any) -> str:
    """What was given, for a message: a plain value as it is, of anything else the kind."""
    return repr(given)[:60] if given is None or isinstance(given, (int, float, str)) else kind_of(given)
