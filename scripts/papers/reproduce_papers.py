"""The papers' tables: each protocol run on what is on hand, the papers' own figures beside ours, and what differs.

    python scripts/papers/reproduce_papers.py --limit 200 --out docs/papers.md
    python scripts/papers/reproduce_papers.py --photos flickr8k/val.parquet --classifier mobilenet_v2_1.0_224 --out docs/papers.md
    python scripts/papers/reproduce_papers.py --classes ILSVRC --classifier google/mobilenet_v2_1.0_224 --captions
        captions_val2014.json --captioner photo-captioner --questions v2_mscoco_val2014_annotations.json --answerer photo-vqa
        --attention vqahat_val

Without arguments it runs on the project's own scenes. Any data set of docs/data.md does; the official ones give the papers' own
protocols.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmgradcam import gradcam, gradcam_pp, guided_backprop, guided_gradcam
from mmgradcam.cli.tables import progress
from mmgradcam.datasets.records import ObjectAnnotation, Sample
from mmgradcam.datasets.sources import Source, open_data
from mmgradcam.errors import InputError
from mmgradcam.evaluation.run import Audit, audit
from mmgradcam.explaining.explain import compare
from mmgradcam.metrics import Variants, confidence_vs_area
from mmgradcam.task import Task
from mmgradcam.tasks import load

BREEDS = "Chihuahua", "Mexican hairless"
"""The first and the last of ImageNet's breeds of dogs; where they stand differs between models with and without background."""


@dataclass
class Table:
    """One protocol: its lines, the paper's where figures compare, and what differs."""

    title: str
    head: Sequence[str]
    ours: list[Sequence[Any]]
    paper: str | None
    differs: str = ""

    def __str__(self) -> str:
        lines = [f"| {' | '.join(self.head)} |", f"|{' --- |' * len(self.head)}"]
        lines += [f"| {' | '.join(_said(cell) for cell in row)} |" for row in self.ours]
        return (
            f"## {self.title}\n\n"
            + "\n".join(lines)
            + (f"\n\nPaper: {self.paper}\n" if self.paper else "\n")
            + (f"\n{self.differs}\n" if self.differs else "")
        )


def _said(cell: Any) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return "-" if math.isnan(cell) else f"{cell:.3f}" if abs(cell) < 1 else f"{cell:.2f}"


@dataclass
class Setup:
    """What there is to run on."""

    limit: int

    def measured(self, task: Task, data: Source, names: Sequence[str], target_layers: Any = (), methods: Any = None) -> Audit:
        """An audit by Grad-CAM, Grad-CAM++ and the model's own method, at the features."""
        ways = methods or ways_of(task)
        print(f"{task.name} on {data.name}: {', '.join(names)}", file=sys.stderr, flush=True)
        return audit(task, data, ways, names, limit=self.limit, target_layers=target_layers, progress=progress("batches"))


def ways_of(task: Task) -> list[Any]:
    """Grad-CAM, Grad-CAM++, and the model's own method where it is another."""
    return list(dict.fromkeys([gradcam, gradcam_pp, *([task.method] if task.method else [])]))


def mean(made: Audit, method: str, name: str, kind: str | None = None) -> float:
    found = made.figures(method, kind)
    return found[name].mean if name in found else float("nan")


