"""What a flag of what is made up is fitted and measured on: statements about scenes, true and false, and a model's evidence of
each.

The truth is told by `mmgradcam.scenes.captions.judge`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmgradcam import Explanation, explain, hirescam
from mmgradcam.metrics.grounding import log_probs_of
from mmgradcam.metrics.hallucination import evidence
from mmgradcam.scenes.captions import Caption, captions_of, judge
from mmgradcam.scenes.questions import Question, questions_of
from mmgradcam.scenes.render import render
from mmgradcam.scenes.scene import COLORS, MATERIALS, SIZES, Scene, make_scene
from mmgradcam.scenes.shapes import KINDS
from mmgradcam.scenes.splits import seeds
from mmgradcam.scenes.words import CANONICAL, NUMBERS, OPPOSITE, RELATIONS, SINGULAR, plural
from mmgradcam.tasks import load

SIDES = {"left": "right", "right": "left", "above": "below", "below": "above", "over": "under", "under": "over"}
"""The word of a relation that says which, and its opposite; "to the ... of" claims nothing."""
FAMILIES: dict[str, tuple[str, ...]] = {
    "kind": tuple(KINDS),
    "color": tuple(COLORS),
    "size": tuple(SIZES),
    "material": tuple(MATERIALS),
    "count": NUMBERS[2:],
}
ROLES = (*FAMILIES, "relation")


@dataclass(frozen=True)
class Lie:
    """A true caption and the same with one word false: at `position`, of a role; `near`: the word is true of another thing."""

    true: Caption
    words: tuple[str, ...]
    position: int
    role: str
    near: bool


def lies(scenes: Iterable[Scene], seed: int) -> list[Lie | None]:
    """One false caption of each scene, the roles in as equal numbers as the scenes allow; None where a scene allows none."""
    rng, told = np.random.default_rng([seed, 0x11E]), Counter[str]()
    made = []
    for scene in scenes:
        captions = captions_of(scene, 3)
        order = sorted(ROLES, key=lambda role: (told[role], rng.random()))
        lie = next((found for role in order for c in captions if (found := falsify(scene, c, role, rng))), None)
        if lie:
            told[lie.role] += 1
        made.append(lie)
    return made


def falsify(scene: Scene, caption: Caption, role: str, rng: np.random.Generator) -> Lie | None:
    """The caption with one word of that role replaced by one that the judge calls false; None where there is none."""
    places = [i for i, r in enumerate(caption.roles) if r == role and (role != "relation" or caption.words[i] in SIDES)]
    for position in rng.permutation(places).tolist() if places else ():
        word = caption.words[position]
        base = SINGULAR.get(word_ := CANONICAL.get(word, word), word_)
        options = (SIDES[word],) if role == "relation" else tuple(v for v in FAMILIES[role] if v != base)
        for value in rng.permutation(options).tolist():
            new = plural(value) if role == "kind" and base != word_ else str(value)
            words = _article([*caption.words[:position], new, *caption.words[position + 1 :]], position)
            judged = judge(words, scene)
            if judged.roles[position] == role and not judged.refers[position]:
                near = role in ("color", "size", "material") and any(getattr(t, role) == value for t in scene.objects)
                return Lie(caption, words, position, role, near)
    return None


def _article(words: list[str], position: int) -> tuple[str, ...]:
    """The words with the article before a position that fits what follows, so that grammar gives nothing away."""
    if position and words[position - 1] in ("a", "an"):
        words[position - 1] = "an" if words[position][0] in "aeiou" else "a"
    return tuple(words)


def wrong(question: Question, rng: np.random.Generator) -> str:
    """A wrong answer of the right kind: another color where one was asked for, "no" for "yes"."""
    families = [("yes", "no"), tuple(str(n) for n in range(7)), *(FAMILIES[k] for k in ("kind", "color", "size", "material"))]
    family = next((f for f in [*families, tuple(RELATIONS)] if question.answer in f), ())
    if question.answer in OPPOSITE:
        return OPPOSITE[question.answer]
    return str(rng.choice([a for a in family if a != question.answer]))


Floats = npt.NDArray[np.float64]
ALL = ("log p", "grounding", "unsteady", "blur", "swap", "std")
"""What is collected: what the flag rests on, and what it might."""
BATCH, SIDE = 32, 128
AFTER = 320
"""Scenes of a split that lies may be made of; what models really say is collected of those after them."""


@dataclass
class Row:
    """One word or answer.

    Attributes:
        what: "lie", the word put in; "true", the one it was put in for; "other", a further word of the true caption; "after",
            a true word of the false caption behind the lie; "said", of the model's own caption or answer.
        role: of the word, or the kind of question.
    """

    what: str
    role: str
    false: bool
    near: bool
    picture: int
    x: Floats


@dataclass
class Rows:
    """Rows as columns."""

    what: npt.NDArray[np.str_]
    role: npt.NDArray[np.str_]
    false: npt.NDArray[np.bool_]
    near: npt.NDArray[np.bool_]
    picture: npt.NDArray[np.int64]
    x: Floats

    def __getitem__(self, which: npt.NDArray[np.bool_]) -> Rows:
        return Rows(*(column[which] for column in vars(self).values()))

    def __len__(self) -> int:
        return len(self.false)


def joined(parts: Sequence[Rows]) -> Rows:
    """All rows together; pictures of different parts stay different."""
    columns = [np.concatenate([vars(part)[name] for part in parts]) for name in Rows.__dataclass_fields__]
    columns[4] = np.concatenate([part.picture + 1_000_000 * i for i, part in enumerate(parts)])
    return Rows(*columns)


def kept(path: Path, make: Callable[[], Iterator[Row]]) -> Rows:
    """What was collected before, or else is collected now."""
    if not path.is_file():
        start, rows = time.time(), list(make())
        columns = {name: np.array([getattr(row, name) for row in rows]) for name in Row.__dataclass_fields__}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **columns)
        print(f"{path.name}: {len(rows)} rows in {time.time() - start:.0f} s", flush=True)
    with np.load(path) as saved:
        return Rows(*(saved[name] for name in Rows.__dataclass_fields__))


CHEAP: dict[str, Any] = {"method": hirescam, "target_layers": ()}
"""Maps that nobody looks at: their spread is collected of validation lies alone, where it turned out to tell nothing."""


def columns_of(explanations: Sequence[Explanation], others: Sequence[Any], maps: bool = False) -> list[Floats]:
    """(K, 6) of each explanation, in the order of `ALL`; the spread of maps is nan where they are not wanted."""
    made = []
    for one, x, rows in zip(explanations, evidence(explanations), log_probs_of(explanations, ["blur", *others]), strict=True):
        gains = rows[0] - rows[1:]
        extent = spread(one) if maps else np.full(len(one), np.nan)
        made.append(np.c_[x, gains[0], gains[1:].mean(0), extent])
    return made


def spread(explanation: Explanation) -> Floats:
    """(K,) entropy of each map's positive part over that of an even one: 0 is one cell, 1 all alike or nothing at all."""
    flat = explanation.maps.detach().cpu().double().flatten(1).nan_to_num(0.0).clamp(min=0).numpy()
    total = flat.sum(1, keepdims=True)
    share = np.divide(flat, total, out=np.full_like(flat, 1 / flat.shape[1]), where=total > 0)
    return np.asarray(-(share * np.log(np.where(share > 0, share, 1.0))).sum(1) / np.log(flat.shape[1]))


