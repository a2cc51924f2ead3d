"""Other pictures put to the model of explanations: parts of them hidden, all of a batch together, none twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgradcam.engine import encode, paired
from mmgradcam.errors import InputError
from mmgradcam.explaining.model_input import ModelInput, baseline_input
from mmgradcam.explanation import Explanation
from mmgradcam.images.pictures import of_tiles
from mmgradcam.layers import preserve_state
from mmgradcam.render import heatmaps
from mmgradcam.task import Target, Task

Change = Callable[["Seen", Tensor], Tensor]
"""A picture as the model sees it, and (H, W) or (T, H, W) in 0..1, how much of each pixel is kept -> the changed pixels."""


@dataclass
class Seen:
    """One picture as its model sees it.

    Attributes:
        pixels: (3, h, w), of clips (3, T, h, w), of tiles (T, 3, h, w).
        shape: (h, w) or (T, h, w), of a mask.
    """

    task: Task
    view: ModelInput
    _kept: dict[Any, Tensor] = field(default_factory=dict)

    @property
    def pixels(self) -> Tensor:
        return self.view.pixels

    @property
    def tiled(self) -> bool:
        """Whether the model sees it in tiles."""
        return of_tiles(self.view.box)

    @property
    def shape(self) -> tuple[int, ...]:
        s = tuple(self.pixels.shape)
        return (s[0], *s[2:]) if self.tiled else s[1:]

    def kept(self, mask: Tensor, rest: Tensor) -> Tensor:
        """The pixels where the mask is 1, `rest` where it is 0, and in between a mixture."""
        share = mask.to(self.pixels).unsqueeze(1 if self.tiled else 0)
        return self.pixels * share + rest * (1 - share)

    def plain(self, level: int) -> Tensor:
        """What the model sees of one grey, 0..255, in place of the picture; see `baseline_input`."""
        if level not in self._kept:
            self._kept[level] = baseline_input(self.task, self.view, level)
        return self._kept[level]

    def fill_blur(self, share: float = 0.1) -> Tensor:
        """The pixels under a Gaussian blur whose standard deviation is a share of the shorter side."""
        if ("blur", share) not in self._kept:
            planes = self.pixels.reshape(-1, 1, *self.pixels.shape[-2:]).float()
            self._kept["blur", share] = _blur(planes, share * min(planes.shape[-2:])).view_as(self.pixels).to(self.pixels)
        return self._kept["blur", share]


def fill_black(seen: Seen, mask: Tensor) -> Tensor:
    """What is not kept becomes black, as in Grad-CAM++'s E = L o I."""
    return seen.kept(mask, seen.plain(0))


def fill_mean(seen: Seen, mask: Tensor) -> Tensor:
    """What is not kept becomes middle grey."""
    return seen.kept(mask, seen.plain(128))


def fill_blur(seen: Seen, mask: Tensor) -> Tensor:
    """What is not kept is blurred beyond recognition."""
    return seen.kept(mask, seen.fill_blur())


