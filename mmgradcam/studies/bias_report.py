"""A report of bias: as a table to read, as JSON, and as one offline page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mmgradcam.errors import InputError
from mmgradcam.metrics.significance import Difference
from mmgradcam.render.embedded import picture_uri
from mmgradcam.render.templating import render_page
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
        """The page as HTML: it fetches nothing, and all text from models and users is escaped."""
        spans = {
            share: max((max(abs(r.low), abs(r.high)) for r in self.rows if r.share is share), default=1.0) or 1.0
            for share in (True, False)
        }
        values: dict[str, Any] = {
            "title": f"Does {self.model} treat “{self.groups[0]}” and “{self.groups[1]}” alike?",
            "report": self,
            "rows": [_row(row, self.groups, spans[row.share]) for row in self.rows],
            "examples": [(e, picture_uri(e.overlay)) for e in self.examples],
        }
        return render_page("bias.html", values)


def _row(row: Difference, groups: tuple[str, str], span: float) -> dict[str, Any]:
    """What the page shows of a measure; `low`, `middle` and `high`: the interval drawn on a line of -span to span."""
    low, middle, high = (55 + 50 * value / span for value in (row.low, row.difference, row.high))
    return {
        "found": row.found,
        "name": _name(row),
        "means": _means(row),
        "interval": _interval(row),
        "p": _p(row.adjusted),
        "says": _says(row, groups),
        "low": low,
        "middle": middle,
        "high": high,
    }


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
