"""Clips: a film file, an animated picture, a folder of frames or pictures in memory -> frames of one size; and back."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from mmgradcam.errors import InputError
from mmgradcam.pictures import MOST_PIXELS, open_picture

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
ANIMATED = {".gif", ".webp", ".apng", ".png"}
RATE = 8.0
"""Frames per second, where nothing says how many."""
SIDE, MOST_FRAMES = 640, 240
"""Longest side of a file's frames, and how many are held."""


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
    """A clip of a film file (MP4, WebM, AVI, ...), an animated GIF, WebP or PNG, a folder of pictures, or pictures.

    Frames of files come at most 640 pixels wide or tall, and of a long film every second, fourth, ... so that there are at most
    240, over all of its time: no model of clips sees more.

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
    if not isinstance(source, (str, Path)):
        raise InputError(f"expected a film file, a folder of frames or a list of pictures, got {type(source).__name__}")
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file; give a film (MP4, WebM, GIF, ...) or a folder of frames")
    if path.is_dir():
        files = sorted((f for f in path.iterdir() if f.suffix.lower() in PICTURES), key=_in_order)
        if not files:
            raise InputError(f"{path}: no pictures in the folder; expected frames as PNG, JPEG, ...")
        return _gathered((open_picture(file) for file in files), RATE, path)
    return _animated(path) if path.suffix.lower() in ANIMATED else _film(path)


def _in_order(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    pieces = re.findall(r"\d+|\D+", path.stem)
    return [(0, int(piece)) if piece.isdigit() else (1, piece) for piece in pieces], path.name


def _gathered(frames: Iterable[Image.Image], rate: float, path: Path) -> Clip:
    """Frames made small and few enough to hold; every other is dropped, and again, whenever there are too many."""
    kept: list[Image.Image] = []
    every = 1
    for i, frame in enumerate(frames):
        if i % every:
            continue
        if max(frame.size) > SIDE:
            frame = frame.copy()
            frame.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        kept.append(frame)
        if len(kept) > MOST_FRAMES:
            kept, every = kept[::2], 2 * every
    return Clip(tuple(kept), rate / every, path.name)


def _animated(path: Path) -> Clip:
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise InputError(
                    f"{path}: {picture.width} x {picture.height} is over {MOST_PIXELS:,} pixels; make it smaller first"
                )
            waits = []
            for frame in ImageSequence.Iterator(picture):
                frame.load()  # only then WebP tells how long it stays
                waits.append(float(frame.info.get("duration") or 1000 / RATE))
            shortest = min(waits)  # a frame that stays longer stands for several
            frames = (
                whole
                for frame, wait in zip(ImageSequence.Iterator(picture), waits, strict=True)
                for whole in [frame.convert("RGB")] * round(wait / shortest)
            )
            return _gathered(frames, 1000 / shortest, path)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: the file is damaged or no animated picture ({error}); save or download it again") from None


def _film(path: Path) -> Clip:
    av = _av(f"{path}: to read films")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: there is no picture in the file, only sound or text")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or RATE)
            return _gathered((frame.to_image() for frame in container.decode(stream)), rate, path)
    except (av.FFmpegError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"{path}: the file is damaged or no film ({reason}); save or download it again") from None


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
    if suffix in (".gif", ".webp"):
        more: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": round(1000 / rate), "loop": 0}
        first.save(data, suffix[1:].upper(), **more, **({"optimize": False} if suffix == ".gif" else {"quality": 80}))
        return data.getvalue()
    if suffix != ".mp4":
        raise InputError(f"{suffix}: expected a film as .gif, .webp or .mp4")
    av = _av("to write MP4")
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000), options={"crf": "18"})
        stream.width, stream.height = first.width + first.width % 2, first.height + first.height % 2
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
