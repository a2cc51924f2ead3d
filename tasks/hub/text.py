"""Tokens and the words they are pieces of.

A token's place in a text is where the text of all tokens up to it, decoded, stops agreeing with the text of all of them: bytes
of a letter that is not complete yet agree with nothing, and what a tokenizer cleans up moves nothing that stood before it.
"""

from __future__ import annotations

import difflib
import itertools
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmgradcam.task import TextSpan
from mmgradcam.tasks.segments import Segment, segments


@dataclass(frozen=True)
class Piece:
    """A word or a mark of a text.

    Attributes:
        label: what people read.
        text: its part of the text, the spaces around it included; the parts of all pieces add up to the text.
        tokens: indices of the tokens it is made of.
        mark: it is punctuation alone.
    """

    label: str
    text: str
    tokens: tuple[int, ...]
    mark: bool


@dataclass(frozen=True)
class _Token:
    """A token that is not special.

    Attributes:
        index: which.
        start: where its text begins.
        end: where its text ends; nothing lies between where it has no letter of its own.
        open: whether it begins a letter that the next one goes on with.
        unknown: whether it stands for a word that the tokenizer does not know.
    """

    index: int
    start: int
    end: int
    open: bool
    unknown: bool = False

    @property
    def at(self) -> tuple[int, int]:
        return self.start, self.end


def words_of(tokenizer: Any, tokens: Sequence[int], said: str | None = None) -> list[Piece]:
    """Whole words and marks of a text; each token that is not special belongs to exactly one.

    Words that share a token are one, as are Chinese characters that the tokenizer writes as one token.

    Args:
        tokenizer: what decodes the tokens.
        tokens: of the text.
        said: the text they were made of, where it is known; else it is decoded.
    """
    text, placed = _placed(tokenizer, tokens)
    if said is None:
        return _pieces(text, placed, _keeps_no_spaces(tokenizer))
    return _pieces(said, _moved(placed, text, said, whole=True))


def words_among(tokenizer: Any, tokens: Sequence[int], asked: str) -> tuple[TextSpan, ...]:
    """The words of what a user asked, without marks, where they stand among the tokens of a prompt; those that stand there."""
    text, placed = _placed(tokenizer, tokens)
    moved = _moved(placed, text, asked, whole=False)
    within = [i for i, token in enumerate(moved) if token.end > token.start]
    if not within:
        return ()
    first = within[0]
    while first and placed[first - 1].index == placed[first].index - 1 and not text[slice(*placed[first - 1].at)].strip(" "):
        first -= 1  # a space apart, or a part of the first letter
    pieces = _pieces(asked, moved[first : within[-1] + 1])
    return tuple(TextSpan(piece.label, piece.tokens[0], piece.tokens[-1]) for piece in pieces if not piece.mark)


def words_read(tokenizer: Any, tokens: Sequence[int], question: str) -> tuple[TextSpan, ...]:
    """`words_among` of a question, with a warning if some of them are not found."""
    found = words_among(tokenizer, tokens, question)
    rest = [one.text for one in segments(question) if not one.mark and not any(one.text in word.text for word in found)]
    if rest:
        names = ", ".join(map(repr, rest))
        warnings.warn(f"question: no importance is given for {names}: not found among the prompt's tokens", stacklevel=2)
    return found


def text_of(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text of tokens, special ones left out."""
    special = _special(tokenizer)
    return str(tokenizer.decode([token for token in tokens if token not in special]))


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of tokens filled up on the right, (R, longest), and where they are tokens, 1 or 0."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return tokens, mask


def until(tokens: Sequence[int], ends: set[int | None]) -> list[int]:
    """The tokens before the first that ends a text."""
    return list(itertools.takewhile(lambda token: token not in ends, tokens))


def _special(tokenizer: Any) -> set[int]:
    """Tokens that are no part of a text. What stands for an unknown word is one, unless it has another office as well."""
    added = {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    offices = ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "mask_token_id")
    unknown = {tokenizer.unk_token_id} - {getattr(tokenizer, name, None) for name in offices}
    return (added | set(tokenizer.all_special_ids)) - unknown


def _keeps_no_spaces(tokenizer: Any) -> bool:
    """Whether its decoded texts have spaces around hyphens that nobody wrote, as BERT's do."""
    return " - " in text_of(tokenizer, tokenizer("a-a", add_special_tokens=False)["input_ids"])


def _placed(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, list[_Token]]:
    """The text, and the place in it of each token that is not special."""
    special = _special(tokenizer)
    kept = [i for i, token in enumerate(tokens) if token not in special]
    ids = [tokens[i] for i in kept]
    text, found, start = str(tokenizer.decode(ids)), [], 0
    for count, index in enumerate(kept, 1):
        so_far = text if count == len(kept) else str(tokenizer.decode(ids[:count]))
        end = max(start, sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(so_far, text, strict=False))))
        found.append(_Token(index, start, end, len(so_far.rstrip()) > end, tokens[index] == tokenizer.unk_token_id))
        start = end
    return text, found


