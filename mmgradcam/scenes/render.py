"""Pictures of scenes, with exact masks: relief shading, highlights, soft shadows, textured grounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from mmgradcam.images.regions import mask_box
from mmgradcam.scenes.scene import COLORS, ObjectAnnotation, Scene
from mmgradcam.scenes.shapes import KINDS, OUTSIDE

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SUPERSAMPLING = 3


@dataclass(frozen=True)
class Picture:
    """A rendered scene.

    Attributes:
        image: RGB picture, side x side.
        masks: (N, side, side) bool, the visible pixels of each thing.
        boxes: (N, 4) int, x0, y0, x1, y1 of those pixels, the far edges exclusive.
    """

    image: Image.Image
    masks: Mask
    boxes: npt.NDArray[np.int64]


def render(scene: Scene, side: int = 128) -> Picture:
    """Draws a scene.

    Args:
        scene: what to draw.
        side: width and height in pixels, 64 or more.

    Returns:
        A `Picture`; the same scene and side give the same bytes.

    >>> from mmgradcam.scenes.scene import make_scene
    >>> picture = render(make_scene(7))
    >>> picture.image.size, picture.masks.shape[1:], bool(picture.masks.any((1, 2)).all())
    ((128, 128), (128, 128), True)
    """
    if side < 64:
        raise ValueError(f"render: expected a side of 64 pixels or more, got {side}")
    rng = np.random.default_rng([scene.seed, 0xB6])
    canvas = ground_of(scene, side, rng)
    masks = np.zeros((len(scene.objects), side, side), dtype=bool)
    for i, thing in enumerate(scene.objects):
        alpha, color = draw_thing(thing, scene.light, side)
        shade = shadow_of(alpha, thing, scene.light, side)
        canvas *= 1 - 0.5 * (shade * (1 - alpha))[..., None]
        canvas = canvas * (1 - alpha[..., None]) + color * alpha[..., None]
        visible = alpha > 0.5
        masks[:i] &= ~visible
        masks[i] = visible
    canvas += rng.integers(-3, 4, size=canvas.shape) / 255
    pixels = np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)
    return Picture(Image.fromarray(pixels), masks, np.array([mask_box(m) for m in masks], dtype=np.int64))


def draw_thing(thing: ObjectAnnotation, light: tuple[float, float, float], side: int) -> tuple[Array, Array]:
    """Coverage (side, side) in 0..1 and colour (side, side, 3) of one thing."""
    reach = math.ceil(thing.radius * side) + 2
    cx, cy = int(thing.x * side), int(thing.y * side)
    x0, y0 = max(cx - reach, 0), max(cy - reach, 0)
    x1, y1 = min(cx + reach + 1, side), min(cy + reach + 1, side)
    step = 1 / (SUPERSAMPLING * side)
    xs = x0 / side + (np.arange((x1 - x0) * SUPERSAMPLING) + 0.5) * step - thing.x
    ys = y0 / side + (np.arange((y1 - y0) * SUPERSAMPLING) + 0.5) * step - thing.y
    px, py = np.meshgrid(xs / thing.radius, ys / thing.radius)
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    height = KINDS[thing.kind](px * cos + py * sin, py * cos - px * sin)
    inside = height > OUTSIDE / 2
    shaded = _shade(np.where(inside, height, 0.0), px + py, step / thing.radius, thing, light)
    alpha, color = np.zeros((side, side)), np.zeros((side, side, 3))
    cover = _pool(inside.astype(np.float64))
    alpha[y0:y1, x0:x1] = cover
    total = _pool(shaded * inside[..., None])
    color[y0:y1, x0:x1] = total / np.maximum(cover, 1e-6)[..., None]
    return alpha, color


def _pool(values: Array) -> Array:
    s = SUPERSAMPLING
    h, w = values.shape[0] // s, values.shape[1] // s
    pooled: Array = values.reshape(h, s, w, s, *values.shape[2:]).mean(axis=(1, 3))
    return pooled


def _shade(height: Array, across: Array, step: float, thing: ObjectAnnotation, light: tuple[float, float, float]) -> Array:
    """Lambert shading with a highlight; metal also mirrors a bright horizon, in streaks `across` its flat faces."""
    dy, dx = np.gradient(height, step)
    dx, dy = np.clip(dx, -4, 4), np.clip(dy, -4, 4)
    norm = np.sqrt(dx * dx + dy * dy + 1)
    nx, ny, nz = -dx / norm, -dy / norm, 1 / norm
    facing = nx * light[0] + ny * light[1] + nz * light[2]
    diffuse = np.maximum(facing, 0)
    mirror = np.maximum(2 * facing * nz - light[2], 0)
    square = mirror * mirror
    base = np.array(COLORS[thing.color])
    if thing.material == "rubber":
        matte: Array = base * (0.42 + 0.60 * diffuse)[..., None] + 0.05 * (square * square)[..., None]
        return matte
    eighth = square * square * square * square
    horizon = 0.5 - 0.5 * np.clip(ny * 2.2, -1, 1)
    streak = np.abs((0.55 * across + 0.5 * (nx + ny) + 0.2) % 1.0 - 0.5) * 2
    band = np.clip(streak * 4 - 2.9, 0, 1)
    gloss = 0.80 * eighth * square + 0.45 * band
    shiny: Array = base * (0.16 + 0.48 * diffuse + 0.40 * horizon)[..., None] + gloss[..., None]
    return shiny


def shadow_of(alpha: Array, thing: ObjectAnnotation, light: tuple[float, float, float], side: int) -> Array:
    """The thing's silhouette, moved away from the light and blurred; (side, side) in 0..1."""
    reach = 0.38 * thing.radius * side
    dx, dy = round(-light[0] * reach / light[2]), round(-light[1] * reach / light[2])
    silhouette = Image.fromarray((alpha * 255).astype(np.uint8))
    moved = Image.new("L", silhouette.size)
    moved.paste(silhouette, (dx, dy))
    blurred = moved.filter(ImageFilter.BoxBlur(side * 0.012)).filter(ImageFilter.BoxBlur(side * 0.012))
    return np.asarray(blurred, dtype=np.float64) / 255


