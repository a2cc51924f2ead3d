"""What an audit writes: rows as Parquet, figures as JSON, plots, and one offline page."""
# ruff: noqa: E501

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from mmgradcam.errors import unicode_text
from mmgradcam.evaluation.intervals import Figure
from mmgradcam.evaluation.run import Audit
from mmgradcam.metrics.definition import Metric
from mmgradcam.render.pages import STYLE, page_head
from mmgradcam.utils.writing import Files, to_json, write_folder

_MORE = """
main{max-width:76rem;margin:0 auto}
th.n,td.n{text-align:right}
td b{font-weight:700}
td small{color:var(--soft);margin-left:.5em}
caption{text-align:left;font-weight:600;font-size:1.15rem;margin:1.4rem 0 .3rem}
img.plot{max-width:100%;height:auto;background:#fff;border-radius:.4rem;margin:.5rem 0}
h2{font-size:1.15rem;margin:1.6rem 0 .4rem}
body{max-width:78rem}
"""


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
    """One offline page: the tables, the plots, and what could not be read."""
    found = {method: made.figures(method) for method in made.methods}
    known = made.metrics()
    whole = _table("All targets", found, known)
    kinds = made.kinds()
    parts = []
    if len(kinds) > 1:
        parts = [_table(kind, {m: made.figures(m, kind) for m in made.methods}, known) for kind in kinds[:12]]
    picture = (
        f'<h2>Plots</h2><img class="plot" alt="Each figure by method, with its 95% interval" src="data:image/png;base64,{base64.b64encode(plots).decode()}">'
        if plots
        else ""
    )
    speeds = "".join(f"<tr><td>{escape(n)}</td><td class=n>{v:.3g}</td></tr>" for n, v in made.speeds().items())
    bad = "".join(f"<li>{escape(line)}</li>" for line in made.bad[:200])
    more = f"<p>and {len(made.bad) - 200} more</p>" if len(made.bad) > 200 else ""
    broken = f"<h2>{len(made.bad)} malformed records, left out</h2><ul>{bad}</ul>{more}" if made.bad else ""
    skipped = f" {made.skipped} records say nothing that this model could be asked." if made.skipped else ""
    return unicode_text(f"""{page_head(f"{made.model} on {made.data}", STYLE + _MORE)}<main>
<h1>{escape(made.model)} on {escape(made.data)}</h1>
<p>{made.pictures} pictures, {len(made.rows) // max(1, len(made.methods))} targets, by {escape(", ".join(made.methods))}. In brackets, where the mean lies with
95% confidence (pictures drawn anew {1000} times); in bold, the best.{skipped}</p>
{whole}
{_whole(made)}
{picture}
{"".join(parts)}
<div class=scroll><table><caption>Pictures a second</caption>{speeds}</table></div>
{broken}
<footer>mmgradcam; rows.parquet holds every target, summary.json all figures.</footer>
</main></body></html>
""")


def _whole(made: Audit) -> str:
    found = {method: {n: Figure(v, v, v, 0) for n, v in made.wholes(method).items()} for method in made.methods}
    return _table("Whole images", found, made.metrics()) if any(found.values()) else ""


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


def _table(title: str, found: Mapping[str, Mapping[str, Figure]], known: Mapping[str, Metric]) -> str:
    """A line per figure and a column per method; an interval of no rows is not shown."""
    head = "".join(f"<th class=n>{escape(method)}</th>" for method in found)
    lines = []
    for name in listed_figures(known, found):
        better = _better(name, known)
        means = {m: one[name].mean for m, one in found.items() if name in one}
        top = None if better is None else f"{(max if better else min)(means.values()):.3g}"
        best = top if len({f"{mean:.3g}" for mean in means.values()}) > 1 else None
        cells = []
        for one in found.values():
            figure = one.get(name)
            if figure is None:
                cells.append("<td class=n>-</td>")
                continue
            mean = f"{figure.mean:.3g}"
            shown = f"<b>{mean}</b>" if mean == best else mean
            between = f"<small>({figure.low:.3g} to {figure.high:.3g})</small>" if figure.rows else ""
            cells.append(f"<td class=n>{shown}{between}</td>")
        note = f"<small>{escape(known[name].description)}</small>" if name in known else ""
        lines.append(f"<tr><td>{escape(name.replace('_', ' '))}{note}</td>{''.join(cells)}</tr>")
    rows = max((f.rows for one in found.values() for f in one.values()), default=0)
    count = f" ({rows} targets)" if rows else ""
    return f"<div class=scroll><table><caption>{escape(title)}{count}</caption><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
