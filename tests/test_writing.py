"""Sets of files that change together or not at all, whatever stops the writer; and names of folders made of any picture's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmgradcam import InputError
from mmgradcam.utils import writing
from mmgradcam.utils.naming import LONGEST, distinct_name, safe_name
from mmgradcam.utils.writing import DRAFT, check_writable, to_json, write_file, write_folder, write_new_folder

OLD = {"a.txt": b"old", "b.txt": b"old", "c.txt": b"old"}
NEW = {"a.txt": b"new", "b.txt": b"new", "d.txt": b"new", "c.txt": None}
"""`c.txt` goes and `d.txt` comes."""


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def left(folder: Path) -> list[str]:
    """What unfinished there is, in a folder and all below it."""
    return [str(path) for path in folder.rglob("*") if path.name.startswith(DRAFT)]


def there(files: Any) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if data is not None}


@pytest.mark.parametrize("foreign", [False, True], ids=["own", "beside-others"])
def test_a_set_replaces_a_set(foreign: bool, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er"
    assert write_folder(folder, OLD) == [folder / name for name in OLD]
    assert held(folder) == OLD
    others = {"notes.txt": b"mine"} if foreign else {}
    for name, data in others.items():
        (folder / name).write_bytes(data)
        (folder / "sub").mkdir()
    assert write_folder(folder, NEW) == [folder / "a.txt", folder / "b.txt", folder / "d.txt"]
    assert held(folder) == {**there(NEW), **others}
    assert (folder / "sub").is_dir() is foreign
    assert left(tmp_path) == []
    assert oct(folder.stat().st_mode & 0o777) == oct(0o777 & ~umask())
    assert oct((folder / "a.txt").stat().st_mode & 0o777) == oct(0o666 & ~umask())


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def failing(monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> Callable[[], int]:
    """Makes the `at`-th step of writing fail, once; the function tells how many steps there were."""
    count = 0

    def record_outputs(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                raise error
            return real(*args, **more)

        return step

    for name in ("rename", "replace", "fsync", "mkdir"):
        monkeypatch.setattr(os, name, record_outputs(getattr(os, name)))
    monkeypatch.setattr(writing, "_swapped", record_outputs(writing._swapped))
    return lambda: count


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "interrupt"])
@pytest.mark.parametrize("kind", ["new", "own", "beside-others", "no-exchange"])
def test_a_step_that_fails_changes_nothing(
    kind: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step in turn: until one comes after the last."""
    for at in range(1, 99):
        folder = tmp_path / f"{at}" / "out"
        (tmp_path / f"{at}").mkdir()
        if kind != "new":
            write_folder(folder, OLD)
        if kind == "beside-others":
            (folder / "notes.txt").write_bytes(b"mine")
        before = held(folder) if folder.exists() else None
        with monkeypatch.context() as patch:
            if kind == "no-exchange":
                patch.setattr(writing, "_exchanged", lambda *_: False)
            steps = failing(patch, at, error)
            place = folder / "in" if kind == "new" else folder
            try:
                write_folder(place, NEW)
                stopped = False
            except (InputError, KeyboardInterrupt):
                stopped = True
        assert left(tmp_path) == []
        if stopped:
            assert (held(folder) if folder.exists() else None) == before, f"step {at}"
        else:  # there was no such step, or one that may fail, as making a folder that is there
            assert {name: data for name, data in held(place).items() if name != "notes.txt"} == there(NEW)
        if steps() < at:
            break
    else:
        raise AssertionError("the steps do not end")
    assert at > 5


KILLED = """
import os, sys
from mmgradcam.utils.writing import write_folder
at, count = int(sys.argv[2]), 0
def watched(real):
    def step(*args, **more):
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), 9)
        return real(*args, **more)
    return step
for name in ("rename", "replace", "fsync", "mkdir", "rmdir", "unlink"):
    setattr(os, name, watched(getattr(os, name)))
from mmgradcam.utils import writing
writing._swapped = watched(writing._swapped)
if sys.argv[3] == "no-exchange":
    writing._exchanged = lambda *_: False
write_folder(sys.argv[1], {"a.txt": b"new", "b.txt": b"new", "d.txt": b"new", "c.txt": None})
"""


