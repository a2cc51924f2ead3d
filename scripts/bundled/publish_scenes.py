"""Chooses each scene model's method and layers on validation scenes, measures it on test scenes, writes checkpoints/ and cards.

python scripts/bundled/publish_scenes.py            # needs runs/scenes/best.pt, which scripts/bundled/train_scenes.py makes
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from scene_data import CAPTION_VOCABULARY, QUESTION_VOCABULARY
from train_scenes import ENCODER, FIT, HEADS, NETS

from mmgradcam import methods
from mmgradcam.datasets.scene_source import scenes
from mmgradcam.evaluation.measures import defaults_of
from mmgradcam.evaluation.reports import figures_of
from mmgradcam.evaluation.run import audit
from mmgradcam.scenes.questions import ANSWERS
from mmgradcam.scenes.splits import SPLITS
from mmgradcam.task import Task
from mmgradcam.tasks.loading import build, parts, save

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
METHODS = ("gradcam", "gradcam_pp", "xgradcam", "hirescam", "layercam", "normgrad")
SINGLE: tuple[tuple[str, ...], ...] = ((), ("stages.1",), ("stages.0",), ("stem",))
FUSED: tuple[tuple[str, ...], ...] = (
    ("smooth", "stages.1"),
    ("smooth", "stages.0"),
    ("smooth", "stem"),
    ("stages.0", "stem"),
    ("smooth", "stages.1", "stages.0"),
    ("smooth", "stages.0", "stem"),
)
NAMES = {
    (): "the features (stride 4)",
    ("stages.1",): "stages.1 (stride 8)",
    ("stages.0",): "stages.0 (stride 4)",
    ("stem",): "stem (stride 2)",
}
Choice = tuple[str, tuple[str, ...]]
Figures = dict[str, Any]
ROLES = ("kind", "color")


def publish(out: Path, choose_on: int, measure_on: int, names: Iterable[str] = HEADS) -> None:
    kept = torch.load(out / "best.pt", map_location="cpu", weights_only=True)
    for name in names:
        config = {**describe(name), "fuse": "product"}
        task = trained(name, {**config, "method": "layercam", "target_layers": []}, kept["model"])
        table = {choice: located(task, choice, choose_on) for choice in track(candidates(), f"{name}: methods")}
        method, target_layers = max(table, key=lambda choice: merit(table[choice]))
        config |= {"method": method, "target_layers": list(target_layers)}
        measured = evaluated(trained(name, config, kept["model"]), measure_on, "test", what=f"{name}: test scenes")
        config |= {"headline": headline(measured), "figures": measured}
        save(task, config, CHECKPOINTS / name)
        text = card(name, config, table, measured, choose_on, measure_on, recipe(out, kept["step"]))
        (CHECKPOINTS / name / "README.md").write_text(text, encoding="utf-8")
        print(name, method, target_layers, json.dumps(measured), flush=True)


def _progress(what: str, items: Any, count: int) -> Any:
    return track(items, what, count)


def describe(name: str) -> dict[str, Any]:
    kind, made = HEADS[name]
    captions = "captioner" in name
    task, words = ("captioning:Captioning", CAPTION_VOCABULARY) if captions else ("vqa:VQA", QUESTION_VOCABULARY)
    what = "captions" if captions else "answers questions about"
    return {
        "task": f"mmgradcam.tasks.{task}",
        "summary": f"{what} rendered scenes; CNN encoder, {'transformer' if 'transformer' in name else 'LSTM'} head",
        "encoder": {"class": f"{NETS}.encoder:Encoder", **ENCODER},
        "head": {"class": f"{kind.__module__}:{kind.__name__}", **made},
        "fit": FIT,
        "feature_layer": "features",
        "words": list(words.words),
        **({} if captions else {"answers": list(ANSWERS)}),
    }


def trained(name: str, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> Task:
    """The task with its trained weights, rounded to fp16 as they will be saved."""
    task = build(config)
    for part, module in parts(task).items():
        prefix = "encoder." if part == "encoder" else f"{name}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
        module.half().float().eval()
    return task


def candidates() -> list[Choice]:
    single = [(m, target_layers) for target_layers in SINGLE for m in METHODS]
    return single + [(m, target_layers) for target_layers in FUSED for m in ("layercam", "normgrad")]


def evaluated(task: Task, count: int, split: str, metrics: Sequence[str] = (), what: str = "", **how: Any) -> Figures:
    """The model's own captions judged, or its answers, in the schema of an evaluation's summary."""
    chosen = [how.get("method") or task.method or methods.gradcam]
    shown = functools.partial(_progress, what) if what else None
    data = scenes(split, generated=True)
    made = audit(
        task,
        data,
        chosen,
        metrics or defaults_of(task),
        limit=count,
        target_layers=how.get("target_layers"),
        batch=32,
        progress=shown,
    )
    return figures_of(made, made.methods[0])


def places(figures: Figures) -> dict[str, Figures]:
    """What maps were measured on: kinds and colors in captions, or answers that rest on one object."""
    if "caption_true" not in figures["all"]:
        return {"answer": figures["all"]}
    return {role: figures["kinds"][role] for role in ROLES if "pointing" in figures["kinds"].get(role, {})}


def located(task: Task, choice: Choice, count: int) -> dict[str, Figures]:
    method, target_layers = choice
    how = {"method": getattr(methods, method), "target_layers": target_layers}
    return places(evaluated(task, count, "validation", ("pointing", "heat", "statements"), **how))


def merit(found: dict[str, Figures]) -> float:
    """What is wanted of a default: peaks on the thing, and none on it from another word's map."""
    weights = {"pointing": 1, "pointing_unfilled": 0.5, "pointing_swapped_pairs": -2}
    return sum(weight * f[key]["mean"] for f in found.values() for key, weight in weights.items())