def of_classes(setup: Setup, task: Task, data: Source) -> list[Table]:
    """Localization, pointing, faithfulness and Grad-CAM++'s figures of a classifier."""
    target_layers = None  # the layer that was named for this classifier
    made = setup.measured(
        task, data, ["pointing", "pointing_15px", "tops", "box", "loc", "drop", "seeds"], target_layers, [gradcam, gradcam_pp]
    )
    ways = [gradcam, gradcam_pp, guided_gradcam, guided_backprop]
    occluded = setup.measured(task, data, ["occlusion"], target_layers, ways)
    methods = made.methods
    whole = {m: {"localization_error_top_1": math.nan, "localization_error_top_5": math.nan} | made.wholes(m) for m in methods}
    tables = [
        Table(
            "Localization error (Grad-CAM, section 4.1)",
            ("method", "top-1 error, %", "top-5 error, %"),
            [(m, *(100 * whole[m][f"localization_error_top_{top}"] for top in (1, 5))) for m in methods],
            "ILSVRC-15 val, VGG-16: Grad-CAM 56.51 / 46.41, CAM 57.20 / 45.14; AlexNet Grad-CAM 68.3 / 56.6; GoogLeNet 60.09 / 49.34.",
        ),
        Table(
            "Pointing game (Grad-CAM, section 4.3)",
            ("method", "tolerance", "peak on the thing", "centre", "random", "with the reject option"),
            [
                (
                    m,
                    tolerance,
                    *(mean(made, m, f"{n}{suffix}", "true") for n in ("pointing", "baseline_center", "baseline_random")),
                    whole[m].get(f"pointing_with_reject{suffix}", math.nan),
                )
                for m in methods
                for tolerance, suffix in (("none", ""), ("15 px", "_15px"))
            ],
            "with the reject option, VGG-16 on VOC 2007: Grad-CAM 70.58, c-MWP 60.30 (percent); Zhang et al. 2016, whose game it is, "
            "count a peak within 15 px of the thing as a hit.",
            "The reject threshold is that of the other half of the pictures.",
        ),
        Table(
            "Faithfulness: rank correlation with occlusion maps (Grad-CAM, section 5.2)",
            ("method", "rank correlation", "targets"),
            [
                (
                    m,
                    mean(occluded, m, "occlusion_correlation", "true"),
                    sum(r["kind"] == "true" for r in occluded.rows) // len(ways),
                )
                for m in occluded.methods
            ],
            "2,510 pictures of VOC 2007 val: Grad-CAM .254, Guided Grad-CAM .261, guided backprop .168, CAM .208.",
            "Patches of a seventh of the side; 14 x 14 cells are compared.",
        ),
        Table(
            "Segmentation seeds (Grad-CAM, section 4.2)",
            ("method", "IoU of the seeds"),
            [(m, mean(made, m, "seed_iou", "true")) for m in methods],
            "VOC 2012 val after training SEC on the seeds: Grad-CAM 49.6, CAM 44.6 mean IoU, percent.",
            "This is the IoU of the seeds themselves, against boxes where nobody drew pixels; no segmenter was trained.",
        ),
        faithfulness(made),
        Table(
            "Loc(delta) (Grad-CAM++, section 4.2)",
            ("method", "delta 0", "delta .25", "delta .5"),
            [(m, *(mean(made, m, f"loc_{d}", "true") for d in ("0", "0.25", "0.5"))) for m in methods],
            "VOC 2012: Grad-CAM++ .34 / .38 / .28, Grad-CAM .33 / .28 / .16.",
        ),
        curve(setup, task, data, target_layers),
    ]
    return tables


def faithfulness(made: Audit) -> Table:
    kind = "true" if "true" in made.kinds() else None
    return Table(
        "Average drop, increase, win (Grad-CAM++, section 4.1)",
        ("method", "average drop, %", "increase, %", "win, %"),
        [
            (m, *(100 * mean(made, m, n, kind) for n in ("average_drop", "increase_in_confidence", "win_rate")))
            for m in made.methods
        ],
        "Grad-CAM++ / Grad-CAM, ImageNet VGG-16: drop 36.84 / 46.56, increase 17.05 / 13.42, win 70.72; ResNet-50: 28.90 / 30.36, "
        "22.16 / 22.11, 60.51; VOC 2007 VGG-16: 19.53 / 28.54, 18.96 / 21.43, 61.47.",
        "A win is over all the other methods of the table.",
    )


def curve(setup: Setup, task: Task, data: Source, target_layers: Any) -> Table:
    """Relative confidence against the area that is kept."""
    from mmgradcam.evaluation.queries import asked_of

    quantiles = (0.0, 0.25, 0.5, 0.75, 0.9)
    found: dict[str, list[np.ndarray[Any, Any]]] = {"gradcam": [], "gradcam_pp": []}
    for photo, _ in zip(data, range(min(setup.limit, 100)), strict=False):
        for one in asked_of(task, photo)[:1]:
            query = {k: v for k, v in one.query.items() if k != "top"}
            made = compare(task, [photo.image], [gradcam, gradcam_pp], target_layers=target_layers, **query)[0]
            for explanation in made:
                areas, relative = confidence_vs_area(Variants([explanation]), quantiles)
                found[explanation.metadata.method].append(torch.stack([areas.mean(0), relative.mean(0)]).numpy())
    rows: list[Sequence[Any]] = [
        (name, *(f"{a:.2f}: {c:.2f}" for a, c in np.mean(some, 0).T)) for name, some in found.items() if some
    ]
    return Table(
        "Spatial extent (Grad-CAM++, section 4.1): area kept, and confidence over that on the whole picture",
        ("method", *(f"quantile {q:g}" for q in quantiles)),
        rows,
        "a plot: at equal area, Grad-CAM++ keeps more confidence than Grad-CAM; no figures are printed.",
        "At most 100 pictures.",
    )


