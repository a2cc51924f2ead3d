"""What an audit writes: rows as Parquet, figures as JSON, plots, and one offline page."""
# ruff: noqa: E501

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from mmgradcam.bulk.audit import ABOUT, Audit
from mmgradcam.bulk.intervals import Figure
from mmgradcam.bulk.protocols import wholes
from mmgradcam.errors import unicode_text
from mmgradcam.report import STYLE, page_head
from mmgradcam.writing import to_json, write_folder

MEANING = {
    "right": ("targets that are true of the picture", True),
    "peak": ("peak of the map on the thing (pointing game, no tolerance)", True),
    "strict": ("the same, holes of the thing left open", True),
    "swapped": ("peak of another target's map on this thing", False),
    "specificity": ("peak less swapped", True),
    "centre": ("what the centre point would score", None),
    "random": ("what a random point would score", None),
    "peak_15px": ("peak within 15 pixels of the thing (pointing game of Zhang et al. 2016)", True),
    "swapped_15px": ("the same by another target's map", False),
    "specificity_15px": ("peak less swapped, within 15 pixels", True),
    "centre_15px": ("what the centre point would score, within 15 pixels", None),
    "random_15px": ("what a random point would score, within 15 pixels", None),
    "energy": ("share of the heat on the thing", True),
    "inside": ("mean heat on the thing", True),
    "outside": ("mean heat elsewhere", False),
    "inside_outside": ("mean heat on the thing over that elsewhere", True),
    "box_iou": ("IoU of the box at 15% of the maximum", True),
    "box_found": ("boxes with an IoU of a half at least", True),
    "loc_0": ("Loc at delta 0", True),
    "loc_0.25": ("Loc at delta .25", True),
    "loc_0.5": ("Loc at delta .5", True),
    "obj_iou": ("IoU of the map cut by Otsu's rule", True),
    "noun_iou": ("IoU of nouns, their maps cut by Otsu's rule, a caption's maps on one scale", True),
    "function_word_iou": ("share of function words' maps below the nouns' threshold", True),
    "seed_shared": ("pixels that seed and thing share", True),
    "seed_either": ("pixels of seed or thing", None),
    "seed_iou": ("IoU of segmentation seeds, all pixels in one count", True),
    "attention": ("rank correlation with where people looked", True),
    "drop": ("average drop, %", False),
    "increase": ("confidence grows on what the map shows", True),
    "win": ("most confidence kept of all methods", True),
    "deletion": ("mean score while the hottest is taken away", False),
    "insertion": ("mean score while the hottest is put in", True),
    "road": ("ROAD: score without the coldest less without the hottest", True),
    "occlusion": ("rank correlation with the occlusion map", True),
}
"""What a column says, and whether more of it is better."""

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
    files = {
        "rows.parquet": _parquet(made),
        "summary.json": to_json(summary(made), indent=2).encode(),
        "plots.png": plots or None,
        "index.html": page(made, plots).encode(),
    }
    return write_folder(out, files)


def summary(made: Audit) -> dict[str, Any]:
    """What `summary.json` holds: of each method all figures, and by kind; speeds, and what could not be read.

    What is no number, such as a ratio to no heat at all, is None, since JSON has no other word for it.
    """
    told = {
        "model": made.model,
        "data": made.data,
        "pictures": made.pictures,
        "rows": len(made.rows),
        "figures": {m: {n: asdict(f) for n, f in made.figures(m).items()} for m in made.methods},
        "wholes": {m: wholes(made, m) for m in made.methods},
        "kinds": {
            kind: {m: {n: asdict(f) for n, f in made.figures(m, kind).items()} for m in made.methods} for kind in made.kinds()
        },
        "pictures_per_second": made.speeds(),
        "malformed": made.bad,
        "silent": made.silent,
    }
    return {name: _finite(value) for name, value in told.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parquet(made: Audit) -> bytes:
    import pyarrow
    import pyarrow.parquet

    text = {"picture", "target", "kind", "group", "method"}
    names = [*ABOUT, *made.columns()]
    arrays = [
        pyarrow.array(
            [
                None if (value := row.get(name)) is None else unicode_text(str(value)) if name in text else float(value)
                for row in made.rows
            ],
            type=pyarrow.string() if name in text else pyarrow.float64(),
        )
        for name in names
    ]
    data = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, names=names), data)
    return data.getvalue()


