"""Brings README.md up to date with the bundled models, its figures and its pictures, and docs/metrics.md with the metrics.

python scripts/readme.py
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from mmgradcam import checkpoints

ROOT = Path(__file__).parents[1]
EXAMPLE = 1333
"""Seed of the example picture, outside every split."""
SHOWN = ("gradcam", "gradcam_pp", "xgradcam", "hirescam", "layercam", "normgrad")


def with_figures(text: str) -> str:
    """The README with what stands between its figure marks made anew."""
    configs = {name: checkpoints.config(checkpoints.folder(name)) for name in checkpoints.names()}
    scenes = {name: config for name, config in configs.items() if name.startswith("scenes-")}
    photos = {name: config for name, config in configs.items() if name.startswith("photo-")}
    tables = {"methods": methods_table(scenes), "models": models_table(scenes), "photos": photos_table(photos)}
    measured = ROOT / "docs" / "benchmark.md"
    if measured.exists():
        _, said, table, *_ = measured.read_text(encoding="utf-8").split("\n\n")
        tables["benchmark"] = f"{said}\n\n{table}"
    cost = ROOT / "docs" / "bundled-cost.md"
    if cost.exists():
        _, _, machine, title, table, *_ = cost.read_text(encoding="utf-8").split("\n\n")
        tables["bundled"] = f"{machine} {title.removeprefix('## ')}.\n\n{table}"
    for mark, table in tables.items():
        text = re.sub(f"(<!-- figures: {mark} -->\n).*?(?=<!-- end -->)", lambda m, t=table: f"{m[1]}{t}\n", text, flags=re.S)
    return text


def methods_table(configs: dict[str, Any]) -> str:
    """Peaks of nouns (answers) at the features, by method, as each card has them."""
    rows = ["| | " + " | ".join(f"`{m}`" for m in SHOWN) + " |", "| --- |" + " --- |" * len(SHOWN)]
    for name in configs:
        card = (checkpoints.folder(name) / "README.md").read_text(encoding="utf-8")
        peaks = []
        for method in SHOWN:
            row = re.search(rf"^\| \**{method}\** \| \**the features \(stride 4\)\** \| \**([\d.]+%) /", card, flags=re.M)
            assert row, (name, method)
            peaks.append(row[1])
        rows.append(f"| {name} | " + " | ".join(peaks) + " |")
    return "\n".join(rows)


def models_table(configs: dict[str, Any]) -> str:
    rows = [
        "| model | true statements / right answers | peak on the object | strictly on what is seen of it | swapped | inside / outside | explained by |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, config in configs.items():
        figures = config["figures"]
        share = figures["all"]["correct"]["mean"]
        kinds = {role: figures["kinds"][role] for role in ("kind", "color") if "caption_true" in figures["all"]}
        for i, (role, found) in enumerate((kinds or {"answer": figures["all"]}).items()):
            f = {key: one["mean"] for key, one in found.items()}
            how = f"{config['method']} at {' x '.join(config['target_layers']) or 'the features'}"
            first = f"[{name}](checkpoints/{name}/README.md) | {share:.1%}" if i == 0 else " | "
            shares = " | ".join(f"{f[key]:.1%}" for key in ("pointing", "pointing_unfilled", "pointing_swapped_pairs"))
            place = f"{role}: {shares} | {f['inside_outside']:.0f}"
            rows.append(f"| {first} | {place} | {how if i == 0 else ''} |")
    return "\n".join(rows)


def photos_table(configs: dict[str, Any]) -> str:
    rows = [
        "| model | captions, answers | peak in the box | of another phrase | centre | inside / outside | explained by |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, config in configs.items():
        figures = config["figures"]
        how = f"{config['method']} at {' x '.join(config['target_layers']) or 'the features'}"
        own = {key: 100 * found["mean"] for key, found in figures["all"].items()}
        if "blind_accuracy" in own:
            said = f"{own['correct']:.1f}% right, {own['blind_accuracy']:.1f}% shown a grey picture"
            place = f"{own['pointing']:.1f}% | | {own['baseline_center']:.1f}% | "
        else:
            said = f"BLEU-4 {100 * figures['wholes']['bleu4']:.1f}, CIDEr-D {100 * figures['wholes']['cider']:.1f}"
            shares = [f"{own[key]:.1f}%" for key in ("pointing", "pointing_swapped_pairs", "baseline_center")]
            place = f"{' | '.join(shares)} | {figures['all']['inside_outside']['mean']:.2f}"
        rows.append(f"| [{name}](checkpoints/{name}/README.md) | {said} | {place} | {how} |")
    return "\n".join(rows)


def metrics_page() -> str:
    """docs/metrics.md: of each function that computes metrics its description, and a line for each metric."""
    from mmgradcam.evaluation.measures import MODULES, listed

    functions: dict[Any, list[Any]] = {}
    for one in listed():
        if one.compute.__module__ in MODULES:  # not those of a user's own
            functions.setdefault(one.compute, []).append(one)
    parts = []
    for compute, some in functions.items():
        lines = [f"| `{m.name}` | {m.description} | {m.interval} | {m.better} | {m.source} |" for m in some]
        table = "\n".join(["| metric | what it is | range | better | source |", "| --- | --- | --- | --- | --- |", *lines])
        parts.append(
            f"{TITLES.get(some[0].level, '## `{}`').format(compute.__name__)}\n\n{inspect.getdoc(compute)}\n\n{table}\n"
        )
    return METRICS + "\n".join(parts)


def rows_table() -> str:
    """The fields of an evaluation's rows, as their schema describes them."""
    from mmgradcam.evaluation.rows import SCHEMA

    lines = [f"| `{one.name}` | {one.type} | {one.metadata[b'description'].decode()} |" for one in SCHEMA]
    return "\n".join(["| field | type | what it is |", "| --- | --- | --- |", *lines])


