"""What is known of a picture: captions, phrases of them, questions and things, and where in the picture each is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmgradcam.images.clips import Clip
from mmgradcam.images.pictures import Box

Mask = npt.NDArray[np.bool_]


class Region(Protocol):
    """What is known to be somewhere in a picture: a `Phrase`, a `Question` or a `ObjectAnnotation`."""

    @property
    def boxes(self) -> tuple[Box, ...]: ...
    @property
    def pixels(self) -> Mask | None: ...


@dataclass(frozen=True)
class Phrase:
    """Words of a caption that name something, and where it is.

    Attributes:
        caption: which of the photo's captions.
        first: index of its first word there.
        last: index of its last, inclusive.
        types: what it is, such as people, animals, bodyparts, clothing, vehicles, instruments, scene, other; or a class.
        boxes: where, in fractions of the photo's width and height; several where it names several things.
        pixels: (height, width) bool, the very pixels, where somebody drew them; at any resolution.
    """

    caption: int
    first: int
    last: int
    text: str
    types: tuple[str, ...]
    boxes: tuple[Box, ...]
    pixels: Mask | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Question:
    """A question of a picture.

    Attributes:
        text: as "what color is the shirt".
        kind: which kind of question it is.
        answers: what is right, the likeliest first.
        boxes: where the answer is to be seen, in fractions of the picture; none where nobody said.
        pixels: (height, width) bool, the very pixels, where somebody drew them; at any resolution.
        attention: (height, width) float, >= 0, where people looked to answer it, at any resolution; None where nobody asked.
        usual: the answer that is right most often of the same question in the data set; empty where nobody counted.
    """

    text: str
    kind: str
    answers: tuple[str, ...]
    boxes: tuple[Box, ...] = ()
    pixels: Mask | None = field(default=None, compare=False)
    attention: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    usual: str = field(default="", compare=False)

    def accepts(self, answer: str) -> bool:
        """Whether an answer is right, in upper case or lower."""
        return answer.lower() in map(str.lower, self.answers)


@dataclass(frozen=True)
class ObjectAnnotation:
    """Something in a picture, by the name of its class, and where it is: `boxes` and `pixels` as of a `Phrase`.

    In a clip, `pixels` are (T, height, width), frame by frame.
    """

    label: str
    boxes: tuple[Box, ...] = ()
    pixels: Mask | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Judged:
    """What is known of a word of a caption.

    Attributes:
        role: what it speaks of, such as a kind or a color; empty where it says nothing that could be false.
        true: whether what it says holds; None of a word that says nothing, or only the rest of what another says.
        boxes: where what it speaks of is, as of a `Phrase`.
        pixels: likewise.
        objects: numbers of the objects that it speaks of.
    """

    role: str
    true: bool | None
    boxes: tuple[Box, ...] = ()
    pixels: Mask | None = field(default=None, compare=False)
    objects: tuple[int, ...] = ()


class Judge(Protocol):
    """Whether the words of a caption are true of a picture, and what each speaks of."""

    def __call__(self, words: Sequence[str]) -> list[Judged]: ...


@dataclass(frozen=True)
class Sample:
    """A picture, upright and in its own shape, and what is known of it.

    Attributes:
        name: its own, within a data set.
        image: RGB.
        captions: what people wrote of it, word by word.
        phrases: of the captions.
        questions: that can be asked of it.
        objects: that are to be seen, or the one class it belongs to.
        group: which group of pictures it belongs to, for reports of bias; empty where there are none.
        judge: of a picture whose whole content is known, what says whether the words of a caption are true of it.
        clip: of a data set of clips, the clip; `image` is its first frame.
    """

    name: str
    image: Image.Image
    captions: tuple[tuple[str, ...], ...] = ()
    phrases: tuple[Phrase, ...] = ()
    questions: tuple[Question, ...] = ()
    objects: tuple[ObjectAnnotation, ...] = ()
    group: str = ""
    judge: Judge | None = None
    clip: Clip | None = None

    @property
    def input(self) -> Image.Image | Clip:
        """What a model is shown: the clip, where there is one, else the image."""
        return self.image if self.clip is None else self.clip


def where(one: Region, shape: tuple[int, ...]) -> Mask | None:
    """(H, W) bool: the drawn pixels, resized by nearest neighbour, else those of the boxes; None where nobody said.

    Of what is in a clip, (T, H, W): its pixels, which have the size of the clip's own frames.
    """
    if one.pixels is None:
        return mask_of(one.boxes, shape) if one.boxes else None
    if one.pixels.shape == tuple(shape):
        return one.pixels
    resized = Image.fromarray(one.pixels).resize((shape[1], shape[0]), Image.Resampling.NEAREST)
    return np.asarray(resized, dtype=bool)


def mask_of(boxes: Iterable[Box], shape: tuple[int, ...]) -> Mask:
    """(H, W) bool: the pixels of boxes in fractions of the photo."""
    mask = np.zeros(shape, bool)
    for x0, y0, x1, y1 in boxes:
        mask[_pixels(y0, y1, shape[0]), _pixels(x0, x1, shape[1])] = True
    return mask


def _pixels(low: float, high: float, size: int) -> slice:
    """Pixels whose middle lies between two fractions of a side; one at least."""
    first = min(int(np.ceil(low * size - 0.5)), size - 1)
    return slice(max(first, 0), max(int(np.floor(high * size - 0.5)), first) + 1)