def _pieces(text: str, placed: Sequence[_Token], loose: bool = False) -> list[Piece]:
    """The words and marks of a text; those that share a token are one, and a token without letters goes with the next."""
    parts = list(segments(text, loose))
    groups: list[tuple[int, int, list[_Token]]] = []  # first and last part, tokens
    waiting: list[_Token] = []
    for n, token in enumerate(placed):
        own = [k for k, part in enumerate(parts) if part.start < token.end and token.start < part.end]
        begun = n > 0 and placed[n - 1].open and not waiting
        if not own and not (begun and groups):
            waiting.append(token)
        elif groups and (begun or own[0] <= groups[-1][1]):
            first, last, tokens = groups[-1]
            groups[-1] = (first, max([last, *own]), [*tokens, *waiting, token])
            waiting = []
        else:
            groups.append((own[0], own[-1], [*waiting, token]))
            waiting = []
    if not groups:
        return []
    groups[-1][2].extend(waiting)
    found, start = [], 0
    for k, (first, last, tokens) in enumerate(groups):
        stop = parts[groups[k + 1][0]].start if k + 1 < len(groups) else len(text)
        end = min(stop, max(parts[last].end, *(token.end for token in tokens))) if k + 1 < len(groups) else stop
        label = _label(text, parts[first : last + 1], loose)
        mark = all(part.mark for part in parts[first : last + 1])
        found.append(Piece(label, text[start:end], tuple(token.index for token in tokens), mark))
        start = end
    return found


def _label(text: str, parts: Sequence[Segment], loose: bool) -> str:
    """Of parts that are one word, without the marks around it."""
    spoken = [part for part in parts if not part.mark] or parts
    label = text[spoken[0].start : spoken[-1].end]
    return "".join(label.split()) if loose and len(parts) == 1 else label


def _moved(placed: Sequence[_Token], text: str, said: str, whole: bool) -> list[_Token]:
    """Tokens of a decoded text, placed in what was said, which is spelled otherwise, or is a part of it if not `whole`."""
    found = _by_letters(text, said) or _by_words(placed, text, said, whole)
    moved, latest = [], 0
    for token in placed:
        at = [span for k in range(token.start, token.end) for span in found.get(k, ())]
        start, end = (min(a for a, _ in at), max(b for _, b in at)) if at else (latest, latest)
        moved.append(_Token(token.index, start, end, token.open, token.unknown))
        latest = max(latest, end)
    return moved


_Places = dict[int, tuple[tuple[int, int], ...]]
"""For each place in a decoded text, the places (start, end) of what it stands for in the text that was said."""


def _by_letters(text: str, said: str) -> _Places:
    """By the last stretch of a text with the same letters; spaces, case, and if need be accents, count for nothing."""
    for accents in (True, False):
        own, sought = _squeezed(text, accents), _squeezed(said, accents)
        letters = "".join(letter for letter, _ in sought)
        start = "".join(letter for letter, _ in own).rfind(letters)
        if letters and start >= 0:
            made: dict[int, list[tuple[int, int]]] = {}
            for (_, at), (_, there) in zip(own[start:], sought, strict=False):
                made.setdefault(at, []).append((there, there + 1))
            return {at: tuple(spans) for at, spans in made.items()}
    return {}


def _squeezed(text: str, accents: bool) -> list[tuple[str, int]]:
    """Letters of a text in one spelling, each with its place."""
    return [
        (letter, i)
        for i, written in enumerate(text)
        for letter in unicodedata.normalize("NFKD", written).casefold()
        if not letter.isspace() and unicodedata.category(letter)[0] != "C" and (accents or not unicodedata.combining(letter))
    ]


def _by_words(placed: Sequence[_Token], text: str, said: str, whole: bool) -> _Places:
    """By words that are the same; what a tokenizer does not know stands for the words between those."""
    unknown = {token.start for token in placed if token.unknown}
    own, sought = _atoms(placed, text), list(segments(said))
    codes = difflib.SequenceMatcher(
        None, [_plain(one) for one in sought], [_plain(one) for one in own], autojunk=False
    ).get_opcodes()
    found: _Places = {}
    for n, (kind, i0, i1, j0, j1) in enumerate(codes):
        mine, theirs = own[j0:j1], sought[i0:i1]
        if kind == "replace":
            blanks = [one for one in mine if one.start in unknown]
            if not whole and n in (0, len(codes) - 1):  # around it stands what was not said
                mine = blanks[-len(theirs) :] if n == 0 else blanks[: len(theirs)]
            elif len(blanks) == len(theirs):
                mine = blanks
        elif kind != "equal":
            continue
        pairs = [([a], [b]) for a, b in zip(mine, theirs, strict=True)] if len(mine) == len(theirs) else [(mine, theirs)]
        for one, other in pairs:
            found.update({k: ((other[0].start, other[-1].end),) for part in one for k in range(part.start, part.end)})
    return found


def _atoms(placed: Sequence[_Token], text: str) -> list[Segment]:
    """Words and marks of a decoded text; what stands for unknown ones is one each."""
    found, start = [], 0
    for token in [*(token for token in placed if token.unknown), _Token(-1, len(text), len(text), False)]:
        parts = segments(text[start : token.start], loose=True)
        found += [Segment(part.text, start + part.start, start + part.end, part.mark) for part in parts]
        if token.end > token.start:
            found.append(Segment(text[token.start : token.end], token.start, token.end, False))
        start = token.end
    return found


def _plain(part: Segment) -> str:
    return "".join(letter for letter, _ in _squeezed(part.text, accents=False))
