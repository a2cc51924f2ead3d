"""Scenes with known truth: what is in the picture, and where, decided from one seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mmgradcam.scenes.shapes import KINDS

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.13, 0.12),
    "orange": (0.97, 0.52, 0.08),
    "yellow": (0.96, 0.86, 0.16),
    "green": (0.16, 0.62, 0.22),
    "cyan": (0.16, 0.80, 0.84),
    "blue": (0.14, 0.27, 0.86),
    "purple": (0.56, 0.20, 0.72),
    "white": (0.94, 0.94, 0.94),
}
"""Colour words and their linear base colours (r, g, b in 0..1)."""

SIZES: dict[str, float] = {"small": 0.078, "medium": 0.118, "large": 0.172}
"""Size words and the object's radius as a fraction of the picture's side."""

MATERIALS = ("metal", "rubber")
TEXTURES = ("plain", "wood", "checker", "stripes", "clouds", "speckle", "tiles")
MAX_THINGS = 6
MIN_VISIBLE = 0.62
"""Share of an object's silhouette that later objects leave uncovered, at least."""


@dataclass(frozen=True)
class ObjectAnnotation:
    """One object; `x`, `y`, `radius` are fractions of the picture's side, `angle` is in radians."""

    kind: str
    color: str
    size: str
    material: str
    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Scene:
    """Everything a picture is drawn from; `objects` stand back to front."""

    seed: int
    objects: tuple[ObjectAnnotation, ...]
    texture: str
    light: tuple[float, float, float]
    """Unit vector towards the light: x right, y down, z to the viewer."""


def make_scene(seed: int) -> Scene:
    """Draws a scene: 1 to 6 objects on a textured ground under one light.

    Args:
        seed: any non-negative integer; the same seed gives the same scene.

    Returns:
        A `Scene`. Objects may cover one another, but none by more than about a third.

    >>> make_scene(7) == make_scene(7)
    True
    """
    rng = np.random.default_rng([seed, 0x5CE7E])
    objects: list[ObjectAnnotation] = []
    wanted = int(rng.integers(1, MAX_THINGS + 1))
    alike = rng.random() < 0.35
    for _ in range(60):
        if len(objects) == wanted:
            break
        thing = _make_thing(rng, objects, alike)
        if all(_uncovered(other, [*objects[i + 1 :], thing]) for i, other in enumerate(objects)):
            objects.append(thing)
    turn, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.75, 1.15)
    light = (math.cos(turn) * math.cos(height), math.sin(turn) * math.cos(height), math.sin(height))
    return Scene(seed, tuple(objects), str(rng.choice(TEXTURES)), light)


def _make_thing(rng: np.random.Generator, objects: list[ObjectAnnotation], alike: bool) -> ObjectAnnotation:
    kind, color = str(rng.choice(list(KINDS))), str(rng.choice(list(COLORS)))
    if alike and objects and rng.random() < 0.55:
        model = objects[int(rng.integers(len(objects)))]
        kind = model.kind
        color = model.color if rng.random() < 0.5 else color
    size = str(rng.choice(list(SIZES)))
    radius = SIZES[size] * rng.uniform(0.92, 1.08)
    x, y = rng.uniform(radius + 0.01, 0.99 - radius, size=2)
    turn = rng.uniform(-0.5, 0.5) if kind in ("cone", "heart", "cross", "star") else rng.uniform(-math.pi, math.pi)
    return ObjectAnnotation(kind, color, size, str(rng.choice(MATERIALS)), float(x), float(y), float(radius), float(turn))


def _uncovered(thing: ObjectAnnotation, later: list[ObjectAnnotation]) -> bool:
    """True if discs of the later objects leave enough of this one's disc in sight (sampled on 12 x 12 points)."""
    grid = (np.arange(12) + 0.5) / 6 - 1
    u, v = np.meshgrid(grid, grid)
    inside = u * u + v * v <= 1
    px, py = thing.x + u * thing.radius, thing.y + v * thing.radius
    covered = np.zeros_like(inside)
    for other in later:
        covered |= (px - other.x) ** 2 + (py - other.y) ** 2 <= (other.radius * 0.95) ** 2
    return float((covered & inside).sum()) <= (1 - MIN_VISIBLE) * 0.8 * float(inside.sum())
