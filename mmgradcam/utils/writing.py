"""Files that change together or not at all, whatever happens: a kill, a full disk, a folder that may not be written to."""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count, takewhile
from pathlib import Path
from typing import Any, BinaryIO

from mmgradcam.errors import InputError, unicode_text

DRAFT = ".mmgradcam-"
"""How names of unfinished files begin; the next write into the same folder clears away what a killed one left."""

Contents = bytes | Callable[[BinaryIO], object]
"""What a file holds, or what writes it, where that is more than memory should hold."""
Files = Mapping[str, Contents | None]
"""Contents by name; None: there is to be no such file."""


def write_file(path: str | Path, data: bytes) -> Path:
    """Writes one file, making its folders; it appears whole or not at all.

    Raises:
        InputError: it cannot be written, for want of space or permission; nothing has changed then.
    """
    path = Path(path)
    with _one_line(path), _draft(path.parent) as draft:
        _fill(draft, data)
        os.replace(draft, path)
    return path


def write_folder(folder: str | Path, files: Files) -> list[Path]:
    """Writes a set of files into a folder, all of them or none.

    A new folder appears whole, by one rename. A folder that holds nothing but files of the set is exchanged for a new one in
    one step, where the system can do that (Linux). Elsewhere, and beside files of others, all old files of the set go before
    the first new one comes. So a reader never sees old ones beside new ones; and what a kill leaves half done, the next write
    into the folder completes.

    Args:
        folder: made if it is not there, its parents too. Files in it that are not of the set stay.
        files: of the set.

    Returns:
        The files written.

    Raises:
        InputError: a file cannot be written, for want of space or permission; nothing has changed then.
    """
    folder = Path(folder)
    with _one_line(folder):
        real = Path(os.path.realpath(folder))
        if os.path.lexists(real) or not _appeared(real, files):
            with _workplace(real.parent), _workplace(real):
                for name in files:
                    if (real / name).is_dir() and not (real / name).is_symlink():
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))
                own = set(os.listdir(real)) <= set(files)
            if not (own and _exchanged(real, files)):
                _changed_within(real, files)
    return [folder / name for name, data in files.items() if data is not None]


def write_new_folder(parent: str | Path, name: str, files: Files) -> Path:
    """Writes a set of files into a new folder, which appears whole by one rename.

    Args:
        parent: made if it is not there.
        name: of the folder; where something has that name already, in upper or lower case, "-2" is added to it, or the next
            number that is free. `mmgradcam.utils.naming.safe_name` makes one of any text.
        files: of the set.

    Returns:
        The folder.

    Raises:
        InputError: it cannot be written, for want of space or permission; nothing has changed then.
    """
    parent = Path(parent)
    with _one_line(parent):
        taken = {_same(one) for one in os.listdir(parent)} if os.path.lexists(parent) else set()
        numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
        return next(parent / one for one in numbered if _same(one) not in taken and _appeared(parent / one, files))


def _same(name: str) -> str:
    """What names have in common that a system may take for one."""
    return unicodedata.normalize("NFC", name).casefold()


