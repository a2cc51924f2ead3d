"""Questions about scenes, with their answers and the objects each answer rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmgradcam.scenes.scene import COLORS, MATERIALS, MAX_THINGS, SIZES, Scene
from mmgradcam.scenes.shapes import KINDS
from mmgradcam.scenes.words import (
    ATTRIBUTES,
    CLEAR,
    OPPOSITE,
    RELATIONS,
    SYNONYMS,
    Phrase,
    describe,
    holds,
    offset,
    plural,
    random_phrase,
    reword,
)

ANSWERS: tuple[str, ...] = (
    "yes", "no", *(str(n) for n in range(MAX_THINGS + 1)), *COLORS, *KINDS, *SIZES, *MATERIALS, *RELATIONS
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question with its truth.

    Attributes:
        kind: one of `QUESTION_KINDS`.
        words: the question's words.
        answer: one of `ANSWERS`.
        refers: indices of the things the answer rests on (none where it rests on an absence).
    """

    kind: str
    words: tuple[str, ...]
    answer: str
    refers: tuple[int, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words) + "?"


def make_question(scene: Scene, rng: np.random.Generator, kind: str | None = None) -> Question:
    """A question of the given kind, or of a random one among those the scene allows.

    >>> from mmgradcam.scenes.scene import make_scene
    >>> question = make_question(make_scene(5), np.random.default_rng(0), "color")
    >>> question.text, question.answer
    ('what color is the medium rubber cylinder?', 'blue')
    """
    if kind is not None and kind not in QUESTION_KINDS:
        raise ValueError(f"make_question: expected a kind among {', '.join(QUESTION_KINDS)}, got {kind!r}")
    kinds = [kind] if kind else [str(k) for k in rng.permutation(list(QUESTION_KINDS))]
    for name in [*kinds, "exists"]:
        made = _MAKERS[name](scene, rng)
        if made:
            words, answer, refers = made
            return Question(name, reword(words, rng), answer, refers)
    raise AssertionError("a question about existence can always be asked")


def questions_of(scene: Scene) -> list[Question]:
    """The scene's own questions, one of each kind it allows; always the same."""
    rng = np.random.default_rng([scene.seed, 0xA5])
    return [made for kind in QUESTION_KINDS if (made := make_question(scene, rng, kind)).kind == kind]


Made = tuple[list[str], str, tuple[int, ...]] | None


def _said(phrase: Phrase, number: int = 1) -> list[str]:
    return [word for word, _ in phrase.words(number)]


def _some(rng: np.random.Generator, options: list[list[str]]) -> list[str]:
    return options[int(rng.integers(len(options)))]


def _a(words: list[str]) -> list[str]:
    return ["an" if words[0][0] in "aeiou" else "a", *words]


def _exists(scene: Scene, rng: np.random.Generator) -> Made:
    wanted = rng.random() < 0.5
    phrase = Phrase()
    for _ in range(30):
        phrase = _random(scene, rng, chance=0.5)
        if bool(phrase.matches(scene)) == wanted:
            break
    matches = phrase.matches(scene)
    words = _some(rng, [["is", "there", *_a(_said(phrase))], ["are", "there", "any", *_said(phrase, 2)]])
    return words, "yes" if matches else "no", matches


def _random(scene: Scene, rng: np.random.Generator, chance: float) -> Phrase:
    names = [name for name in ATTRIBUTES if rng.random() < (0.7 if name == "kind" else chance)]
    return random_phrase(scene, rng, names or ["kind"])


def _count(scene: Scene, rng: np.random.Generator) -> Made:
    wanted = int(rng.integers(0, MAX_THINGS + 1))
    best = Phrase(kind="ball")
    for _ in range(12):
        names = [name for name in ATTRIBUTES if rng.random() < 0.4]
        phrase = random_phrase(scene, rng, names)
        if abs(len(phrase.matches(scene)) - wanted) < abs(len(best.matches(scene)) - wanted):
            best = phrase
    matches = best.matches(scene)
    words = ["how", "many", *_said(best, 2), *_some(rng, [["are", "there"], ["do", "we", "see"]])]
    return words, str(len(matches)), matches


