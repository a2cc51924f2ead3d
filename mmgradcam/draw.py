"""Arrays in, pictures out: maps brought to the picture's size, coloured, laid over it, and sheets of labelled panels."""

from __future__ import annotations

import bisect
import importlib.util
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmgradcam.errors import one_line
from mmgradcam.pictures import Box

Array = npt.NDArray[np.float32]

_ANCHORS = ((48, 18, 120), (128, 22, 160), (206, 40, 110), (246, 104, 40), (254, 188, 44), (255, 250, 170))
"""Colours of heat from faint to full."""


def upsample(maps: Tensor, box: Box | Sequence[Box], size: tuple[int, int]) -> Tensor:
    """(K, H, W) maps on the picture: their positive parts, bilinear between the centres of the cells.

    Args:
        maps: raw maps whose grid covers `box`, on any device; the result stays there. (K, T, H, W) for T tiles, whose heat
            adds up where they overlap.
        box: rectangle in fractions of the picture; what lies outside the picture is cut, what it leaves out is 0. T of them
            for T tiles.
        size: the picture's height and width in pixels.

    Returns:
        (K, height, width) float32, >= 0, each in its map's own scale; all 0 where the map holds a value that is not finite.
    """
    height, width = size
    maps = maps.detach().float()
    finite = torch.isfinite(maps).flatten(1).all(1).view(-1, *[1] * (maps.dim() - 1))
    maps = torch.where(finite, maps, torch.zeros_like(maps)).clamp(min=0)
    if isinstance(box[0], Sequence):
        tiles = zip(maps.unbind(1), cast(Sequence[Box], box), strict=True)
        return torch.stack([upsample(tile, one, size) for tile, one in tiles]).sum(0)
    x0, y0, x1, y1 = cast(Box, box)
    ys = ((torch.arange(height, device=maps.device) + 0.5) / height - y0) / (y1 - y0)
    xs = ((torch.arange(width, device=maps.device) + 0.5) / width - x0) / (x1 - x0)
    at = torch.stack(torch.meshgrid(xs * 2 - 1, ys * 2 - 1, indexing="xy"), -1)
    spread = F.grid_sample(maps[None], at[None], mode="bilinear", padding_mode="border", align_corners=False)[0]
    inside = ((ys >= 0) & (ys <= 1))[:, None] & ((xs >= 0) & (xs <= 1))[None]
    return spread * inside


def over_time(maps: Tensor, box: Box, frames: int, size: tuple[int, int]) -> Tensor:
    """(K, T, H, W) maps of a clip on its frames: as `upsample`, and linear between the cells' middles in time.

    Args:
        maps: raw maps whose grid covers `box` of every frame, and in time the whole clip.
        box: rectangle in fractions of a frame.
        frames: their number.
        size: a frame's height and width in pixels.

    Returns:
        (K, frames, height, width) float32, >= 0, each in its map's own scale.
    """
    cells = maps.shape[1]
    at = ((torch.arange(frames) + 0.5) / frames * cells - 0.5).clamp(0, cells - 1)
    positive = maps.detach().float().clamp(min=0)
    made = []
    for place in at.tolist():
        low = min(int(place), max(cells - 2, 0))
        share = place - low
        high = min(low + 1, cells - 1)
        made.append(upsample(positive[:, low] * (1 - share) + positive[:, high] * share, box, size))
    return torch.stack(made, 1)


def normalize(heat: Tensor) -> Tensor:
    """(K, ..., h, w) heat, each scaled to a maximum of 1; all 0 stays all 0."""
    top = heat.flatten(1).amax(1).view(-1, *[1] * (heat.dim() - 1))
    return heat / torch.where(top > 0, top, torch.ones_like(top))


def colors(heat: Tensor) -> Tensor:
    """(K, h, w) heat in 0..1 -> (K, 4, h, w) RGB and alpha in 0..255: the stronger, the brighter and the more opaque."""
    anchors = torch.tensor(_ANCHORS, dtype=torch.float32, device=heat.device)
    at = heat.clamp(0, 1) * (len(_ANCHORS) - 1)
    low = at.floor().long().clamp(max=len(_ANCHORS) - 2)
    share = (at - low)[..., None]
    rgb = anchors[low] * (1 - share) + anchors[low + 1] * share
    alpha = (heat / 0.55).clamp(0, 1) ** 0.8 * (0.86 * 255)
    return torch.cat([rgb.movedim(-1, 1), alpha[:, None]], 1)


def paint(picture: Tensor, heat: Tensor, opacity: float = 1.0) -> Tensor:
    """The picture, greyer and dimmer where there is no heat, with heat over it; all of it on the device the tensors are on.

    Args:
        picture: (3, h, w) uint8.
        heat: (K, h, w) in 0..1.
        opacity: of the heat and of the dimming, in 0..1.

    Returns:
        (K, 3, h, w) uint8.
    """
    color = picture.float()
    grey = (color * torch.tensor([0.299, 0.587, 0.114], device=color.device)[:, None, None]).sum(0, keepdim=True)
    base = color + opacity * ((0.3 * grey + 0.7 * color) * 0.78 - color)
    painted = colors(heat)
    alpha = painted[:, 3:] / 255 * opacity
    return (base * (1 - alpha) + painted[:, :3] * alpha).round().clamp(0, 255).byte()


def colorize(heat: Array) -> Image.Image:
    """(h, w) heat in 0..1 -> RGBA picture."""
    layer = colors(torch.from_numpy(heat)[None])[0].round().byte()
    return Image.fromarray(layer.permute(1, 2, 0).numpy(), "RGBA")


def overlay(picture: Image.Image, heat: Array, opacity: float = 1.0) -> Image.Image:
    """An RGB picture, dimmed where there is no heat, with its (h, w) heat in 0..1 over it."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return Image.fromarray(paint(pixels, torch.from_numpy(heat)[None], opacity)[0].permute(1, 2, 0).contiguous().numpy())


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
    scale = side / max(picture.size)
    w, h = max(48, round(picture.width * scale)), max(48, round(picture.height * scale))
    cells = [("", "the picture", picture), *panels]
    columns = min(len(cells), max(3, min(6, round((len(cells) * (h + 56) / (w + 16) * 1.6) ** 0.5))))
    rows = -(-len(cells) // columns)
    gap, under = 16, 52
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
        page.paste(image.resize((w, h), Image.Resampling.LANCZOS), (x, y))
        name = clip_text(label, font(18, True), w)
        draw.text((x, y + h + 4), name, fill=(20, 20, 26), font=font(18, True))
        used = round(draw.textlength(name, font=font(18, True))) + 8 if name else 0
        small_print = clip_text(print_, font(14), w)
        at = (x + used, y + h + 8) if used + draw.textlength(small_print, font=font(14)) <= w else (x, y + h + 27)
        draw.text(at, small_print, fill=(105, 105, 115), font=font(14))
    return page


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


def encoded(picture: Image.Image, suffix: str = ".png") -> bytes:
    """A picture as the bytes of a file, by its ending."""
    data = io.BytesIO()
    picture.save(data, FORMATS[suffix.lower()])
    return data.getvalue()
