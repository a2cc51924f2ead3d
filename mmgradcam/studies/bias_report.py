"""A report of bias: as a table to read, as JSON, and as one offline page."""
# ruff: noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from mmgradcam.errors import InputError, unicode_text
from mmgradcam.metrics.significance import Difference
from mmgradcam.render.embedded import picture_uri
from mmgradcam.render.pages import STYLE, page_head
from mmgradcam.utils.writing import to_json, write_file, write_folder

SILENT = "no difference found at this size"


@dataclass(frozen=True)
class Example:
    """One picture of a group, with the heat of what was asked; `said` is what the model thought, where it was asked."""

    group: str
    name: str
    label: str
    said: str
    overlay: Image.Image
    caption: str


@dataclass(frozen=True)
class BiasReport:
    """Two groups held against each other: `print` it, or `save` it.

    Attributes:
        model: what people call it.
        method: of the maps.
        feature_layer: where they are taken.
        groups: names of the two.
        counts: pictures of each.
        rows: one per measure, their p corrected for all of them.
        notes: what was left out, and why.
        examples: pictures of each group for the page.
    """

    model: str
    method: str
    feature_layer: str
    groups: tuple[str, str]
    counts: tuple[int, int]
    rows: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()

    @property
    def found(self) -> list[Difference]:
        """The rows in which the groups differ, the surest first."""
        return sorted((row for row in self.rows if row.found), key=lambda row: row.adjusted)

    @property
    def sanity_result(self) -> str:
        """What was found, in a sentence or two; that nothing was, with what could have been missed, where nothing was."""
        one, other = self.groups
        sizes = f"{self.counts[0]} pictures of “{one}” and {self.counts[1]} of “{other}”"
        if self.found:
            objects = ", ".join(row.what for row in self.found)
            count = len(self.found)
            return f"The groups differ in {count} of {len(self.rows)} things tested, over {sizes}: {objects}."
        wide = max((max(abs(row.low), abs(row.high)) for row in self.rows if row.share), default=0.0)
        missed = f" Differences of up to {100 * wide:.1f} points cannot be ruled out." if wide else ""
        small = [row for row in self.rows if row.sure]
        less = f" Sure, but {_says(small[0], self.groups)}: {', '.join(row.what for row in small)}." if small else ""
        return f"{SILENT[0].upper()}{SILENT[1:]}: {len(self.rows)} things tested over {sizes}.{missed}{less}"

    def __str__(self) -> str:
        head = ["", *self.groups, "difference [95% interval]", "p (Holm)", ""]
        lines = [
            head,
            *([_name(row), *_means(row), _interval(row), _p(row.adjusted), _says(row, self.groups)] for row in self.rows),
        ]
        wide = [max(len(line[i]) for line in lines) for i in range(len(head))]
        table = "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, wide, strict=True)).rstrip() for line in lines)
        return "\n".join([self.sanity_result, "", table, *(f"note: {note}" for note in self.notes)])

    def describe(self) -> dict[str, Any]:
        """All figures, as JSON holds them."""
        return {
            "schema": "mmgradcam/bias",
            "version": 1,
            "model": self.model,
            "method": self.method,
            "feature_layer": self.feature_layer,
            "sanity_result": self.sanity_result,
            "groups": [{"name": name, "pictures": count} for name, count in zip(self.groups, self.counts, strict=True)],
            "measures": [
                {
                    "what": row.what,
                    "first": row.first,
                    "second": row.second,
                    "counts": list(row.counts),
                    "paired": row.paired,
                    "difference": row.difference,
                    "interval": [row.low, row.high],
                    "p": row.p,
                    "p_holm": row.adjusted,
                    "least": row.least,
                    "found": row.found,
                }
                for row in self.rows
            ],
            "notes": list(self.notes),
        }

    def save(self, path: str | Path) -> list[Path]:
        """Writes `report.json` and `index.html` into a folder, or the one that the path's ending names.

        Args:
            path: a folder, or a file that ends in .json or .html.

        Returns:
            The files written. Files appear whole or not at all.
        """
        path = Path(path)
        told, page = (to_json(self.describe(), indent=1) + "\n").encode(), self.page().encode()
        if path.suffix == ".json":
            return [write_file(path, told)]
        if path.suffix == ".html":
            return [write_file(path, page)]
        if path.suffix:
            raise InputError(f"{path}: expected a folder, or a name that ends in .json or .html")
        return write_folder(path, {"report.json": told, "index.html": page})

    def page(self) -> str:
        """One HTML page that fetches nothing; all text from models and users escaped."""
        title = f"Does {self.model} treat “{self.groups[0]}” and “{self.groups[1]}” alike?"
        spans = {
            share: max((max(abs(r.low), abs(r.high)) for r in self.rows if r.share is share), default=1.0)
            for share in (True, False)
        }
        rows = "".join(
            f"<tr{' class=found' if row.found else ''}><td>{escape(_name(row))}</td>"
            + "".join(f"<td>{escape(mean)}</td>" for mean in _means(row))
            + f"<td>{_drawn(row, spans[row.share] or 1.0)}</td><td>{escape(_interval(row))}</td><td>{_p(row.adjusted)}</td>"
            f"<td>{escape(_says(row, self.groups))}</td></tr>"
            for row in self.rows
        )
        shown = "".join(self._shown(group, count) for group, count in zip(self.groups, self.counts, strict=True))
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        kind = "alarm" if self.found else "calm"
        return unicode_text(f"""{page_head(title, STYLE + _STYLE)}
<h1>{escape(title)}</h1>
<p class="verdict {kind}">{escape(self.sanity_result)}</p>
<div class="scroll"><table><thead><tr><th></th><th>{escape(self.groups[0])}</th><th>{escape(self.groups[1])}</th><th colspan="2">difference, 95% interval</th><th>p (Holm)</th><th></th></tr></thead><tbody>{rows}</tbody></table></div>
<ul class="notes">{notes}</ul>
{shown}
<footer>{escape(self.method)} at {escape(self.feature_layer)}, model {escape(self.model)}. Heat is the share of a map's heat that lies in a region, over the maps that show any. Intervals: bootstrap over pictures. p: permutation of the groups, corrected by Holm for all rows. A difference says that the model treats the groups differently, not why. Made with mmgradcam.</footer>
</body></html>
""")

    def _shown(self, group: str, count: int) -> str:
        cards = "".join(
            f'<figure class="card"><img alt="{escape(e.label)}" src="{picture_uri(e.overlay)}"><figcaption><b>{escape(e.label)}</b> '
            f"{escape(e.caption)}{_said(e)}</figcaption></figure>"
            for e in self.examples
            if e.group == group
        )
        return (
            f"<h2>{escape(group)} <small>{count} pictures; the first of them</small></h2><div class=cards>{cards}</div>"
            if cards
            else ""
        )


