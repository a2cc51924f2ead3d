"""Trains the encoder of photo-captioner-small from random initialisation, with an ImageNet encoder as its teacher.

The student sees crops, flips and changed colours of the training photos. It learns to put out, cell by cell, what the teacher
put out at the same place of the whole photo, and to say which words the photo's captions hold: a detector per word looks at
each cell, and the photo's score is the soft maximum over the cells (multiple-instance learning, Fang et al. 2015).

    python scripts/bundled/distill_photos.py --data train.parquet --teacher FEATURES.npy --out runs/photos/student

`scripts/bundled/train_photos.py photo-captioner` writes the teacher's features beside its `--out`. Seeded, logged to log.csv, resumed
from last.pt.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from photo_data import crop, crops, recolour
from torch import Tensor, nn
from training import autocast

from mmgradcam.datasets.photos import Photos
from mmgradcam.tasks.nets.encoder import Encoder

ENCODER: dict[str, Any] = {"widths": [32, 64, 128, 192], "depths": [2, 2, 2], "channels": 160, "level": 1}
SIDE = 128
SEEN_OFTEN = 15


class Student(nn.Module):
    """The encoder, and what only its training needs: what the teacher would say, and which words are there."""

    def __init__(self, teacher: int, words: int) -> None:
        super().__init__()
        self.encoder = Encoder(**ENCODER)
        self.taught, self.words = nn.Conv2d(ENCODER["channels"], teacher, 1), nn.Conv2d(ENCODER["channels"], words, 1)
        nn.init.constant_(self.words.bias, -4.0)

    def forward(self, images: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        features = self.encoder(images)
        taught = F.interpolate(self.taught(features), size=grid, mode="bilinear", align_corners=False)
        found = self.words(features).float().flatten(2)
        return taught, (4 * found).logsumexp(2) / 4 - math.log(found.shape[2]) / 4


def words_of(captions: list[tuple[tuple[str, ...], ...]]) -> tuple[list[str], Tensor]:
    """The words that are worth looking for, and which of them each photo's captions hold, as the share of captions."""
    counts = Counter(word for each in captions for caption in each for word in set(caption))
    total = sum(map(len, captions))
    words = sorted(w for w, n in counts.items() if SEEN_OFTEN <= n < 0.3 * total and w.isalpha())
    index = {word: i for i, word in enumerate(words)}
    held = torch.zeros(len(captions), len(words))
    for row, each in enumerate(captions):
        for caption in each:
            for word in set(caption) & index.keys():
                held[row, index[word]] += 1 / len(each)
    return words, held


def load_photos(photos: Photos) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(photos.image(i).resize((160, 160))) for i in range(len(photos))])


def train(given: argparse.Namespace) -> None:
    photos, taught = Photos(given.data), np.load(given.teacher, mmap_mode="r")
    device = torch.device(given.device)
    images = load_photos(photos)
    words, held = words_of([captions for captions, _ in photos.texts()])
    sample = torch.from_numpy(np.asarray(taught[:: max(1, len(taught) // 256)])).float()
    mean, std = sample.mean((0, 2, 3))[:, None, None].to(device), sample.std((0, 2, 3))[:, None, None].to(device)
    torch.manual_seed(given.seed)
    student = Student(taught.shape[1], len(words)).to(device).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        student, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=given.rate, weight_decay=0.05, betas=(0.9, 0.98))
    step, spent, begin = 0, 0.0, time.time()
    last = given.out / "last.pt"
    given.out.mkdir(parents=True, exist_ok=True)
    if last.exists():
        kept = torch.load(last, map_location=device, weights_only=True)
        for part, state in ((student, "student"), (average, "average"), (optimizer, "optimizer")):
            part.load_state_dict(kept[state])
        step, spent = kept["step"], kept["spent"]
    smooth: dict[str, float] = {}
    ends = given.minutes * 60
    while True:
        gone = spent + time.time() - begin
        share = min(1.0, gone / ends if ends else step / given.steps)
        if share >= 1:
            break
        rng = np.random.default_rng([given.seed, step])
        rows = np.sort(rng.integers(0, len(images), given.batch))
        where = crops(rng, given.batch, 0.45).to(device)
        pixels = torch.from_numpy(images[rows]).to(device).permute(0, 3, 1, 2).float() / 255
        seen = (recolour(rng, crop(pixels, where, (SIDE, SIDE))) - 0.5) / 0.25
        target = (crop(torch.from_numpy(taught[rows]).to(device).float(), where, (14, 14)) - mean) / std
        for group in optimizer.param_groups:
            group["lr"] = given.rate * min(1.0, (step + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        with autocast(device):
            said, found = student(seen.contiguous(memory_format=torch.channels_last), (14, 14))
        matched = F.mse_loss(said.float(), target)
        named = F.binary_cross_entropy_with_logits(found, held[rows].to(device), reduction="none").sum(1).mean()
        loss = matched + given.words * named
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(student)
        step += 1
        for name, value in (("r2", 1 - float(matched) / float(target.var())), ("words", float(named))):
            smooth[name] = 0.99 * smooth.get(name, value) + 0.01 * value
        if step % given.every == 0:
            gone = spent + time.time() - begin
            row = {"step": step, "minutes": round(gone / 60, 1), **{n: round(v, 4) for n, v in smooth.items()}}
            with (given.out / "log.csv").open("a", newline="") as file:
                csv.writer(file).writerow(row.values())
            print(json.dumps(row), flush=True)
            states = {"student": student.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**states, "step": step, "spent": gone, "words": words}, given.out / "part.pt")
            (given.out / "part.pt").replace(last)
    weights = {k.removeprefix("module.encoder."): v for k, v in average.state_dict().items() if k.startswith("module.encoder.")}
    torch.save(
        {"encoder": weights, "step": step, "minutes": (spent + time.time() - begin) / 60, **smooth}, given.out / "encoder.pt"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/photos/student"))
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--minutes", type=float, default=0, help="stop after so long instead, resumed time included")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--words", type=float, default=0.02, help="weight of the loss of the words")
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    if given.device == "cuda":
        torch.backends.cudnn.benchmark = True
    train(given)
