"""Questions about photos, made from their captions and the phrases in them that name things."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmgradcam.data.records import Phrase, Question
from mmgradcam.pictures import iou

COLORS = ["red", "blue", "green", "yellow", "white", "black", "brown", "orange", "pink", "purple", "gray", "tan", "blond"]
SAME = {"grey": "gray", "blonde": "blond", "golden": "tan", "silver": "gray", "maroon": "red"}
NUMBERS = ["one", "two", "three", "four", "five"]
BETWEEN = {"is", "are", "a", "an", "the", "and", "his", "her", "their", "its", "while", "who", "that", "some"}
NO_DEED = frozenset(
    [
        "wearing",
        "holding",
        "riding",
        "carrying",
        "being",
        "having",
        "including",
        "using",
        "going",
        "doing",
        "following",
        "something",
        "everything",
        "wedding",
        "building",
        "clothing",
        "evening",
        "morning",
        "ceiling",
        "railing",
        "string",
        "ring",
        "king",
        "spring",
        "painting",
        "during",
        "sling",
    ]
)
PLACES = {"in", "on", "through", "across", "at", "into", "down", "along", "near", "by", "over"}
PLURAL = {"man": "men", "woman": "women", "child": "children", "person": "people", "foot": "feet"}
ONE = {many: one for one, many in PLURAL.items()}
MASS = {"grass", "water", "snow", "sand", "hair", "dirt", "ice"}
NAMELESS = {*COLORS, *NUMBERS, "other", "others", "another", "it", "them", "each", "something", "side", "front", "top", "back"}
"""Phrases that end so name a thing by what it is like."""
GROUPS = (
    {"man", "guy", "male", "person", "people", "men", "adult"},
    {"woman", "lady", "female", "person", "people", "women", "adult"},
    {"boy", "child", "kid", "person", "people", "toddler", "children", "kids", "boys"},
    {"girl", "child", "kid", "person", "people", "toddler", "children", "kids", "girls"},
    {"dog", "puppy", "animal"},
    {"bike", "bicycle", "motorcycle", "motorbike"},
    {"shirt", "top", "jersey", "t"},
    {"water", "ocean", "lake", "pool", "river", "sea", "wave"},
    {"street", "road", "sidewalk"},
    {"grass", "field", "lawn", "yard"},
    {"hat", "cap", "helmet"},
    {"jacket", "coat", "shirt"},
    {"car", "truck", "vehicle"},
    {"mountain", "rock", "cliff", "hill"},
)
"""Words that may name the same thing: where one was said, it is not asked whether there is another."""


@dataclass(frozen=True)
class _Thing:
    """A phrase in its caption."""

    words: tuple[str, ...]
    before: tuple[str, ...]
    """The words of the caption before it."""
    after: tuple[str, ...]
    phrase: Phrase

    @property
    def head(self) -> str:
        return self.words[-1]

    @property
    def lives(self) -> bool:
        return bool({"people", "animals"} & set(self.phrase.types))


def questions_about(captions: Sequence[Sequence[str]], phrases: Sequence[Phrase], asked_for: Sequence[str]) -> list[Question]:
    """All questions that the captions of one photo answer.

    Their kinds are there, color, is_color, count, wearing, holding, riding, doing, is_doing and where; where the captions say
    several things, several answers are right.

    Args:
        captions: of the photo, as words.
        phrases: of the captions.
        asked_for: things whose presence may be asked for, as "dog"; those the captions do not name are absent.
    """
    things = [thing for caption in range(len(captions)) for thing in _things(captions, phrases, caption)]
    found = [*_open(things), *_counts(captions, things), *_presence(captions, things, asked_for)]
    merged: dict[tuple[str, str], list[Question]] = defaultdict(list)
    for one in found:
        merged[one.text, one.kind].append(one)
    made = []
    for (text, kind), same in merged.items():
        counts = Counter(answer for one in same for answer in one.answers)
        answers = tuple(sorted(counts, key=lambda a: (-counts[a], a)))
        boxes = tuple(dict.fromkeys(box for one in same for box in one.boxes))
        if not (kind in ("there", "is_color", "is_doing", "count") and len(answers) > 1):
            made.append(Question(text, kind, answers, boxes))
    return made


def _things(captions: Sequence[Sequence[str]], phrases: Sequence[Phrase], caption: int) -> Iterator[_Thing]:
    words = tuple(captions[caption])
    for phrase in phrases:
        if phrase.caption == caption:
            own = tuple(SAME.get(w, w).split("-")[-1] for w in words[phrase.first : phrase.last + 1])
            if own[-1].isalpha() and own[-1] not in NAMELESS:
                yield _Thing(own, words[: phrase.first], words[phrase.last + 1 :], phrase)


def _open(things: Sequence[_Thing]) -> Iterator[Question]:
    """What color, wearing, holding, riding, doing and where, with whether it is that color and doing that."""
    said = {word for thing in things for word in (*thing.before, *thing.words, *thing.after)}
    colors: dict[str, set[str]] = defaultdict(set)
    for thing in things:
        colors[thing.head].update(set(thing.words[:-1]) & set(COLORS))
    for thing in things:
        boxes, head = thing.phrase.boxes, thing.head
        own = [word for word in thing.words[:-1] if word in COLORS]
        if len(own) == 1 and "people" not in thing.phrase.types and _plain(thing, things):
            yield Question(f"what color {_be(head)} the {head}", "color", (own[0],), boxes)
            yield Question(f"{_be(head)} the {head} {own[0]}", "is_color", ("yes",), boxes)
            other = _pick([c for c in COLORS[:9] if c not in colors[head]], head, *own, *thing.before)
            if len(colors[head]) == 1 and other:
                yield Question(f"{_be(head)} the {head} {other}", "is_color", ("no",), boxes)
        subject = next((t for t in things if t.phrase.caption == thing.phrase.caption and t.lives), None)
        if subject is None:
            continue
        who, gap = subject.head, thing.before[-3:]
        if subject is not thing:
            last = next((w for w in reversed(gap) if w not in BETWEEN), "")
            for verb in ("wearing", "holding", "riding"):
                if last == verb or (verb == "holding" and last == "carrying"):
                    yield Question(f"what {_be(who)} the {who} {verb}", verb, (head,), boxes)
            if last == "in" and "clothing" in thing.phrase.types:
                yield Question(f"what {_be(who)} the {who} wearing", "wearing", (head,), boxes)
            if "scene" in thing.phrase.types and last in PLACES:
                yield Question(f"where {_be(who)} the {who}", "where", (head,), boxes)
        else:
            deed = next((w for w in thing.after[:3] if w not in ("is", "are", "and", "who")), "")
            if deed.endswith("ing") and deed not in NO_DEED:
                yield Question(f"what {_be(who)} the {who} doing", "doing", (deed,), boxes)
                yield Question(f"{_be(who)} the {who} {deed}", "is_doing", ("yes",), boxes)
                other = _pick([d for d in DEEDS if d not in said], who, deed, *thing.after)
                if other:
                    yield Question(f"{_be(who)} the {who} {other}", "is_doing", ("no",), boxes)


DEEDS = (
    "running", "jumping", "sitting", "standing", "walking", "playing", "swimming", "climbing", "sleeping", "riding",
    "skateboarding", "dancing", "eating",
)  # fmt: skip


SMALL = 0.01
"""Share of the photo below which a thing's color can hardly be told."""


