"""What an audit writes: rows as Parquet, figures as JSON, plots, and one offline page."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmgradcam.evaluation.intervals import DRAWS, Figure
from mmgradcam.evaluation.run import Audit
from mmgradcam.metrics.definition import Metric
from mmgradcam.render.embedded import data_uri
from mmgradcam.render.templating import render_page
from mmgradcam.utils.writing import Files, to_json, write_folder


def save(made: Audit, out: str | Path) -> list[Path]:
    """Writes `rows.parquet`, `summary.json`, `plots.png` and `index.html` into a folder.

    Raises:
        InputError: the folder cannot be written to.
    """
    plots = draw_plots(made)
    files: Files = {
        "rows.parquet": made.rows.write,
        "summary.json": to_json(summary(made), indent=2).encode(),
        "plots.png": plots or None,
        "index.html": page(made, plots).encode(),
    }
    return write_folder(out, files)


def summary(made: Audit) -> dict[str, Any]:
    """What `summary.json` holds: what each metric means, of each method all figures, and by kind; speeds, and what was
    malformed.

    What is no number, such as a ratio to no heat at all, is None, since JSON has no other word for it.
    """
    told = {
        "model": made.model,
        "data": made.data,
        "pictures": made.pictures,
        "rows": len(made.rows),
        "metrics": {name: one.described() for name, one in made.metrics().items()},
        "figures": {m: {n: asdict(f) for n, f in made.figures(m).items()} for m in made.methods},
        "wholes": {m: made.wholes(m) for m in made.methods},
        "kinds": {
            kind: {m: {n: asdict(f) for n, f in made.figures(m, kind).items()} for m in made.methods} for kind in made.kinds()
        },
        "pictures_per_second": made.speeds(),
        "malformed": made.bad,
        "skipped": made.skipped,
        "out_of_vocabulary": made.out_of_vocabulary,
    }
    return {name: _finite(value) for name, value in told.items()}


def figures_of(made: Audit, method: str) -> dict[str, Any]:
    """What a model's card keeps of one method's figures: of all targets, by kind, and of whole data sets."""
    kinds = {kind: made.figures(method, kind) for kind in made.kinds()}
    told = {
        "all": {n: asdict(f) for n, f in made.figures(method).items()},
        "kinds": {kind: {n: asdict(f) for n, f in found.items()} for kind, found in sorted(kinds.items())},
        "wholes": made.wholes(method),
        "counts": {"photos": made.pictures, "skipped": made.skipped, "out_of_vocabulary": made.out_of_vocabulary},
    }
    return {name: _finite(value) for name, value in told.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def draw_plots(made: Audit) -> bytes:
    """A PNG with a panel per figure, a dot and its interval per method; empty where nothing was measured."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Sheet

    found = {method: made.figures(method) for method in made.methods}
    known = made.metrics()
    names = [name for name in listed_figures(known, found) if _plotted(name, known)]
    if all(one["correct"].mean == 1 for one in found.values() if "correct" in one):
        names = [n for n in names if n != "correct"]  # what people wrote is true, and a panel of it says nothing
    if not names:
        return b""
    across = min(3, len(names))
    down = -(-len(names) // across)
    tall = 0.9 + 0.34 * len(found)
    sheet = Sheet(figsize=(4.6 * across, tall * down), dpi=110)
    FigureCanvasAgg(sheet)
    sheet.set_layout_engine("constrained", h_pad=0.12)
    for i, name in enumerate(names):
        axes = sheet.add_subplot(down, across, i + 1)
        for y, one in enumerate(found.values()):
            if name in one:
                figure = one[name]
                axes.plot([figure.low, figure.high], [y, y], color="#b79adf", linewidth=5, solid_capstyle="round")
                axes.plot([figure.mean], [y], "o", color="#4b1590", markersize=7)
        for other, style in zip(known[name].baselines if name in known else (), (":", "--"), strict=False):
            level = next((one[other].mean for one in found.values() if other in one), None)
            if level is not None:
                axes.axvline(level, color="#777", linestyle=style, linewidth=1.2, label=other.replace("_", " "))
                axes.legend(fontsize=8, frameon=False)
        arrow = f" ({known[name].better} is better)" if name in known and known[name].better else ""
        axes.set_title(name.replace("_", " ") + arrow, fontsize=10.5)
        axes.set_yticks(range(len(found)), list(found), fontsize=9.5)
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.tick_params(axis="x", labelsize=9)
        axes.grid(axis="x", color="#e6e6ee")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    data = io.BytesIO()
    sheet.savefig(data, format="png")
    return data.getvalue()


def page(made: Audit, plots: bytes) -> str:
    """One self-contained HTML page: tables, plots and malformed records."""
    known, kinds = made.metrics(), made.kinds()
    wholes = {method: {n: Figure(v, v, v, 0) for n, v in made.wholes(method).items()} for method in made.methods}
    parts = {kind: {m: made.figures(m, kind) for m in made.methods} for kind in kinds[:12]} if len(kinds) > 1 else {}
    values: dict[str, Any] = {
        "title": f"{made.model} on {made.data}",
        "images": made.pictures,
        "targets": len(made.rows) // max(1, len(made.methods)),
        "methods": made.methods,
        "draws": DRAWS,
        "skipped": made.skipped,
        "all_targets": _table("All targets", {method: made.figures(method) for method in made.methods}, known),
        "whole_images": _table("Whole images", wholes, known) if any(wholes.values()) else None,
        "by_kind": [_table(kind, found, known) for kind, found in parts.items()],
        "plots": data_uri(plots, "png") if plots else "",
        "speeds": made.speeds(),
        "malformed": made.bad,
    }
    return render_page("evaluation.html", values)


def listed_figures(known: Mapping[str, Metric], found: Mapping[str, Mapping[str, Figure]]) -> list[str]:
    """Names of figures: metrics as they are listed, then columns of plain functions."""
    there = {name for one in found.values() for name in one}
    return [name for name in known if name in there and name not in _parts(known)] + sorted(there - set(known))


def _parts(known: Mapping[str, Metric]) -> set[str]:
    """Columns that are neither good nor bad, of which other metrics are made: in rows and JSON, but in no table."""
    return {part for one in known.values() for part in one.of if part in known and known[part].higher_is_better is None}


def _better(name: str, known: Mapping[str, Metric]) -> bool | None:
    return known[name].higher_is_better if name in known else None


def _plotted(name: str, known: Mapping[str, Metric]) -> bool:
    """Whether a figure has a panel of its own: a baseline is a line in the panels of others."""
    return not any(name in one.baselines for one in known.values())


def _table(title: str, found: Mapping[str, Mapping[str, Figure]], known: Mapping[str, Metric]) -> dict[str, Any]:
    """A line per figure and a cell per method, as the page shows them."""
    return {
        "title": title,
        "rows": max((figure.rows for one in found.values() for figure in one.values()), default=0),
        "methods": list(found),
        "lines": [
            {
                "name": name.replace("_", " "),
                "description": known[name].description if name in known else "",
                "cells": _cells([one.get(name) for one in found.values()], _better(name, known)),
            }
            for name in listed_figures(known, found)
        ],
    }


def _cells(figures: Sequence[Figure | None], higher_is_better: bool | None) -> list[dict[str, Any] | None]:
    """Means as they are read, which of them is best, and their intervals; an interval of no rows is not shown."""
    means = [one.mean for one in figures if one is not None]
    differ = higher_is_better is not None and len({f"{mean:.3g}" for mean in means}) > 1
    best = f"{(max if higher_is_better else min)(means):.3g}" if differ else None
    return [
        None
        if one is None
        else {
            "mean": f"{one.mean:.3g}",
            "best": f"{one.mean:.3g}" == best,
            "interval": f"{one.low:.3g} to {one.high:.3g}" if one.rows else "",
        }
        for one in figures
    ]
