"""Trains the bundled model that tells how something moves, chooses how its maps are made, measures it, and writes its card.

    python scripts/bundled/train_motion.py --out runs/motion

Clips are rendered once and kept in `--out`; mirrored, turned and reversed in time they stand for sixteen times as many.
Training goes on from last.pt there.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from training import autocast, keep, rate_at, resumed

from mmgradcam.datasets.sources import open_data
from mmgradcam.evaluation.reports import figures_of
from mmgradcam.evaluation.run import Audit, audit
from mmgradcam.images.regions import fill_holes
from mmgradcam.metrics import peak_in
from mmgradcam.render.heatmaps import upsample
from mmgradcam.scenes.motion import MOTIONS, make_motion, render_motion
from mmgradcam.scenes.splits import seeds
from mmgradcam.tasks import load
from mmgradcam.tasks.loading import build, parts, save
from mmgradcam.tasks.nets.clips import ClipEncoder, SliceHead

SIDE, FRAMES, WIDTHS = 64, 16, (16, 32, 64, 64)
FAITHFUL = "average_drop", "increase_in_confidence", "win_rate"


def clips(split: str, count: int, folder: Path) -> tuple[np.ndarray[Any, Any], Tensor]:
    """(N, T, side, side, 3) uint8 clips and their classes, rendered unless they lie there already."""
    file, done = folder / f"{split}-{count}.npy", folder / f"{split}-{count}.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        kept = np.lib.format.open_memmap(file, "w+", np.uint8, (count, FRAMES, SIDE, SIDE, 3))
        kinds = []
        for i, seed in enumerate(seeds(split, count)):
            motion = make_motion(seed, FRAMES)
            kept[i] = np.stack([np.asarray(frame) for frame in render_motion(motion, SIDE).clip.frames])
            kinds.append(MOTIONS.index(motion.kind))
            if i % 500 == 0:
                print(split, i, "of", count, flush=True)
        kept.flush()
        done.write_text(json.dumps(kinds))
    return np.load(file, mmap_mode="r"), torch.tensor(json.loads(done.read_text()))


def changed(batch: Tensor, kinds: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(B, 3, T, h, w) clips mirrored, turned or reversed in time, in other light, with the classes they then have."""
    names = [MOTIONS[k] for k in kinds.tolist()]
    swaps = {
        "across": {"left": "right", "clockwise": "counterclockwise"},
        "down": {"up": "down", "clockwise": "counterclockwise"},
        "turned": {"left": "up", "right": "down", "clockwise": "counterclockwise"},
        "back": {"left": "right", "up": "down", "clockwise": "counterclockwise", "grows": "shrinks"},
    }
    made = []
    for clip, name in zip(batch, names, strict=True):
        for how, swap in swaps.items():
            if rng.random() < 0.5:
                clip = {"across": clip.flip(-1), "down": clip.flip(-2), "turned": clip.transpose(-1, -2), "back": clip.flip(1)}[
                    how
                ]
                both = {**swap, **{b: a for a, b in swap.items()}}
                name = " ".join(both.get(word, word) for word in name.split())
        made.append((clip, MOTIONS.index(name)))
    tint = torch.from_numpy(rng.uniform(0.8, 1.2, (len(made), 3, 1, 1, 1))).float()
    return torch.stack([clip for clip, _ in made]) * tint, torch.tensor([kind for _, kind in made])


def prepared(some: np.ndarray[Any, Any]) -> Tensor:
    return (torch.from_numpy(np.array(some)).permute(0, 4, 1, 2, 3).float() / 255 - 0.5) / 0.25


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = ClipEncoder(WIDTHS)
        self.head = SliceHead(WIDTHS[-1], len(MOTIONS))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.encoder(x))
        return scores


@torch.no_grad()
def right(net: Net, data: np.ndarray[Any, Any], kinds: Tensor) -> float:
    net.eval()
    best = torch.cat([net(prepared(data[i : i + 50])).argmax(1) for i in range(0, len(data), 50)])
    net.train()
    return float((best == kinds).float().mean())


def train(given: argparse.Namespace) -> Net:
    data, kinds = clips("train", given.count, given.out)
    held, told = clips("validation", given.held, given.out)
    torch.manual_seed(given.seed)
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=given.rate, weight_decay=0.02)
    step = resumed(given.out, net=net, optimizer=optimizer)
    begin = time.time()
    while step < given.steps:
        rng = np.random.default_rng([given.seed, step])
        rows = np.sort(rng.choice(len(data), given.batch, replace=False))
        x, y = changed(prepared(data[rows]), kinds[rows], rng)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, given.steps, given.rate, 100)
        with autocast("cpu"):
            moments = net.head.moments(net.encoder(x)).float()
        each = F.cross_entropy(moments, y[:, None].expand(-1, moments.shape[2]))  # every moment shall tell it
        loss = F.cross_entropy(moments.mean(2), y) + each
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 100 == 0 or step == given.steps:
            row = {
                "step": step,
                "seconds": round(time.time() - begin),
                "loss": round(loss.item(), 3),
                "right": right(net, held, told),
            }
            keep(given.out, row, net=net, optimizer=optimizer)
    return net.eval()


