"""What a method may ask a model beyond one gradient: other pictures, other features, gradients down to the pixels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mmgradcam.engine import Encoded, Gradients, encode, gradients_of, scores
from mmgradcam.errors import InputError
from mmgradcam.layers import TargetLayer
from mmgradcam.relu_rules import relus
from mmgradcam.task import Fusion, Method, Target, Task

Drawn = Tensor | tuple[Tensor, Tensor]
"""Maps (K, *grid), or maps and their spread (standard deviation), of the same shape."""

AskingMethod = Callable[["Probe"], Drawn]
"""A method that asks the model again: one positional argument, the `Probe`."""


def asks(method: Callable[..., Any]) -> bool:
    """Whether a method takes a `Probe`, and not features and gradients: it has one positional argument, not two.

    Raises:
        InputError: it has neither one nor two.

    >>> from mmgradcam.methods import gradcam
    >>> asks(gradcam), asks(lambda probe: probe.features), asks(lambda features, gradients: features)
    (False, True, False)
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in inspect.signature(method).parameters.values() if p.kind in kinds and p.default is p.empty]
    if len(needed) not in (1, 2):
        raise InputError(
            f"method {getattr(method, '__name__', method)}: expected a function of (features, gradients) or of (probe), "
            f"got one of ({', '.join(p.name for p in needed)})"
        )
    return len(needed) == 1


@dataclass(frozen=True)
class Probe:
    """One picture with its K targets, which a method may put to the model in other ways.

    Every variant of the picture is encoded once, for all targets together, `batch` variants at a time.

    Attributes:
        pixels: (1, 3, h, w), the picture as the model sees it.
        targets: K targets.
        activations: (1, C, *grid) features at each target layer, or at the feature layer where there is none.
        lost: targets of whose gradients some were below rounding; see `Gradients`.
        kept: targets of whose gradients some were not.
    """

    task: Task
    pixels: Tensor
    targets: Sequence[Target]
    activations: list[Tensor]
    target_layers: list[TargetLayer]
    features: Tensor
    fuse: Fusion
    autocast: torch.dtype | None = None
    memory: int | None = None
    batch: int = 16
    lost: set[int] = field(default_factory=set, compare=False)
    kept: set[int] = field(default_factory=set, compare=False)

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of the pixels.

        Raises:
            InputError: the model sees the picture in tiles, so that it has no pixels of one plane.
        """
        if self.pixels.dim() != 4:
            raise InputError(f"{self.task.name} sees tiles or a clip; take a gradient method, such as hirescam")
        return self.pixels.shape[2], self.pixels.shape[3]

    def base(self) -> Tensor:
        """(K,) scores of the picture itself."""
        return scores(self.task, self.features, self.targets, self.memory)[0].float()

    def score(self, pictures: Tensor) -> Tensor:
        """(N, 3, h, w) other pictures -> (N, K) scores."""
        return self._scored(pictures, lambda part: encode(self.task, part, [], self.autocast).features)

    def score_changed(self, place: int, changed: Tensor) -> Tensor:
        """(N, C, *grid) other features at a place -> (N, K) scores; at the feature layer the encoder does not run again."""
        return self._scored(changed, lambda part: self._changed(place, part).features)

    def gradients_of(
        self,
        pictures: Tensor | None = None,
        *,
        at_pixels: bool = False,
        target_layers: Sequence[TargetLayer] | None = None,
        rule: str | None = None,
    ) -> Iterator[Gradients]:
        """Gradients of the scores of other pictures, or of the picture itself.

        Args:
            pictures: (N, 3, h, w); by default the picture itself.
            at_pixels: take gradients at the pixels, too: the first of each result's `activations`.
            target_layers: layers to take them at, instead of the places.
            rule: what the backward of ReLUs does instead of its own: "guided" or "deconvnet".

        Yields:
            `Gradients`, whose rows are (index of the picture, index of the target).
        """
        target_layers = self.target_layers if target_layers is None else target_layers
        if at_pixels:
            _ = self.side
        if pictures is None and not (at_pixels or target_layers or rule):
            yield from map(self._noted, gradients_of(self.task, Encoded(self.features, []), [self.targets], self.memory))
            return
        pictures = self.pixels if pictures is None else pictures
        for start in range(0, len(pictures), self.batch):
            part = pictures[start : start + self.batch]
            of_each = [self.targets] * len(part)
            with relus(rule) if rule else nullcontext():
                encoded = encode(
                    self.task, part, [replace(t, outputs=[]) for t in target_layers], self.autocast, at_pixels=at_pixels
                )
                made: Iterable[Gradients] = gradients_of(self.task, encoded, of_each, self.memory)
                # Never suspended under a rule: the caller's own ReLUs would fall under it.
                made = list(made) if rule else made
            for one in map(self._noted, made):
                yield replace(one, rows=[(start + n, t) for n, t in one.rows])

    def gradients_of_changed(self, place: int, changed: Tensor) -> Iterator[Gradients]:
        """Gradients at a place when other features (N, C, *grid) stand there."""
        for start in range(0, len(changed), self.batch):
            part = changed[start : start + self.batch]
            made = gradients_of(self.task, self._changed(place, part), [self.targets] * len(part), self.memory)
            for one in map(self._noted, made):
                yield replace(one, rows=[(start + n, t) for n, t in one.rows])

    def draw(self, method: Method, pictures: Tensor | None = None) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
        """Maps of a gradient method for other pictures: rows (picture, target) and their maps (n, *grid)."""
        for part in self.gradients_of(pictures):
            yield part.rows, self.fused([method(a, g) for a, g in part.activations])

    def fused(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps at each place, made one as the user wants it."""
        return fused(maps, self.fuse)

    def at(self, pictures: Tensor) -> Probe:
        """The same questions put to another picture (1, 3, h, w)."""
        encoded = encode(self.task, pictures, [replace(t, outputs=[]) for t in self.target_layers], self.autocast)
        return replace(self, pixels=pictures, activations=activations_of(encoded), features=encoded.features.detach())

    def _noted(self, part: Gradients) -> Gradients:
        for (_, target), gone in zip(part.rows, part.lost.tolist(), strict=True):
            (self.lost if gone else self.kept).add(target)
        return part

    def _changed(self, place: int, values: Tensor) -> Encoded:
        if not self.target_layers:
            return Encoded(values.to(self.features.dtype), [])
        target_layer = self.target_layers[place].changed_to(values)
        return encode(self.task, self.pixels.expand(len(values), *self.pixels.shape[1:]), [target_layer], self.autocast)

    def _scored(self, variants: Tensor, features: Callable[[Tensor], Tensor]) -> Tensor:
        found = [
            scores(self.task, features(variants[at : at + self.batch]).detach(), self.targets, self.memory).float()
            for at in range(0, len(variants), self.batch)
        ]
        return torch.cat(found)


