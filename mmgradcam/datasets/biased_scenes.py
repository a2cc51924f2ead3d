"""Scenes of two trades with a bias planted in them: what a figure holds tells its trade, the colour of its head need not.

The pattern is that of the Grad-CAM paper's doctors and nurses, told apart by face and hair where they should be by what they
wear and hold: its training pictures showed 78% male doctors and 93% female nurses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmgradcam.datasets.records import ObjectAnnotation as Known
from mmgradcam.datasets.records import Sample
from mmgradcam.scenes.render import render
from mmgradcam.scenes.scene import COLORS, SIZES, TEXTURES, ObjectAnnotation, Scene
from mmgradcam.scenes.splits import seeds

TRADES = {"keeper": "star", "mender": "cross"}
"""The two classes, and the tool that each holds."""
HEADS = {"keeper": "orange", "mender": "blue"}
"""The head's colour that agrees with the class."""
PLANTED, EVEN = (0.78, 0.93), (0.5, 0.5)
"""Share of pictures, of each class, whose head agrees: as in the paper's biased set, and without a bias."""
GROUPS = ("agrees", "disagrees")

_TOOL_COLORS = tuple(color for color in COLORS if color not in HEADS.values())


@dataclass(frozen=True)
class Figure:
    """One scene, its class, and whether the head's colour agrees with it; its things are clutter, then body, head and tool."""

    scene: Scene
    trade: str
    agrees: bool


def make_figure(seed: int, agreeing: Sequence[float] = EVEN) -> Figure:
    """Draws a figure that holds a tool, among some clutter.

    Args:
        seed: any non-negative integer; the same one gives the same figure.
        agreeing: for each of `TRADES`, the share of pictures whose head has its colour of `HEADS`, 0..1.

    >>> figure = make_figure(3)
    >>> [thing.kind for thing in figure.scene.objects[-3:]], figure.trade, figure.agrees
    (['pyramid', 'ball', 'cross'], 'mender', False)
    """
    rng = np.random.default_rng([seed, 0xB1A5])
    index = int(rng.integers(2))
    trade = list(TRADES)[index]
    agrees = bool(rng.random() < agreeing[index])
    head = HEADS[trade] if agrees else next(color for name, color in HEADS.items() if name != trade)
    x, y, side = rng.uniform(0.36, 0.64), rng.uniform(0.36, 0.48), rng.choice([-1, 1])

    def thing(kind: str, color: str, at: tuple[float, float], radius: float, angle: float = 0.0) -> ObjectAnnotation:
        return ObjectAnnotation(kind, color, min(SIZES, key=lambda s: abs(SIZES[s] - radius)), "rubber", *at, radius, angle)

    def any_of(colors: Sequence[str]) -> str:
        return str(rng.choice(list(colors)))

    body = thing("pyramid", "white", (x, y + 0.26), 0.2)
    face = thing("ball", head, (x, y), rng.uniform(0.11, 0.13))
    hand = x + side * rng.uniform(0.22, 0.26), y + rng.uniform(0.16, 0.34)
    tool = thing(TRADES[trade], any_of(_TOOL_COLORS), hand, rng.uniform(0.085, 0.1), rng.uniform(-math.pi, math.pi))
    clutter = [
        thing(str(rng.choice(("cube", "moon", "ring"))), any_of(_TOOL_COLORS), (corner, rng.uniform(0.1, 0.9)), 0.07)
        for corner in ((0.09,), (0.91,), (0.09, 0.91))[int(rng.integers(3))]
    ]
    turn, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.75, 1.15)
    light = (math.cos(turn) * math.cos(height), math.sin(turn) * math.cos(height), math.sin(height))
    return Figure(Scene(seed, (*clutter, body, face, tool), str(rng.choice(TEXTURES)), light), trade, agrees)


def biased_photos(split: str, count: int, agreeing: Sequence[float] = EVEN, start: int = 0, side: int = 64) -> list[Sample]:
    """Rendered figures: `objects` are the class, at its tool, then "head" and "body"; `group` is "agrees" or "disagrees".

    Args:
        split: "train", "validation" or "test".
        count: number of pictures.
        agreeing: of each of `TRADES`, the share of these pictures that agrees, to the nearest picture below.
        start: leave out that many pictures of the split.
        side: width and height in pixels, 64 or more.
    """
    before, photos = dict.fromkeys(TRADES, 0), []
    for seed in seeds(split, count, start):
        trade = make_figure(seed).trade
        share, done = agreeing[list(TRADES).index(trade)], before[trade]
        agrees = math.floor((done + 1) * share + 1e-9) > math.floor(done * share + 1e-9)
        before[trade] += 1
        photos.append(_photo(make_figure(seed, (float(agrees),) * 2), side))
    return photos


def _photo(figure: Figure, side: int) -> Sample:
    picture = render(figure.scene, side)
    body, head, tool = picture.masks[-3:]
    objects = Known(figure.trade, pixels=tool), Known("head", pixels=head), Known("body", pixels=body)
    return Sample(str(figure.scene.seed), picture.image, objects=objects, group=GROUPS[not figure.agrees])
