"""Maps over time: frames with their heat, as an offline page that plays, as a GIF or MP4, and as a strip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from mmgradcam.errors import InputError
from mmgradcam.images.clips import Clip, encoded
from mmgradcam.images.pictures import Box
from mmgradcam.render import heatmaps
from mmgradcam.render.embedded import CANVAS_SIDE, canvas_size, heat_data, palette, picture_uri
from mmgradcam.render.templating import render_page
from mmgradcam.utils.files import path_of
from mmgradcam.utils.writing import write_file, write_folder

SIDE = 720
"""Longest side of the frames of a GIF or MP4, in pixels."""


@dataclass(frozen=True)
class HeatTrack:
    """What one target's heat is over the frames.

    Attributes:
        label: what the target is called.
        heats: (T, h, w) float32 over the whole clip and `box` of every frame, as `mmgradcam.render.heatmaps.scaled` makes them:
            1 where a frame has the full color. Drawn linear between the middles of cells in time and space.
        print: small print, such as a probability.
        box: the rectangle that the heats cover, in fractions of a frame.
    """

    label: str
    heats: heatmaps.Array
    print: str = ""
    box: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class FrameInfo:
    """What else there is to say of one frame.

    Attributes:
        said: in words.
        values: names and numbers to be compared, such as the values of actions.
        chosen: the position of the one that was taken, -1 for none.
    """

    said: str = ""
    values: Sequence[tuple[str, float]] = ()
    chosen: int = -1


@dataclass(frozen=True)
class Animation:
    """Frames, the heat of each target over them, and what there is to say of each frame.

    Args:
        clip: T frames.
        tracks: targets; the first is the one that a GIF or MP4 shows.
        title: a headline.
        note: how it was made.
        moments: one for each frame, or none at all.
        values_are: what the moments' values are.
    """

    clip: Clip
    tracks: Sequence[HeatTrack]
    title: str
    note: str = ""
    moments: Sequence[FrameInfo] = field(default=())
    values_are: str = ""

    def __post_init__(self) -> None:
        for track in self.tracks:
            if track.heats.ndim != 3 or not track.heats.size:
                raise InputError(f"film: expected heat (T, h, w) of {track.label!r}, got {track.heats.shape}")
        if self.moments and len(self.moments) != len(self.clip):
            raise InputError(f"film: expected a moment for each of {len(self.clip)} frames, got {len(self.moments)}")

    def heat(self, frame: int, track: int = 0, size: tuple[int, int] | None = None) -> heatmaps.Array:
        """(height, width) heat of one target on one frame, in 0..1, at the frame's size or another."""
        height, width = size or self.clip.size[::-1]
        at = torch.tensor([frame]), torch.arange(height), torch.arange(width)
        heats = torch.from_numpy(np.ascontiguousarray(self.tracks[track].heats))[None]
        drawn = heatmaps.over_time(heats, self.tracks[track].box, len(self.clip), (height, width), at)[0, 0]
        return np.asarray(drawn.clamp(max=1).numpy(), np.float32)

    def frame(self, at: int, track: int = 0) -> Image.Image:
        """A frame with the heat of one target over it, a small one enlarged so that cells can be told apart."""
        frame = self.clip.frames[at]
        longest = max(frame.size)
        if longest > SIDE:
            frame = frame.copy()
            frame.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        made = heatmaps.overlay(frame, self.heat(at, track, frame.size[::-1]))
        times = -(-256 // longest) if longest < 256 else 1
        return made.resize((made.width * times, made.height * times), Image.Resampling.NEAREST) if times > 1 else made

    def frames(self, track: int = 0) -> list[Image.Image]:
        """Every `frame` with the heat of one target."""
        return [self.frame(at, track) for at in range(len(self.clip))]

    def strip(self, count: int = 8) -> Image.Image:
        """A row of `count` frames at even distances, and below it one for each target."""
        at = np.unique(np.linspace(0, len(self.clip) - 1, min(count, len(self.clip))).round().astype(int)).tolist()
        width, height = self.clip.size
        w = max(96, min(200, 1520 // len(at)))
        h, gap, head = max(24, round(height * w / width)), 8, 30
        small = {i: self.clip.frames[i].resize((w, h), Image.Resampling.LANCZOS) for i in at}
        rows = [("the clip", "", list(small.values()))]
        for k, track in enumerate(self.tracks):
            rows.append((track.label, track.print, [heatmaps.overlay(small[i], self.heat(i, k, (h, w))) for i in at]))
        page = Image.new("RGB", (len(at) * (w + gap) + gap, 48 + len(rows) * (h + head + gap)), "white")
        pen = ImageDraw.Draw(page)
        pen.text(
            (gap, 10),
            heatmaps.clip_text(self.title, heatmaps.font(22, True), page.width - 2 * gap),
            (20, 20, 26),
            heatmaps.font(22, True),
        )
        for r, (label, small_print, pictures) in enumerate(rows):
            y = 48 + r * (h + head + gap)
            pen.text(
                (gap, y),
                heatmaps.clip_text(f"{label}  {small_print}", heatmaps.font(17), page.width - 2 * gap),
                (60, 60, 70),
                heatmaps.font(17),
            )
            for c, picture in enumerate(pictures):
                page.paste(picture, (gap + c * (w + gap), y + head - 4))
        return page

    def page(self) -> str:
        """The page as HTML: it fetches nothing, and all text from models and users is escaped."""
        return _page(self)

    def save(self, path: str | Path, film: str = ".gif") -> list[Path]:
        """Writes a folder with `index.html`, `strip.png` and `film.gif` (or another ending), or one file by its ending.

        Args:
            path: a folder, or a name that ends in .html, .png, .gif, .webp or .mp4.
            film: ".gif", ".webp" or ".mp4" (which needs PyAV).

        Returns:
            The files written. Files appear whole or not at all.
        """
        path = path_of(path)
        if path.suffix.lower() in (".gif", ".webp", ".mp4"):
            return [write_file(path, encoded(self.frames(), self.clip.rate, path.suffix.lower()))]
        if path.suffix.lower() in (".html", ".htm"):
            return [write_file(path, self.page().encode())]
        if path.suffix.lower() == ".png":
            return [write_file(path, heatmaps.encoded(self.strip()))]
        if path.suffix:
            raise InputError(f"{path}: expected a folder, or a name that ends in .html, .png, .gif, .webp or .mp4")
        return write_folder(path, self.files(film))

    def files(self, film: str = ".gif") -> dict[str, bytes]:
        """What `save` writes into a folder, by name."""
        return {
            "strip.png": heatmaps.encoded(self.strip()),
            f"film{film}": encoded(self.frames(), self.clip.rate, film),
            "index.html": self.page().encode(),
        }


def _heats(track: HeatTrack) -> dict[str, Any]:
    heats = torch.from_numpy(np.ascontiguousarray(track.heats))
    return heat_data(heats[None], [track.box] * len(heats))


def _page(film: Animation) -> str:
    width, height = film.clip.size
    data = {
        "rate": film.clip.rate,
        "frames": [picture_uri(frame) for frame in film.clip.frames],
        "heats": [_heats(track) for track in film.tracks],
        "moments": [_moment(moment) for moment in film.moments],
    }
    values: dict[str, Any] = {
        "title": film.title,
        "tracks": film.tracks,
        "width": width,
        "height": height,
        "canvas": canvas_size(width, height, min(max(width, height), CANVAS_SIDE)),
        "values_are": film.values_are if any(m.values for m in film.moments) else None,
        "note": film.note,
        "data": data,
        "palette": palette(),
    }
    return render_page("player.html", values)


def _moment(moment: FrameInfo) -> dict[str, Any]:
    """What `player.js` shows of a frame: values as (name, text, share of the bar's full length)."""
    numbers = [value for _, value in moment.values]
    low, high = min([*numbers, 0.0]), max([*numbers, 0.0])
    span = (high - low) or 1.0
    form = ".2f" if 1 <= max(high, -low) < 1000 else ".3g"
    shown = [[name, f"{value:{form}}", round(max((value - low) / span, 0.01), 3)] for name, value in moment.values]
    return {"said": moment.said, "values": shown, "chosen": moment.chosen}
