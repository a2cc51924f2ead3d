"""Whatever people give, they get an explanation or one line: no traceback, no hang, no half-written file. `make fuzz` runs
2,000 cases.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import complaints
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmgradcam import Explanation, InputError, ModelError, explain
from mmgradcam.tasks import load

pytestmark = pytest.mark.slow

SECONDS = 60
"""Longer than any of these takes on a busy machine; what takes longer hangs."""


def fuzzed(count: int) -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=checks)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"still running after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def command(*args: str) -> Ran:
    """The command line in this process; an exception that is no exit fails the test with its traceback."""
    from mmgradcam import cli

    out, err, argv, shown = io.StringIO(), io.StringIO(), sys.argv, warnings.showwarning
    sys.argv = ["mmgradcam", *args]
    code = 0
    try:
        with no_hang(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("default")
            cli.main()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    finally:
        sys.argv, warnings.showwarning = argv, shown
    assert code in (0, 1, 2), (args, code)
    assert "Traceback" not in out.getvalue() + err.getvalue()
    if code:
        assert err.getvalue().strip(), f"exit status {code} without a word: {args}"
    if code == 1:
        assert all(line.startswith("mmgradcam: ") for line in complaints(err.getvalue())), err.getvalue()
    return Ran(code, out.getvalue(), err.getvalue())


def no_number(name: str) -> None:
    pytest.fail(f"{name} is not JSON")


def one_line(error: InputError) -> bool:
    return len(str(error).splitlines()) == 1


def check_whole(folder: Path) -> None:
    """Every file below a folder is whole, and none is left over from writing."""
    for path in (p for p in folder.rglob("*") if p.is_file()):
        assert not path.name.startswith("."), f"left over: {path}"
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"), parse_constant=no_number)
        elif path.suffix == ".npz":
            assert zipfile.ZipFile(path).testzip() is None
            Explanation.load(path.parent)
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".html":
            assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


@pytest.fixture(scope="module")
def captioner(folders: dict[str, Path]) -> Any:
    return load(folders["captioner"], device="cpu")


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"]
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "JPEG2000", "SGI", "PCX", "DDS", "MPO"]
SIDES = st.one_of(st.integers(1, 12), st.sampled_from([16, 33, 64, 200]))


@st.composite
def pictures(draw: st.DrawFn) -> tuple[bytes, str]:
    """The bytes of a picture of any mode, format and orientation, and the ending it goes by."""
    width, height, mode = draw(SIDES), draw(SIDES), draw(st.sampled_from(MODES))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    with contextlib.suppress(ValueError):
        image = image.convert("L").convert(mode) if mode in ("I", "I;16", "F") else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = draw(st.integers(0, 9))
    data = io.BytesIO()
    kind = draw(st.sampled_from(FORMATS))
    try:
        image.save(data, kind, exif=exif.tobytes(), comment=b"<script>alert(1)</script>")
    except (OSError, ValueError, KeyError, TypeError, SystemError):
        data = io.BytesIO()
        Image.fromarray(values).save(data, "PNG")
    ending = draw(st.sampled_from([f".{kind.lower()}", ".png", ".jpg", "", ".txt", ".mp4"]))
    return data.getvalue(), ending


@st.composite
def broken(draw: st.DrawFn, source: bytes) -> bytes:
    """Bytes with some changed, left out, doubled or put in."""
    data = bytearray(source)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 4)):
            case 0 if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[at:]
            case 2:
                del data[at : at + draw(st.integers(1, 32))]
            case 3:
                data[at:at] = draw(st.binary(max_size=32))
            case _:
                data[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


TEXT = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(codec=None, exclude_categories=[]), max_size=40),
    st.sampled_from(
        ["", " ", "\n", "a\nred cube", "a red cube " * 60, "\ud800", "\x00", "a \u202e red", "é" * 300, "<b>a</b>", "赤い球"]
    ),
    st.lists(st.sampled_from(["a", "red", "cube", "and", "zebra", "?", "t-shirt", "2.5", "what's"]), max_size=40).map(" ".join),
)
NAME = st.text(st.characters(exclude_characters="/\x00", codec="utf-8"), min_size=1, max_size=90).filter(
    lambda n: n not in (".", "..")
)


@fuzzed(600)
@given(data=st.data(), picture=pictures())
def test_pictures(data: st.DataObject, picture: tuple[bytes, str], captioner: Any, place: Path) -> None:
    content, ending = picture
    path = place / f"x{ending}"
    path.write_bytes(data.draw(broken(content)))
    try:
        with no_hang():
            made = explain(captioner, path, caption="a red cube")
    except InputError as error:
        if not one_line(error):
            raise
        return
    assert len(made) == 3
    assert np.isfinite(made.maps.numpy()).all()


@fuzzed(150)
@given(data=st.data(), picture=pictures())
def test_pictures_on_the_command_line(
    data: st.DataObject, picture: tuple[bytes, str], folders: dict[str, Path], place: Path
) -> None:
    path, out = place / f"x{picture[1]}", Path(tempfile.mkdtemp(dir=place))
    path.write_bytes(data.draw(broken(picture[0])))
    command("caption", str(path), "--model", str(folders["captioner"]), "--caption", "a red cube", "--out", str(out))
    check_whole(out)


@fuzzed(300)
@given(names=st.lists(NAME, min_size=1, max_size=2))
def test_names(names: list[str], folders: dict[str, Path], place: Path) -> None:
    source, out = Path(tempfile.mkdtemp(dir=place)), Path(tempfile.mkdtemp(dir=place))
    paths = []
    for name in names:
        with contextlib.suppress(OSError):
            Image.new("RGB", (16, 16), "red").save(source / name, "PNG")
            paths.append(str(source / name))
    before = {path: Path(path).read_bytes() for path in paths}
    done = command("caption", *paths, "--model", str(folders["captioner"]), "--caption", "a cube", "--out", str(out))
    check_whole(out)
    assert {path: Path(path).read_bytes() for path in paths} == before, "a picture was overwritten"
    assert not [p for p in place.iterdir() if p not in (source, out) and p.stat().st_mtime > source.stat().st_mtime + 1]
    if done.code == 0 and paths:
        assert len(list(out.rglob("explanation.json"))) == len(paths)


@fuzzed(250)
@given(caption=TEXT)
def test_captions(caption: str, captioner: Any, place: Path) -> None:
    with no_hang(), contextlib.suppress(InputError):
        made = explain(captioner, Image.new("RGB", (16, 16), "red"), caption=caption)
        made.save(place / "page.html")
        check_whole(place)


@fuzzed(250)
@given(question=TEXT, answer=st.one_of(st.none(), TEXT), contrast=st.one_of(st.none(), TEXT))
def test_questions(question: str, answer: str | None, contrast: str | None, folders: dict[str, Path], place: Path) -> None:
    Image.new("RGB", (16, 16), "red").save(place / "x.png")
    more = [*(["--answer", answer] if answer is not None else []), *(["--contrast", contrast] if contrast is not None else [])]
    out = Path(tempfile.mkdtemp(dir=place))
    command("vqa", str(place / "x.png"), "--model", str(folders["vqa"]), f"--question={question}", *more, "--out", str(out))
    check_whole(out)


OPTIONS: dict[str, st.SearchStrategy[str]] = {
    "--method": st.sampled_from(["gradcam", "layercam", "gradcan", "", "gradcam_pp", "eigencam", "mean", "__init__", "cam"]),
    "--layer": st.sampled_from(["features", "stages.0", "stages", "", "x" * 300, "stem", "stages.0.0.0.0"]),
    "--smoothgrad": st.sampled_from(["0", "1", "2", "-1", "x", "1e9", "1000000000", "999999999999999999999"]),
    "--device": st.sampled_from(["cpu", "auto", "cuda:99", "meta", "", "cpu:0", "tpu", "mps"]),
    "--caption": TEXT,
    "--prompt": TEXT,
    "--model": st.sampled_from(["scenes", "/", ".", "~", "torchvision:", "timm:", "x.py:", "x.py:y", "a/b", "\x00", "\ud800"]),
    "--out": st.sampled_from(["", ".", "/dev/null", "/dev/null/x", "x" * 300, "a\nb"]),
    "--grounding": st.just(""),
}


@fuzzed(200)
@given(chosen=st.dictionaries(st.sampled_from(sorted(OPTIONS)), st.integers(), max_size=3).flatmap(lambda d: st.fixed_dictionaries({k: OPTIONS[k] for k in d})))  # fmt: skip
def test_options(chosen: dict[str, str], folders: dict[str, Path], place: Path) -> None:
    Image.new("RGB", (16, 16), "red").save(place / "x.png")
    flags = [k if k == "--grounding" else f"{k}={v}" for k, v in chosen.items()]
    defaults = {"--model": str(folders["captioner"]), "--out": str(place / "out"), "--caption": "a cube"}
    flags += [f"{k}={v}" for k, v in defaults.items() if k not in chosen]
    with contextlib.chdir(place):
        command("caption", "x.png", *flags)
    check_whole(place)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=8,
)


@fuzzed(150)
@given(data=st.data(), value=JSON)
def test_edited_descriptions(data: st.DataObject, value: Any, captioner: Any, place: Path) -> None:
    """One value of the description is replaced or left out."""
    made = explain(captioner, Image.new("RGB", (16, 16), "red"), caption="a red cube")
    (path,) = made.save(place / "x.npz")
    with np.load(path) as kept:
        arrays = dict(kept)
    described = json.loads(str(arrays["description"]))
    at: Any = described
    while True:
        keys = sorted(at) if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else []
        if not keys:
            break
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(at[key], (dict, list)) or not at[key] or data.draw(st.booleans()):
            if data.draw(st.booleans()):
                at[key] = value
            else:
                del at[key]
            break
        at = at[key]
    np.savez(path, **{**arrays, "description": np.array(json.dumps(described))})
    loaded(path)


@fuzzed(100)
@given(data=st.data())
def test_damaged_archives(data: st.DataObject, captioner: Any, place: Path) -> None:
    """Bytes of the archive change, or an array is replaced by another."""
    made = explain(captioner, Image.new("RGB", (16, 16), "red"), caption="a red cube")
    (path,) = made.save(place / "x.npz")
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(broken(path.read_bytes())))
    else:
        with np.load(path) as kept:
            arrays = dict(kept)
        shape = tuple(data.draw(st.lists(st.integers(0, 5), max_size=4)))
        kind = data.draw(st.sampled_from(["f4", "f8", "u1", "i8", "U3", "c8", "?"]))
        arrays[data.draw(st.sampled_from(sorted(arrays)))] = np.zeros(shape, kind)
        np.savez(path, **arrays)
    loaded(path)


def loaded(path: Path) -> None:
    """What was taken can be drawn and described; what was not is one line."""
    try:
        with no_hang():
            made = Explanation.load(path)
    except InputError as error:
        if not one_line(error) or os.fspath(path) not in str(error):
            raise
        return
    with no_hang(), contextlib.suppress(ModelError):
        made.panels()
        made.save(path.parent / "again")
    check_whole(path.parent / "again")
