"""Rendered training scenes, kept on disk as plain arrays: made once, resumed where it was stopped."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from mmgradcam.scenes.captions import caption_words, make_caption
from mmgradcam.scenes.questions import ANSWERS, QUESTION_KINDS, make_question, question_words
from mmgradcam.scenes.render import render
from mmgradcam.scenes.scene import COLORS, MATERIALS, MAX_THINGS, SIZES, Scene, make_scene
from mmgradcam.scenes.shapes import KINDS
from mmgradcam.scenes.splits import seeds
from mmgradcam.scenes.words import CLEAR, offset
from mmgradcam.tasks.vocabulary import END, START, Vocabulary

SIDE = 128
CAPTIONS, CAPTION_TOKENS = 8, 32
QUESTIONS, QUESTION_TOKENS = 24, 24
RELATION_WEIGHT = 3
"""Weight of the words that say which relation holds: they come late and are few."""

CAPTION_VOCABULARY = Vocabulary(tuple(caption_words()))
QUESTION_VOCABULARY = Vocabulary(tuple(question_words()))
ATTRIBUTES = {"kind": list(KINDS), "color": list(COLORS), "size": list(SIZES), "material": list(MATERIALS)}
_KIND_CHANCE = np.array([{"count": 2, "relation": 5, "comparison": 4}.get(kind, 1) for kind in QUESTION_KINDS]) / 16
"""Chance of each kind of question: those that take longest to learn are asked more often."""
_TELLING = {"left", "right", "above", "over", "below", "under"}
_HARD = dict.fromkeys(("left", "right", "above", "below", "where", "side", "than", "same"), 4.0) | {"many": 2.0}
"""How often a question with such a word is asked for one without, while the answer heads learn alone."""
BLOCK = 1000


@dataclass
class Scenes:
    """Arrays of N scenes; text is tokens, filled up with 0.

    Attributes:
        images: (N, SIDE, SIDE, 3) uint8, mapped from disk.
        captions, weights: (N, CAPTIONS, CAPTION_TOKENS) uint8.
        questions: (N, QUESTIONS, QUESTION_TOKENS) uint8.
        answers: (N, QUESTIONS) uint8, indices into ANSWERS.
        meant: (N, QUESTIONS, 4) uint8, which objects a question speaks of by description, one and then the other, counted
            from 1; where there are two, whether the one is left (1) or right (2) of the other, and above (1) or below (2);
            0 where there is none, or the relation is not clear.
        objects: (N, MAX_THINGS, 4) uint8, kind, color, size and material of each object, counted from 1; 0 where there is none.
    """

    images: npt.NDArray[np.uint8]
    captions: npt.NDArray[np.uint8]
    weights: npt.NDArray[np.uint8]
    questions: npt.NDArray[np.uint8]
    answers: npt.NDArray[np.uint8]
    meant: npt.NDArray[np.uint8]
    objects: npt.NDArray[np.uint8]


def scenes(folder: Path, split: str, count: int) -> Scenes:
    """The first `count` scenes of a split, rendered into `folder` if they are not there yet.

    After a change of wording, delete the text-*.npz there: the pictures stay.
    """
    place = folder / f"{split}-{count}"
    place.mkdir(parents=True, exist_ok=True)
    path = place / "images.npy"
    images = np.lib.format.open_memmap(path, "r+" if path.exists() else "w+", np.uint8, (count, SIDE, SIDE, 3))
    starts = [s for s in range(0, count, BLOCK) if not (place / f"text-{s:08d}.npz").exists()]
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for i, start in enumerate(starts):
            block = seeds(split, min(BLOCK, count - start), start)
            seen = place / f"seen-{start:08d}"
            if not seen.exists():
                for j, picture in enumerate(pool.imap(_picture, block, chunksize=20)):
                    images[start + j] = picture
                images.flush()
                seen.touch()
            rows = pool.map(_text, block, chunksize=20)
            text = {name: np.stack([row[k] for row in rows]) for k, name in enumerate(_TEXT)}
            np.savez(place / "part.npz", **text)
            os.replace(place / "part.npz", place / f"text-{start:08d}.npz")
            print(f"\r{split}: {i + 1} of {len(starts)} thousand scenes", end="", file=sys.stderr, flush=True)
    if starts:
        print(file=sys.stderr)
    parts = [np.load(place / f"text-{s:08d}.npz") for s in range(0, count, BLOCK)]
    return Scenes(images, *(np.concatenate([part[name] for part in parts]) for name in _TEXT))


def hardness(questions: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(..., L) tokens of questions -> (...) their weight by `_HARD`, else 1."""
    weights = np.ones(len(QUESTION_VOCABULARY) + 1)
    for word, weight in _HARD.items():
        weights[QUESTION_VOCABULARY.encode([word])] = weight
    found: npt.NDArray[np.float64] = weights[questions].max(-1)
    return found


_TEXT = ("captions", "weights", "questions", "answers", "meant", "objects")


def _picture(seed: int) -> npt.NDArray[np.uint8]:
    return np.asarray(render(make_scene(seed), SIDE).image)


def _side(scene: Scene, pair: tuple[int, ...], names: tuple[str, str]) -> int:
    one, other = (scene.objects[i] for i in pair)
    return next((i + 1 for i, name in enumerate(names) if offset(name, one, other) >= CLEAR), 0)


def _text(seed: int) -> tuple[npt.NDArray[np.uint8], ...]:
    scene, rng = make_scene(seed), np.random.default_rng([seed, 7])
    captions = np.zeros((CAPTIONS, CAPTION_TOKENS), np.uint8)
    weights = np.zeros_like(captions)
    for row, weight in zip(captions, weights, strict=True):
        caption = make_caption(scene, rng)
        tokens = [START, *CAPTION_VOCABULARY.encode(caption.words), END]
        row[: len(tokens)] = tokens
        weight[: len(tokens)] = [1, *(RELATION_WEIGHT if w in _TELLING else 1 for w in caption.words), 1]
    questions = np.zeros((QUESTIONS, QUESTION_TOKENS), np.uint8)
    answers, meant = np.zeros(QUESTIONS, np.uint8), np.zeros((QUESTIONS, 4), np.uint8)
    for i, row in enumerate(questions):
        question = make_question(scene, rng, str(rng.choice(QUESTION_KINDS, p=_KIND_CHANCE)))
        tokens = QUESTION_VOCABULARY.encode(question.words)
        row[: len(tokens)] = tokens
        answers[i] = ANSWERS.index(question.answer)
        if question.kind not in ("exists", "count") and question.words[0] != "are":
            meant[i, : len(question.refers)] = np.array(question.refers) + 1
            if len(question.refers) == 2:
                meant[i, 2:] = [_side(scene, question.refers, names) for names in (("left", "right"), ("above", "below"))]
    objects = np.zeros((MAX_THINGS, len(ATTRIBUTES)), np.uint8)
    for row, thing in zip(objects, scene.objects, strict=False):
        row[:] = [values.index(getattr(thing, name)) + 1 for name, values in ATTRIBUTES.items()]
    return captions, weights, questions, answers, meant, objects


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/scenes/data"))
    parser.add_argument("--split", default="train", choices=["train", "validation"])
    parser.add_argument("--count", type=int, default=60_000)
    given = parser.parse_args()
    scenes(given.folder, given.split, given.count)
