"""Pictures as users have them: every mode, orientation and kind of damage."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import socket
import struct
import zlib
from dataclasses import replace
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmgradcam import InputError, Target, Task, explain, hirescam
from mmgradcam.explaining.model_input import baseline_input, model_input_of
from mmgradcam.images.clips import Clip
from mmgradcam.images.pictures import (
    MOST_PIXELS,
    NOWHERE,
    Preprocess,
    TracedPreprocess,
    _within,
    formats,
    iou,
    of_tiles,
    open_picture,
    picture_hash,
    whole,
    within_limits,
)
from mmgradcam.render.heatmaps import highest, over_time, scaled, upsample


def saved(image: Image.Image, path: Path, **settings: Any) -> Path:
    image.save(path, **settings)
    return path


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "YCbCr"])
def test_every_mode_becomes_rgb_and_looks_the_same(tmp_path: Path, mode: str) -> None:
    red = Image.new("RGB", (20, 12), (200, 30, 40))
    suffix = ".jpg" if mode in ("CMYK", "YCbCr") else ".png"
    opened = open_picture(saved(red.convert(mode), tmp_path / f"a{suffix}"))
    expected = np.asarray(red.convert(mode).convert("RGB"), dtype=int)
    assert (opened.mode, opened.size) == ("RGB", (20, 12))
    assert np.abs(np.asarray(opened, dtype=int) - expected).max() <= 4


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    assert np.asarray(open_picture(clear)).min() == 255
    palette = Image.new("P", (10, 10), 0)
    palette.putpalette([0, 0, 0] * 256)
    palette.info["transparency"] = 0
    assert np.asarray(open_picture(palette)).min() == 255


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    ramp = (np.arange(16 * 16).reshape(16, 16) * 257).astype(np.uint16)
    opened = np.asarray(open_picture(saved(Image.fromarray(ramp), tmp_path / "a.png")))
    assert np.abs(opened[..., 0].astype(int) - ramp // 257).max() <= 1


@pytest.mark.parametrize(
    ("mode", "highest", "expected"),
    [
        ("F", 0.5, 127), ("F", 1.0, 255), ("F", 1.25, 255), ("F", 16.0, 255), ("F", 17.0, 17), ("F", 200.0, 200), ("F", 255.0, 255),
        ("F", 256.0, 0), ("F", 30000.0, 116), ("F", 65535.0, 255), ("F", 1e6, 255), ("I", 1, 1), ("I", 200, 200), ("I", 255, 255),
        ("I", 256, 0), ("I", 30000, 116), ("I", 65535, 255), ("I", 65536, 255), ("I", 10**9, 255), ("I;16", 200, 200),
        ("I;16", 257, 1), ("I;16", 65535, 255), ("I;16B", 200, 200), ("I;16B", 30000, 116),
    ],
)  # fmt: skip
def test_grey_values_of_more_bits_are_scaled_by_what_holds_them(mode: str, highest: float, expected: int) -> None:
    """By 1, 255, 65535 or their own maximum: a picture of 8-bit values in a wider type is not black, nor one of 16 bits white."""
    kinds = {"F": np.float32, "I": np.int32, "I;16": np.uint16, "I;16B": ">u2"}
    values = np.zeros((8, 10), kinds[mode])  # type: ignore[call-overload]
    values[2, 3], values[4, 5] = highest, highest / 2
    image = Image.fromarray(values)
    assert image.mode == mode
    opened = np.asarray(open_picture(image)).astype(int)
    assert opened[2, 3].tolist() == [expected] * 3
    assert abs(opened[4, 5, 0] - expected / 2) <= 1
    assert opened.sum() == 3 * (opened[2, 3, 0] + opened[4, 5, 0])


def test_values_below_0_are_black() -> None:
    values = np.full((8, 8), -1000.0, np.float32)
    assert np.asarray(open_picture(Image.fromarray(values))).max() == 0
    values[0, 0] = 1.0
    assert sorted({int(v) for v in np.asarray(open_picture(Image.fromarray(values))).ravel()}) == [0, 255]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_numbers_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="the picture: holds values that are not numbers"):
        open_picture(Image.fromarray(np.array([[0.5, value] * 5] * 8, dtype=np.float32)))


def coarse() -> np.ndarray[Any, Any]:
    """A picture (32, 48, 3) of squares of random colors."""
    return np.kron(np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))


def png(depth: int, kind: int, rows: np.ndarray[Any, Any]) -> bytes:
    """A PNG of (height, bytes) rows, of depths that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 48, 32, depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def written(path: Path, image: Image.Image, **settings: Any) -> bytes:
    image.save(path, **settings)
    return path.read_bytes()


