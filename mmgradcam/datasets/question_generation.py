"""Questions about photos, made from their captions and the phrases in them that name things.

Captions stand in for the ten people that VQA v2 asks: an answer is right if two captions of five give it, in these words or in
others that mean the same (`mmgradcam.datasets.answer_words`), and nothing is asked to which no answer is right.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from mmgradcam.datasets.answer_words import (
    ANIMALS,
    COLORED,
    DEEDS,
    INSIDE,
    MOUNTS,
    PEOPLE,
    PLACES,
    SHADES,
    SPORTS,
    Table,
    given,
)
from mmgradcam.datasets.records import Phrase, Question
from mmgradcam.images.pictures import Box, iou

AGREE = 0.4
"""Share of the captions that must give an answer for it to be right: two of five. VQA v2 asks for three people of ten."""
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
COUNTS = ("one", "two", "three", "many")
CROWDS = {"group", "crowd", "several", "many", "bunch", "team"}
USUAL_COLORS = {
    "animals": ["brown"] * 2 + ["black", "white"],
    "": ["red", "blue", "blue", "white", "white", "black", "green", "yellow"],
}
"""Colors offered beside the right one, about as often as they are right: else "is it blue or pink" alone would tell much."""
USUAL_DEEDS = {
    "animals": ["running"] * 4 + ["jumping"] * 2 + ["swimming", "standing", "walking", "lying down"],
    "people": ["standing", "sitting", "jumping", "riding"] * 2 + ["walking", "walking", "running", "climbing", "swimming"],
}
"""Deeds offered beside the right one."""
RIDDEN = {"riding", "skateboarding", "snowboarding", "surfing"}
"""Deeds that need something to ride."""
PLURAL = {"man": "men", "woman": "women", "child": "children", "person": "people", "foot": "feet"}
ONE = {many: one for one, many in PLURAL.items()}
MASS = {"grass", "water", "snow", "sand", "hair", "dirt", "ice"}
NAMELESS = {*SHADES, *NUMBERS, "other", "others", "another", "it", "them", "each", "something", "side", "front", "top", "back"}
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
NOUNS = {"man", "woman", "boy", "girl", "child", "person", "men", "women", "boys", "girls", "children", "people", "dog", "dogs"}
"""Subjects that a question names as captions do; it calls anybody else a person, or people."""
SMALL = 0.01
"""Share of the photo below which a thing's color can hardly be told."""


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


@dataclass(frozen=True)
class _Described:
    """Everything that is said of a photo."""

    captions: Sequence[Sequence[str]]
    objects: Sequence[_Thing]

    @cached_property
    def enough(self) -> int:
        """How many captions must agree."""
        return max(1, round(AGREE * len(self.captions)))

    def agreed(self, said: Sequence[Sequence[str]], known: Table) -> tuple[str, ...]:
        """The answers that enough of some texts, one a caption, give; the one given most first."""
        counts = Counter(answer for words in said for answer in given(words, known))
        return tuple(sorted((a for a, n in counts.items() if n >= self.enough), key=lambda a: (-counts[a], a)))

    def said(self, known: Table) -> set[str]:
        """The answers that any caption gives."""
        return {answer for words in self.captions for answer in given(words, known)}

    def noun(self, subjects: Sequence[_Thing]) -> str | None:
        """What to call the subjects of several captions; None where too few of them are there."""
        if len(subjects) < self.enough:
            return None
        noun, times = Counter(t.head for t in subjects).most_common(1)[0]
        if noun in NOUNS and times >= self.enough:
            return noun
        if not all("people" in t.phrase.types for t in subjects):
            return None
        return "people" if 2 * sum(_number(t) != 1 for t in subjects) > len(subjects) else "person"

    def boxes(self, answers: Sequence[str], known: Table, but: str = "") -> tuple[Box, ...]:
        """Of the phrases whose last word, or last two, give one of the answers, but for those of one type."""
        of = [(t, {*known.get(t.head, ()), *known.get(" ".join(t.words[-2:]), ())}) for t in self.objects]
        return _boxes(t for t, gives in of if gives & {*answers} and but not in t.phrase.types)


def questions_about(captions: Sequence[Sequence[str]], phrases: Sequence[Phrase], asked_for: Sequence[str]) -> list[Question]:
    """All questions that the captions of one photo answer; where they agree on several answers, all are right.

    | kind | as | answers |
    | --- | --- | --- |
    | there | is there a dog | yes, no |
    | who | who is in the picture | man, woman, boy, girl, child, men, women, children, people |
    | gender | is there a boy or a girl | either |
    | age | is there a child or an adult | either |
    | animal | what animal is there | dog, horse, bird, cow, sheep, cat |
    | count | how many dogs are there | one, two, three, many |
    | color | what color is the dog | 11 colors |
    | color_choice | is the shirt blue or red | either |
    | doing | what is the man doing | running, jumping, sitting, ... |
    | doing_choice | is the dog jumping or running | either |
    | riding | what is the man riding | bike, horse, skateboard, ... |
    | sport | what sport is it | soccer, surfing, ... |
    | where | where is the dog | water, snow, grass, street, indoors, ... |
    | indoors | is it indoors or outdoors | either |

    Args:
        captions: of the photo, as words.
        phrases: of the captions.
        asked_for: things whose presence may be asked for, as "dog"; those the captions do not name are absent.
    """
    objects = tuple(thing for caption in range(len(captions)) for thing in _things(captions, phrases, caption))
    photo = _Described(captions, objects)
    made = [_people(photo), _animals(photo), _colors(photo), _deeds(photo), _scene(photo), _counts(photo)]
    return [*chain(*made), *_presence(captions, objects, asked_for)]