@pytest.mark.parametrize("kind", ["own", "no-exchange"])
def test_a_kill_at_any_step_leaves_the_old_set_or_the_new(kind: str, tmp_path: Path) -> None:
    """Real kills. Where folders cannot be exchanged, a reader may see too few files, but never old ones beside new ones."""
    for at in range(1, 99):
        folder = tmp_path / f"{at}" / "out"
        write_folder(folder, OLD)
        done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(at), kind], check=False)
        seen = held(folder)
        if kind == "own":
            assert seen in (OLD, there(NEW)), f"step {at}"
        else:
            assert seen.items() <= OLD.items() or seen.items() <= there(NEW).items(), f"step {at}: {seen}"
        write_folder(folder, {"e.txt": b"later"})  # what was begun is completed or gone
        assert left(tmp_path) == []
        after = held(folder)
        assert after.pop("e.txt") == b"later"
        assert after in (OLD, there(NEW)), f"step {at}"
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert at > 8
    assert after == there(NEW)


def test_kills_at_random_moments(tmp_path: Path) -> None:
    """A writer that writes sets of one number each, over and over, and is killed: all files hold the same number."""
    code = (
        "import sys\nfrom mmgradcam.utils.writing import write_folder\nprint('on', flush=True)\n"
        "for n in range(10**6): write_folder(sys.argv[1], {f'{i}.txt': str(n).encode() * 9 for i in range(4)})"
    )
    folder = tmp_path / "out"
    for wait in (0.01, 0.02, 0.035, 0.05):
        child = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(wait)
        child.kill()
        child.wait()
        child.stdout.close()
        if folder.exists():
            assert len(held(folder)) == 4
            assert len(set(held(folder).values())) == 1
    write_folder(folder, {"0.txt": b"", "1.txt": b"", "2.txt": b"", "3.txt": b""})
    assert left(tmp_path) == []
    assert os.listdir(tmp_path) == ["out"]


def test_a_reader_sees_one_set_while_another_comes(tmp_path: Path) -> None:
    """The descriptor of an open folder is that of one set; a name read twice may be of two."""
    folder = tmp_path / "out"
    write_folder(folder, OLD)
    opened = os.open(folder, os.O_RDONLY)
    write_folder(folder, NEW)
    assert held(folder) == there(NEW)
    os.close(opened)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files, as a full disk: the second file is too large for it."""
    code = (
        "import resource, sys\nfrom mmgradcam import InputError\nfrom mmgradcam.utils.writing import write_file, write_folder\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "for write in (lambda: write_folder(sys.argv[1], {'a': b'x', 'b': b'x' * 5000}), lambda: write_file(sys.argv[1] + '/b', b'x' * 5000)):\n"
        "    try: write()\n    except InputError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "in" / "out")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'in' / 'out'}: cannot be written (File too large); choose another place",
        f"{tmp_path / 'in' / 'out' / 'b'}: cannot be written (File too large); choose another place",
    ]
    assert list(tmp_path.iterdir()) == [], "nor the folders made for it"


def test_a_folder_in_the_place_of_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    (tmp_path / "a.txt" / "mine").touch()
    for write in (lambda: write_folder(tmp_path, OLD), lambda: write_file(tmp_path / "a.txt", b"")):
        with pytest.raises(InputError, match=r"a\.txt: cannot be written \(Is a directory\)"):
            write()
    assert [path.name for path in tmp_path.rglob("*")] == ["a.txt", "mine"]


def test_the_folder_a_process_is_in_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, OLD)
    monkeypatch.chdir(tmp_path)
    number = tmp_path.stat().st_ino
    assert write_folder(".", NEW)[0] == Path("a.txt")
    assert tmp_path.stat().st_ino == number
    assert held(Path.cwd()) == there(NEW)


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    write_folder(tmp_path / "real", OLD)
    (tmp_path / "link").symlink_to("real")
    write_folder(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert held(tmp_path / "real") == there(NEW)


def test_another_writer_s_unfinished_files_are_left_to_it(tmp_path: Path) -> None:
    with writing._draft(tmp_path) as draft:
        draft.write_bytes(b"half")
        write_file(tmp_path / "a.txt", b"whole")
        assert draft.read_bytes() == b"half"
    assert held(tmp_path) == {"a.txt": b"whole"}


@pytest.mark.parametrize("place", ["file/in", "x" * 300, "nul\0l", "\ud800"])
def test_places_that_cannot_be_written_are_one_line(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for write in (
        lambda p: write_folder(p, OLD),
        lambda p: write_file(p, b""),
        lambda p: write_new_folder(p, "a", OLD),
        check_writable,
    ):
        with pytest.raises(InputError, match=r"cannot be written \(.+\); choose another place$"):
            write(tmp_path / place)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for write in (lambda p: write_folder(p, OLD), lambda p: write_file(p, b""), check_writable):
        with pytest.raises(InputError, match="Permission denied"):
            write(tmp_path / "in")


def test_a_place_to_write_is_looked_at_and_not_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    assert os.listdir(tmp_path) == []


# Names

NAMES = [
    ("photo", "photo"), ("IMG_2024.01.31", "IMG_2024.01.31"), ("photo.png", "photo.png"), ("my scene", "my scene"),
    ("héron 鷺", "héron 鷺"), ("e\u0301", "é"), ("👩\u200d🚀", "👩\u200d🚀"), ("..", "picture"), (".", "picture"), ("", "picture"),
    ("...", "picture"), (" . ", "picture"), (".hidden", "hidden"), ("dots...", "dots"), ("a/b", "a_b"), ("a\\b", "a_b"),
    ("../../etc/passwd", "_.._etc_passwd"), ("-rf", "_-rf"), ("--out", "_--out"), ("~root", "_~root"), ("a\nb\tc\x00", "a_b_c_"),
    ("a\u202egnp", "a_gnp"), ("con", "_con"), ("NUL", "_NUL"), ("Com1.png", "_Com1.png"), ("lpt¹", "_lpt¹"), ("aux .x", "_aux .x"), ("console", "console"),
    ('<>:"|?*', "_______"), ("\udcff\ud800x", "__x"), ("x" * 300, "x" * 120), ("é" * 300, "é" * 60), ("x" * 119 + " y", "x" * 119),
    (".mmgradcam-0", "mmgradcam-0"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name"), NAMES, ids=[repr(text[:20]) for text, _ in NAMES])
def test_names_are_made_safe(text: str, name: str, tmp_path: Path) -> None:
    assert safe_name(text) == name
    assert safe_name(name) == name, "what is safe stays as it is"
    assert len(name.encode()) <= LONGEST
    folder = write_new_folder(tmp_path, safe_name(text), OLD)
    assert folder.parent == tmp_path
    assert os.listdir(tmp_path) == [name]


def test_names_are_unique_whatever_was_there(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    made = [
        write_new_folder(tmp_path, name, OLD).name
        for name in ("photo.png", "Photo.PNG", "photo.png-2", "link", "empty", "É", "é")
    ]
    assert made == ["photo.png-2", "Photo.PNG-3", "photo.png-2-2", "link-2", "empty-2", "É", "é-2"]
    assert (tmp_path / "photo.png").read_bytes() == b"mine"
    assert left(tmp_path) == []


def test_two_writers_of_one_name_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one comes first, after this one has looked."""
    real = os.listdir

    def late(path: Any) -> list[str]:
        seen = real(path)
        if not (tmp_path / "photo").exists() and Path(path) == tmp_path:
            (tmp_path / "photo").mkdir()
            (tmp_path / "photo" / "theirs").touch()
        return seen

    monkeypatch.setattr(os, "listdir", late)
    assert write_new_folder(tmp_path, "photo", OLD) == tmp_path / "photo-2"
    assert real(tmp_path / "photo") == ["theirs"]


