"""Chooses each scene model's method and layers on validation scenes, measures it on test scenes, writes checkpoints/ and cards.

    python scripts/publish_scenes.py            # needs runs/scenes/best.pt, which scripts/train_scenes.py makes
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from scene_data import CAPTION_VOCABULARY, QUESTION_VOCABULARY
from train_scenes import ENCODER, FIT, HEADS, NETS

from mmgradcam import methods
from mmgradcam.bulk.evaluate import evaluate
from mmgradcam.data.questions import ANSWERS
from mmgradcam.task import Task
from mmgradcam.tasks.loading import build, parts, save

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
METHODS = ("gradcam", "gradcam_pp", "xgradcam", "hirescam", "layercam")
SINGLE = ((), ("stages.1",), ("stages.0",), ("stem",))
FUSED = (("smooth", "stages.0"), ("smooth", "stem"), ("stages.0", "stem"), ("smooth", "stages.0", "stem"), ("smooth", "stages.1", "stages.0"))
SEAM = "features"
NAMES = {(): "features, stride 4", ("stages.1",): "stages.1, stride 8", ("stages.0",): "stages.0, stride 4", ("stem",): "stem, stride 2"}

Choice = tuple[str, tuple[str, ...]]


def publish(out: Path, choose_on: int = 200, measure_on: int = 1000) -> None:
    kept = torch.load(out / "best.pt", map_location="cpu", weights_only=True)
    for name in HEADS:
        config = describe(name)
        task = build({**config, "method": "layercam", "taps": [], "fuse": "product"})
        for part, module in parts(task).items():
            prefix = "encoder." if part == "encoder" else f"{name}."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in kept["model"].items() if k.startswith(prefix)})
            module.half().float().eval()
        table = {choice: figures(task, choice, choose_on) for choice in track(candidates(), f"{name}: methods")}
        method, taps = max(table, key=lambda choice: merit(table[choice]))
        config |= {"method": method, "taps": list(taps), "fuse": "product"}
        task = build(config)
        load_from(task, name, kept)
        measured = evaluate(task, measure_on, "test", progress=lambda items, count: track(items, f"{name}: test", count))
        config |= {"headline": headline(measured), "figures": measured, "trained": {"steps": kept["step"]}}
        save(task, config, CHECKPOINTS / name)
        (CHECKPOINTS / name / "README.md").write_text(card(name, config, table, (method, taps), choose_on, measure_on))
        print(name, method, taps, json.dumps(measured), flush=True)


def describe(name: str) -> dict[str, Any]:
    kind, made = HEADS[name]
    task, words = ("captioning:Captioning", CAPTION_VOCABULARY) if "captioner" in name else ("vqa:VQA", QUESTION_VOCABULARY)
    what = "captions" if "captioner" in name else "answers questions about"
    return {
        "task": f"mmgradcam.tasks.{task}",
        "summary": f"{what} rendered scenes; CNN encoder, {'transformer' if 'transformer' in name else 'LSTM'} head",
        "encoder": {"class": f"{NETS}.encoder:Encoder", **ENCODER},
        "head": {"class": f"{kind.__module__}:{kind.__name__}", **made},
        "fit": FIT,
        "seam": SEAM,
        "words": list(words.words),
        **({} if "captioner" in name else {"answers": list(ANSWERS)}),
    }


def load_from(task: Task, name: str, kept: dict[str, Any]) -> None:
    for part, module in parts(task).items():
        prefix = "encoder." if part == "encoder" else f"{name}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in kept["model"].items() if k.startswith(prefix)})
        module.half().float().eval()


def candidates() -> list[Choice]:
    return [(m, taps) for taps in SINGLE for m in METHODS] + [(m, taps) for taps in FUSED for m in ("hirescam", "layercam")]


def figures(task: Task, choice: Choice, count: int) -> dict[str, Any]:
    method, taps = choice
    found: dict[str, Any] = evaluate(task, count, "validation", method=getattr(methods, method), taps=taps)["localization"]
    return found


def merit(found: dict[str, Any]) -> float:
    """What is wanted of a default: peaks on the thing, none on another word's thing."""
    return sum(f["peak"] + 0.5 * f["strict"] - f["swapped"] for f in found.values())


def headline(measured: dict[str, Any]) -> str:
    what = ("statements", "statements true") if "statements" in measured else ("accuracy", "right")
    place = next(iter(measured["localization"].values()))
    return f"{measured[what[0]]['all']:.1%} {what[1]}; peak on the object {place['peak']:.1%}, another's map {place['swapped']:.1%}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scenes"))
    given = parser.parse_args()
    publish(given.out)
