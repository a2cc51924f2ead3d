"""Are maps that pass `sanity_check` more often right? On scenes whose truth is known, and on photos; docs/trust.md has what it
printed.

    python scripts/bundled/trust.py --data val.parquet --kept trust.jsonl

The figures of every map are kept in a file, so that a run that was stopped goes on, and limits can be tried without a model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from mmgradcam import InputError, Probe, Task, explain, gradcam
from mmgradcam.datasets.photos import Photos
from mmgradcam.datasets.records import mask_of
from mmgradcam.evaluation.intervals import figures
from mmgradcam.explanation import FAIL, PASS, WEAK, Explanation
from mmgradcam.images.regions import fill_holes
from mmgradcam.metrics import peak_in
from mmgradcam.metrics.randomization import copied, layers_of, reset
from mmgradcam.metrics.sanity import sanity_check, sanity_result_of
from mmgradcam.scenes.captions import judge
from mmgradcam.scenes.questions import questions_of
from mmgradcam.scenes.render import render
from mmgradcam.scenes.scene import make_scene
from mmgradcam.scenes.splits import seeds
from mmgradcam.tasks import load
from mmgradcam.tasks.vocabulary import tokenize

SPOKEN = ("kind", "color", "size", "material")
EVERY = 4
"""Of every so many pictures, maps that know nothing of what the model learned, and maps of words that rest on no thing."""

Case = tuple[Image.Image, dict[str, Any], list[Any]]
"""A picture, what is asked of it, and of each target the pixels that are right, or None where it rests on no thing."""
Row = dict[str, Any]


def edges(probe: Probe) -> Tensor:
    """Where the picture's brightness changes, whatever the model and the target."""
    grey = probe.pixels.float().mean(1)
    across, down = grey.diff(dim=2, prepend=grey[:, :, :1]), grey.diff(dim=1, prepend=grey[:, :1])
    return (across.square() + down.square()).expand(len(probe.targets), -1, -1)


def own(task: Task, blank: Task, image: Image.Image, query: Mapping[str, Any]) -> Explanation:
    return explain(task, image, **query)


def last(task: Task, blank: Task, image: Image.Image, query: Mapping[str, Any]) -> Explanation:
    return explain(task, image, method=gradcam, target_layers=(), **query)


def edged(task: Task, blank: Task, image: Image.Image, query: Mapping[str, Any]) -> Explanation:
    return explain(task, image, method=edges, **query)


def of_random_weights(task: Task, blank: Task, image: Image.Image, query: Mapping[str, Any]) -> Explanation:
    return explain(blank, image, **query)


HOW: dict[str, Callable[[Task, Task, Image.Image, Mapping[str, Any]], Explanation]] = {
    "own": own,
    "gradcam at the last layer": last,
    "edges of the picture": edged,
    "a model of random weights": of_random_weights,
}


def scene_case(task: Task, seed: int) -> Case | None:
    """What a model says of a scene, or answers."""
    scene = make_scene(seed)
    picture = render(scene)
    query: dict[str, Any]
    if "question" in task.query_types:
        question = next((q for q in questions_of(scene) if len(q.refers) == 1), None)
        if question is None:
            return None
        query, refers = {"question": question.text}, [question.refers]
        query["answer"] = explain(task, picture.image, **query).label
    else:
        said = explain(task, picture.image).text
        judged = judge(said.split(), scene)
        query = {"caption": said}
        refers = [judged.refers[i] if role in SPOKEN else () for i, role in enumerate(judged.roles)]
    return picture.image, query, [fill_holes(picture.masks[list(r)].any(0)) if r else None for r in refers]


def photo_case(photos: Photos, n: int) -> Case | None:
    """The phrases of a photo's first caption that people boxed."""
    photo = photos[n]
    pieces = [tokenize(word) for word in photo.captions[0]]
    said, size = list(chain(*pieces)), (photo.image.height, photo.image.width)
    spans, masks = [], []
    for phrase in photo.phrases:
        before, meant = (list(chain(*part)) for part in (pieces[: phrase.first], pieces[phrase.first : phrase.last + 1]))
        if phrase.caption == 0 and phrase.boxes and meant:
            spans.append((said, len(before), len(before) + len(meant) - 1))
            masks.append(mask_of(phrase.boxes, size))
    return (photo.image, {"phrases": spans}, masks) if spans else None


def judged(task: Task, blank: Task, case: Case, number: int) -> Iterator[Row]:
    """The check's figures of the maps of a picture, and whether each is right."""
    image, query, masks = case
    whole = number % EVERY == 0
    for how, make in HOW.items():
        if how in ("edges of the picture", "a model of random weights") and not whole:
            continue
        asked, right = query, masks
        if "caption" in query and not (whole and how == "own"):
            words = query["caption"].split()
            asked = {"phrases": [(words, k, k) for k, mask in enumerate(masks) if mask is not None]}
            right = [mask for mask in masks if mask is not None]
        if not right:
            continue
        for one, mask in zip(sanity_check(make(task, blank, image, asked)), right, strict=True):
            assert one.sanity_result is not None
            hit = None if mask is None else bool(peak_in(one.heat(), mask))
            yield {"how": how, "label": one.label, "right": hit, "warning": one.warning, "figures": one.sanity_result.figures}


