"""How good are captions, answers and their maps on photos in which people boxed what phrases of the captions name?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmgradcam.data.asking import askable, balanced, questions_about, singular
from mmgradcam.data.photos import Photos
from mmgradcam.data.records import Photo, Phrase, Question, mask_of
from mmgradcam.errors import InputError
from mmgradcam.explaining import explain
from mmgradcam.metrics import Localization, bleu4, cider, meteor
from mmgradcam.task import Method, Task
from mmgradcam.tasks.vocabulary import tokenize

Figures = dict[str, Any]


def evaluate_photos(
    task: Task,
    photos: Photos,
    limit: int | None = None,
    *,
    method: Method | None = None,
    taps: Sequence[Any] | None = None,
    batch: int = 4,
    captions: bool = True,
    progress: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> Figures:
    """Captions against what people wrote, and maps against what they boxed.

    Every phrase with boxes of every reference caption is explained, teacher-forced: the score is the sum of its words' scores
    given the words before. A photo is encoded once for all its phrases.

    Args:
        task: a captioner.
        photos: with captions and phrases; see `Photos`.
        limit: number of photos, from the first; all of them by default.
        method: explain with this method instead of the model's own choice.
        taps: explain at these layers instead of the model's own choice.
        batch: photos worked on together.
        captions: else the model writes none, and only maps of the reference captions are measured.
        progress: wraps the iteration over batches, given their number, to show how far it is.

    Returns:
        `bleu4`, `cider` and `meteor` (None where nltk has no WordNet), 0..100 (CIDEr-D 0..1000), of captions as the model
        generates them, and `greedy`, the same of greedy ones; `pointing`, in percent of phrases: `own`, the peak of the map is
        in one of its boxes; `swapped`, the peak of another phrase of the caption is; `centre` and `random`, what those points
        would score; `types`, own and centre of each type; `generated`, the same of the words of the generated caption that
        are the head of a boxed phrase; `inside_outside`, mean heat inside the boxes over mean heat outside; `counts`.

    Raises:
        InputError: the task is no captioner, or a photo has no caption.
    """
    if "phrases" not in task.query_types:
        raise InputError(f"evaluate: expected a captioner asked with phrases=, got {task.name}")
    count = min(limit or len(photos), len(photos))
    starts: Iterable[int] = range(0, count, batch)
    starts = progress(starts, -(-count // batch)) if progress else starts
    how: dict[str, Any] = {"method": method, "taps": taps, "batch": batch}
    spoken: dict[str, list[list[str]]] = {"own": [], "greedy": []}
    references: list[list[list[str]]] = []
    places: dict[str, Localization] = defaultdict(Localization)
    nouns = Localization()
    for at in starts:
        some = [photos[i] for i in range(at, min(at + batch, count))]
        written = _speak(task, some) if captions else {"own": [[]] * len(some)}
        for name, made in written.items():
            spoken[name] += made
        references += [[tokenize(" ".join(caption)) for caption in photo.captions] for photo in some]
        asked = [_Asked(photo, own) for photo, own in zip(some, written["own"], strict=True)]
        asked = [one for one in asked if one.query]
        if not asked:
            continue
        explained = explain(task, [one.photo.image for one in asked], each=[{"phrases": one.query} for one in asked], **how)
        for one, explanation in zip(asked, explained, strict=True):
            heats = [part.heat() for part in explanation]
            one.point(places, nouns, heats)
    everywhere = places.pop("", Localization()).figures()
    return {
        **({**_captions(spoken["own"], references), "greedy": _captions(spoken["greedy"], references)} if captions else {}),
        "pointing": {
            "own": _percent(everywhere, "peak"),
            "swapped": _percent(everywhere, "swapped"),
            "centre": _percent(everywhere, "centre"),
            "random": _percent(everywhere, "random"),
            "types": {name: _type(place.figures()) for name, place in sorted(places.items())},
            "generated": _type(nouns.figures()),
        },
        "inside_outside": everywhere.get("inside_outside"),
        "counts": {
            "photos": count,
            "captions": sum(map(len, references)),
            "phrases": everywhere["count"],
            "swaps": everywhere.get("swaps", 0),
        },
    }


def evaluate_answers(
    task: Task,
    photos: Photos,
    limit: int | None = None,
    *,
    method: Method | None = None,
    taps: Sequence[Any] | None = None,
    batch: int = 8,
    maps: int | None = None,
    progress: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> Figures:
    """Answers to questions that captions and phrases of photos give rise to, and where the maps of the answers peak.

    An answer is right if two of a photo's five captions give it; see `mmgradcam.data.asking`. The questions are balanced over
    all photos, whatever the `limit`.

    Args:
        task: a VQA model.
        photos: with captions and phrases; see `Photos` and `mmgradcam.data.asking`.
        limit: number of photos, from the first; all of them by default.
        method: explain with this method instead of the model's own choice.
        taps: explain at these layers instead of the model's own choice.
        batch: photos worked on together.
        maps: number of photos, from the first, whose answers are mapped; all of them by default.
        progress: wraps the iteration over batches, given their number, to show how far it is.

    Returns:
        In percent: `accuracy`, over all and by kind of question; `blind`, the same of the model shown a grey picture; `guess`,
        what the answer that is right most often of each question, among all of these photos, would score. `pointing`, by kind,
        of questions with boxes of what the right answers name or tell of: `own`, the peak of the map of the model's own answer
        is in one, and `centre`, what the centre point would score; `right`, the same of those answers that were right; `given`,
        of a right answer, whatever the model would say. `counts`: of photos, of those that were `mapped`, and of questions;
        `unread`, questions with words the model does not know, and `unanswerable`, those none of whose right answers the model
        can give, which count as wrong.

    Raises:
        InputError: the task is no VQA model, or the photos give rise to no questions.
    """
    if "questions" not in task.query_types:
        raise InputError(f"evaluate: expected a VQA model asked with questions=, got {task.name}")
    count = min(limit or len(photos), len(photos))
    texts = photos.texts()
    things = askable(texts)
    every = balanced([questions_about(captions, phrases, things) for captions, phrases in texts])
    made = every[:count]
    asked = [[one for one in some if task.can_read(one.text)] for some in made]
    if not any(asked):
        raise InputError("evaluate: the photos' captions give rise to no question that the model can read")
    most = count if maps is None else min(maps, count)
    device, known = task.device, set(task.labels)
    with torch.no_grad():
        grey = task.encode(task.prepare(Image.new("RGB", (224, 224), (128, 128, 128))).pixels[None].to(device))
    right: dict[str, dict[str, list[bool]]] = {name: defaultdict(list) for name in ("accuracy", "blind", "guess")}
    usual: dict[str, Counter[str]] = defaultdict(Counter)
    for one in chain(*every):
        usual[one.text].update(one.answers)
    places: dict[str, Localization] = defaultdict(Localization)
    starts: Iterable[int] = range(0, count, batch)
    starts = progress(starts, -(-count // batch)) if progress else starts
    for at in starts:
        some = [i for i in range(at, min(at + batch, count)) if asked[i]]
        pictures = {i: photos[i].image for i in some}
        with torch.no_grad():
            features = task.encode(torch.stack([task.prepare(pictures[i]).pixels for i in some]).to(device))
        mapped: dict[int, list[_Mapped]] = {}
        for row, i in enumerate(some):
            own, blind = (_answers(task, x, asked[i]) for x in (features[row : row + 1], grey))
            guess = [usual[one.text].most_common(1)[0][0] for one in asked[i]]
            for name, given in (("accuracy", own), ("blind", blind), ("guess", guess)):
                for one, answer in zip(asked[i], given, strict=True):
                    right[name][one.kind].append(answer in one.answers)
            if i >= most:
                continue
            if found := [each for one, answer in zip(asked[i], own, strict=True) for each in _to_map(one, answer, known)]:
                mapped[i] = found
        each = [
            {"questions": [one.text for one, *_ in found], "answers": [answer for _, answer, _ in found]}
            for found in mapped.values()
        ]
        explained = (
            explain(task, [pictures[i] for i in mapped], each=each, method=method, taps=taps, batch=batch) if mapped else []
        )
        for found, explanation in zip(mapped.values(), explained, strict=True):
            for (one, _, counts_for), part in zip(found, explanation, strict=True):
                heat = part.heat()
                for name in counts_for:
                    places[name].add(heat, mask_of(one.boxes, heat.shape))
    return {
        **{name: _shares(kinds) for name, kinds in right.items()},
        "pointing": {kind: _pointed(kind, places) for kind in sorted(right["accuracy"]) if kind in places},
        "counts": {
            "photos": count,
            "mapped": most,
            "questions": sum(map(len, asked)),
            "unread": sum(map(len, made)) - sum(map(len, asked)),
            "unanswerable": sum(not known & set(one.answers) for one in chain(*asked)),
        },
    }


_Mapped = tuple[Question, str, tuple[str, ...]]


def _to_map(one: Question, own: str, known: set[str]) -> list[_Mapped]:
    """Answers to a boxed question that are mapped, and what each map counts for: its own, and a right one if that is wrong."""
    if not one.boxes:
        return []
    if own in one.answers:
        return [(one, own, (one.kind, f"{one.kind} right", f"{one.kind} given"))]
    meant = [(one, answer, (f"{one.kind} given",)) for answer in one.answers if answer in known]
    return [(one, own, (one.kind,)), *meant[:1]]


@torch.no_grad()
def _answers(task: Task, features: torch.Tensor, asked: Sequence[Question]) -> list[str]:
    """The likeliest answer to each question, for (1, C, *grid) features."""
    targets = task.targets(features, questions=[one.text for one in asked])
    return [target.label for target in targets]


def _shares(kinds: dict[str, list[bool]]) -> Figures:
    return {
        "all": 100 * float(np.mean(list(chain(*kinds.values())))),
        **{k: 100 * float(np.mean(v)) for k, v in sorted(kinds.items())},
    }


def _captions(spoken: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> Figures:
    return {"bleu4": bleu4(spoken, references), "cider": cider(spoken, references), "meteor": meteor(spoken, references)}


def _speak(task: Task, photos: Sequence[Photo]) -> dict[str, list[list[str]]]:
    """Captions as the model makes them, and greedy ones, word by word."""
    queries: dict[str, dict[str, Any]] = {"own": {}, "greedy": {"beam": 1}}
    with torch.no_grad():
        features = task.encode(torch.stack([task.prepare(photo.image).pixels for photo in photos]).to(task.device))
        made = {name: task.targets_of_each(features, [query] * len(photos)) for name, query in queries.items()}
    return {name: [[target.label for target in targets] for targets in rows] for name, rows in made.items()}


class _Asked:
    """What is asked of a photo: its boxed phrases, and words of the generated caption that are the head of one."""

    def __init__(self, photo: Photo, own: Sequence[str]) -> None:
        self.photo = photo
        self.phrases: list[Phrase] = []
        self.query: list[tuple[list[str], int, int]] = []
        self.named: list[list[Phrase]] = []
        boxed: dict[str, list[Phrase]] = defaultdict(list)
        for phrase in photo.phrases:
            pieces = [tokenize(word) for word in photo.captions[phrase.caption]]
            before, meant = list(chain(*pieces[: phrase.first])), list(chain(*pieces[phrase.first : phrase.last + 1]))
            if meant and phrase.boxes:
                self.phrases.append(phrase)
                self.query.append((list(chain(*pieces)), len(before), len(before) + len(meant) - 1))
                boxed[singular(meant[-1])].append(phrase)
        for i, word in enumerate(own):
            if found := boxed.get(singular(word)):
                self.named.append(found)
                self.query.append((list(own), i, i))

    def point(self, places: dict[str, Localization], nouns: Localization, heats: Sequence[Any]) -> None:
        """Counts the maps, one for each of `query`."""
        for i, phrase in enumerate(self.phrases):
            mask = mask_of(phrase.boxes, heats[i].shape)
            others = [heats[k] for k, other in enumerate(self.phrases) if k != i and other.caption == phrase.caption]
            places[""].add(heats[i], mask, others)
            for name in phrase.types:
                places[name].add(heats[i], mask)
        for heat, found in zip(heats[len(self.phrases) :], self.named, strict=True):
            nouns.add(heat, mask_of(chain(*(phrase.boxes for phrase in found)), heat.shape))


def _percent(figures: dict[str, float], name: str) -> float | None:
    return 100 * figures[name] if name in figures else None


def _type(figures: dict[str, float]) -> Figures:
    return {"own": _percent(figures, "peak"), "centre": _percent(figures, "centre"), "count": figures["count"]}


def _pointed(kind: str, places: dict[str, Localization]) -> Figures:
    more = {name: _type(places[f"{kind} {name}"].figures()) for name in ("right", "given") if f"{kind} {name}" in places}
    return {**_type(places[kind].figures()), **more}
