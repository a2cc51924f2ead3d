"""The shared engine: each image encoded once, each target's gradient brought to the features. The only backward there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor

from mmgradcam.contract import check_features, check_finite, check_scores, groups_of
from mmgradcam.errors import ModelError
from mmgradcam.layers import TargetLayer, embedded, recording_layers
from mmgradcam.layouts import of_picture
from mmgradcam.task import Target, Task
from mmgradcam.utils.memory import fitting, halving, out_of_memory
from mmgradcam.utils.precision import initial, kept_in_range, lost, times
from mmgradcam.utils.probability import full
from mmgradcam.utils.rows import joined, of_rows, stacked, turns_of

Row = tuple[int, int]
"""Which image of the batch, and which of its targets."""


@dataclass
class Run:
    """One forward of the encoder: of which images, and, with a graph, features and what each target layer put out."""

    images: range
    features: Tensor
    outputs: list[Tensor]


@dataclass
class Encoded:
    """A batch after its forward through the encoder, in which each image ran once.

    Attributes:
        features: (B, C, *grid).
        target_layers: the layers maps are taken at, upstream of the features; empty if maps are taken at the features.
        graph: all of it was recorded, and the gradients shall be too.
        runs: the graphs from the first target layer on; none where there are no target layers.
    """

    features: Tensor
    target_layers: list[TargetLayer]
    graph: bool = False
    runs: list[Run] = field(default_factory=list)


@dataclass
class Gradients:
    """What n targets' scores say of the features.

    Attributes:
        rows: image and target of each of the n rows.
        scores: (n,).
        activations: (features, gradients), each (n, C, *grid) float32, for each target layer, or for the feature layer where
            there is none.
        lost: (n,) bool; the gradients are below the rounding of what they were computed from, see `precision.lost`.
        words: (n, L) gradient times embedding, summed over the embedding, of each token a target reads; or None.
    """

    rows: list[Row]
    scores: Tensor
    activations: list[tuple[Tensor, Tensor]]
    lost: Tensor
    words: Tensor | None


def encode(
    task: Task,
    pixels: Tensor,
    target_layers: Sequence[TargetLayer],
    autocast: torch.dtype | None = None,
    *,
    at_pixels: bool = False,
    graph: bool = False,
) -> Encoded:
    """Runs the encoder once per image.

    On a CPU, where batches gain little, images that need a graph upstream of the features run one by one: a batch's backward
    would work on as many rows for each image as the longest caption has words, in more memory than a cache holds.

    Args:
        task: whose encoder.
        pixels: (B, 3, h, w) prepared pictures on the model's device.
        target_layers: layers at which maps are taken; those that put out tokens and have no layout get the picture's.
        autocast: lower precision for the encoder (torch.bfloat16); the features come out float32.
        at_pixels: maps are taken at the pixels too, as the first of the target layers.
        graph: record all of it, parameters included, for maps that can stand in a loss.
    """
    alone = (target_layers or at_pixels) and not (
        graph or pixels.is_cuda or any(target_layer.change for target_layer in target_layers)
    )
    together = 1 if alone else len(pixels)
    every = [*([TargetLayer(torch.nn.Identity(), name="pixels")] if at_pixels else []), *target_layers]
    runs = []
    for start in range(0, len(pixels), together):
        part = pixels[start : start + together]
        features, outputs = _run(task, part, target_layers, autocast, at_pixels, graph)
        if every and not features.requires_grad:
            raise ModelError(f"no gradient can reach {every[0].name}: nothing after it depends on it; name another layer")
        runs.append(Run(range(start, start + len(part)), features, outputs))
    features = stacked([run.features if graph else run.features.detach() for run in runs])
    return Encoded(features, every, graph, runs if every else [])


def _run(
    task: Task, pixels: Tensor, target_layers: Sequence[TargetLayer], autocast: torch.dtype | None, at_pixels: bool, graph: bool
) -> tuple[Tensor, list[Tensor]]:
    """Features, and what the pixels, if wanted, and each target layer put out."""
    leaf = pixels.detach().requires_grad_() if at_pixels else None
    with (
        recording_layers(target_layers, recorded=at_pixels or graph),
        torch.autocast(pixels.device.type, autocast, enabled=autocast is not None),
    ):
        features = task.encode(pixels if leaf is None else leaf.clone())
    check_features(task, features, len(pixels))
    outputs = []
    for target_layer in target_layers:
        output = target_layer.outputs.pop()
        if target_layer.layout is None and pixels.dim() == 4:
            target_layer.layout = of_picture(output.shape, *pixels.shape[2:])
        outputs.append(output)
    return features.float() if autocast else features, outputs if leaf is None else [leaf, *outputs]


def scores(task: Task, features: Tensor, targets: Sequence[Target], memory: int | None = None) -> Tensor:
    """Scores the same K targets on N variants of a picture, without a graph.

    Args:
        task: whose head.
        features: (N, C, *grid) features of the variants.
        targets: K targets.
        memory: as for `gradients_of`.

    Returns:
        (N, K).
    """
    with torch.no_grad():
        groups = groups_of(task, features, [targets] * len(features))
        if groups is not None:
            found = torch.cat(list(groups)).T
        else:
            rows = [(n, t) for n in range(len(features)) for t in range(len(targets))]
            size = fitting([features[:1]], 4, memory)

            def work(part: list[Row]) -> Iterator[tuple[list[Row], Tensor]]:
                asked = [targets[t] for _, t in part]
                scored = task.score(features[[n for n, _ in part]], asked)
                check_scores(task, scored, asked)
                yield part, scored

            wide = torch.promote_types(features.dtype, torch.float32)
            found = features.new_empty(len(features), len(targets), dtype=wide)
            for part, scored in halving(rows, size, work):
                found.view(-1)[[n * len(targets) + t for n, t in part]] = scored.to(found.dtype)
    if not torch.isfinite(found).all():
        check_finite(task, found.sum(0), targets)
    return found


def paired(task: Task, features: Tensor, targets: Sequence[Target], memory: int | None = None, likely: bool = False) -> Tensor:
    """Scores N targets, each on its own features, without a graph.

    Args:
        task: whose head.
        features: (N, C, *grid).
        targets: N targets.
        memory: as for `gradients_of`.
        likely: log-probabilities instead of scores.

    Returns:
        (N,) float32.

    Raises:
        ModelError: log-probabilities are asked for and the task has none.
    """
    size = fitting([features[:1]], 4, memory)
    told = likely and task.unit != "log-probability"

    def work(part: list[int]) -> Iterator[Tensor]:
        asked = [targets[n] for n in part]
        scored = task.log_prob(features[part], asked) if told else task.score(features[part], asked)
        if scored is None:
            raise ModelError(f"{task.name} has no probabilities; give it a `log_prob` that returns (K,) log-probabilities")
        check_scores(task, scored, asked)
        yield scored.float()

    with torch.no_grad():
        found = torch.cat(list(halving(list(range(len(targets))), size, work)))
    check_finite(task, found, targets)
    return found


def gradients_of(
    task: Task, encoded: Encoded, targets: Sequence[Sequence[Target]], memory: int | None = None
) -> Iterator[Gradients]:
    """Brings the gradient of every target to the feature layer, and on to the target layers.

    A head that scores all targets of an image in one forward (`Task.scores`) is differentiated in rounds, one target of
    every image at a time; any other gets one row of features per target, and one backward for as many rows as fit.

    Where the scores are log-probabilities (`Task.unit`), their gradients by the logits are of size 1 - p. The backward runs on
    gradients brought to the size of 1 by a power of two for each row, so that they stay in the range of the model's precision;
    results are in the units of the score.

    Args:
        task: whose head.
        encoded: the batch.
        targets: for each image, its targets.
        memory: bytes that the rows may take; by default 256 MiB on a CPU, half of what is free on a GPU. Where the device
            runs out of memory all the same, half as many rows are tried.

    Yields:
        `Gradients` of the rows done together, in no particular order; after running out of memory, some rows a second time.
    """
    features = encoded.features if encoded.graph else encoded.features.detach()
    most = fitting([features[:1]], 8, memory)

    def work(images: list[int]) -> Iterator[_Part]:
        asked = [targets[b] for b in images]
        rounds = iter(()) if encoded.graph else _rounds(task, features[images], images, asked, most)
        first = next(rounds, None)
        if first is not None:
            yield from chain([first], rounds)
            return
        rows = [(b, t) for t in range(max(map(len, asked))) for b in images if t < len(targets[b])]
        yield from halving(rows, most, lambda part: [_expanded(task, encoded, features, targets, part)])

    for part in halving([b for b in range(len(targets)) if targets[b]], most, work):
        arrived, powers = _places(encoded, part, memory)
        activations = [(x, times(gradients.float(), -powers)) for x, gradients in arrived]
        yield Gradients(
            part.rows, part.scores, activations, lost(task.unit, part.scores, [g for _, g in arrived], activations), part.words
        )


@dataclass
class _Part:
    """Rows done together: their scores, and gradients at the feature layer, times two to the `powers` (n,)."""

    rows: list[Row]
    scores: Tensor
    gradients: Tensor
    powers: Tensor
    words: Tensor | None


def _expanded(task: Task, encoded: Encoded, features: Tensor, targets: Sequence[Sequence[Target]], rows: list[Row]) -> _Part:
    """One row of features per target, one backward for all rows."""
    leaf, graph = _leaf(features[[b for b, _ in rows]]), encoded.graph
    asked = [targets[b][t] for b, t in rows]
    with embedded(None if graph else task.words()) as words:
        scores = task.score(leaf.clone(), asked)
    check_scores(task, scores, asked)
    _check_graph(task, scores, words)
    again = graph or leaf.dtype == torch.float16

    def work(powers: Tensor) -> Sequence[Tensor | None]:
        vector = torch.exp2(powers).to(scores.dtype)
        inputs = [leaf, *words]
        return torch.autograd.grad(scores, inputs, vector, retain_graph=again, create_graph=graph, allow_unused=True)

    made, powers = kept_in_range(work, initial(task.unit, scores), 1)
    return _part(rows, scores if graph else scores.detach(), leaf, words, made, powers)


def _rounds(task: Task, features: Tensor, images: list[int], asked: list[Sequence[Target]], most: int) -> Iterator[_Part]:
    """One forward for all targets of these images, then their backwards; nothing if the task has no such forward."""
    leaf = _leaf(features)
    with embedded(task.words()) as words:
        groups = groups_of(task, leaf.clone(), asked)
    size, done = max(1, most // len(images)), 0
    for rounds in (part for group in groups or () for part in torch.split(group, size)):
        at = [(t, i) for t in range(len(rounds)) for i, row in enumerate(asked) if done + t < len(row)]
        turn, image = ([pair[k] for pair in at] for k in (0, 1))
        _check_graph(task, rounds, words)

        def work(powers: Tensor, rounds: Tensor = rounds) -> Sequence[Tensor | None]:
            each = torch.diag_embed(torch.exp2(powers).to(rounds.dtype).T).permute(1, 2, 0)  # (t, t, B)
            return _products(rounds, [leaf, *words], each)

        made, powers = kept_in_range(work, initial(task.unit, rounds), 1)
        rows, read = [(images[i], done + t) for t, i in at], [word[image] for word in words]
        picked = [None if g is None else _chosen(g, turn, image) for g in made]
        yield _part(rows, rounds.detach()[turn, image], leaf, read, picked, powers[turn, image])
        done += len(rounds)


def _part(
    rows: list[Row], scores: Tensor, leaf: Tensor, words: list[Tensor], made: Sequence[Tensor | None], powers: Tensor
) -> _Part:
    """Of rows whose gradients, times two to the powers, were made: at the features, and then at the words, if any are read."""
    found, *more = made
    gradients = leaf.new_zeros(len(rows), *leaf.shape[1:]) if found is None else found
    importance = None
    if words:
        (word,), (gradient,) = words, more
        importance = _importance(word, gradient, powers)
    return _Part(rows, scores, gradients, powers, importance)


def _importance(embedded: Tensor, gradients: Tensor | None, powers: Tensor) -> Tensor:
    """(n, L) gradient times embedding; the first n rows of (R, L, width)."""
    if gradients is None:
        return embedded.new_zeros(embedded.shape[:2], dtype=torch.float32)
    product = full(embedded.detach()) * full(gradients)
    return times(product.sum(-1)[: len(powers)].float(), -powers)


def _leaf(features: Tensor) -> Tensor:
    return features if features.requires_grad else features.requires_grad_()


def _check_graph(task: Task, scores: Tensor, words: Sequence[Tensor]) -> None:
    if not scores.requires_grad:
        raise ModelError(
            f"{task.name}.score: no gradient leads back to the features; compute the score from the features it is given, "
            "without no_grad, inference_mode, detach or numpy on the way"
        )
    if len(words) > 1:
        raise ModelError(f"{task.name}.words: the layer ran {len(words)} times while scoring, expected once")


def _places(encoded: Encoded, part: _Part, memory: int | None) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Features of the rows at the feature layer, or, where there are target layers, at each target layer, and gradients times
    two to the powers (n,).
    """
    images = [b for b, _ in part.rows]
    if not encoded.target_layers:
        return [(of_rows(_kept(encoded, encoded.features), images).float(), part.gradients)], part.powers
    order: list[int] = []
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in encoded.target_layers]
    powers: list[Tensor] = []
    for run in encoded.runs:
        mine = [row for row, image in enumerate(images) if image in run.images]
        turns = turns_of([images[row] for row in mine])
        size = fitting(run.outputs, 8, memory)
        for chunk in sorted({turn // size for turn in turns}):
            some = [at for at, turn in enumerate(turns) if turn // size == chunk]
            rows, turn = [mine[at] for at in some], [turns[at] % size for at in some]
            image = [images[row] - run.images.start for row in rows]
            vectors = run.features.new_zeros(max(turn) + 1, *run.features.shape)
            vectors[turn, image] = part.gradients[rows].to(vectors.dtype)

            def work(powers: Tensor, run: Run = run, vectors: Tensor = vectors) -> Sequence[Tensor | None]:
                together = run.features.device.type != "cpu"  # there a vmapped convolution runs row by row, with copies
                return _products(run.features, run.outputs, times(vectors, powers), encoded.graph, together)

            made, more = kept_in_range(work, part.powers.new_zeros(vectors.shape[:2]), len(run.outputs))
            powers.append(part.powers[rows] + more[turn, image])
            for target_layer, x, gradients, into in zip(encoded.target_layers, run.outputs, made, found, strict=True):
                if gradients is None:
                    raise ModelError(
                        f"no gradient reaches {target_layer.name}: the features do not depend on it; name another layer"
                    )
                into.append((of_rows(_kept(encoded, x), image), _chosen(gradients, turn, image)))
            order += rows
    back = sorted(range(len(order)), key=order.__getitem__)
    return [
        (target_layer.grid(joined([x for x, _ in each], back)).float(), target_layer.grid(joined([g for _, g in each], back)))
        for target_layer, each in zip(encoded.target_layers, found, strict=True)
    ], torch.cat(powers)[back]


def _chosen(gradients: Tensor, turn: list[int], image: list[int]) -> Tensor:
    """Rows of (T, B, ...) by their turn and image; those of a single image are all there, in order."""
    return gradients[:, 0] if gradients.shape[1] == 1 else gradients[turn, image]


def _products(
    outputs: Tensor, inputs: Sequence[Tensor], vectors: Tensor, graph: bool = False, together: bool = True
) -> Sequence[Tensor | None]:
    """T vectors (T, *shape of the outputs) brought back to each input: (T, *its shape), or None where none arrives.

    `together`, the T backwards run as one (vmapped: what lies between is read once, not T times), but one by one where the
    model holds something that cannot, such as a hook that looks at numbers.
    """

    def product(vector: Tensor, batched: bool = False) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(
            outputs, inputs, vector, retain_graph=True, create_graph=graph, allow_unused=True, is_grads_batched=batched
        )

    if together and len(vectors) > 1:
        try:
            return product(vectors, batched=True)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
    found = [[g for g in each if g is not None] for each in zip(*map(product, vectors), strict=True)]
    return [torch.stack(each) if each else None for each in found]


def _kept(encoded: Encoded, tensor: Tensor) -> Tensor:
    return tensor if encoded.graph else tensor.detach()