def _asking(attribute: str, wordings: list[list[str]]) -> Callable[[Scene, np.random.Generator], Made]:
    """A maker of "what color is the ...": the phrase stands where the wording holds a "*"."""

    def make(scene: Scene, rng: np.random.Generator) -> Made:
        index = int(rng.integers(len(scene.objects)))
        phrase = describe(scene, index, rng, hide=attribute, unique=True)
        if phrase is None:
            return None
        words = [w for part in _some(rng, wordings) for w in (_said(phrase) if part == "*" else [part])]
        return words, str(getattr(scene.objects[index], attribute)), (index,)

    return make


def _relation(scene: Scene, rng: np.random.Generator) -> Made:
    return _first(scene, rng, {_stands: 0.4, _where: 0.35, _which: 0.25}) if len(scene.objects) > 1 else None


def _first(scene: Scene, rng: np.random.Generator, makers: dict[Callable[[Scene, np.random.Generator], Made], float]) -> Made:
    """What the first of these makers makes that can, tried in an order drawn by their chances."""
    order = rng.choice(len(makers), len(makers), replace=False, p=list(makers.values()))
    return next((made for k in order for _ in range(3) if (made := list(makers)[k](scene, rng))), None)


def _stands(scene: Scene, rng: np.random.Generator) -> Made:
    """Asks whether one thing stands in a relation to another."""
    i, j = (int(k) for k in rng.choice(len(scene.objects), 2, replace=False))
    a, b = describe(scene, i, rng, unique=True), describe(scene, j, rng, unique=True)
    true = [name for name in RELATIONS if holds(name, scene, (i,), (j,), CLEAR)]
    if a is None or b is None or not true:
        return None
    name, yes = true[int(rng.integers(len(true)))], rng.random() < 0.5
    wording = RELATIONS[name if yes else OPPOSITE[name]][0]
    return ["is", "the", *_said(a), *wording, "the", *_said(b)], "yes" if yes else "no", (i, j)


def _where(scene: Scene, rng: np.random.Generator) -> Made:
    """Asks on which side of one thing another stands, where one side is plainly nearer the truth than the others."""
    i, j = (int(k) for k in rng.choice(len(scene.objects), 2, replace=False))
    a, b = describe(scene, i, rng, unique=True), describe(scene, j, rng, unique=True)
    far = {name: offset(name, scene.objects[i], scene.objects[j]) for name in RELATIONS}
    first, second = sorted(far, key=lambda name: -far[name])[:2]
    if a is None or b is None or far[first] < max(CLEAR, 1.5 * far[second]):
        return None
    seen = ["where", "is", "the", *_said(a), "seen", "from", "the", *_said(b)]
    side = ["on", "which", "side", "of", "the", *_said(b), "is", "the", *_said(a)]
    return _some(rng, [seen, side]), first, (i, j)


def _which(scene: Scene, rng: np.random.Generator) -> Made:
    """Asks "what color is the thing left of the red ball" where exactly one thing is, and clearly so."""
    j, name = int(rng.integers(len(scene.objects))), str(rng.choice(list(RELATIONS)))
    there = [i for i in range(len(scene.objects)) if i != j and holds(name, scene, (i,), (j,))]
    anchor = describe(scene, j, rng, unique=True)
    if anchor is None or len(there) != 1 or not holds(name, scene, there, (j,), CLEAR):
        return None
    asked, attribute = [("color", "color"), ("shape", "kind"), ("material", "material"), ("size", "size")][rng.integers(4)]
    words = ["what", asked, "is", "the", "thing", *RELATIONS[name][0], "the", *_said(anchor)]
    return words, str(getattr(scene.objects[there[0]], attribute)), (there[0], j)


