"""Clips: read, explained over time, height and width, drawn and saved."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
from dataclasses import FrozenInstanceError
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import chromium, complaints
from PIL import Image
from test_cli import called
from torch import nn
from torchvision import models

from mmgradcam import Explanation, InputError, explain, gradcam, gradcam_pp_code, hirescam, layercam, normgrad, xgradcam
from mmgradcam.images import clips
from mmgradcam.images.clips import Clip, encoded, frames_of, open_clip
from mmgradcam.images.pictures import Preprocess
from mmgradcam.render import heatmaps
from mmgradcam.render.animation import Animation, FrameInfo, HeatTrack
from mmgradcam.scenes.motion import MOTIONS, make_motion, render_motion
from mmgradcam.tasks import Layer, Video
from mmgradcam.tasks.hub import frames
from mmgradcam.tasks.nets.clips import ClipEncoder, SliceHead


def clip(count: int = 6, size: tuple[int, int] = (48, 32)) -> Clip:
    """A white square that goes right on black."""
    made = []
    for i in range(count):
        frame = Image.new("RGB", size)
        frame.paste((255, 255, 255), (4 + 5 * i, 8, 16 + 5 * i, 20))
        made.append(frame)
    return Clip(tuple(made), 10.0, "square")


def video() -> Video:
    torch.manual_seed(0)
    encoder, head = ClipEncoder((4, 6)), SliceHead(6, 3)
    return Video(encoder.eval(), head.eval(), ["left", "right", "up"], Preprocess((32, 48)), length=8)


def test_frames_come_back_as_they_were_written(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install av")
    made = clip()
    for suffix in (".gif", ".webp", ".mp4"):
        (tmp_path / f"film{suffix}").write_bytes(encoded(made.frames, made.rate, suffix))
        back = open_clip(tmp_path / f"film{suffix}")
        assert (len(back), back.size, back.rate) == (6, (48, 32), 10.0), suffix
        for one, other in zip(made.frames, back.frames, strict=True):
            assert np.abs(np.asarray(one, float) - np.asarray(other, float)).mean() < 6, suffix
    odd = [Image.new("RGB", (33, 35), (200, 30, 30))] * 3
    (tmp_path / "odd.mp4").write_bytes(encoded(odd, 5.0, ".mp4"))
    assert open_clip(tmp_path / "odd.mp4").size == (34, 36)


def test_a_frame_that_stays_longer_stands_for_several(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (16, 16), color) for color in ("red", "blue"))
    (tmp_path / "film.gif").write_bytes(
        encoded([first, first, first, second], 10.0, ".gif")
    )  # Pillow writes two, 300 and 100 ms
    back = open_clip(tmp_path / "film.gif")
    assert [frame.getpixel((0, 0)) for frame in back.frames] == [(255, 0, 0)] * 3 + [(0, 0, 255)]
    assert back.rate == pytest.approx(10.0)


def test_a_folder_of_frames_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for i in (10, 9, 2, 100):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / f"frame{i}.png")
    assert [frame.getpixel((0, 0))[0] for frame in open_clip(tmp_path).frames] == [2, 9, 10, 100]  # type: ignore[index]


def test_a_long_film_is_thinned_out_over_all_of_its_time(tmp_path: Path) -> None:
    for i in range(500):
        Image.new("RGB", (1000, 20), (i // 2, 0, 0)).save(tmp_path / f"{i}.bmp")
    made = open_clip(tmp_path)
    assert made.size == (640, 13)
    assert [frame.getpixel((0, 0))[0] for frame in made.frames] == [4 * i // 2 for i in range(125)]  # type: ignore[index]
    assert made.rate == 2.0


def test_what_is_no_clip_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.gif").write_bytes(b"GIF89a nothing")
    (tmp_path / "none.mp4").write_bytes(b"")
    (tmp_path / "sound.txt").write_text("no film at all")
    Image.new("RGB", (16, 16)).save(tmp_path / "empty" / "a.txt.png")
    Image.new("RGB", (16, 20)).save(tmp_path / "empty" / "b.png")
    for source, said in [
        (tmp_path / "nowhere.mp4", "no such file"),
        (tmp_path / "broken.gif", "damaged or no animated picture"),
        (tmp_path / "empty", "expected frames of one size, got 16 x 16, 16 x 20"),
        ([], "expected at least one frame"),
        (tmp_path / "sound.txt", "damaged or no film"),
        (3, "expected a film file"),
    ]:
        with pytest.raises(InputError, match=said):
            open_clip(source)
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="no pictures in the folder"):
        open_clip(tmp_path / "bare")
    pytest.importorskip("av", reason="PyAV is not installed: pip install av")
    (tmp_path / "half.mp4").write_bytes(encoded(clip(20).frames, 10, ".mp4")[:400])
    for name in ("none.mp4", "half.mp4"):
        with pytest.raises(InputError, match="damaged or no film"):
            open_clip(tmp_path / name)


def animation(path: Path, waits: list[int], side: int = 16) -> Path:
    """An animated picture whose frames are of the greys 0, 10, 20, ... and stay for milliseconds."""
    frames = [Image.new("RGB", (side, side), (10 * i,) * 3) for i in range(len(waits))]
    more = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=waits, loop=0, **more)
    return path


def greys(made: Clip) -> list[int]:
    return [int(np.asarray(frame)[0, 0, 0]) for frame in made.frames]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
@pytest.mark.parametrize(
    ("waits", "expected", "rate"),
    [
        ([100, 100, 100], [0, 10, 20], 10.0),
        ([100, 300, 200], [0, 10, 10, 10, 20, 20], 10.0),
        ([40, 50, 90], [0, 10, 20, 20], 25.0),
        ([100, 239 * 100], [0, *[10] * 239], 10.0),
        ([100, 240 * 100], [0, *[10] * 120], 5.0),
    ],
)
def test_a_frame_stands_for_as_long_as_it_stays(
    tmp_path: Path, suffix: str, waits: list[int], expected: list[int], rate: float
) -> None:
    made = open_clip(animation(tmp_path / f"a{suffix}", waits))
    assert greys(made) == expected
    assert made.rate == pytest.approx(rate)
    assert made.name == f"a{suffix}"


@pytest.mark.parametrize(
    "waits", [[1, 16_560_000], [16_560_000, 1], [1] * 3 + [16_777_215] * 3, [16_777_215] * 4, [7, 1, 65_000]]
)
def test_frames_of_a_millisecond_and_of_hours_are_bounded(tmp_path: Path, waits: list[int]) -> None:
    """A frame stands for at most a minute, and frames held are at most 240, as by thinning out tick by tick."""
    made = open_clip(animation(tmp_path / "a.webp", waits))
    bounded = [min(wait, 60_000) for wait in waits]
    ticks = [10 * i for i, wait in enumerate(bounded) for _ in range(round(wait / min(bounded)))]
    every = 1
    while len(ticks[::every]) > 240:
        every *= 2
    assert greys(made) == ticks[::every]
    assert made.rate == pytest.approx(1000 / min(bounded) / every)
    for suffix in (".gif", ".webp", ".mp4"):
        assert encoded(made.sampled(3).frames, made.rate, suffix)


def test_frames_without_a_time_come_8_a_second(tmp_path: Path) -> None:
    assert open_clip(animation(tmp_path / "a.webp", [0, 0])).rate == 8.0
    Image.new("RGB", (9, 9)).save(tmp_path / "still.png")
    made = open_clip(tmp_path / "still.png")
    assert (len(made), made.rate) == (1, 8.0)


def test_animations_of_too_many_frames_or_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = animation(tmp_path / "a.webp", [10] * 5)
    monkeypatch.setattr("mmgradcam.images.clips.MOST_READ", 5)
    monkeypatch.setattr("mmgradcam.images.clips.MOST_DECODED", 5 * 16 * 16)
    assert len(open_clip(path)) == 5
    for name, most in (("MOST_READ", 4), ("MOST_DECODED", 5 * 16 * 16 - 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"mmgradcam.images.clips.{name}", most)
            with pytest.raises(InputError, match="5 frames of 16 x 16 are more than can be read in a while"):
                open_clip(path)
    monkeypatch.setattr("mmgradcam.images.pictures.MOST_PIXELS", 255)
    with pytest.raises(InputError, match="16 x 16 is over 255 pixels"):
        open_clip(path)


def test_transparent_frames_lie_on_white_and_bring_no_comment(tmp_path: Path) -> None:
    frames = [Image.new("RGBA", (16, 16), (200, 0, 0, alpha)) for alpha in (255, 0)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=100, lossless=True, xmp=b"my address")
    made = open_clip(tmp_path / "a.webp")
    assert [np.asarray(frame)[0, 0].tolist() for frame in made.frames] == [[200, 0, 0], [255, 255, 255]]
    assert all(frame.info == {} and frame.mode == "RGB" for frame in made.frames)


@pytest.mark.parametrize(("count", "every"), [(240, 1), (241, 2), (480, 2), (481, 4), (1, 1), (3000, 16)])
def test_every_second_fourth_or_eighth_is_kept_so_that_240_are_enough(tmp_path: Path, count: int, every: int) -> None:
    """Of a folder, only those that are kept are opened."""
    for i in range(count):
        (tmp_path / f"{i}.png").symlink_to(tmp_path / "good" if i % every == 0 else tmp_path / "none")
    Image.new("RGB", (16, 8), (7, 7, 7)).save(tmp_path / "good", "png")
    made = open_clip(tmp_path)
    assert len(made) == -(-count // every) <= 240
    assert made.rate == 8.0 / every


def test_large_frames_are_made_small(tmp_path: Path) -> None:
    for width, height, expected in ((641, 320, (640, 320)), (640, 9, (640, 9)), (100, 1280, (50, 640))):
        Image.new("RGB", (width, height)).save(tmp_path / "a.png")
        assert open_clip(tmp_path / "a.png").size == expected
        assert open_clip([tmp_path / "a.png"]).size == (width, height)


ORDERED = ["frame-2.png", "frame-09.png", "frame-10.png", "frame-10b.png", "frame-²3.png", "frame-٣.png", "x.png", "²3.png"]


def test_names_with_digits_of_any_kind_are_ordered(tmp_path: Path) -> None:
    for name in ORDERED:
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    names = [path.name for path in frames_of(tmp_path)]
    assert sorted(names) == sorted(ORDERED)
    assert names.index("frame-2.png") < names.index("frame-٣.png") < names.index("frame-09.png") < names.index("frame-10.png")
    assert len(open_clip(tmp_path)) == len(ORDERED)


def test_what_is_no_film_or_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "pipe.gif")
    (tmp_path / "frames").mkdir()
    os.mkfifo(tmp_path / "frames" / "0.png")
    (tmp_path / "zero.avi").symlink_to("/dev/zero")
    (tmp_path / "text.png").write_text("no")
    (tmp_path / "text.mp4").write_text("no" * 1000)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "bomb.png").write_bytes(b"qoif" + struct.pack(">II", 2**31, 2**31) + bytes(40))
    (tmp_path / "cut.gif").write_bytes(animation(tmp_path / "a.gif", [100] * 9).read_bytes()[:-20])
    cases = {
        "pipe.mp4": "got a pipe", "pipe.gif": "got a pipe", "frames": "got a pipe", "zero.avi": "got a device",
        "text.png": "damaged or no animated picture", "text.mp4": "damaged or no film", "empty.mp4": "damaged or no film", "bomb.png": "damaged or no animated picture",
        "x" * 256: "cannot be opened", "none": "no such file", "a\0": "cannot be opened", "\udcff": "no such file",
    }  # fmt: skip
    for name, message in cases.items():
        with pytest.raises(InputError, match=message) as refusal:
            open_clip(tmp_path / name)
        assert len(str(refusal.value).splitlines()) == 1
    for source in (3, None, b"a.gif"):
        with pytest.raises(InputError, match="expected a film file, a folder of frames or a list of pictures"):
            open_clip(source)

    def denied(self: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(InputError, match=r"the folder cannot be read .Permission denied."):
        open_clip(tmp_path / "frames")


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"a.gif: expected a rate of frames per second above 0"):
        Clip((Image.new("RGB", (9, 9)),), rate, "a.gif")


def test_what_is_no_clip_in_memory_is_said_by_its_name_where_it_has_one() -> None:
    sizes = [Image.new("RGB", (9 + i, 9)) for i in (3, 0, 2, 1)]
    for name, called_so in (("", "the clip"), ("a.gif", "a.gif")):
        for given, rate, said in (
            (sizes, 8.0, "expected frames of one size, got 9 x 9, 10 x 9, 11 x 9; resize them first"),
            ([], 8.0, "expected at least one frame, got none"),
            (sizes[:1], -0.5, "expected a rate of frames per second above 0, got -0.5"),
        ):
            with pytest.raises(InputError) as refusal:
                Clip(tuple(given), rate, name)
            assert str(refusal.value) == f"{called_so}: {said}"
    made = Clip(tuple(sizes[:1]), 0.5)
    assert (made.size, made.rate, len(made)) == ((12, 9), 0.5, 1)
    with pytest.raises(FrozenInstanceError):
        made.rate = -1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("count", "width", "height", "read"),
    [(20_000, 1000, 500, True), (20_001, 9, 9, False), (200, 7071, 7071, True), (200, 7072, 7072, False)],
)
def test_animations_may_have_20_000_frames_and_ten_thousand_million_pixels(
    count: int, width: int, height: int, read: bool
) -> None:
    class Claiming:
        n_frames, size = count, (width, height)

        def seek(self, frame: int) -> None:
            raise EOFError("read")

    picture: Any = Claiming()
    picture.width, picture.height = picture.size
    with pytest.raises(
        ValueError if read else InputError, match="min" if read else "frames of .* are more than can be read in a while"
    ):
        clips._animated(picture, Path("a.gif"))


@pytest.mark.parametrize(
    ("told", "rate"),
    [(None, 8.0), (0, 8.0), (-5, 8.0), (Fraction(1, 2), 0.5), (1000, 1000.0), (Fraction(2001, 2), 8.0), (25, 25.0)],
)
def test_a_films_rate_is_taken_where_it_makes_sense(told: Any, rate: float) -> None:
    assert clips._rate_of(None if told is None else Fraction(told)) == rate


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ZeroDivisionError("by 0"), "by 0"),
        (AttributeError("no\nsuch thing"), "no such thing"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (InputError("as it is"), None),
    ],
)
def test_what_reading_a_film_raises_is_said_in_one_line(
    error: Exception, reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    (tmp_path / "a.mp4").write_bytes(encoded(clip(2).frames, 8, ".mp4"))

    def broken(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(clips, "_gathered", broken)
    with pytest.raises(InputError) as refusal:
        open_clip(tmp_path / "a.mp4")
    whole = f"{tmp_path}/a.mp4: the file is damaged or no film ({reason}); save or download it again"
    assert str(refusal.value) == ("as it is" if reason is None else whole)


def test_films_over_the_limit_of_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    (tmp_path / "a.mp4").write_bytes(encoded(clip(2, (32, 16)).frames, 8, ".mp4"))
    monkeypatch.setattr(clips, "MOST_PIXELS", 512)
    assert len(open_clip(tmp_path / "a.mp4")) == 2
    monkeypatch.setattr(clips, "MOST_PIXELS", 511)
    monkeypatch.setattr(clips, "_gathered", None)
    with pytest.raises(InputError, match="32 x 16 is over 511 pixels; make it smaller first"):
        open_clip(tmp_path / "a.mp4")


def test_without_pyav_films_are_refused_and_animations_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"film" * 100)
    with pytest.raises(InputError, match=r"a\.mp4: to read films, PyAV is needed: pip install av"):
        open_clip(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"^to write MP4, PyAV is needed"):
        encoded(clip(2).frames, 8, ".mp4")
    with pytest.raises(InputError, match=r"\.avi: expected a film as \.gif, \.webp or \.mp4"):
        encoded(clip(2).frames, 8, ".avi")
    assert len(open_clip(animation(tmp_path / "a.gif", [10] * 2))) == 2


@pytest.mark.parametrize("rate", [30_000 / 1001, 2.001, 1 / 3, 1000.0])
def test_rates_of_films_come_back_as_they_were(rate: float, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    (tmp_path / "a.mp4").write_bytes(encoded(clip(3).frames, rate, ".mp4"))
    assert open_clip(tmp_path / "a.mp4").rate == pytest.approx(rate, rel=1e-6)


def test_of_several_films_in_a_file_the_first_is_read(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        streams = [container.add_stream("libx264", rate=8) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for stream, color in zip(streams, ("white", "black"), strict=True):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (32, 16), color))))
            container.mux(stream.encode())
    (frame,) = open_clip(tmp_path / "a.mp4").frames
    assert np.asarray(frame).mean() > 240


def test_a_film_is_read_by_what_it_holds_and_opens_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    frames = [Image.new("RGB", (32, 16), (i * 20,) * 3) for i in range(8)]
    (tmp_path / "film").write_bytes(encoded(frames, 8, ".mp4"))
    (tmp_path / "a.mp4").write_bytes(animation(tmp_path / "a.webp", [100] * 3).read_bytes())
    assert len(open_clip(tmp_path / "film")) == 8
    assert len(open_clip(tmp_path / "a.mp4")) == 3
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{tmp_path}/film\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {tmp_path}/film\n")
    for name in ("list.m3u8", "list.mp4"):
        with pytest.raises(InputError, match="the file is damaged or no film"):
            open_clip(tmp_path / name)


@pytest.mark.parametrize(("count", "every"), [(5, 1), (6, 2), (9, 2), (11, 4), (21, 8)])
def test_a_film_keeps_every_second_frame_as_often_as_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, every: int
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    monkeypatch.setattr(clips, "MOST_FRAMES", 5)
    shades = [Image.new("RGB", (32, 32), (11 * n, 11 * n, 11 * n)) for n in range(count)]
    (tmp_path / "film.mp4").write_bytes(encoded(shades, 8.0, ".mp4"))
    made = open_clip(tmp_path / "film.mp4")
    kept = [round(float(np.asarray(frame).mean()) / 11) for frame in made.frames]
    assert kept == list(range(0, count, every))
    assert made.rate == 8 / every


def test_odd_sides_get_their_last_edge_again() -> None:
    for height, width in ((3, 5), (4, 5), (3, 6), (4, 6)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        (made,) = clips._even([Image.fromarray(pixels)])
        rows, columns = [*range(height)] + [height - 1] * (height % 2), [*range(width)] + [width - 1] * (width % 2)
        assert (np.asarray(made) == pixels[np.ix_(rows, columns)]).all()


@pytest.mark.parametrize(("rate", "wait"), [(10.0, 100), (3.0, 333), (0.02, 50_000), (0.001, 60_000), (1e-9, 60_000)])
def test_frames_are_written_to_stay_as_long_as_their_rate_says_and_a_minute_at_most(rate: float, wait: int) -> None:
    shades = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "green")]
    for suffix in (".gif", ".webp"):
        with Image.open(io.BytesIO(encoded(shades, rate, suffix))) as film:
            assert (film.n_frames, film.info.get("loop")) == (3, 0)  # type: ignore[attr-defined]
            for n in range(3):
                film.seek(n)
                film.load()
                assert film.info["duration"] == (wait // 10 * 10 if suffix == ".gif" else wait)


def test_numbers_in_names_come_before_letters(tmp_path: Path) -> None:
    names = ["1.png", "2a.png", "10.png", "a.png", "a1.png", "a1b.png", "a01c.png", "aa.png", "b1.png"]
    for name in reversed(names):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    assert [file.name for file in frames_of(tmp_path)] == names


def test_a_film_that_was_taken_sideways_is_upright(tmp_path: Path) -> None:
    """The matrix of the track's header says how far a player turns it; a quarter turn clockwise here."""
    pytest.importorskip("av", reason="PyAV is not installed")
    left_is_white = Image.fromarray(
        np.repeat(np.where(np.arange(32) < 16, 255, 0)[None, :, None], 16, 0).repeat(3, 2).astype(np.uint8)
    )
    data = encoded([left_is_white] * 4, 8, ".mp4")
    one, none = (struct.pack(">i", value) for value in (1 << 16, 0))
    end = struct.pack(">i", 1 << 30)
    plain, turned = one + none * 3 + one + none * 3 + end, none + one + none + struct.pack(">i", -(1 << 16)) + none * 4 + end
    at = data.index(plain, data.index(b"tkhd"))
    (tmp_path / "film.mp4").write_bytes(data[:at] + turned + data[at + len(plain) :])
    frame = np.asarray(open_clip(tmp_path / "film.mp4").frames[0], dtype=int)
    assert frame.shape == (32, 16, 3)
    assert frame[:12].mean() > 240
    assert frame[20:].mean() < 15


