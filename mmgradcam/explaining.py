"""The verb: a task, pictures and a method make explanations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import torch
from PIL import Image
from torch import Tensor

from mmgradcam.clips import Clip
from mmgradcam.engine import Encoded, check_finite, encode, scores, slopes
from mmgradcam.errors import InputError, ModelError
from mmgradcam.explanation import About, Explanation, problem_of
from mmgradcam.layouts import of_picture
from mmgradcam.methods import gradcam, product
from mmgradcam.pictures import Box, open_picture
from mmgradcam.probe import AskingMethod, Probe, asks, places_of
from mmgradcam.seam import find_tap, left_as_found
from mmgradcam.task import Fusion, Method, Query, Target, Task, hidden_by

AnyMethod = Method | AskingMethod
Ask = Callable[[Tensor, Sequence[Query]], Sequence[Sequence[Target]]]


@overload
def explain(
    task: Task, inputs: list[Any] | tuple[Any, ...], *, method: AnyMethod | None = ..., taps: Sequence[Any] | None = ...,
    fuse: Fusion | None = ..., each: Sequence[Query] | None = ..., autocast: torch.dtype | None = ...,
    memory: int | None = ..., batch: int = ..., create_graph: bool = ..., reliance: bool = ..., **query: Any,
) -> list[Explanation]: ...  # fmt: skip


@overload
def explain(
    task: Task, inputs: Any, *, method: AnyMethod | None = ..., taps: Sequence[Any] | None = ...,
    fuse: Fusion | None = ..., each: Sequence[Query] | None = ..., autocast: torch.dtype | None = ...,
    memory: int | None = ..., batch: int = ..., create_graph: bool = ..., reliance: bool = ..., **query: Any,
) -> Explanation: ...  # fmt: skip


def explain(
    task: Task,
    inputs: Any,
    *,
    method: AnyMethod | None = None,
    taps: Sequence[Any] | None = None,
    fuse: Fusion | None = None,
    each: Sequence[Query] | None = None,
    autocast: torch.dtype | None = None,
    memory: int | None = None,
    batch: int = 16,
    create_graph: bool = False,
    reliance: bool = False,
    **query: Any,
) -> Explanation | list[Explanation]:
    """Shows where in the picture each target came from.

    The encoder runs once per picture. The task's model is left as it was found: modes, `requires_grad`, `.grad`, statistics
    and hooks, also after an exception.

    Args:
        task: the model, seen as a `Task`.
        inputs: a picture or a list of them; each a path, a Pillow image, an array (H, W[, 3 or 4]) of uint8 or of floats in
            0..1, a `Clip` for a model of clips, or a tensor (3, h, w) that is already prepared for the model.
        method: how a map is made: a function of (features, gradients), such as `gradcam` or `layercam`, or of a `Probe`, which
            asks the model again, such as `rise` or `smooth(layercam)`; by default the task's own choice, else `gradcam`.
        taps: layers upstream of the features at which to take maps instead, for a finer picture: modules of the task's
            model, their dotted names, or `Tap`s. By default the task's own choice; () is the features themselves.
        fuse: how the maps of several taps become one; by default the task's own choice, else their product.
        each: one query per picture, added to `query`.
        autocast: lower precision for the encoder, such as torch.bfloat16; maps stay float32.
        memory: bytes that rows of features may take; by default 256 MiB on a CPU and half of what is free on a GPU.
        batch: pictures encoded together.
        create_graph: maps and scores stay in the autograd graph, so that they can stand in a loss, and the model runs in the
            mode and with the parameters it is in: nothing of it is set aside. For gradient methods.
        reliance: say of each target how much more likely the picture makes it than a grey one does (one of its mean color, for
            a tensor), which is encoded too: `Target.reliance`. Targets that have no log-probability get none.
        **query: what to explain, as the task's `targets` names it: caption="...", question="...", classes=[281].

    Returns:
        An `Explanation`, or a list of them for a list of inputs.

    Raises:
        InputError: the picture or the query cannot be used.
        ModelError: the task's model gives no usable gradient or score.
    """
    many = isinstance(inputs, (list, tuple)) or (isinstance(inputs, Tensor) and inputs.dim() == 4)
    sources = list(inputs) if many else [inputs]
    if each is not None and len(each) != len(sources):
        raise InputError(f"each: expected one query per picture, {len(sources)}, got {len(each)}")
    if hidden := hidden_by(task):
        raise ModelError(f"{type(task).__name__}: its attribute {hidden[0]!r} hides Task.{hidden[0]}; call it something else")
    queries = [{**query, **(each[i] if each else {})} for i in range(len(sources))]
    how = _How(
        task,
        method or task.method or gradcam,
        tuple(task.taps if taps is None else taps),
        fuse or task.fuse or product,
        autocast,
        memory,
        batch,
        create_graph,
        reliance,
    )
    made = how.explain([_view(task, source) for source in sources], queries, task.targets_of_each)
    return made if many else made[0]


@dataclass(frozen=True)
class _View:
    """A picture as the user knows it and as the model sees it."""

    picture: Image.Image
    """Of a clip, its middle frame."""
    name: str
    pixels: Tensor
    box: Box | tuple[Box, ...]
    prepared: bool = False
    """The user gave the pixels, not the picture."""
    size: tuple[int, int] | None = None
    clip: Clip | None = None


def _view(task: Task, source: Any) -> _View:
    if isinstance(source, Tensor):
        if source.dim() != 3 or source.shape[0] not in (1, 3) or not source.is_floating_point():
            raise InputError(f"expected a prepared tensor (3, h, w) of floats, got {tuple(source.shape)} of {source.dtype}")
        if not torch.isfinite(source).all():
            raise InputError("the tensor holds values that are not finite")
        return _View(_picture_of(source), "", source.detach(), (0.0, 0.0, 1.0, 1.0), prepared=True)
    if isinstance(source, Clip):
        seen = task.prepare(source)  # type: ignore[arg-type]  # a task of clips takes those
        return _View(source.frames[len(source) // 2], source.name, seen.pixels, seen.box, clip=source)
    picture = open_picture(source)
    prepared = task.prepare(picture)
    return _View(
        picture, Path(source).name if isinstance(source, (str, Path)) else "", prepared.pixels, prepared.box, size=prepared.size
    )


def _picture_of(pixels: Tensor) -> Image.Image:
    """A prepared tensor as a picture to draw on: its range stretched to 0..255."""
    values = pixels.detach().float().cpu().expand(3, -1, -1)
    low, high = values.min(), values.max()
    scaled = (values - low) / (high - low if high > low else 1) * 255
    return Image.fromarray(scaled.round().byte().permute(1, 2, 0).numpy())


@dataclass(frozen=True)
class _Drawn:
    """What became of a batch's K rows: maps and their spread (K, *grid), scores (K,), flat (K,) bool, words (K, L)."""

    maps: Tensor
    scores: Tensor
    flat: Tensor
    words: Tensor | None
    spread: Tensor | None