def draw_plots(made: Audit) -> bytes:
    """A PNG with a panel per figure, a dot and its interval per method; empty where nothing was measured."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Sheet

    found = {method: made.figures(method) for method in made.methods}
    chance = {"peak": ("centre", "random"), "strict": ("centre", "random"), "peak_15px": ("centre_15px", "random_15px")}
    apart = {*(name for pair in chance.values() for name in pair), "inside", "outside", "seed_shared", "seed_either"}
    names = [n for n in MEANING if any(n in one for one in found.values()) and n not in apart]
    if all(one["right"].mean == 1 for one in found.values() if "right" in one):
        names = [n for n in names if n != "right"]  # what people wrote is true, and a panel of it says nothing
    names += [n for n in made.columns() if n not in MEANING and any(n in one for one in found.values())]
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
        for other, style in zip(chance.get(name, ()), (":", "--"), strict=False):
            level = next((one[other].mean for one in found.values() if other in one), None)
            if level is not None:
                axes.axvline(level, color="#777", linestyle=style, linewidth=1.2, label=other)
                axes.legend(fontsize=8, frameon=False)
        better = MEANING.get(name, ("", None))[1]
        arrow = {True: " (more is better)", False: " (less is better)", None: ""}[better]
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
    names = _ordered(found)
    whole = _table("All targets", found, names)
    kinds = made.kinds()
    parts = []
    if len(kinds) > 1:
        parts = [_table(kind, {m: made.figures(m, kind) for m in made.methods}, names) for kind in kinds[:12]]
    picture = (
        f'<h2>Plots</h2><img class="plot" alt="Each figure by method, with its 95% interval" src="data:image/png;base64,{base64.b64encode(plots).decode()}">'
        if plots
        else ""
    )
    speeds = "".join(f"<tr><td>{escape(n)}</td><td class=n>{v:.3g}</td></tr>" for n, v in made.speeds().items())
    bad = "".join(f"<li>{escape(line)}</li>" for line in made.bad[:200])
    more = f"<p>and {len(made.bad) - 200} more</p>" if len(made.bad) > 200 else ""
    broken = f"<h2>{len(made.bad)} malformed records, left out</h2><ul>{bad}</ul>{more}" if made.bad else ""
    silent = f" {made.silent} records say nothing that this model could be asked." if made.silent else ""
    return unicode_text(f"""{page_head(f"{made.model} on {made.data}", STYLE + _MORE)}<main>
<h1>{escape(made.model)} on {escape(made.data)}</h1>
<p>{made.pictures} pictures, {len(made.rows) // max(1, len(made.methods))} targets, by {escape(", ".join(made.methods))}. In brackets, where the mean lies with
95% confidence (pictures drawn anew {1000} times); in bold, the best.{silent}</p>
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
    found = {method: wholes(made, method) for method in made.methods}
    names = list(dict.fromkeys(name for one in found.values() for name in one))
    if not names:
        return ""
    head = "".join(f"<th class=n>{escape(method)}</th>" for method in found)
    lines = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}</td>{''.join(f'<td class=n>{one[name]:.3g}</td>' for one in found.values())}</tr>"
        for name in names
    )
    return f"<div class=scroll><table><caption>Of whole pictures</caption><thead><tr><th></th>{head}</tr></thead><tbody>{lines}</tbody></table></div>"


def _ordered(found: dict[str, dict[str, Figure]]) -> list[str]:
    there = {name for one in found.values() for name in one}
    return [name for name in MEANING if name in there] + sorted(there - set(MEANING))


def _table(title: str, found: dict[str, dict[str, Figure]], names: Sequence[str]) -> str:
    head = "".join(f"<th class=n>{escape(method)}</th>" for method in found)
    lines = []
    for name in names:
        if not any(name in one for one in found.values()):
            continue
        said, better = MEANING.get(name, ("", None))
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
            cells.append(f"<td class=n>{shown}<small>({figure.low:.3g} to {figure.high:.3g})</small></td>")
        note = f"<small>{escape(said)}</small>" if said else ""
        lines.append(f"<tr><td>{escape(name.replace('_', ' '))}{note}</td>{''.join(cells)}</tr>")
    rows = max((f.rows for one in found.values() for f in one.values()), default=0)
    return f"<div class=scroll><table><caption>{escape(title)} ({rows} targets)</caption><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
