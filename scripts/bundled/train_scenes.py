"""Trains the bundled scene models: one encoder under four heads (captions and answers, LSTM and transformer), together.

First the encoder alone learns which pairs of attributes occur in a scene ("a red cube is there", "something small and metal
is not"): labels of whole pictures, as existence questions give them, never of places. Then the heads learn on top of it, and
it goes on learning with them. Last, the answer heads go on alone, over the encoder as it then is: counting, comparing and
relating take them longer than captions take theirs. There they also learn to say what the objects are that a question
describes, all their attributes, though not where: before it can be said on which side of the cube the ball is, both must
have been found.

    python scripts/bundled/train_scenes.py                  # data, training, choice of method, figures and checkpoints/
    python scripts/bundled/train_scenes.py --until train    # stop before the figures

Everything is seeded. Training is resumed from runs/scenes/last.pt where it was stopped; the weights that did best on the
validation scenes are kept in runs/scenes/best.pt.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scene_data import ATTRIBUTES, CAPTION_VOCABULARY, QUESTION_VOCABULARY, SIDE, Scenes, hardness, scenes
from torch import Tensor, nn
from training import autocast

from mmgradcam.scenes.questions import ANSWERS
from mmgradcam.tasks.nets.answerers import LSTMAnswerer, TransformerAnswerer
from mmgradcam.tasks.nets.captioners import LSTMCaptioner, TransformerCaptioner
from mmgradcam.tasks.nets.encoder import Encoder

NETS = "mmgradcam.tasks.nets"
ENCODER: dict[str, Any] = {"widths": [32, 48, 96, 128], "depths": [2, 2, 1], "channels": 96, "level": 0}
CAPTIONER = {"vocabulary": len(CAPTION_VOCABULARY), "channels": 96, "patch": 2}
ANSWERER = {"vocabulary": len(QUESTION_VOCABULARY), "answers": len(ANSWERS), "channels": 96, "patch": 2}
HEADS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "scenes-captioner": (LSTMCaptioner, {**CAPTIONER, "width": 192}),
    "scenes-captioner-transformer": (TransformerCaptioner, {**CAPTIONER, "width": 128, "layers": 2, "heads": 4}),
    "scenes-vqa": (LSTMAnswerer, {**ANSWERER, "width": 128, "glimpses": 4, "heads": 4}),
    "scenes-vqa-transformer": (TransformerAnswerer, {**ANSWERER, "width": 128, "layers": 3, "heads": 4}),
}
PER_IMAGE = {"captions": 3, "questions": 6}
STAGES: list[list[str]] = [[], list(HEADS), [name for name in HEADS if "captioner" not in name]]
"""Heads that learn: none, while the encoder learns alone; all of them, with it; the answer heads, without it."""
PAIRS = list(combinations(range(len(ATTRIBUTES)), 2))
COUNTS = [len(values) for values in ATTRIBUTES.values()]
FIT = {"size": [SIDE, SIDE], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "how": "pad"}


def nets() -> nn.ModuleDict:
    torch.manual_seed(0)
    heads = {name: kind(**made) for name, (kind, made) in HEADS.items()}
    presence = nn.Conv2d(ENCODER["channels"], sum(COUNTS[a] * COUNTS[b] for a, b in PAIRS), 1)
    nn.init.constant_(presence.bias, -4.0)
    made = nn.ModuleDict({"encoder": Encoder(**ENCODER), "presence": presence, **heads})
    for name in STAGES[2]:
        made[f"{name} meant"] = nn.Linear(HEADS[name][1]["width"], 2 * sum(COUNTS) + 4)
    return made


def meant_loss(logits: Tensor, objects: np.ndarray[Any, Any], meant: np.ndarray[Any, Any]) -> Tensor:
    """How far it is from being said what the objects are that a question describes, and on which side the one is of the other.

    Args:
        logits: (B * n, 2 * values of all attributes + 2 * 2 sides).
        objects: (B, MAX_THINGS, 4) attributes.
        meant: (B, n, 4), see `Scenes`.
    """
    which, sides = np.split(meant, 2, 2)
    of = np.take_along_axis(objects[:, None], np.maximum(which, 1)[..., None].astype(np.int64) - 1, 2)
    attributes = np.where(which[..., None] > 0, of, 0).reshape(len(logits), -1)  # (B * n, 2 * 4)
    truth = torch.from_numpy(np.concatenate([attributes, sides.reshape(len(logits), -1)], 1)).long().to(logits.device) - 1
    parts = logits.float().split([*COUNTS, *COUNTS, 2, 2], 1)
    losses = [F.cross_entropy(part, truth[:, a], ignore_index=-1) for a, part in enumerate(parts)]
    return torch.stack(losses).mean()


def pairs_present(objects: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """(B, MAX_THINGS, 4) attributes -> (B, pairs of values) 1.0 where some object has both."""
    attributes = torch.from_numpy(objects).long().to(device)
    found = []
    for a, b in PAIRS:
        both = (attributes[..., a] - 1) * COUNTS[b] + attributes[..., b] - 1
        seen = torch.zeros(len(objects), COUNTS[a] * COUNTS[b] + 1, device=device)
        found.append(seen.scatter(1, torch.where(attributes[..., a] > 0, both, COUNTS[a] * COUNTS[b]), 1.0)[:, :-1])
    return torch.cat(found, 1)


def pixels(images: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float()
    return ((x / 255 - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)


def tokens(rows: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """(B, n, L) -> (B * n, longest)."""
    flat = torch.from_numpy(np.ascontiguousarray(rows)).flatten(0, 1)
    return flat[:, : int((flat != 0).sum(1).max())].long().to(device)


def losses(
    model: nn.ModuleDict,
    data: Scenes,
    chosen: tuple[Any, Any, Any],
    device: torch.device,
    names: list[str],
    seeing: bool = True,
) -> dict[str, Tensor]:
    """The loss of each named head, and for answers the share that is right.

    Args:
        chosen: rows of scenes (B,), and which captions (B, n) and questions (B, m) of each.
        seeing: the encoder learns too, and its own loss is among them.
    """
    rows, *which = chosen
    captions, weighted = (np.take_along_axis(x[rows], which[0][..., None], 1) for x in (data.captions, data.weights))
    questions, answers = np.take_along_axis(data.questions[rows], which[1][..., None], 1), data.answers[rows]
    with torch.set_grad_enabled(seeing and torch.is_grad_enabled()):
        features = model["encoder"](pixels(data.images[rows], device))
    found = {}
    if seeing:
        present = (2 * model["presence"](features).float().flatten(2)).logsumexp(-1) / 2
        weight, truth = torch.tensor(4.0, device=device), pairs_present(data.objects[rows], device)
        found["presence"] = F.binary_cross_entropy_with_logits(present, truth, pos_weight=weight)
    if not names:
        return found
    said = tokens(captions, device)
    weights = torch.from_numpy(weighted).flatten(0, 1)[:, 1 : said.shape[1]].float().to(device)
    asked = tokens(questions, device)
    right = torch.from_numpy(np.take_along_axis(answers, which[1], 1)).flatten().long().to(device)
    for name in names:
        head = model[name]
        if "captioner" in name:
            logits = head.out(head(features, said[:, :-1])).float()
            each = F.cross_entropy(logits.transpose(1, 2), said[:, 1:], reduction="none")
            found[name] = (each * weights).sum() / weights.sum()
        else:
            known = head.know(features, asked)
            logits = head.out(known).float()
            found[name] = F.cross_entropy(logits, right)
            if not seeing and torch.is_grad_enabled():
                meant = np.take_along_axis(data.meant[rows], which[1][..., None], 1)
                found[f"{name} meant"] = meant_loss(model[f"{name} meant"](known), data.objects[rows], meant)
            found[f"{name} right"] = (logits.argmax(1) == right).float().mean().detach()
    return found


@torch.no_grad()
def validate(model: nn.ModuleDict, data: Scenes, device: torch.device) -> dict[str, float]:
    model.eval()
    totals: dict[str, float] = {}
    batches = np.array_split(np.arange(len(data.images)), max(1, len(data.images) // 100))
    for rows in batches:
        with autocast(device):
            which = np.tile(np.arange(4), (len(rows), 1)), np.tile(np.arange(12), (len(rows), 1))
            found = losses(model, data, (rows, *which), device, list(HEADS))
        for name, value in found.items():
            totals[name] = totals.get(name, 0) + float(value) / len(batches)
    model.train()
    return totals


def train(given: argparse.Namespace) -> None:
    device = torch.device(given.device)
    data, held = scenes(given.out / "data", "train", given.scenes), scenes(given.out / "data", "validation", 1000)
    model = nets().to(device)
    model["encoder"].to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999), use_buffers=True
    )
    seeing = [*model["encoder"].parameters(), *model["presence"].parameters()]
    saying = [p for name in HEADS for p in model[name].parameters()]
    meaning = [p for name in STAGES[2] for p in model[f"{name} meant"].parameters()]
    groups = [
        {"params": [p for p in some if (p.dim() > 1) == decayed], "weight_decay": 0.02 * decayed, "sees": sees}
        for some, sees in ((seeing, True), (saying, False), (meaning, False))
        for decayed in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    step, best, spent = 0, math.inf, 0.0
    last = given.out / "last.pt"
    if last.exists():
        kept = torch.load(last, map_location=device, weights_only=True)
        (
            model.load_state_dict(kept["model"]),
            average.load_state_dict(kept["average"]),
            optimizer.load_state_dict(kept["optimizer"]),
        )
        step, best, spent = kept["step"], kept["best"], kept["spent"]
    smooth: dict[str, float] = {}
    begin = time.time()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns) as progress:
        steps = given.steps + given.answers
        bar = progress.add_task("training", total=steps, completed=step, loss="")
        while step < steps:
            rng = np.random.default_rng([given.seed, step])
            stage = (step >= given.first) + (step >= given.steps)
            if step == given.steps:
                model.load_state_dict(average.module.state_dict())
            rows = np.sort(rng.integers(0, len(data.images), given.batch if stage else 2 * given.batch))
            captions = alike(rng, data.captions.shape[1], PER_IMAGE["captions"], len(rows))
            questions = (
                drawn(rng, hardness(data.questions[rows]), PER_IMAGE["questions"] + 2)
                if stage == 2
                else alike(rng, data.questions.shape[1], PER_IMAGE["questions"], len(rows))
            )
            for group in optimizer.param_groups:
                group["lr"] = rate(given, step, stage, group["sees"])
            with autocast(device):
                found = losses(model, data, (rows, captions, questions), device, STAGES[stage], seeing=stage < 2)
            loss = sum(value for name, value in found.items() if not name.endswith("right"))
            assert isinstance(loss, Tensor)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(model)
            step += 1
            for name, value in found.items():
                now = value.item()
                smooth[name] = 0.98 * smooth.get(name, now) + 0.02 * now
            if step % 20 == 0:
                progress.update(bar, completed=step, loss=" ".join(f"{v:.3f}" for v in smooth.values()))
            if step % 200 == 0 and not progress.console.is_terminal:
                print(step, round(time.time() - begin), {n: round(v, 3) for n, v in smooth.items()}, flush=True)
            if step % given.every == 0 or step in (given.first, given.steps, steps):
                if stage:
                    on_held = validate(average.module, held, device)
                    total = sum(v for n, v in on_held.items() if not n.endswith("right"))
                    minutes = (spent + time.time() - begin) / 60
                    log(
                        given.out / "log.csv",
                        {"step": step, "minutes": round(minutes, 1), "train": round(float(loss), 4), **on_held},
                    )
                    if total < best:
                        best = total
                        torch.save({"model": average.module.state_dict(), "step": step, "held": on_held}, given.out / "best.pt")
                state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**state, "step": step, "best": best, "spent": spent + time.time() - begin}, given.out / "part.pt")
                (given.out / "part.pt").replace(last)


def alike(rng: np.random.Generator, of: int, count: int, rows: int) -> np.ndarray[Any, Any]:
    """(B, count) different columns, the same ones in each row."""
    return np.tile(rng.permutation(of)[:count], (rows, 1))


def drawn(rng: np.random.Generator, weights: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """(B, N) weights -> (B, count) different columns of each row, drawn by weight."""
    return np.argsort(-(np.log(weights) + rng.gumbel(size=weights.shape)), 1)[:, :count]


def rate(given: argparse.Namespace, step: int, stage: int, sees: bool) -> float:
    """Learning rate of the encoder (`sees`) or the heads; each stage warms up and falls along a cosine."""
    ends = [0, given.first, given.steps, given.steps + given.answers]
    since, length = step - ends[stage], (ends[stage + 1] if stage != 1 else given.falls) - ends[stage]
    cosine = 0.5 * (1 + math.cos(math.pi * since / length))
    base = given.rate * ((3.0, 0.5, 0.0)[stage] if sees else 1.0)
    return float(base * min(1.0, (since + 1) / 300) * (0.02 + 0.98 * cosine))


def log(path: Path, row: dict[str, float]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow({name: f"{value:.5g}" for name, value in row.items()})
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scenes"))
    parser.add_argument("--scenes", type=int, default=60_000)
    parser.add_argument("--steps", type=int, default=6000, help="steps of the encoder alone and of all heads together")
    parser.add_argument(
        "--falls", type=int, default=8500, help="step at which the rate of all heads together would reach its end"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=7e-4, help="peak learning rate of the heads")
    parser.add_argument("--first", type=int, default=1500, help="steps of the encoder alone, the first of them")
    parser.add_argument("--answers", type=int, default=7000, help="steps of the answer heads alone, after them")
    parser.add_argument("--every", type=int, default=1000, help="steps between validations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--until", choices=["train", "publish"], default="publish")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    train(given)
    if given.until == "publish":
        from publish_scenes import publish

        publish(given.out, choose_on=200, measure_on=1000)