def _things(captions: Sequence[Sequence[str]], phrases: Sequence[Phrase], caption: int) -> Iterator[_Thing]:
    words = tuple(captions[caption])
    for phrase in phrases:
        if phrase.caption == caption:
            own = tuple(w.split("-")[-1] for w in words[phrase.first : phrase.last + 1])
            if own[-1].isalpha() and own[-1] not in NAMELESS:
                yield _Thing(own, words[: phrase.first], words[phrase.last + 1 :], phrase)


def _people(photo: _Described) -> Iterator[Question]:
    """Who is there, and which of two it is where only one of them is spoken of."""
    who, said = photo.agreed(photo.captions, PEOPLE), photo.said(PEOPLE)
    if not who:
        return
    yield Question("who is in the picture", "who", who, photo.boxes(who, PEOPLE))
    for pair in (("man", "woman"), ("boy", "girl")):
        one = said & {*pair, "men", "women", "people", "children"}
        if len(one) == 1 and one <= {*pair} & {*who}:
            yield Question(f"is there a {pair[0]} or a {pair[1]}", "gender", tuple(one), photo.boxes(tuple(one), PEOPLE))
    grown, young = said & {"man", "woman", "men", "women"}, said & {"child", "children"}
    if bool(grown) != bool(young) and {*who} & (grown | young):
        boxes = photo.boxes(sorted(grown | young), PEOPLE)
        yield Question("is there a child or an adult", "age", ("child" if young else "adult",), boxes)


def _animals(photo: _Described) -> Iterator[Question]:
    if animals := photo.agreed(photo.captions, ANIMALS):
        yield Question("what animal is there", "animal", animals, photo.boxes(animals, ANIMALS))


def _colors(photo: _Described) -> Iterator[Question]:
    """Of things of which it is clear which one is meant, and that are large enough to be seen."""
    for head in dict.fromkeys(t.head for t in photo.objects if t.head in COLORED):
        same = [t for t in photo.objects if t.head == head]
        if not _plain(same):
            continue
        told = [[w for t in same if t.phrase.caption == k for w in t.words[:-1]] for k in range(len(photo.captions))]
        said = {color for words in told for color in given(words, SHADES)}
        right = photo.agreed(told, SHADES) or tuple(said if len(said) == 1 else ())
        if not right:
            continue
        boxes = same[0].phrase.boxes
        yield Question(f"what color {_be(head)} the {head}", "color", right, boxes)
        usual = USUAL_COLORS["animals" if "animals" in same[0].phrase.types else ""]
        for pair in _pairs(right[0], [c for c in usual if c not in said], head, *chain(*told)) if len(said) == 1 else ():
            yield Question(f"{_be(head)} the {head} {pair}", "color_choice", right, boxes)


def _plain(same: Sequence[_Thing]) -> bool:
    """Whether phrases box one and the same thing, and that is large enough."""
    if not all(len(t.phrase.boxes) == 1 for t in same):
        return False
    first, *more = [t.phrase.boxes[0] for t in same]
    x0, y0, x1, y1 = first
    return (x1 - x0) * (y1 - y0) >= SMALL and all(iou(first, box) > 0.4 for box in more)


def _deeds(photo: _Described) -> Iterator[Question]:
    """What those that captions begin with do, what they ride, and where they are."""
    first = [next((t for t in photo.objects if t.phrase.caption == k and t.lives), None) for k in range(len(photo.captions))]
    for kind in ("people", "animals"):
        subjects = [t for t in first if t and kind in t.phrase.types]
        noun = photo.noun(subjects)
        if noun is None:
            continue
        boxes, who = _boxes(subjects), f"{_be(noun)} the {noun}"
        told = [[t.head, *t.after] for t in subjects]
        if deeds := photo.agreed(told, DEEDS):
            yield Question(f"what {who} doing", "doing", deeds, boxes)
            others = [d for d in USUAL_DEEDS[kind] if d not in photo.said(DEEDS)]
            for pair in _pairs(deeds[0], others, noun, *chain(*told)) if deeds[0] in USUAL_DEEDS[kind] else ():
                yield Question(f"{who} {pair}", "doing_choice", deeds[:1], boxes)
        if RIDDEN & {*deeds} and (mounts := photo.agreed(told, MOUNTS)):
            ridden = photo.boxes(mounts, MOUNTS, but="people")
            yield Question(f"what {who} riding", "riding", mounts, ridden)
        if places := photo.agreed(photo.captions, PLACES):
            yield Question(f"where {who}", "where", places, photo.boxes(places, PLACES))


