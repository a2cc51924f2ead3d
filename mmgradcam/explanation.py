"""Results: maps with their labels and scores, that draw, measure and save themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.images.clips import Clip
from mmgradcam.images.pictures import Box, of_tiles
from mmgradcam.images.regions import PixelBox, segment_boxes
from mmgradcam.indexing import listing, positions_of
from mmgradcam.render import heatmaps, pages
from mmgradcam.render.animation import Film, Track
from mmgradcam.storage import record
from mmgradcam.storage.record import About, Verdict
from mmgradcam.task import Target, Task, spelled
from mmgradcam.utils.files import is_folder, path_of
from mmgradcam.utils.writing import write_file, write_folder

FAINT = math.log(1.5)
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
        problems: for each target, why its map shows nothing, or None.
        about: how it was made.
        task: what was explained; None once loaded from a file.
        again: explains another target of the same picture; None once loaded from a file.
        spread: (K, *grid) standard deviation of the maps, where the method gives one.
        clip: the clip that maps (K, t, h, w) are of; `picture` is then its middle frame, and `heat` is over all frames.
        verdicts: for each target, what a check said of its map (`mmgradcam.metrics.examine`); none where nobody asked.
    """

    def __init__(
        self,
        picture: Image.Image,
        box: Box | tuple[Box, ...],
        targets: Sequence[Target],
        maps: Tensor,
        scores: Tensor,
        words: Tensor | None,
        problems: Sequence[str | None],
        about: About,
        task: Task | None = None,
        again: Callable[[Target], Explanation] | None = None,
        spread: Tensor | None = None,
        clip: Clip | None = None,
        verdicts: Sequence[Verdict | None] = (),
    ) -> None:
        self.picture, self.box, self.about = picture, box, about
        self.targets, self.maps, self.scores, self.words = list(targets), maps, scores, words
        self.problems, self.spread = list(problems), spread
        self._task, self._again, self.clip = task, again, clip
        self.verdicts = list(verdicts) or [None] * len(self.targets)

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
            self.problems[i : i + 1], self.about, self._task, self._again,
            None if self.spread is None else self.spread[i : i + 1], self.clip, self.verdicts[i : i + 1],
        )  # fmt: skip

    def _joined(self, indices: Sequence[int]) -> Explanation:
        if len(indices) == 1:
            return self._only(indices[0])
        made: Explanation = self.again(self.task.join([self.targets[i] for i in indices]))
        return made

    def by(self, method: Any) -> Explanation:
        """The same targets of the same picture, explained by another method, as of `explain`.

        Raises:
            InputError: it was loaded from a file, and has no model.
        """
        made: Explanation = self.again.of([self.targets], [self.again.view.pixels], {"methods": (method,)})[0]
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
    def again(self) -> Any:
        """The way it was made, to make others like it: `mmgradcam.explaining.explain.Again`.

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
        """The caption, as it was written, where the targets are its words; else the labels, parted by commas."""
        return spelled(self.targets) if self.about.unit in WORDS else ", ".join(self.labels)

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
        """The target's score, in `about.unit`."""
        self._one()
        return float(self.scores[0])

    @property
    def problem(self) -> str | None:
        """Why the map shows nothing (no gradient, below rounding, nothing in favour, not finite), or None."""
        self._one()
        return self.problems[0]

    @property
    def verdict(self) -> Verdict | None:
        """What a check said of the map (`mmgradcam.metrics.examine`); None where nobody asked."""
        self._one()
        return self.verdicts[0]

    @property
    def importances(self) -> list[tuple[str, float]]:
        """Each word the target reads with its importance, gradient times embedding summed over its tokens; signed."""
        self._one()
        if self.words is None:
            return []
        row = self.words[0]
        return [(w.text, float(row[w.first : w.last + 1].sum())) for w in self.targets[0].reads]

    def heat(self, size: tuple[int, int] | None = None) -> npt.NDArray[np.float32]:
        """The map's positive part on the picture, (height, width) float32 in 0..1; all 0 if there is none.

        Of a clip, (frames, height, width), scaled to the maximum of all of it.

        Args:
            size: height and width to draw it at; by default the picture's.
        """
        self._one()
        maps, size = self._grids(), size or self._size
        if self.clip is None:
            heat = heatmaps.upsample(maps, self.box, size)
        else:
            heat = heatmaps.over_time(maps, self.box, len(self.clip), size)  # type: ignore[arg-type]
        return np.asarray(heatmaps.normalize(heat)[0].numpy(), dtype=np.float32)

    def scaled(self) -> Tensor:
        """(K, *grid) the maps' positive parts, each divided by the largest value that it has on the picture or in the clip."""
        return heatmaps.scaled(self._grids(), self.box, self._size, None if self.clip is None else len(self.clip))

    @property
    def _size(self) -> tuple[int, int]:
        return self.picture.height, self.picture.width

    def _grids(self) -> Tensor:
        """The maps, if their grid is one of a picture or a clip."""
        many = self.clip is not None or of_tiles(self.box)
        if self.maps.dim() != (4 if many else 3):
            raise InputError(f"expected a map over height and width, got a grid of {self.maps.dim() - 1} dimensions")
        return self.maps.cpu()

    @property
    def peak(self) -> tuple[int, ...] | None:
        """x, y in pixels of the picture where the map is largest, and of a clip the frame; None if it shows nothing."""
        self._one()
        frames = None if self.clip is None else len(self.clip)
        ((top, (*when, y, x)),) = heatmaps.highest(self._grids(), self.box, self._size, frames)
        return (x, y, *when) if top > 0 else None

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
    def faint(self) -> bool:
        """Whether it does not rest on the picture, which makes it less than 1.5 times as likely. False if nobody asked."""
        self._one()
        reliance = self.targets[0].reliance
        return reliance is not None and reliance < FAINT

    def overlay(self, opacity: float | None = None) -> Image.Image:
        """The picture with the target's heat over it, of a clip the frame where it peaks; the picture alone without heat.

        Args:
            opacity: of the heat, 0..1; by default 1, and 0.3 where the target does not rest on the picture (`faint`).
        """
        if self.clip is not None:
            return self.film().frame((self.peak or (0, 0, len(self.clip) // 2))[2])
        return self.over(self.picture, opacity)

    def over(self, picture: Image.Image, opacity: float | None = None) -> Image.Image:
        """As `overlay`, over the picture at another size."""
        if opacity is None:
            opacity = 0.3 if self.faint else 1.0
        return heatmaps.overlay(picture, self.heat((picture.height, picture.width)), opacity)

    def film(self) -> Film:
        """The frames of a clip with the targets' heat over them.

        Raises:
            InputError: this is no clip.
        """
        if self.clip is None:
            raise InputError("there is no clip, only a picture; explain a Clip to get a film")
        told = zip(self, self.scaled().numpy(), strict=True)
        tracks = [Track(one.label, heat, one.caption(), self.box) for one, heat in told]  # type: ignore[arg-type]
        note = (
            f"{self.about.method} at {self.about.seam}, model {self.about.model}. Heat is scaled to its maximum over the clip."
        )
        return Film(self.clip, tracks, self.text, note)

    def panels(self, side: int = 320) -> Image.Image:
        """The picture once, then one panel per target; none for punctuation.

        Args:
            side: longest side of a panel in pixels.
        """
        if self.clip is not None:
            return self.film().strip()
        shown = [one for one in self if not all(category(letter)[0] == "P" for letter in one.label)] or list(self)
        small = self.picture.resize(heatmaps.panel_size(self.picture, side), Image.Resampling.LANCZOS)
        panels = [(one.label, one.caption(), one.over(small)) for one in shown]
        note = "; ".join([f"{self.about.method} at {self.about.seam}, {self.about.model}", *self.about.remarks])
        question = self.about.query.get("question")
        return heatmaps.sheet(self.picture, panels, str(question) if question else self.text, note, side)

    def caption(self) -> str:
        """Small print for one target: its probability or score, or why its map shows nothing."""
        self._one()
        if self.problem:
            return self.problem
        probability = self.targets[0].probability
        if probability is None and self.about.unit == "log-probability":
            probability = math.exp(min(self.score, 0.0))
        said = f"{self.score:.3g}" if probability is None else f"p {probability:.2f}"
        reliance = self.targets[0].reliance
        return said if reliance is None else f"{said}, {pages.times(reliance)}"

    def model_hash(self) -> str:
        """SHA-256 of the model's weights as they are now, or as they were when the explanation was saved."""
        return self._task.fingerprint() if self._task is not None else self.about.model_hash

    def save(self, path: str | Path, film: str = ".gif", *, folder: bool = False) -> list[Path]:
        """Writes what the path's ending says.

        A folder (no ending, or one that is there) gets `words.png`, `index.html`, `explanation.json` and `maps.npz`; ".html" is
        the page alone, ".png", ".jpg" or ".webp" the overlay of one target or the panels of several, ".npz" the arrays with the
        description inside. `Explanation.load` reads the folder and the ".npz" back. Of a clip, see `Film.save`.

        Args:
            path: where to.
            film: how a clip is animated in a folder: ".gif", ".webp" or ".mp4".
            folder: write a folder whatever its name, as "IMG_2024.01.31".

        Returns: the files written, all of them or none; see `mmgradcam.utils.writing.write_folder`.
        """
        path, suffix = path_of(path), path_of(path).suffix.lower()
        if folder or not suffix or is_folder(path):
            return write_folder(path, record.files(self, film))
        if suffix == ".npz":
            return [write_file(path, record.archive(self))]
        if self.clip is not None:
            return self.film().save(path)
        if suffix in (".html", ".htm"):
            return [write_file(path, pages.page(self).encode())]
        if suffix in heatmaps.FORMATS:
            return [write_file(path, heatmaps.encoded(self.overlay() if len(self) == 1 else self.panels(), suffix))]
        raise InputError(f"{path}: expected a folder (folder=True), or a name that ends in .html, .png, .jpg, .webp or .npz")

    @staticmethod
    def load(path: str | Path) -> Explanation:
        """Reads what `save` wrote: a folder or an ".npz" file. Only joint maps of several targets need the model anew.

        Raises:
            InputError: it is not what `save` writes: a key is missing or has a wrong type or range, arrays have other shapes
                than the description says, the two contradict each other, or there are over 1 GiB of arrays.
        """
        from mmgradcam.storage.schema import read_saved

        made, arrays = read_saved(path_of(path))
        about, targets, problems = record.read(made)
        tensors = {name: torch.from_numpy(arrays[name]) for name in ("maps", "scores", "words", "spread") if name in arrays}
        return Explanation(
            Image.fromarray(arrays["picture"]), tuple(made["seam"]["box"]), targets, tensors["maps"], tensors["scores"],
            tensors.get("words"), problems, About(**about), spread=tensors.get("spread"),
            clip=record.clip_of(made, arrays), verdicts=record.verdicts_of(made),
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """The description that `explanation.json` holds; its schema is in docs/schema.md."""
        return record.describe(self)

    def __repr__(self) -> str:
        return (
            f"Explanation({self.text!r}, {len(self)} x {tuple(self.maps.shape[1:])} {self.about.method} of {self.about.model})"
        )

    def _repr_html_(self) -> str:
        return pages.cell(self)


def problem_of(map_: Tensor, flat: bool, lost: bool = False) -> str | None:
    """Why a raw map shows nothing: its target's gradient is 0 (`flat`), or below the rounding of its computation (`lost`)."""
    if not torch.isfinite(map_).all():
        return "not finite"
    if lost:
        return "below rounding"
    if flat:
        return "no gradient"
    return None if bool((map_ > 0).any()) else "nothing in favour"