def unusual(folder: Path) -> dict[str, bytes]:
    """Files of one picture, all without loss or nearly."""
    rgb = coarse()
    image, wide = Image.fromarray(rgb), (rgb.astype(np.uint16) * 257).astype(">u2")
    full = np.full((32, 48, 1), 65535, ">u2")
    other = Image.fromarray(255 - rgb)
    made = {
        f"{name} {settings}": written(folder / f"a.{name}", image, **settings)
        for name, settings in (
            *[(name, {}) for name in ("png", "bmp", "ppm", "tga", "pcx", "sgi", "jp2", "qoi", "dds", "dib")],
            *[("tif", {"compression": how}) for how in ("tiff_lzw", "tiff_deflate", "packbits", "tiff_adobe_deflate")],
            ("tif", {"big_tiff": True}),
            *[("jpg", {"quality": 100, "subsampling": 0, **more}) for more in ({}, {"progressive": True})],
            *[(name, {"lossless": True, "save_all": True, "append_images": [other]}) for name in ("webp", "tif", "png")],
            ("webp", {"lossless": True}),
            ("avif", {"quality": 100, "subsampling": "4:4:4"}),
            ("mpo", {"quality": 100, "subsampling": 0, "save_all": True, "append_images": [other]}),
        )
    }
    return made | {
        "16 bits of RGB": png(16, 2, wide),
        "16 bits of RGBA": png(16, 6, np.concatenate([wide, full], -1)),
        "a palette of 24": written(folder / "p.png", image.quantize(24, dither=Image.Dither.NONE)),
        "an animated GIF": written(folder / "p.gif", image.quantize(24), save_all=True, append_images=[other.quantize(24)]),
        "CMYK": written(folder / "c.tif", image.convert("CMYK")),
        "a JPEG of CMYK": written(folder / "c.jpg", image.convert("CMYK"), quality=100, subsampling=0),
        "Lab": written(folder / "lab.tif", to_lab(image)),
        "RGBX": written(folder / "x.tif", image.convert("RGBX")),
    }


def to_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    made = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    assert made is not None
    return made


def test_good_but_unusual_files_are_read(tmp_path: Path) -> None:
    files = unusual(tmp_path)
    assert len(files) > 28
    for name, data in files.items():
        (tmp_path / "file").write_bytes(data)  # what it is, is not in its name
        opened = np.asarray(open_picture(tmp_path / "file"), dtype=int)
        assert np.abs(opened - coarse()).max() <= (30 if name == "Lab" else 16 if "a JPEG" in name else 12), name
        assert np.abs(opened - coarse()).mean() < 4, name


def test_grey_files_of_every_depth_are_read(tmp_path: Path) -> None:
    grey = coarse()[..., 0]
    wide = (grey.astype(np.uint16) * 257).astype(">u2")
    files = {16: png(16, 0, wide), "alpha": png(16, 4, np.stack([wide, np.full_like(wide, 65535)], -1)), 8: png(8, 0, grey)}
    for bits in (1, 2, 4):
        packed = np.unpackbits((grey >> (8 - bits))[..., None], axis=-1)[..., 8 - bits :].reshape(32, -1)
        files[bits] = png(bits, 0, np.packbits(packed, axis=1))
    for name, data in files.items():
        (tmp_path / "a.png").write_bytes(data)
        bits = name if isinstance(name, int) and name < 8 else 8
        expected = (grey >> (8 - bits)).astype(int) * 255 // (2**bits - 1)
        opened = np.asarray(open_picture(tmp_path / "a.png")).astype(int)
        assert (opened == expected[..., None]).all(), name
    with Image.fromarray(grey.astype(np.uint16) * 257) as image:
        for byte_order in ("I;16", "I;16B"):
            written(tmp_path / "a.tif", Image.fromarray(np.asarray(image).astype(">u2" if byte_order == "I;16B" else "<u2")))
            assert (np.asarray(open_picture(tmp_path / "a.tif"))[..., 0] == grey).all(), byte_order


def test_half_transparent_pixels_lie_half_on_white() -> None:
    values = np.zeros((8, 8, 4), np.uint8)
    values[..., 0], values[..., 3] = 200, 128
    image = Image.fromarray(values)
    for one in (image, image.convert("RGBa"), image.convert("LA"), image.convert("LA").convert("La")):
        opened = np.asarray(open_picture(one)).astype(int)
        grey = one.mode in ("LA", "La")
        expected = [255 - 128 / 255 * (255 - v) for v in ([200 * 0.299] * 3 if grey else [200, 0, 0])]
        assert np.abs(opened - expected).max() <= 2, one.mode


def test_only_pixels_are_taken(tmp_path: Path) -> None:
    """No comment, EXIF, XMP, text or profile of a picture comes to lie in what is made of it."""
    from PIL import ImageCms, PngImagePlugin

    secret, image = b"my secret address", Image.fromarray(coarse())
    exif = Image.Exif()
    exif[0x010E] = secret.decode()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + secret
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", secret.decode())
    common = {"exif": exif, "icc_profile": profile}
    files = {
        "a.jpg": {**common, "comment": secret, "xmp": secret}, "a.png": {**common, "pnginfo": text}, "a.webp": {**common, "xmp": secret},
        "a.tif": {**common, "description": secret.decode()}, "a.gif": {"comment": secret},
    }  # fmt: skip
    for name, settings in files.items():
        path = saved(image, tmp_path / name, **settings)
        assert secret in path.read_bytes()
        with Image.open(path) as lazy:
            for source in (path, lazy):
                opened = open_picture(source)
                assert opened.info == {}
                for suffix in ("png", "jpeg", "webp", "gif", "tiff"):
                    data = io.BytesIO()
                    opened.save(data, suffix)
                    assert secret not in data.getvalue(), (name, suffix)
                explain(Light("pad"), source).save(tmp_path / "out")
                for file in (tmp_path / "out").iterdir():
                    assert secret not in file.read_bytes(), (name, file.name)
                    assert base64.b64encode(secret)[2:-4] not in file.read_bytes()