METHODS = ("gradcam", "gradcam_pp", "hirescam", "layercam", "normgrad")
LAYERS: list[list[str]] = [[], ["blocks.2"], ["blocks.1"], ["blocks.0"], ["blocks.3", "blocks.1"], ["blocks.3", "blocks.0"]]
CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


def publish(net: Net, given: argparse.Namespace) -> None:
    """Method and layers are those that do best on validation clips; figures are those of test clips."""
    nets = "mmgradcam.tasks.nets.clips"
    config: dict[str, Any] = {
        "task": "mmgradcam.tasks.video:Video",
        "summary": "tells how something moves in rendered clips; 3D CNN",
        "encoder": {"class": f"{nets}:ClipEncoder", "widths": list(WIDTHS)},
        "head": {"class": f"{nets}:SliceHead", "channels": WIDTHS[-1], "classes": len(MOTIONS)},
        "fit": {"size": [SIDE, SIDE], "mean": [0.5] * 3, "std": [0.25] * 3, "how": "pad"},
        "feature_layer": "features",
        "labels": list(MOTIONS),
        "length": FRAMES,
        "method": "gradcam",
        "target_layers": [],
        "fuse": "product",
    }
    folder = CHECKPOINTS / "clips-motion"
    task = build(config)
    for name, module in parts(task).items():
        module.load_state_dict(getattr(net, name).state_dict())
    save(task, config, folder)
    rows: list[dict[str, Any]] = []
    for target_layers in LAYERS:
        for method in METHODS:
            if len(target_layers) > 1 and method != "normgrad":
                continue
            task = load(folder)
            validation, layers = open_data("motions:validation"), target_layers
            made = audit(task, validation, [method], ["pointing", "heat"], limit=given.choose_on, target_layers=layers)
            found = {name: figure.mean for name, figure in made.figures(method).items()}
            rows.append({"method": method, "target_layers": target_layers, **found})
            print(method, target_layers, round(found["pointing"], 3), round(found["inside_outside"], 1), flush=True)
    top = max(row["pointing"] for row in rows)
    best = next(row for row in rows if row["pointing"] > top - 0.01)  # the plainest of those that are as good as any
    config |= {"method": best["method"], "target_layers": best["target_layers"]}
    save(task, config, folder)
    rivals = list(dict.fromkeys([str(best["method"]), "gradcam", "gradcam_pp"]))
    measured = audit(
        load(folder), open_data("motions"), rivals, ["pointing", "heat", "accuracy", "drop"], limit=given.measure_on
    )
    figures = figures_in_card(measured, weights_alone(net, given.measure_on))
    told = {name: figure["mean"] for name, figure in figures["all"].items()}
    said = (
        f"{told['top1_accuracy']:.1%} right; peak on what moves in {told['pointing']:.1%} of frames, "
        f"centre {told['baseline_center']:.1%}"
    )
    config |= {"headline": said, "figures": figures}
    save(task, config, folder)
    (folder / "README.md").write_text(card(config, rows, best, given), encoding="utf-8")
    print(said)


def figures_in_card(made: Audit, alone: float) -> dict[str, Any]:
    """Of the model's own method all figures, accuracy by motion, and each method's faithfulness, of the true motions."""
    own = made.methods[0]
    right: dict[str, list[float]] = {}
    for row in made.rows.of(own):
        if row["top1_accuracy"] is not None:
            right.setdefault(row["group"], []).append(row["top1_accuracy"])
    found = {method: made.figures(method, "true") for method in made.methods}
    return {
        **figures_of(made, own),
        "by_motion": {kind: float(np.mean(right[kind])) for kind in MOTIONS if kind in right},
        "faithfulness": {method: {name: one[name].mean for name in FAITHFUL} for method, one in found.items()},
        "weights_alone": alone,
    }


@torch.no_grad()
def weights_alone(net: Net, count: int) -> float:
    """In what share of test frames the largest of the encoder's weights, which know nothing learned, lies on what moves."""
    hits = []
    for seed in seeds("test", count):
        moving = render_motion(make_motion(seed, FRAMES), SIDE)
        frames = np.stack([np.asarray(frame) for frame in moving.clip.frames])
        weights = upsample(net.encoder.weights(prepared(frames[None]))[0, 0], (0.0, 0.0, 1.0, 1.0), (SIDE, SIDE))
        hits += [peak_in(heat.numpy(), fill_holes(mask)) for heat, mask in zip(weights, moving.masks, strict=True)]
    return float(np.mean(hits))


