"""Makes a bundled model of what scripts/bundled/train_photos.py trained: chooses its method and layers, measures it, writes its card.

    python scripts/bundled/publish_photos.py photo-captioner --run runs/photos/photo-captioner --train train.parquet --val val.parquet

Method and layers are chosen on photos at the end of the training set that the head was not trained on; their boxes are read for
that and for nothing else. The figures are those of the validation photos.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from photo_data import HELD
from rich.progress import track
from safetensors.torch import load_file
from train_photos import HUB, MOBILENET

from mmgradcam import methods
from mmgradcam.datasets.photos import Photos
from mmgradcam.datasets.sources import Source, open_data
from mmgradcam.evaluation.measures import defaults_of
from mmgradcam.evaluation.reports import figures_of
from mmgradcam.evaluation.run import audit
from mmgradcam.task import Task
from mmgradcam.tasks import load
from mmgradcam.tasks.loading import build, parts, save

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
NETS = "mmgradcam.tasks.nets"
METHODS = ("gradcam", "hirescam", "normgrad")
GRID, FINE = "grid", "model.layer.4"
"""Stride 16, all layers of the encoder stacked; stride 8."""
HUB_CHOICES: list[tuple[str, list[str]]] = [
    ("normgrad", [GRID, FINE]),
    ("normgrad", [GRID]),
    ("gradcam", []),
    ("hirescam", []),
    ("layercam", []),
    ("normgrad", []),
]
"""The features themselves are the grid that the detectors look at."""
OWN_LAYERS: list[list[str]] = [["stages.0", "stages.2"], ["stages.2"], ["smooth"], []]
SUMMARIES = {
    "photo-captioner": "captions photos; MobileNetV2 of the hub, LSTM with attention over word detectors",
    "photo-captioner-transformer": "captions photos; MobileNetV2 of the hub, transformer over word detectors",
    "photo-captioner-small": "captions photos; its own encoder, LSTM with attention over word detectors",
    "photo-vqa": "answers questions about photos; MobileNetV2 of the hub, LSTM with glimpses over word detectors",
}
Figures = dict[str, Any]
CHOSEN_BY = ("pointing", "pointing_swapped_pairs", "baseline_center", "baseline_random", "inside_outside")


def describe(name: str, run: Path) -> dict[str, Any]:
    metadata = json.loads((run / "about.json").read_text())
    captions = "captioner" in name
    if "small" in name:
        from distill_photos import ENCODER

        encoder: dict[str, Any] = {"class": f"{NETS}.encoder:Encoder", **ENCODER}
    else:
        encoder = {
            "class": f"{NETS}.backbone:Backbone",
            "name": HUB,
            "weights": True,
            **MOBILENET,
            **metadata.get("encoder", {}),
        }
    return {
        "task": f"mmgradcam.tasks.{'captioning:Captioning' if captions else 'vqa:VQA'}",
        "summary": SUMMARIES[name],
        "encoder": encoder,
        "head": {"class": f"{NETS}.evidence:{'EvidenceCaptioner' if captions else 'EvidenceAnswerer'}", **metadata["head"]},
        "fit": {**metadata["fit"], "size": list(metadata["fit"]["size"])},
        "feature_layer": "detectors' grid",
        "words": metadata["words"],
        **({"beam": 3} if captions else {"answers": metadata["answers"]}),
        "stored": "int8",
        "method": "normgrad",
        "target_layers": [],
        "fuse": "product",
    }


def export(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Writes the model folder with what is known so far, and returns its config; without a run, that of the folder there is."""
    if given.run is None:
        known: dict[str, Any] = json.loads((CHECKPOINTS / name / "config.json").read_text())
        known |= {"feature_layer": "detectors' grid", "method": "normgrad", "target_layers": []}
        (CHECKPOINTS / name / "config.json").write_text(json.dumps(known, indent=1) + "\n")
        return known
    kept = torch.load(given.run / "best.pt", map_location="cpu", weights_only=True)
    config = describe(name, given.run)
    asked = config if "small" in name else {**config, "encoder": {**config["encoder"], "name": str(given.encoder or HUB)}}
    task = build(asked)
    parts(task)["head"].load_state_dict(kept["head"])
    if "small" in name:
        parts(task)["encoder"].load_state_dict(torch.load(given.student, map_location="cpu", weights_only=True)["encoder"])
    save(task, config, CHECKPOINTS / name)
    return config


def loaded(name: str, given: argparse.Namespace) -> Task:
    return load(CHECKPOINTS / name, encoder=None if "small" in name else given.encoder)


