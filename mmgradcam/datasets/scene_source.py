"""The project's own scenes as photos whose every pixel is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmgradcam.datasets.records import Judged, ObjectAnnotation, Phrase, Question, Sample
from mmgradcam.datasets.stream import Source
from mmgradcam.errors import InputError
from mmgradcam.images.pictures import Box
from mmgradcam.scenes.captions import captions_of, judge
from mmgradcam.scenes.questions import questions_of
from mmgradcam.scenes.render import Mask, Picture, render
from mmgradcam.scenes.scene import Scene, make_scene
from mmgradcam.scenes.splits import seeds

SCENES = 10_000
"""Scenes of a split."""
CAPTIONS = 3
"""Captions of a scene."""
LOCATED = ("kind", "color")
"""Roles of words whose place is measured: what tells one thing from others."""


def scenes(split: str = "test", generated: bool = False) -> Source:
    """Scenes with captions, questions and things, and the pixels of all that they speak of.

    A phrase for each word of a caption that names a kind or a color; a question has pixels where its answer rests on one
    thing alone; one thing per kind.

    Args:
        split: "test" or "validation".
        generated: without captions and their phrases: a captioner says what it sees, and is judged by the scene.

    Raises:
        InputError: no such split.
    """
    if split not in ("test", "validation"):
        raise InputError(f'scenes: expected "scenes" or "scenes:test", or "scenes:validation", got "scenes:{split}"')
    name = f"scenes:{split}:generated" if generated else f"scenes:{split}"

    def read(seed: int) -> Sample:
        photo = scene_photo(make_scene(seed))
        return replace(photo, captions=(), phrases=()) if generated else photo

    return Source(name, seeds(split, SCENES), read, "scene {}".format)


def scene_photo(scene: Scene) -> Sample:
    """A scene, rendered, with all that is known of it.

    >>> photo = scene_photo(make_scene(5))
    >>> photo.objects[0].label, photo.phrases[0].text, photo.phrases[0].types
    ('cylinder', 'blue', ('color',))
    """
    picture = render(scene)
    captions = captions_of(scene, CAPTIONS)
    phrases = []
    for number, caption in enumerate(captions):
        for i, (word, role, refers) in enumerate(zip(caption.words, caption.roles, caption.refers, strict=True)):
            if role in LOCATED and refers:
                phrases.append(Phrase(number, i, i, word, (role,), *_place(picture, refers)))
    questions = [
        Question(one.text, one.kind, (one.answer,), *(_place(picture, one.refers) if len(one.refers) == 1 else ((), None)))
        for one in questions_of(scene)
    ]
    kinds = list(dict.fromkeys(thing.kind for thing in scene.objects))
    of = {kind: [i for i, thing in enumerate(scene.objects) if thing.kind == kind] for kind in kinds}
    objects = tuple(ObjectAnnotation(kind, *_place(picture, of[kind])) for kind in kinds)
    said = tuple(caption.words for caption in captions)
    return Sample(
        f"scene-{scene.seed}", picture.image, said, tuple(phrases), tuple(questions), objects, judge=SceneJudge(scene)
    )


@dataclass(frozen=True)
class SceneJudge:
    """Judges captions by a scene, whose every object is known to the pixel."""

    scene: Scene

    def __call__(self, words: Sequence[str]) -> list[Judged]:
        """Of each word its role, its truth, of a claim at its first word alone, and the pixels of what it speaks of."""
        judged, picture = judge(words, self.scene), render(self.scene)
        claims = {claim.word: claim for claim in judged.claims}
        made = []
        for i, (role, refers) in enumerate(zip(judged.roles, judged.refers, strict=True)):
            claim = claims.get(i)
            said = claim.role if claim else "" if role == "function" else role
            boxes, pixels = _place(picture, refers) if refers else ((), None)
            made.append(Judged(said, claim.true if claim else None, boxes, pixels, refers))
        return made


def _place(picture: Picture, which: Sequence[int]) -> tuple[tuple[Box, ...], Mask]:
    side = picture.image.width
    boxes = tuple((x0 / side, y0 / side, x1 / side, y1 / side) for x0, y0, x1, y1 in picture.boxes[list(which)].tolist())
    pixels: Mask = np.any(picture.masks[list(which)], axis=0)
    return boxes, pixels
