"""Flickr30k Entities: sentences whose phrases are linked to boxes."""

from __future__ import annotations

import re
from pathlib import Path

from mmgradcam.datasets.exif import open_upright
from mmgradcam.datasets.photos import read_lines
from mmgradcam.datasets.records import Phrase, Sample
from mmgradcam.datasets.stream import Source, find_folder
from mmgradcam.datasets.voc_xml import placed, read_marks
from mmgradcam.errors import InputError
from mmgradcam.images.pictures import Box

_OPENING = re.compile(r"\[/EN#(\d+)((?:/[^\s/\]]+)+)$")


def entities(place: Path, images: Path | None = None) -> Source:
    """Photos with captions, and phrases with boxes; phrases that name nothing that is to be seen are left out.

    Args:
        place: the folder with Annotations and Sentences, or a list of names in it, as val.txt.
        images: the folder of the pictures; by default flickr30k-images, flickr30k_images or images in the folder or beside it.

    Raises:
        InputError: the pictures are nowhere.
    """
    root = place if place.is_dir() else place.parent
    if place.is_dir():
        known = {
            path.stem
            for kind, ending in (("Sentences", ".txt"), ("Annotations", ".xml"))
            for path in (root / kind).glob(f"*{ending}")
        }
        names = sorted(known)
    else:
        names = [name for line in read_lines(place) for name in line.split()]
    tried = (
        [images]
        if images
        else [at / n for at in (root, root.parent) for n in ("flickr30k-images", "flickr30k_images", "images")]
    )
    pictures = find_folder(tried, [f"{name}.jpg" for name in names], "Flickr30k's pictures")

    def read(name: str) -> Sample:
        size, marks = read_marks(root / "Annotations" / f"{name}.xml")
        image, frame = open_upright(pictures / f"{name}.jpg", size)
        boxes: dict[str, list[Box]] = {}
        for mark in marks:
            for number in mark.names:
                if mark.box is not None:
                    boxes.setdefault(number, []).append(placed(frame, mark.box, first=1))
        lines = read_lines(root / "Sentences" / f"{name}.txt")
        captions: list[tuple[str, ...]] = []
        phrases: list[Phrase] = []
        for line in filter(str.strip, lines):
            words, found = read_sentence(line)
            phrases += [
                Phrase(len(captions), first, last, " ".join(words[first : last + 1]), types, tuple(boxes[number]))
                for number, types, first, last in found
                if number in boxes
            ]
            captions.append(tuple(word.lower() for word in words))
        return Sample(name, image, tuple(captions), tuple(phrases))

    return Source("Flickr30k Entities", names, read)


def read_sentence(line: str) -> tuple[list[str], list[tuple[str, tuple[str, ...], int, int]]]:
    """The words of a sentence, and of each phrase its number, its types, and its first and last word.

    Args:
        line: as "[/EN#1/people A man] in [/EN#2/clothing a hat] ."

    Raises:
        InputError: a bracket is not closed or not opened, or a phrase has no words.

    >>> read_sentence("[/EN#1/people/other Two men] sit .")
    (['Two', 'men', 'sit', '.'], [('1', ('people', 'other'), 0, 1)])
    """
    words: list[str] = []
    phrases: list[tuple[str, tuple[str, ...], int, int]] = []
    begun: tuple[str, tuple[str, ...], int] | None = None
    for token in line.split():
        opening = _OPENING.match(token)
        if opening and begun is None:
            begun = opening[1], tuple(opening[2][1:].split("/")), len(words)
            continue
        closes = begun is not None and token.endswith("]")
        word = token[:-1] if closes else token
        if word.startswith("[/EN#"):
            raise InputError(f"a phrase without words, or within another, at {token!r} in {line!r:.120}")
        if word:
            words.append(word)
        if begun and closes:
            if begun[2] == len(words):
                raise InputError(f"a phrase without words at {token!r} in {line!r:.120}")
            phrases.append((begun[0], begun[1], begun[2], len(words) - 1))
            begun = None
    if begun:
        raise InputError(f"a bracket that is not closed in {line!r:.120}")
    return words, phrases
