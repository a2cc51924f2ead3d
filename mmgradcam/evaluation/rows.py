"""The rows of an evaluation: one schema, in Parquet files of a few samples each, of which one is in memory at a time."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from mmgradcam.errors import unicode_text

Row = Mapping[str, Any]

_DESCRIBED: list[tuple[str, Any, str]] = [
    ("sample", pyarrow.int64(), "number of the sample in its data set, from 0"),
    ("image", pyarrow.string(), "name of the sample's image"),
    ("target", pyarrow.string(), "what was explained: a word, phrase, answer or class"),
    ("text", pyarrow.string(), "the text that the target belongs to: its caption, or the question it answers"),
    ("kind", pyarrow.string(), "kind of target: a type of phrase, a kind of question, or true or absent for classes"),
    ("group", pyarrow.string(), "group of images that the sample belongs to"),
    ("correct", pyarrow.bool_(), "whether the target is true of the image; null where it is unknown"),
    ("score", pyarrow.float64(), "the scalar that was differentiated"),
    ("probability", pyarrow.float64(), "the model's probability of the target, 0 to 1; null where it has none"),
    ("method", pyarrow.string(), "the method that made the map"),
]
SCHEMA = pyarrow.schema(pyarrow.field(name, kind, metadata={"description": said}) for name, kind, said in _DESCRIBED)
"""The columns of every row; those of metrics follow, as float64 or texts, null where a target has no value."""
FIELDS = tuple(SCHEMA.names)


def plain(row: Row) -> dict[str, Any]:
    """A row with the types of the schema: texts are Unicode, and metrics are finite numbers or None."""
    made: dict[str, Any] = {}
    for name, value in row.items():
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, str):
            made[name] = unicode_text(value)
        elif name in FIELDS and name not in ("score", "probability"):
            made[name] = value
        else:
            made[name] = float(value) if value is not None and math.isfinite(value) else None
    return made


def columns_of(rows: Sequence[Row]) -> dict[str, pyarrow.DataType]:
    """The metrics of plain rows and their types: texts where any value is one, else numbers."""
    made: dict[str, pyarrow.DataType] = {}
    for row in rows:
        for name, value in row.items():
            if name not in FIELDS and (isinstance(value, str) or name not in made):
                made[name] = pyarrow.string() if isinstance(value, str) else pyarrow.float64()
    return made


def schema_of(columns: Mapping[str, pyarrow.DataType]) -> pyarrow.Schema:
    """The schema of rows with these metrics."""
    return pyarrow.schema([*SCHEMA, *columns.items()])


def to_parquet(rows: Sequence[Row], metadata: str) -> bytes:
    """A Parquet file of plain rows, with a text about them in its metadata."""
    schema = schema_of(columns_of(rows)).with_metadata({"mmgradcam": metadata})
    data = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows], schema=schema), data)
    return data.getvalue()


def from_parquet(data: bytes) -> tuple[list[dict[str, Any]], str]:
    """The rows of a file of `to_parquet`, and the text about them.

    Raises:
        ValueError, OSError, KeyError, TypeError: it is none.
    """
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    return table.to_pylist(), table.schema.metadata[b"mmgradcam"].decode()


class Rows(Sequence[Row]):
    """The rows of Parquet files one after the other, read when they are asked for.

    Args:
        keeper: what must live as long as the files do.
    """

    def __init__(self, keeper: Any = None) -> None:
        self._files: list[tuple[Path, int]] = []
        self._columns: dict[str, pyarrow.DataType] = {}
        self._keeper = keeper

    def add(self, path: Path, rows: Sequence[Row]) -> None:
        """A further file, which holds these rows."""
        self._files.append((path, len(rows)))
        for name, kind in columns_of(rows).items():
            self._columns[name] = kind if name not in self._columns or kind == pyarrow.string() else self._columns[name]

    @property
    def columns(self) -> list[str]:
        """Names of the metrics."""
        return list(self._columns)

    @property
    def numbers(self) -> list[str]:
        """Names of those that are numbers."""
        return [name for name, kind in self._columns.items() if kind == pyarrow.float64()]

    def __len__(self) -> int:
        return sum(count for _, count in self._files)

    def __iter__(self) -> Iterator[Row]:
        for path, count in self._files:
            if count:
                yield from pyarrow.parquet.read_table(path).to_pylist()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        for path, count in self._files if at >= 0 else ():
            if at < count:
                return pyarrow.parquet.read_table(path).slice(at, 1).to_pylist()[0]
            at -= count
        raise IndexError(index)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def of(self, method: str) -> Iterator[Row]:
        """The rows of one method."""
        return (row for row in self if row["method"] == method)

    def write(self, file: BinaryIO) -> None:
        """Writes all rows as one Parquet file."""
        schema = schema_of(self._columns)
        with pyarrow.parquet.ParquetWriter(file, schema) as writer:
            for part, count in self._files:
                if count:
                    writer.write_table(pyarrow.Table.from_pylist(pyarrow.parquet.read_table(part).to_pylist(), schema=schema))
