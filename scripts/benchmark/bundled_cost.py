"""What explaining with the bundled models costs, as multiples of encoding and answering alone; part of benchmark.py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmgradcam import explain
from mmgradcam.explaining.model_input import model_input_of
from mmgradcam.scenes.render import render
from mmgradcam.scenes.scene import make_scene
from mmgradcam.scenes.splits import SPLITS
from mmgradcam.task import Task
from mmgradcam.tasks import load

BATCH = 16
NAMES = (
    "photo-captioner", "photo-captioner-transformer", "photo-captioner-small", "photo-vqa",
    "scenes-captioner", "scenes-captioner-transformer", "scenes-vqa", "scenes-vqa-transformer",
)  # fmt: skip
HEADERS = (
    "model",
    "targets",
    "encode + answer, ms",
    "default: time, FLOPs",
    "at the feature layer: time, FLOPs",
    "batch of 16: default",
    "at the feature layer",
)


def pictures(name: str, photos: Path | None) -> list[Any]:
    """So many pictures of the kind a model knows."""
    if name.startswith("scenes"):
        return [render(make_scene(SPLITS["test"] + i)).image for i in range(BATCH)]
    from mmgradcam.datasets.photos import Photos

    if photos is None:
        raise SystemExit("--photos: expected a Parquet of photos, which the photo models are timed on")
    read = Photos(photos)
    return [read[i].image for i in range(BATCH)]


def query(name: str) -> dict[str, str]:
    if "vqa" not in name:
        return {}
    return {"question": "what color is the large cube?" if name.startswith("scenes") else "how many people are there?"}


def cost(name: str, photos: Path | None, encoder: Path | None, threads: int, repeat: int) -> dict[str, Any]:
    """Median ratios of pieces of work run in turn.

    Returns:
        `seconds` of encoding a picture and answering; `default` and `features`, multiples of it that explaining takes; `batch`
        and `batch_features`, time per picture in a batch as multiples of that one by one; `targets` per picture; `flops` and
        `flops_features`, as `default` and `features`, of what was calculated: multiplications of matrices and convolutions.
    """
    torch.set_num_threads(threads)
    task = load(name, encoder=encoder if "photo" in name and "small" not in name else None)
    pixels = torch.stack([model_input_of(task, picture).pixels for picture in pictures(name, photos)])
    asked = query(name)
    works: dict[str, Callable[[], Any]] = {
        "plain": lambda: [answered(task, one[None], asked) for one in pixels],
        "default": lambda: [explain(task, one, **asked) for one in pixels],
        "features": lambda: [explain(task, one, target_layers=(), **asked) for one in pixels],
        "batch": lambda: explain(task, pixels, batch=BATCH, **asked),
        "batch_features": lambda: explain(task, pixels, batch=BATCH, target_layers=(), **asked),
    }
    targets = [len(one) for one in works["batch_features"]()]
    counted = {key: flops(works[key]) for key in ("plain", "default", "features")}
    times: dict[str, list[float]] = {key: [] for key in works}
    for _ in range(repeat):
        for key, work in works.items():
            start = time.perf_counter()
            work()
            times[key].append(time.perf_counter() - start)

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))

    return {
        "seconds": statistics.median(times["plain"]) / len(pixels),
        "default": ratio("default", "plain"),
        "features": ratio("features", "plain"),
        "batch": ratio("batch", "default"),
        "batch_features": ratio("batch_features", "features"),
        "targets": statistics.mean(targets),
        "flops": counted["default"] / counted["plain"],
        "flops_features": counted["features"] / counted["plain"],
    }


def flops(work: Callable[[], Any]) -> int:
    """Floating point operations of a piece of work."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@torch.no_grad()
def answered(task: Task, pixels: Tensor, asked: dict[str, str]) -> Any:
    """The model's caption or answer, without an explanation."""
    return task.targets_of_each(task.encode(pixels), [asked])


def table(found: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(HEADERS)} |", "| --- |" + " --- |" * (len(HEADERS) - 1)]
    for name, one in found:
        cells = [name, f"{one['targets']:.1f}", f"{1000 * one['seconds']:.0f}"]
        cells += [f"{one['default']:.2f}, {one['flops']:.2f}", f"{one['features']:.2f}, {one['flops_features']:.2f}"]
        cells += [f"{one[key]:.2f}" for key in ("batch", "batch_features")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
