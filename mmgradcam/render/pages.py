"""One self-contained HTML page: point at a target to see its map."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image

from mmgradcam.explanation import Explanation, SanityResult
from mmgradcam.images.pictures import of_tiles
from mmgradcam.render import heatmaps
from mmgradcam.render.embedded import CANVAS_SIDE, canvas_size, data_uri, fitted, heat_data, palette, picture_uri
from mmgradcam.render.templating import render_page

CELL_SIDE, MOST_CELL_PIXELS, MOST_CELL_BYTES, CELL_QUALITIES = 960, 2_000_000, 200_000, (80, 60, 40, 20, 10)
"""Of a notebook's cell: the longest side of one picture, pixels of all panels, bytes, and of the qualities the first that fits.
"""


def page(explanation: Explanation) -> str:
    """The page as HTML: it fetches nothing, and all text from models and users is escaped."""
    metadata, targets = explanation.metadata, explanation.targets
    question = metadata.query.get("question")
    width, height = explanation.picture.size
    tiled = of_tiles(explanation.box)
    heats = explanation.scaled()
    values: dict[str, Any] = {
        "title": str(question) if question else explanation.text,
        "metadata": metadata,
        "words": [_word(i, one) for i, one in enumerate(explanation)],
        "checked": any(explanation.sanity_results),
        "caveat": SanityResult.CAVEAT,
        "grounded": any(target.grounding is not None for target in targets),
        "hallucinated": any(target.is_hallucinated for target in targets),
        "picture": picture_uri(explanation.picture),
        "width": width,
        "height": height,
        "canvas": canvas_size(width, height, CANVAS_SIDE),
        "heat": heat_data(heats if tiled else heats[:, None], explanation.box if tiled else (explanation.box,)),  # type: ignore[arg-type]
        "palette": palette(),
    }
    return render_page("explanation.html", values)


def _word(index: int, one: Explanation) -> dict[str, Any]:
    """What the page shows of one target."""
    target, peak = one.targets[0], one.peak
    shown = "no-map" if one.warning else "weakly-grounded" if one.weakly_grounded else ""
    return {
        "index": index,
        "label": one.label,
        "classes": " ".join(filter(None, [shown, "hallucinated" if target.is_hallucinated else ""])),
        "sentence": _sentence(one),
        "probability": target.probability,
        "hallucination": hallucination_note(one),
        "score": one.score,
        "grounding": "" if target.grounding is None else times(target.grounding),
        "peak": f"{peak[0]}, {peak[1]}" if peak else (one.warning or "no positive evidence"),
        "sanity": one.sanity_result,
        "importances": _tinted(one.importances or []),
    }


def hallucination_note(one: Explanation) -> str:
    """That a target may be hallucinated, with the probability; empty where it is not flagged."""
    target = one.targets[0]
    if not target.is_hallucinated or target.hallucination_probability is None:
        return ""
    return f"may be hallucinated: P {target.hallucination_probability:.2f}".replace("P 0.", "P .")


def _sentence(one: Explanation) -> str:
    score = f"{one.metadata.unit} {one.score:.3f}" + (
        f"; it {hallucination_note(one)}" if one.targets[0].is_hallucinated else ""
    )
    if one.warning:
        return f"“{one.label}”: {one.warning}; no heat is drawn ({score})"
    peak, grounding = one.peak or (0, 0), one.targets[0].grounding
    relies = "" if grounding is None else f", {times(grounding)} as likely with the image"
    if grounding is not None and one.weakly_grounded:
        relies = f", {'about as likely' if grounding > -0.4 else 'likelier'} without the image ({times(grounding)})"
    return f"“{one.label}”: {score}{relies}, peak at x {peak[0]}, y {peak[1]}"


def times(grounding: float) -> str:
    """How many times as likely, of a difference of log-probabilities.

    >>> times(0.0), times(2.5), times(9.0), times(-3.0), times(-9.0)
    ('×1.0', '×12', '>×999', '×0.05', '<×0.01')
    """
    factor = math.exp(max(min(grounding, 7.0), -7.0))
    if not 0.01 <= factor <= 999:
        return ">×999" if factor > 1 else "<×0.01"
    return f"×{factor:.{2 if factor < 0.095 else 1 if factor < 9.95 else 0}f}"


def _tinted(importances: list[tuple[str, float]]) -> list[dict[str, Any]]:
    """Input tokens with the color of their importance: orange for positive, blue for negative."""
    most = max((abs(v) for _, v in importances), default=0.0) or 1.0
    return [
        {"text": text, "importance": v, "rgb": "246,104,40" if v >= 0 else "70,110,220", "opacity": 0.75 * abs(v) / most}
        for text, v in importances
    ]


def cell(explanation: Explanation) -> str:
    """What a notebook shows: the overlay of one target, or the panels of several, smaller the more there are."""
    picture = _shown(explanation)
    tried = (heatmaps.encoded(picture, ".webp", quality) for quality in CELL_QUALITIES)
    made = next((one for one in tried if len(one) <= MOST_CELL_BYTES), None)
    return f'<img alt="" src="{data_uri(made or heatmaps.encoded(picture, ".webp", 0), "webp")}">'


def _shown(explanation: Explanation) -> Image.Image:
    if len(explanation) == 1:
        one = explanation.overlay() if explanation.clip else explanation.over(fitted(explanation.picture, CELL_SIDE))
        return fitted(one, CELL_SIDE)
    if explanation.clip is not None:
        return explanation.panels()
    side = (MOST_CELL_PIXELS / len(explanation)) ** 0.5
    return explanation.panels(max(112, min(320, int(side))))
