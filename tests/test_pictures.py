"""Pictures as users have them: every mode, orientation and kind of damage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmgradcam import InputError, Target, Task, explain, hirescam
from mmgradcam.draw import upsample
from mmgradcam.pictures import MOST_PIXELS, Fit, open_picture, picture_hash


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


def test_float_pictures_keep_their_range() -> None:
    ramp = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    assert np.asarray(open_picture(Image.fromarray(ramp)))[-1, -1, 0] == 255
    with pytest.raises(InputError, match="not numbers"):
        open_picture(Image.fromarray(np.full((10, 10), np.nan, dtype=np.float32)))


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
        "a folder": (folder, "expected a picture, got a folder"),
        "empty": (folder / "empty.png", "not a picture in a format Pillow reads"),
        "text": (folder / "text.jpg", "not a picture in a format Pillow reads"),
        "cut png": (folder / "cut.png", "the file is damaged"),
        "cut jpeg": (folder / "cut.jpg", "the file is damaged"),
        "one pixel": (Image.new("RGB", (1, 1)), "expected at least 8 x 8 pixels, got 1 x 1"),
        "a line": (Image.new("RGB", (400, 1)), "expected at least 8 x 8 pixels, got 400 x 1"),
        "huge": (Image.new("1", (20000, 20000)), "20000 x 20000 is over 100,000,000 pixels"),
        "a number": (3, "expected a picture (path, Pillow image, array or tensor), got int"),
        "a wrong array": (
            np.zeros((4, 5, 6, 7)),
            "expected an array of shape (H, W), (H, W, 3) or (H, W, 4), got (4, 5, 6, 7)",
        ),
        "a signed array": (np.full((9, 9), -1.0), "expected an array of uint8, or of floats in 0..1"),
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
        self.prepare = Fit(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), how)  # type: ignore[method-assign]

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


def test_what_padding_adds_is_cut() -> None:
    made = explain(Light("pad"), Image.new("RGB", (200, 50), "white"), method=hirescam)
    assert made.heat().all()
    assert made.box == (0.0, -1.5, 1.0, 2.5)


def test_a_wrong_fit_is_said() -> None:
    with pytest.raises(InputError, match='how="pad", "crop" or "stretch", got \'squash\''):
        Fit((8, 8), how="squash")


@pytest.mark.parametrize("shape", [(3, 5), (2, 8, 8), (3, 8, 8, 1, 1)])
def test_wrong_tensors_are_said(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=re.escape(f"got {shape} of torch.float32")):
        explain(Light("pad"), torch.zeros(shape))


def test_tensors_that_are_not_finite_are_said() -> None:
    with pytest.raises(InputError, match="not finite"):
        explain(Light("pad"), torch.full((3, 64, 64), float("nan")))
