"""Clips: a film file, an animated picture, a folder of frames or pictures in memory -> frames of one size; and back."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError

from mmgradcam.errors import InputError
from mmgradcam.images.pictures import DAMAGED, MOST_PIXELS, formats, open_picture, to_rgb, within_limits
from mmgradcam.utils.files import is_folder, name_of, regular

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".avif"}
ANIMATED = {".gif", ".webp", ".apng", ".png"}
RATE = 8.0
"""Frames per second, where nothing says how many."""
SIDE, MOST_FRAMES = 640, 240
"""Longest side of a file's frames, and how many are held."""
MOST_READ, MOST_DECODED, LONGEST_WAIT = 20_000, 10**10, 60_000.0
"""Frames of an animation that are looked at, pixels they come to, and milliseconds that one of them stands for at most."""


@dataclass(frozen=True)
class Clip:
    """Frames of one size, in order.

    Attributes:
        frames: RGB pictures.
        rate: frames per second.
        name: what people call it.
    """

    frames: tuple[Image.Image, ...]
    rate: float = RATE
    name: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise InputError(f"{self.name or 'the clip'}: expected a rate of frames per second above 0, got {self.rate}")
        if not self.frames:
            raise InputError(f"{self.name or 'the clip'}: expected at least one frame, got none")
        sizes = sorted({frame.size for frame in self.frames})
        if len(sizes) > 1:
            got = ", ".join(f"{w} x {h}" for w, h in sizes[:3])
            raise InputError(f"{self.name or 'the clip'}: expected frames of one size, got {got}; resize them first")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.frames[0].size

    def sampled(self, count: int) -> Clip:
        """`count` frames at even distances from first to last, in time as long as the whole; one stands for several if few."""
        at = np.linspace(0, len(self) - 1, count).round().astype(int)
        return Clip(tuple(self.frames[i] for i in at), self.rate * count / len(self), self.name)


def open_clip(source: Any) -> Clip:
    """A clip of a film file (MP4, WebM, AVI, ...), an animated GIF, WebP, AVIF or PNG, a folder of pictures, or pictures.

    Frames of files come at most 640 pixels wide or tall, and of a long film every second, fourth, ... so that there are at most
    240, over all of its time: no model of clips sees more. A frame of an animation stands for at most a minute. What a file is
    is seen from what it holds, not from its name; nothing beside the file is opened, whatever it refers to.

    Args:
        source: a path, a `Clip`, or a list of whatever `explain` takes for a picture. Files of a folder are ordered by name,
            numbers in names by their value.

    Raises:
        InputError: there is no such file, it is damaged or empty, its frames differ in size, or a film file is given and PyAV
            is not installed.
    """
    if isinstance(source, Clip):
        return source
    if isinstance(source, Sequence) and not isinstance(source, (str, bytes)):
        return Clip(tuple(open_picture(frame) for frame in source))
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"expected a film file, a folder of frames or a list of pictures, got {type(source).__name__}")
    path = Path(source)
    if is_folder(path):
        files = frames_of(path)
        every = _every(len(files))
        return Clip(tuple(_small(open_picture(file)) for file in files[::every]), RATE / every, name_of(path))
    regular(path, "a film (MP4, WebM, GIF, ...) or a folder of frames")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on what it made of a damaged or unusual file
            with Image.open(path, formats=formats()) as picture:
                return _animated(picture, path)
    except UnidentifiedImageError:
        if path.suffix.lower() in PICTURES | ANIMATED:
            raise InputError(f"{path}: the file is damaged or no animated picture; save or download it again") from None
        return _film(path)
    except (Image.DecompressionBombError, *DAMAGED) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: the file is damaged or no animated picture ({error}); save or download it again") from None


def frames_of(folder: Path) -> list[Path]:
    """The pictures in a folder, in order of their names, numbers in names by their value.

    Raises:
        InputError: there are none, or the folder may not be read.
    """
    try:
        files = sorted((file for file in folder.iterdir() if file.suffix.lower() in PICTURES), key=_in_order)
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror}); ask for permission or copy it") from None
    if not files:
        raise InputError(f"{folder}: no pictures in the folder; expected frames as PNG, JPEG, ...")
    return files


def _in_order(path: Path) -> tuple[list[tuple[bool, int | str]], str]:
    pieces = re.findall(r"\d+|\D+", path.stem)
    return [(not piece.isdecimal(), int(piece) if piece.isdecimal() else piece) for piece in pieces], path.name


