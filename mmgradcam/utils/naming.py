"""Names: of files and folders made of names of pictures, which may hold anything, and of functions with their settings."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import partial
from typing import Any

LONGEST = 120
"""Bytes of a name in UTF-8. Most file systems allow 255, encrypted ones 143, and a number or an ending may be added."""

_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
_RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    "conin$",
    "conout$",
    *(f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³"),
}


def safe_name(text: str) -> str:
    """A name that Linux, macOS and Windows take for one file or folder, as near to a text as can be.

    Characters that Windows forbids, control characters, those that turn the direction of writing, and bytes that are no text
    become "_"; dots and spaces at the ends go, and so does what is over 120 bytes; "_" goes before a leading "-" or "~" and
    before what Windows reserves. What nothing is left of is "picture".

    >>> safe_name("IMG_2024.01.31"), safe_name(".."), safe_name("a/b"), safe_name("-rf"), safe_name("con.1")
    ('IMG_2024.01.31', 'picture', 'a_b', '_-rf', '_con.1')
    """
    text = "".join("_" if _strange(character) else character for character in unicodedata.normalize("NFC", text))
    text = _trimmed(_FORBIDDEN.sub("_", text))
    if text.startswith(("-", "~")) or text.split(".")[0].rstrip().lower() in _RESERVED:
        text = f"_{text}"
    return _trimmed(text.encode()[:LONGEST].decode(errors="ignore")) or "picture"


def distinct_name(text: str) -> str:
    """A `safe_name` that another text has not: eight characters of its hash are added wherever the name is not the text."""
    name = safe_name(text)
    if name == text:
        return name
    return f"{name}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def name_of(function: Any) -> str:
    """What a method or metric is called: the function's name, and its settings where a partial fixes some.

    >>> name_of(partial(round, ndigits=2))
    'round(ndigits=2)'
    """
    if isinstance(function, partial):
        settings = ", ".join([*map(repr, function.args), *(f"{k}={v!r}" for k, v in function.keywords.items())])
        return f"{name_of(function.func)}({settings})"
    return str(getattr(function, "__name__", type(function).__name__))


def _strange(character: str) -> bool:
    joiners = "\u200c\u200d"  # parts of words and of emoji
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in joiners


def _trimmed(text: str) -> str:
    return text.strip(" .")
