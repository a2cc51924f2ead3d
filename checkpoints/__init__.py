"""Bundled models: a folder each, holding `model.safetensors`, `config.json` and a model card, `README.md`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmgradcam.errors import InputError

HERE = Path(__file__).parent


def names() -> list[str]:
    """The names of the bundled models, sorted."""
    return sorted(path.parent.name for path in HERE.glob("*/config.json"))


def folder(name: str) -> Path:
    """Where a bundled model lies."""
    return HERE / name


def config(path: Path) -> dict[str, Any]:
    """The description of the model in a folder.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    file = path / "config.json"
    try:
        read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path}: expected a model folder with config.json and model.safetensors, found no config.json"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    if not isinstance(read, dict) or "task" not in read:
        raise InputError(f"{file}: expected the description of an mmgradcam model, with a task; got something else")
    return read


def needs_encoder(name: str) -> bool:
    """Whether a model, bundled or in a folder, holds only a head, over an encoder that is fetched apart."""
    path = folder(name) if name in names() else Path(name)
    try:
        return bool(config(path).get("encoder", {}).get("weights"))
    except InputError:
        return False
