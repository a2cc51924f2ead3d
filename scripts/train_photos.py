"""Trains a caption head for photos over a frozen image encoder.

    python scripts/train_photos.py photo-captioner --data train.parquet
    python scripts/train_photos.py photo-captioner --data captions_train2014.json --images train2014 --encoder timm:resnet50

The head learns to say the captions and, at the same time, to find each word of them somewhere in the grid (`Detectors`). No
box is read. The encoder's features are worked out once, of each photo and of its mirror image, and kept in the folder
`--out`; training goes on from its last.pt, its curve is log.csv, the weights that did best on held photos are best.pt.
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
from photo_data import HELD, Words, features, fit_of, said_of, sentences, tokens_of, words_of
from torch import Tensor, nn

from mmgradcam.data.photos import read_captions
from mmgradcam.metrics import bleu4
from mmgradcam.tasks.captioning import Captioning
from mmgradcam.tasks.nets.backbone import Backbone
from mmgradcam.tasks.nets.encoder import Encoder
from mmgradcam.tasks.nets.evidence import EvidenceCaptioner
from mmgradcam.tasks.vocabulary import PAD, UNKNOWN

HUB = "google/mobilenet_v2_1.0_224"
HEADS: dict[str, dict[str, Any]] = {
    "photo-captioner": {"kind": "lstm", "width": 256},
    "photo-captioner-transformer": {"kind": "transformer", "width": 224, "settings": {"layers": 2, "heads": 4}},
    "photo-captioner-small": {"kind": "lstm", "width": 192},
}


def encoder_of(given: argparse.Namespace) -> nn.Module:
    """The frozen encoder: of the hub, a folder, timm or torchvision, or the project's own student."""
    if given.student:
        from distill_photos import ENCODER

        own = Encoder(**ENCODER)
        own.load_state_dict(torch.load(given.student, weights_only=True)["encoder"])
        return own.eval()
    hub = given.encoder == HUB or Path(given.encoder).is_dir()
    changed = {"model_type": "mobilenet_v2", "output_stride": 16} if hub else None
    return Backbone(given.encoder, changed, weights=True, without=["conv_1x1"] if hub else []).eval()


def head_of(name: str, words: Words, channels: int) -> EvidenceCaptioner:
    return EvidenceCaptioner(**head_config(name, words, channels))


def head_config(name: str, words: Words, channels: int) -> dict[str, Any]:
    return {**HEADS[name], "vocabulary": len(words.vocabulary), "channels": channels, "looked_for": len(words.looked_for)}