def _plain(thing: _Thing, things: Sequence[_Thing]) -> bool:
    """Whether it is clear which one is meant, and large enough to be seen: all phrases that end so name one and the same."""
    boxes = thing.phrase.boxes
    same = [other.phrase.boxes for other in things if other.head == thing.head]
    large = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) >= SMALL
    return large and len(boxes) == 1 and all(len(other) == 1 and iou(boxes[0], other[0]) > 0.4 for other in same)


def _counts(captions: Sequence[Sequence[str]], things: Sequence[_Thing]) -> Iterator[Question]:
    said = {word for caption in captions for word in caption}
    vague = said & {"another", "other", "others", "group", "several", "many", "crowd", "both", "team", "couple", "few"}
    heads = Counter(thing.head for thing in things if thing.lives)
    for thing in things:
        number = next((word for word in thing.words[:-1] if word in NUMBERS), None)
        if number and number != "one" and thing.lives:
            yield Question(f"how many {thing.head} are there", "count", (number,), thing.phrase.boxes)
    for head, n in heads.items():
        many = PLURAL.get(head, head + "s")
        alone = not vague and many not in said and not said & set(NUMBERS[1:])
        if alone and n >= 3 and not head.endswith("s") and head not in ("people", "men", "women", "children"):
            boxes = tuple(b for t in things if t.head == head for b in t.phrase.boxes)
            yield Question(f"how many {many} are there", "count", ("one",), boxes)


