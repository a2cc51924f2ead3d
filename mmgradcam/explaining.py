"""The verb: a task, pictures and a method make explanations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from types import MappingProxyType
from typing import Any, overload

import torch
from torch import Tensor

from mmgradcam.arguments import (
    AnyMethod,
    check_settings,
    described,
    fusion_of,
    method_of,
    name_of,
    queries_of,
    taps_of,
    task_of,
)
from mmgradcam.engine import Encoded, check_finite, encode, scores, slopes
from mmgradcam.errors import InputError, ModelError
from mmgradcam.explanation import Explanation, problem_of
from mmgradcam.layouts import of_picture
from mmgradcam.methods import gradcam, product
from mmgradcam.probe import Probe, are_zero, asks, cat_padded, places_of
from mmgradcam.record import About
from mmgradcam.seam import check_weights, find_tap, left_as_found
from mmgradcam.task import Fusion, Query, Target, Task, device_of, hidden_by
from mmgradcam.views import View, blank_of, view_of

Ask = Callable[[Tensor, Sequence[Query]], Sequence[Sequence[Target]]]


@overload
def explain(
    task: Task | str, inputs: list[Any] | tuple[Any, ...], *, method: AnyMethod | str | None = ..., taps: Any = ...,
    fuse: Fusion | str | None = ..., each: Sequence[Query] | None = ..., autocast: torch.dtype | None = ...,
    memory: int | None = ..., batch: int = ..., create_graph: bool = ..., reliance: bool = ..., **query: Any,
) -> list[Explanation]: ...  # fmt: skip


@overload
def explain(
    task: Task | str, inputs: Any, *, method: AnyMethod | str | None = ..., taps: Any = ...,
    fuse: Fusion | str | None = ..., each: Sequence[Query] | None = ..., autocast: torch.dtype | None = ...,
    memory: int | None = ..., batch: int = ..., create_graph: bool = ..., reliance: bool = ..., **query: Any,
) -> Explanation: ...  # fmt: skip


def explain(
    task: Task | str,
    inputs: Any,
    *,
    method: AnyMethod | str | None = None,
    taps: Any = None,
    fuse: Fusion | str | None = None,
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
    and hooks, also after an exception. Threads may share it: calls about one model, or about models that share modules or
    parameters, wait for each other (`mmgradcam.locks.exclusive`).

    Args:
        task: the model, seen as a `Task`; or the name of a bundled model, which stays loaded.
        inputs: a picture or a list of them; each a path, a Pillow image, an array (H, W[, 3 or 4]) of uint8 or of floats in
            0..1, a `Clip` for a model of clips, or a tensor (3, h, w) that is already prepared for the model.
        method: how a map is made: a function of (features, gradients), such as `gradcam` or `layercam`, or of a `Probe`, which
            asks the model again, such as `rise` or `smooth(layercam)`; or its name. By default the task's own choice, else
            `gradcam`.
        taps: layers upstream of the features at which to take maps instead, for a finer picture: a module of the task's
            model, its dotted name or a `Tap`, or several. By default the task's own choice; () is the features themselves.
        fuse: how the maps of several taps become one: `product`, `mean` or another function; by default the task's own choice,
            else their product.
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
        InputError: the picture, the query or a setting cannot be used.
        ModelError: the task's model gives no usable gradient or score.
    """
    many = isinstance(inputs, (list, tuple)) or (isinstance(inputs, Tensor) and inputs.dim() == 4)
    sources = list(inputs) if many else [inputs]
    how = _how(task, (method,), taps, fuse, autocast, memory, batch, create_graph, reliance)
    made = [one for (one,) in how.all(sources, each, query)]
    return made if many else made[0]


