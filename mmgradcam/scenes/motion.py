"""Clips with known truth: one object moves among still ones, in one of eight ways, on the ground of a rendered scene."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmgradcam.images.clips import Clip
from mmgradcam.scenes.render import draw_thing, ground_of, shadow_of
from mmgradcam.scenes.scene import ObjectAnnotation, Scene, make_scene

MOTIONS = (
    "moves left",
    "moves right",
    "moves up",
    "moves down",
    "circles clockwise",
    "circles counterclockwise",
    "grows",
    "shrinks",
)
STILL = 3
"""Most still objects beside the one that moves."""


@dataclass(frozen=True)
class Motion:
    """One object's way through a scene.

    Attributes:
        scene: the ground, the light and the still objects.
        kind: how it moves, of `MOTIONS`.
        way: what moves, in each frame.
    """

    scene: Scene
    kind: str
    way: tuple[ObjectAnnotation, ...]


@dataclass(frozen=True)
class Moving:
    """A rendered motion.

    Attributes:
        clip: its frames.
        masks: (T, side, side) bool, in each frame the pixels of what moves.
    """

    clip: Clip
    masks: npt.NDArray[np.bool_]


def make_motion(seed: int, frames: int = 16) -> Motion:
    """Draws a motion from a seed, as likely of any kind.

    Args:
        seed: any non-negative integer; the same seed gives the same motion. Scenes' splits of seeds hold for motions too.
        frames: how many, 2 or more.

    >>> make_motion(7).kind in MOTIONS, len(make_motion(7).way)
    (True, 16)
    """
    rng = np.random.default_rng([seed, 0x307E])
    scene = make_scene(seed)
    kind = str(rng.choice(MOTIONS))
    still = scene.objects[: int(rng.integers(1, STILL + 1))]
    mover = replace(make_scene(int(rng.integers(2**31))).objects[0], radius=float(rng.uniform(0.09, 0.15)))
    return Motion(replace(scene, objects=still), kind, _way(mover, kind, frames, rng))


def _way(mover: ObjectAnnotation, kind: str, frames: int, rng: np.random.Generator) -> tuple[ObjectAnnotation, ...]:
    t = np.linspace(0.0, 1.0, frames)
    radius = np.full(frames, mover.radius)
    x, y = np.zeros(frames), np.zeros(frames)
    if kind.startswith("moves"):
        along, across = rng.uniform(0.35, 0.6) * (t - 0.5), rng.uniform(-0.05, 0.05) * (t - 0.5)
        x, y = {"left": (-along, across), "right": (along, across), "up": (across, -along), "down": (across, along)}[kind[6:]]
    elif kind.startswith("circles"):
        turn = (
            rng.uniform(0, 2 * math.pi) + (1 if kind.endswith(" clockwise") else -1) * rng.uniform(0.8, 1.3) * 2 * math.pi * t
        )
        reach = rng.uniform(0.13, 0.22)
        x, y = reach * np.cos(turn), reach * np.sin(turn)
    else:
        grown = rng.uniform(1.8, 2.4) ** (t if kind == "grows" else 1 - t)
        radius = radius * 0.72 * grown
        x, y = rng.uniform(-0.04, 0.04) * (t - 0.5), rng.uniform(-0.04, 0.04) * (t - 0.5)
    (x0, x1), (y0, y1) = ((float((v - radius).min()), float((v + radius).max())) for v in (x, y))
    dx, dy = rng.uniform(0.01 - x0, 0.99 - x1), rng.uniform(0.01 - y0, 0.99 - y1)
    return tuple(
        replace(mover, x=float(a + dx), y=float(b + dy), radius=float(r)) for a, b, r in zip(x, y, radius, strict=True)
    )


def render_motion(motion: Motion, side: int = 64) -> Moving:
    """Draws a motion; what moves stands in front.

    Args:
        motion: what to draw.
        side: width and height in pixels, 48 or more.

    >>> moving = render_motion(make_motion(7))
    >>> len(moving.clip), moving.masks.shape, bool(moving.masks.any((1, 2)).all())
    (16, (16, 64, 64), True)
    """
    if side < 48:
        raise ValueError(f"render_motion: expected a side of 48 pixels or more, got {side}")
    scene = motion.scene
    rng = np.random.default_rng([scene.seed, 0x307F])
    ground = ground_of(scene, side, rng)
    for thing in scene.objects:
        ground = _laid(ground, thing, scene, side)[0]
    frames, masks = [], []
    for thing in motion.way:
        canvas, mask = _laid(ground, thing, scene, side)
        canvas = canvas + rng.integers(-3, 4, size=canvas.shape) / 255
        frames.append(Image.fromarray(np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)))
        masks.append(mask)
    return Moving(Clip(tuple(frames), name=f"motion-{scene.seed}"), np.stack(masks))


def _laid(
    canvas: npt.NDArray[np.float64], thing: ObjectAnnotation, scene: Scene, side: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The canvas with a thing on it, and the thing's pixels."""
    alpha, color = draw_thing(thing, scene.light, side)
    shade = shadow_of(alpha, thing, scene.light, side)
    dark = canvas * (1 - 0.5 * (shade * (1 - alpha))[..., None])
    return dark * (1 - alpha[..., None]) + color * alpha[..., None], alpha > 0.5