def _every(count: int) -> int:
    """The power of 2 by which frames are taken so that at most `MOST_FRAMES` of `count` remain."""
    every = 1
    while count > MOST_FRAMES * every:
        every *= 2
    return every


def _small(frame: Image.Image) -> Image.Image:
    made = frame.copy()
    made.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)  # which leaves small ones as they are
    return made


def _animated(picture: Image.Image, path: Path) -> Clip:
    within_limits(picture, str(path))
    count = getattr(picture, "n_frames", 1)
    if count > MOST_READ or count * picture.width * picture.height > MOST_DECODED:
        size = f"{count:,} frames of {picture.width} x {picture.height}"
        raise InputError(f"{path}: {size} are more than can be read in a while; cut it, or make it smaller")
    waits = []
    for frame in ImageSequence.Iterator(picture):
        frame.load()  # only then WebP tells how long it stays
        waits.append(min(float(frame.info.get("duration") or 1000 / RATE), LONGEST_WAIT))
    shortest = min(waits)  # a frame that stays longer stands for several
    ends = list(accumulate(round(wait / shortest) for wait in waits))
    every = _every(ends[-1])
    kept: list[Image.Image] = []
    for frame, end in zip(ImageSequence.Iterator(picture), ends, strict=True):
        times = -(-end // every) - len(kept)
        kept += [_small(to_rgb(frame, str(path)))] * times if times else []
    return Clip(tuple(kept), 1000 / shortest / every, name_of(path))


def _film(path: Path) -> Clip:
    av = _av(f"{path}: to read films")
    try:
        # opened here, not by its name: a playlist in the file must not make FFmpeg open others, or addresses
        with path.open("rb") as file, av.open(file, options={"protocol_whitelist": "none"}) as container:
            if not container.streams.video:
                raise InputError(f"{path}: there is no picture in the file, only sound or text")
            stream = container.streams.video[0]
            if stream.width * stream.height > MOST_PIXELS:
                raise InputError(
                    f"{path}: {stream.width} x {stream.height} is over {MOST_PIXELS:,} pixels; make it smaller first"
                )
            return _gathered(container.decode(stream), _rate_of(stream.average_rate), path)
    except (av.FFmpegError, ArithmeticError, AttributeError, *DAMAGED) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"{path}: the file is damaged or no film ({reason}); save or download it again") from None


def _rate_of(told: Fraction | None) -> float:
    """Frames per second, of which some films say nothing or nonsense."""
    return float(told) if told is not None and 0 < told <= 1000 else RATE


def _gathered(frames: Iterable[Any], rate: float, path: Path) -> Clip:
    """Frames of a film made small and few enough to hold; every other is dropped, and again, whenever there are too many."""
    kept: list[Image.Image] = []
    every = 1
    for i, frame in enumerate(frames):
        if i % every:
            continue
        upright = frame.to_image().rotate(frame.rotation, expand=True)  # a camera that was held sideways
        kept.append(_small(to_rgb(upright, str(path))))
        if len(kept) > MOST_FRAMES:
            kept, every = kept[::2], 2 * every
    return Clip(tuple(kept), rate / every, name_of(path))


def _av(what: str) -> Any:
    try:
        import av
    except ImportError:
        raise InputError(f"{what}, PyAV is needed: pip install av; animated GIFs and folders of frames need nothing") from None
    return av


def encoded(frames: Sequence[Image.Image], rate: float, suffix: str) -> bytes:
    """Frames as an animated GIF or WebP, or an MP4 (H.264), by the ending ".gif", ".webp" or ".mp4".

    Raises:
        InputError: another ending, or an MP4 is asked for and PyAV is not installed.
    """
    data = io.BytesIO()
    first, *rest = frames
    rate = max(rate, 1000 / LONGEST_WAIT)
    if suffix in (".gif", ".webp"):
        more: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": round(1000 / rate), "loop": 0}
        first.save(data, suffix[1:].upper(), **more, optimize=False)
        return data.getvalue()
    if suffix != ".mp4":
        raise InputError(f"{suffix}: expected a film as .gif, .webp or .mp4")
    av = _av("to write MP4")
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(), options={"crf": "18"})
        stream.width, stream.height = next(_even([first])).size
        stream.pix_fmt = "yuv420p"
        for frame in _even(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return data.getvalue()


def _even(frames: Sequence[Image.Image]) -> Iterator[Image.Image]:
    """Frames with an edge repeated where a side is odd, which H.264 cannot hold."""
    for frame in frames:
        pixels = np.asarray(frame)
        yield Image.fromarray(np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge"))
