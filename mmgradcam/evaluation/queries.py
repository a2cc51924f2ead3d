"""What a model is asked of a picture of a data set, and what is known of each of its targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from mmgradcam.datasets.photo_questions import with_questions
from mmgradcam.datasets.question_generation import questions_about
from mmgradcam.datasets.records import Phrase, Question, Region, Sample, where
from mmgradcam.datasets.stream import Source
from mmgradcam.errors import InputError
from mmgradcam.explanation import Explanation
from mmgradcam.task import Task
from mmgradcam.tasks.vocabulary import tokenize

Mask = npt.NDArray[np.bool_]
QUESTIONS, CAPTIONS = frozenset({"question", "questions"}), frozenset({"caption", "phrases"})
ASKED = QUESTIONS | CAPTIONS | {"classes"}
"""What data sets know of a picture, as models are asked with it."""
TOP = 5
"""Likeliest classes that a classifier is asked for, beside those that are in the picture."""


@dataclass(frozen=True)
class Truth:
    """What is known of a target.

    Attributes:
        kind: what it is, such as a type of phrase, a kind of question, or a class; empty where nobody said.
        text: what it belongs to: other targets of the same text are those whose maps it is held against.
        placed: where it is in the picture; None where nobody said.
        right: whether it is true of the picture; None where nobody said.
        attention: where people looked.
        group: of the picture.
        question: that it answers.
        objects: numbers of the objects that it speaks of, where they have any.
    """

    kind: str = ""
    text: str = ""
    placed: Region | None = field(default=None, compare=False)
    right: bool | None = None
    attention: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    group: str = ""
    question: Question | None = field(default=None, compare=False)
    objects: tuple[int, ...] = ()

    @property
    def said(self) -> str:
        """The question, or what else it belongs to."""
        return self.question.text if self.question else self.text

    def mask(self, shape: tuple[int, ...]) -> Mask | None:
        """(H, W) bool, or (T, H, W) of a clip, where the target is; None where nobody said."""
        return None if self.placed is None else where(self.placed, shape)


@dataclass(frozen=True)
class Asked:
    """One query, and what makes the truths of its targets once they are explained.

    Attributes:
        photo: the picture.
        query: what the model is asked.
        known: of classes, pairs of a label and the thing it names; of questions, those; of phrases, those; of a caption, pairs
            of a word and the phrase it heads; of no query, the things that are in the picture, whose names a label may be.
    """

    photo: Sample
    query: dict[str, Any]
    known: Sequence[Any]

    def truths(self, explanation: Explanation) -> list[Truth]:
        """Of each target of the explanation."""
        if self.photo.judge and not self.query and not self.known:
            return [
                Truth(
                    one.role,
                    one.role,
                    one if one.pixels is not None else None,
                    one.true,
                    group=self.photo.group,
                    objects=one.objects,
                )
                for one in self.photo.judge(explanation.labels)
            ]
        if "classes" in self.query or (not self.query and self.known):
            labels = explanation.labels
            of = dict(self.known if self.query else ((_class_of(thing.label, labels), thing) for thing in self.known))
            found = [of.get(label) for label in labels]
            return [
                Truth("true" if thing else "absent", "", thing, thing is not None, group=self.photo.group) for thing in found
            ]
        if "questions" in self.query or "question" in self.query:
            several = "questions" in self.query  # one answer to each; of one question there may be several
            return [
                Truth(
                    one.kind,
                    "",
                    one if one.boxes or one.pixels is not None else None,
                    one.accepts(label) if one.answers else None,
                    one.attention,
                    self.photo.group,
                    one,
                )
                for k, label in enumerate(explanation.labels)
                for one in [self.known[k if several else 0]]
            ]
        phrases = _aligned(self.known, explanation.labels) if "caption" in self.query else self.known
        return [
            Truth(one.types[0] if one.types else "", str(one.caption), one, True, group=self.photo.group)
            if one
            else Truth(group=self.photo.group)
            for one in phrases or [None] * len(explanation)
        ]


def sees(task: Task) -> str:
    """What a model takes: "images", "clips" or "observations"."""
    if "observations" in task.query_types:
        return "observations"
    return "images" if task.clip_length is None else "clips"


def check_askable(task: Task, data: Source) -> None:
    """Checks that a model can be asked about the samples of a data set.

    Raises:
        InputError: it sees something else, or is asked for classes and has no labels to find them by.
    """
    if sees(task) != data.holds:
        raise InputError(f"evaluate: expected a model of {data.holds}, as {data.name} holds; {task.name} sees {sees(task)}")
    if task.query_types & ASKED == {"classes"} and not task.labels:
        raise InputError(f"evaluate: {task.name} has no `labels`, the names of its classes; set them on the task")


def prepared(task: Task, data: Source) -> Source:
    """The data set with what the model can be asked: of captioned photos, questions balanced over all of them."""
    types = task.query_types
    return with_questions(data) if types & QUESTIONS and not types & CAPTIONS else data


def unread_by(task: Task, photo: Sample) -> int:
    """Questions of a picture with words that the model does not know, which it is not asked."""
    return sum(not task.can_read(one.text) for one in photo.questions) if task.query_types & QUESTIONS else 0


def asked_of(task: Task, photo: Sample) -> list[Asked]:
    """What to ask a model of a picture, by what it supports; nothing where the data set says nothing of the kind.

    Captioners are asked for the boxed phrases of what people wrote, teacher-forced, or for a caption of their own where there
    are none; models of questions for their answer to each question, and captioners that answer questions, too, where people
    wrote no captions; classifiers for the classes that are in the picture and, if they support `top`, the five likeliest;
    others for what they predict.
    """
    types = task.query_types
    if types & QUESTIONS and (not types & CAPTIONS or (photo.questions and not photo.captions and not photo.judge)):
        return _questions(task, photo)
    if "phrases" in types:
        known, query = _phrases(photo)
        return [Asked(photo, {"phrases": query}, known)] if known else [] if photo.phrases else [Asked(photo, {}, ())]
    if "caption" in types:
        return _captions(photo) or [Asked(photo, {}, ())]
    if "classes" not in types:
        return [Asked(photo, {}, photo.objects)]
    objects = [(label, thing) for thing in photo.objects if (label := _class_of(thing.label, task.labels)) is not None]
    top = {"top": TOP} if "top" in types else {}
    return [Asked(photo, {"classes": list(dict(objects)), **top}, objects)] if objects else []


def _class_of(name: str, labels: Sequence[str]) -> str | None:
    """The model's label of a thing: the very name before a synonym, and letter for letter before upper case as lower."""
    for spell in (str, str.lower):
        full = {spell(label): label for label in reversed(labels)}
        parts = {spell(part): label for label in reversed(labels) for part in _parts(label)}
        for own in (name, *_parts(name)):
            for known in (full, parts):
                if spell(own) in known:
                    return known[spell(own)]
    return None