def headline(measured: Figures) -> str:
    what = "statements true" if "caption_true" in measured["all"] else "right"
    place = {key: one["mean"] for key, one in next(iter(places(measured).values())).items()}
    said = f"{measured['all']['correct']['mean']:.1%} {what}; peak on the object {place['pointing']:.1%}"
    return f"{said}, another's map {place['pointing_swapped_pairs']:.1%}"


def recipe(out: Path, step: int) -> str:
    with (out / "log.csv").open() as file:
        row = next(r for r in csv.DictReader(file) if int(r["step"]) == step)
    note = out / "note.txt"  # what of this run a rerun would do otherwise
    more = f"; {note.read_text(encoding='utf-8').strip()}" if note.exists() else ""
    return f"weights of step {step}, after {float(row['minutes']) / 60:.1f} hours on two CPU cores with bf16 autocast{more}"


def card(
    name: str, config: Figures, table: dict[Choice, Figures], measured: Figures, choose_on: int, measure_on: int, how: str
) -> str:
    kind, made = HEADS[name]
    captions, share = "caption_true" in measured["all"], measured["all"]["correct"]
    what = "Statements of its captions that are true of the scene" if captions else "Answers that are right"
    of = {k: v["correct"]["mean"] for k, v in measured["kinds"].items() if "correct" in v}
    found_on = places(measured)
    chosen = (config["method"], tuple(config["target_layers"]))
    use = (
        'explain(load("{name}"), "scene.png")'
        if captions
        else 'explain(load("{name}"), "scene.png", question="what color is the large cube?")'
    ).format(name=name)
    return f"""# {name}

{config["summary"][0].upper() + config["summary"][1:]}. A model with known truth, to try mmgradcam on and to test it with; it
knows nothing but scenes as `mmgradcam.datasets` renders them.

```python
from mmgradcam import explain
from mmgradcam.tasks import load

{use}
```

Maps are taken by **{chosen[0]}** at **{" x ".join(chosen[1]) or "the features"}**, the choice that did best on validation scenes (below).

## Figures on {measure_on:,} held-out scenes

Seeds {SPLITS["test"]} to {SPLITS["test"] + measure_on - 1}, which nothing was trained, chosen or tuned on. `mmgradcam evaluate {name}` prints them anew.

{what} ({share["rows"]:,}):

| all | {" | ".join(of)} |
| --- | {" | ".join("---" for _ in of)} |
| **{share["mean"]:.1%}** | {" | ".join(f"{v:.1%}" for v in of.values())} |

Where the maps peak:

| {"words of" if captions else "answers resting on one object"} | on the object, holes filled | strictly on what is seen of it | swapped | centre | random | inside / outside | maps |
| --- | --- | --- | --- | --- | --- | --- | --- |
{"".join(place_row(k, f) for k, f in found_on.items())}
*Swapped* is the map of another {"word of the same caption" if captions else "question about the same picture"} that speaks of another object: how often it peaks here all the same.
*Centre* and *random* are what those points would score; *inside / outside* is the mean heat inside the object's mask over
the mean heat outside.

## Which method, at which layer

{choose_on} validation scenes (seeds {SPLITS["validation"]} on). Layers joined by "x" are fused by their product.

| method | at | {" | ".join(f"{k}: peak / strictly / swapped / inside:outside" for k in found_on)} |
| --- | --- | {" | ".join("---" for _ in found_on)} |
{"".join(table_row(choice, found, choice == chosen) for choice, found in table.items())}
## How it was made

- Architecture: encoder {ENCODER}; head `{kind.__name__}` {made}; {sum(p.numel() for m in parts(build(config)).values() for p in m.parameters()) / 1e6:.2f} M parameters, stored as fp16.
- Data: 60,000 scenes (seeds {SPLITS["train"]:,} on), 8 captions and 24 questions each, rendered by `mmgradcam.datasets`.
- Recipe: `python scripts/bundled/train_scenes.py`, {how}. The encoder first learned which pairs of attributes occur in a scene, from labels
  of whole pictures; then this head and the three others learned on top of it together; last, the answer heads went on alone,
  learning beside the answer what the objects are that a question describes, and on which side of the other the one lies. No mask,
  box or coordinate was ever shown to it.
- Weights: moving average, kept at the best validation loss. Method and layers chosen on validation scenes.
- Licence: Apache-2.0, weights and data.
- Limits: rendered scenes of up to six objects on a textured ground, its own words and grammar; a photo is outside what it knows.
"""


SHARES = ("pointing", "pointing_unfilled", "pointing_swapped_pairs", "baseline_center", "baseline_random")


def place_row(name: str, f: Figures) -> str:
    shares = " | ".join(f"{f[k]['mean']:.1%}" for k in SHARES)
    return f"| {name} | {shares} | {f['inside_outside']['mean']:.0f} | {f['pointing']['rows']:,} |\n"


def table_row(choice: Choice, found: dict[str, Figures], chosen: bool) -> str:
    method, target_layers = choice
    where = NAMES.get(target_layers, " x ".join(target_layers))
    cells = [
        " / ".join([*(f"{f[k]['mean']:.1%}" for k in SHARES[:3]), f"{f['inside_outside']['mean']:.1f}"]) for f in found.values()
    ]
    mark = "**" if chosen else ""
    return f"| {mark}{method}{mark} | {mark}{where}{mark} | {' | '.join(f'{mark}{cell}{mark}' for cell in cells)} |\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scenes"))
    parser.add_argument("--choose-on", type=int, default=200)
    parser.add_argument("--measure-on", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=HEADS, default=list(HEADS), help="models to publish")
    given = parser.parse_args()
    publish(given.out, given.choose_on, given.measure_on, given.only)
