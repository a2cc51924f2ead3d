"""One call's settings, and the way from pictures to explanations: encode, targets, gradients, maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mmgradcam.contract import check_finite, check_scores
from mmgradcam.engine import Encoded, encode, gradients_of, scores
from mmgradcam.errors import InputError, ModelError
from mmgradcam.explaining.arguments import AnyMethod, method_of, queries_of
from mmgradcam.explaining.model_input import ModelInput, baseline_input, model_input_of
from mmgradcam.explanation import Explanation, Metadata
from mmgradcam.explanation.explanation import warning_of
from mmgradcam.explanation.indexing import positions_of
from mmgradcam.layers import check_weights, find_target_layer, preserve_state
from mmgradcam.probe import Probe, activations_of, are_zero, asks, cat_padded, fused
from mmgradcam.task import Fusion, Query, Target, Task, hidden_by
from mmgradcam.utils.naming import name_of

Ask = Callable[[Tensor, Sequence[Query]], Sequence[Sequence[Target]]]


@dataclass
class _Drawn:
    """What became of a batch's K rows: maps and their spread (K, *grid), scores (K,), words (K, L).

    Rows are `flat` (K,) whose gradients are all 0, and `lost` (K,) whose gradients are below rounding, and maps therefore 0.
    """

    maps: Tensor
    scores: Tensor
    flat: Tensor
    lost: Tensor
    words: Tensor | None
    std: Tensor | None


@dataclass(frozen=True)
class Explainer:
    """What one call of `explain` was told, and how it is carried out."""

    task: Task
    methods: tuple[AnyMethod, ...]
    target_layers: tuple[Any, ...]
    fuse: Fusion
    autocast: torch.dtype | None
    memory: int | None
    batch: int
    graph: bool
    grounding: bool
    only: Any = None
    blank: list[Tensor] = field(default_factory=list)
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
        views = {id(source): model_input_of(self.task, source) for source in {id(s): s for s in sources}.values()}
        return self.explain([views[id(source)] for source in sources], queries, self.task.targets_of_each)

    def explain(self, views: Sequence[ModelInput], queries: Sequence[Query], ask: Ask) -> list[list[Explanation]]:
        """Explains pictures in batches of equal size."""
        made: list[list[Explanation]] = []
        if self.graph:
            if asking := [name_of(method) for method in self.methods if asks(method)]:
                names = ", ".join(asking)
                raise InputError(f"create_graph: {names} asks the model again and has no graph; use a gradient method")
            check_weights(self.task.modules())
        with (
            self.task.exclusive(),
            torch.enable_grad() if self.graph else preserve_state(self.task.modules()),
            torch.autocast(torch.device(self.task.device).type, enabled=False),
        ):
            while len(made) < len(views):
                start = len(made)
                shape = views[start].pixels.shape
                alike = views[start : start + self.batch]
                count = next((i for i, v in enumerate(alike) if v.pixels.shape != shape), len(alike))
                made += self._batch(alike[:count], queries[start : start + count], ask)
        return made

    def _batch(self, views: Sequence[ModelInput], queries: Sequence[Query], ask: Ask) -> list[list[Explanation]]:
        modules = self.task.modules()
        target_layers = [find_target_layer(target_layer, modules) for target_layer in self.target_layers]
        pixels = torch.stack([v.pixels for v in views]).to(self.task.device)
        encoded = encode(self.task, pixels, target_layers, self.autocast, graph=self.graph)
        with torch.no_grad():
            told = [q if v.size is None else {**q, "size": v.size} for v, q in zip(views, queries, strict=True)]
            targets = ask(encoded.features.detach(), told)
            if self.only is not None:
                targets = [self._chosen(some) for some in targets]
        if not any(targets):
            raise InputError(f"{self.task.name}: there is nothing to explain")
        gradient = [method for method in self.methods if not asks(method)]
        done = iter(self._drawn(encoded, targets, gradient) if gradient else ())
        drawn = [self._asked(m, pixels, encoded, targets) if asks(m) else next(done) for m in self.methods]
        seen = drawn[0].scores.detach()
        check_finite(self.task, seen, [target for some in targets for target in some])
        edges = [0, *accumulate(map(len, targets))]
        rows = list(map(slice, edges, edges[1:]))
        if self.grounding:
            features = encoded.features.detach()
            targets = [self._relied(v, features[b : b + 1], targets[b], seen[rows[b]]) for b, v in enumerate(views)]
        feature_layer = " x ".join(target_layer.name for target_layer in target_layers) or self.task.feature_layer
        return [
            [
                self._made(view, queries[b], targets[b], one, rows[b], method, feature_layer)
                for method, one in zip(self.methods, drawn, strict=True)
            ]
            for b, view in enumerate(views)
        ]

    def _chosen(self, targets: Sequence[Target]) -> list[Target]:
        """The targets that `only` names."""
        keys = self.only if isinstance(self.only, list) else [self.only]
        return [self._joined(*(targets[at] for at in positions_of(targets, key))) for key in keys]

    def _joined(self, first: Target, *more: Target) -> Target:
        return self.task.join([first, *more]) if more else first

    def _made(
        self,
        view: ModelInput,
        query: Query,
        targets: Sequence[Target],
        drawn: _Drawn,
        rows: slice,
        method: AnyMethod,
        feature_layer: str,
    ) -> Explanation:
        """One picture's explanation by one method, out of a batch's rows."""
        warnings = list(map(warning_of, drawn.maps[rows].detach(), drawn.flat[rows].tolist(), drawn.lost[rows].tolist()))
        metadata = Metadata(
            self.task.name, self.task.unit, name_of(method), feature_layer, dict(query),
            image_name=view.name, remarks=tuple(self.task.remarks(targets)),
        )  # fmt: skip
        return Explanation(
            view.picture,
            view.box,
            targets,
            drawn.maps[rows],
            drawn.scores[rows],
            None if drawn.words is None else drawn.words[rows],
            warnings,
            metadata,
            self.task,
            BoundExplainer(replace(self, methods=(method,), only=None), view, query),
            None if drawn.std is None else drawn.std[rows],
            view.clip,
        )

    def _relied(self, view: ModelInput, features: Tensor, targets: Sequence[Target], told: Tensor) -> Sequence[Target]:
        """The targets, each with what it relies on the picture; `told` are their scores."""
        if not targets:
            return targets
        with torch.no_grad():
            if self.task.unit == "log-probability":
                own: Tensor | None = told
                blind: Tensor | None = scores(self.task, self._blank(view), targets, self.memory).flatten().float().cpu()
            else:
                own = self.task.log_prob(features, targets)
                blind = None if own is None else self.task.log_prob(self._blank(view), targets)
        if own is None or blind is None:
            return targets
        for likely in (own, blind):
            check_scores(self.task, likely, targets)
        return [replace(t, grounding=gained) for t, gained in zip(targets, (own - blind).tolist(), strict=True)]

    def _blank(self, view: ModelInput) -> Tensor:
        """(1, C, *grid) features of nothing in place of the picture; see `baseline_input`."""
        pixels = baseline_input(self.task, view)
        if not self.blank or not torch.equal(self.blank[0], pixels):
            made = encode(self.task, pixels[None].to(self.task.device), [], self.autocast)
            self.blank[:] = [pixels, made.features.detach()]
        return self.blank[1]

    def _drawn(self, encoded: Encoded, targets: Sequence[Sequence[Target]], methods: Sequence[AnyMethod]) -> list[_Drawn]:
        """All rows of a batch by gradient methods, image by image and target by target."""
        order: list[tuple[int, int]] = []
        maps: list[list[Tensor]] = [[] for _ in methods]
        scores, flat, lost, words = [], [], [], []
        for part in gradients_of(self.task, encoded, targets, self.memory):
            order += part.rows
            for method, into in zip(methods, maps, strict=True):
                made = fused([self._map(method, a, g) for a, g in part.activations], self.fuse)
                into.append(_emptied(made, part.lost))
            scores.append(part.scores.float())
            flat.append(torch.stack([are_zero(g.detach()) for _, g in part.activations]).all(0))
            lost.append(part.lost)
            if part.words is not None:
                words.append(_emptied(part.words, part.lost))
        latest = {row: i for i, row in enumerate(order)}
        place = torch.tensor([latest[row] for row in sorted(latest)])

        def sorted_rows(parts: Sequence[Tensor]) -> Tensor:
            return (torch.cat(list(parts)) if self.graph else torch.cat(list(parts)).cpu())[place]

        read = cat_padded(words)[place] if words else None
        told, empty, below = sorted_rows(scores), torch.cat(flat).cpu()[place], torch.cat(lost).cpu()[place]
        return [_Drawn(sorted_rows(some), told, empty, below, read, None) for some in maps]

    def _asked(self, method: AnyMethod, pixels: Tensor, encoded: Encoded, targets: Sequence[Sequence[Target]]) -> _Drawn:
        """All rows of a batch by a method that asks the model again, image by image."""
        target_layers = [replace(target_layer, outputs=[]) for target_layer in encoded.target_layers]
        maps, scores, std, lost = [], [], [], []
        for b, some in enumerate(targets):
            if not some:
                continue
            probe = Probe(
                self.task, pixels[b : b + 1], some, activations_of(encoded, b), target_layers,
                encoded.features.detach()[b : b + 1], self.fuse, self.autocast, self.memory, self.batch,
            )  # fmt: skip
            drawn = method(probe)  # type: ignore[call-arg, arg-type]
            for each in drawn if isinstance(drawn, tuple) else (drawn,):
                if not isinstance(each, Tensor) or each.dim() < 2 or len(each) != len(some):
                    got = tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__
                    raise ModelError(f"method {name_of(method)}: expected maps ({len(some)}, *grid), got {got}")
            first, second = drawn if isinstance(drawn, tuple) else (drawn, None)
            gone = torch.tensor([t in probe.lost - probe.kept for t in range(len(some))])
            maps.append(_emptied(first.float().cpu(), gone))
            lost.append(gone)
            scores.append(probe.base().cpu())
            if second is not None:
                std.append(second.float().cpu())
        all_maps = torch.cat(maps)
        flat = torch.zeros(len(all_maps), dtype=torch.bool)
        return _Drawn(all_maps, torch.cat(scores), flat, torch.cat(lost), None, torch.cat(std) if std else None)

    def _map(self, method: AnyMethod, features: Tensor, gradients: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.graph):
            drawn = method(features, gradients)  # type: ignore[call-arg, arg-type]
        expected = (features.shape[0], *features.shape[2:])
        if not isinstance(drawn, Tensor) or tuple(drawn.shape) != expected:
            got = tuple(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
            raise ModelError(f"method {name_of(method)}: expected maps {expected}, got {got}")
        return drawn.float()


def _emptied(rows: Tensor, lost: Tensor) -> Tensor:
    """Rows (K, ...), all 0 where they are lost (K,)."""
    return rows.masked_fill(lost.to(rows.device).view(-1, *[1] * (rows.dim() - 1)), 0.0)


@dataclass(frozen=True)
class BoundExplainer:
    """The way an explanation was made, to make others like it."""

    how: Explainer
    view: ModelInput
    query: Query

    def __call__(self, target: Target) -> Explanation:
        ((made,),) = self.how.explain([self.view], [self.query], lambda features, queries: [[target]])
        return made

    def asked(self, query: Query) -> Explanation:
        """Explains the same picture in the same way, asked something else."""
        alike = replace(self.how, graph=False, grounding=False, only=None, blank=[])
        ((made,),) = alike.explain([self.view], [query], alike.task.targets_of_each)
        return made

    def blind(self) -> Sequence[Target]:
        """What the model predicts for the same query, given nothing in place of the picture; see `baseline_input`."""
        query = self.query if self.view.size is None else {**self.query, "size": self.view.size}
        with self.how.task.exclusive(), preserve_state(self.how.task.modules()), torch.no_grad():
            return self.how.task.targets_of_each(self.how._blank(self.view), [query])[0]

    def of(
        self, targets: Sequence[Sequence[Target]], pixels: Sequence[Tensor], how: Mapping[str, Any] = MappingProxyType({})
    ) -> list[Explanation]:
        """Explains given targets of other pixels, a list of targets for each.

        Args:
            targets: for each picture, its targets.
            pixels: pictures as the model sees them.
            how: `task`, `target_layers` or `methods` to take instead of the explanation's own.
        """
        told: dict[str, Any] = {k: tuple(map(method_of, v)) if k == "methods" else v for k, v in how.items()}
        alike = replace(self.how, graph=False, grounding=False, only=None, blank=[], **told)
        asked, views = iter(targets), [replace(self.view, pixels=one) for one in pixels]
        made = alike.explain(views, [self.query] * len(views), lambda features, queries: [next(asked) for _ in queries])
        return [one for (one,) in made]
