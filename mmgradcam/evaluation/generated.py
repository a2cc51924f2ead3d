"""Metrics of what a model says on its own: its captions, and its answers to questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from mmgradcam import metrics
from mmgradcam.datasets.question_generation import singular
from mmgradcam.datasets.records import Phrase, Sample, where
from mmgradcam.errors import InputError
from mmgradcam.evaluation.batch import Batch, Column, Values
from mmgradcam.evaluation.queries import CAPTIONS
from mmgradcam.evaluation.rows import Row
from mmgradcam.explanation import Explanation
from mmgradcam.images.regions import fill_holes
from mmgradcam.metrics.definition import SHARE, UNBOUNDED, metric
from mmgradcam.tasks.vocabulary import tokenize


@metric(
    "generated_caption",
    higher_is_better=None,
    range=UNBOUNDED,
    description="the model's own caption, a text, in the first row of each image and method",
    source="mmgradcam",
)
@metric(
    "reference_captions",
    higher_is_better=None,
    range=UNBOUNDED,
    description="the captions that people wrote, a text with one per line, beside generated_caption",
    source="mmgradcam",
)
@metric(
    "generated_nouns",
    higher_is_better=None,
    range=(0.0, None),
    description="words of the model's own caption that name an object with a known place",
    source="mmgradcam",
)
@metric(
    "generated_hits",
    higher_is_better=None,
    range=(0.0, None),
    description="those of them whose map's maximum lies on the object",
    source="mmgradcam",
)
@metric(
    "generated_center_hits",
    higher_is_better=None,
    range=(0.0, None),
    description="those of them whose object lies at the center of the image",
    source="mmgradcam",
)
def captions(batch: Batch) -> dict[str, Column]:
    """The model's own captions against the captions that people wrote, and where the maps of their nouns peak.

    One explanation more per image and method, of the caption that the model generates. BLEU-4, CIDEr-D and METEOR follow. A
    word of it names an object if it is the head of a phrase with a place in some caption that people wrote.
    """
    names = ("generated_caption", "reference_captions", "generated_nouns", "generated_hits", "generated_center_hits")
    columns: dict[str, list[Any]] = {name: [None] * len(batch.rows) for name in names}
    seen: set[tuple[str, str]] = set()
    first = 0
    for e, explanation in enumerate(batch.explanations):
        photo, method = batch.photos[e], batch.methods[e % len(batch.methods)]
        if not explanation.task.query_types & CAPTIONS:
            raise InputError("captions: expected a model that generates captions; leave captions out")
        if photo.captions and len(explanation) and (photo.name, method) not in seen:
            seen.add((photo.name, method))
            own = explanation.explainer.asked({})
            told = (own.text, "\n".join(map(_plain, photo.captions)), *_located(own, photo))
            for name, value in zip(names, told, strict=True):
                columns[name][first] = value
        first += len(explanation)
    return dict(columns)


@metric(
    "caption_true",
    higher_is_better=True,
    range=SHARE,
    description="all statements of the model's own caption are true, in the first row of each image and method",
    source="mmgradcam",
)
def statements(batch: Batch) -> dict[str, Column]:
    """Whether a generated caption says nothing false, of images whose whole content is known, such as rendered scenes.

    Each single statement is in `correct`, in the row of the word that makes it.
    """
    made: list[float | None] = [None] * len(batch.rows)
    first = 0
    for e, explanation in enumerate(batch.explanations):
        if batch.photos[e].judge and not explanation.metadata.query and len(explanation):
            made[first] = float(all(truth.right is not False for truth in batch.truths[e]))
        first += len(explanation)
    return {"caption_true": made}


def _plain(caption: Sequence[str]) -> str:
    return " ".join(tokenize(" ".join(caption)))


def _located(own: Explanation, photo: Sample) -> tuple[float, float, float]:
    """How many words of a caption name an object with a place, whose maps peak there, and whose place is the center."""
    heads: dict[str, list[Phrase]] = defaultdict(list)
    for phrase in photo.phrases:
        meant = list(chain(*map(tokenize, photo.captions[phrase.caption][phrase.first : phrase.last + 1])))
        if meant and (phrase.boxes or phrase.pixels is not None):
            heads[singular(meant[-1])].append(phrase)
    nouns = hits = centers = 0
    for part in own:
        if found := heads.get(singular(part.label)):
            heat = part.heat()
            places = [mask for one in found if (mask := where(one, (heat.shape[0], heat.shape[1]))) is not None]
            mask = fill_holes(np.logical_or.reduce(places))
            nouns, hits, centers = nouns + 1, hits + metrics.peak_in(heat, mask), centers + metrics.centre_in(mask)
    return float(nouns), float(hits), float(centers)


@metric(
    "generated_pointing",
    higher_is_better=True,
    range=SHARE,
    description="nouns of the model's own captions whose map's maximum lies on their object",
    source="mmgradcam",
    level="means",
    of=("generated_hits", "generated_nouns"),
    baselines=("baseline_center_generated",),
)
@metric(
    "baseline_center_generated",
    higher_is_better=None,
    range=SHARE,
    description="nouns of the model's own captions whose object lies at the center of the image",
    source="mmgradcam",
    level="means",
    of=("generated_center_hits", "generated_nouns"),
)
def generated_pointing(hits: Values, nouns: Values) -> Values:
    """The pointing game on the nouns of generated captions, all of them in one count."""
    return hits / nouns


@metric(
    "bleu4",
    higher_is_better=True,
    range=SHARE,
    description="BLEU-4 of the model's own captions, unsmoothed",
    source="Papineni et al. 2002",
    level="rows",
    of=("generated_caption", "reference_captions"),
)
def bleu4(rows: Iterable[Row]) -> float | None:
    """BLEU-4 of the corpus, as nltk counts it."""
    pairs = _pairs(rows)
    return metrics.bleu4(*pairs) if pairs[0] else None


@metric(
    "cider",
    higher_is_better=True,
    range=(0.0, 10.0),
    description="CIDEr-D of the model's own captions, n-grams weighted by their rarity in the references",
    source="Vedantam et al. 2015",
    level="rows",
    of=("generated_caption", "reference_captions"),
)
def cider(rows: Iterable[Row]) -> float | None:
    """CIDEr-D of the corpus, 0 to 10; papers print 100 times this."""
    pairs = _pairs(rows)
    return metrics.cider(*pairs) if pairs[0] else None


@metric(
    "meteor",
    higher_is_better=True,
    range=SHARE,
    description="METEOR of the model's own captions; absent where nltk's WordNet is not installed",
    source="Banerjee and Lavie 2005",
    level="rows",
    of=("generated_caption", "reference_captions"),
)
def meteor(rows: Iterable[Row]) -> float | None:
    """METEOR, the mean over images."""
    pairs = _pairs(rows)
    return metrics.meteor(*pairs) if pairs[0] else None


def _pairs(rows: Iterable[Row]) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Captions and references, in words."""
    some = [(row["generated_caption"], row["reference_captions"]) for row in rows if row.get("reference_captions")]
    return [own.split() for own, _ in some], [[one.split() for one in told.split("\n")] for _, told in some]


