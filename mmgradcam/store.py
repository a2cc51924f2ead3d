"""Files that appear whole or not at all, and the archive that an explanation is read back from."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmgradcam.errors import InputError

SCHEMA = "mmgradcam/explanation"
VERSION = 1


def write_files(files: Mapping[Path, bytes]) -> list[Path]:
    """Writes files, making their folders; none is left half-written, whatever happens.

    Raises:
        InputError: a folder cannot be made or a file not be written, for want of space or permission.
    """
    waiting: list[tuple[str, Path]] = []
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            waiting.append((name, path))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(name, 0o666 & ~_umask())
        for name, path in waiting:
            os.replace(name, path)
    except OSError as error:
        where = error.filename or next(iter(files))
        raise InputError(f"{where}: cannot be written ({error.strerror}); choose another place") from None
    finally:
        for name, _ in waiting:
            if os.path.exists(name):
                os.unlink(name)
    return list(files)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def pack(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Arrays as a compressed .npz."""
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **dict(arrays))
    return data.getvalue()


def unpack(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The description and the arrays of a saved explanation: a folder, its `explanation.json`, or an .npz.

    Raises:
        InputError: no such file, or not what `Explanation.save` writes.
    """
    if path.name == "explanation.json":
        path = path.parent
    archive = path / "maps.npz" if path.is_dir() else path
    try:
        with archive.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        description = json.loads(str(arrays.pop("description")))
    except FileNotFoundError:
        raise InputError(f"{archive}: no such file; give a folder or .npz that an explanation was saved to") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive}: not an explanation ({error}); give a folder or .npz that one was saved to") from None
    if description.get("schema") != SCHEMA or description.get("version") != VERSION:
        got = f"{description.get('schema')} version {description.get('version')}"
        raise InputError(f"{archive}: expected {SCHEMA} version {VERSION}, got {got}; upgrade mmgradcam")
    return description, arrays