def with_rows(text: str) -> str:
    """docs/evaluate.md with the table of fields made anew."""
    return re.sub("(<!-- rows -->\n).*?(?=\n<!-- end -->)", lambda m: m[1] + rows_table(), text, flags=re.S)


METRICS = """# Metrics

Made from the metrics' own records by `scripts/readme.py`; `mmgradcam metrics` prints the same list. The titles are what `--metrics` and
`audit` take; the name of a single metric does as well. Shares are 0 to 1. A metric of your own is one function with one decorator,
`mmgradcam.metrics.definition.metric`; [how data sets are evaluated](evaluate.md).

"""
TITLES = {"means": "## Computed from means: `{}`", "rows": "## Computed from all targets: `{}`"}


def pictures() -> None:
    from matplotlib.cbook import get_sample_data

    from mmgradcam import explain
    from mmgradcam.scenes.motion import make_motion, render_motion
    from mmgradcam.scenes.render import render
    from mmgradcam.scenes.scene import make_scene
    from mmgradcam.tasks import load

    out, example = ROOT / "docs" / "images", ROOT / "mmgradcam" / "scenes" / "example.png"
    render(make_scene(EXAMPLE), 384).image.save(example, optimize=True)
    out.mkdir(parents=True, exist_ok=True)
    explain(load("scenes-captioner"), example).panels().save(out / "words.webp", quality=88)
    asked = explain(load("scenes-vqa"), example, question="what color is the large cube?", top=2, contrast="blue")
    asked.panels().save(out / "answers.webp", quality=88)
    moving = render_motion(make_motion(EXAMPLE + 10), 64)
    explain(load("clips-motion"), moving.clip).panels().save(out / "clip.webp", quality=88)
    photo = get_sample_data("grace_hopper.jpg", asfileobj=False)
    panels = explain(load("photo-captioner-small"), photo, grounding=True).panels()
    panels.thumbnail((1200, 1200))
    panels.save(out / "photo.webp", quality=85)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_figures(path.read_text(encoding="utf-8")), encoding="utf-8")
    guide = ROOT / "docs" / "evaluate.md"
    guide.write_text(with_rows(guide.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / "docs" / "metrics.md").write_text(metrics_page(), encoding="utf-8")
    pictures()
