"""Words to tokens and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmgradcam.task import TextSpan
from mmgradcam.tasks.segments import Segment, segments

SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
PAD, START, END, UNKNOWN = range(len(SPECIAL))


@dataclass(frozen=True)
class Vocabulary:
    """A closed list of words; tokens are indices into `SPECIAL` followed by the words.

    >>> vocabulary = Vocabulary(("a", "ball"))
    >>> vocabulary.encode(["a", "frisbee"]), vocabulary.decode([1, 4, 5, 2])
    ([4, 3], ['a', 'ball'])
    """

    words: tuple[str, ...]
    _index: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._index.update({word: i + len(SPECIAL) for i, word in enumerate(self.words)})

    def __len__(self) -> int:
        return len(SPECIAL) + len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._index

    def encode(self, words: Sequence[str]) -> list[int]:
        return [self._index.get(word, UNKNOWN) for word in words]

    def decode(self, tokens: Sequence[int]) -> list[str]:
        """The words up to the first end token, special tokens left out."""
        ended = list(tokens).index(END) if END in tokens else len(tokens)
        return [self.words[t - len(SPECIAL)] for t in tokens[:ended] if t >= len(SPECIAL)]


def tokenize(text: str) -> list[str]:
    """Lower-case words without punctuation.

    >>> tokenize("What colour is the BALL?")
    ['what', 'colour', 'is', 'the', 'ball']
    """
    return "".join(c if c.isalnum() or c == "'" else " " for c in text.lower()).split()


@dataclass(frozen=True)
class Spoken:
    """A text of the user's in words of a vocabulary, and the words as people call them, which may be several of those."""

    words: tuple[str, ...]
    spans: tuple[TextSpan, ...]


def spoken(text: str, vocabulary: Vocabulary) -> Spoken:
    """A text as `tokenize` splits it, where "t-shirt" is one word nevertheless: of the vocabulary, or else made of its parts.

    >>> spoken("A T-shirt?", Vocabulary(("a", "t", "shirt"))).spans
    (Word(text='a', first=0, last=0), Word(text='t-shirt', first=1, last=2))
    >>> spoken("A T-shirt?", Vocabulary(("a", "t-shirt"))).words
    ('a', 't-shirt')
    """
    words: list[str] = []
    spans = []
    for chunk in text.lower().replace("’", "'").split():
        pieces = [piece for piece in segments(chunk) if not piece.mark]
        groups: list[tuple[Segment | None, list[str]]] = []
        for found in re.finditer(r"(?:[^\W_]|')+", chunk):
            own = next((piece for piece in pieces if piece.start < found.end() and found.start() < piece.end), None)
            if own is not None and groups and groups[-1][0] is own:
                groups[-1][1].append(found.group())
            else:
                groups.append((own, [found.group()]))
        for own, parts in groups:
            whole = own is not None and own.text in vocabulary
            known = [own.text] if own is not None and whole else [word for part in parts for word in _known(part, vocabulary)]
            label = known[0] if len(known) == 1 or own is None else own.text
            spans.append(TextSpan(label, len(words), len(words) + len(known) - 1))
            words += known
    return Spoken(tuple(words), tuple(spans))


def _known(word: str, vocabulary: Vocabulary) -> list[str]:
    """A word as the vocabulary has it: as it is, without quotes around it, or as "what" and "'s"."""
    bare, (head, mark, tail) = word.strip("'"), word.strip("'").rpartition("'")
    ways = ([word], [bare], [head, mark + tail], [word])
    return next((way for way in ways if all(one in vocabulary for one in way)), [word])
