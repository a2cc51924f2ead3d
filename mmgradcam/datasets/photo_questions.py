"""Questions of a whole data set of captioned photos, balanced so that the question alone tells little of its answer."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

from mmgradcam.datasets.question_generation import askable, balanced, questions_about
from mmgradcam.datasets.records import Sample
from mmgradcam.datasets.stream import Source


def with_questions(source: Source) -> Source:
    """The same photos with the questions that their captions and phrases give rise to.

    An answer is right if two of a photo's five captions give it; see `mmgradcam.datasets.question_generation`. The questions
    are balanced over the whole data set, and each knows the answer that is right most often of it there.

    Args:
        source: a data set that tells the texts of all its photos; others are returned as they are.
    """
    texts = source.texts() if source.texts else None
    if texts is None:
        return source
    objects = askable(texts)
    every = balanced([questions_about(captions, phrases, objects) for captions, phrases in texts])
    usual: dict[str, Counter[str]] = defaultdict(Counter)
    for some in every:
        for one in some:
            usual[one.text].update(one.answers)
    most = {text: count.most_common(1)[0][0] for text, count in usual.items()}

    def asked(index: int, photo: Sample) -> Sample:
        return replace(photo, questions=tuple(replace(one, usual=most[one.text]) for one in every[index]))

    return source.mapped(asked)
