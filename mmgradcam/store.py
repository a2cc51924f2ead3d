"""Files that appear whole or not at all, and the archive that arrays are kept in."""

from __future__ import annotations

import io
import os
import tempfile
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
