"""Silhouettes and relief of the object kinds: one height function per kind, all on the square [-1, 1]^2."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Height = Callable[[Array, Array], Array]

OUTSIDE = -1.0
"""Height outside the silhouette; inside, heights are >= 0."""


def _root(value: Array) -> Array:
    return np.where(value >= 0, np.sqrt(np.maximum(value, 0)), OUTSIDE)


def _bevel(depth: Array, width: float, top: float) -> Array:
    """Flat top of height `top`, sloping to 0 at the edge over `width`; `depth` is the distance to the edge, inside > 0."""
    return np.where(depth >= 0, np.minimum(depth / width, 1.0) * top, OUTSIDE)


def _polygon_depth(x: Array, y: Array, corners: list[tuple[float, float]]) -> Array:
    """Signed distance to a star-shaped polygon around the origin (inside > 0)."""
    inside = np.zeros(x.shape, dtype=bool)
    distance = np.full(x.shape, np.inf)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        dx, dy = x - ax - along * ex, y - ay - along * ey
        distance = np.minimum(distance, dx * dx + dy * dy)
        if ey != 0:
            inside ^= ((ay > y) != (by > y)) & (x < ex * (y - ay) / ey + ax)
    depth: Array = np.where(inside, 1.0, -1.0) * np.sqrt(distance)
    return depth


def ball(x: Array, y: Array) -> Array:
    return _root(1 - x * x - y * y)


def cube(x: Array, y: Array) -> Array:
    """A cube seen on its corner: three faces within a hexagon."""
    half, gradient = 0.5, math.sqrt(3) / 2
    faces = np.maximum.reduce([-y, gradient * x + half * y, -gradient * x + half * y])
    edges = np.maximum.reduce([np.abs(x), np.abs(half * x + gradient * y), np.abs(half * x - gradient * y)])
    return np.where(edges <= gradient, 1.4 - 1.4 * faces, OUTSIDE)


def cylinder(x: Array, y: Array) -> Array:
    return np.where(np.abs(x) <= 0.95, _root(0.3 - y * y), OUTSIDE)


def cone(x: Array, y: Array) -> Array:
    """A cone seen from the side: apex up, base rounded."""
    width = 0.42 * (y + 1.0)
    base = 1 - (x / 0.8) ** 2
    inside = (y <= 0.62 + 0.3 * np.sqrt(np.maximum(base, 0))) & (width > 0)
    return np.where(inside, _root(width * width - x * x), OUTSIDE)


def ring(x: Array, y: Array) -> Array:
    r = np.sqrt(x * x + y * y)
    return _root(0.27**2 - (r - 0.72) ** 2)


def star(x: Array, y: Array) -> Array:
    corners = []
    for i in range(10):
        r, turn = (1.0, i * math.pi / 5) if i % 2 == 0 else (0.44, i * math.pi / 5)
        corners.append((r * math.sin(turn), -r * math.cos(turn)))
    depth = _polygon_depth(x, y, corners)
    return np.where(depth >= 0, 1.3 * depth, OUTSIDE)


def cross(x: Array, y: Array) -> Array:
    a, b = np.abs(x), np.abs(y)
    depth = np.maximum(np.minimum(0.95 - a, 0.34 - b), np.minimum(0.34 - a, 0.95 - b))
    return _bevel(depth, 0.16, 0.22)


def heart(x: Array, y: Array) -> Array:
    a, b = 1.12 * x, -1.12 * y + 0.1
    body = a * a + b * b - 0.72
    value = a * a * b * b * b - body * body * body
    return np.where(value >= 0, 1.5 * np.sqrt(np.sqrt(np.maximum(value, 0))), OUTSIDE)


def moon(x: Array, y: Array) -> Array:
    disc = 1 - np.sqrt(x * x + y * y)
    bite = np.sqrt((x - 0.52) ** 2 + y * y) - 0.74
    return _bevel(np.minimum(disc, bite), 0.22, 0.3)


def pyramid(x: Array, y: Array) -> Array:
    """A square pyramid seen from above: four faces."""
    edge = np.maximum(np.abs(x), np.abs(y))
    return np.where(edge <= 0.82, 1.1 * (0.82 - edge), OUTSIDE)


KINDS: dict[str, Height] = {f.__name__: f for f in (ball, cube, cylinder, cone, ring, star, cross, heart, moon, pyramid)}
"""The object kinds, by the noun that names them."""