def test_frames_are_taken_at_even_distances() -> None:
    whole = clip(5)
    for count, expected in ((1, [0]), (2, [0, 4]), (3, [0, 2, 4]), (4, [0, 1, 3, 4])):
        made = whole.sampled(count)
        assert [next(i for i, f in enumerate(whole.frames) if f is frame) for frame in made.frames] == expected
        assert (made.rate, made.name) == (10.0 * count / 5, "square")
    few = clip(2).sampled(4)
    assert len(few) == 4
    assert few.frames[0] is few.frames[1]
    assert few.rate == 20.0


@pytest.mark.parametrize("method", [gradcam, gradcam_pp_code, hirescam, layercam, normgrad, xgradcam])
def test_maps_over_time_are_those_of_the_formula_on_the_3d_grid(method: Any) -> None:
    task = video()
    made = explain(task, clip(), classes=["right", "up"], method=method)
    assert made.maps.shape == (2, 8, 8, 12), "every moment has its own cells"
    features = task.encode(task.prepare(clip()).pixels[None]).detach()
    for k, label in enumerate((1, 2)):
        leaf = features.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(task.head(leaf)[0, label], leaf)
        torch.testing.assert_close(made.maps[k], method(features, gradient)[0])


def test_a_clip_s_score_is_the_mean_of_its_moments() -> None:
    task = video()
    features = task.encode(task.prepare(clip()).pixels[None]).detach()
    said = task.head.out(features)  # type: ignore[operator]
    moments = [said[0, :, t].flatten(1).exp().mean(1).log() for t in range(8)]
    torch.testing.assert_close(task.head(features)[0], torch.stack(moments).mean(0))


