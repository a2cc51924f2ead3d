"""Captions of scenes: sentences whose every word knows the objects it speaks of, and a judge of what a caption claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmgradcam.scenes.scene import COLORS, MATERIALS, SIZES, Scene
from mmgradcam.scenes.shapes import KINDS
from mmgradcam.scenes.words import (
    CANONICAL,
    CLEAR,
    NUMBERS,
    RELATIONS,
    SINGULAR,
    SYNONYMS,
    Phrase,
    describe,
    holds,
    offset,
    plural,
    reword,
    tokenize,
)

OPENINGS: tuple[tuple[str, ...], ...] = ((), ("there", "is"), ("we", "see"), ("a", "picture", "of"))


@dataclass(frozen=True)
class Caption:
    """A caption with its truth.

    Attributes:
        words: the sentence's words.
        refers: for each word, the indices of the things it speaks of (none for function words).
        roles: for each word, "kind", "color", "size", "material", "count", "relation" or "function".
    """

    words: tuple[str, ...]
    refers: tuple[tuple[int, ...], ...]
    roles: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def make_caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """A true caption in one of many wordings; "a" is said only of what is unique, a number only if it is exact.

    >>> from mmgradcam.scenes.scene import make_scene
    >>> make_caption(make_scene(5), np.random.default_rng(0)).text
    'a picture of a medium blue cylinder'
    """
    first = _noun_phrase(scene, rng, ())
    opening = OPENINGS[int(rng.choice(len(OPENINGS), p=(0.55, 0.25, 0.1, 0.1)))]
    if opening == ("there", "is") and len(first[2]) > 1:
        opening = ("there", "are")
    parts: Parts = [(word, "function", ()) for word in opening]
    parts += _spoken(*first)
    second = _noun_phrase(scene, rng, first[2])
    if second[2]:
        link = _relation(scene, rng, first[2], second[2]) if rng.random() < 0.85 else []
        parts += [*(link or [_AND]), *_spoken(*second)]
        third = _noun_phrase(scene, rng, first[2] + second[2])
        again = _relation(scene, rng, first[2], third[2]) if link and third[2] and rng.random() < 0.25 else []
        if again:
            parts += [_AND, *again, *_spoken(*third)]
    words, roles, refers = zip(*parts, strict=True)
    return Caption(reword(words, rng), refers, roles)


def captions_of(scene: Scene, count: int) -> list[Caption]:
    """The scene's own captions, `count` of them; always the same."""
    rng = np.random.default_rng([scene.seed, 0xCA])
    return [make_caption(scene, rng) for _ in range(count)]


CaptionSpan = tuple[Phrase, int, tuple[int, ...]]
Parts = list[tuple[str, str, tuple[int, ...]]]
_AND = ("and", "function", ())


def _noun_phrase(scene: Scene, rng: np.random.Generator, taken: Sequence[int]) -> CaptionSpan:
    """A phrase for things not spoken of yet, their number, and their indices (empty if there is none).

    People mention what strikes them first: the largest things, of equals the one further left. That is a rule without
    exception here: where any of several things might come next, a word rests on the rivals of its thing, too.
    """
    free = [i for i in range(len(scene.objects)) if i not in taken]
    free.sort(key=lambda i: (-SIZES[scene.objects[i].size], scene.objects[i].x))
    for index in free:
        phrase = describe(scene, index, rng, unique=rng.random() < 0.5) or describe(scene, index, rng)
        assert phrase is not None
        matches = phrase.matches(scene)
        if not set(matches) & set(taken):
            return phrase, len(matches), matches
    return Phrase(), 0, ()


def _spoken(phrase: Phrase, number: int, refers: tuple[int, ...]) -> Parts:
    article = ("a", "function", ()) if number == 1 else (NUMBERS[number], "count", refers)
    spoken: Parts = [article]
    spoken += [(word, role, refers) for word, role in phrase.words(number)]
    if number == 1 and spoken[1][0][0] in "aeiou":
        spoken[0] = ("an", "function", ())
    return spoken


def _relation(scene: Scene, rng: np.random.Generator, a: tuple[int, ...], b: tuple[int, ...]) -> Parts:
    """The wording of a relation that clearly holds, mostly along the longer axis; empty if none does."""
    true = [name for name in RELATIONS if holds(name, scene, a, b, CLEAR)]
    true.sort(key=lambda name: -min(offset(name, scene.objects[i], scene.objects[j]) for i in a for j in b))
    if not true:
        return []
    wordings = RELATIONS[true[0 if rng.random() < 0.8 else -1]]
    wording = wordings[0 if rng.random() < 0.75 else 1]
    return [(word, "relation", a + b) for word in wording]


@dataclass(frozen=True)
class Claim:
    """One statement a caption makes.

    Attributes:
        role: "kind", "color", "size", "material", "count", "relation", or "unread" where it is none of them.
        text: what is said.
        true: whether it holds.
        word: number of the word that says it, of several the first.
    """

    role: str
    text: str
    true: bool
    word: int


Options = tuple[tuple[int, ...], ...]
"""What a phrase may refer to: any one of the fitting things for "a", all of them together for a number."""


@dataclass
class Judgement:
    """What a caption claims of a scene, and for each of its words the things it rightly speaks of."""

    claims: list[Claim] = field(default_factory=list)
    refers: list[tuple[int, ...]] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)


