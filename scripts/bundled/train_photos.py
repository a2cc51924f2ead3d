"""Trains a head for photos over a frozen image encoder: a captioner, or one that answers questions.

    python scripts/bundled/train_photos.py photo-captioner --data train.parquet --out runs/photos/photo-captioner
    python scripts/bundled/train_photos.py photo-captioner --data train.parquet --out runs/photos/rewarded --start
    runs/photos/photo-captioner/best.pt --reward --epochs 4 python scripts/bundled/train_photos.py photo-vqa --data train.parquet --out
    runs/photos/photo-vqa --start checkpoints/photo-captioner python scripts/bundled/train_photos.py photo-captioner --data
    captions_train2014.json --images train2014 --encoder timm:resnet50 --layers layer2 layer3 layer4 ... python
    scripts/bundled/train_photos.py photo-vqa --data v2_mscoco_train2014_annotations.json --images train2014 ...

The head learns to say the captions, or to answer, and at the same time to find each word of the captions somewhere in the
grid (`Detectors`). No box is read. The encoder's features of each photo, its mirror image and crops of it are worked out once
and kept beside `--out`; training goes on from last.pt there, its curve is log.csv, and what did best on held photos is best.pt.
`scripts/bundled/publish_photos.py` makes a model folder of it.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photo_data import HELD, features, fit_of
from photo_lessons import HEADS, Answers, Captions, prime
from torch import nn
from training import autocast, rate_at

from mmgradcam.tasks import load
from mmgradcam.tasks.loading import parts
from mmgradcam.tasks.nets.backbone import Backbone
from mmgradcam.tasks.nets.encoder import Encoder

HUB = "google/mobilenet_v2_1.0_224"
MOBILENET: dict[str, Any] = {
    "config": {"model_type": "mobilenet_v2", "output_stride": 16},
    "without": ["conv_1x1"],
    "layers": ["layer.2", "layer.5", "layer.9", "layer.12", "layer.15"],
}
"""How the hub's MobileNetV2 is read: its last stage dilated, and layers stacked, since early ones tell where and in what color.
"""


DECAY = 0.997
"""What a step leaves of the average of the weights before it."""
SETTINGS = (
    "epochs",
    "batch",
    "rate",
    "decay",
    "dropout",
    "blind",
    "hide",
    "smooth",
    "teachers",
    "find",
    "views",
    "reward",
    "freeze",
    "seed",
)
"""What a card says of how a head was trained."""


def encoder_of(name: str, student: Path | None = None, layers: Sequence[str] = ()) -> nn.Module:
    """A frozen encoder: of the hub, a folder, timm or torchvision, or the project's own student."""
    if student:
        from distill_photos import ENCODER

        own = Encoder(**ENCODER)
        own.load_state_dict(torch.load(student, weights_only=True)["encoder"])
        return own.eval()
    mobile = name == HUB or (Path(name).is_dir() and "mobilenet_v2" in (Path(name) / "config.json").read_text())
    how = {**(MOBILENET if mobile else {}), **({"layers": layers} if layers else {})}
    how["without"] = [left for left in how.get("without", ()) if left not in layers]
    return Backbone(name, weights=True, **how).eval()


def start_of(path: Path, encoder: str, device: torch.device) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """What was done before, and the head: of a run's best.pt, or of a model folder."""
    if path.is_dir():
        task = load(path, device, encoder=encoder if Path(encoder).is_dir() else None)
        return [{"start": path.name}], parts(task)["head"].state_dict()
    before = torch.load(path, map_location=device, weights_only=True)
    return before.get("recipe", []), before["head"]


def average_of(averaged: Any, current: Any, seen: Any) -> None:
    """Moves a running average of weights on by one step; of the first steps it keeps less, since they know nothing yet."""
    kept = min(DECAY, (1 + int(seen)) / (10 + int(seen)))
    torch.optim.swa_utils.get_ema_multi_avg_fn(kept)(averaged, current, seen)


