"""What users are told when an input or a model cannot be explained."""

from __future__ import annotations

import unicodedata

LONGEST_MESSAGE = 4000
"""Characters of an error; what is longer, as where a text of megabytes is quoted, is cut in its middle."""


def one_line(text: str) -> str:
    r"""A text that prints as one line: escaped are control characters, line breaks, lone surrogates and changes of direction.

    >>> print(one_line("a\nb\udcff"))
    a\nb\udcff
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or not _breaks(c) else c.encode("unicode_escape").decode() for c in text)


def unicode_text(text: str) -> str:
    """A text that can be written to any file: lone surrogates, as of names that are no UTF-8, become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _breaks(character: str) -> bool:
    override = unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return override or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


class _OneLine(Exception):
    """An error whose message is one line of bounded length, whatever it quotes."""

    def __init__(self, message: object = "") -> None:
        text = one_line(str(message))
        if len(text) > LONGEST_MESSAGE:
            text = f"{text[: LONGEST_MESSAGE - 600]} ... {text[-500:]}"
        super().__init__(text)


class InputError(_OneLine, ValueError):
    """A user's mistake: the message says what was expected, what came, and what to do. Nothing was written."""


class UnknownGeometry(InputError):
    """Preprocessing whose pixels cannot be traced back to the picture, so that a map cannot be drawn on it."""


class ModelError(_OneLine, RuntimeError):
    """A model or task that cannot be explained as it stands: no gradient, scores that are not finite, a wrong shape."""
