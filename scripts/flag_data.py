"""Statements about scenes that are false, each beside the true one it was made from; truth by `mmgradcam.data.captions.judge`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mmgradcam.data.captions import Caption, captions_of, judge
from mmgradcam.data.questions import Question
from mmgradcam.data.scenes import COLORS, MATERIALS, SIZES, Scene
from mmgradcam.data.shapes import KINDS
from mmgradcam.data.words import CANONICAL, NUMBERS, OPPOSITE, RELATIONS, SINGULAR, plural

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
                near = role in ("color", "size", "material") and any(getattr(t, role) == value for t in scene.things)
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