def ground_of(scene: Scene, side: int, rng: np.random.Generator) -> Array:
    """The textured ground (side, side, 3), muted so that objects stand out, under the light's slow falloff."""
    y, x = np.mgrid[0:side, 0:side] / side
    level = rng.uniform(0.30, 0.62)
    tint = rng.uniform(-0.05, 0.05, size=3)
    tint -= tint.mean()
    turn = rng.uniform(0, math.pi)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    period = rng.uniform(0.07, 0.22)
    pattern = np.zeros((side, side))
    if scene.texture == "wood":
        warp = u / period + 1.6 * _clouds(side, 4, rng) + 0.5 * _clouds(side, 9, rng)
        pattern = np.abs(warp % 1.0 - 0.5) - 0.25
    elif scene.texture == "checker":
        pattern = ((np.floor(u / period) + np.floor(v / period)) % 2 - 0.5) * 0.5
    elif scene.texture == "stripes":
        pattern = (np.floor(u / period) % 2 - 0.5) * 0.5
    elif scene.texture == "clouds":
        pattern = _clouds(side, 5, rng) + 0.5 * _clouds(side, 11, rng) - 0.75
    elif scene.texture == "speckle":
        pattern = (rng.random((side, side)) - 0.5) * 0.8
    elif scene.texture == "tiles":
        joint = np.minimum(np.abs(u / period % 1.0 - 0.5), np.abs(v / period % 1.0 - 0.5))
        pattern = np.where(joint > 0.06, 0.12, -0.35)
    tone = level + rng.uniform(0.10, 0.24) * pattern
    falloff = 1 + 0.22 * (scene.light[0] * (x - 0.5) + scene.light[1] * (y - 0.5))
    ground: Array = (tone[..., None] * (1 + tint)) * falloff[..., None]
    return ground


def _clouds(side: int, cells: int, rng: np.random.Generator) -> Array:
    """Smooth noise in 0..1: random values on a coarse grid, interpolated bilinearly."""
    coarse = rng.random((cells + 1, cells + 1))
    at = np.arange(side) / side * cells
    low = at.astype(int)
    part = at - low
    rows = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
    smooth: Array = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    return smooth
