"""What scene sentences are made of: nouns, adjectives, relations, and the phrases that single out objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from mmgradcam.scenes.scene import COLORS, MATERIALS, SIZES, ObjectAnnotation, Scene
from mmgradcam.scenes.shapes import KINDS

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")

SYNONYMS: dict[str, tuple[str, ...]] = {
    "large": ("big",),
    "small": ("little",),
    "metal": ("shiny",),
    "rubber": ("matte",),
    "ball": ("sphere",),
    "cube": ("block",),
    "balls": ("spheres",),
    "cubes": ("blocks",),
    "color": ("colour",),
}
"""Other words for the same thing; captions and questions use them now and then."""

RELATIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "left": (("left", "of"), ("to", "the", "left", "of")),
    "right": (("right", "of"), ("to", "the", "right", "of")),
    "above": (("above",), ("over",)),
    "below": (("below",), ("under",)),
}
"""Relations and their wordings."""

OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}

HOLDS, CLEAR = 0.06, 0.11
"""Offsets, as fractions of the picture's side: from `HOLDS` on a relation is true, from `CLEAR` on sentences state it."""

CANONICAL = {other: word for word, others in SYNONYMS.items() for other in others}


def plural(noun: str) -> str:
    """The plural of a noun.

    >>> plural("cross"), plural("ring")
    ('crosses', 'rings')
    """
    return noun + ("es" if noun.endswith("s") else "s")


SINGULAR = {plural(kind): kind for kind in (*KINDS, "thing")}


def tokenize(text: str) -> list[str]:
    """Lower-case words without punctuation.

    >>> tokenize("What colour is the BALL?")
    ['what', 'colour', 'is', 'the', 'ball']
    """
    cleaned = "".join(c if c.isalnum() else " " for c in text.lower())
    return cleaned.split()


@dataclass(frozen=True)
class Phrase:
    """A description such as "large red cube"; None leaves an attribute open."""

    kind: str | None = None
    color: str | None = None
    size: str | None = None
    material: str | None = None

    def fits(self, thing: ObjectAnnotation) -> bool:
        return all(getattr(self, f.name) in (None, getattr(thing, f.name)) for f in fields(self))

    def matches(self, scene: Scene) -> tuple[int, ...]:
        """Indices of the things the phrase fits."""
        return tuple(i for i, thing in enumerate(scene.objects) if self.fits(thing))

    def words(self, number: int = 1) -> list[tuple[str, str]]:
        """(word, role) pairs, "large red metal cube"; the noun is in the plural unless `number` is 1."""
        noun = self.kind or "thing"
        said = [(self.size, "size"), (self.color, "color"), (self.material, "material")]
        head = (noun if number == 1 else plural(noun), "kind" if self.kind else "function")
        return [(word, role) for word, role in said if word] + [head]


ATTRIBUTES = tuple(f.name for f in fields(Phrase))


def offset(relation: str, a: ObjectAnnotation, b: ObjectAnnotation) -> float:
    """How far `a` lies on the named side of `b`, as a fraction of the picture's side; negative on the other side."""
    return {"left": b.x - a.x, "right": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}[relation]


def holds(relation: str, scene: Scene, a: Sequence[int], b: Sequence[int], least: float = HOLDS) -> bool:
    """True if every thing of `a` stands in the relation to every thing of `b`."""
    return all(offset(relation, scene.objects[i], scene.objects[j]) >= least for i in a for j in b)


def describe(scene: Scene, index: int, rng: np.random.Generator, *, hide: str = "", unique: bool = False) -> Phrase | None:
    """A phrase for one thing: some of its attributes, its kind among them.

    Args:
        scene: where the thing stands.
        index: which thing.
        rng: chooses the attributes.
        hide: an attribute the phrase must not name (the one a question asks for).
        unique: add attributes until the phrase fits this thing alone.

    Returns:
        The phrase, or None if `unique` cannot be had.
    """
    thing = scene.objects[index]
    chance = {"kind": 1.0, "color": 0.85, "size": 0.5, "material": 0.35}
    allowed = [name for name in ATTRIBUTES if name != hide]
    named = {name for name in allowed if rng.random() < chance[name]}
    order = [name for name in ("color", "size", "material") if name in allowed]
    while True:
        phrase = Phrase(**{name: getattr(thing, name) for name in named})
        missing = [name for name in order if name not in named]
        if not unique or phrase.matches(scene) == (index,):
            return phrase
        if not missing:
            return None
        named.add(missing[int(rng.integers(len(missing)))])


def random_phrase(scene: Scene, rng: np.random.Generator, attributes: Sequence[str]) -> Phrase:
    """A phrase over the given attributes whose values mix what is in the scene with what is not."""
    values = {"kind": list(KINDS), "color": list(COLORS), "size": list(SIZES), "material": list(MATERIALS)}
    chosen = {}
    for name in attributes:
        present = [getattr(thing, name) for thing in scene.objects]
        chosen[name] = str(rng.choice(present if rng.random() < 0.7 else values[name]))
    return Phrase(**chosen)


def reword(words: Sequence[str], rng: np.random.Generator, chance: float = 0.12) -> tuple[str, ...]:
    """Swaps words for synonyms now and then."""
    return tuple(str(rng.choice(SYNONYMS[w])) if w in SYNONYMS and rng.random() < chance else w for w in words)