def test_features_are_weighed_by_what_is_not_as_it_usually_is() -> None:
    torch.manual_seed(0)
    encoder = ClipEncoder((4, 6)).eval()
    clips = torch.zeros(1, 3, 5, 16, 16)
    for t in range(5):
        clips[0, :, t, 4:8, 4 * t - 4 : 4 * t] = 1.0 if t in (1, 2, 3, 4) else 0.0
    clips[0, :, :, 12:, 12:] = 9.0  # bright, and always there
    weights = encoder.weights(clips)[0, 0]
    assert weights.shape == (5, 4, 4)
    assert float(weights[0].max()) == 0.0, "nothing stands where nothing usually does"
    for t in (1, 2, 3, 4):
        # The mean over 9 cells, over fewer at the border; in a frame where one cell alone is unusual.
        around = torch.zeros(4, 4)
        for y in range(4):
            for x in range(4):
                near = [(b, a) for b in range(y - 1, y + 2) for a in range(x - 1, x + 2) if 0 <= a < 4 and 0 <= b < 4]
                around[y, x] = sum((b, a) == (1, t - 1) for b, a in near) / len(near)
        torch.testing.assert_close(weights[t], around / around.max())
    features = encoder(clips)
    assert bool((features[0, :, 0] == 0).all())
    assert bool((features[0, :, 2, 3] == 0).all()), "below and beside nothing is unusual"