def test_a_picture_given_stays_as_it_is() -> None:
    image = Image.fromarray(coarse())
    image.info["comment"] = "mine"
    opened = open_picture(image)
    assert opened is not image
    assert image.info == {"comment": "mine"}


ARRAYS: dict[str, tuple[Any, Any]] = {
    "bytes": (coarse(), coarse()),
    "one channel": (coarse()[..., :1], coarse()[..., [0, 0, 0]]),
    "grey": (coarse()[..., 0], coarse()[..., [0, 0, 0]]),
    "whole numbers": (coarse().astype(int), coarse()),
    "16 bits": (coarse().astype(np.uint16) * 257, coarse()),
    "8 bits in 16": (coarse().astype(np.uint16), coarse()),
    "255 in 16 bits": (np.full((8, 8), 255, np.uint16), np.full((8, 8, 3), 255)),
    "256 in 16 bits": (np.full((8, 8), 256, np.uint16), np.full((8, 8, 3), 1)),
    "truths": (coarse()[..., 0] > 128, (coarse()[..., [0, 0, 0]] > 128) * 255),
    "floats": (coarse() / 255, coarse()),
    "floats of 16 bits": ((coarse() / 255).astype(np.float16), coarse()),
    "floats of the other order": ((coarse() / 255).astype(">f4"), coarse()),
    "turned round": (coarse()[::-1, ::-1], coarse()[::-1, ::-1]),
    "columns first": (np.asfortranarray(coarse()), coarse()),
    "transparent": (np.concatenate([coarse(), np.zeros((32, 48, 1), np.uint8)], -1), np.full((32, 48, 3), 255)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_kind_are_read(name: str) -> None:
    array, expected = ARRAYS[name]
    assert (np.asarray(open_picture(array)) == expected).all()


def test_paths_of_every_kind_and_open_files_are_read(tmp_path: Path) -> None:
    class Region:
        def __fspath__(self) -> str:
            return str(tmp_path / "a.png")

    path = saved(Image.fromarray(coarse()), tmp_path / "a.png")
    with path.open("rb") as file:
        for source in (path, str(path), PurePath(path), Region(), file, io.BytesIO(path.read_bytes())):
            assert (np.asarray(open_picture(source)) == coarse()).all()
    assert explain(Light("pad"), Region()).metadata.image_name == "a.png"
    assert explain(Light("pad"), io.BytesIO(path.read_bytes())).metadata.image_name == ""


NAMES = [
    "-x.png",
    "a b",
    "ü",
    "\U0001f600.png",
    "x.PNG",
    ".hidden",
    "%s",
    "a\nb.png",
    "a\x1b[31m.png",
    "\u202egnp.a",
    "x" * 251 + ".png",
    "#?",
]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"\xff\xfe.png")])
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    saved(Image.fromarray(coarse()), tmp_path / "a.png").rename(tmp_path / name)
    made = explain(Light("pad"), tmp_path / name)
    assert made.metadata.image_name == name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    made.save(tmp_path / "out")
    (tmp_path / name).write_bytes(b"no")
    with pytest.raises(InputError, match="not a picture") as refusal:
        open_picture(tmp_path / name)
    assert len(str(refusal.value).splitlines()) == 1
    str(refusal.value).encode()


def hostile(folder: Path) -> dict[str, tuple[Any, str]]:
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n{} loop\n")
    listening = socket.socket(socket.AF_UNIX)
    os.chdir(folder)  # a socket's name is short
    listening.bind("socket.png")
    listening.close()
    (folder / "dangling.png").symlink_to(folder / "nothing")
    return {
        "a pipe": (folder / "pipe.png", "got a pipe; save what it holds to a file first"),
        "a socket": (folder / "socket.png", "got a socket"),
        "a device": ("/dev/null", "got a device"),
        "a device that never ends": (folder / "zero.png", "got a device"),
        "a link to itself": (folder / "loop.png", "cannot be opened (Too many levels of symbolic links)"),
        "a link to nothing": (folder / "dangling.png", "no such file"),
        "a long name": (folder / ("x" * 256 + ".png"), "cannot be opened (File name too long)"),
        "a name with a NUL": (f"{folder}/a\0.png", "cannot be opened"),
        "a name that is no text": ("\ud800.png", "cannot be opened"),
        "a file as a folder": (folder / "page.eps" / "a.png", "no such file"),
        "an empty name": ("", "got a folder"),
        "an address": ("http://localhost/a.png", "no such file"),
        "PostScript": (folder / "page.eps", "not a picture in a format Pillow reads"),
        "bytes": (b"x", "got bytes"),
        "text in a file": (io.StringIO("x"), "the file is damaged or cannot be read"),
        "nothing": (io.BytesIO(), "not a picture"),
        "floats over 1": (np.full((9, 9), 1.5), "got float64 in 1.5..1.5"),
        "floats that are none": (np.full((9, 9), np.nan), "got float64 in nan..nan"),
        "numbers over 255": (np.full((9, 9), 256), "got int64 in 256..256"),
        "numbers below 0": (np.full((9, 9), -1), "got int64 in -1..-1"),
        "wide numbers": (np.full((9, 9), 70000, np.uint32), "got uint32 in 70000..70000"),
        "two channels": (np.zeros((9, 9, 2), np.uint8), "got (9, 9, 2)"),
        "channels first": (np.zeros((3, 9, 9), np.uint8), "got (3, 9, 9)"),
        "one dimension": (np.zeros(9, np.uint8), "got (9,)"),
        "texts": (np.full((9, 9), "x"), "got <U1"),
        "objects": (np.full((9, 9), None), "got object"),
        "complex": (np.zeros((9, 9), complex), "got complex128"),
        "no rows": (np.zeros((0, 9, 3), np.uint8), "expected at least 8 x 8 pixels, got 9 x 0"),
        "7 rows": (np.zeros((7, 8, 3), np.uint8), "expected at least 8 x 8 pixels, got 8 x 7"),
        "7 columns": (np.zeros((8, 7, 3), np.uint8), "expected at least 8 x 8 pixels, got 7 x 8"),
    }