def _parts(label: str) -> list[str]:
    """ImageNet's labels are lists of synonyms."""
    return [part.strip() for part in label.split(",")]


def _phrases(photo: Sample) -> tuple[list[Phrase], list[tuple[list[str], int, int]]]:
    known, query = [], []
    for phrase in photo.phrases:
        pieces = [tokenize(word) for word in photo.captions[phrase.caption]]
        before, meant = list(chain(*pieces[: phrase.first])), list(chain(*pieces[phrase.first : phrase.last + 1]))
        if meant:
            known.append(phrase)
            query.append((list(chain(*pieces)), len(before), len(before) + len(meant) - 1))
    return known, query


def _captions(photo: Sample) -> list[Asked]:
    """One query a caption, of models that are asked with a sentence: a phrase is known by its last word."""
    made = []
    for number in sorted({phrase.caption for phrase in photo.phrases}):
        heads: dict[int, Phrase] = {p.last: p for p in photo.phrases if p.caption == number}
        words = photo.captions[number]
        made.append(Asked(photo, {"caption": " ".join(words)}, [(word, heads.get(i)) for i, word in enumerate(words)]))
    return made


def _aligned(known: Sequence[tuple[str, Phrase | None]], labels: Sequence[str]) -> list[Phrase | None]:
    """Of each word that a model read, the phrase it heads: the model may part words and marks otherwise than the data set."""
    found: list[Phrase | None] = []
    at = 0
    for label in labels:
        plain = label.lower().strip(" .,;:!?\"'")
        next_at = next((i for i in range(at, len(known)) if known[i][0].lower() == plain), None)
        found.append(None if next_at is None else known[next_at][1])
        at = at if next_at is None else next_at + 1
    return found


def _questions(task: Task, photo: Sample) -> list[Asked]:
    asked = list(photo.questions)
    if not asked and photo.captions:
        asked = questions_about(photo.captions, photo.phrases, [])
    asked = [one for one in asked if task.can_read(one.text)]
    if "questions" in task.query_types:
        return [Asked(photo, {"questions": [one.text for one in asked]}, asked)] if asked else []
    return [Asked(photo, {"question": one.text}, [one]) for one in asked]