_STYLE = """
h2{font-size:1.15rem;margin:1.6rem 0 .6rem}
h2 small,.card figcaption{color:var(--soft);font-weight:400;font-size:.9rem}
.verdict{padding:.7rem .9rem;border-radius:.5rem;background:var(--chip);border-left:.35rem solid var(--line);overflow-wrap:anywhere}
.verdict.alarm{border-color:#d9480f}
td:first-child{min-width:10rem}
td:last-child{white-space:normal;padding-right:0;min-width:7rem}
th{white-space:normal;vertical-align:bottom}
tr:not(.found) td:last-child{color:var(--soft)}
tr.found td:first-child,tr.found td:last-child{font-weight:600}
tr.found svg{color:#d9480f}
td svg{display:block;color:var(--soft)}
.notes{color:var(--soft);font-size:.9rem;padding-left:1.1rem}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:.9rem}
.card{line-height:1.35;overflow:visible}
.card img{border-radius:.4rem;image-rendering:auto}
.card figcaption{margin-top:.3rem;overflow-wrap:anywhere}
.card b{color:var(--ink)}
.card i{color:#d9480f;font-style:normal}
"""


def _said(example: Example) -> str:
    return f" <i>said {escape(example.said)}</i>" if example.said and example.said != example.label else ""


def _drawn(row: Difference, span: float) -> str:
    """The interval on a line from -span to span."""
    at = [55 + 50 * value / span for value in (row.low, row.difference, row.high)]
    return (
        f'<svg width="110" height="20" role="img" aria-label="{escape(_interval(row))}"><path d="M55 2V18" stroke="currentColor" opacity=".45"/>'
        f'<path d="M{at[0]:.1f} 10H{max(at[2], at[0] + 1):.1f}" stroke="currentColor" stroke-width="3" stroke-linecap="round"/>'
        f'<circle cx="{at[1]:.1f}" cy="10" r="4.5" fill="currentColor"/></svg>'
    )


def _name(row: Difference) -> str:
    return f"{row.what} (same pictures)" if row.paired else row.what


def _means(row: Difference) -> list[str]:
    return [f"{100 * mean:.1f}%" if row.share else f"{mean:.3g}" for mean in (row.first, row.second)]


def _interval(row: Difference) -> str:
    if row.share:
        return f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
    return f"{row.difference:+.3g} [{row.low:+.3g}, {row.high:+.3g}]"


def _p(p: float) -> str:
    """A p as papers print it.

    >>> _p(0.0004), _p(0.0312), _p(1.0)
    ('0.0004', '0.03', '1.00')
    """
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def _says(row: Difference, groups: tuple[str, str]) -> str:
    if not row.found:
        return f"under {100 * row.least:g} point{'s' * (row.least > 0.01)}" if row.sure else "no difference found"
    if row.paired:
        return "changes with the word"
    return f"more for “{groups[0] if row.difference > 0 else groups[1]}”"
