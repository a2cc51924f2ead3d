"""Arrays out of a user's .npz: what each entry claims to hold is checked before any of it is unpacked."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from mmgradcam.errors import InputError

MOST_BYTES = 2**30
"""What the arrays of a file may come to, unpacked."""
UNREADABLE = (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What libraries raise at a file that is no archive, is damaged, is encrypted, or holds pickled objects."""

Claim = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and type of an array, by its header."""


class Archive:
    """The arrays of an open .npz.

    Args:
        file: the archive.
    """

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        self.claims: dict[str, Claim] = {}
        for info in file.infolist():
            name = info.filename.removesuffix(".npy")
            if name in self.claims:
                raise ValueError(f"{name} is there twice")
            self.claims[name] = self._claim(info)

    def _claim(self, info: zipfile.ZipInfo) -> Claim:
        """What an entry's header says; its size must be that of such an array."""
        with self._file.open(info) as entry:
            version = npy.read_magic(entry)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(entry)
            if dtype.hasobject:
                raise ValueError(f"{info.filename} holds pickled objects, which are never loaded")
            # not numpy's product, which wraps around
            size = dtype.itemsize
            for side in shape:
                size *= side
            if any(side < 0 for side in shape) or entry.tell() + size != info.file_size:
                raise ValueError(f"{info.filename} is not as long as its header says")
        return shape, dtype

    def read(self, names: Mapping[str, Any] | list[str]) -> dict[str, npt.NDArray[Any]]:
        """Unpacks arrays by name.

        Raises:
            InputError: they come to more than `MOST_BYTES`.
        """
        total = sum(self._file.getinfo(f"{name}.npy").file_size for name in names)
        if total > MOST_BYTES:
            raise InputError(f"{self._file.filename}: its arrays come to {total:,} bytes; expected at most {MOST_BYTES:,}")
        made = {}
        for name in names:
            with self._file.open(f"{name}.npy") as entry:
                made[name] = npy.read_array(entry, allow_pickle=False)
        return made


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The arrays of an .npz; none is unpacked yet. Raises what `UNREADABLE` lists."""
    with zipfile.ZipFile(path) as file:
        yield Archive(file)
