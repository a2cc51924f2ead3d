"""Bundled models: a folder each, holding `model.safetensors`, `config.json` and a model card, `README.md`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmgradcam.errors import InputError
from mmgradcam.utils.files import exists, regular

HERE = Path(__file__).parent
LONGEST = 2**26
"""Bytes of a description."""


def names() -> list[str]:
    """The names of the bundled models, sorted."""
    return sorted(path.parent.name for path in HERE.glob("*/config.json"))


def folder(name: str) -> Path:
    """Where a bundled model lies."""
    return HERE / name


def config(path: Path, needed: str = "task") -> dict[str, Any]:
    """The description of the model in a folder.

    Args:
        path: the folder.
        needed: a key that the description of such a model has.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    file = path / "config.json"
    if not exists(file):
        raise InputError(f"{path}: expected a model folder with config.json and model.safetensors, found no config.json")
    try:
        if (size := regular(file, "a description (config.json)").stat().st_size) > LONGEST:
            raise ValueError(f"{size:,} bytes; expected at most {LONGEST:,}")
        read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: cannot be read ({error})") from None
    if not isinstance(read, dict) or needed not in read:
        raise InputError(f"{file}: expected the description of an mmgradcam model, with a {needed}; got something else")
    return read


def needs_encoder(name: str) -> bool:
    """Whether a model, bundled or in a folder, holds only a head, over an encoder that is fetched apart."""
    path = folder(name) if name in names() else Path(name)
    try:
        encoder = config(path).get("encoder")
    except InputError:
        return False
    return isinstance(encoder, dict) and bool(encoder.get("weights"))