@metric(
    "blind_accuracy",
    higher_is_better=None,
    range=SHARE,
    description="the model's answer to the same question about a gray image is correct",
    source="mmgradcam",
)
@metric(
    "majority_prior",
    higher_is_better=None,
    range=SHARE,
    description="the answer that is correct most often for this question in the data set is correct here",
    source="mmgradcam",
)
@metric(
    "answerable",
    higher_is_better=None,
    range=SHARE,
    description="one of the correct answers is among those that the model can give",
    source="mmgradcam",
)
def answers(batch: Batch) -> dict[str, Column]:
    """What answers would score without the image: shown a gray one, and by the usual answer to the question.

    Compare with `correct`. Questions made from captions say their usual answer; other data sets do not.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("blind_accuracy", "majority_prior", "answerable")}
    blind: dict[tuple[int, str], list[str]] = {}
    for e, explanation in enumerate(batch.explanations):
        asked = [truth.question for truth in batch.truths[e]]
        key = e // len(batch.methods), repr(explanation.metadata.query)
        if any(asked) and key not in blind:
            blind[key] = [target.label for target in explanation.explainer.blind()]
        known = [label.lower() for label in explanation.task.labels]
        for k, one in enumerate(asked):
            told = one if one is not None and one.answers else None
            columns["blind_accuracy"].append(float(told.accepts(blind[key][k])) if told else None)
            columns["majority_prior"].append(float(told.accepts(told.usual)) if told and told.usual else None)
            columns["answerable"].append(float(any(one.lower() in known for one in told.answers)) if told and known else None)
    return dict(columns)


@metric(
    "pointing_correct",
    higher_is_better=True,
    range=SHARE,
    description="pointing, of the model's answers that are correct",
    source="mmgradcam",
    baselines=("baseline_center_correct",),
)
@metric(
    "baseline_center_correct",
    higher_is_better=None,
    range=SHARE,
    description="baseline_center, of the model's answers that are correct",
    source="mmgradcam",
)
@metric(
    "pointing_given",
    higher_is_better=True,
    range=SHARE,
    description="pointing of a correct answer, whatever the model answers, where it can give one",
    source="mmgradcam",
    baselines=("baseline_center_given",),
)
@metric(
    "baseline_center_given",
    higher_is_better=None,
    range=SHARE,
    description="baseline_center of the same questions",
    source="mmgradcam",
)
def correct_answers(batch: Batch) -> dict[str, Column]:
    """The pointing game on correct answers alone: the model's own, and those it is given where its own is not correct.

    One explanation more per image and method with a question that the model answers wrongly.
    """
    names = ("pointing_correct", "baseline_center_correct", "pointing_given", "baseline_center_given")
    columns: dict[str, list[Any]] = {name: [None] * len(batch.rows) for name in names}
    first = 0
    for e, explanation in enumerate(batch.explanations):
        wrong: list[int] = []
        for k, truth in enumerate(batch.truths[e]):
            if truth.question is None or (mask := batch.masks[first + k]) is None:
                continue
            if truth.right:
                found = _pointed(batch.heats[first + k], mask)
                for name, value in zip(names, found * 2, strict=True):
                    columns[name][first + k] = value
            elif set(truth.question.answers) & set(explanation.task.labels):
                wrong.append(k)
        for k, part in zip(wrong, _given(explanation, [batch.truths[e][k].question for k in wrong]), strict=True):
            for name, value in zip(names[2:], _pointed(part.heat(), batch.masks[first + k]), strict=True):
                columns[name][first + k] = value
        first += len(explanation)
    return dict(columns)


def _pointed(heat: Any, mask: Any) -> tuple[float, float]:
    filled = fill_holes(mask)
    return float(metrics.peak_in(heat, filled)), float(metrics.centre_in(filled))


def _given(explanation: Explanation, questions: Sequence[Any]) -> list[Explanation]:
    """The explanation of the first correct answer that the model knows, of each question."""
    if not questions:
        return []
    known = set(explanation.task.labels)
    told = [next(answer for answer in one.answers if answer in known) for one in questions]
    if "questions" in explanation.metadata.query:
        return list(explanation.explainer.asked({"questions": [one.text for one in questions], "answers": told}))
    return [explanation.explainer.asked({"question": questions[0].text, "answer": told[0]})[0]]
