"""Folders of pictures: a class per subfolder, or plain ones; and a CSV file that says which group each belongs to."""

from __future__ import annotations

import csv
from contextlib import suppress
from pathlib import Path

from mmgradcam.datasets.records import ObjectAnnotation, Sample
from mmgradcam.datasets.stream import InvalidRecord, Source
from mmgradcam.errors import InputError
from mmgradcam.images.pictures import open_picture

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder and its subfolders, by name; hidden files are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def image_folder(place: Path, images: Path | None = None) -> Source:
    """Pictures in a folder; where they lie in subfolders, each is one thing, by the name of its subfolder.

    Args:
        place: the folder, or a CSV file in it with the columns file (relative to the folder), group, and, if wanted, label,
            which counts instead of the subfolder. A CSV file with these columns is found in the folder by itself. Pictures
            that it does not name have no group; files it names that are not there are malformed records.
        images: the folder, if the CSV file lies elsewhere.

    Raises:
        InputError: no pictures there, or several CSV files with these columns.
    """
    folder = images or (place if place.is_dir() else place.parent)
    table = place if place.is_file() else _table(folder)
    known = {path.relative_to(folder).as_posix(): path for path in pictures(folder)}
    if not known:
        raise InputError(f"{folder}: expected pictures ({', '.join(sorted(ENDINGS))}); there are none")
    tops = {name.split("/")[0].lower() for name in known}
    if tops <= SPLITS and all(name.count("/") > 1 for name in known):
        raise InputError(f"{folder}: expected one split, got {', '.join(sorted(tops))}; name its folder in this one")
    rows, strays = _rows(table, set(known)) if table else ({}, [])

    def read(name: str) -> Sample:
        row = rows.get(name, {})
        label = row.get("label") or (Path(name).parts[0] if "/" in name else "")
        objects = (ObjectAnnotation(label),) if label else ()
        return Sample(name, open_picture(known[name]), objects=objects, group=row.get("group", ""))

    return Source(folder.name, [*(name for name in known if name not in {one.name for one in strays}), *strays], read)


def _table(folder: Path) -> Path | None:
    fitting = []
    for path in sorted(folder.glob("*.csv")):
        with suppress(OSError, csv.Error), path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
            if {"file", "group"} <= set(next(csv.reader(file), [])):
                fitting.append(path)
    if len(fitting) > 1:
        raise InputError(f"{folder}: expected one CSV file with file and group, got {len(fitting)}; name the one that is meant")
    return fitting[0] if fitting else None


def _rows(table: Path, known: set[str]) -> tuple[dict[str, dict[str, str]], list[InvalidRecord]]:
    """Rows by file, and those that are malformed."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="more", restval="")
            columns, read = set(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: expected a CSV file ({error})") from None
    if not {"file", "group"} <= columns:
        raise InputError(
            f"{table}: expected the columns file and group (and label), got {', '.join(sorted(columns)) or 'none'}"
        )
    rows: dict[str, dict[str, str]] = {}
    strays = []
    for row in read:
        name = row["file"]
        if name not in known:
            strays.append(InvalidRecord(name or "a row", f"{table.name} names it, but there is no such picture"))
        elif name in rows or "more" in row or not row["group"]:
            strays.append(InvalidRecord(name, f"{table.name}: expected one row with a file and a group, got {row}"))
        else:
            rows[name] = row
    return rows, strays
