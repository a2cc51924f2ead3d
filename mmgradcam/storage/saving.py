"""Explanations written to files and read back."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from mmgradcam.errors import InputError
from mmgradcam.explanation import Explanation, Metadata
from mmgradcam.render import drawing, heatmaps, pages
from mmgradcam.storage import record
from mmgradcam.storage.schema import read_saved
from mmgradcam.utils.files import is_folder, path_of
from mmgradcam.utils.writing import write_file, write_folder


def save(made: Explanation, path: str | Path, film: str = ".gif", folder: bool = False) -> list[Path]:
    """See `Explanation.save`."""
    path, suffix = path_of(path), path_of(path).suffix.lower()
    if folder or not suffix or is_folder(path):
        return write_folder(path, record.files(made, film))
    if suffix == ".npz":
        return [write_file(path, record.archive(made))]
    if made.clip is not None:
        return drawing.animation(made).save(path)
    if suffix in (".html", ".htm"):
        return [write_file(path, pages.page(made).encode())]
    if suffix in heatmaps.FORMATS:
        return [write_file(path, heatmaps.encoded(made.overlay() if len(made) == 1 else made.panels(), suffix))]
    raise InputError(f"{path}: expected a folder (folder=True), or a name that ends in .html, .png, .jpg, .webp or .npz")


def load(path: str | Path) -> Explanation:
    """See `Explanation.load`."""
    made, arrays = read_saved(path_of(path))
    metadata, targets, warnings = record.read(made)
    tensors = {name: torch.from_numpy(arrays[name]) for name in ("maps", "scores", "words", "std") if name in arrays}
    return Explanation(
        Image.fromarray(arrays["picture"]), tuple(made["feature_layer"]["box"]), targets, tensors["maps"],
        tensors["scores"], tensors.get("words"), warnings, Metadata(**metadata), std=tensors.get("std"),
        clip=record.clip_of(made, arrays), sanity_results=record.sanity_results_of(made),
    )  # fmt: skip
