"""Data sets of `datasets` and Parquet files: photos with captions and phrases, or pictures with a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmgradcam.datasets.coco_words import split_words
from mmgradcam.datasets.photos import COLUMNS, Photos, Table, read_parquet
from mmgradcam.datasets.records import ObjectAnnotation, Sample
from mmgradcam.datasets.stream import Source
from mmgradcam.errors import InputError
from mmgradcam.images.pictures import Box, open_picture

SLACK = 0.005
"""How far a box may reach over the photo's edge, as a fraction of its side: annotators' rounding."""


def table(rows: Any, name: str = "", folder: Path | None = None) -> Source:
    """Rows with `image` and, what is known of it: captions and phrases as `Photos` has them, captions alone, or a label.

    Args:
        rows: a data set of `datasets` of known length.
        name: what it is called in reports; by default what its builder calls it.
        folder: the only one whose files it may name as pictures; as of `Table`.

    Raises:
        InputError: other columns, several splits, or a stream whose length nobody knows.
    """
    if isinstance(rows, dict):
        raise InputError(
            f"expected one split of a data set, got all of {', '.join(rows)}; give one, as data[{next(iter(rows), '')!r}]"
        )
    if not hasattr(rows, "__len__"):
        raise InputError("expected a data set of known length, got a stream; load it with streaming=False, or a slice of it")
    columns = set(rows.column_names)
    if "image" not in columns:
        raise InputError(f"expected a column image, with captions or a label beside it; got {', '.join(sorted(columns))}")
    name = name or str(rows.info.builder_name or "data set")
    called = _caller(rows, columns)
    if columns >= COLUMNS:
        photos = Photos(rows, folder)
        groups = Table(rows.select_columns(["group"])) if "group" in columns else None

        def photo(index: int) -> Sample:
            group = str(groups[index]["group"] or "") if groups else ""
            return replace(_checked(photos[index]), group=group)

        return Source(name, range(len(photos)), photo, called, lambda: photos.texts(malformed=True))
    held = Table(rows, folder)
    said = next((column for column in ("captions", "caption") if column in columns), None)
    kind = next((column for column in ("label", "labels") if column in columns), None)
    classes: Sequence[str] | None = getattr(rows.features[kind], "names", None) if kind else None

    def read(index: int) -> Sample:
        row = held[index]
        captions = _captions(row[said]) if said else ()
        objects = (ObjectAnnotation(_label(row[kind], classes)),) if kind else ()
        return Sample(
            called(index), open_picture(held.picture(index)), captions, objects=objects, group=str(row.get("group") or "")
        )

    return Source(name, range(len(rows)), read, called)


def saved(path: Path) -> Source:
    """A Parquet file, a folder of them, or a folder that `save_to_disk` wrote.

    Raises:
        InputError: it cannot be read, or as for `table`.
    """
    if (path / "dataset_dict.json").is_file():
        splits = sorted(each.name for each in path.iterdir() if each.is_dir())
        raise InputError(f"{path}: expected one split of a data set, got {', '.join(splits)}; name its folder in this one")
    if not (path / "state.json").is_file():
        return table(read_parquet(path), path.stem, path if path.is_dir() else path.parent)
    import datasets

    try:
        return table(datasets.load_from_disk(str(path)), path.name, path)
    except (OSError, LookupError, TypeError) as error:
        raise InputError(f"{path}: expected a saved data set ({' '.join(str(error).split())[:160]})") from None


def _caller(rows: Any, columns: set[str]) -> Any:
    """What a row is called: its image_id, else its number."""
    if "image_id" not in columns:
        return str
    ids = Table(rows.select_columns(["image_id"]))
    return lambda index: str(ids[index]["image_id"])


def _captions(said: Any) -> tuple[tuple[str, ...], ...]:
    captions = tuple(split_words(one) for one in ([said] if isinstance(said, str) else said))
    if not all(captions):
        raise InputError("a caption without words")
    return captions


def _label(value: Any, classes: Sequence[str] | None) -> str:
    if classes is None:
        if value is None or not str(value):
            raise InputError("it has no label")
        return str(value)
    if not isinstance(value, int) or not 0 <= value < len(classes):
        raise InputError(f"expected a label from 0 to {len(classes) - 1}, got {value}")
    return classes[value]


def _checked(photo: Sample) -> Sample:
    """The photo, if its boxes lie within it and are not inverted."""
    for phrase in photo.phrases:
        for box in phrase.boxes:
            if not _within(box):
                raise InputError(f"{phrase.text!r}: expected a box x0 < x1, y0 < y1 within 0..1, got {box}")
    return photo


def _within(box: Box) -> bool:
    x0, y0, x1, y1 = box
    return -SLACK <= x0 < x1 <= 1 + SLACK and -SLACK <= y0 < y1 <= 1 + SLACK
