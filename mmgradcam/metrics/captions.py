"""How good are captions, held against what people wrote of the same pictures?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from mmgradcam.errors import InputError

Words = Sequence[str]
LONGEST, SIGMA = 4, 6.0


def bleu4(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """BLEU-4 of a corpus, 0..1, unsmoothed, as nltk counts it.

    Source: Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", ACL 2002.

    Args:
        captions: words of each picture's caption.
        references: of each picture, the words of what people wrote.

    Raises:
        InputError: not one list of references per caption.

    >>> bleu4([["a", "dog", "runs", "on", "grass"]], [[["a", "dog", "runs", "on", "grass"], ["a", "brown", "dog"]]])
    1.0
    """
    from nltk.translate.bleu_score import corpus_bleu

    _check(captions, references)
    matched = any(
        _grams(c, 4) & Counter(g for r in rs for g in _grams(r, 4)) for c, rs in zip(captions, references, strict=True)
    )
    return float(corpus_bleu([list(map(list, r)) for r in references], list(map(list, captions)))) if matched else 0.0


class CiderD:
    """CIDEr-D of single captions, 0..10 as its authors' code gives it: how much a caption says of what only this picture's say.

    Words are counted as they are, without stemming, as the code of the COCO challenge does.

    Source: Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015, section 4 and equation 5.

    Args:
        references: of each picture, the words of what people wrote; they also say how rare an n-gram is.
    """

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        self._rare: Counter[tuple[str, ...]] = Counter()
        for several in references:
            for n in range(1, LONGEST + 1):
                self._rare.update({gram for r in several for gram in _grams(r, n)})
        self._pictures = math.log(max(len(references), 1))
        self._known = [[(len(r), self._weighed(r)) for r in several] for several in references]

    def _weighed(self, words: Words) -> list[tuple[dict[tuple[str, ...], float], float]]:
        """Of each length of n-grams, their weights and the weights' norm."""
        made = []
        for n in range(1, LONGEST + 1):
            own = {g: c * (self._pictures - math.log(max(self._rare[g], 1))) for g, c in _grams(words, n).items()}
            made.append((own, _norm(own)))
        return made

    def of(self, picture: int, caption: Words) -> float:
        """The score of a caption of one picture."""
        own, total = self._weighed(caption), 0.0
        for length, other in self._known[picture]:
            near = math.exp(-((len(caption) - length) ** 2) / (2 * SIGMA**2))
            for (mine, norm), (theirs, size) in zip(own, other, strict=True):
                shared = sum(min(mine[gram], theirs[gram]) * theirs[gram] for gram in mine.keys() & theirs.keys())
                total += near * shared / (norm * size) if norm * size > 0 else 0.0
        return 10 * total / LONGEST / len(self._known[picture])


def cider(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """CIDEr-D of a corpus, 0..10, the mean of `CiderD`; papers print 100 times this.

    Args:
        captions: words of each picture's caption.
        references: of each picture, the words of what people wrote.

    Raises:
        InputError: not one list of references per caption.
    """
    _check(captions, references)
    scored = CiderD(references)
    return _mean([scored.of(i, caption) for i, caption in enumerate(captions)])


def meteor(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> float | None:
    """METEOR, 0..1, the mean over pictures of the best reference; None where nltk's WordNet is not installed.

    Source: Banerjee and Lavie, "METEOR", ACL workshop 2005; as nltk has it.
    """
    from nltk.corpus import wordnet
    from nltk.translate.meteor_score import meteor_score

    _check(captions, references)
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    each = [meteor_score([list(r) for r in rs], list(c)) for c, rs in zip(captions, references, strict=True)]
    return _mean(each)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _check(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    if len(captions) != len(references) or not all(references):
        raise InputError(f"expected references for each caption, got {len(captions)} captions and {len(references)} lists")


def _grams(words: Words, n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _norm(weights: dict[tuple[str, ...], float]) -> float:
    return math.sqrt(sum(v * v for v in weights.values()))
