"""A data set as a stream of photos: malformed records are counted and named, and never stop it."""

from __future__ import annotations

import copy
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mmgradcam.datasets.records import Phrase, Sample
from mmgradcam.errors import InputError

MALFORMED = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError, EOFError, SyntaxError, RecursionError,
    MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What reading a record raises where it is to blame; an `InputError` is a ValueError, and XML's ParseError a SyntaxError."""

Texts = tuple[Sequence[Sequence[str]], Sequence[Phrase]]
"""Captions, word by word, and their phrases."""
LONGEST_NAME = 100
"""Characters of a record's name, where it is named as malformed."""


@dataclass(frozen=True)
class InvalidRecord:
    """An entry of an index that belongs to no picture, or whose picture cannot be told."""

    name: str
    reason: str


class Source:
    """Photos of a data set, read one by one, each when it is asked for.

    Args:
        name: what it is called in reports.
        records: what is known of each record before it is read; a `InvalidRecord` where that is not enough.
        read: makes a photo of a record; an error that it raises says what is wrong with the record.
        called: what a record is called in `bad`.
        texts: captions and phrases of all records, in order, where they can be had without opening a picture; of a malformed
            record, none.
        holds: what its samples are: "images", "clips" or "observations".

    Attributes:
        bad: "RECORD: reason" of the malformed records met so far in the iteration that was begun last.
    """

    def __init__(
        self,
        name: str,
        records: Sequence[Any],
        read: Callable[[Any], Sample],
        called: Callable[[Any], str] = str,
        texts: Callable[[], list[Texts]] | None = None,
        holds: str = "images",
    ) -> None:
        self.name, self.holds = name, holds
        self.bad: list[str] = []
        self.texts = texts
        self._records, self._read, self._called = records, read, called
        self._change: Callable[[int, Sample], Sample] = lambda index, photo: photo

    def __len__(self) -> int:
        """Records, malformed ones counted."""
        return len(self._records)

    def __iter__(self) -> Iterator[Sample]:
        return (photo for photo in self.since(0) if photo is not None)

    def since(self, start: int) -> Iterator[Sample | None]:
        """From record `start` on, one item per record, None for a malformed one, so that a run can go on where it stopped.

        Args:
            start: number of the first record, from 0; from the number of records on nothing is left.

        Raises:
            InputError: `start` is negative.
        """
        if start < 0:
            raise InputError(f"{self.name}: expected a record number from 0 on, got {start}")
        bad: list[str] = []
        self.bad = bad
        return (self._photo(i, bad) for i in range(start, len(self)))

    def mapped(self, change: Callable[[int, Sample], Sample]) -> Source:
        """The same records with their photos changed, given the number of the record and the photo."""
        made, before = copy.copy(self), self._change
        made.bad = []
        made._change = lambda index, photo: change(index, before(index, photo))
        return made

    def _photo(self, index: int, bad: list[str]) -> Sample | None:
        try:
            record = self._records[index]
            if isinstance(record, InvalidRecord):
                bad.append(named(record.name, record.reason))
                return None
            return self._change(index, self._read(record))
        except MALFORMED as error:
            bad.append(named(self._name(index), error))
            return None

    def _name(self, index: int) -> str:
        try:
            return str(self._called(self._records[index]))
        except MALFORMED:
            return f"record {index}"


def named(name: str, why: Exception | str) -> str:
    """A line on a malformed record, "RECORD: reason"; of a long name its beginning and end."""
    name = " ".join(name.split())
    name = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 20]}...{name[-17:]}"
    return f"{name}: {why if isinstance(why, str) else reason(why)}"


def reason(error: Exception) -> str:
    """What is wrong with a record, in one line."""
    said = " ".join(str(error).split())[:240]
    if isinstance(error, KeyError):
        return f"{said} is missing"
    return said if isinstance(error, InputError) else f"{type(error).__name__}: {said}"


def find_folder(tried: Sequence[Path], names: Sequence[str], what: str) -> Path:
    """The first folder that holds one of the files.

    Args:
        tried: folders, the likeliest first.
        names: of some files, relative to the folder.
        what: said in the error, as "COCO's pictures".

    Raises:
        InputError: none of them does.
    """
    for folder in tried:
        if any(_is_file(folder / name) for name in names[:50]):
            return folder
    asked = f"such as {names[0]} " if names else ""
    raise InputError(f"expected {what}, {asked}in one of {', '.join(map(str, tried))}; name their folder (images)")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