def blank_task_of(task: Task, case: Case) -> Task:
    """A copy of a task whose every layer is made random, by a seed that `sanity_check` does not use."""
    made, _ = copied(task, ())
    first = explain(task, case[0], **case[1])
    for number, layer in enumerate(layers_of(made, first.explainer.view.pixels, first.targets)):
        reset(layer.module, 77, number)
    return made


def gather(names: Sequence[str], data: Path | None, start: int, limit: int, photo_limit: int, kept: Path) -> list[Row]:
    """The rows of all models' pictures, those that are not in the file yet made and added to it."""
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(row["model"], row["picture"]) for row in rows}
    wanted: dict[str, list[str]] = {}
    for name in names:
        photos = name.startswith("photo")
        if photos and data is None:
            raise InputError(f"{name}: give --data, photos with boxed phrases (Parquet)")
        of = range(photo_limit) if photos else seeds("validation", limit, start)
        wanted[name] = [f"{data.name if photos and data else 'scene'} {n}" for n in of]
    tasks, blanks, opened = (
        {name: load(name, device="cpu") for name in names},
        dict[str, Task](),
        None if data is None else Photos(data),
    )
    turns = [(at, name) for name in names for at in range(len(wanted[name]))]
    turns.sort(key=lambda turn: turn[0] / len(wanted[turn[1]]))  # what is done after a while is of all models
    for at, name in turns:
        picture = wanted[name][at]
        if (name, picture) in done:
            continue
        number = int(picture.split()[-1])
        case = scene_case(tasks[name], number) if opened is None or "scene" in picture else photo_case(opened, number)
        made: list[Row] = []
        if case is not None:
            if name not in blanks:
                blanks[name] = blank_task_of(tasks[name], case)
            made = list(judged(tasks[name], blanks[name], case, at))
        made = [{"model": name, "picture": picture, **row} for row in made or [{"how": None}]]
        with kept.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in made)
        rows += made
    among = {(name, picture) for name in names for picture in wanted[name]}
    return [row for row in rows if (row["model"], row["picture"]) in among and row["how"]]


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of a table in Markdown: how many maps are right, of all and by what the check says; in brackets 95% intervals."""
    yield f"| maps | right, of all | of those of which it says: {PASS} | {WEAK} | {FAIL} | of right maps, pass |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for how in [*HOW, None]:
        some = [row for row in rows if row["right"] is not None and how in (None, row["how"])]
        if some:
            by = [[row for row in some if row["status"] == short] for short in (PASS, WEAK, FAIL)]
            cells = [share(part, lambda row: row["right"]) for part in (some, *by)]
            passed = share([row for row in some if row["right"]], lambda row: row["status"] == PASS)
            yield f"| {how or 'all of them'} | {' | '.join(cells)} | {passed} |"
    empty = [row for row in rows if row["right"] is None and row["how"] == "own"]
    if empty:
        yield ""
        yield f"Own maps of words that rest on no thing: {share(empty, lambda row: row['short'] == PASS)} pass."


def share(rows: Sequence[Row], of: Callable[[Row], bool]) -> str:
    """How many rows are so, with an interval by bootstrap over pictures, and how many there are."""
    if not rows:
        return "- (0)"
    pictures = {name: n for n, name in enumerate(dict.fromkeys(row["model"] + row["picture"] for row in rows))}
    found = figures([pictures[row["model"] + row["picture"]] for row in rows], {"share": [of(row) for row in rows]})["share"]
    return f"{100 * found.mean:.0f}% [{100 * found.low:.0f}, {100 * found.high:.0f}] ({found.rows})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = ["scenes-captioner", "scenes-captioner-transformer", "scenes-vqa", "photo-captioner-small"]
    parser.add_argument("models", nargs="*", default=models)
    parser.add_argument("--data", type=Path, help="photos with boxed phrases (Parquet), for captioners of photos")
    parser.add_argument("--start", type=int, default=200, help="first validation scene; the limits were chosen before it")
    parser.add_argument("--limit", type=int, default=40, help="scenes of each model")
    parser.add_argument("--photos", type=int, default=70)
    parser.add_argument("--kept", type=Path, default=Path("trust.jsonl"), help="file of the maps' figures, made or continued")
    given = parser.parse_args()
    rows = gather(given.models, given.data, given.start, given.limit, given.photos, given.kept)
    for row in rows:
        row["status"] = sanity_result_of(row["warning"], "nats", row["figures"]).status
    for name in given.models:
        print(f"\n{name}\n", *table([row for row in rows if row["model"] == name]), sep="\n", flush=True)
    if len(scenes := [name for name in given.models if name.startswith("scenes")]) > 1:
        print("\nAll models of scenes\n", *table([row for row in rows if row["model"] in scenes]), sep="\n", flush=True)


if __name__ == "__main__":
    main()
