"""Trains the bundled policy that goes where it is told, measures it, and writes its card.

    python scripts/bundled/train_goto.py --out runs/goto

It imitates the best way, which is worked out in each room from every place to every object: of a room that the environment
draws, the agent is put somewhere and told to go to one of the objects. Rooms of training, choice and test have seeds of their
own. Training goes on from last.pt in `--out`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from training import autocast, keep, rate_at, resumed

from mmgradcam import methods
from mmgradcam.evaluation.goto import evaluate_goto
from mmgradcam.scenes.goto import ACTIONS, WORLD, advice, from_above, mission, picture, room_of, steps_to
from mmgradcam.scenes.splits import SPLITS
from mmgradcam.tasks import load
from mmgradcam.tasks.loading import build, save
from mmgradcam.tasks.loading import parts as parts_of
from mmgradcam.tasks.nets.goto import GoToHead, GoToNet, GridEncoder
from mmgradcam.tasks.vocabulary import Vocabulary, tokenize

COLORS = ("blue", "green", "grey", "purple", "red", "yellow")
KINDS = ("ball", "box", "key")
VOCABULARY = Vocabulary(tuple(sorted(("a", "go", "the", "to", *COLORS, *KINDS))))
EACH = 12
"""Places and instructions of a room that are learned before the next room is drawn."""


Samples = tuple[np.ndarray[Any, Any], Tensor, Tensor, Tensor]


def samples(seeds: range, folder: Path) -> Samples:
    """(N, 64, 64, 3) pictures, (N, 5) instructions, (N,) where the agent is and looks, (N, 256, actions) bool what is best
    anywhere.
    """
    file = folder / f"rooms-{seeds.start}-{len(seeds)}.npz"
    if file.exists():
        kept = np.load(file)
        best = np.unpackbits(kept["best"], axis=-1, count=len(ACTIONS)).astype(bool)
        return kept["pictures"], torch.from_numpy(kept["told"]), torch.from_numpy(kept["at"]), torch.from_numpy(best)
    folder.mkdir(parents=True, exist_ok=True)
    world = from_above(WORLD, render=False)
    pictures, told, at, best = [], [], [], []
    for seed in seeds:
        world.reset(seed=seed)
        room, rng = room_of(world), np.random.default_rng([seed, 0x60])
        free, named = room.free(), sorted({(color, kind) for color, kind, _ in room.objects})
        ways = {one: advice(steps_to(room, room.named(*one))) for one in named}
        for _ in range(EACH):
            (x, y), d, one = free[rng.integers(len(free))], int(rng.integers(4)), named[rng.integers(len(named))]
            if ways[one][y, x, d].any():
                pictures.append(picture(room, x, y, d))
                told.append(VOCABULARY.encode(tokenize(mission(room, *one))))
                at.append((y * room.cells.shape[0] + x) * 4 + d)
                best.append(np.packbits(ways[one].reshape(-1, len(ACTIONS)), axis=-1))
    np.savez(file, pictures=np.stack(pictures), told=np.array(told), at=np.array(at), best=np.stack(best))
    print(file.name, len(pictures), flush=True)
    return samples(seeds, folder)


def made(given: argparse.Namespace) -> GoToNet:
    torch.manual_seed(given.seed)
    return GoToNet(GridEncoder(), GoToHead(len(VOCABULARY)))


@torch.no_grad()
def right(net: GoToNet, data: Samples) -> float:
    """Share of the places where the likeliest action is one of the best."""
    net.eval()
    pictures, told, at, best = data
    hits = []
    for start in range(0, len(pictures), 500):
        part = slice(start, start + 500)
        logits = net({"image": as_input(pictures[part]), "mission": told[part]})
        own = best[part][torch.arange(len(logits)), at[part]]
        hits.append(own.gather(1, logits.argmax(1)[:, None]))
    net.train()
    return float(torch.cat(hits).float().mean())


def loss_of(net: GoToNet, data: Samples, rows: np.ndarray[Any, Any]) -> Tensor:
    """Of where the agent is, and of what is best at every place of the room: one picture teaches it all."""
    pictures, told, at, best = data
    with autocast("cpu"):
        where, advised = net.head.everywhere(net.encoder(as_input(pictures[rows])), told[rows])
    known = best[rows].any(-1)
    share = best[rows].float()
    share = share / share.sum(-1, keepdim=True).clamp(min=1)
    each = -(advised.float().log_softmax(-1) * share).sum(-1)
    return F.cross_entropy(where.float(), at[rows]) + each[known].mean()


def as_input(pictures: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def train(given: argparse.Namespace) -> GoToNet:
    held = samples(range(SPLITS["validation"], SPLITS["validation"] + given.held), given.out)
    net = made(given)
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999))
    optimizer = torch.optim.AdamW(net.parameters(), lr=given.rate, weight_decay=0.01)
    parts = {"net": net, "average": average, "optimizer": optimizer}
    step = resumed(given.out, **parts)
    begin, part = time.time(), None
    while step < given.steps:
        which = step * given.batch // (given.chunk * EACH)
        if part is None or part[0] != which:
            start = SPLITS["train"] + (which % given.chunks) * given.chunk
            part = (which, samples(range(start, start + given.chunk), given.out))
        rows = np.sort(np.random.default_rng([given.seed, step]).choice(len(part[1][0]), given.batch, replace=False))
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, given.steps, given.rate, 200)
        loss = loss_of(net, part[1], rows)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(net)
        step += 1
        if step % 250 == 0 or step == given.steps:
            row = {"step": step, "seconds": round(time.time() - begin), "loss": round(loss.item(), 4)}
            row["right"] = right(average.module, held)
            keep(given.out, row, **parts)
    return average.module.eval()


METHODS = ("gradcam", "hirescam", "layercam", "normgrad")
LAYERS = ("encoder.layers.5", "encoder.layers.3", "encoder.layers.1")
CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


def publish(net: GoToNet, given: argparse.Namespace) -> None:
    """Method and layer are those that do best in validation rooms; figures are those of test rooms."""
    nets = "mmgradcam.tasks.nets.goto"
    config: dict[str, Any] = {
        "task": "mmgradcam.tasks.policy:told",
        "summary": "goes where it is told in a BabyAI room seen from above; CNN steered by the instruction",
        "encoder": {"class": f"{nets}:GridEncoder"},
        "head": {"class": f"{nets}:GoToHead", "vocabulary": len(VOCABULARY)},
        "words": list(VOCABULARY.words),
        "actions": list(ACTIONS),
        "feature_layer": "scores",
        "method": "gradcam",
        "target_layers": ["encoder"],
        "fuse": "product",
    }
    folder = CHECKPOINTS / "babyai-goto"
    task = build(config)
    parts_of(task)["net"].load_state_dict(net.state_dict())
    save(task, config, folder)
    rows = []
    for layer in LAYERS:
        for method in METHODS:
            how: dict[str, Any] = {"method": getattr(methods, method), "target_layers": [layer]}
            found = evaluate_goto(load(folder), given.choose_on, "validation", **how)["pointing"]
            rows.append({"method": method, "layer": layer, **found})
            print(method, layer, {k: round(v, 3) for k, v in found.items()}, flush=True)
    best = max(rows, key=lambda row: row["own"] - 0.5 * row["swapped"])
    config |= {"method": best["method"], "target_layers": [best["layer"]]}
    save(task, config, folder)
    figures = evaluate_goto(load(folder), given.measure_on)
    p = figures["pointing"]
    said = (
        f"{figures['success']:.1%} of episodes won; peak on the object meant {p['own']:.1%}, told otherwise {p['swapped']:.1%}"
    )
    config |= {"headline": said, "figures": figures}
    save(task, config, folder)
    (folder / "README.md").write_text(card(config, rows, best, given), encoding="utf-8")
    print(said)


def card(config: dict[str, Any], rows: list[dict[str, Any]], best: dict[str, Any], given: argparse.Namespace) -> str:
    figures = config["figures"]
    p = figures["pointing"]
    lines = []
    for row in rows:
        mark = "**" if row is best else ""
        shares = [f"{row[k]:.1%}" for k in ("own", "swapped", "follows", "agent")]
        lines.append("| " + " | ".join(f"{mark}{cell}{mark}" for cell in (row["method"], row["layer"], *shares)) + " |")
    count = sum(v.numel() for v in load_file(CHECKPOINTS / "babyai-goto" / "model.safetensors").values())
    return f"""# babyai-goto