class Variants:
    """The R targets of explanations, in their order, and what their models say of changed pictures.

    Args:
        explanations: of one task, made by `explain` or `compare`; a picture that several explain is prepared once.
        batch: pictures encoded together.
        memory: as for `explain`.

    Attributes:
        rows: of each of the R targets, which explanation and which of its targets.
        encodes: how many pictures were encoded so far.

    Raises:
        InputError: there is none, they are of several models, or one was loaded from a file.
    """

    def __init__(self, explanations: Sequence[Explanation], batch: int = 16, memory: int | None = None) -> None:
        if not explanations:
            raise InputError("expected at least one explanation, got none")
        self.explanations, self.batch, self.memory = list(explanations), batch, memory
        self.task = task_of(explanations)
        self.rows = [(e, k) for e, one in enumerate(explanations) for k in range(len(one))]
        of_picture: dict[tuple[int, int], Seen] = {}
        self.seen: list[Seen] = []
        for one in explanations:
            view: ModelInput = one.explainer.view
            key = id(view.clip or view.picture), id(view.pixels)  # the same picture may have been changed on the way
            self.seen.append(of_picture.setdefault(key, Seen(self.task, view)))
        self.encodes = 0

    def __len__(self) -> int:
        return len(self.rows)

    def target(self, row: int) -> Target:
        """The target of a row."""
        e, k = self.rows[row]
        return self.explanations[e].targets[k]

    def map(self, row: int) -> Tensor:
        """The raw map of a row."""
        e, k = self.rows[row]
        return self.explanations[e].maps[k]

    def heat(self, row: int) -> Tensor:
        """The positive part of a row's map on the pixels that the model sees, 0..1; the shape is that of `Seen.shape`."""
        seen, raw = self.seen[self.rows[row][0]], self.map(row)[None].detach().float().cpu()
        *_, h, w = shape = seen.shape
        whole = (0.0, 0.0, 1.0, 1.0)
        if raw.dim() != len(shape) + 1:
            raise InputError(f"expected a map over height and width, got a grid of {raw.dim() - 1} dimensions")
        if len(shape) == 2:
            made = heatmaps.upsample(raw, whole, (h, w))
        elif seen.tiled:
            made = torch.stack([heatmaps.upsample(tile, whole, (h, w)) for tile in raw.unbind(1)], 1)
        else:
            made = heatmaps.over_time(raw, whole, shape[0], (h, w))
        return heatmaps.normalize(made).squeeze(0)

    def base(self) -> Tensor:
        """(R,) scores of the pictures themselves."""
        return torch.cat([one.scores.detach().float().cpu() for one in self.explanations])

    def ask(self, asked: Iterable[tuple[int, Tensor]], change: Change, *, likely: bool = False) -> Tensor:
        """Scores of rows on changed pictures; of the same picture with the same mask one is encoded, whoever asks.

        Args:
            asked: rows, and how much of each pixel of their picture is kept, in 0..1; taken up a batch at a time.
            change: what becomes of the rest.
            likely: log-probabilities instead of scores.

        Returns:
            (N,) float32, in the order of the asking.

        Raises:
            ModelError: log-probabilities are asked for and the task has none.
        """
        found: list[Tensor] = []
        coming = iter(asked)
        with preserve_state(self.task.modules()), torch.no_grad():
            while part := self._part(coming):
                found.append(self._asked(part, change, likely))
        return torch.cat(found) if found else torch.empty(0)

    def _part(self, coming: Iterator[tuple[int, Tensor]]) -> list[tuple[int, Tensor]]:
        return list(islice(coming, 16 * self.batch))

    def _asked(self, part: Sequence[tuple[int, Tensor]], change: Change, likely: bool) -> Tensor:
        changed: dict[tuple[int, bytes], tuple[Seen, Tensor]] = {}
        which = []
        for row, mask in part:
            seen = self.seen[self.rows[row][0]]
            key = (id(seen), mask.numpy().tobytes())
            changed.setdefault(key, (seen, mask))
            which.append(key)
        device = self.task.device
        found: dict[int, Tensor] = {}
        alike: dict[tuple[int, ...], list[tuple[int, bytes]]] = {}
        for key, (seen, _) in changed.items():
            alike.setdefault(tuple(seen.pixels.shape), []).append(key)
        for keys in (some[at : at + self.batch] for some in alike.values() for at in range(0, len(some), self.batch)):
            pixels = torch.stack([change(*changed[key]) for key in keys]).to(device)
            self.encodes += len(pixels)
            features = encode(self.task, pixels, []).features.detach()
            place = {key: i for i, key in enumerate(keys)}
            rows = [n for n, key in enumerate(which) if key in place]
            asked = [self.target(part[n][0]) for n in rows]
            told = paired(self.task, features[[place[which[n]] for n in rows]], asked, self.memory, likely)
            found.update(zip(rows, told.cpu(), strict=True))
        return torch.stack([found[n] for n in range(len(part))])

    def split(self, values: Tensor) -> list[Tensor]:
        """(R, ...) -> of each explanation (K, ...)."""
        return list(torch.split(values, [len(one) for one in self.explanations]))


Explained = Variants | Explanation | Sequence[Explanation]


def variants_of(explained: Explained) -> Variants:
    """What metrics take: `Variants` as they are, an explanation or several made into them."""
    if isinstance(explained, Variants):
        return explained
    return Variants([explained] if isinstance(explained, Explanation) else explained)


def task_of(explanations: Sequence[Explanation]) -> Task:
    """The task of explanations, one at least.

    Raises:
        InputError: they are of several models, or one was loaded from a file.
    """
    task, *others = (one.task for one in explanations)
    if any(other is not task for other in others):
        raise InputError("expected explanations of one model, got several models'")
    return task


def _blur(planes: Tensor, sigma: float) -> Tensor:
    """(N, 1, h, w) planes under a Gaussian blur."""
    radius = max(1, min(int(3 * sigma), min(planes.shape[-2:]) - 1))
    at = torch.arange(-radius, radius + 1, dtype=planes.dtype)
    weights = torch.exp(-(at**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    rows = F.conv2d(F.pad(planes, (0, 0, radius, radius), mode="reflect"), weights.view(1, 1, -1, 1))
    return F.conv2d(F.pad(rows, (radius, radius, 0, 0), mode="reflect"), weights.view(1, 1, 1, -1))
