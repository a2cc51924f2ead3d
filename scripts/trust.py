"""Are maps that pass `examine` more often right? On scenes whose truth is known, and on photos; docs/trust.md has what it printed."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from mmgradcam import Probe, Task, explain, gradcam
from mmgradcam.data.captions import judge
from mmgradcam.data.photos import Photos
from mmgradcam.data.questions import questions_of
from mmgradcam.data.records import mask_of
from mmgradcam.data.render import render
from mmgradcam.data.scenes import make_scene
from mmgradcam.data.splits import seeds
from mmgradcam.explanation import Explanation
from mmgradcam.metrics import peak_in
from mmgradcam.metrics.verdict import DISTRUST, LITTLE, TRUST, examine
from mmgradcam.regions import fill_holes
from mmgradcam.tasks import VQA, load
from mmgradcam.tasks.vocabulary import tokenize


def edges(probe: Probe) -> Tensor:
    """Where the picture's brightness changes, whatever the model and the target."""
    grey = probe.pixels.float().mean(1)
    across, down = grey.diff(dim=2, prepend=grey[:, :, :1]), grey.diff(dim=1, prepend=grey[:, :1])
    return (across.square() + down.square()).expand(len(probe.targets), -1, -1)


HOW: dict[str, dict[str, Any]] = {
    "own": {},
    "gradcam at the last layer": {"method": gradcam, "taps": ()},
    "edges of the picture": {"method": edges},
}


Case = tuple[Image.Image, dict[str, Any], list[Any]]
"""A picture, what is asked of it, and of each target the pixels that are right, or None where it rests on no thing."""


def scene_cases(task: Task, start: int, limit: int) -> Iterator[Case]:
    for seed in seeds("validation", limit, start):
        scene = make_scene(seed)
        picture = render(scene)
        if isinstance(task, VQA):
            question = next((q for q in questions_of(scene) if len(q.refers) == 1), None)
            query, refers = {"question": question.text if question else None}, [question.refers if question else ()]
        else:
            query = {"caption": explain(task, picture.image).text}
            judged = judge(query["caption"].split(), scene)
            spoken = ("kind", "color", "size", "material")
            refers = [judged.refers[i] if role in spoken else () for i, role in enumerate(judged.roles)]
        if all(query.values()):
            yield picture.image, query, [fill_holes(picture.masks[list(r)].any(0)) if r else None for r in refers]


def photo_cases(path: Path, limit: int) -> Iterator[Case]:
    """The phrases of each photo's first caption that people boxed."""
    photos = Photos(path)
    for photo in (photos[n] for n in range(min(limit, len(photos)))):
        pieces = [tokenize(word) for word in photo.captions[0]]
        said, size = list(chain(*pieces)), (photo.image.height, photo.image.width)
        spans, masks = [], []
        for phrase in photo.phrases:
            before, meant = (list(chain(*part)) for part in (pieces[: phrase.first], pieces[phrase.first : phrase.last + 1]))
            if phrase.caption == 0 and phrase.boxes and meant:
                spans.append((said, len(before), len(before) + len(meant) - 1))
                masks.append(mask_of(phrase.boxes, size))
        if spans:
            yield photo.image, {"phrases": spans}, masks


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=["scenes-captioner", "scenes-captioner-transformer", "scenes-vqa"])
    parser.add_argument("--data", type=Path, help="photos with boxed phrases (Parquet), for captioners of photos")
    parser.add_argument("--start", type=int, default=200, help="first validation scene; the limits were chosen before it")
    parser.add_argument("--limit", type=int, default=40)
    given = parser.parse_args()
    for name in given.models:
        task = load(name, device="cpu")
        told: Counter[tuple[str, str, bool]] = Counter()
        empty: Counter[tuple[str, str]] = Counter()
        for image, query, masks in (
            photo_cases(given.data, given.limit) if given.data else scene_cases(task, given.start, given.limit)
        ):
            for how, settings in HOW.items():
                made: Explanation = examine(explain(task, image, **query, **settings))
                for one, mask in zip(made, masks, strict=True):
                    assert one.verdict is not None
                    if mask is not None:
                        told[how, one.verdict.short, peak_in(one.heat(), mask)] += 1
                    else:
                        empty[how, one.verdict.short] += 1
        print(f"\n{name}: right (targets), of words or answers that rest on things; of other words, how many\n")
        print(f"| maps | all | {TRUST} | not trusted | {LITTLE} | {DISTRUST} | other words: {TRUST}, {LITTLE}, {DISTRUST} |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for how, some in [*((how, [how]) for how in HOW), ("all of them", list(HOW))]:
            rest = ", ".join(str(sum(empty[h, s] for h in some)) for s in (TRUST, LITTLE, DISTRUST))
            cells = [(TRUST, LITTLE, DISTRUST), (TRUST,), (LITTLE, DISTRUST), (LITTLE,), (DISTRUST,)]
            print(f"| {how} | {' | '.join(share(told, some, cell) for cell in cells)} | {rest} |", flush=True)


def share(told: Counter[tuple[str, str, bool]], hows: Sequence[str], shorts: Sequence[str]) -> str:
    right, wrong = (sum(told[h, s, hit] for h in hows for s in shorts) for hit in (True, False))
    return f"{100 * right / (right + wrong):.0f}% ({right + wrong})" if right + wrong else "- (0)"


if __name__ == "__main__":
    main()