def candidates(name: str) -> list[tuple[str, str, list[str]]]:
    """Units of a score, methods and layers to choose among."""
    fused = HUB_CHOICES
    if "small" in name:
        fused = [("normgrad", target_layers) for target_layers in OWN_LAYERS[:-1]] + HUB_CHOICES[2:]
    if "vqa" in name:
        return [("logit", "normgrad", target_layers) for target_layers in ([GRID, FINE], [FINE], [GRID], [])]
    return [("word logit", *choice) for choice in fused] + [("log-probability", *choice) for choice in fused[-1:]]


def choose(name: str, given: argparse.Namespace) -> list[Figures]:
    """Figures of each candidate on held training photos, kept in methods.json of the run, or of runs/NAME."""
    kept = (given.run or Path("runs") / name) / "methods.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Figures] = json.loads(kept.read_text()) if kept.exists() else []
    task, photos = loaded(name, given), held(given.train)
    for unit, method, target_layers in candidates(name)[len(rows) :]:
        task.unit = unit
        wanted = ["pointing", "heat"]
        made = audit(task, photos, [getattr(methods, method)], wanted, limit=given.choose_on, target_layers=target_layers)
        found = {name: figure.mean for name, figure in made.figures(made.methods[0]).items()}
        rows.append(
            {
                "unit": unit,
                "method": method,
                "target_layers": target_layers,
                **{key: found[key] for key in CHOSEN_BY if key in found},
            }
        )
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
        kept.write_text(json.dumps(rows))
    return rows


def held(path: Path) -> Source:
    rows = Photos(path).rows
    return open_data(rows.select(range(len(rows) - HELD, len(rows))))


def merit(row: Figures) -> float:
    """What is wanted of a default: peaks in the box, and of a captioner's phrases not those of another phrase's map."""
    return float(row["pointing"] - 0.5 * row.get("pointing_swapped_pairs", 0.0))


def publish(name: str, given: argparse.Namespace) -> None:
    config = export(name, given)
    if given.until == "export":
        return
    rows = choose(name, given)
    if given.until == "choose":
        return
    best = max(rows, key=merit)
    config |= {"method": best["method"], "target_layers": best["target_layers"]} | (
        {"unit": best["unit"]} if "captioner" in name else {}
    )
    (CHECKPOINTS / name / "config.json").write_text(json.dumps({**config, "format": 1}, indent=1) + "\n")
    figures = measured(loaded(name, given), open_data(given.val), given)
    config |= {"headline": headline(figures), "figures": figures}
    (CHECKPOINTS / name / "config.json").write_text(json.dumps({**config, "format": 1}, indent=1) + "\n")
    card = write_card(name, config, rows, best, given)
    (CHECKPOINTS / name / "README.md").write_text(card, encoding="utf-8")
    print(json.dumps(figures))


def measured(task: Task, photos: Source, given: argparse.Namespace) -> Figures:
    """The figures of the card, in the schema of an evaluation's summary."""

    def evaluated(metrics: Sequence[str], limit: int | None) -> Figures:
        shown = functools.partial(_progress, ", ".join(metrics))
        made = audit(task, photos, [task.method or methods.gradcam], metrics, limit=limit, progress=shown)
        return figures_of(made, made.methods[0])

    figures = evaluated(defaults_of(task), given.measure_on)
    if "bleu4" in figures["wholes"] and isinstance(beam := getattr(task, "beam", None), int):
        task.beam = 1  # type: ignore[attr-defined]
        figures["greedy"] = evaluated(["captions"], given.measure_on)["wholes"]
        task.beam = beam  # type: ignore[attr-defined]
    figures["counts"]["mapped"] = figures["counts"]["photos"]
    return figures


def _progress(what: str, items: Any, count: int) -> Any:
    return track(items, what, count)


def percent(found: Figures, name: str) -> float:
    return 100 * float(found[name]["mean"])


def headline(figures: Figures) -> str:
    own = functools.partial(percent, figures["all"])
    if "blind_accuracy" in figures["all"]:
        said = f"{own('correct'):.1f}% right, {own('blind_accuracy'):.1f}% without the picture; peak in the box {own('pointing'):.1f}%"
    else:
        said = f"BLEU-4 {100 * figures['wholes']['bleu4']:.1f}; peak in the phrase's box {own('pointing'):.1f}%"
        said += f", of another phrase {own('pointing_swapped_pairs'):.1f}%"
    return f"{said}, centre {own('baseline_center'):.1f}%"