def test_what_never_ends_or_is_no_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (source, message) in hostile(tmp_path).items():
        with pytest.raises(InputError, match=re.escape(message)) as refusal:
            open_picture(source)
        assert len(str(refusal.value).splitlines()) == 1, name


def test_a_folder_without_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, **settings: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(InputError, match=r"a.png: cannot be opened \(Permission denied\)"):
        open_picture(tmp_path / "a.png")


def test_a_picture_whose_file_was_closed_or_cut_is_said(tmp_path: Path) -> None:
    path = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), tmp_path / "a.png")
    closed = Image.open(path)
    closed.close()
    path.write_bytes(path.read_bytes()[:-4000])
    with Image.open(path) as cut:
        for image in (closed, cut):
            with pytest.raises(InputError, match="the picture is damaged or its file was closed"):
                open_picture(image)


def test_exactly_8_pixels_a_side_and_100_million_in_all_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_picture(Image.new("RGB", (8, 8))).size == (8, 8)
    monkeypatch.setattr("mmgradcam.images.pictures.MOST_PIXELS", 200)
    assert open_picture(Image.new("RGB", (20, 10))).size == (20, 10)
    with pytest.raises(InputError, match="the picture: 67 x 3 is over 200 pixels"):
        open_picture(Image.new("RGB", (67, 3)))


@pytest.mark.parametrize("damage", range(20))
def test_a_damaged_exif_block_does_not_hide_the_picture(tmp_path: Path, damage: int) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 1, "text"
    data = bytearray(exif.tobytes())
    random = np.random.default_rng(damage)
    for _ in range(3):
        data[random.integers(6, len(data))] = random.integers(256)
    for name in ("a.png", "a.jpg"):
        opened = open_picture(saved(Image.fromarray(coarse()), tmp_path / name, exif=bytes(data)))
        assert sorted(opened.size) == [32, 48]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste((255, 255, 255), (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = np.asarray(open_picture(saved(image, tmp_path / "a.jpg", exif=exif, quality=95)))
    assert opened.shape == (40, 20, 3)
    assert opened[:8].mean() > 200
    assert opened[14:].mean() < 50


def refusals(folder: Path) -> dict[str, tuple[Any, str]]:
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("not a picture")
    good = saved(Image.new("RGB", (64, 64), "red"), folder / "good.png")
    (folder / "cut.png").write_bytes(good.read_bytes()[:-30])
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    jpeg = saved(Image.fromarray(noise), folder / "good.jpg")
    (folder / "cut.jpg").write_bytes(jpeg.read_bytes()[:2000])
    return {
        "missing": (folder / "none.png", "no such file; give the path of a picture"),
        "a folder": (folder, "expected a picture (PNG, JPEG, WebP, ...), got a folder; name the files in it"),
        "empty": (folder / "empty.png", "not a picture in a format Pillow reads"),
        "text": (folder / "text.jpg", "not a picture in a format Pillow reads"),
        "cut png": (folder / "cut.png", "the file is damaged"),
        "cut jpeg": (folder / "cut.jpg", "the file is damaged"),
        "one pixel": (Image.new("RGB", (1, 1)), "expected at least 8 x 8 pixels, got 1 x 1"),
        "a line": (Image.new("RGB", (400, 1)), "expected at least 8 x 8 pixels, got 400 x 1"),
        "huge": (Image.new("1", (20000, 20000)), "20000 x 20000 is over 100,000,000 pixels"),
        "a number": (3, "expected a picture (path, file, Pillow image, array or tensor), got int"),
        "a wrong array": (
            np.zeros((4, 5, 6, 7)),
            "expected an array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got (4, 5, 6, 7)",
        ),
        "a signed array": (np.full((9, 9), -1.0), "expected an array of uint8, of integers in 0..255, or of floats in 0..1"),
    }


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, (source, message) in refusals(tmp_path).items():
        with pytest.raises(InputError, match=re.escape(message)) as refusal:
            open_picture(source)
        assert "\n" not in str(refusal.value), name


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    side = int(MOST_PIXELS**0.5) + 1
    bomb = saved(Image.new("1", (side, side)), tmp_path / "bomb.png")
    with pytest.raises(InputError, match=f"is over {MOST_PIXELS:,} pixels"):
        open_picture(bomb)


def test_the_hash_tells_pictures_apart() -> None:
    flat, tall = Image.new("RGB", (20, 10)), Image.new("RGB", (10, 20))
    assert picture_hash(flat) == picture_hash(flat.copy())
    assert picture_hash(flat) != picture_hash(tall)


class Light(Task):
    """The features are the picture's own brightness in 8 x 8 cells, so the map must show the bright spot where it is."""

    def __init__(self, how: str, size: tuple[int, int] = (64, 64)) -> None:
        self.prepare = Preprocess(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), how)  # type: ignore[method-assign]

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 8)

    def targets(self, features: torch.Tensor) -> list[Target]:
        return [Target("light")]

    def score(self, features: torch.Tensor, targets: Any) -> torch.Tensor:
        return features.flatten(1).sum(1)