def _scene(photo: _Described) -> Iterator[Question]:
    """Which sport people do, and whether it is inside."""
    sports = photo.agreed(photo.captions, SPORTS)
    if sports and not photo.agreed(photo.captions, ANIMALS):
        yield Question("what sport is it", "sport", sports, photo.boxes(sports, SPORTS))
    if len(photo.said(INSIDE)) == 1 and (inside := photo.agreed(photo.captions, INSIDE)):
        yield Question("is it indoors or outdoors", "indoors", inside)


def _counts(photo: _Described) -> Iterator[Question]:
    """How many dogs or people; no caption may speak of more, and one alone is more easily said than all are told."""
    for many, kind in (("dogs", "animals"), ("people", "people")):
        living = [t for t in photo.objects if kind in t.phrase.types and (many == "people" or "dog" in ANIMALS.get(t.head, ()))]
        told = []
        for k in range(len(photo.captions)):
            each = [_number(t) for t in living if t.phrase.caption == k]
            if each and None not in each:
                told.append(min(sum(n or 0 for n in each), len(COUNTS)))
        if told:
            number, times = max(told), told.count(max(told))
            if times >= photo.enough + (number == 1):
                yield Question(f"how many {many} are there", "count", (COUNTS[number - 1],), _boxes(living))


def _number(thing: _Thing) -> int | None:
    """How many a phrase speaks of; None where it does not say."""
    if CROWDS & {*thing.words}:
        return len(COUNTS)
    number = next((NUMBERS.index(w) + 1 for w in thing.words[:-1] if w in NUMBERS), 2 if "couple" in thing.words else None)
    alone = singular(thing.head) == thing.head and thing.head not in ONE
    return number or (1 if alone else None)


def _presence(captions: Sequence[Sequence[str]], objects: Sequence[_Thing], asked_for: Sequence[str]) -> Iterator[Question]:
    said = {piece for caption in captions for word in caption for piece in (word, singular(word))}
    for word in asked_for:
        named = [t for t in objects if singular(t.head) == word]
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


def balanced(asked: Sequence[Sequence[Question]], most: float = 0.4, there: int = 3) -> list[list[Question]]:
    """Fewer questions, so that the question alone tells little of its answer.

    Of a question with two answers, as many of both are kept; of any other, no answer is right in more than the share `most` of
    its photos, or half of them if the others are too few for that; a question that always has the same answer is not kept. Of
    each photo, at most `there` questions of what is there are kept, and some more of what is not. Which are kept is drawn by a
    hash of the question and the photo's number, the same on every run.

    Args:
        asked: of each photo, its questions.
        most: share of the photos a question is asked of in which the same answer may be right.
        there: questions of presence per photo and answer.
    """
    rows: dict[str, list[tuple[float, int, Question]]] = defaultdict(list)
    for i, some in enumerate(asked):
        for one in _few(i, some, there):
            rows[one.text].append((_chance(one.text, str(i)), i, one))
    kept: set[tuple[int, str]] = set()
    for text, each in rows.items():
        drawn = sorted(each, key=lambda row: row[:2])
        kept |= {(i, text) for _, i, _ in _level(drawn, most) or _level(drawn, 0.5)}
    return [[one for one in some if (i, one.text) in kept] for i, some in enumerate(asked)]


def _level(rows: list[tuple[float, int, Question]], most: float) -> list[tuple[float, int, Question]]:
    """The rows of one question without so many of the last of them that no answer is right too often."""
    kinds = {answer for *_, one in rows for answer in one.answers}
    most = 0.5 if len(kinds) == 2 else most
    while rows:
        counts = Counter(answer for *_, one in rows for answer in one.answers)
        answer, times = counts.most_common(1)[0]
        over = times - most * len(rows)
        if over < 1e-9:
            break
        drop = math.ceil(over / (1 - most) - 1e-9)
        out = {i for _, i, one in [row for row in rows if answer in row[2].answers][-drop:]}
        rows = [row for row in rows if row[1] not in out]
    return rows


def _few(photo: int, some: Sequence[Question], there: int) -> list[Question]:
    """All but most questions of presence; more of what is absent than of what is there, since absence is balanced later."""
    presence = sorted((one for one in some if one.kind == "there"), key=lambda one: _chance("few", one.text, str(photo)))
    present = [one for one in presence if one.answers == ("yes",)][:there]
    absent = [one for one in presence if one.answers == ("no",)][: 6 * there]
    return [*(one for one in some if one.kind != "there"), *present, *absent]


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


def _boxes(objects: Iterable[_Thing]) -> tuple[Box, ...]:
    return tuple(dict.fromkeys(box for thing in objects for box in thing.phrase.boxes))


def _chance(*of: str) -> float:
    return int.from_bytes(hashlib.sha256("|".join(of).encode()).digest()[:6], "big") / 2**48


def _pairs(right: str, among: Sequence[str], *of: str) -> Iterator[str]:
    """As "blue or red" and such for up to two other answers, drawn by a hash."""
    drawn = {among[int(_chance(*of, str(k)) * len(among))] for k in range(2)} if among else set()
    for other in sorted(drawn):
        yield " or ".join(sorted([right, other]))
