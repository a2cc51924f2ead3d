"""Results: maps with their labels and scores. What draws and saves them is imported when it is called."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.explanation.indexing import listing, positions_of
from mmgradcam.explanation.metadata import Metadata, SanityResult
from mmgradcam.images.clips import Clip
from mmgradcam.images.pictures import Box
from mmgradcam.images.regions import PixelBox, segment_boxes
from mmgradcam.task import Target, Task, spelled

WEAKLY_GROUNDED = math.log(1.5)
"""A target that gains less than this from the picture, or loses, does not rest on it."""
WORDS = ("log-probability", "word logit")
"""Units of scores of the words of a sentence."""


class Explanation:
    """Maps of K targets over one picture, in the order of the targets.

    Index it by position, by label ("ball"), by label and occurrence (("ball", 1)), by a slice or by a phrase ("red ball"):
    each gives an `Explanation` of one target. A slice or phrase is differentiated jointly, as the sum of its targets'
    scores, which needs the model; it is not a merge of maps. What is not there is an `InputError` that is an `IndexError` too.
    Iteration gives the targets one by one.

    `map`, `score`, `label`, `peak`, `boxes`, `mask` and `overlay` speak of one target.

    Args:
        picture: the user's picture, RGB.
        box: the rectangle of it that the grid covers, in fractions of its width and height; where the model saw the picture
            in T tiles, T of them, and maps are (K, T, h, w).
        targets: K targets.
        maps: (K, *grid) float32, raw.
        scores: (K,) float32.
        words: (K, L) importance of each token that the targets read, or None.
        warnings: for each target, why its map shows nothing, or None.
        metadata: how it was made.
        task: what was explained; None once loaded from a file.
        again: explains another target of the same picture; None once loaded from a file.
        std: (K, *grid) standard deviation of the maps, where the method gives one.
        clip: the clip that maps (K, t, h, w) are of; `picture` is then its middle frame, and `heat` is over all frames.
        sanity_results: for each target, what a check said of its map (`mmgradcam.metrics.sanity_check`); none where nobody
            asked.
    """

    def __init__(
        self,
        picture: Image.Image,
        box: Box | tuple[Box, ...],
        targets: Sequence[Target],
        maps: Tensor,
        scores: Tensor,
        words: Tensor | None,
        warnings: Sequence[str | None],
        metadata: Metadata,
        task: Task | None = None,
        again: Callable[[Target], Explanation] | None = None,
        std: Tensor | None = None,
        clip: Clip | None = None,
        sanity_results: Sequence[SanityResult | None] = (),
    ) -> None:
        self.picture, self.box, self.metadata = picture, box, metadata
        self.targets, self.maps, self.scores, self.words = list(targets), maps, scores, words
        self.warnings, self.std = list(warnings), std
        self._task, self._again, self.clip = task, again, clip
        self.sanity_results = list(sanity_results) or [None] * len(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __iter__(self) -> Iterator[Explanation]:
        return (self._only(i) for i in range(len(self)))

    def __getitem__(self, key: int | slice | str | tuple[str, int]) -> Explanation:
        return self._joined(positions_of(self.targets, key))

    def _only(self, i: int) -> Explanation:
        words = None if self.words is None else self.words[i : i + 1]
        return Explanation(
            self.picture, self.box, self.targets[i : i + 1], self.maps[i : i + 1], self.scores[i : i + 1], words,
            self.warnings[i : i + 1], self.metadata, self._task, self._again,
            None if self.std is None else self.std[i : i + 1], self.clip, self.sanity_results[i : i + 1],
        )  # fmt: skip

    def _joined(self, indices: Sequence[int]) -> Explanation:
        if len(indices) == 1:
            return self._only(indices[0])
        made: Explanation = self.explainer(self.task.join([self.targets[i] for i in indices]))
        return made

    def with_method(self, method: Any) -> Explanation:
        """The same targets of the same picture, explained by another method, as of `explain`.

        Raises:
            InputError: it was loaded from a file, and has no model.
        """
        made: Explanation = self.explainer.of([self.targets], [self.explainer.view.pixels], {"methods": (method,)})[0]
        return made

    @property
    def task(self) -> Task:
        """The model that was explained.

        Raises:
            InputError: it was loaded from a file, and has no model.
        """
        self._live()
        assert self._task is not None
        return self._task

    @property
    def explainer(self) -> Any:
        """The way it was made, to make others like it: `mmgradcam.explaining.explain.BoundExplainer`.

        Raises:
            InputError: it was loaded from a file, and has no model.
        """
        self._live()
        return self._again

    def _live(self) -> None:
        if self._task is None or self._again is None:
            raise InputError("this needs the model, and the explanation was loaded from a file; explain anew")

    @property
    def labels(self) -> list[str]:
        """What each target is called."""
        return [target.label for target in self.targets]

    @property
    def text(self) -> str:
        """The caption, as it was written, where the targets are its words; else the labels, separated by commas."""
        return spelled(self.targets) if self.metadata.unit in WORDS else ", ".join(self.labels)

    def _one(self) -> None:
        if len(self) != 1:
            raise InputError(f"this speaks of one target, and there are {len(self)}; pick one of {listing(self.targets)}")

    @property
    def label(self) -> str:
        """The target's label."""
        self._one()
        return self.targets[0].label

    @property
    def map(self) -> Tensor:
        """The target's raw map, (*grid) float32."""
        self._one()
        return self.maps[0]

    @property
    def score(self) -> float:
        """The target's score, in `metadata.unit`."""
        self._one()
        return float(self.scores[0])

    @property
    def warning(self) -> str | None:
        """Why the map shows nothing (no gradient, below rounding, no positive evidence, not finite), or None."""
        self._one()
        return self.warnings[0]

    @property
    def sanity_result(self) -> SanityResult | None:
        """What a check said of the map (`mmgradcam.metrics.sanity_check`); None where nobody asked."""
        self._one()
        return self.sanity_results[0]

    @property
    def importances(self) -> list[tuple[str, float]]:
        """Each word the target reads with its importance, gradient times embedding summed over its tokens; signed."""
        self._one()
        if self.words is None:
            return []
        row = self.words[0]
        return [(w.text, float(row[w.first : w.last + 1].sum())) for w in self.targets[0].input_tokens]

    def heat(self, size: tuple[int, int] | None = None) -> npt.NDArray[np.float32]:
        """The map's positive part on the picture, (height, width) float32 in 0..1; all 0 if there is none.

        Of a clip, (frames, height, width), scaled to the maximum of all of it.

        Args:
            size: height and width to draw it at; by default the picture's.
        """
        from mmgradcam.render import drawing

        self._one()
        return drawing.heat(self, size)

    def scaled(self) -> Tensor:
        """(K, *grid) the maps' positive parts, each divided by the largest value that it has on the picture or in the clip."""
        from mmgradcam.render import drawing

        return drawing.scaled(self)

    @property
    def peak(self) -> tuple[int, ...] | None:
        """x, y in pixels of the picture where the map is largest, and of a clip the frame; None if it shows nothing."""
        from mmgradcam.render import drawing

        self._one()
        return drawing.peak(self)

    def boxes(self, threshold: float = 0.15) -> list[PixelBox]:
        """Boxes (x0, y0, x1, y1) in pixels around the connected segments above a share of the maximum, largest segment first.

        The first is the box of Grad-CAM's localization protocol (Selvaraju et al. 2017, section 4.1).

        Args:
            threshold: share of the map's maximum, in 0..1.
        """
        if self.clip is not None:
            raise InputError("boxes are of a picture, and this is of a clip; `mask` gives one mask per frame")
        return segment_boxes(self.mask(threshold))

    def mask(self, threshold: float = 0.15) -> npt.NDArray[np.bool_]:
        """(height, width) bool: where the map exceeds a share of its maximum.

        Args:
            threshold: share of the map's maximum, in 0..1.
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"expected a threshold in 0..1, got {threshold}")
        heat = self.heat()
        return (heat >= threshold) & (heat > 0)

    @property
    def weakly_grounded(self) -> bool:
        """Whether it does not rest on the picture, which makes it less than 1.5 times as likely. False if nobody asked."""
        self._one()
        grounding = self.targets[0].grounding
        return grounding is not None and grounding < WEAKLY_GROUNDED

    def overlay(self, opacity: float | None = None) -> Image.Image:
        """The picture with the target's heat over it, of a clip the frame where it peaks; the picture alone without heat.

        Args:
            opacity: of the heat, 0..1; by default 1, and 0.3 where the target does not rest on the picture (`weakly_grounded`).
        """
        from mmgradcam.render import drawing

        return drawing.overlay(self, opacity)

    def over(self, picture: Image.Image, opacity: float | None = None) -> Image.Image:
        """As `overlay`, over the picture at another size."""
        from mmgradcam.render import drawing

        return drawing.over(self, picture, opacity)

    def animation(self) -> Any:
        """The frames of a clip with the targets' heat over them.

        Raises:
            InputError: this is no clip.
        """
        from mmgradcam.render import drawing

        return drawing.animation(self)

    def panels(self, side: int = 320) -> Image.Image:
        """The picture once, then one panel per target; none for punctuation.

        Args:
            side: longest side of a panel in pixels.
        """
        from mmgradcam.render import drawing

        return drawing.panels(self, side)

    def caption(self) -> str:
        """Small print for one target: its probability or score, or why its map shows nothing."""
        from mmgradcam.render import drawing

        self._one()
        return drawing.caption(self)

    def model_hash(self) -> str:
        """SHA-256 of the model's weights as they are now, or as they were when the explanation was saved."""
        return self._task.fingerprint() if self._task is not None else self.metadata.model_hash

    def save(self, path: str | Path, film: str = ".gif", *, folder: bool = False) -> list[Path]:
        """Writes what the path's ending says.

        A folder (no ending, or one that is there) gets `words.png`, `index.html`, `explanation.json` and `maps.npz`; ".html" is
        the page alone, ".png", ".jpg" or ".webp" the overlay of one target or the panels of several, ".npz" the arrays with the
        description inside. `Explanation.load` reads the folder and the ".npz" back. Of a clip, see `Animation.save`.

        Args:
            path: where to.
            film: how a clip is animated in a folder: ".gif", ".webp" or ".mp4".
            folder: write a folder whatever its name, as "IMG_2024.01.31".

        Returns: the files written, all of them or none; see `mmgradcam.utils.writing.write_folder`.
        """
        from mmgradcam.storage import saving

        return saving.save(self, path, film, folder)

    @staticmethod
    def load(path: str | Path) -> Explanation:
        """Reads what `save` wrote: a folder or an ".npz" file. Only joint maps of several targets need the model anew.

        Raises:
            InputError: it is not what `save` writes: a key is missing or has a wrong type or range, arrays have other shapes
                than the description says, the two contradict each other, or there are over 1 GiB of arrays.
        """
        from mmgradcam.storage import saving

        return saving.load(path)

    def describe(self) -> dict[str, Any]:
        """The description that `explanation.json` holds; its schema is in docs/schema.md."""
        from mmgradcam.storage import record

        return record.describe(self)

    def __repr__(self) -> str:
        made = f"{self.metadata.method} of {self.metadata.model}"
        return f"Explanation({self.text!r}, {len(self)} x {tuple(self.maps.shape[1:])} {made})"

    def _repr_html_(self) -> str:
        from mmgradcam.render import pages

        return pages.cell(self)


def warning_of(map_: Tensor, flat: bool, lost: bool = False) -> str | None:
    """Why a raw map shows nothing: its target's gradient is 0 (`flat`), or below the rounding of its computation (`lost`)."""
    if not torch.isfinite(map_).all():
        return "not finite"
    if lost:
        return "below rounding"
    if flat:
        return "no gradient"
    return None if bool((map_ > 0).any()) else "no positive evidence"