def train(given: argparse.Namespace) -> None:
    device = torch.device(given.device)
    lesson = (Answers if "vqa" in given.model else Captions)(given.data, given.images, given.held, given.hide, given.smooth)
    lesson.learn_from([Path(run) for run in given.teachers], device)
    encoder = encoder_of(given.encoder, given.student, given.layers or ()).to(device)
    grids = [
        features(encoder, lesson.images, given.out.parent / f"{given.cache}-{view}.npy", view, given.device)
        for view in range(given.views)
    ]
    torch.manual_seed(given.seed)
    head, config = lesson.head(given.model, grids[0].shape[1])
    prime(head.detectors, lesson.words, lesson.held[: lesson.count])
    head.to(device)
    head.detectors.dropout.p = given.blind
    for name, part in head.named_modules():
        if type(part) is nn.Dropout and not name.startswith("detectors"):
            part.p = given.dropout
    recipe: list[dict[str, Any]] = []
    if given.start:
        recipe, begun = start_of(given.start, given.encoder, device)
        if "vqa" in given.model:  # a captioner's: its detectors are what both have
            begun = {k.removeprefix("detectors."): v for k, v in begun.items() if k.startswith("detectors.")}
            if begun["look.weight"].shape != head.detectors.look.weight.shape:
                looked, width = head.detectors.look.weight.shape[:2]
                raise SystemExit(
                    f"--start: expected a captioner of width {width} that looks for {looked} words, trained on the same photos; "
                    f"got one of width {begun['look.weight'].shape[1]} that looks for {len(begun['look.weight'])}"
                )
            head.detectors.load_state_dict({**begun, "tokens": head.detectors.tokens})
        else:
            head.load_state_dict(begun)
    if given.freeze:
        head.detectors.requires_grad_(
            False
        ).eval()  # their statistics stay, too; their dropout keeps the head from relying on few
        head.detectors.dropout.train()
    average = torch.optim.swa_utils.AveragedModel(head, multi_avg_fn=average_of, use_buffers=True)
    optimizer = torch.optim.AdamW(head.parameters(), lr=given.rate, weight_decay=given.decay, betas=(0.9, 0.98))
    step, best, spent, begin = 0, -1.0, 0.0, time.time()
    given.out.mkdir(parents=True, exist_ok=True)
    last = given.out / "last.pt"
    if last.exists():
        kept = torch.load(last, map_location=device, weights_only=True)
        for part, state in ((head, "head"), (average, "average"), (optimizer, "optimizer")):
            part.load_state_dict(kept[state])
        step, best, spent = kept["step"], kept["best"], kept["spent"]
    metadata = {
        "head": config,
        "encoder": {k: v for k, v in vars(encoder).items() if k in ("without", "layers")},
        "fit": {k: getattr(fit_of(encoder), k) for k in ("size", "mean", "std", "how")},
        **lesson.describe(),
    }
    (given.out / "about.json").write_text(json.dumps(metadata))
    each = lesson.count // given.batch
    steps, smooth = given.epochs * each, {"said": 0.0, "found": 0.0}
    while step < steps:
        order = np.random.default_rng([given.seed, step // each]).permutation(lesson.count)
        rows = np.sort(order[(step % each) * given.batch :][: given.batch])
        rng = np.random.default_rng([given.seed, 1, step])
        x = torch.from_numpy(np.array(grids[int(rng.integers(len(grids)))][rows])).to(device).float()
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, given.rate, 200)
        with autocast(device):
            spoken, found = (lesson.rewarded if given.reward else lesson.losses)(head, x, rows, rng)  # type: ignore
        optimizer.zero_grad()
        (spoken if given.reward else spoken + given.find * found).backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(head)
        step += 1
        for name, value in (("said", spoken), ("found", found)):
            smooth[name] = 0.98 * (smooth[name] or value.item()) + 0.02 * value.item()
        if step % 50 == 0:
            print(step, "of", steps, round(time.time() - begin), {k: round(v, 3) for k, v in smooth.items()}, flush=True)
        if step % (each * given.every) == 0 or step == steps:
            own = average.module.eval()
            score = lesson.validate(own, grids[0][lesson.count :]) if given.held else float(step)
            minutes = round((spent + time.time() - begin) / 60, 1)
            row = {"epoch": step // each, "minutes": minutes, **smooth, lesson.score: score}
            with (given.out / "log.csv").open("a", newline="") as file:
                csv.writer(file).writerow(row.values())
            print(json.dumps(row), flush=True)
            if score > best:
                best = score
                settings = {k: v for k, v in vars(given).items() if k in SETTINGS}
                made = [*recipe, {"epochs": step // each, "minutes": minutes, "settings": settings}]
                torch.save({"head": own.state_dict(), **row, "recipe": made}, given.out / "best.pt")
            states = {"head": head.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**states, "step": step, "best": best, "spent": spent + time.time() - begin}, given.out / "part.pt")
            (given.out / "part.pt").replace(last)
            own.train()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=HEADS)
    parser.add_argument("--data", type=Path, required=True, help="photos as Parquet, or JSON in the layout of COCO or VQA v2")
    parser.add_argument("--images", type=Path, help="the folder of the images that the JSON names")
    parser.add_argument("--encoder", default=HUB, help="hub id, folder, timm:NAME or torchvision:NAME")
    parser.add_argument("--layers", nargs="*", help="layers of the encoder to stack, early ones too: they tell where")
    parser.add_argument("--student", type=Path, help="an encoder that distill_photos.py trained, instead")
    parser.add_argument("--cache", default="features", help="what the file of the encoder's features is called")
    parser.add_argument("--views", type=int, default=6, help="the photo, its mirror image, and crops")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.03, help="weight decay")
    parser.add_argument("--dropout", type=float, default=0.4)
    parser.add_argument("--blind", type=float, default=0.3, help="share of the channels the detectors must do without")
    parser.add_argument("--hide", type=float, default=0.05, help="share of the words that are hidden from the head as it reads")
    parser.add_argument("--smooth", type=float, default=0.0, help="label smoothing: what all words share of the truth")
    parser.add_argument(
        "--teachers", nargs="*", default=[], help="runs whose heads, taken together, are half of the truth for this one"
    )
    parser.add_argument("--find", type=float, default=0.05, help="weight of the loss of finding words")
    parser.add_argument(
        "--start", type=Path, help="begin with the head of this best.pt or model folder; photo-vqa with a captioner's detectors"
    )
    parser.add_argument(
        "--reward",
        action="store_true",
        help="self-critical training of a captioner, after the usual one: `found` is then the score of what it says",
    )
    parser.add_argument("--freeze", action="store_true", help="leave the detectors as they are: a step takes half the time")
    parser.add_argument("--held", type=int, default=HELD)
    parser.add_argument("--every", type=int, default=2, help="epochs between looks at the held photos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())