def card(config: dict[str, Any], rows: list[dict[str, Any]], best: dict[str, Any], given: argparse.Namespace) -> str:
    figures = config["figures"]
    place, faith = {name: figure["mean"] for name, figure in figures["all"].items()}, figures["faithfulness"]
    kinds = "".join(f"| {k} | {v:.1%} |\n" for k, v in figures["by_motion"].items())
    clips = figures["counts"]["photos"]
    lines = []
    for row in rows:
        mark = "**" if row is best else ""
        cells = [
            row["method"],
            " x ".join(row["target_layers"]) or "the features",
            f"{row['pointing']:.1%}",
            f"{row['inside_outside']:.1f}",
        ]
        lines.append("| " + " | ".join(f"{mark}{cell}{mark}" for cell in cells) + " |")
    ours = {name: " | ".join(f"{100 * f[key]:.2f}" for key in FAITHFUL) for name, f in faith.items()}
    count = sum(v.numel() for v in load_file(CHECKPOINTS / "clips-motion" / "model.safetensors").values())
    return f"""# clips-motion

{config["summary"][0].upper() + config["summary"][1:]}. It knows nothing but clips as `mmgradcam.scenes.motion` renders them: one object moves among still
ones in one of eight ways, and in every frame it is known to the pixel where.

```python
from mmgradcam import explain
from mmgradcam.images.clips import open_clip
from mmgradcam.tasks import load

explain(load("clips-motion"), open_clip("film.gif"))
```

Maps are taken by **{best["method"]}** at **{" x ".join(best["target_layers"]) or "the features"}**, the first in the table below that lies within a point of the best
on validation clips.

## Figures on {clips:,} held-out clips

Seeds 90000 on, which nothing was trained, chosen or tuned on. `mmgradcam evaluate clips-motion` prints them anew.

Motions told right: **{place["top1_accuracy"]:.1%}**.

| motion | right |
| --- | --- |
{kinds}
The map's peak lies on what moves in **{place["pointing"]:.1%}** of {clips * FRAMES:,} frames (the centre point {place["baseline_center"]:.1%}, a random point
{place["baseline_random"]:.1%}); mean heat inside its mask over mean heat outside: {place["inside_outside"]:.1f}. The maps of the likeliest other motions, which the
clip does not show, peak there in {place["pointing_swapped"]:.1%}: a map says where something moves, and little about how. Most of that is the
encoder's doing, which weighs its features by how much
a place is not as it usually is: those weights alone, before anything learned, peak on what moves in {figures["weights_alone"]:.1%} of the frames.

## Grad-CAM++ against Grad-CAM

Shown each frame times the true motion's heat alone (Chattopadhyay et al. 2018, section 4.1), in percent; beside it, the paper's figures for C3D on
Sports-1M, another model and other clips (`mmgradcam evaluate clips-motion --methods gradcam,gradcam_pp --metrics drop`, kind true):

| | average drop (lower is better) | increase | win | paper: drop | paper: increase | paper: win |
| --- | --- | --- | --- | --- | --- | --- |
| gradcam | {ours["gradcam"]} | 95.26 | 0.84 | - |
| gradcam_pp | {ours["gradcam_pp"]} | 59.79 | 6.68 | 94.09 |

## Which method, at which layer

{given.choose_on} validation clips (seeds 50000 on): frames whose peak lies on what moves. Layers joined by "x" are fused by their product.

| method | at | peak | inside / outside |
| --- | --- | --- | --- |
{chr(10).join(lines)}

## How it was made

- Architecture: `ClipEncoder` of widths {list(WIDTHS)}, which sees beside the frames how they differ from their median over time and weighs
  its features by that; a score of every cell, soft maximum over place, mean over time; {count / 1e6:.2f} M parameters, stored as fp16. {FRAMES} frames of {SIDE} x {SIDE}.
- Data: {given.count:,} clips, seeds 1000000 on, mirrored, turned and reversed in time with the motion's name changed accordingly.
- Recipe: `python scripts/bundled/train_motion.py --out runs/motion`, {given.steps:,} steps of {given.batch} clips, AdamW {given.rate}, cosine, seed {given.seed}; on a CPU.
- Licence: Apache-2.0. Rendered data, no pictures of others.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=3000, help="clips to train on")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held", type=int, default=400, help="clips of the validation split that the curve is of")
    parser.add_argument("--choose-on", type=int, default=150)
    parser.add_argument("--measure-on", type=int, default=1000)
    parser.add_argument("--until", choices=("train", "card"), default="card")
    given = parser.parse_args()
    net = train(given)
    if given.until == "card":
        publish(net, given)