@dataclass(frozen=True)
class _How:
    """What one call of `explain` was told."""

    task: Task
    method: AnyMethod
    taps: tuple[Any, ...]
    fuse: Fusion
    autocast: torch.dtype | None
    memory: int | None
    batch: int
    graph: bool
    reliance: bool
    blank: list[Tensor] = field(default_factory=list, compare=False)
    """The pixels of the last picture that showed nothing, and its features."""

    def explain(self, views: Sequence[_View], queries: Sequence[Query], ask: Ask) -> list[Explanation]:
        """Explains pictures in batches of equal size."""
        made: list[Explanation] = []
        if self.graph and asks(self.method):
            raise InputError(f"create_graph: {_name(self.method)} asks the model again and has no graph; use a gradient method")
        with (
            torch.enable_grad() if self.graph else left_as_found(self.task.modules()),
            torch.autocast(_device(self.task).type, enabled=False),
        ):
            while len(made) < len(views):
                start = len(made)
                shape = views[start].pixels.shape
                alike = views[start : start + self.batch]
                count = next((i for i, v in enumerate(alike) if v.pixels.shape != shape), len(alike))
                made += self._batch(alike[:count], queries[start : start + count], ask)
        return made

    def _batch(self, views: Sequence[_View], queries: Sequence[Query], ask: Ask) -> list[Explanation]:
        modules = self.task.modules()
        taps = [find_tap(tap, modules) for tap in self.taps]
        pixels = torch.stack([v.pixels for v in views]).to(_device(self.task))
        encoded = encode(self.task, pixels, taps, self.autocast, graph=self.graph)
        for tap in encoded.taps:
            if tap.layout is None and pixels.dim() == 4:
                tap.layout = of_picture(tap.outputs[0].shape, pixels.shape[2], pixels.shape[3])
        with torch.no_grad():
            told = [q if v.size is None else {**q, "size": v.size} for v, q in zip(views, queries, strict=True)]
            targets = ask(encoded.features.detach(), told)
        if not any(targets):
            raise InputError(f"{self.task.name or type(self.task).__name__}: there is nothing to explain")
        drawn = self._asked(pixels, encoded, targets) if asks(self.method) else self._drawn(encoded, targets)
        check_finite(self.task, drawn.scores, [target for some in targets for target in some])
        if self.reliance:
            ends = list(accumulate(map(len, targets)))
            seen = [drawn.scores[end - len(some) : end].detach() for end, some in zip(ends, targets, strict=True)]
            features = encoded.features.detach()
            targets = [self._relied(v, features[b : b + 1], targets[b], seen[b]) for b, v in enumerate(views)]
        seam = " x ".join(tap.name for tap in taps) or self.task.seam
        made, at = [], 0
        for b, (view, query) in enumerate(zip(views, queries, strict=True)):
            rows = slice(at, at := at + len(targets[b]))
            problems = [problem_of(m, bool(f)) for m, f in zip(drawn.maps[rows].detach(), drawn.flat[rows], strict=True)]
            about = About(
                self.task.name or type(self.task).__name__, self.task.unit, _name(self.method), seam, dict(query),
                image_name=view.name,
            )  # fmt: skip
            made.append(
                Explanation(
                    view.picture,
                    view.box,
                    targets[b],
                    drawn.maps[rows],
                    drawn.scores[rows],
                    None if drawn.words is None else drawn.words[rows],
                    problems,
                    about,
                    self.task,
                    self._again(view, query),
                    None if drawn.spread is None else drawn.spread[rows],
                    view.clip,
                )
            )
        return made

    def _relied(self, view: _View, features: Tensor, targets: Sequence[Target], told: Tensor) -> Sequence[Target]:
        """The targets, each with what it relies on the picture; `told` are their scores."""
        if not targets:
            return targets
        with torch.no_grad():
            if self.task.unit == "log-probability":
                own: Tensor | None = told
                blind: Tensor | None = scores(self.task, self._blank(view), targets, self.memory)[0].float().cpu()
            else:
                own = self.task.likelihood(features, targets)
                blind = None if own is None else self.task.likelihood(self._blank(view), targets)
        if own is None or blind is None:
            return targets
        return [replace(t, reliance=gained) for t, gained in zip(targets, (own - blind).tolist(), strict=True)]

    def _blank(self, view: _View) -> Tensor:
        """(1, C, *grid) features of grey in place of the picture: of the mean color, where the user gave the pixels."""
        if view.prepared:
            pixels = view.pixels.mean((1, 2), keepdim=True).expand_as(view.pixels)
        else:
            grey: Any = Image.new("RGB", view.picture.size, (128, 128, 128))
            pixels = _view(self.task, replace(view.clip, frames=(grey,) * len(view.clip)) if view.clip else grey).pixels
        if not self.blank or not torch.equal(self.blank[0], pixels):
            made = encode(self.task, pixels[None].to(_device(self.task)), [], self.autocast)
            self.blank[:] = [pixels, made.features.detach()]
        return self.blank[1]

    def _drawn(self, encoded: Encoded, targets: Sequence[Sequence[Target]]) -> _Drawn:
        """All rows of a batch by a gradient method, image by image and target by target."""
        order, maps, scores, flat, words = [], [], [], [], []
        for part in slopes(self.task, encoded, targets, self.memory):
            order += part.rows
            drawn = [self._map(a, g) for a, g in part.places]
            maps.append(drawn[0] if len(drawn) == 1 else self.fuse(drawn))
            scores.append(part.scores.float())
            flat.append(torch.stack([_zero(g.detach()) for _, g in part.places]).all(0))
            if part.words is not None:
                words.append(part.words)
        latest = {row: i for i, row in enumerate(order)}
        place = torch.tensor([latest[row] for row in sorted(latest)])
        all_maps, all_scores, all_flat = (torch.cat(x) if self.graph else torch.cat(x).cpu() for x in (maps, scores, flat))
        return _Drawn(
            all_maps[place], all_scores[place], all_flat.cpu()[place], _cat_padded(words)[place] if words else None, None
        )

    def _asked(self, pixels: Tensor, encoded: Encoded, targets: Sequence[Sequence[Target]]) -> _Drawn:
        """All rows of a batch by a method that asks the model again, image by image."""
        taps = [replace(tap, outputs=[]) for tap in encoded.taps]
        maps, scores, spread = [], [], []
        for b, some in enumerate(targets):
            if not some:
                continue
            probe = Probe(
                self.task, pixels[b : b + 1], some, places_of(encoded, b), taps, encoded.features.detach()[b : b + 1],
                self.fuse, self.autocast, self.memory, self.batch,
            )  # fmt: skip
            drawn = self.method(probe)  # type: ignore[call-arg, arg-type]
            for each in drawn if isinstance(drawn, tuple) else (drawn,):
                if not isinstance(each, Tensor) or each.dim() < 2 or len(each) != len(some):
                    got = tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__
                    raise ModelError(f"method {_name(self.method)}: expected maps ({len(some)}, *grid), got {got}")
            first, second = drawn if isinstance(drawn, tuple) else (drawn, None)
            maps.append(first.float().cpu())
            scores.append(probe.base().cpu())
            if second is not None:
                spread.append(second.float().cpu())
        all_maps = torch.cat(maps)
        flat = torch.zeros(len(all_maps), dtype=torch.bool)
        return _Drawn(all_maps, torch.cat(scores), flat, None, torch.cat(spread) if spread else None)

    def _again(self, view: _View, query: Query) -> Callable[[Target], Explanation]:
        source = view.pixels if view.prepared else view.clip or view.picture

        def again(target: Target) -> Explanation:
            anew = replace(_view(self.task, source), name=view.name)
            return self.explain([anew], [query], lambda features, queries: [[target]])[0]

        return again

    def _map(self, features: Tensor, gradients: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.graph):
            drawn = self.method(features, gradients)  # type: ignore[call-arg, arg-type]
        expected = (features.shape[0], *features.shape[2:])
        if not isinstance(drawn, Tensor) or tuple(drawn.shape) != expected:
            got = tuple(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
            raise ModelError(f"method {_name(self.method)}: expected maps {expected}, got {got}")
        return drawn.float()


def _zero(gradients: Tensor) -> Tensor:
    """(K,) bool: whether all of a row is 0; faster than a norm, and no tiny value is lost by squaring."""
    rows = gradients.flatten(1)
    return (rows.amax(1) == 0) & (rows.amin(1) == 0)


def _cat_padded(words: Sequence[Tensor]) -> Tensor:
    longest = max(w.shape[1] for w in words)
    return torch.cat([torch.nn.functional.pad(w, (0, longest - w.shape[1])) for w in words]).cpu()


def _device(task: Task) -> torch.device:
    first = next((p for module in task.modules() for p in module.parameters()), None)
    return first.device if first is not None else torch.device("cpu")


def _name(method: AnyMethod) -> str:
    if isinstance(method, functools.partial):
        settings = ", ".join([*map(repr, method.args), *(f"{k}={v!r}" for k, v in method.keywords.items())])
        return f"{_name(method.func)}({settings})"
    return getattr(method, "__name__", type(method).__name__)
