"""Rows, one per image and target, brought together and put in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor


def turns_of(images: Sequence[int]) -> list[int]:
    """Of each row, how many rows before it are of the same image.

    >>> turns_of([0, 0, 1, 0, 1])
    [0, 1, 0, 2, 1]
    """
    seen: Counter[int] = Counter()
    turns = []
    for image in images:
        turns.append(seen[image])
        seen[image] += 1
    return turns


def of_rows(features: Tensor, images: list[int]) -> Tensor:
    """Each row's features; one image's many rows share its memory."""
    return features.expand(len(images), *features.shape[1:]) if len(features) == 1 else features[images]


def joined(parts: Sequence[Tensor], order: Sequence[int]) -> Tensor:
    """Rows in order; a single part is in order already."""
    first, *more = parts
    return torch.cat([first, *more])[list(order)] if more else first


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """One below the other, in memory in the order of dimensions that they have: a head may rely on it for a view."""
    first, *more = parts
    if not more:
        return first
    order = [0, *sorted(range(1, first.dim()), key=first.stride().__getitem__, reverse=True)]
    back = sorted(range(len(order)), key=order.__getitem__)
    return torch.cat([part.permute(order) for part in parts]).permute(back)