def test_heat_is_linear_between_the_middles_of_cells_in_time() -> None:
    maps = torch.zeros(1, 2, 1, 1)
    maps[0, 1] = 1.0
    heat = heatmaps.over_time(maps, (0.0, 0.0, 1.0, 1.0), 4, (2, 2))[0, :, 0, 0]
    torch.testing.assert_close(heat, torch.tensor([0.0, 0.25, 0.75, 1.0]))
    assert heatmaps.over_time(maps[:, 1:], (0.0, 0.0, 1.0, 1.0), 3, (2, 2)).min() == 1.0


def test_an_explanation_of_a_clip_saves_a_player_and_is_read_back(tmp_path: Path) -> None:
    made = explain(video(), clip(), top=2, contrast="up")
    assert made[0].heat().shape == (6, 32, 48)
    peak = made[0].peak
    assert peak is not None
    assert len(peak) == 3
    names = {path.name for path in made.save(tmp_path / "saved", film=".webp")}
    assert names == {"strip.png", "film.webp", "index.html", "explanation.json", "maps.npz"}
    assert len(open_clip(tmp_path / "saved" / "film.webp")) == 6
    described = json.loads((tmp_path / "saved" / "explanation.json").read_text())
    assert described["clip"] == {"frames": 6, "rate": 10.0}
    assert described["targets"][0]["peak"] == list(peak)
    back = Explanation.load(tmp_path / "saved")
    assert back.clip is not None
    assert back.labels == made.labels
    np.testing.assert_array_equal(back[0].heat(), made[0].heat())
    assert made[0].overlay().size[0] >= 256
    joined = made[0:1]
    assert joined.clip is not None
    with pytest.raises(InputError, match="explains clips; give a Clip"):
        explain(video(), Image.new("RGB", (32, 32)))