@pytest.mark.parametrize("how", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("size", [(300, 120), (90, 280), (128, 128)])
def test_maps_land_where_they_belong(how: str, size: tuple[int, int]) -> None:
    """Light up a spot of a landscape, portrait or square picture; the peak of the map is the spot."""
    width, height = size
    for fx, fy in [(0.5, 0.5), (0.42, 0.62), (0.6, 0.38)]:
        x, y = int(fx * width), int(fy * height)
        image = Image.new("RGB", size)
        image.paste((255, 255, 255), (x - 12, y - 12, x + 12, y + 12))
        inside = how != "crop" or (abs(x - width / 2) < min(size) / 2 - 12 and abs(y - height / 2) < min(size) / 2 - 12)
        if not inside:
            continue
        made = explain(Light(how), image, method=hirescam)
        assert made.heat().shape == (height, width)
        assert made.peak is not None
        cell = max(size) / 8 if how == "pad" else max(width, height) / 8
        assert abs(made.peak[0] - x) <= cell / 2 + 1
        assert abs(made.peak[1] - y) <= cell / 2 + 1


def test_what_a_crop_cuts_off_has_no_heat() -> None:
    made = explain(Light("crop"), Image.new("RGB", (200, 100), "white"), method=hirescam)
    heat = made.heat()
    assert not heat[:, :50].any()
    assert not heat[:, 150:].any()
    assert heat[:, 50:150].all()


BOXES = {
    "a crop": (0.2, 0.3, 0.7, 0.9),
    "its mirror image": (0.3, 0.1, 0.8, 0.7),
    "all": (0.0, 0.0, 1.0, 1.0),
    "padded": (-0.25, 0.2, 1.25, 0.8),
    "narrow": (0.42, 0.0, 0.58, 1.0),
}


@pytest.mark.parametrize("name", BOXES)
def test_heat_fills_the_box_the_model_saw_and_nothing_beyond(name: str) -> None:
    """Pixel by pixel, by the definition: 0 where a pixel's centre lies outside, else bilinear between the cells' centres."""
    x0, y0, x1, y1 = BOXES[name]
    maps = torch.rand(2, 3, 5, dtype=torch.float64) + 0.5
    expected, shown = torch.zeros(2, 20, 30), 0
    for y in range(20):
        for x in range(30):
            across, down = ((x + 0.5) / 30 - x0) / (x1 - x0), ((y + 0.5) / 20 - y0) / (y1 - y0)
            if 0 <= across <= 1 and 0 <= down <= 1:
                column, row = min(max(across * 5 - 0.5, 0), 4), min(max(down * 3 - 0.5, 0), 2)
                c, r = min(int(column), 3), min(int(row), 1)
                upper, lower = (maps[:, i, c] * (1 - column + c) + maps[:, i, c + 1] * (column - c) for i in (r, r + 1))
                expected[:, y, x] = upper * (1 - row + r) + lower * (row - r)
                shown += 1
    drawn = upsample(maps, BOXES[name], (20, 30))
    assert torch.equal(drawn > 0, expected > 0)
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=0)
    assert shown >= 3 * 20


TILES = ((-0.1, 0.0, 0.6, 1.0), (0.4, 0.1, 1.2, 0.93), (0.0, 0.2, 0.55, 0.8))


@pytest.mark.parametrize("size", [(20, 30), (61, 47), (3, 2), (9, 200)])
@pytest.mark.parametrize("name", [*BOXES, "tiles", "film"])
def test_the_highest_value_is_found_without_drawing_the_whole(name: str, size: tuple[int, int]) -> None:
    """It is the first largest pixel of what would be drawn, also of plateaus, and where all is 0."""
    torch.manual_seed(0)
    frames = 7 if name == "film" else None
    maps = torch.randn(40, *{"tiles": (3, 5, 4), "film": (3, 4, 4)}.get(name, (5, 4)))
    maps[0], maps[1], maps[2] = -1.0, 1.0, maps[2].round()
    box: Any = TILES if name == "tiles" else BOXES.get(name, BOXES["a crop"])
    drawn = upsample(maps, box, size) if frames is None else over_time(maps, box, frames, size)
    made = highest(maps, box, size, frames)
    for one, (top, place) in zip(drawn.numpy(), made, strict=True):
        assert top == pytest.approx(float(one.max()), abs=1e-6)
        assert one[place] == pytest.approx(float(one.max()), abs=1e-6)
        if (one > one.max() - 1e-6).sum() == 1 or not one.any():
            assert place == tuple(np.unravel_index(int(one.argmax()), one.shape))
    shares = scaled(maps, box, size, frames)
    again = upsample(shares, box, size) if frames is None else over_time(shares, box, frames, size)
    torch.testing.assert_close(again.flatten(1).amax(1), (drawn.flatten(1).amax(1) > 0).float(), atol=1e-5, rtol=0)