def activations_of(encoded: Encoded, image: int | None = None) -> list[Tensor]:
    """Features at each target layer, or at the feature layer where there is none; (B, C, *grid), or of one image, (1, C,
    *grid).
    """
    if not encoded.target_layers:
        rows = slice(None) if image is None else slice(image, image + 1)
        return [encoded.features.detach()[rows].float()]
    runs = encoded.runs if image is None else [next(run for run in encoded.runs if image in run.images)]
    made = []
    for i, target_layer in enumerate(encoded.target_layers):
        put = torch.cat([run.outputs[i].detach() for run in runs])
        at = slice(None) if image is None else slice(image - runs[0].images.start, image - runs[0].images.start + 1)
        made.append(target_layer.grid(put[at]).float())
    return made


def fused(maps: Sequence[Tensor], fuse: Fusion) -> Tensor:
    """Maps of several places made one; a single place's map as it is."""
    first, *more = maps
    return fuse(maps) if more else first


def gathered(parts: Iterable[Gradients]) -> list[tuple[Tensor, Tensor]]:
    """(features, gradients) of each place, (N * K, C, *grid), picture by picture and target by target."""
    kept = list(parts)
    at = {row: i for i, row in enumerate(row for part in kept for row in part.rows)}
    order = torch.tensor([at[row] for row in sorted(at)])
    activations = zip(*(part.activations for part in kept), strict=True)
    return [tuple(torch.cat(x)[order] for x in zip(*place, strict=True)) for place in activations]  # type: ignore[misc]


def are_zero(gradients: Tensor) -> Tensor:
    """(K,) bool: whether all of a row is 0; faster than a norm, and no tiny value is lost by squaring."""
    rows = gradients.flatten(1)
    return (rows.amax(1) == 0) & (rows.amin(1) == 0)


def cat_padded(words: Sequence[Tensor]) -> Tensor:
    """(n, L) of any lengths, one below the other, short rows filled up with 0 on the right; on the CPU."""
    longest = max(w.shape[1] for w in words)
    return torch.cat([torch.nn.functional.pad(w, (0, longest - w.shape[1])) for w in words]).cpu()