{config["summary"][0].upper() + config["summary"][1:]}: "go to the red ball", one room of 8 x 8 cells, seven objects (BabyAI-GoToLocalS8N7-v0).

    mmgradcam policy BabyAI-GoToLocalS8N7-v0 --model babyai-goto

The log-probability of the action taken is explained. Maps are taken by **{best["method"]}** at **{best["layer"]}**, the choice that did best
in validation rooms (below).

## Figures on {figures["episodes"]:,} held-out episodes

Seeds 90000 on, which nothing was trained, chosen or tuned on. `mmgradcam evaluate babyai-goto` prints them anew.

Episodes won: **{figures["success"]:.1%}**, in {figures["steps"]:.1f} steps on the mean.

Of the {p["count"]:,} maps of actions taken (the whole room is in view at every step), the peak lies in the cell of an object that was meant
in **{p["own"]:.1%}** (the centre cell {p["centre"]:.1%}, a random cell {p["random"]:.1%}), and on the agent itself in {p["agent"]:.1%}.

The same picture, the same action, told to go to another object: the peak lies on the first object in {p["swapped"]:.1%} and on the other one
in {p["follows"]:.1%}. Half the sum of the absolute differences of both maps, each scaled to a sum of 1, is {p["moved"]:.2f} (0: the same map; 1: no cell in common).

## Which method, at which layer

{given.choose_on} validation episodes (seeds 50000 on).

| method | at | on what is meant | told otherwise | on the other | on the agent |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}

## How it was made

- Architecture: `GridEncoder` (three convolutions, a cell of the room to a cell of the features), `GoToHead` (five residual blocks that the
  words of the instruction scale and shift, until every cell tells what to do there; a second map tells where the agent is); {count / 1e6:.2f} M parameters, stored as fp16.
- Data: {given.chunk * given.chunks:,} rooms as the environment draws them (seeds 1000000 on), {EACH} instructions and places of the agent in each. What is
  learned is where the agent stands, and the best action at every place of the room, found by search from the object backwards. It
  imitates; it was never rewarded.
- Recipe: `python scripts/bundled/train_goto.py --out runs/goto`, {given.steps:,} steps of {given.batch}, AdamW {given.rate}, cosine, seed {given.seed}, mean of the weights; on a CPU.
- Licence: Apache-2.0.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--chunk", type=int, default=4000, help="rooms drawn at a time")
    parser.add_argument("--chunks", type=int, default=4, help="how many such parts there are before the first comes again")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held", type=int, default=200, help="rooms of the validation split that the curve is of")
    parser.add_argument("--choose-on", type=int, default=40)
    parser.add_argument("--measure-on", type=int, default=500)
    parser.add_argument("--until", choices=("train", "card"), default="card")
    given = parser.parse_args()
    net = train(given)
    if given.until == "card":
        publish(net, given)