def batches(split: str, count: int, start: int = 0) -> Iterator[tuple[int, list[Scene], list[Any]]]:
    for at in range(0, count, BATCH):
        scenes = [make_scene(seed) for seed in seeds(split, count, start)[at : at + BATCH]]
        yield start + at, scenes, [render(scene, SIDE).image for scene in scenes]


def others() -> list[Any]:
    """Scenes that are shown in place of others."""
    return [render(make_scene(seed), SIDE).image for seed in seeds("train", 3)]


def role_of(word: str, role: str) -> str:
    """The role of a word; of a relation's words, only that which says which claims anything."""
    return "function" if role == "relation" and word not in SIDES else role


def made_to_say(name: str, split: str, count: int) -> Iterator[Row]:
    """True captions, and each with one word false."""
    task, instead = load(name, device="cpu"), others()
    told = lies((make_scene(seed) for seed in seeds(split, count)), seed=0)
    for at, scenes, pictures in batches(split, count):
        maps = split == "validation" and at < 96
        asked = [(i, lie) for i, lie in enumerate(told[at : at + BATCH]) if lie]
        for lying in (False, True):
            each = [{"caption": " ".join(lie.words if lying else lie.true.words)} for _, lie in asked]
            made = explain(task, [pictures[i] for i, _ in asked], each=each, batch=BATCH, **({} if maps else CHEAP))
            for (i, lie), one, x in zip(asked, made, columns_of(made, instead, maps), strict=True):
                judged = judge(one.labels, scenes[i])
                for k, word in enumerate(one.labels):
                    role = role_of(word, judged.roles[k])
                    true = role == "function" or bool(judged.refers[k])
                    what = ("lie" if lying else "true") if k == lie.position else "after" if lying else "other"
                    if what != "after" or (k > lie.position and true):
                        yield Row(what, role, what == "lie", lie.near, at + i, x[k])