def of_captions(setup: Setup, task: Task, data: Source) -> list[Table]:
    """Captions: heat inside over outside, one word at a time, and the maps of nouns and function words."""
    own = setup.measured(task, data, ["pointing", "heat", "drop", "word_iou"], None)
    plain = setup.measured(task, data, ["pointing", "heat", "drop"], ())
    pairs = [(f"{m}, {where}", made, m) for where, made in (("model's layers", own), ("features", plain)) for m in made.methods]
    tables = [
        Table(
            "Captions: heat inside the boxes over heat outside (Grad-CAM, section 8.1)",
            ("method", "inside / outside"),
            [(name, mean(made, m, "inside_outside")) for name, made, m in pairs],
            "NeuralTalk2, DenseCap's boxes, COCO: uniform 1.0, Grad-CAM 3.27 +- .18, guided backprop 2.32 +- .08, Guided Grad-CAM 6.38 +- .99.",
            "Regions are those that the phrases name, not DenseCap's; captions are the data set's.",
        ),
        Table(
            "Captions, one word or phrase at a time: pointing (Grad-CAM, section 8.1)",
            ("method", "peak", "swapped", "centre", "random"),
            [
                (name, *(mean(made, m, n) for n in ("pointing", "pointing_swapped", "baseline_center", "baseline_random")))
                for name, made, m in pairs
            ],
            "Show and Tell, 830 words mapped to 80 COCO classes, 1,000 pictures: 30.0%.",
            "Peaks hit without tolerance.",
        ),
        dataclasses.replace(
            faithfulness(plain), title="Captions: average drop, increase, win (Grad-CAM++'s figures, on words)"
        ),
        Table(
            "Maps of nouns and of function words (Token Activation Map's formulas, not its protocol)",
            ("method", "nouns' IoU, %", "function words' IoU, %", "F1, %"),
            [
                (m, *(100 * v for v in (mean(own, m, "noun_iou"), mean(own, m, "function_word_iou"), of_words(own, m))))
                for m in own.methods
            ],
            None,
            "Not comparable with that paper's Obj-IoU, Func-IoU and F1-IoU, and so without its figures: there the captions are the model's "
            "own, the nouns those that name one of COCO's 80 classes, a word's map that of its best token, and the masks COCO's. Here "
            "captions that people wrote, or the scenes' own, are teacher-forced, and nouns are those that the data set places. Maps at "
            "the model's own layers.",
        ),
    ]
    return tables


def of_words(made: Audit, method: str) -> float:
    return made.wholes(method).get("word_f1_iou", math.nan)


def of_questions(setup: Setup, task: Task, data: Source) -> list[Table]:
    """Answers: rank correlation with occlusion maps and with where people looked."""
    made = setup.measured(task, data, ["pointing", "occlusion", "attention"], ())
    return [
        Table(
            "VQA (Grad-CAM, section 8.2)",
            ("method", "occlusion correlation", "human attention", "peak", "centre"),
            [
                (m, *(mean(made, m, n) for n in ("occlusion_correlation", "attention", "pointing", "baseline_center")))
                for m in made.methods
            ],
            "occlusion: Grad-CAM .60 +- .038, guided backprop .42 +- .038; VQA-HAT, 1,374 pairs: .136, random 0.",
        )
    ]


