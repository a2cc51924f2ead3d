"""Where words begin and end in a text of any script."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import regex

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_LETTERS = rf"(?:[[\p{{L}}\p{{N}}_]--{_UNSPACED}][\p{{M}}\u200c\u200d]*)+"
_DIGITS_AFTER = r"(?<=\p{Nd})[.,٫](?=\p{Nd})"
_CLITIC = r"(?:s|t|re|ve|ll|d|m)(?![\p{L}\p{N}])"

_PATTERN = rf"""
    (?P<space>  [\s\p{{Z}}\p{{Cc}}\p{{Cf}}]+ )
  | (?P<clitic> (?<![\p{{L}}\p{{M}}\p{{N}}])['’]{_CLITIC} )
  | (?P<letters> {_LETTERS} (?: (?:['’.·\-\u2010\u2011]|{_DIGITS_AFTER}JOINTS) {_LETTERS} )* )
  | (?P<single> {_UNSPACED}\p{{M}}*ー* )
  | (?P<mark>   (?:\p{{P}}\p{{M}}*)+ )
  | (?P<other>  \X )
"""
_LOOSE = rf"""
  | ['’]\ ?(?={_CLITIC}) | \ ['’]\ ?(?={_CLITIC}) | (?<=\p{{L}}\p{{M}}*)\ -\ (?=\p{{L}})
  | (?<=\p{{Nd}})\ ?\.\ ?(?=\p{{Nd}}) | (?<=\p{{Nd}}),\ ?(?=\p{{Nd}}{{3}}(?!\p{{Nd}}))
"""
_WRITTEN, _DECODED = (
    regex.compile(_PATTERN.replace("JOINTS", joints), regex.VERBOSE | regex.VERSION1) for joints in ("", _LOOSE)
)


@dataclass(frozen=True)
class Segment:
    """A word or a mark, and where it stands in its text (end exclusive)."""

    text: str
    start: int
    end: int
    mark: bool


def segments(text: str, loose: bool = False) -> Iterator[Segment]:
    """Words and punctuation of a text, from left to right; together they hold all that is not space.

    A word is a run of letters, digits and their combining marks, with apostrophes, hyphens and points inside. Chinese,
    Japanese, Thai, Lao, Khmer and Burmese have no spaces between words and are split into characters. An emoji is a word.

    Args:
        text: any.
        loose: read "t - shirt", "2. 5" and "what ' s" as one word each, as a tokenizer that keeps no spaces writes them.

    >>> [one.text for one in segments("What's 2.5 t-shirts?")]
    ["What's", '2.5', 't-shirts', '?']
    """
    for found in (_DECODED if loose else _WRITTEN).finditer(text):
        if found.lastgroup != "space":
            yield Segment(found.group(), found.start(), found.end(), found.lastgroup == "mark")
