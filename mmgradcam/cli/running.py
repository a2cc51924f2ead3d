"""What commands do with every picture: explain it, show the words, write the files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import typer

from mmgradcam.cli.loading import Map, complain
from mmgradcam.cli.tables import (
    doing,
    progress,
)
from mmgradcam.errors import InputError, one_line
from mmgradcam.utils.files import PICTURE, regular

if TYPE_CHECKING:
    from mmgradcam.explanation import Explanation
    from mmgradcam.task import Task


def refuse_unreadable(images: list[Path]) -> None:
    """Names pictures that are no files, and ends, if none of them is one: no model is loaded for nothing."""
    wrong: list[InputError] = []
    for image in images:
        try:
            regular(image, PICTURE)
        except InputError as error:
            wrong.append(error)
    if len(wrong) == len(images):
        for each in wrong:
            complain(each)
        raise typer.Exit(1)


def explain_each(
    task: Task,
    images: list[Path],
    query: dict[str, Any],
    how: Map,
    out: Path,
    show: Callable[[Explanation], None],
    form: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Explains pictures one by one; a bad one is named and the rest go on."""
    from mmgradcam.explaining.explain import explain
    from mmgradcam.metrics.hallucination import annotate_hallucination, calibrated
    from mmgradcam.metrics.sanity import sanity_check
    from mmgradcam.storage.record import files

    chosen, target_layers = how.method(task), how.target_layers(task)
    failed = 0
    for image in progress("explaining")(images, len(images)):
        try:
            with doing(f"explaining {image}", live=len(images) == 1):
                explanation = explain(task, image, method=chosen, target_layers=target_layers, grounding=how.grounding, **query)
                explanation = annotate_hallucination(explanation) if how.grounding and calibrated(explanation) else explanation
                explanation = sanity_check(explanation) if how.check else explanation
            with doing(f"writing into {out}", live=len(images) == 1):
                wrote = write(out, image.name if image.is_dir() else image.stem, files(explanation, **form))
        except InputError as error:
            failed += 1
            complain(error)
            continue
        if len(images) > 1:
            print(f"\n{one_line(str(image))}")
        show(explanation)
        print(wrote)
    if failed:
        raise typer.Exit(1)


def animation_suffix(name: str) -> str:
    if name not in ("gif", "webp", "mp4"):
        raise InputError(f"--animation-format: expected gif, webp or mp4, got {name}")
    return f".{name}"


def write(out: Path, called: str, files: Mapping[str, bytes]) -> str:
    """Writes files into a new folder, whose name is that of a picture as nearly as can be, and tells what was written."""
    from mmgradcam.utils.naming import safe_name
    from mmgradcam.utils.writing import write_new_folder

    name = safe_name(called)
    folder = write_new_folder(out, name, files)
    kept = f"{out / name} was there already and stays as it is\n" if folder.name != name else ""
    return f"{kept}wrote " + "\n      ".join(str(folder / file) for file in files)
