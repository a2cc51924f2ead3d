"""Tokens and the words they are pieces of."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmgradcam.task import Word

WORDS = re.compile(r"\w+(?:['’.-]\w+)*|[^\w\s]")


def words_of(tokenizer: Any, tokens: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Whole words of a text, and the indices of the tokens each is made of; punctuation is part of none."""
    text, spans = _spans(tokenizer, tokens)
    found = []
    for match in WORDS.finditer(text):
        at = tuple(i for i, (first, _) in enumerate(spans) if match.start() <= first < match.end())
        if at and match.group()[0].isalnum():
            found.append((match.group(), at))
    return found


def words_among(tokenizer: Any, tokens: Sequence[int], asked: str) -> tuple[Word, ...]:
    """The words of what a user asked, where they stand among the tokens of a prompt."""
    text, spans = _spans(tokenizer, tokens)
    start = text.rfind(asked.strip())
    if start < 0:
        text, asked = text.lower(), asked.lower()
        start = text.rfind(asked.strip())
    if start < 0:
        return ()
    found = []
    for match in WORDS.finditer(asked.strip()):
        at = [i for i, (first, _) in enumerate(spans) if start + match.start() <= first < start + match.end()]
        if at and match.group()[0].isalnum():
            found.append(Word(match.group(), at[0], at[-1]))
    return tuple(found)


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of tokens filled up on the right, (R, longest), and where they are tokens, 1 or 0."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return tokens, mask


def until(tokens: Sequence[int], ends: set[int | None]) -> list[int]:
    """The tokens before the first that ends a text."""
    return list(itertools.takewhile(lambda token: token not in ends, tokens))


def _spans(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """The text, and for each token where in it its first letter stands and where it ends; (-1, -1) where it has none."""
    spans, so_far = [], ""
    for i in range(len(tokens)):
        longer = str(tokenizer.decode(list(tokens[: i + 1]), skip_special_tokens=True))
        new = longer[len(so_far) :]
        start = len(so_far) + len(new) - len(new.lstrip())
        spans.append((start, len(longer)) if new.strip() else (-1, -1))
        so_far = longer
    return so_far, spans
