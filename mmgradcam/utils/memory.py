"""How much work fits a device's memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from mmgradcam.errors import ModelError

Item = TypeVar("Item")
Made = TypeVar("Made")


def halving(items: list[Item], size: int, work: Callable[[list[Item]], Iterable[Made]]) -> Iterator[Made]:
    """Works on `size` items at a time, and on half as many whenever the device runs out of memory."""
    at = 0
    while at < len(items):
        part = items[at : at + size]
        try:
            yield from work(part)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(part) == 1:
                raise ModelError("out of memory on a single row; use a smaller picture or another device") from error
            size = len(part) // 2
            continue
        at += len(part)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the device's memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def fitting(tensors: Sequence[Tensor], copies: int, memory: int | None) -> int:
    """How many items fit in so many bytes, by default those of `budget`, each with copies of these tensors; at least one."""
    return max(1, (memory or min(map(budget, tensors))) // (copies * sum(x.nbytes for x in tensors)))


def budget(features: Tensor) -> int:
    """Bytes that rows of features may take by default: 256 MiB on a CPU, half of what is free on a GPU."""
    if features.device.type == "cuda":
        free: int = torch.cuda.mem_get_info(features.device)[0]
        return free // 2
    return 256 * 2**20