def _comparison(scene: Scene, rng: np.random.Generator) -> Made:
    return _first(scene, rng, {_more: 0.33, _larger: 0.33, _same: 0.34})


def _more(scene: Scene, rng: np.random.Generator) -> Made:
    wanted, made = rng.random() < 0.5, None
    for _ in range(12):
        name = str(rng.choice(["kind", "color", "material", "size"], p=(0.45, 0.35, 0.1, 0.1)))
        a, b = random_phrase(scene, rng, [name]), random_phrase(scene, rng, [name])
        if a == b:
            continue
        m, n = a.matches(scene), b.matches(scene)
        more = rng.random() < 0.6
        true = len(m) > len(n) if more else len(m) < len(n)
        words = ["are", "there", "more" if more else "fewer", *_said(a, 2), "than", *_said(b, 2)]
        made = words, "yes" if true else "no", m + n
        if true == wanted:
            break
    return made


def _pair(scene: Scene, rng: np.random.Generator, hide: str) -> tuple[int, int, Phrase, Phrase] | None:
    if len(scene.objects) < 2:
        return None
    i, j = (int(k) for k in rng.choice(len(scene.objects), 2, replace=False))
    a = describe(scene, i, rng, hide=hide, unique=True)
    b = describe(scene, j, rng, hide=hide, unique=True)
    return (i, j, a, b) if a and b else None


def _larger(scene: Scene, rng: np.random.Generator) -> Made:
    pair = _pair(scene, rng, "size")
    if pair is None:
        return None
    i, j, a, b = pair
    order = list(SIZES)
    more = rng.random() < 0.6
    difference = order.index(scene.objects[i].size) - order.index(scene.objects[j].size)
    true = difference > 0 if more else difference < 0
    if not true and rng.random() < 0.35:
        return None
    words = ["is", "the", *_said(a), "larger" if more else "smaller", "than", "the", *_said(b)]
    return words, "yes" if true else "no", (i, j)


def _same(scene: Scene, rng: np.random.Generator) -> Made:
    asked, attribute = [("color", "color"), ("shape", "kind"), ("material", "material"), ("size", "size")][rng.integers(4)]
    pair = _pair(scene, rng, attribute)
    if pair is None:
        return None
    i, j, a, b = pair
    true = getattr(scene.objects[i], attribute) == getattr(scene.objects[j], attribute)
    if not true and attribute in ("color", "kind") and rng.random() < 0.5:
        return None
    words = ["do", "the", *_said(a), "and", "the", *_said(b), "have", "the", "same", asked]
    return words, "yes" if true else "no", (i, j)


_MAKERS: dict[str, Callable[[Scene, np.random.Generator], Made]] = {
    "exists": _exists,
    "count": _count,
    "color": _asking("color", [["what", "color", "is", "the", "*"], ["which", "color", "does", "the", "*", "have"]]),
    "shape": _asking("kind", [["what", "shape", "is", "the", "*"], ["what", "is", "the", "*"]]),
    "material": _asking("material", [["what", "material", "is", "the", "*"], ["what", "is", "the", "*", "made", "of"]]),
    "size": _asking("size", [["what", "size", "is", "the", "*"], ["how", "large", "is", "the", "*"]]),
    "relation": _relation,
    "comparison": _comparison,
}

QUESTION_KINDS: tuple[str, ...] = tuple(_MAKERS)
"""The kinds of question."""


_FUNCTION_WORDS = (
    "is are do does have there what which how many made of we see the same more fewer larger smaller than "
    "where seen from on side"
)


def question_words() -> list[str]:
    """Every word a question may hold, sorted."""
    base = {*COLORS, *SIZES, *MATERIALS, "thing", "things", "color", "shape", "material", "size", "a", "an", "any", "and"}
    base |= set(_FUNCTION_WORDS.split())
    base |= {w for kind in KINDS for w in (kind, plural(kind))}
    base |= {w for wordings in RELATIONS.values() for w in wordings[0]}
    return sorted(base | {s for w in base for s in SYNONYMS.get(w, ())})