def test_text_in_the_player_is_escaped() -> None:
    film = Animation(
        clip(2),
        [HeatTrack("</script><b>", np.zeros((2, 32, 48), np.float32))],
        "<i>",
        moments=[FrameInfo("<u>", [("<a>", 1.0)])] * 2,
    )
    page = film.page()
    assert "<b>" not in page
    assert "<i>" not in page.replace("<i>", "", 0).split("<style>")[0]
    assert "<u>" not in page
    assert page.count("</script>") == 2
    with pytest.raises(InputError, match=r"expected heat \(T, h, w\) of 'x', got \(32, 48\)"):
        Animation(clip(2), [HeatTrack("x", np.zeros((32, 48), np.float32))], "x")
    with pytest.raises(InputError, match="a moment for each of 2 frames"):
        Animation(clip(2), [], "x", moments=[FrameInfo()])


@pytest.mark.browser
def test_the_player_plays_steps_and_shows_values(tmp_path: Path) -> None:
    moments = [FrameInfo(f"step {i}", [("left", -0.5), ("right", 1.0 * i)], 1) for i in range(6)]
    heat = np.linspace(0, 1, 6 * 32 * 48, dtype=np.float32).reshape(6, 32, 48)
    page = Animation(
        clip(), [HeatTrack("right", heat), HeatTrack("left", heat[::-1])], "square", moments=moments, values_are="values"
    ).page()
    script = """<script>addEventListener('load',async()=>{const b=id=>document.getElementById(id),src=()=>document.querySelector('.base').src;
const wait=ms=>new Promise(r=>setTimeout(r,ms));const log=[];if(b('play').textContent!=='▶')b('play').click();
b('at').value=0;b('at').dispatchEvent(new Event('input'));const first=src();b('next').click();log.push(src()!==first,b('n').textContent,b('say').textContent);
b('back').click();b('back').click();log.push(b('n').textContent);b('play').click();await wait(400);log.push(b('n').textContent!=='6 / 6');
b('play').click();const look=()=>document.querySelector('.heat').toDataURL(),before=look();document.querySelectorAll('button[data-i]')[1].click();
log.push(look()!==before,document.querySelector('.values .on b').textContent);
document.title=JSON.stringify(log)});</script>"""
    (tmp_path / "page.html").write_text(page.replace("</body>", script + "</body>"))
    told = [str(chromium()), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
    done = subprocess.run([*told, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120)
    title = done.stdout.split("<title>")[1].split("</title>")[0]
    assert json.loads(title) == [True, "2 / 6", "step 1", "6 / 6", True, True, "right"]


def test_a_clip_model_of_torchvision_is_explained_at_its_last_grid() -> None:
    torch.manual_seed(0)
    resnet = models.video.resnet
    model = resnet.VideoResNet(  # mc3_18 with one block a stage instead of two
        resnet.BasicBlock, [resnet.Conv3DSimple] + [resnet.Conv3DNoTemporal] * 3, [1, 1, 1, 1], resnet.BasicStem
    )
    transform = models.get_model_weights("mc3_18").DEFAULT.transforms()
    task = frames.of_model(model, transform, [f"sport {i}" for i in range(400)])
    made = explain(task, clip(20, (64, 48)), classes=["sport 3"])
    assert made.metadata.feature_layer.startswith("layer4")
    assert made.maps.shape == (1, 16, 7, 7)  # mc3 is 2D from its second stage on, and keeps time
    assert made.box == pytest.approx((0.175, 0.0625, 0.83, 0.9375), abs=0.01)  # 171 x 128, cropped to 112
    assert made[0].heat().shape == (20, 48, 64)
    assert isinstance(task, Layer)
    with pytest.raises(InputError, match="this model sees clips"):
        explain(task, Image.new("RGB", (64, 64)))


def test_a_layer_of_a_whole_clip_model_gives_the_gradient_of_its_score() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 5, 3, 2, 1), nn.Flatten(2)).eval()
    model = nn.Sequential(net, _Mean())
    task = Layer(
        model, "0.1", prepare=lambda given: Preprocess((16, 16))(given.frames[0]).pixels[:, None].expand(-1, 6, -1, -1)
    )
    made = explain(task, clip(), classes=[2], method=hirescam)
    inside = net[:2](task.prepare(clip()).pixels[None]).detach().requires_grad_()  # type: ignore[arg-type]
    score = net[2:](inside).mean(2)[0, 2]
    (gradient,) = torch.autograd.grad(score, inside)
    torch.testing.assert_close(made.map, (inside * gradient).sum(1)[0].detach())