def test_names_of_other_texts_are_others() -> None:
    assert distinct_name("2007_000033") == "2007_000033"
    assert distinct_name("a/b") != distinct_name("a_b") != distinct_name("a:b")
    assert distinct_name("x" * 300) != distinct_name("x" * 301)
    assert len(distinct_name("x" * 300).encode()) < 143


# JSON


def test_json_is_json_whatever_it_holds() -> None:
    import numpy as np

    told = {
        "nan": float("nan"), "inf": [float("inf"), (-float("inf"), 1.5)], "numpy": np.float32(0.5), "none": np.float64("nan"),
        "count": np.int64(3), "yes": np.bool_(True), "text": "é\udcff", 4: None, "path": Path("a"), "\ud800": True,
    }  # fmt: skip
    read = json.loads(to_json(told), parse_constant=lambda name: pytest.fail(name))
    assert read == {
        "nan": None, "inf": [None, [None, 1.5]], "numpy": 0.5, "none": None, "count": 3, "yes": True, "text": "é\ufffd", "4": None,
        "path": "a", "\ufffd": True,
    }  # fmt: skip
    assert to_json(told).encode()
    assert to_json(told, ascii_only=True).isascii()
    assert json.loads(to_json(told, ascii_only=True)) == read


def test_an_exchanged_folder_keeps_its_mode_and_what_others_wrote_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    write_folder(folder, OLD)
    folder.chmod(0o700)
    real = writing._swapped

    def late(one: Path, other: Path) -> bool:
        (folder / "theirs").write_bytes(b"mine")
        return real(one, other)

    monkeypatch.setattr(writing, "_swapped", late)
    write_folder(folder, NEW)
    assert held(folder) == {**there(NEW), "theirs": b"mine"}
    assert folder.stat().st_mode & 0o777 == 0o700
