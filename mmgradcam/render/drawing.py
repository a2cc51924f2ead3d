"""Explanations drawn: heat on the picture, overlays, panels of all targets, animations of clips."""

from __future__ import annotations

import math
from unicodedata import category

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.explanation import Explanation
from mmgradcam.images.pictures import of_tiles
from mmgradcam.render import heatmaps
from mmgradcam.render.animation import Animation, HeatTrack
from mmgradcam.render.pages import times


def heat(one: Explanation, size: tuple[int, int] | None = None) -> npt.NDArray[np.float32]:
    """See `Explanation.heat`."""
    maps, size = _grids(one), size or _size(one)
    if one.clip is None:
        drawn = heatmaps.upsample(maps, one.box, size)
    else:
        drawn = heatmaps.over_time(maps, one.box, len(one.clip), size)  # type: ignore[arg-type]
    return np.asarray(heatmaps.normalize(drawn)[0].numpy(), dtype=np.float32)


def scaled(made: Explanation) -> Tensor:
    """See `Explanation.scaled`."""
    return heatmaps.scaled(_grids(made), made.box, _size(made), None if made.clip is None else len(made.clip))


def peak(one: Explanation) -> tuple[int, ...] | None:
    """See `Explanation.peak`."""
    frames = None if one.clip is None else len(one.clip)
    ((top, (*when, y, x)),) = heatmaps.highest(_grids(one), one.box, _size(one), frames)
    return (x, y, *when) if top > 0 else None


def _size(made: Explanation) -> tuple[int, int]:
    return made.picture.height, made.picture.width


def _grids(made: Explanation) -> Tensor:
    """The maps, if their grid is one of a picture or a clip."""
    many = made.clip is not None or of_tiles(made.box)
    if made.maps.dim() != (4 if many else 3):
        raise InputError(f"expected a map over height and width, got a grid of {made.maps.dim() - 1} dimensions")
    return made.maps.cpu()


def overlay(one: Explanation, opacity: float | None = None) -> Image.Image:
    """See `Explanation.overlay`."""
    if one.clip is not None:
        return animation(one).frame((one.peak or (0, 0, len(one.clip) // 2))[2])
    return over(one, one.picture, opacity)


def over(one: Explanation, picture: Image.Image, opacity: float | None = None) -> Image.Image:
    """See `Explanation.over`."""
    if opacity is None:
        opacity = 0.3 if one.weakly_grounded else 1.0
    return heatmaps.overlay(picture, one.heat((picture.height, picture.width)), opacity)


def animation(made: Explanation) -> Animation:
    """See `Explanation.animation`."""
    if made.clip is None:
        raise InputError("there is no clip, only a picture; explain a Clip to get a film")
    rows = zip(made, made.scaled().numpy(), strict=True)
    tracks = [HeatTrack(one.label, heat, one.caption(), made.box) for one, heat in rows]  # type: ignore[arg-type]
    told = made.metadata
    note = f"{told.method} at {told.feature_layer}, model {told.model}. Heat is scaled to its maximum over the clip."
    return Animation(made.clip, tracks, made.text, note)


def panels(made: Explanation, side: int = 320) -> Image.Image:
    """See `Explanation.panels`."""
    if made.clip is not None:
        return animation(made).strip()
    shown = [one for one in made if not all(category(letter)[0] == "P" for letter in one.label)] or list(made)
    small = made.picture.resize(heatmaps.panel_size(made.picture, side), Image.Resampling.LANCZOS)
    drawn = [(one.label, one.caption(), one.over(small)) for one in shown]
    told = made.metadata
    note = "; ".join([f"{told.method} at {told.feature_layer}, {told.model}", *told.remarks])
    question = told.query.get("question")
    return heatmaps.sheet(made.picture, drawn, str(question) if question else made.text, note, side)


def caption(one: Explanation) -> str:
    """See `Explanation.caption`."""
    if one.warning:
        return one.warning
    probability = one.targets[0].probability
    if probability is None and one.metadata.unit == "log-probability":
        probability = math.exp(min(one.score, 0.0))
    said = f"{one.score:.3g}" if probability is None else f"p {probability:.2f}"
    grounding = one.targets[0].grounding
    return said if grounding is None else f"{said}, {times(grounding)}"
