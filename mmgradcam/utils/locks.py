"""A model belongs to one thread at a time: the modes, flags and hooks that a call sets are the model's, not the call's."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn


@dataclass
class _Claim:
    """What a thread holds or waits for, by id; the things are kept alive, so that no id is given out anew."""

    thread: int
    objects: dict[int, object]
    granted: bool = False


_changed = threading.Condition()
_claims: list[_Claim] = []
"""In the order in which they are granted where they overlap."""


@contextmanager
def exclusive(objects: Iterable[object]) -> Iterator[None]:
    """Within, no other thread that asks for any of these things has it: it waits its turn.

    `explain`, `compare`, `check` and the metrics do so by themselves. Use it where code of your own changes a model (trains it,
    switches its mode) while other threads explain it: `with exclusive([model]): ...`.

    All things are granted together, first come, first served, so that calls about overlapping sets of things cannot block each
    other for ever. A thread that holds a thing may ask for it again.

    Args:
        objects: any objects; of an `nn.Module`, all modules inside it and all parameters are meant, so that models that share
            an encoder, or tie weights, exclude each other.
    """
    claim = _Claim(threading.get_ident(), _parts(objects))
    with _changed:
        own = [other for other in _claims if other.thread == claim.thread]
        for other in own:
            for key in other.objects:
                claim.objects.pop(key, None)
        # A thread that holds something goes first: those it would queue behind may be waiting for what it holds.
        _claims.insert(0 if own else len(_claims), claim)
    try:
        with _changed:
            _changed.wait_for(lambda: _is_free(claim))
            claim.granted = True
        yield
    finally:
        with _changed:
            _claims.remove(claim)
            _changed.notify_all()


def modules_inside(roots: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules and all inside them, each once; unlike `Module.modules` it spells no names, which takes most of its time."""
    found: dict[int, nn.Module] = {}
    waiting = [*roots]
    while waiting:
        module = waiting.pop()
        if id(module) not in found:
            found[id(module)] = module
            waiting += [child for child in module._modules.values() if child is not None]
    return [*found.values()]


def parameters_inside(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters of these very modules, each once."""
    return [*{id(p): p for m in modules for p in m._parameters.values() if p is not None}.values()]


def _parts(objects: Iterable[object]) -> dict[int, object]:
    objects = [*objects]
    modules = modules_inside(thing for thing in objects if isinstance(thing, nn.Module))
    return {id(part): part for part in (*objects, *modules, *parameters_inside(modules))}


def _is_free(claim: _Claim) -> bool:
    before = True
    for other in _claims:
        before = before and other is not claim
        in_the_way = other.granted or before
        if in_the_way and other.thread != claim.thread and not claim.objects.keys().isdisjoint(other.objects):
            return False
    return True
