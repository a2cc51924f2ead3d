"""Are maps that pass `examine` more often right? On validation scenes whose truth is known; docs/trust.md holds what it printed."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmgradcam import Probe, explain, gradcam
from mmgradcam.data.captions import judge
from mmgradcam.data.questions import questions_of
from mmgradcam.data.render import Picture, render
from mmgradcam.data.scenes import make_scene
from mmgradcam.data.splits import seeds
from mmgradcam.explanation import Explanation
from mmgradcam.metrics import peak_in
from mmgradcam.metrics.verdict import DISTRUST, LITTLE, TRUST, examine
from mmgradcam.regions import fill_holes
from mmgradcam.tasks import VQA, load


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


def asked(task: object, seed: int) -> tuple[Picture, dict[str, str], list[tuple[int, ...]]]:
    """A scene's picture, what is asked of it, and the things each target rests on; none where it rests on none."""
    scene = make_scene(seed)
    picture = render(scene)
    if isinstance(task, VQA):
        question = next((q for q in questions_of(scene) if len(q.refers) == 1), None)
        return picture, {} if question is None else {"question": question.text}, [tuple(question.refers) if question else ()]
    words = explain(task, picture.image).text
    judged = judge(words.split(), scene)
    spoken = ("kind", "color", "size", "material")
    return picture, {"caption": words}, [
        tuple(judged.refers[i]) if role in spoken else () for i, role in enumerate(judged.roles)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=["scenes-captioner", "scenes-captioner-transformer", "scenes-vqa"])
    parser.add_argument("--start", type=int, default=200, help="first validation scene; the limits were chosen before it")
    parser.add_argument("--limit", type=int, default=40)
    given = parser.parse_args()
    for name in given.models:
        task = load(name, device="cpu")
        told: Counter[tuple[str, str, bool]] = Counter()
        empty: Counter[tuple[str, str]] = Counter()
        for seed in seeds("validation", given.limit, given.start):
            picture, query, refers = asked(task, seed)
            for how, settings in HOW.items():
                if not query:
                    continue
                made: Explanation = examine(explain(task, picture.image, **query, **settings))
                for one, things in zip(made, refers, strict=True):
                    assert one.verdict is not None
                    if things:
                        mask = fill_holes(picture.masks[list(things)].any(0))
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