def compare(
    task: Task | str,
    inputs: Sequence[Any],
    methods: Sequence[AnyMethod | str],
    *,
    taps: Any = None,
    fuse: Fusion | str | None = None,
    each: Sequence[Query] | None = None,
    autocast: torch.dtype | None = None,
    memory: int | None = None,
    batch: int = 16,
    reliance: bool = False,
    **query: Any,
) -> list[list[Explanation]]:
    """Explains the same targets by several methods: one encode per picture for all of them, one backward for all gradient ones.

    Args:
        task: as of `explain`.
        inputs: pictures, each as of `explain`.
        methods: as of `explain`.
        taps: as of `explain`, for all methods.
        fuse: as of `explain`.
        each: one query per picture, added to `query`.
        autocast: as of `explain`.
        memory: as of `explain`.
        batch: pictures encoded together.
        reliance: as of `explain`.
        **query: what to explain.

    Returns:
        For each picture, one explanation per method, in their order.

    Raises:
        InputError: the picture or the query cannot be used, or there is no method.
        ModelError: the task's model gives no usable gradient or score.
    """
    for what, given in (("pictures", inputs), ("methods", methods)):
        if isinstance(given, str) or not isinstance(given, (Sequence, Tensor)):
            raise InputError(f"compare: expected a list of {what}, got {described(given)}")
    if not methods:
        raise InputError("compare: expected at least one method, got none")
    how = _how(task, methods, taps, fuse, autocast, memory, batch, False, reliance)
    return how.all(list(inputs), each, query)


def _how(
    given: Task | str, methods: Sequence[AnyMethod | str | None], taps: Any, fuse: Fusion | str | None,
    autocast: torch.dtype | None, memory: int | None, batch: int, graph: bool, reliance: bool,
) -> _How:  # fmt: skip
    """What a call was told, names looked up and defaults filled in."""
    task = task_of(given)
    check_settings(autocast, memory, batch)
    chosen = tuple(method_of(method) or task.method or gradcam for method in methods)
    places, fusion = taps_of(task.taps if taps is None else taps), fusion_of(fuse) or task.fuse or product
    return _How(task, chosen, places, fusion, autocast, memory, batch, graph, reliance)


@dataclass(frozen=True)
class _Drawn:
    """What became of a batch's K rows: maps and their spread (K, *grid), scores (K,), words (K, L).

    Rows are `flat` (K,) whose gradients are all 0, and `lost` (K,) whose gradients are below rounding, and maps therefore 0.
    """

    maps: Tensor
    scores: Tensor
    flat: Tensor
    lost: Tensor
    words: Tensor | None
    spread: Tensor | None


