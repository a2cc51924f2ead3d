"""Rendered motions as clips whose every pixel is known, frame by frame."""

from __future__ import annotations

from mmgradcam.datasets.records import ObjectAnnotation, Sample
from mmgradcam.datasets.scene_source import SCENES
from mmgradcam.datasets.stream import Source
from mmgradcam.errors import InputError
from mmgradcam.scenes.motion import make_motion, render_motion
from mmgradcam.scenes.splits import seeds


def motions(split: str = "test") -> Source:
    """Clips of 16 frames, in each of which one object moves in one of eight ways, and the pixels of that object.

    Args:
        split: "test" or "validation".

    Raises:
        InputError: no such split.
    """
    if split not in ("test", "validation"):
        raise InputError(f'motions: expected "motions" or "motions:test", or "motions:validation", got "motions:{split}"')
    return Source(f"motions:{split}", seeds(split, SCENES), motion_clip, "motion {}".format, holds="clips")


def motion_clip(seed: int) -> Sample:
    """A motion as a sample of one object, named after the way it moves, which is the sample's group as well.

    >>> sample = motion_clip(7)
    >>> len(sample.clip), sample.objects[0].pixels.shape, sample.group == sample.objects[0].label
    (16, (16, 64, 64), True)
    """
    motion = make_motion(seed)
    moving = render_motion(motion)
    moved = ObjectAnnotation(motion.kind, pixels=moving.masks)
    return Sample(moving.clip.name, moving.clip.frames[0], objects=(moved,), group=motion.kind, clip=moving.clip)