def write_card(name: str, config: Figures, rows: list[Figures], best: Figures, given: argparse.Namespace) -> str:
    figures, small, vqa = config["figures"], "small" in name, "vqa" in name
    ask = ', question="what is the dog doing?"' if vqa else ""
    where = " x ".join(best["target_layers"]) or "the grid that its detectors look at"
    stands = (
        "It stands on its own: nothing is downloaded."
        if small
        else f"The checkpoint holds the head alone. Its encoder is the hub's [{HUB}](https://huggingface.co/{HUB}) (Apache-2.0), "
        "which transformers fetches once, 14 MB; `encoder=FOLDER`, `--encoder FOLDER` or the variable `MMGRADCAM_ENCODER` give "
        "a folder with it instead."
    )
    return f"""# {name}

{config["summary"][0].upper() + config["summary"][1:]}. {stands}

```python
from mmgradcam import explain
from mmgradcam.tasks import load

explain(load("{name}"), "photo.jpg"{ask})
```

Maps are taken by **{best["method"]}** at **{where}**, of the {best["unit"]}: the choice that did best on training photos that
the head was not trained on (below).

## Figures on {figures["counts"]["photos"]:,} validation photos of Flickr8k

`mmgradcam evaluate {name} --data val.parquet` prints them anew. Nothing was trained or chosen on these photos.

{answers_table(figures) if vqa else captions_table(figures)}
## Which method, at which layer

{given.choose_on} photos of the training split that the head was not trained on; their boxes were read for this choice and for nothing else.
Layers joined by "x" are fused by their product.

{methods_table(rows, best, vqa)}
{MADE}

{made(name, config, given)}"""


MADE = "## How it was made"


def made(name: str, config: Figures, given: argparse.Namespace) -> str:
    """How the weights came about; without a run, what the card there is says of it."""
    if given.run is None:
        return (CHECKPOINTS / name / "README.md").read_text(encoding="utf-8").partition(MADE)[2].lstrip()
    small, vqa = "small" in name, "vqa" in name
    parameters = sum(
        v.numel() for k, v in load_file(CHECKPOINTS / name / "model.safetensors").items() if not k.endswith(":scale")
    )
    head = config["head"]["class"].split(":")[1]
    kept = torch.load(given.run / "best.pt", map_location="cpu", weights_only=True)
    notes = (given.run / "note.md").read_text() if (given.run / "note.md").exists() else ""
    return f"""- Head: `{head}`, {parameters / 1e6:.2f} M parameters in the file{" with the encoder" if small else ""}; matrices stored as int8 with a scale per row.
- Recipe: `python scripts/bundled/train_photos.py {name} --data train.parquet --out runs/photos/{name}`, 5,500 photos of Flickr8k's training split,
  the weights that did best on the 500 others:
{recipe_of(kept, "detectors" if vqa else "weights")}
- Where the words are: from captions alone. A detector of each word, one linear layer, must find the word in some cell of
  photos whose captions hold it, and nowhere in the others. No box was ever shown to it.
- Data: Flickr8k and the phrases of Flickr30k Entities, for non-commercial research and education; no photo is in the checkpoint.
- Licence of the weights: Apache-2.0, within the terms of the data they were learned from.
{notes}"""


def recipe_of(kept: dict[str, Any], taken: str) -> str:
    """One line for each training that the weights went through, the `taken` of one being what the next began with."""
    lines = []
    for part in kept["recipe"]:
        if "start" in part:
            lines.append(f"  - the {taken} of [{part['start']}](../{part['start']}/README.md), trained on the same photos")
            continue
        settings = [
            f"--{k}" if v is True else f"--{k} {_set(v)}" for k, v in part["settings"].items() if v is not False and v != []
        ]
        after = f", beginning with the {taken} of the line above," if lines else ""
        lines.append(
            f"  - `{' '.join(settings)}`{after} taken after {part['epochs']} epochs, {part['minutes']:.0f} minutes on one CPU core"
        )
    return "\n".join(lines)


def _set(value: Any) -> str:
    return " ".join(Path(run).name for run in value) if isinstance(value, list) else str(value)


