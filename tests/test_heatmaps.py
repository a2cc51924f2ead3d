"""Maps as colors over pictures, and sheets of panels: each against its definition, pixel by pixel."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from mmgradcam.render import heatmaps
from mmgradcam.render.heatmaps import clip_text, colors, encoded, font, normalize, over_time, overlay, paint, sheet, upsample

ANCHORS = [(48, 18, 120), (128, 22, 160), (206, 40, 110), (246, 104, 40), (254, 188, 44), (255, 250, 170)]


def color_of(heat: float) -> list[float]:
    """RGB, linear between six colors, and opacity 0.86 (heat / 0.55)^0.8, full from .55 on; all of 255."""
    at = min(max(heat, 0.0), 1.0) * 5
    low = min(int(at), 4)
    rgb = [a + (b - a) * (at - low) for a, b in zip(ANCHORS[low], ANCHORS[low + 1], strict=True)]
    return [*rgb, min(max(heat, 0.0) / 0.55, 1.0) ** 0.8 * 0.86 * 255]


def test_colors_go_from_violet_to_light_yellow_and_grow_opaque() -> None:
    values = [-0.5, 0.0, 0.03, 0.2, 0.3, 0.55, 0.56, 0.8, 0.95, 1.0, 1.5]
    made = colors(torch.tensor(values)[None, None])
    assert made.shape == (1, 1, len(values), 4)
    torch.testing.assert_close(made[0, 0], torch.tensor([color_of(v) for v in values]), rtol=1e-5, atol=0.1)
    for steps in (256, 2**14):
        table = heatmaps.palette(steps)
        assert table.shape == (steps, 4)
        for n in (0, 1, steps // 3, steps - 1):
            torch.testing.assert_close(table[n], torch.tensor(color_of(n / (steps - 1))), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("opacity", [None, 0.0, 0.6, 1.0])
def test_heat_lies_over_a_picture_that_is_dimmed(opacity: float | None) -> None:
    picture, heat = torch.randint(0, 256, (4, 6, 3), dtype=torch.uint8), torch.rand(2, 4, 6)
    heat[0, 0, 0] = 0.0
    made = paint(picture, heat) if opacity is None else paint(picture, heat, opacity)
    assert (made.shape, made.dtype) == ((2, 4, 6, 3), torch.uint8)
    share = 1.0 if opacity is None else opacity
    for k in range(2):
        for y in range(4):
            for x in range(6):
                pixel = picture[y, x].tolist()
                grey = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
                *rgb, alpha = color_of(float(heat[k, y, x]))
                alpha = alpha / 255 * share
                for c in range(3):
                    dim = (1 - share) * pixel[c] + share * 0.78 * (0.3 * grey + 0.7 * pixel[c])
                    assert abs(float(made[k, y, x, c]) - (dim * (1 - alpha) + rgb[c] * alpha)) <= 0.6


def test_pictures_are_painted_as_tensors_are() -> None:
    heat = torch.rand(5, 7)
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for more in ((), (0.3,)):
        laid = overlay(Image.fromarray(picture), heat.numpy(), *more)
        expected = paint(torch.from_numpy(picture), heat[None], *more)[0]
        assert (laid.mode, laid.size) == ("RGB", (7, 5))
        assert (np.asarray(laid) == expected.numpy()).all()


def test_each_map_is_scaled_to_its_own_maximum() -> None:
    heat = torch.tensor([[[0.0, 2.0], [1.0, 0.5]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, 1e-3], [0.0, 0.0]]])
    expected = torch.tensor([[[0.0, 1.0], [0.5, 0.25]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])
    assert torch.equal(normalize(heat), expected)
    assert torch.equal(normalize(heat[:, :, None]), expected[:, :, None])


def test_maps_are_scaled_by_their_largest_value_on_the_picture() -> None:
    maps = torch.tensor(
        [[[1.0, 4.0], [-2.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[-1.0, 0.0], [-3.0, 0.0]], [[1e-3, 0.0], [0.0, 0.0]]]
    )
    whole = heatmaps.scaled(maps, (0.0, 0.0, 1.0, 1.0), (8, 8))
    assert whole.tolist() == [[[0.25, 1.0], [0.0, 0.0]], [[0.0] * 2] * 2, [[0.0] * 2] * 2, [[1.0, 0.0], [0.0, 0.0]]]
    left = heatmaps.scaled(maps[:1], (0.0, 0.0, 4.0, 1.0), (8, 8))  # the picture shows the left half of the first column
    assert left.tolist() == [[[1.0, 4.0], [0.0, 0.0]]]
    beside = torch.tensor([[[0.0, 0.0, 0.0, 5.0]]])
    assert not heatmaps.scaled(beside, (0.0, 0.0, 4.0, 1.0), (8, 8)).any()


@pytest.mark.parametrize(("cells", "frames"), [(3, 8), (4, 4), (5, 2), (1, 3), (2, 7)])
def test_heat_of_a_clip_is_linear_between_the_middles_of_its_cells(cells: int, frames: int) -> None:
    maps, box = torch.randn(2, cells, 3, 4, dtype=torch.float64), (0.1, -0.2, 0.8, 1.1)
    made = over_time(maps, box, frames, (9, 12))
    assert (made.shape, made.dtype) == ((2, frames, 9, 12), torch.float32)
    for n in range(frames):
        at = min(max((n + 0.5) / frames * cells - 0.5, 0), cells - 1)
        weights = [max(0.0, 1 - abs(at - cell)) for cell in range(cells)]
        between = sum(weight * maps[:, cell].clamp(min=0) for cell, weight in enumerate(weights))
        torch.testing.assert_close(made[:, n], upsample(between, box, (9, 12)), rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]


def test_heat_of_tiles_adds_up_and_what_is_not_finite_is_none() -> None:
    maps = torch.rand(3, 2, 3, 3)
    maps[1, 0, 1, 1], maps[2, 1, 0, 0] = float("nan"), float("inf")
    boxes = ((0.0, 0.0, 0.6, 1.0), (0.4, 0.0, 1.0, 1.0))
    made = upsample(maps, boxes, (6, 10))
    torch.testing.assert_close(
        made[0], upsample(maps[:1, 0], boxes[0], (6, 10))[0] + upsample(maps[:1, 1], boxes[1], (6, 10))[0]
    )
    assert made[0].all()
    assert not made[1:].any()


def test_fonts_are_dejavu_sans_of_the_size_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    regular, bold = font(17), font(17, True)
    assert isinstance(regular, ImageFont.FreeTypeFont)
    assert isinstance(bold, ImageFont.FreeTypeFont)
    assert (regular.size, regular.getname()) == (17, ("DejaVu Sans", "Book"))
    assert (bold.size, bold.getname()) == (17, ("DejaVu Sans", "Bold"))
    assert font(17) is regular
    for spec in (None, type("Spec", (), {"origin": None}), type("Spec", (), {"origin": "/nowhere/__init__.py"})):
        monkeypatch.setattr(heatmaps.importlib.util, "find_spec", lambda name, spec=spec: spec)
        own = font.__wrapped__(17)
        assert own.getbbox("a") == ImageFont.load_default(17).getbbox("a")


class Written:
    """What a sheet writes: where, what, in which color, size and weight."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[tuple[Any, ...]] = []
        plain = ImageDraw.ImageDraw.text

        def text(canvas: Any, xy: Any, words: str, fill: Any = None, font: Any = None, **more: Any) -> None:
            self.lines.append((tuple(xy), words, fill, font.size, font.getname()[1]))
            plain(canvas, xy, words, fill=fill, font=font, **more)

        monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)


