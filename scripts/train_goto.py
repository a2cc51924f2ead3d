"""Trains the bundled policy that goes where it is told, measures it, and writes its card.

    python scripts/train_goto.py --out runs/goto

It imitates the best way, which is worked out in each room from every place to every object: of a room that the environment draws, the
agent is put somewhere and told to go to one of the objects. Rooms of training, choice and test have seeds of their own. Training goes
on from last.pt in `--out`.
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
from torch import Tensor

from mmgradcam.data.goto import ACTIONS, FAR, best_actions, make_goto, mission, picture, room_of, steps_to
from mmgradcam.data.splits import SPLITS
from mmgradcam.tasks.nets.goto import GoToHead, GoToNet, GridEncoder
from mmgradcam.tasks.vocabulary import Vocabulary, tokenize

COLORS = ("blue", "green", "grey", "purple", "red", "yellow")
KINDS = ("ball", "box", "key")
VOCABULARY = Vocabulary(tuple(sorted(("a", "go", "the", "to", *COLORS, *KINDS))))
EACH = 12
"""Places and instructions of a room that are learned before the next room is drawn."""


def samples(seeds: range, folder: Path) -> tuple[np.ndarray[Any, Any], Tensor, Tensor]:
    """(N, 64, 64, 3) pictures, (N, 5) instructions, (N, actions) shares of the best actions; kept in the folder."""
    file = folder / f"rooms-{seeds.start}-{len(seeds)}.npz"
    if file.exists():
        kept = np.load(file)
        return kept["pictures"], torch.from_numpy(kept["told"]), torch.from_numpy(kept["best"])
    folder.mkdir(parents=True, exist_ok=True)
    world = make_goto(render=False)
    pictures, told, best = [], [], []
    for seed in seeds:
        world.reset(seed=seed)
        room, rng = room_of(world), np.random.default_rng([seed, 0x60])
        free, named = room.free(), sorted({(color, kind) for color, kind, _ in room.things})
        ways = {one: steps_to(room, room.named(*one)) for one in named}
        for _ in range(EACH):
            (x, y), d, one = free[rng.integers(len(free))], int(rng.integers(4)), named[rng.integers(len(named))]
            if ways[one][x, y, d] == FAR:
                continue
            pictures.append(picture(room, x, y, d))
            told.append(VOCABULARY.encode(tokenize(mission(room, *one))))
            share = np.zeros(len(ACTIONS), np.float32)
            share[best_actions(room, ways[one], x, y, d)] = 1
            best.append(share / share.sum())
        if (seed - seeds.start) % 2000 == 0:
            print("rooms", seed - seeds.start, "of", len(seeds), flush=True)
    np.savez(file, pictures=np.stack(pictures), told=np.array(told), best=np.stack(best))
    return samples(seeds, folder)


def made(given: argparse.Namespace) -> GoToNet:
    torch.manual_seed(given.seed)
    return GoToNet(GridEncoder(), GoToHead(len(VOCABULARY)))


@torch.no_grad()
def right(net: GoToNet, data: tuple[np.ndarray[Any, Any], Tensor, Tensor]) -> float:
    """Share of the places where the likeliest action is one of the best."""
    net.eval()
    pictures, told, best = data
    hits = []
    for at in range(0, len(pictures), 500):
        logits = net({"image": as_input(pictures[at : at + 500]), "mission": told[at : at + 500]})
        hits.append(best[at : at + 500].gather(1, logits.argmax(1)[:, None]) > 0)
    net.train()
    return float(torch.cat(hits).float().mean())


def as_input(pictures: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def train(given: argparse.Namespace) -> GoToNet:
    held = samples(range(SPLITS["validation"], SPLITS["validation"] + 200), given.out)
    net = made(given)
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999))
    optimizer = torch.optim.AdamW(net.parameters(), lr=given.rate, weight_decay=0.01)
    step, last = 0, given.out / "last.pt"
    if last.exists():
        kept = torch.load(last, weights_only=True)
        net.load_state_dict(kept["net"])
        average.load_state_dict(kept["average"])
        optimizer.load_state_dict(kept["optimizer"])
        step = kept["step"]
    begin, part = time.time(), None
    while step < given.steps:
        which = step * given.batch // (given.chunk * EACH)
        if part is None or part[0] != which:
            start = SPLITS["train"] + (which % given.chunks) * given.chunk
            part = (which, samples(range(start, start + given.chunk), given.out))
        pictures, told, best = part[1]
        rows = np.sort(np.random.default_rng([given.seed, step]).choice(len(pictures), given.batch, replace=False))
        for group in optimizer.param_groups:
            group["lr"] = (
                given.rate * min(1.0, (step + 1) / 200) * (0.01 + 0.495 * (1 + math.cos(math.pi * step / given.steps)))
            )
        with torch.autocast("cpu", torch.bfloat16):
            logits = net({"image": as_input(pictures[rows]), "mission": told[rows]})
        loss = F.cross_entropy(logits.float(), best[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(net)
        step += 1
        if step % 250 == 0 or step == given.steps:
            row = {"step": step, "seconds": round(time.time() - begin), "loss": round(loss.item(), 4)}
            row["right"] = right(average.module, held)
            print(json.dumps(row), flush=True)
            with (given.out / "log.csv").open("a", newline="") as file:
                csv.writer(file).writerow(row.values())
            states = {"net": net.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**states, "step": step}, given.out / "part.pt")
            (given.out / "part.pt").replace(last)
    return average.module.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--chunk", type=int, default=4000, help="rooms drawn at a time")
    parser.add_argument("--chunks", type=int, default=4, help="how many such parts there are before the first comes again")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())
