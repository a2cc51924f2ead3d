"""Captioned photos as the training of photo models reads them: words, tokens, and an encoder's features kept on disk."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training import autocast

from mmgradcam.errors import InputError
from mmgradcam.images.pictures import Preprocess
from mmgradcam.tasks.nets.backbone import Backbone
from mmgradcam.tasks.vocabulary import END, PAD, START, Vocabulary, tokenize

SIDE = 224
HELD = 500
"""Photos at the end of the training set that are not trained on: weights, methods and layers are chosen on them."""
COMMON = 0.3
"""A word in more than this share of the captions says nothing of a photo, and gets no detector."""

APART = frozenset(
    [
        "in",
        "on",
        "of",
        "and",
        "with",
        "to",
        "at",
        "while",
        "through",
        "by",
        "for",
        "from",
        "his",
        "her",
        "its",
        "their",
        "as",
        "it",
        "up",
        "down",
        "into",
        "over",
        "near",
        "next",
        "that",
        "an",
        "is",
        "are",
        "a",
        "the",
        "two",
        "out",
        "off",
        "other",
        "another",
        "he",
        "she",
        "they",
        "one",
        "some",
        "there",
        "has",
        "be",
        "being",
        "very",
        "them",
        "him",
        "who",
    ]
)
"""Words that name nothing to be seen."""

Captions = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Words:
    """What a model may say, and the tokens of the words it looks for."""

    vocabulary: Vocabulary
    looked_for: list[int]


def sentences(captions: Iterable[Sequence[str]]) -> list[list[str]]:
    """Captions as tokens apart by spaces -> as the models split them."""
    return [tokenize(" ".join(caption)) for caption in captions]


def words_of(captions: Sequence[Captions], spoken: int = 5, looked: int = 12) -> Words:
    """Words met at least `spoken` times; a detector for those in at least `looked` captions and not in too many."""
    counts = Counter(word for each in captions for caption in each for word in set(caption))
    vocabulary = Vocabulary(tuple(sorted(word for word, n in counts.items() if n >= spoken)))
    most = COMMON * sum(map(len, captions))
    wanted = [word for word in vocabulary.words if looked <= counts[word] < most and word not in APART]
    if not wanted:
        raise InputError(f"expected words that {looked} captions hold and not most of them, to look for; there is none")
    return Words(vocabulary, vocabulary.encode(wanted))


def tokens_of(vocabulary: Vocabulary, captions: Sequence[Captions], longest: int = 16) -> np.ndarray[Any, Any]:
    """(photos, captions, longest + 1) tokens, from start to end, filled up; longer captions are cut."""
    most = max(map(len, captions))
    made = np.full((len(captions), most, longest + 1), PAD, np.int16)
    for i, each in enumerate(captions):
        for k in range(most):
            row = [START, *vocabulary.encode(each[k % len(each)]), END][: longest + 1]
            made[i, k, : len(row)] = row
    return made


def said_of(words: Words, captions: Sequence[Captions]) -> Tensor:
    """(photos, looked for): the share of a photo's captions that hold a word."""
    at = {words.vocabulary.words[token - 4]: i for i, token in enumerate(words.looked_for)}
    made = torch.zeros(len(captions), len(at))
    for row, each in enumerate(captions):
        for caption in each:
            for word in set(caption) & at.keys():
                made[row, at[word]] += 1 / len(each)
    return made


def fit_of(encoder: nn.Module) -> Preprocess:
    """How photos are shown to an encoder: stretched to a square, as the training photos come."""
    if isinstance(encoder, Backbone):
        return encoder.fit("stretch", (SIDE, SIDE))
    return Preprocess((128, 128), how="stretch")


def crops(rng: np.random.Generator, count: int, least: float) -> Tensor:
    """Crops as affine maps (count, 2, 3) of the square from -1 to 1, some of them mirrored; `least` of the area at least, or
    so.
    """
    scale = rng.uniform(least, 1.0, (count, 1)) ** 0.5 * np.exp(rng.uniform(-0.12, 0.12, (count, 2)))
    scale = np.minimum(scale, 1.0)
    at = rng.uniform(-1, 1, (count, 2)) * (1 - scale)
    made = np.zeros((count, 2, 3), np.float32)
    made[:, 0, 0] = scale[:, 0] * np.where(rng.random(count) < 0.5, -1, 1)
    made[:, 1, 1] = scale[:, 1]
    made[:, :, 2] = at
    return torch.from_numpy(made)


def recolour(rng: np.random.Generator, images: Tensor, by: float = 0.3) -> Tensor:
    """Other brightness, contrast and saturation; (B, 3, h, w) in 0..1."""
    bright, contrast, colour = (
        torch.from_numpy(rng.uniform(1 - by, 1 + by, (len(images), 1, 1, 1))).float().to(images.device) for _ in range(3)
    )
    images = images * bright
    images = (images - images.mean((1, 2, 3), keepdim=True)) * contrast + images.mean((1, 2, 3), keepdim=True)
    grey = images.mean(1, keepdim=True)
    return (grey + (images - grey) * colour).clamp(0, 1)


def crop(images: Tensor, where: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w), (B, 2, 3) affine maps -> (B, C, *size)."""
    grid = F.affine_grid(where, [len(images), images.shape[1], *size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def encoder_hash(encoder: nn.Module) -> str:
    """SHA-256 of an encoder's weights and of which of its layers are read."""
    digest = hashlib.sha256(repr(encoder.layers if isinstance(encoder, Backbone) else ()).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def features(encoder: nn.Module, images: Sequence[Any], path: Path, view: int, device: str = "cpu") -> np.ndarray[Any, Any]:
    """(photos, C, *grid) fp16 of one view of each photo, from `path` where they were worked out before with the same encoder.

    View 0 is the photo, view 1 its mirror image; any other is a crop, half of them mirrored, its light and colours changed a
    little, the same whenever it is asked for.
    """
    done, made_of = path.with_suffix(".done"), f"{len(images)} photos, view {view}, {encoder_hash(encoder)}"
    if done.exists() and done.read_text() == made_of:
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
    done.unlink(missing_ok=True)
    fit, kept = fit_of(encoder), None
    encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (fit.mean, fit.std))
    for at in range(0, len(images), 32):
        pictures = torch.stack([fit(image.convert("RGB")).pixels for image in images[at : at + 32]]).to(device)
        if view == 1:
            pictures = pictures.flip(-1)
        elif view:
            rng = np.random.default_rng([view, at])
            seen = crop(pictures * std + mean, crops(rng, len(pictures), 0.5).to(device), tuple(pictures.shape[-2:]))
            pictures = (recolour(rng, seen, 0.2) - mean) / std
        with autocast(device):
            made = encoder(pictures.contiguous(memory_format=torch.channels_last)).half().cpu().numpy()
        if kept is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = np.lib.format.open_memmap(path, "w+", np.float16, (len(images), *made.shape[1:]))
        kept[at : at + len(made)] = made
        if at % 1280 == 0:
            print(path.name, at, "of", len(images), flush=True)
    assert kept is not None
    kept.flush()
    done.write_text(made_of)
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
