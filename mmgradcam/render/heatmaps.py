"""Arrays in, pictures out: maps brought to the picture's size, coloured, laid over it, and sheets of labelled panels."""

from __future__ import annotations

import bisect
import importlib.util
import io
import math
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmgradcam.errors import one_line
from mmgradcam.images.pictures import Box, of_tiles

Array = npt.NDArray[np.float32]

_ANCHORS = ((48, 18, 120), (128, 22, 160), (206, 40, 110), (246, 104, 40), (254, 188, 44), (255, 250, 170))
"""Colours of heat from faint to full."""


def upsample(maps: Tensor, box: Box | Sequence[Box], size: tuple[int, int], at: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """(K, H, W) maps on the picture: their positive parts, bilinear between the centres of the cells.

    Args:
        maps: raw maps whose grid covers `box`, on any device; the result stays there. (K, T, H, W) for T tiles, whose heat
            adds up where they overlap.
        box: rectangle in fractions of the picture; what lies outside the picture is cut, what it leaves out is 0. T of them
            for T tiles.
        size: the picture's height and width in pixels.
        at: the rows and the columns of pixels that are wanted; by default all.

    Returns:
        (K, height, width) float32, >= 0, each in its map's own scale; all 0 where the map holds a value that is not finite.
    """
    maps = positive(maps)
    rows, columns = at or [torch.arange(side, device=maps.device) for side in size]
    if of_tiles(box):
        tiles = zip(maps.unbind(1), box, strict=True)
        return torch.stack([upsample(tile, one, size, (rows, columns)) for tile, one in tiles]).sum(0)
    x0, y0, x1, y1 = cast(Box, box)
    across = _between(maps, -1, ((columns + 0.5) / size[1] - x0) / (x1 - x0))  # (K, H, W) -> (K, H, width)
    return _between(across, -2, ((rows + 0.5) / size[0] - y0) / (y1 - y0))  # -> (K, height, width)


def positive(maps: Tensor) -> Tensor:
    """The positive parts of (K, ...) maps as float32; all 0 where a map holds a value that is not finite."""
    maps = maps.detach().float()
    finite = torch.isfinite(maps).flatten(1).all(1).view(len(maps), *[1] * (maps.dim() - 1))
    return torch.where(finite, maps, torch.zeros_like(maps)).clamp(min=0)


def _between(maps: Tensor, axis: int, at: Tensor) -> Tensor:
    """Maps along an axis, linear between the centres of the cells; `at` are places in 0..1, beyond which all is 0."""
    cells = maps.shape[axis]
    place = (at * cells - 0.5).clamp(0, cells - 1)
    low = place.long()
    shape = [-1 if i == axis % maps.dim() else 1 for i in range(maps.dim())]
    share, inside = (place - low).view(shape), ((at >= 0) & (at <= 1)).view(shape)
    near, far = maps.index_select(axis, low), maps.index_select(axis, (low + 1).clamp(max=cells - 1))
    return torch.lerp(near, far, share) * inside


def over_time(maps: Tensor, box: Box, frames: int, size: tuple[int, int], at: Sequence[Tensor] | None = None) -> Tensor:
    """(K, T, H, W) maps of a clip on its frames: as `upsample`, and linear between the cells' middles in time.

    Args:
        maps: raw maps whose grid covers `box` of every frame, and in time the whole clip.
        box: rectangle in fractions of a frame.
        frames: their number.
        size: a frame's height and width in pixels.
        at: the frames, the rows and the columns that are wanted; by default all.

    Returns:
        (K, frames, height, width) float32, >= 0, each in its map's own scale.
    """
    when, *where = at or [torch.arange(frames, device=maps.device)]
    moments = _between(positive(maps), 1, (when + 0.5) / frames)  # (K, T, H, W) -> (K, frames, H, W)
    drawn = upsample(moments.flatten(0, 1), box, size, (where[0], where[1]) if where else None)
    return drawn.view(len(maps), len(when), *drawn.shape[1:])


def highest(
    maps: Tensor, box: Box | Sequence[Box], size: tuple[int, int], frames: int | None = None
) -> list[tuple[float, tuple[int, ...]]]:
    """Of each map, the largest value of `upsample` or `over_time` and the first pixel that has it.

    Between centres of cells and edges of boxes the heat is linear along every axis, so it is largest at a pixel next to one of
    them; no other is drawn.

    Args:
        maps: as `upsample` takes them, or `over_time` if there are `frames`.
        box: rectangle of the picture, or of each tile.
        size: the picture's height and width in pixels.
        frames: their number, of a clip.

    Returns:
        For each map the value and (row, column), or (frame, row, column).
    """
    boxes = box if of_tiles(box) else (cast(Box, box),)
    rows = _next_to(maps.shape[-2], [(b[1], b[3]) for b in boxes], size[0]).to(maps.device)
    columns = _next_to(maps.shape[-1], [(b[0], b[2]) for b in boxes], size[1]).to(maps.device)
    if frames is None:
        at: tuple[Tensor, ...] = (rows, columns)
        drawn = upsample(maps, box, size, (rows, columns))
    else:
        at = (_next_to(maps.shape[1], [(0.0, 1.0)], frames).to(maps.device), rows, columns)
        drawn = over_time(maps, cast(Box, box), frames, size, at)
    made = []
    for one in drawn.cpu().numpy():
        place = np.unravel_index(int(one.argmax()), one.shape)
        made.append((float(one[place]), tuple(int(axis[i]) for axis, i in zip(at, place, strict=True))))
    return made


def _next_to(cells: int, spans: Sequence[tuple[float, float]], pixels: int) -> Tensor:
    """Pixels of an axis next to the centres of cells and the edges of the spans they fill, and the first and the last."""
    found = {0, pixels - 1}
    for low, high in spans:
        for place in (0.0, *((i + 0.5) / cells for i in range(cells)), 1.0):
            near = math.floor((low + place * (high - low)) * pixels - 0.5)
            found |= {near - 1, near, near + 1, near + 2}  # and a pixel more on either side, for rounding
    return torch.tensor(sorted(at for at in found if 0 <= at < pixels))


def scaled(maps: Tensor, box: Box | Sequence[Box], size: tuple[int, int], frames: int | None = None) -> Tensor:
    """The positive parts of maps, still on their grids, each divided by its largest value on the picture; see `highest`.

    Returns:
        Of the shape of `maps`, float32 >= 0; above 1 only in cells outside the picture; all 0 if there is no heat on it.
    """
    tops = torch.tensor([value for value, _ in highest(maps, box, size, frames)], device=maps.device)
    tops = torch.where(tops > 0, tops, torch.inf)
    return positive(maps) / tops.view(len(maps), *[1] * (maps.dim() - 1))


def normalize(heat: Tensor) -> Tensor:
    """(K, ..., h, w) heat, each scaled to a maximum of 1; all 0 stays all 0."""
    top = heat.flatten(1).amax(1).view(-1, *[1] * (heat.dim() - 1))
    return heat / torch.where(top > 0, top, torch.ones_like(top))


@cache
def palette(steps: int = 2**14) -> Tensor:
    """(steps, 4) RGB and alpha in 0..255 of heat from 0 to 1: the stronger, the brighter and the more opaque."""
    heat = torch.linspace(0, 1, steps)
    anchors = torch.tensor(_ANCHORS, dtype=torch.float32)
    at = heat * (len(_ANCHORS) - 1)
    low = at.long().clamp(max=len(_ANCHORS) - 2)
    rgb = torch.lerp(anchors[low], anchors[low + 1], (at - low)[:, None])
    alpha = (heat / 0.55).clamp(0, 1) ** 0.8 * (0.86 * 255)
    return torch.cat([rgb, alpha[:, None]], 1)


def colors(heat: Tensor) -> Tensor:
    """(K, h, w) heat in 0..1 -> (K, h, w, 4) RGB and alpha in 0..255, of `palette`."""
    table = palette().to(heat.device)
    return F.embedding((heat.clamp(0, 1) * (len(table) - 1)).round().long(), table)


def paint(picture: Tensor, heat: Tensor, opacity: float = 1.0) -> Tensor:
    """The picture, greyer and dimmer where there is no heat, with heat over it; all of it on the device the tensors are on.

    Args:
        picture: (h, w, 3) uint8.
        heat: (K, h, w) in 0..1.
        opacity: of the heat and of the dimming, in 0..1.

    Returns:
        (K, h, w, 3) uint8.
    """
    color = picture.float()
    grey = (color @ torch.tensor([0.299, 0.587, 0.114], device=color.device))[..., None]
    base = color + opacity * ((0.3 * grey + 0.7 * color) * 0.78 - color)
    painted = colors(heat)
    return torch.lerp(base, painted[..., :3], painted[..., 3:] * (opacity / 255)).round().clamp(0, 255).byte()


def overlay(picture: Image.Image, heat: Array, opacity: float = 1.0) -> Image.Image:
    """An RGB picture, dimmed where there is no heat, with its (h, w) heat in 0..1 over it."""
    (painted,) = paint(torch.from_numpy(np.array(picture)), torch.from_numpy(heat)[None], opacity)
    return Image.fromarray(painted.numpy())


@lru_cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font that knows Latin, Greek, Cyrillic and more: DejaVu Sans, which matplotlib brings; else Pillow's own."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf"
        if path.exists():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def sheet(
    picture: Image.Image, panels: Sequence[tuple[str, str, Image.Image]], title: str, note: str = "", side: int = 320
) -> Image.Image:
    """The picture once, then one labelled panel per target, in rows, under a title.

    Args:
        picture: the RGB picture.
        panels: label, small print, and picture of each panel.
        title: the caption or the question, wrapped to the width.
        note: small print under the title.
        side: longest side of a panel in pixels.
    """
    w, h = panel_size(picture, side)
    cells = [("", "the picture", picture), *panels]
    gap, under = 16, 52
    columns = min(len(cells), max(3, min(6, round((len(cells) * (h + under) / (w + gap) * 1.6) ** 0.5))))
    rows = -(-len(cells) // columns)
    width = max(columns * (w + gap) + gap, 560)
    heading = _wrap(title, font(26, True), width - 2 * gap)
    small = _wrap(note, font(15), width - 2 * gap)
    top = gap + 34 * len(heading) + 22 * len(small) + gap
    page = Image.new("RGB", (width, top + rows * (h + under)), "white")
    draw = ImageDraw.Draw(page)
    y = gap
    for line in heading:
        draw.text((gap, y), line, fill=(20, 20, 26), font=font(26, True))
        y += 34
    for line in small:
        draw.text((gap, y), line, fill=(105, 105, 115), font=font(15))
        y += 22
    for i, (label, print_, image) in enumerate(cells):
        x, y = gap + i % columns * (w + gap), top + i // columns * (h + under)
        page.paste(image if image.size == (w, h) else image.resize((w, h), Image.Resampling.LANCZOS), (x, y))
        name = clip_text(label, font(18, True), w)
        draw.text((x, y + h + 4), name, fill=(20, 20, 26), font=font(18, True))
        used = round(draw.textlength(name, font=font(18, True))) + 8 if name else 0
        small_print = clip_text(print_, font(14), w)
        at = (x + used, y + h + 8) if used + draw.textlength(small_print, font=font(14)) <= w else (x, y + h + 27)
        draw.text(at, small_print, fill=(105, 105, 115), font=font(14))
    return page


def panel_size(picture: Image.Image, side: int = 320) -> tuple[int, int]:
    """Width and height of the panels that `sheet` draws of a picture."""
    scale = side / max(picture.size)
    return max(48, round(picture.width * scale)), max(48, round(picture.height * scale))


def _wrap(text: str, face: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Lines no longer than a width in pixels, at most `MOST_LINES` of them."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and len(longer) <= width and face.getlength(one_line(longer)) <= width:
            lines[-1] = longer
        elif len(lines) == MOST_LINES:
            lines[-1] += "…"
            break
        else:
            lines.append(word)
    return [clip_text(line, face, width) for line in lines]


MOST_LINES = 12
"""Of a title; what goes on after that is cut."""


def clip_text(text: str, face: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """One line of text cut to a width in pixels, with an ellipsis where it is cut; line breaks and the like are escaped."""
    text = one_line(text[: width + 1])  # of any font here, hardly a character is narrower than a pixel
    if face.getlength(text) <= width:
        return text
    fits = bisect.bisect_left(range(len(text)), True, key=lambda n: face.getlength(text[: n + 1] + "…") > width)
    return text[:fits] + "…"


FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Pillow's formats of the endings that pictures can be written with."""


def encoded(picture: Image.Image, suffix: str = ".png", quality: int | None = None) -> bytes:
    """A picture as the bytes of a file, by its ending; JPEG and WebP of a quality, 0..100, or of Pillow's own."""
    data, kind = io.BytesIO(), FORMATS[suffix.lower()]
    more = {"compress_level": 1} if kind == "PNG" else {} if quality is None else {"quality": quality}
    picture.save(data, kind, **more)  # a PNG takes a fifth of the time so, and a tenth more room
    return data.getvalue()