def test_what_padding_adds_is_cut() -> None:
    made = explain(Light("pad"), Image.new("RGB", (200, 50), "white"), method=hirescam)
    assert made.heat().all()
    assert made.box == (0.0, -1.5, 1.0, 2.5)


def test_a_wrong_fit_is_said() -> None:
    with pytest.raises(InputError, match='how="pad", "crop" or "stretch", got \'squash\''):
        Preprocess((8, 8), how="squash")


@pytest.mark.parametrize("shape", [(3, 5), (2, 8, 8), (3, 8, 8, 1, 1)])
def test_wrong_tensors_are_said(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=re.escape(f"got {shape} of torch.float32")):
        explain(Light("pad"), torch.zeros(shape))


def test_tensors_that_are_not_finite_are_said() -> None:
    with pytest.raises(InputError, match="not finite"):
        explain(Light("pad"), torch.full((3, 64, 64), float("nan")))


@pytest.mark.parametrize("how", ["pad", "crop", "stretch"])
@pytest.mark.parametrize(
    "size", [(8, 8), (13, 8), (20, 50), (64, 48), (48, 64), (100, 9), (9, 100), (33, 47), (700, 8), (8, 700)]
)
@pytest.mark.parametrize("wanted", [(32, 32), (24, 40), (41, 23)])
def test_fit_is_its_definition_written_out(how: str, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Each pixel of the plane is that of the resized picture at its place, or the mean color where there is none."""
    width, height = size
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))
    mean, std = (0.2, 0.5, 0.9), (0.25, 0.5, 2.0)
    made = Preprocess(wanted, mean, std, how)(image)
    across, down = wanted[1] / width, wanted[0] / height
    if how != "stretch":
        across = down = min(across, down) if how == "pad" else max(across, down)
    w, h = max(1, round(width * across)), max(1, round(height * down))
    resized = np.asarray(image.resize((w, h), Image.Resampling.BILINEAR))
    left, top = (wanted[1] - w) // 2, (wanted[0] - h) // 2
    assert made.pixels.shape == (3, *wanted)
    for y in range(wanted[0]):
        for x in range(wanted[1]):
            inside = 0 <= x - left < w and 0 <= y - top < h
            color = resized[y - top, x - left] if inside else [round(255 * m) for m in mean]
            for c in range(3):
                assert float(made.pixels[c, y, x]) == pytest.approx((color[c] / 255 - mean[c]) / std[c], abs=1e-6)
    assert made.box == pytest.approx((-left / w, -top / h, (wanted[1] - left) / w, (wanted[0] - top) / h))
    assert made.size is None


def test_fit_by_default_pads_with_middle_grey() -> None:
    assert Preprocess((3, 4)) == Preprocess((3, 4), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "pad", Image.Resampling.BILINEAR)


def test_fit_uses_the_filter_it_is_given() -> None:
    image = Image.fromarray(np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((4, 4), np.uint8))).convert("RGB")
    fits = {f: Preprocess((16, 16), (0, 0, 0), (1, 1, 1), resample=f)(image).pixels for f in (Image.Resampling.NEAREST, Image.Resampling.BILINEAR)}  # fmt: skip
    assert set(fits[Image.Resampling.NEAREST].unique().tolist()) == {0.0, 1.0}
    assert len(fits[Image.Resampling.BILINEAR].unique()) > 2


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 1.0),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),
        ((0, 0, 4, 2), (1, 0, 2, 2), 2 / 8),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0.0),
        ((0, 0, 1, 1), (3, 0, 4, 1), 0.0),
        ((0, 0, 1, 1), (0, 3, 1, 4), 0.0),
        ((0, 0, 1, 1), (3, 3, 4, 4), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
        ((-1, -2, 1, 2), (0, -1, 3, 1), 2 / 12),
    ],
)
def test_iou_worked_by_hand(one: Any, other: Any, expected: float) -> None:
    assert iou(one, other) == pytest.approx(expected)
    assert iou(other, one) == pytest.approx(expected)


def test_the_hash_is_that_of_size_and_pixels() -> None:
    image = Image.fromarray(coarse())
    assert picture_hash(image) == hashlib.sha256(b"48x32:" + coarse().tobytes()).hexdigest()


def test_a_whole_picture_is_its_values_in_0_to_1() -> None:
    made = whole(Image.fromarray(coarse()))
    assert (made.box, made.size, made.pixels.dtype) == ((0.0, 0.0, 1.0, 1.0), None, torch.float32)
    assert (made.pixels.numpy() == (coarse().astype(np.float32) / 255).transpose(2, 0, 1)).all()


def turned(image: Image.Image) -> torch.Tensor:
    return whole(image.transpose(Image.Transpose.ROTATE_90)).pixels


def part(x0: int, y0: int, x1: int, y1: int) -> Any:
    return lambda image: whole(image.crop((x0, y0, x1, y1)).resize((32, 24))).pixels


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda image: whole(image.resize((32, 24))).pixels, (0, 0, 1, 1)),
        (part(20, 10, 60, 40), (0.2, 0.125, 0.6, 0.5)),
        (part(-20, -40, 120, 100), (-0.2, -0.5, 1.2, 1.25)),
        (lambda image: 1 - part(20, 10, 60, 40)(image) * 2, (0.2, 0.125, 0.6, 0.5)),
        (lambda image: part(20, 10, 60, 40)(image).flip(2), (0.6, 0.125, 0.2, 0.5)),
        (lambda image: part(20, 10, 60, 40)(image).flip(1), (0.2, 0.5, 0.6, 0.125)),
        (lambda image: torch.stack([part(0, 0, 50, 80)(image), part(50, 0, 100, 80)(image)]), ((0, 0, 0.5, 1), (0.5, 0, 1, 1))),
        (lambda image: torch.stack([part(0, 0, 50, 80)(image), torch.zeros(3, 24, 32)]), ((0, 0, 0.5, 1), NOWHERE)),
    ],
)
def test_the_box_of_any_preprocessing_is_found(prepare: Any, expected: Any) -> None:
    seen = TracedPreprocess(prepare)
    box = seen(Image.new("RGB", (100, 80), "red")).box
    assert len(box) == len(expected)
    for found, wanted in zip(box, expected, strict=True):
        assert found == pytest.approx(wanted, abs=0.025)
    assert seen.box((100, 80)) is box
    assert torch.equal(seen(Image.new("RGB", (100, 80), "red")).pixels, prepare(Image.new("RGB", (100, 80), "red")))


def test_the_box_of_a_picture_of_few_pixels_is_found_to_a_fraction_of_one() -> None:
    for size in ((16, 12), (12, 16)):
        assert TracedPreprocess(lambda image: whole(image).pixels).box(size) == pytest.approx((0, 0, 1, 1), abs=0.005)
        cut = TracedPreprocess(lambda image: whole(image.crop((2, 3, 11, 12))).pixels).box(size)
        assert cut == pytest.approx((2 / size[0], 3 / size[1], 11 / size[0], 12 / size[1]), abs=0.005)


@pytest.mark.parametrize(("lines", "cut"), [(1, 0), (4, 0), (5, 1), (6, 1), (31, 1), (32, 2), (47, 2), (48, 3)])
def test_the_outermost_lines_may_be_mixed_with_padding_and_are_left_out(lines: int, cut: int) -> None:
    """A sixteenth of them on either side, one at least, if more than two are left."""
    shown = torch.zeros(60, 50, dtype=torch.bool)
    shown[7 : 7 + lines, 3] = True
    assert _within(shown, 0).nonzero().flatten().tolist() == list(range(7 + cut, 7 + lines - cut))
    assert _within(shown, 1).nonzero().flatten().tolist() == [3]
    assert _within(shown.T, 1).nonzero().flatten().tolist() == list(range(7 + cut, 7 + lines - cut))


def test_boxes_are_of_tiles_if_they_are_several() -> None:
    assert not of_tiles((0.0, 0, 1.0, 1.0))
    assert of_tiles(((0.0, 0.0, 1.0, 1.0),))
    assert of_tiles([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]])  # type: ignore[list-item]


def test_the_box_is_found_from_four_rows_and_columns_on() -> None:
    four, three = (TracedPreprocess(lambda image, side=side: whole(image.resize((side, side))).pixels) for side in (4, 3))
    assert four.box((64, 48)) == pytest.approx((0, 0, 1, 1), abs=0.01)
    with pytest.raises(InputError, match="makes the same of a black and of a white picture"):
        three.box((64, 48))


def test_pictures_have_a_hundred_million_pixels_at_most_and_eight_a_side_at_least() -> None:
    for size in ((10**4, 10**4), (10**8 // 8, 8), (8, 8)):
        within_limits(SimpleNamespace(width=size[0], height=size[1], size=size), "it")  # type: ignore[arg-type]
    for size, message in (
        ((11, 9090910), "is over 100,000,000 pixels"),
        ((7, 8), "8 x 8"),
        ((8, 7), "8 x 8"),
    ):
        with pytest.raises(InputError, match=message):
            within_limits(SimpleNamespace(width=size[0], height=size[1], size=size), "it")  # type: ignore[arg-type]


def test_a_tile_that_shows_nothing_lies_beside_the_picture_and_brings_no_heat() -> None:
    x0, y0, x1, y1 = NOWHERE
    assert 1 < x0 < x1
    assert 1 < y0 < y1
    tiles = torch.stack([torch.zeros(1, 3, 3), torch.ones(1, 3, 3)], 1)
    assert not upsample(tiles, ((0.0, 0.0, 1.0, 1.0), NOWHERE), (8, 8)).any()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (turned, "moves parts of the picture about or turns it"),
        (lambda image: torch.cat([whole(image).pixels[..., 50:], whole(image).pixels[..., :50]], -1), "moves parts"),
        (lambda image: torch.ones(3, 24, 32), "makes the same of a black and of a white picture"),
        (lambda image: whole(image).pixels[:, :3], "makes the same of a black and of a white picture"),
        (lambda image: whole(image).pixels + torch.rand(1), "the preprocessing is random"),
    ],
)
def test_a_preprocessing_that_cannot_be_traced_says_so(prepare: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TracedPreprocess(prepare)(Image.new("RGB", (100, 80)))


@pytest.mark.parametrize("draws", [0, 5, 10, 11])
def test_a_preprocessing_is_traced_anew_while_chance_is_drawn_three_times_at_most(draws: int) -> None:
    """It need not be what draws: another thread may. Of five pictures each time, all must be made without."""
    left = [draws]

    def prepare(image: Image.Image) -> torch.Tensor:
        left[0] -= 1
        return whole(image).pixels + 0 * (torch.rand(()) if left[0] >= 0 else 0)

    if draws > 10:
        with pytest.raises(InputError, match="the preprocessing is random"):
            TracedPreprocess(prepare).box((20, 16))
    else:
        assert TracedPreprocess(prepare).box((20, 16)) == pytest.approx((0, 0, 1, 1), abs=0.005)
        assert left == [min(draws - 5 * (1 + draws // 5), -5)]


def test_constants_that_files_and_messages_hold() -> None:
    assert NOWHERE == (2.0, 2.0, 3.0, 3.0)
    assert formats() is formats()
    assert not {"EPS", "WMF"} & set(formats())
    assert {"PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"} <= set(formats())


def test_a_prepared_tensor_is_drawn_with_its_range_stretched() -> None:
    pixels = torch.linspace(-2, 3, 3 * 8 * 9).view(3, 8, 9)
    view = model_input_of(Light("pad"), pixels.requires_grad_())
    assert (view.prepared, view.name, view.box, view.clip, view.size) == (True, "", (0.0, 0.0, 1.0, 1.0), None, None)
    assert not view.pixels.requires_grad
    drawn = np.asarray(view.picture).transpose(2, 0, 1).astype(int)
    assert (drawn == ((pixels.detach() + 2) / 5 * 255).round().int().numpy()).all()
    assert np.asarray(model_input_of(Light("pad"), torch.full((1, 8, 9), 7.0)).picture).tolist() == np.zeros((8, 9, 3)).tolist()
    grey = model_input_of(Light("pad"), torch.rand(1, 8, 9))
    assert np.asarray(grey.picture).shape == (8, 9, 3)
    for wrong in (torch.zeros(2, 8, 8), torch.zeros(4, 8, 8), torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(InputError, match=r"expected a prepared tensor \(3, h, w\) of floats"):
            model_input_of(Light("pad"), wrong)


def test_a_view_has_what_prepare_gave() -> None:
    task = Light("crop")
    view = model_input_of(task, Image.fromarray(coarse()))
    prepared = task.prepare(Image.fromarray(coarse()))
    assert torch.equal(view.pixels, prepared.pixels)
    assert (view.box, view.prepared, view.clip, view.name) == (prepared.box, False, None, "")
    assert view.picture.tobytes() == coarse().tobytes()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_nothing_to_see_is_one_grey_or_the_mean_color(level: int) -> None:
    task = Light("pad")
    view = model_input_of(task, Image.fromarray(coarse()))
    assert torch.equal(baseline_input(task, view, level), task.prepare(Image.new("RGB", (48, 32), (level,) * 3)).pixels)
    pixels = torch.rand(3, 8, 8)
    assert torch.equal(baseline_input(task, model_input_of(task, pixels)), pixels.mean((1, 2), keepdim=True).expand(3, 8, 8))


def test_nothing_to_see_is_what_a_grey_becomes_even_where_all_greys_become_the_same() -> None:
    """As of a preprocessing that takes the darkest value away; where the pixels are not those of the picture, their mean."""
    task, image = Light("stretch"), Image.fromarray(coarse())
    plain = task.prepare
    task.prepare = lambda image: replace(plain(image), pixels=(p := plain(image).pixels) - p.min())  # type: ignore[method-assign]
    view = model_input_of(task, image)
    assert view.pixels.mean() > 0.1
    assert not baseline_input(task, view).any()
    fixed = torch.rand(3, 64, 64)
    shown: list[Any] = []
    task.prepare = lambda image: shown.append(image) or replace(plain(image), pixels=fixed)  # type: ignore
    assert torch.equal(baseline_input(task, model_input_of(task, image)), fixed.mean((1, 2), keepdim=True).expand(3, 64, 64))
    assert [grey.getpixel((0, 0)) for grey in shown[1:]] == [(128,) * 3, (0,) * 3], "told by a grey half the range away"
    baseline_input(task, model_input_of(task, image), 200)
    assert [grey.getpixel((0, 0)) for grey in shown[-2:]] == [(200,) * 3, (72,) * 3]
    task.prepare = plain  # type: ignore[method-assign]
    grey = Image.new("RGB", (48, 32), (128, 128, 128))
    assert torch.equal(baseline_input(task, model_input_of(task, grey)), plain(grey).pixels), (
        "a picture that is that grey itself"
    )


@pytest.mark.parametrize(("count", "middle"), [(1, 0), (2, 1), (5, 2), (6, 3)])
def test_a_view_of_a_clip_shows_its_middle_frame(count: int, middle: int) -> None:
    task = Light("pad")
    prepare = task.prepare
    task.prepare = lambda clip: prepare(clip.frames[0])  # type: ignore[method-assign, attr-defined, assignment, misc]
    clip = Clip(tuple(Image.new("RGB", (16, 16), (n, n, n)) for n in range(count)), 4.0, "film")
    view = model_input_of(task, clip)
    assert view.picture is clip.frames[middle]
    assert (view.name, view.clip, view.prepared, view.size) == ("film", clip, False, None)
    greys: list[Clip] = []
    task.prepare = lambda clip: greys.append(clip) or prepare(clip.frames[0])  # type: ignore
    baseline_input(task, view, 7)
    assert [len(shown) for shown in greys] == [count] * len(greys)
    assert greys[0].frames[-1].getcolors() == [(256, (7, 7, 7))]