class _Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(2)


@pytest.mark.parametrize("kind", MOTIONS)
def test_what_moves_goes_where_its_name_says(kind: str) -> None:
    motion = next(m for m in (make_motion(seed) for seed in range(500)) if m.kind == kind)
    moving = render_motion(motion)
    ys, xs = (np.array([np.nonzero(mask)[axis].mean() for mask in moving.masks]) for axis in (0, 1))
    area = moving.masks.sum((1, 2))
    dx, dy = xs[-1] - xs[0], ys[-1] - ys[0]
    way = {"left": dx < -15, "right": dx > 15, "up": dy < -15, "down": dy > 15}
    if kind.startswith("moves"):
        assert way[kind[6:]]
    elif kind.startswith("circles"):
        cx, cy = (xs.max() + xs.min()) / 2, (ys.max() + ys.min()) / 2
        turn = np.diff(np.unwrap(np.arctan2(ys - cy, xs - cx))).sum()
        assert (turn > 3) == kind.endswith(" clockwise")  # y runs down
        assert abs(turn) > 3
    else:
        assert (area[-1] > 2 * area[0]) if kind == "grows" else (area[0] > 2 * area[-1])
    first, last = (np.asarray(moving.clip.frames[i], float) for i in (0, -1))
    still = ~(moving.masks.any(0))
    changed = np.abs(first - last).max(-1)[still]
    assert np.median(changed) < 8, "what does not move looks the same"


def test_the_command_line_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.gif").write_bytes(b"GIF89a nothing")
    for told, said in [
        (["video", tmp_path / "broken.gif", "--model", "scenes-vqa"], "try `mmgradcam vqa`"),
        (["video", tmp_path / "broken.gif", "--model", "x", "--animation-format", "avi"], "expected gif, webp or mp4"),
        (["video", tmp_path / "broken.gif", "--model", "torchvision:r9d"], "did you mean"),
    ]:
        assert called(*told) == 1
        error = capsys.readouterr().err
        assert said in error
        assert len(complaints(error)) == 1