@dataclass(frozen=True)
class _How:
    """What one call of `explain` was told."""

    task: Task
    methods: tuple[AnyMethod, ...]
    taps: tuple[Any, ...]
    fuse: Fusion
    autocast: torch.dtype | None
    memory: int | None
    batch: int
    graph: bool
    reliance: bool
    blank: list[Tensor] = field(default_factory=list, compare=False)
    """The pixels of the last picture that showed nothing, and its features."""

    def all(self, sources: list[Any], each: Sequence[Query] | None, query: Query) -> list[list[Explanation]]:
        """Of each picture, an explanation by each method."""
        if not sources:
            raise InputError("expected at least one picture, got an empty list")
        if hidden := hidden_by(self.task):
            raise ModelError(
                f"{type(self.task).__name__}: its attribute {hidden[0]!r} hides Task.{hidden[0]}; call it something else"
            )
        queries = queries_of(self.task, query, each, len(sources))
        views = {id(source): view_of(self.task, source) for source in {id(s): s for s in sources}.values()}
        return self.explain([views[id(source)] for source in sources], queries, self.task.targets_of_each)

    def explain(self, views: Sequence[View], queries: Sequence[Query], ask: Ask) -> list[list[Explanation]]:
        """Explains pictures in batches of equal size."""
        made: list[list[Explanation]] = []
        if self.graph and asks(self.methods[0]):
            name = name_of(self.methods[0])
            raise InputError(f"create_graph: {name} asks the model again and has no graph; use a gradient method")
        if self.graph:
            check_weights(self.task.modules())
        with (
            self.task.exclusive(),
            torch.enable_grad() if self.graph else left_as_found(self.task.modules()),
            torch.autocast(device_of(self.task).type, enabled=False),
        ):
            while len(made) < len(views):
                start = len(made)
                shape = views[start].pixels.shape
                alike = views[start : start + self.batch]
                count = next((i for i, v in enumerate(alike) if v.pixels.shape != shape), len(alike))
                made += self._batch(alike[:count], queries[start : start + count], ask)
        return made

    def _batch(self, views: Sequence[View], queries: Sequence[Query], ask: Ask) -> list[list[Explanation]]:
        modules = self.task.modules()
        taps = [find_tap(tap, modules) for tap in self.taps]
        pixels = torch.stack([v.pixels for v in views]).to(device_of(self.task))
        encoded = encode(self.task, pixels, taps, self.autocast, graph=self.graph)
        for tap in encoded.taps:
            if tap.layout is None and pixels.dim() == 4:
                tap.layout = of_picture(tap.outputs[0].shape, pixels.shape[2], pixels.shape[3])
        with torch.no_grad():
            told = [q if v.size is None else {**q, "size": v.size} for v, q in zip(views, queries, strict=True)]
            targets = ask(encoded.features.detach(), told)
        if not any(targets):
            raise InputError(f"{self.task.name or type(self.task).__name__}: there is nothing to explain")
        gradient = [method for method in self.methods if not asks(method)]
        done = iter(self._drawn(encoded, targets, gradient) if gradient else ())
        drawn = [self._asked(m, pixels, encoded, targets) if asks(m) else next(done) for m in self.methods]
        check_finite(self.task, drawn[0].scores, [target for some in targets for target in some])
        ends = list(accumulate(map(len, targets)))
        rows = [slice(end - len(some), end) for end, some in zip(ends, targets, strict=True)]
        if self.reliance:
            features, seen = encoded.features.detach(), drawn[0].scores.detach()
            targets = [self._relied(v, features[b : b + 1], targets[b], seen[rows[b]]) for b, v in enumerate(views)]
        seam = " x ".join(tap.name for tap in taps) or self.task.seam
        return [
            [
                self._made(view, query, targets[b], one, rows[b], method, seam)
                for method, one in zip(self.methods, drawn, strict=True)
            ]
            for b, (view, query) in enumerate(zip(views, queries, strict=True))
        ]

    def _made(
        self, view: View, query: Query, targets: Sequence[Target], drawn: _Drawn, rows: slice, method: AnyMethod, seam: str
    ) -> Explanation:
        """One picture's explanation by one method, out of a batch's rows."""
        shown = zip(drawn.maps[rows].detach(), drawn.flat[rows].tolist(), drawn.lost[rows].tolist(), strict=True)
        problems = [problem_of(*one) for one in shown]
        about = About(
            self.task.name or type(self.task).__name__, self.task.unit, name_of(method), seam, dict(query),
            image_name=view.name, remarks=tuple(self.task.remarks(targets)),
        )  # fmt: skip
        return Explanation(
            view.picture,
            view.box,
            targets,
            drawn.maps[rows],
            drawn.scores[rows],
            None if drawn.words is None else drawn.words[rows],
            problems,
            about,
            self.task,
            Again(replace(self, methods=(method,)), view, query),
            None if drawn.spread is None else drawn.spread[rows],
            view.clip,
        )

    def _relied(self, view: View, features: Tensor, targets: Sequence[Target], told: Tensor) -> Sequence[Target]:
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

    def _blank(self, view: View) -> Tensor:
        """(1, C, *grid) features of nothing in place of the picture; see `blank_of`."""
        pixels = blank_of(self.task, view)
        if not self.blank or not torch.equal(self.blank[0], pixels):
            made = encode(self.task, pixels[None].to(device_of(self.task)), [], self.autocast)
            self.blank[:] = [pixels, made.features.detach()]
        return self.blank[1]

    def _drawn(self, encoded: Encoded, targets: Sequence[Sequence[Target]], methods: Sequence[AnyMethod]) -> list[_Drawn]:
        """All rows of a batch by gradient methods, image by image and target by target."""
        order: list[tuple[int, int]] = []
        maps: list[list[Tensor]] = [[] for _ in methods]
        scores, flat, lost, words = [], [], [], []
        for part in slopes(self.task, encoded, targets, self.memory):
            order += part.rows
            for method, into in zip(methods, maps, strict=True):
                drawn = [self._map(method, a, g) for a, g in part.places]
                made = drawn[0] if len(drawn) == 1 else self.fuse(drawn)
                into.append(made.masked_fill(part.lost.to(made.device).view(-1, *[1] * (made.dim() - 1)), 0.0))
            scores.append(part.scores.float())
            flat.append(torch.stack([are_zero(g.detach()) for _, g in part.places]).all(0))
            lost.append(part.lost)
            if part.words is not None:
                words.append(part.words.masked_fill(part.lost.to(part.words.device)[:, None], 0.0))
        latest = {row: i for i, row in enumerate(order)}
        place = torch.tensor([latest[row] for row in sorted(latest)])

        def sorted_rows(parts: Sequence[Tensor]) -> Tensor:
            return (torch.cat(list(parts)) if self.graph else torch.cat(list(parts)).cpu())[place]

        read = cat_padded(words)[place] if words else None
        told, empty, below = sorted_rows(scores), torch.cat(flat).cpu()[place], torch.cat(lost).cpu()[place]
        return [_Drawn(sorted_rows(some), told, empty, below, read, None) for some in maps]

    def _asked(self, method: AnyMethod, pixels: Tensor, encoded: Encoded, targets: Sequence[Sequence[Target]]) -> _Drawn:
        """All rows of a batch by a method that asks the model again, image by image."""
        taps = [replace(tap, outputs=[]) for tap in encoded.taps]
        maps, scores, spread, lost = [], [], [], []
        for b, some in enumerate(targets):
            if not some:
                continue
            probe = Probe(
                self.task, pixels[b : b + 1], some, places_of(encoded, b), taps, encoded.features.detach()[b : b + 1],
                self.fuse, self.autocast, self.memory, self.batch,
            )  # fmt: skip
            drawn = method(probe)  # type: ignore[call-arg, arg-type]
            for each in drawn if isinstance(drawn, tuple) else (drawn,):
                if not isinstance(each, Tensor) or each.dim() < 2 or len(each) != len(some):
                    got = tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__
                    raise ModelError(f"method {name_of(method)}: expected maps ({len(some)}, *grid), got {got}")
            first, second = drawn if isinstance(drawn, tuple) else (drawn, None)
            gone = torch.tensor([t in probe.lost - probe.kept for t in range(len(some))])
            maps.append(first.float().cpu().masked_fill(gone.view(-1, *[1] * (first.dim() - 1)), 0.0))
            lost.append(gone)
            scores.append(probe.base().cpu())
            if second is not None:
                spread.append(second.float().cpu())
        all_maps = torch.cat(maps)
        flat = torch.zeros(len(all_maps), dtype=torch.bool)
        return _Drawn(all_maps, torch.cat(scores), flat, torch.cat(lost), None, torch.cat(spread) if spread else None)

    def _map(self, method: AnyMethod, features: Tensor, gradients: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.graph):
            drawn = method(features, gradients)  # type: ignore[call-arg, arg-type]
        expected = (features.shape[0], *features.shape[2:])
        if not isinstance(drawn, Tensor) or tuple(drawn.shape) != expected:
            got = tuple(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
            raise ModelError(f"method {name_of(method)}: expected maps {expected}, got {got}")
        return drawn.float()


@dataclass(frozen=True)
class Again:
    """The way an explanation was made, to make others like it."""

    how: _How
    view: View
    query: Query

    def __call__(self, target: Target) -> Explanation:
        return self.how.explain([self.view], [self.query], lambda features, queries: [[target]])[0][0]

    def of(
        self, targets: Sequence[Sequence[Target]], pixels: Sequence[Tensor], how: Mapping[str, Any] = MappingProxyType({})
    ) -> list[Explanation]:
        """Explains given targets of other pixels, a list of targets for each.

        Args:
            targets: for each picture, its targets.
            pixels: pictures as the model sees them.
            how: `task`, `taps` or `methods` to take instead of the explanation's own.
        """
        told: dict[str, Any] = {k: tuple(map(method_of, v)) if k == "methods" else v for k, v in how.items()}
        alike = replace(self.how, graph=False, reliance=False, blank=[], **told)
        asked, views = iter(targets), [replace(self.view, pixels=one) for one in pixels]
        made = alike.explain(views, [self.query] * len(views), lambda features, queries: [next(asked) for _ in queries])
        return [one for (one,) in made]
