"""Words to tokens and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
