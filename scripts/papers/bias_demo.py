"""A bias planted in training pictures, found by its report, and gone when the training pictures are balanced.

    python scripts/papers/bias_demo.py --out runs/bias

The pattern is section 6.3 of the Grad-CAM paper (Selvaraju et al., IJCV 2019): a classifier of doctors and nurses, trained on
78% male doctors and 93% female nurses, looked at faces and hair; trained on as many men as women of each, its accuracy on
balanced pictures rose from 82% to 90%. Here keepers hold stars and menders hold crosses, and the head's colour plays the part
of the sex: two small nets, alike but for the training pictures, are tested and explained on the same balanced test pictures.
OUT gets figures.json, and for each of the two nets report.json and index.html.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgradcam.datasets.biased_scenes import EVEN, GROUPS, PLANTED, TRADES, biased_photos
from mmgradcam.datasets.records import Sample
from mmgradcam.images.pictures import PreparedImage, to_tensor
from mmgradcam.studies.bias import bias_report, thing
from mmgradcam.studies.bias_report import BiasReport
from mmgradcam.tasks import Layer

REGIONS = {"head": thing("head"), "tool": thing(*TRADES), "body": thing("body")}
PAPER = {"planted": 0.82, "even": 0.90}


class Net(nn.Module):
    """Four convolutions to a grid at stride 4, and a pooled linear layer."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        sizes = [(3, width // 2, 2), (width // 2, width, 2), (width, 2 * width, 1), (2 * width, 2 * width, 1)]
        self.features = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()) for a, b, stride in sizes)
        )
        self.head = nn.Linear(2 * width, len(TRADES))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.features(pixels).mean((2, 3)))


def prepared(image: Any) -> PreparedImage:
    return PreparedImage((to_tensor(image) - 0.5) / 0.25, (0.0, 0.0, 1.0, 1.0))


def train(photos: Sequence[Sample], epochs: int, width: int = 24, rate: float = 3e-3, seed: int = 0) -> Layer:
    """A classifier of trades, learned from these pictures and their mirror images."""
    pixels = torch.stack([prepared(photo.image).pixels for photo in photos])
    labels = torch.tensor([list(TRADES).index(photo.objects[0].label) for photo in photos])
    torch.manual_seed(seed)
    net, steps = Net(width), len(photos) // 64
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-3)
    course = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(photos)).split(64)[:steps]:
            seen = pixels[rows].flip(3) if torch.rand(()) < 0.5 else pixels[rows]
            loss = F.cross_entropy(net(seen), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            course.step()
    task = Layer(net.eval(), net.features, list(TRADES), prepared)
    task.name = "trades"
    return task


def accuracy(report: BiasReport) -> dict[str, float]:
    """Right over all pictures and by group, as the report counted it."""
    row = next(row for row in report.rows if row.what == "right")
    first, second = row.counts
    every = (row.first * first + row.second * second) / (first + second)
    return {"all": every, GROUPS[0]: row.first, GROUPS[1]: row.second}


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    held = biased_photos(given.split, given.test)
    figures: dict[str, Any] = {
        "train": given.train,
        given.split: given.test,
        "epochs": given.epochs,
        "seed": given.seed,
        "paper": PAPER,
    }
    for name, agreeing in (("planted", PLANTED), ("even", EVEN)):
        start = time.time()
        task = train(biased_photos("train", given.train, agreeing), given.epochs, seed=given.seed)
        task.name = f"the net of the {'biased' if name == 'planted' else 'balanced'} set"
        trained = time.time() - start
        report = bias_report(task, held, GROUPS, regions=REGIONS)
        report.save(given.out / name)
        figures[name] = {"accuracy": accuracy(report), "found": [row.what for row in report.found], "trained_s": round(trained)}
        print(f"\n{task.name}\n{report}\naccuracy {figures[name]['accuracy']}; the paper's {PAPER[name]:.0%}", flush=True)
    (given.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=1000, help="training pictures of each net")
    parser.add_argument("--test", type=int, default=1000, help="balanced pictures to test and explain")
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