_ROLE = (
    dict.fromkeys(COLORS, "color")
    | dict.fromkeys(SIZES, "size")
    | dict.fromkeys(MATERIALS, "material")
    | dict.fromkeys(KINDS, "kind")
)


def judge(words: Sequence[str] | str, scene: Scene) -> Judgement:
    """Checks every statement of a caption against the scene.

    An attribute is true if some thing of the named kind has it together with most of the other named attributes; if no
    thing of that kind is there, all attributes of the phrase count as false. "two green rings" is a true count if exactly
    two things fit. A relation is true if it holds between all things of two counted phrases, or some thing that fits, for
    "a"; it is said of the phrase before it, or after "and" of the caption's first. What cannot be read as a phrase or
    relation counts as one false claim.

    Args:
        words: the caption, as words or text.
        scene: what it is said of.

    Returns:
        The claims in order; `refers` and `roles` for each word. A word of a phrase refers to the things the phrase fits,
        or else to those of its kind that fit best; a word whose own claim is false refers to nothing.
    """
    tokens = [CANONICAL.get(w, w) for w in (tokenize(words) if isinstance(words, str) else words)]
    result = Judgement([], [() for _ in tokens], ["function"] * len(tokens))
    head: Options | None = None
    last: Options = ()
    pending: tuple[str, list[int], Options] | None = None
    at = _opening(tokens)
    while at < len(tokens):
        relation, span = _read_relation(tokens, at)
        if relation:
            subject = (head or ()) if tokens[at - 1] == "and" else last
            pending = (relation, list(range(at, at + span)), subject)
            at += span
        elif tokens[at] == "and":
            at += 1
        elif tokens[at] in ("a", "an") or tokens[at] in NUMBERS:
            at, last = _judge_phrase(tokens, at, scene, result)
            head = last if head is None else head
            if pending:
                _judge_relation(*pending, last, scene, result)
                pending = None
        else:
            result.claims.append(Claim("unread", tokens[at], False, at))
            at += 1
    if pending:
        result.claims.append(Claim("relation", pending[0], False, pending[1][0]))
    return result


def _opening(tokens: Sequence[str]) -> int:
    for opening in (*OPENINGS, ("there", "are")):
        if opening and tuple(tokens[: len(opening)]) == opening:
            return len(opening)
    return 0


def _read_relation(tokens: Sequence[str], at: int) -> tuple[str, int]:
    for name, wordings in RELATIONS.items():
        for wording in wordings:
            if tuple(tokens[at : at + len(wording)]) == wording:
                return name, len(wording)
    return "", 0


def _judge_phrase(tokens: Sequence[str], at: int, scene: Scene, result: Judgement) -> tuple[int, Options]:
    """Reads "two large red rings" from `at`, adds its claims; returns where it ends and what it may refer to."""
    start = at
    named: dict[str, tuple[str, int]] = {}
    at += 1
    while at < len(tokens):
        word = SINGULAR.get(tokens[at], tokens[at])
        role = _ROLE.get(word)
        if role is None or role in named:
            break
        named[role] = (word, at)
        at += 1
        if role == "kind":
            break
    text = " ".join(tokens[start:at])
    if "kind" not in named:
        result.claims.append(Claim("unread", text, False, start))
        return at, ()
    values = {role: word for role, (word, _) in named.items()}
    objects = _best(Phrase(**values), scene)
    fits = Phrase(**values).matches(scene)
    for role, (word, position) in named.items():
        true = bool(objects) and all(getattr(scene.objects[i], role) == word for i in objects)
        result.claims.append(Claim(role, text, true, position))
        result.roles[position] = role
        result.refers[position] = objects if true else ()
    if tokens[start] in NUMBERS:
        true = len(fits) == NUMBERS.index(tokens[start])
        result.claims.append(Claim("count", text, true, start))
        result.roles[start] = "count"
        result.refers[start] = fits if true else ()
        return at, (objects,) if objects else ()
    return at, tuple((i,) for i in objects)


def _best(phrase: Phrase, scene: Scene) -> tuple[int, ...]:
    """The things the phrase fits, or else those of its kind that fit most of it."""
    points = {
        i: sum(getattr(phrase, name) == getattr(thing, name) for name in ("color", "size", "material"))
        for i, thing in enumerate(scene.objects)
        if thing.kind == phrase.kind
    }
    top = max(points.values(), default=0)
    fits = phrase.matches(scene)
    return fits or tuple(i for i, p in points.items() if p == top)[:1]


def _judge_relation(name: str, positions: list[int], subject: Options, other: Options, scene: Scene, result: Judgement) -> None:
    found = next((a + b for a in subject for b in other if not set(a) & set(b) and holds(name, scene, a, b)), ())
    result.claims.append(Claim("relation", name, bool(found), positions[0]))
    for position in positions:
        result.roles[position] = "relation"
        result.refers[position] = found


def caption_words() -> list[str]:
    """Every word a caption may hold, sorted."""
    base = {*NUMBERS[2:], *COLORS, *SIZES, *MATERIALS, "a", "an", "and", "are"}
    base |= {w for kind in KINDS for w in (kind, plural(kind))}
    base |= {w for opening in OPENINGS for w in opening} | {w for ws in RELATIONS.values() for ww in ws for w in ww}
    return sorted(base | {s for w in base for s in SYNONYMS.get(w, ())})