def losses(head: EvidenceCaptioner, x: Tensor, said: Tensor, read: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Of the next word, and of which words the photo's captions hold.

    Args:
        x: (B, C, *grid) features.
        said: (B, n, L) tokens.
        read: the same, with some of them hidden.
        held: (B, looked for), shares.
    """
    rows = said.flatten(0, 1)
    seen, evidence = head.look(x)
    state, spread = head.language(seen, read.flatten(0, 1)[:, :-1]), head.detectors.spread(evidence)
    logits = head.out.words(state).float()
    counts = torch.unflatten(F.softplus(head.counts(state)).float(), 0, (len(x), -1))  # (B, n, L, 1)
    logits = logits + (counts * spread[:, None, None]).flatten(0, 1)
    spoken = F.cross_entropy(logits.transpose(1, 2), rows[:, 1:], ignore_index=PAD)
    found = F.binary_cross_entropy_with_logits(evidence, held, reduction="none").sum(1).mean()
    return spoken, found


@torch.no_grad()
def captions(head: EvidenceCaptioner, words: Words, x: np.ndarray[Any, Any], beam: int) -> list[list[str]]:
    task = Captioning(nn.Identity(), head, words.vocabulary, None, longest=20, beam=beam)  # type: ignore[arg-type]
    made: list[list[str]] = []
    for at in range(0, len(x), 50):
        part = torch.from_numpy(np.array(x[at : at + 50])).float()
        made += [words.vocabulary.decode(row) for row in task.generate(part)]
    return made


def train(given: argparse.Namespace) -> None:
    photos = read_captions(given.data, given.images)
    texts = [sentences(each) for each in photos.captions]
    count = len(texts) - given.held
    words = words_of(texts[:count], given.spoken, given.looked)
    encoder = encoder_of(given)
    grids = [
        features(encoder, photos.images, given.out.parent / f"{given.cache}{'-mirrored' * mirrored}.npy", mirrored, given.device)
        for mirrored in (False, True)
    ]
    tokens, held = tokens_of(words.vocabulary, texts), said_of(words, texts)
    device = torch.device(given.device)
    torch.manual_seed(given.seed)
    head = head_of(given.model, words, grids[0].shape[1]).to(device)
    head.detectors.tokens = torch.tensor(words.looked_for, device=device)
    usual = torch.logit(held[:count].mean(0).clamp(1e-4, 0.5))
    with torch.no_grad():
        head.detectors.usual.copy_(usual)
        head.detectors.look.bias.copy_(usual)
    head.language.dropout = nn.Dropout(given.dropout) if given.model != "photo-captioner-transformer" else nn.Identity()
    average = torch.optim.swa_utils.AveragedModel(
        head, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.997), use_buffers=True
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=given.rate, weight_decay=0.01, betas=(0.9, 0.98))
    step, best, spent, begin = 0, -1.0, 0.0, time.time()
    given.out.mkdir(parents=True, exist_ok=True)
    last = given.out / "last.pt"
    if last.exists():
        kept = torch.load(last, map_location=device, weights_only=True)
        for part, state in ((head, "head"), (average, "average"), (optimizer, "optimizer")):
            part.load_state_dict(kept[state])
        step, best, spent = kept["step"], kept["best"], kept["spent"]
    each = count // given.batch
    steps, smooth = given.epochs * each, {"said": 0.0, "found": 0.0}
    while step < steps:
        rng = np.random.default_rng([given.seed, step // each])
        rows = np.sort(rng.permutation(count)[(step % each) * given.batch :][: given.batch])
        rng = np.random.default_rng([given.seed, 1, step])
        x = torch.from_numpy(np.array(grids[int(rng.random() < 0.5)][rows])).to(device).float()
        which = rng.permutation(tokens.shape[1])[: given.captions]
        said = torch.from_numpy(tokens[rows][:, which]).long().to(device)
        said = said[:, :, : int((said != PAD).sum(2).max())]
        hidden = torch.from_numpy(rng.random(tuple(said.shape)) < given.hide).to(device) & (said > UNKNOWN)
        for group in optimizer.param_groups:
            group["lr"] = given.rate * min(1.0, (step + 1) / 200) * (0.01 + 0.495 * (1 + math.cos(math.pi * step / steps)))
        with torch.autocast(device.type, torch.bfloat16):
            spoken, found = losses(head, x, said, said.masked_fill(hidden, UNKNOWN), held[rows].to(device))
        optimizer.zero_grad()
        (spoken + given.find * found).backward()
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
            made = captions(own, words, grids[0][count:], 1) if given.held else []
            score = bleu4(made, texts[count:]) if made else float(step)
            row = {"epoch": step // each, "minutes": round((spent + time.time() - begin) / 60, 1), **smooth, "bleu4": score}
            with (given.out / "log.csv").open("a", newline="") as file:
                csv.writer(file).writerow(row.values())
            print(json.dumps(row), flush=True)
            if score > best:
                best = score
                torch.save({"head": own.state_dict(), "step": step, "bleu4": score}, given.out / "best.pt")
            states = {"head": head.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**states, "step": step, "best": best, "spent": spent + time.time() - begin}, given.out / "part.pt")
            (given.out / "part.pt").replace(last)
            own.train()
    (given.out / "words.json").write_text(
        json.dumps(
            {
                "words": words.vocabulary.words,
                "looked_for": words.looked_for,
                "head": head_config(given.model, words, grids[0].shape[1]),
                "fit": {"size": fit_of(encoder).size, "mean": fit_of(encoder).mean, "std": fit_of(encoder).std},
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=HEADS)
    parser.add_argument("--data", type=Path, required=True, help="photos as Parquet, or COCO's captions as JSON")
    parser.add_argument("--images", type=Path, help="the folder of COCO's images")
    parser.add_argument("--encoder", default=HUB, help="hub id, folder, timm:NAME or torchvision:NAME")
    parser.add_argument("--student", type=Path, help="an encoder that distill_photos.py trained, instead")
    parser.add_argument("--cache", default="features", help="what the file of the encoder's features is called")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--captions", type=int, default=3, help="captions of a photo in each step")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--dropout", type=float, default=0.4)
    parser.add_argument("--hide", type=float, default=0.1, help="share of the words before that are hidden, so that the picture is looked at")
    parser.add_argument("--find", type=float, default=0.05, help="weight of the loss of finding words")
    parser.add_argument("--spoken", type=int, default=5, help="words met as often are said")
    parser.add_argument("--looked", type=int, default=12, help="words in as many captions are looked for")
    parser.add_argument("--held", type=int, default=HELD)
    parser.add_argument("--every", type=int, default=2, help="epochs between looks at the held photos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())
