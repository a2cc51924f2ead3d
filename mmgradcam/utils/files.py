"""Files of users: what is opened is a file that ends, not a folder, pipe or device that never does."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mmgradcam.errors import InputError

PICTURE = "a picture (PNG, JPEG, WebP, ...)"
_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def _mode(path: Path) -> int:
    """What a path leads to, as `stat` says it; 0 where to nothing, or it is none: a name of over 255 bytes or with a NUL."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def path_of(given: str | os.PathLike[str]) -> Path:
    """What a caller gave, as a path.

    Raises:
        InputError: it is none.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"expected a path, as a str or a Path, got {given!r:.60}")
    return Path(given)


def exists(path: Path) -> bool:
    """Whether a path leads to anything."""
    return _mode(path) != 0


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder."""
    return stat.S_ISDIR(_mode(path))


def name_of(path: str | os.PathLike[str]) -> str:
    """A file's name as text that can be written anywhere: bytes of it that are no UTF-8 become U+FFFD."""
    return Path(path).name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def regular(path: Path, what: str) -> Path:
    """The path, if it is that of a regular file; nothing is opened, so a pipe without a writer holds nobody up.

    Args:
        path: of a user's file.
        what: what is expected there, with its article, as `PICTURE`.

    Raises:
        InputError: there is no such file, it may not be looked at, or it is a folder, pipe, socket or device.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file; give the path of {what}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be opened ({reason}); give the path of {what}") from None
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        more = f"name the files in it, as in {path}/*" if stat.S_ISDIR(mode) else "save what it holds to a file first"
        raise InputError(f"{path}: expected {what}, got {kind}; {more}")
    return path