DARK, PALE = (20, 20, 26), (105, 105, 115)


def test_a_sheet_has_a_title_a_note_and_rows_of_labelled_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of the title every 34 pixels, of the note every 22; panels 16 apart, with 52 below each for what it is called."""
    written = Written(monkeypatch)
    shades = [Image.new("RGB", (60, 40), (n * 40, 0, 200)) for n in range(5)]
    names = [("", "alone"), ("word", "0.50"), ("a long label that is cut", "small print"), ("cat", "small print that is long")]
    panels = [(label, small, shade) for (label, small), shade in zip(names, shades[1:], strict=True)]
    page = sheet(shades[0], panels, "a title", "a note", side=180)
    w, h = 180, 120
    columns = round((5 * (h + 56) / (w + 16) * 1.6) ** 0.5)
    assert columns == 3
    assert page.size == (3 * (w + 16) + 16, 16 + 34 + 22 + 16 + 2 * (h + 52))
    assert page.getpixel((0, 0)) == (255, 255, 255)
    expected: list[tuple[Any, ...]] = [
        ((16, 16), "a title", DARK, 26, "Bold"),
        ((16, 50), "a note", PALE, 15, "Book"),
    ]
    for i, (label, small) in enumerate([("", "the picture"), *names]):
        x, y = 16 + i % 3 * (w + 16), 88 + i // 3 * (h + 52)
        for dx, dy in ((0, 0), (w - 1, 0), (0, h - 1), (w - 1, h - 1)):
            assert page.getpixel((x + dx, y + dy)) == (i * 40, 0, 200)
        assert page.getpixel((x - 1, y)) == page.getpixel((x + w, y)) == page.getpixel((x, y - 1)) == (255, 255, 255)
        name, print_ = clip_text(label, font(18, True), w), clip_text(small, font(14), w)
        used = round(font(18, True).getlength(name)) + 8 if name else 0
        beside = used + font(14).getlength(print_) <= w
        expected += [
            ((x, y + h + 4), name, DARK, 18, "Bold"),
            ((x + used, y + h + 8) if beside else (x, y + h + 27), print_, PALE, 14, "Book"),
        ]
    assert written.lines == expected
    tops = {text: place[1] - 88 for place, text, *_ in written.lines}
    assert (tops["0.50"], tops["small print"]) == (h + 8, h + 52 + h + 27), "beside a short label, below a long one"


@pytest.mark.parametrize(
    ("count", "size", "columns"), [(0, (40, 40), 1), (1, (40, 40), 2), (2, (40, 40), 3), (5, (40, 40), 3), (40, (20, 80), 6), (11, (80, 20), 3)]
)  # fmt: skip
def test_a_sheet_is_about_as_wide_as_high(count: int, size: tuple[int, int], columns: int) -> None:
    picture = Image.new("RGB", size, (9, 9, 9))
    page = sheet(picture, [("a", "b", picture)] * count, "t", side=320)
    scale = 320 / max(size)
    w, h = (round(edge * scale) for edge in size)
    rows = -(-(count + 1) // columns)
    assert page.size == (max(columns * (w + 16) + 16, 560), 16 + 34 + 16 + rows * (h + 52))


def test_a_panel_is_at_least_48_pixels_each_way_and_320_along_the_longer_side() -> None:
    for size, shown in (((400, 10), (320, 48)), ((10, 400), (48, 320)), ((640, 480), (320, 240))):
        page = np.asarray(sheet(Image.new("RGB", size, (9, 9, 9)), [], ""))
        dark = (page[16 + 16 :, 16:] == 9).all(-1)[: shown[1] + 2, : shown[0] + 2]
        assert (int(dark.any(0).sum()), int(dark.any(1).sum())) == shown


def test_a_long_title_is_wrapped_to_the_width_and_cut_after_twelve_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(monkeypatch)
    picture = Image.new("RGB", (320, 320))
    words = [f"word{n}" for n in range(30)]
    page = sheet(picture, [], " \n".join(words), " ".join(words))
    width, face = 560 - 32, font(26, True)
    lines: list[str] = []
    for word in words:
        if lines and face.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    assert len(lines) > 2
    assert [(place, text) for place, text, _, size, _ in written.lines if size == 26] == [
        ((16, 16 + 34 * n), line) for n, line in enumerate(lines)
    ]
    notes = [place for place, _, _, size, _ in written.lines if size == 15]
    assert notes == [(16, 16 + 34 * len(lines) + 22 * n) for n in range(len(notes))]
    assert page.height == 16 + 34 * len(lines) + 22 * len(notes) + 16 + 320 + 52
    assert " ".join(text for _, text, _, size, _ in written.lines if size == 15) == " ".join(words)


def test_wrapped_lines_are_as_full_as_fits() -> None:
    face = font(14)
    exact = int(face.getlength("aa bb"))
    assert face.getlength("aa bb") == exact or face.getlength("aa bb") < exact + 1
    for width in range(exact - 3, exact + 4):
        assert heatmaps._wrap("aa bb cc", face, width)[0] == ("aa bb" if face.getlength("aa bb") <= width else "aa")
    long = heatmaps._wrap(" ".join(["mmmm"] * 40), face, int(face.getlength("mmmm")) + 2)
    assert len(long) == heatmaps.MOST_LINES == 12
    assert long[:11] == ["mmmm"] * 11
    assert long[11].endswith("…")
    assert heatmaps._wrap(" ".join(["m"] * 12), face, 14) == ["m"] * 12
    assert heatmaps._wrap("", face, 50) == []


def test_a_cut_title_ends_in_one_ellipsis() -> None:
    face: Any = Even()
    assert heatmaps._wrap(" ".join(["mm"] * 40), face, 49) == ["mm"] * 11 + ["mm…"]


class Even:
    """A font whose letters are all as wide."""

    def __init__(self, letter: float = 10.0) -> None:
        self.letter = letter

    def getlength(self, text: str) -> float:
        return self.letter * len(text)


def test_text_is_cut_only_where_it_is_too_wide() -> None:
    face: Any = Even()
    assert clip_text("abcde", face, 50) == "abcde"
    assert clip_text("abcdef", face, 50) == "abcd…"
    assert clip_text("abcdef", face, 59) == "abcd…"
    assert clip_text("ab", face, 10) == "…"
    assert clip_text("a\nb", face, 100) == "a\\nb"
    narrow: Any = Even(1.0)
    assert clip_text("a" * 51, narrow, 50) == "a" * 49 + "…"
    assert clip_text("a" * 50, narrow, 50) == "a" * 50
    assert heatmaps._wrap("aa bb cc", face, 50) == ["aa bb", "cc"]
    assert heatmaps._wrap("aa bb cc", face, 49) == ["aa", "bb", "cc"]
    assert heatmaps._wrap("a" * 20 + " b", narrow, 22) == ["a" * 20 + " b"]


def test_pictures_are_encoded_as_pillow_does_of_these_settings() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    settings: list[tuple[str, int | None, dict[str, int]]] = [
        (".png", None, {"compress_level": 1}), (".png", 30, {"compress_level": 1}), (".jpg", None, {}), (".jpg", 30, {"quality": 30}), (".webp", 0, {"quality": 0}),
    ]  # fmt: skip
    for suffix, quality, more in settings:
        data = io.BytesIO()
        picture.save(data, heatmaps.FORMATS[suffix], **more)
        assert encoded(picture, suffix, quality) == data.getvalue()


def test_colors_are_made_once_in_steps_that_no_eye_tells_apart() -> None:
    assert heatmaps.palette() is heatmaps.palette()
    assert heatmaps.palette().shape == (2**14, 4)


def test_a_pixel_whose_middle_lies_on_the_edge_of_the_box_is_in_it() -> None:
    maps = torch.ones(1, 2, 2)
    assert upsample(maps, (0.125, 0.25, 0.875, 0.75), (2, 4)).tolist() == [[[1.0] * 4] * 2]
    assert upsample(maps, (0.126, 0.26, 0.874, 0.74), (2, 4)).any() == torch.tensor(False)
    assert upsample(maps, (0.126, 0.25, 0.874, 0.75), (2, 4)).tolist() == [[[0.0, 1.0, 1.0, 0.0]] * 2]


@pytest.mark.parametrize(("suffix", "wanted"), [(".png", "PNG"), (".jpg", "JPEG"), (".JPEG", "JPEG"), (".webp", "WEBP")])
def test_pictures_are_encoded_by_their_ending(suffix: str, wanted: str) -> None:
    picture = Image.new("RGB", (9, 8), (200, 30, 40))
    assert Image.open(io.BytesIO(encoded(picture, suffix))).format == wanted
    assert encoded(picture) == encoded(picture, ".png")
    assert Path(f"a{suffix}").suffix.lower() in heatmaps.FORMATS
