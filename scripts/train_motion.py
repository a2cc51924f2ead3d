"""Trains the bundled model that tells how something moves, measures it and its maps on held-out clips, and writes its card.

    python scripts/train_motion.py --out runs/motion

Clips are rendered once and kept in `--out`; mirrored, turned and reversed in time they stand for sixteen times as many. Training
goes on from last.pt there.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgradcam.data.motion import MOTIONS, make_motion, render_motion
from mmgradcam.data.splits import seeds
from mmgradcam.tasks.nets.clips import ClipEncoder, MeanHead

SIDE, FRAMES, WIDTHS = 64, 16, (16, 32, 64, 64)


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
        self.head = MeanHead(WIDTHS[-1], len(MOTIONS))

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
    held, told = clips("validation", 400, given.out)
    torch.manual_seed(given.seed)
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=given.rate, weight_decay=0.02)
    step, last = 0, given.out / "last.pt"
    if last.exists():
        kept = torch.load(last, weights_only=True)
        net.load_state_dict(kept["net"])
        optimizer.load_state_dict(kept["optimizer"])
        step = kept["step"]
    begin = time.time()
    while step < given.steps:
        rng = np.random.default_rng([given.seed, step])
        rows = np.sort(rng.choice(len(data), given.batch, replace=False))
        x, y = changed(prepared(data[rows]), kinds[rows], rng)
        for group in optimizer.param_groups:
            group["lr"] = (
                given.rate * min(1.0, (step + 1) / 100) * (0.01 + 0.495 * (1 + math.cos(math.pi * step / given.steps)))
            )
        with torch.autocast("cpu", torch.bfloat16):
            scores = net(x)
        loss = F.cross_entropy(scores.float(), y)
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
            print(json.dumps(row), flush=True)
            with (given.out / "log.csv").open("a", newline="") as file:
                csv.writer(file).writerow(row.values())
            torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, given.out / "part.pt")
            (given.out / "part.pt").replace(last)
    return net.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=3000, help="clips to train on")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())