def captions_table(figures: Figures) -> str:
    own, whole, g = functools.partial(percent, figures["all"]), figures["wholes"], figures["greedy"]
    count = figures["all"]["pointing"]["rows"]
    types = "".join(
        f"| {k} | {percent(v, 'pointing'):.1f} | {percent(v, 'baseline_center'):.1f} | {v['pointing']['rows']:,} |\n"
        for k, v in figures["kinds"].items()
        if "pointing" in v
    )
    meteor = f", METEOR {100 * whole['meteor']:.1f}" if "meteor" in whole else METEORLESS
    return f"""Captions: BLEU-4 **{100 * whole["bleu4"]:.1f}**, CIDEr-D {100 * whole["cider"]:.1f} by beam search of 3; BLEU-4 {100 * g["bleu4"]:.1f}, CIDEr-D {100 * g["cider"]:.1f} greedy{meteor}.
One caption for all photos scores BLEU-4 8.8, one person's caption against the four others' 21.2.

Of {count:,} boxed phrases of the reference captions, teacher-forced, how many percent have the map's peak in one of their
boxes:

| | own | centre | phrases |
| --- | --- | --- | --- |
| **all** | **{own("pointing"):.1f}** | {own("baseline_center"):.1f} | {count:,} |
{types}
The map of another phrase of the same caption peaks there in {own("pointing_swapped_pairs"):.1f}%: the map knows {own("pointing") - own("pointing_swapped_pairs"):.1f} points of the phrase beyond "something
is here". A random point is there in {own("baseline_random"):.1f}%. Mean heat inside the boxes over mean heat outside: {figures["all"]["inside_outside"]["mean"]:.2f}.
Nouns of the generated captions that head a boxed phrase: {own("generated_pointing"):.1f}% (centre {own("baseline_center_generated"):.1f}%).

"""


METEORLESS = " (METEOR needs nltk's WordNet, which was not at hand)"


def answers_table(figures: Figures) -> str:
    total, c = figures["all"], figures["counts"]
    own = functools.partial(percent, total)
    kinds = "".join(
        f"| {k} | {percent(v, 'correct'):.1f} | {percent(v, 'blind_accuracy'):.1f} | {percent(v, 'majority_prior'):.1f} |\n"
        for k, v in figures["kinds"].items()
    )
    points = "".join(point_row(kind, found) for kind, found in figures["kinds"].items() if "pointing" in found)
    asked = total["correct"]["rows"]
    return f"""{asked:,} questions that the captions and their phrases give rise to (`mmgradcam.datasets.question_generation` lists the kinds). An answer is right if
two of a photo's five captions give it, in these words or synonyms, as VQA v2 asks for three people of ten; a question to which
no answer is right is not asked. They are balanced: of two answers each is right as often, of more none in over half of the
photos that the question is asked of. For {round((1 - total["answerable"]["mean"]) * asked):,} of them the model has no right answer in its list, and they count as wrong;
{c["out_of_vocabulary"]:,} more have a word it does not know and are not asked. "The usual answer" is the one that is right most often of that very
question on these photos: no less than what is learned from training photos would score.

| kind | right, % | shown a grey picture, % | the usual answer to the question, % |
| --- | --- | --- | --- |
| **all** | **{own("correct"):.1f}** | {own("blind_accuracy"):.1f} | {own("majority_prior"):.1f} |
{kinds}
Of the first {c["mapped"]:,} photos, how many percent of the maps peak in a box of what the right answers name or tell of: maps of the
model's own answers, of those alone that were right, and of a right answer whatever the model says, where it knows one. Beside each
what the centre point scores there, and how many questions these are:

| kind | own, centre | where right, centre | right answer, centre | questions |
| --- | --- | --- | --- | --- |
{points}
"""


def point_row(kind: str, found: Figures) -> str:
    cells = [
        f"{percent(found, f'pointing{of}'):.1f}, {percent(found, f'baseline_center{of}'):.1f} ({found[f'pointing{of}']['rows']:,})"
        if f"pointing{of}" in found
        else "-"
        for of in ("", "_correct", "_given")
    ]
    return f"| {kind} | {' | '.join(cells)} | {found['pointing']['rows']:,} |\n"


def methods_table(rows: list[Figures], best: Figures, vqa: bool) -> str:
    columns = {"pointing": "own", "pointing_swapped_pairs": "swapped", "baseline_center": "centre"}
    columns = {key: said for key, said in columns.items() if not (vqa and said == "swapped")}
    lines = [f"| score | method | at | {' | '.join(columns.values())} |", "| --- | --- | --- |" + " --- |" * len(columns)]
    for row in rows:
        mark = "**" if row is best else ""
        cells = [
            row["unit"],
            row["method"],
            " x ".join(row["target_layers"]) or "detectors' grid",
            *(f"{100 * row[c]:.1f}" for c in columns),
        ]
        lines.append("| " + " | ".join(f"{mark}{cell}{mark}" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SUMMARIES)
    parser.add_argument(
        "--run", type=Path, help="what scripts/bundled/train_photos.py wrote; without it, the bundled model is measured anew"
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="a folder with the hub's encoder")
    parser.add_argument("--student", type=Path, help="encoder.pt of scripts/bundled/distill_photos.py")
    parser.add_argument("--choose-on", type=int, default=60)
    parser.add_argument("--measure-on", type=int, default=1000)
    parser.add_argument("--until", choices=("export", "choose", "card"), default="card")
    given = parser.parse_args()
    publish(given.name, given)