def check_writable(folder: str | Path) -> None:
    """Sees that files can be written into a folder that is there or is to be made; it is not made here.

    Raises:
        InputError: it is a file, or may not be written to, or could not be made.
    """
    with _one_line(Path(folder)):
        there = Path(os.path.realpath(folder))
        while True:
            try:
                os.lstat(there)
                break
            except (FileNotFoundError, NotADirectoryError):
                there = there.parent
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def to_json(value: Any, indent: int | None = None, ascii_only: bool = False) -> str:
    r"""JSON that any reader takes: numbers that are not finite are null, and texts are those of `unicode_text`.

    Args:
        value: dicts, lists, texts and numbers; anything else becomes text.
        indent: as of `json.dumps`.
        ascii_only: escape other characters, for an output of unknown encoding.

    >>> to_json({"a": float("nan"), "b": "\udcff"}, ascii_only=True)
    '{"a": null, "b": "\\ufffd"}'
    """
    return json.dumps(_plain(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def _plain(value: Any) -> Any:
    if getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, Mapping):
        return {_plain(str(name)): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return unicode_text(str(value))


@contextmanager
def _one_line(place: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # a ValueError: of a name that no file can have
        named = getattr(error, "filename", None)
        where = named if isinstance(named, str) and DRAFT not in named else place
        raise InputError(f"{where}: cannot be written ({getattr(error, 'strerror', error)}); choose another place") from None


@contextmanager
def _workplace(folder: Path) -> Iterator[None]:
    """Within, the folder is there, with nothing of killed writers in it, and no other writer clears up.

    Folders that were made for it go again if what is done there fails.
    """
    missing = list(takewhile(lambda one: not os.path.lexists(one), (folder, *folder.parents)))
    lock: int | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder)
        yield
    except BaseException:
        for one in missing:
            with suppress(OSError):
                one.rmdir()
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A lock that writers share, for as long as they write; who holds it alone knows that all drafts are of the dead."""
    try:
        import fcntl

        lock = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in os.listdir(folder):
                if name.startswith(DRAFT):
                    _clear(folder / name)
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError:  # a file system that has no locks
        os.close(lock)
        return None
    return lock


def _clear(draft: Path) -> None:
    """Removes an unfinished file or folder; a change within a folder that was begun is completed first."""
    if (draft / "old").is_dir():
        _move(draft)
        shutil.rmtree(draft / "old")
    if draft.is_dir() and not draft.is_symlink():
        shutil.rmtree(draft)
    else:
        draft.unlink(missing_ok=True)


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """A name within a folder for an unfinished file or folder, of which nothing is left afterwards."""
    with _workplace(folder):
        draft = folder / f"{DRAFT}{os.urandom(8).hex()}"
        try:
            yield draft
        finally:
            _clear(draft)


def _fill(path: Path, data: Contents) -> None:
    with open(path, "xb") as file:
        if callable(data):
            data(file)
        else:
            file.write(data)
        file.flush()
        os.fsync(file.fileno())  # else a crash of the system may keep the new name and lose what it holds


def _fill_folder(path: Path, files: Files) -> None:
    path.mkdir()
    for name, data in files.items():
        if data is not None:
            _fill(path / name, data)


def _appeared(folder: Path, files: Files) -> bool:
    """Whether a folder was made that was not there before."""
    with _draft(folder.parent) as draft:
        _fill_folder(draft, files)
        try:
            os.rename(draft, folder)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                return False
            raise
    return True


def _exchanged(folder: Path, files: Files) -> bool:
    """Whether the system could put a new folder in the place of an old one, which holds nothing but files of the set."""
    at_work = Path(os.path.realpath(".")).is_relative_to(folder)  # the process would be left in the folder that goes
    if at_work or os.path.ismount(folder) or not os.access(folder.parent, os.W_OK | os.X_OK):
        return False
    with _draft(folder.parent) as draft:
        _fill_folder(draft, files)
        shutil.copymode(folder, draft)
        if not _swapped(draft, folder):
            return False
        for name in set(os.listdir(draft)) - set(files):  # what others wrote there in the meantime
            os.rename(draft / name, folder / name)
    return True


def _swapped(one: Path, other: Path) -> bool:
    """Whether two folders have each other's names now, which Linux does in one step (renameat2)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _changed_within(folder: Path, files: Files) -> None:
    """Changes a set of files in a folder that stays; see `write_folder`."""
    with _draft(folder) as draft:
        draft.mkdir()
        _fill_folder(draft / "new", files)
        _fill(draft / "gone", json.dumps([name for name, data in files.items() if data is None]).encode())
        try:
            (draft / "old").mkdir()  # from here on, `_clear` completes the change
            _move(draft)
        except BaseException:
            _move_back(draft, files)
            raise


def _move(draft: Path) -> None:
    """All old files of a set out of the folder, then all new ones into it; goes on where it was stopped."""
    folder, new, old = draft.parent, draft / "new", draft / "old"
    coming = os.listdir(new)
    for name in [*coming, *json.loads((draft / "gone").read_bytes())]:
        if os.path.lexists(folder / name):
            os.replace(folder / name, old / name)
    for name in coming:
        os.replace(new / name, folder / name)


def _move_back(draft: Path, files: Files) -> None:
    folder, new, old = draft.parent, draft / "new", draft / "old"
    for name, data in files.items():
        if data is not None and not (new / name).exists():
            os.replace(folder / name, new / name)
    for name in os.listdir(old):
        os.replace(old / name, folder / name)
    old.rmdir()