def dogs(photos: Source, task: Any, limit: int) -> Source:
    """The first photos in which somebody boxed a dog, as a classification data set: its class is the likeliest of the breeds."""
    if missing := [breed for breed in BREEDS if breed not in task.labels]:
        raise InputError(
            f"--classifier: expected ImageNet's classes, which have a {missing[0]}; name the data set with --classes"
        )
    first, last = (task.labels.index(breed) for breed in BREEDS)
    device = next(p.device for module in task.modules() for p in module.parameters())
    every = (
        (at, boxes)
        for at, photo in enumerate(photos.since(0))
        if photo is not None
        and (boxes := tuple(b for p in photo.phrases if photo.captions[p.caption][p.last] in ("dog", "dogs") for b in p.boxes))
    )
    known = list(islice(every, limit))

    def read(item: tuple[int, Any]) -> Sample:
        at, boxes = item
        photo: Any = next(photos.since(at))
        with torch.no_grad():
            scores = task.encode(task.prepare(photo.image).pixels[None].to(device))[0]
        breed = first + int(scores[first : last + 1].argmax())
        made: Sample = dataclasses.replace(photo, objects=(ObjectAnnotation(task.labels[breed], boxes),))
        return made

    return Source(f"dogs of {photos.name}", known, read)


def run(given: argparse.Namespace) -> list[tuple[str, str, list[Table]]]:
    setup, parts = Setup(given.limit), []
    if given.classifier:
        task = load(given.classifier)
        if given.classes:
            data, what = open_data(given.classes), f"{task.name} on {given.classes}."
        elif given.photos:
            data = dogs(open_data(given.photos), task, given.limit)
            what = (
                f"{task.name} instead of VGG-16; no ImageNet or VOC photos here, so photos of Flickr8k in which somebody boxed a dog; the "
                "class is the likeliest of ImageNet's 118 breeds, whichever breed it truly is."
            )
        else:
            raise InputError("--classifier: expected --classes or --photos beside it")
        parts.append((f"Classification: {task.name}, {data.name}", what, of_classes(setup, task, data)))
    captions: list[tuple[str, str]] = [("scenes-captioner", "scenes"), ("scenes-captioner-transformer", "scenes")]
    if given.captions or given.photos:
        captions.append((given.captioner, given.captions or given.photos))
    for name, spec in captions:
        task, data = load(name), open_data(spec)
        what = f"{name} on {data.name}" + (", generated scenes whose every pixel is known." if spec == "scenes" else ".")
        parts.append((f"Captions: {name}, {data.name}", what, of_captions(setup, task, data)))
    questions: list[tuple[str, str]] = [("scenes-vqa", "scenes")]
    if given.attention or given.questions:
        questions.append((given.answerer, given.attention or given.questions))
    for name, spec in questions:
        task, data = load(name), open_data(spec)
        what = f"{name} on {data.name}; " + (
            "no person's attention is on hand for scenes." if spec == "scenes" else "see docs/data.md."
        )
        parts.append((f"Questions: {name}, {data.name}", what, of_questions(setup, task, data)))
    return parts


def written(parts: Sequence[tuple[str, str, list[Table]]], given: argparse.Namespace) -> str:
    command = " ".join(f"--{k} {Path(str(v)).name}" for k, v in vars(given).items() if v and k != "out")
    body = "\n".join(
        f"# {title}\n\nWhat is not as in the papers: {what}\n\n" + "\n".join(map(str, some)) for title, what, some in parts
    )
    return f"""# The papers' tables, on what was on hand

Made by `python scripts/papers/reproduce_papers.py {command}`. The papers' figures are of other models and other data, as each part
says; what compares is the order of the methods, not the numbers. At most {given.limit} pictures each.

{body}"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classifier", help="a classifier by name or folder")
    parser.add_argument("--classes", help="ILSVRC, VOCdevkit, COCO's instances: classes with boxes")
    parser.add_argument("--photos", help="photos with captions and boxed phrases, such as Flickr8k's Parquet")
    parser.add_argument("--captions", help="COCO's captions, Flickr30k Entities")
    parser.add_argument("--captioner", default="photo-captioner-small")
    parser.add_argument("--questions", help="the annotations of VQA")
    parser.add_argument("--answerer", default="photo-vqa")
    parser.add_argument("--attention", help="a folder vqahat_val with where people looked, used in place of --questions")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    try:
        text = written(run(given), given)
    except InputError as error:
        sys.exit(f"reproduce_papers: {error}")
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")
