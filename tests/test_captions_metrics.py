"""BLEU and CIDEr against their formulas, written out slowly."""

from __future__ import annotations

import math
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest

from mmgradcam import InputError
from mmgradcam.metrics import CiderD, bleu4, cider, meteor

PEOPLE = [
    ["a dog runs on the grass", "a brown dog is running", "the dog runs"],
    ["two men ride bikes", "two people on bikes ride down a hill", "men riding"],
    ["a child in a red coat", "a girl wears a red coat in the snow", "snow and a child"],
]
SAID = ["a dog runs on grass", "two men ride down a hill", "a girl in a red coat"]


def words(sentences: list[str]) -> list[list[str]]:
    return [sentence.split() for sentence in sentences]


def test_bleu_is_the_geometric_mean_of_clipped_precisions_with_brevity() -> None:
    matched, made, own, near = [0] * 4, [0] * 4, 0, 0
    for said, people in zip(words(SAID), map(words, PEOPLE), strict=True):
        own += len(said)
        near += min((abs(len(p) - len(said)), len(p)) for p in people)[1]
        for n in range(1, 5):
            mine = [tuple(said[i : i + n]) for i in range(len(said) - n + 1)]
            for gram in set(mine):
                most = max([tuple(p[i : i + n]) for i in range(len(p) - n + 1)].count(gram) for p in people)
                matched[n - 1] += min(mine.count(gram), most)
            made[n - 1] += len(mine)
    precision = math.exp(sum(math.log(m / k) for m, k in zip(matched, made, strict=True)) / 4)
    assert bleu4(words(SAID), list(map(words, PEOPLE))) == pytest.approx(precision * min(1.0, math.exp(1 - near / own)))


def test_bleu_counts_where_four_words_in_a_row_are_shared() -> None:
    """As nltk gives it: 100 for one shared run of four and no more, and 0 where three words are the longest run."""
    assert bleu4(words(["a red ball rolls"]), [words(["a red ball rolls"])]) == pytest.approx(1)
    assert bleu4(words(["so a red ball rolls"]), [words(["now a red ball rolls on"])]) > 0.3
    assert bleu4(words(["a red ball rolls"]), [words(["a red ball sleeps", "one ball rolls"])]) == 0.0


def test_bleu_of_nothing_in_common_is_zero_and_says_nothing() -> None:
    assert bleu4(words(["blue"]), [words(["a red ball"])]) == 0.0


def test_cider_is_the_clipped_cosine_of_rarity_weighted_counts() -> None:
    """With vectors over all n-grams there are, as the paper has them."""
    people, found = [words(p) for p in PEOPLE], []
    for n in range(1, 5):
        grams = lambda s, n=n: [tuple(s[i : i + n]) for i in range(len(s) - n + 1)]  # noqa: E731
        every = sorted(
            set(chain.from_iterable(grams(s) for p in people for s in p)) | {g for s in words(SAID) for g in grams(s)}
        )
        rarity = np.array([math.log(3 / max(1, sum(any(g in grams(s) for s in p) for p in people))) for g in every])
        vector = lambda s, e=every, r=rarity, f=grams: np.array([f(s).count(g) for g in e]) * r  # noqa: E731
        for said, several in zip(words(SAID), people, strict=True):
            for p in several:
                a, b = vector(said), vector(p)
                norm = np.linalg.norm(a) * np.linalg.norm(b)
                near = math.exp(-((len(said) - len(p)) ** 2) / 72)
                found.append(near * np.minimum(a, b) @ b / norm if norm else 0.0)
    assert cider(words(SAID), people) == pytest.approx(10 * np.mean(found))


def test_cider_of_a_corpus_is_the_mean_of_its_captions() -> None:
    people = list(map(words, PEOPLE))
    each = CiderD(people)
    scores = [each.of(i, said) for i, said in enumerate(words(SAID))]
    assert cider(words(SAID), people) == pytest.approx(np.mean(scores))
    alone = CiderD([words(["a red ball rolls"]), words(["the big dog sleeps"])])
    assert alone.of(0, words(["a red ball rolls"])[0]) == pytest.approx(10)
    assert alone.of(1, words(["a red ball rolls"])[0]) == 0


def test_captions_of_few_pictures() -> None:
    """What all pictures of one say tells none apart; none say nothing."""
    one = [words(["a red ball rolls"])]
    assert cider(one[0], one) == CiderD(one).of(0, one[0][0]) == 0.0
    assert cider([], []) == bleu4([], []) == 0.0


def test_a_caption_people_wrote_themselves_scores_highest() -> None:
    people = list(map(words, PEOPLE))
    assert cider([p[0] for p in people], people) > cider(words(SAID), people) > cider(words(SAID[::-1]), people)


def test_meteor_needs_wordnet_and_is_none_without() -> None:
    found = meteor(words(SAID), list(map(words, PEOPLE)))
    assert found is None or 0 < found < 100


def test_meteor_is_the_mean_over_captions_of_what_nltk_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where WordNet is: nltk's score is stood in for by the share of words that the best reference has, too."""
    import nltk.corpus
    from nltk.translate import meteor_score

    monkeypatch.setattr(nltk.corpus, "wordnet", SimpleNamespace(ensure_loaded=lambda: None))
    monkeypatch.setattr(
        meteor_score, "meteor_score", lambda people, said: max(len(set(p) & set(said)) for p in people) / len(said)
    )
    assert meteor(words(SAID), list(map(words, PEOPLE))) == pytest.approx((5 / 5 + 5 / 6 + 5 / 6) / 3)
    assert meteor(words(SAID[1:2]), [words(PEOPLE[1])]) == pytest.approx(5 / 6)
    assert meteor([], []) == 0.0
    with pytest.raises(InputError, match="got 1 captions and 0 lists"):
        meteor(words(["a"]), [])


def test_references_must_be_there_for_each_caption() -> None:
    with pytest.raises(InputError, match="got 2 captions and 1 lists"):
        bleu4(words(["a", "b"]), [words(["a"])])