def _presence(captions: Sequence[Sequence[str]], things: Sequence[_Thing], asked_for: Sequence[str]) -> Iterator[Question]:
    said = {piece for caption in captions for word in caption for piece in (word, singular(word))}
    for word in asked_for:
        named = [t for t in things if singular(t.head) == word]
        if len({t.phrase.caption for t in named}) >= 2:
            boxes = tuple(b for t in named for b in t.phrase.boxes)
            yield Question(f"is there {_article(word)}{word}", "there", ("yes",), boxes)
        elif word not in said and not any(word in group and group & said for group in GROUPS):
            yield Question(f"is there {_article(word)}{word}", "there", ("no",))


def askable(texts: Sequence[tuple[Sequence[Sequence[str]], Sequence[Phrase]]], count: int = 100) -> list[str]:
    """The things named by most phrases, in the singular, the most frequent first.

    Args:
        texts: captions and phrases of each photo.
        count: how many.
    """
    heads = Counter(
        singular(t.head) for captions, phrases in texts for k in range(len(captions)) for t in _things(captions, phrases, k)
    )
    return [head for head, _ in heads.most_common(count) if len(head) > 2]


def balanced(asked: Sequence[Sequence[Question]], most: float = 0.3, there: int = 3) -> list[list[Question]]:
    """Fewer questions, so that the question alone tells little of its answer.

    Of each question that is answered by yes or no, as many of both are kept; of any other, no answer is kept in much more than
    the share `most` of its photos; of each photo, at most `there` questions of what is there, and as many of what is not.
    Which are kept is drawn by a hash of the question and the photo's number, the same on every run.

    Args:
        asked: of each photo, its questions.
        most: share of the photos a question is asked of that may have the same likeliest answer.
        there: questions of presence per photo and answer.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    kept = [_few(i, some, there) for i, some in enumerate(asked)]
    for some in kept:
        for one in some:
            counts[one.text][one.answers[0]] += 1
    limits = {text: _limit(count, most) for text, count in counts.items()}

    def wanted(photo: int, one: Question) -> bool:
        limit = limits[one.text]
        return _chance(one.text, str(photo)) < limit / counts[one.text][one.answers[0]]

    return [[one for one in some if wanted(i, one)] for i, some in enumerate(kept)]


def _few(photo: int, some: Sequence[Question], there: int) -> list[Question]:
    """All but most questions of presence; more of what is absent than of what is there, since absence is balanced later."""
    presence = sorted((one for one in some if one.kind == "there"), key=lambda one: _chance("few", one.text, str(photo)))
    present = [one for one in presence if one.answers == ("yes",)][:there]
    absent = [one for one in presence if one.answers == ("no",)][: 6 * there]
    return [*(one for one in some if one.kind != "there"), *present, *absent]


def _limit(count: Counter[str], most: float) -> float:
    """How often an answer may be kept."""
    if set(count) <= {"yes", "no"}:
        return min(count["yes"], count["no"])
    ranked = sorted(count.values(), reverse=True)
    rest = sum(ranked[1:])
    return max(1.0, rest * most / (1 - most) if most < 1 else ranked[0])


PAIRS = {"sunglasses", "jeans", "shorts", "pants", "goggles", "glasses", "gloves", "stairs", "clothes"}
"""Plurals without a singular."""


def singular(noun: str) -> str:
    """A noun's singular, near enough to tell whether two are the same.

    >>> singular("dogs"), singular("women"), singular("grass"), singular("jeans")
    ('dog', 'woman', 'grass', 'jeans')
    """
    if noun in PAIRS:
        return noun
    if noun in ONE:
        return ONE[noun]
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("ches", "shes", "xes", "sses")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and not noun.endswith(("ss", "us")) and len(noun) > 3 else noun


def _be(who: str) -> str:
    return "are" if who in PAIRS or who in PLURAL.values() or (who.endswith("s") and not who.endswith("ss")) else "is"


def _article(word: str) -> str:
    return "" if word in MASS | PAIRS else "an " if word[0] in "aeiou" else "a "


def _chance(*of: str) -> float:
    return int.from_bytes(hashlib.sha256("|".join(of).encode()).digest()[:6], "big") / 2**48


def _pick(among: Sequence[str], *of: str) -> str | None:
    return among[int(_chance(*of) * len(among))] if among else None
