"""How good are captions, held against what people wrote of the same pictures?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from mmgradcam.errors import InputError

Words = Sequence[str]
LONGEST, SIGMA = 4, 6.0


def bleu4(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """BLEU-4 of a corpus, 0..100, unsmoothed, as nltk counts it.

    Source: Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", ACL 2002.

    Args:
        captions: words of each picture's caption.
        references: of each picture, the words of what people wrote.

    Raises:
        InputError: not one list of references per caption.

    >>> bleu4([["a", "dog", "runs", "on", "grass"]], [[["a", "dog", "runs", "on", "grass"], ["a", "brown", "dog"]]])
    100.0
    """
    from nltk.translate.bleu_score import corpus_bleu

    _check(captions, references)
    matched = any(
        _grams(c, 4) & Counter(g for r in rs for g in _grams(r, 4)) for c, rs in zip(captions, references, strict=True)
    )
    return 100 * float(corpus_bleu([list(map(list, r)) for r in references], list(map(list, captions)))) if matched else 0.0


def cider(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """CIDEr-D of a corpus as papers print it: 100 times the figure of its authors' code, 0..1000.

    Words are counted as they are, without stemming, as the code of the COCO challenge does.

    Source: Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015, section 4 and equation 5.

    Args:
        captions: words of each picture's caption.
        references: of each picture, the words of what people wrote; they also say how rare an n-gram is.

    Raises:
        InputError: not one list of references per caption.
    """
    _check(captions, references)
    seen = [Counter({gram for r in rs for gram in _grams(r, n)}) for rs in references for n in range(1, LONGEST + 1)]
    rare: Counter[tuple[str, ...]] = Counter()
    for grams in seen:
        rare.update(grams.keys())
    pictures = math.log(max(len(references), 1))

    def weighed(words: Words, n: int) -> dict[tuple[str, ...], float]:
        return {gram: count * (pictures - math.log(max(rare[gram], 1))) for gram, count in _grams(words, n).items()}

    total = 0.0
    for caption, several in zip(captions, references, strict=True):
        for n in range(1, LONGEST + 1):
            own = weighed(caption, n)
            for reference in several:
                other = weighed(reference, n)
                shared = sum(min(own[gram], other[gram]) * other[gram] for gram in own.keys() & other.keys())
                norms = _norm(own) * _norm(other)
                apart = len(caption) - len(reference)
                near = math.exp(-(apart**2) / (2 * SIGMA**2))
                total += near * shared / norms / len(several) / LONGEST if norms > 0 else 0.0
    return 1000 * total / max(len(captions), 1)


def meteor(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> float | None:
    """METEOR, 0..100, the mean over pictures of the best reference; None where nltk's WordNet is not installed.

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
    return 100 * float(sum(each)) / max(len(each), 1)


def _check(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    if len(captions) != len(references) or not all(references):
        raise InputError(f"expected references for each caption, got {len(captions)} captions and {len(references)} lists")


def _grams(words: Words, n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _norm(weights: dict[tuple[str, ...], float]) -> float:
    return math.sqrt(sum(v * v for v in weights.values()))