def really_said(name: str, split: str, count: int) -> Iterator[Row]:
    """The captions the model makes, after the scenes that lies are made of."""
    task, instead = load(name, device="cpu"), others()
    for at, scenes, pictures in batches(split, count, start=AFTER):
        made = explain(task, pictures, batch=BATCH, **CHEAP)
        for i, (one, x) in enumerate(zip(made, columns_of(made, instead), strict=True)):
            judged = judge(one.labels, scenes[i])
            for k, word in enumerate(one.labels):
                role = role_of(word, judged.roles[k])
                yield Row("said", role, role != "function" and not judged.refers[k], False, at + i, x[k])


def answers(name: str, split: str, count: int) -> Iterator[Row]:
    """Right answers, wrong ones of the right kind, and those the model gives."""
    task, instead, rng = load(name, device="cpu"), others(), np.random.default_rng(0)
    for at, scenes, pictures in batches(split, count):
        asked = [questions_of(scene) for scene in scenes]
        each = [
            {
                "questions": [q.text for q in some for _ in range(3)],
                "answers": [a for q in some for a in (q.answer, wrong(q, rng), None)],
            }
            for some in asked
        ]
        made = explain(task, pictures, each=each, batch=BATCH, **CHEAP)
        for i, (one, x) in enumerate(zip(made, columns_of(made, instead), strict=True)):
            for k, label in enumerate(one.labels):
                question, what = asked[i][k // 3], ("true", "lie", "said")[k % 3]
                yield Row(what, question.kind, label != question.answer, False, at + i, x[k])


def photos(data: Path, count: int) -> Iterator[Row]:
    """Heads of the phrases people wrote of a photo, and of another photo that nobody wrote of this one."""
    from mmgradcam.datasets.photos import Photos

    task: Any = load("photo-captioner-small", device="cpu")
    all_, rng = Photos(data), np.random.default_rng(0)
    chosen = [all_[int(i)] for i in rng.permutation(len(all_))[: count + 3]]
    chosen, instead = chosen[:count], [photo.image for photo in chosen[count:]]
    for i, photo in enumerate(chosen):
        own = {word for caption in photo.captions for word in caption}
        for what, source in (("true", photo), ("lie", chosen[(i + 1) % count])):
            words = source.captions[0]
            heads = [p.last for p in source.phrases if p.caption == 0 and words[p.last] in task.vocabulary]
            heads = [k for k in dict.fromkeys(heads) if what == "true" or words[k] not in own]
            every = range(len(words)) if what == "true" and i < 80 else heads
            meant = [k for k in every if words[k] in task.vocabulary]
            if meant:
                one = explain(task, photo.image, phrases=[(words, k, k) for k in meant], **CHEAP)
                (x,) = columns_of([one], instead)
                for k, row in zip(meant, x, strict=True):
                    noun = k in heads
                    yield Row(what if noun else "other", "noun" if noun else "function", what == "lie", False, i, row)
