"""Does this map pass? The sanity checks that one explanation can be put to, in a line of plain words per target."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgradcam.explanation import FAIL, PASS, WEAK, Explanation, SanityResult
from mmgradcam.images.pictures import Box
from mmgradcam.metrics.perturbations import Variants, fill_mean
from mmgradcam.metrics.randomization import label_randomization
from mmgradcam.metrics.sensitivity import noise_sensitivity
from mmgradcam.metrics.similarity import Floats
from mmgradcam.task import Task

ALIKE, HOLDS = 0.8, 0.5
NEEDED, SOMEWHAT, ENOUGH = 0.3, 0.05, 1.0
AREAS = {"tenth": 0.1, "quarter": 0.25}
RANDOM, MODELS = 8, 3


def sanity_check(explanation: Explanation, seed: int = 0) -> Explanation:
    """Says of each map whether it passes a sanity check, with the figures that say so.

    "map fails": it shows nothing; or `weights`, its mean rank correlation with the maps of three models that learned nothing
    (`label_randomization`), is at least .8; or `noise`, its mean rank correlation with the maps under noise of a twentieth of
    the picture's range (`noise_sensitivity`), is below .5. "map passes": its hottest tenth or quarter is needed, since hiding
    it costs the target at least .3 nats of log-probability (a factor of 1.35) more than hiding a random part of that area does
    on average (`topk_occlusion_drop`); or it costs at least .05 nats more, and its hottest quarter is enough, since showing
    nothing else gives the target at least 1 nat more than a random quarter does (`topk_sufficiency`): a person who fills a
    photo is still seen when a part is hidden. Else "map is weak"; so it is with most words such as "a", which owe the picture
    nothing.

    A map that passes shows what the target rests on. It does not say that the target is true of the picture, and it may peak
    beside the thing. The limits were chosen on validation scenes and on training photos; docs/trust.md has what they do on
    others.

    It takes the method eleven times more (three models, eight noisy copies), and 3K + 27 encodes for K targets.

    Args:
        explanation: made by `explain`; its model stays as it is.
        seed: of the random weights, the noise and the random parts.

    Returns:
        The same explanation with `sanity_results`, which pages, tables and files show. Their figures: `weights` and `noise`,
        -1..1, and in log-probability, natural logarithm, or in the score's unit where there is no probability: what hiding
        costs, `hot_tenth`, `other_tenth`, `hot_quarter`, `other_quarter`, and what showing gives, `shown_quarter`,
        `shown_other`.

    Raises:
        InputError: it was loaded from a file, and has no model.
        ModelError: the model cannot be copied.
    """
    made = copy.copy(explanation)
    if not explanation.targets:
        return made
    columns: dict[str, Floats] = {
        "weights": label_randomization(explanation, range(MODELS * seed, MODELS * (seed + 1))).mean(0),
        "noise": noise_sensitivity(explanation, seed=seed).correlation,
    }
    for name, area in AREAS.items():
        columns[f"hot_{name}"], columns[f"other_{name}"] = topk_occlusion_drop(explanation, area, seed=seed)
    columns["shown_quarter"], columns["shown_other"] = topk_sufficiency(explanation, AREAS["quarter"], seed=seed)
    unit = "nats" if has_likelihood(explanation.task) else f"of the {explanation.metadata.unit}"
    made.sanity_results = [
        sanity_result_of(one.warning, unit, {name: float(column[k]) for name, column in columns.items()})
        for k, one in enumerate(explanation)
    ]
    return made


def topk_occlusion_drop(
    explanation: Explanation, area: float = 0.1, count: int = RANDOM, seed: int = 0
) -> tuple[Floats, Floats]:
    """What it costs to hide the hottest part of the picture, and what a random part of the same area.

    What is hidden turns grey, of the hottest part only where there is heat; random parts are blobs, the same for all targets.

    Args:
        explanation: of K targets, made by `explain`.
        area: share of what the model sees of the picture that is hidden, in 0..1.
        count: random parts.
        seed: of the random parts.

    Returns:
        (K,) and (K,): log-probability lost, natural logarithm, or score where there is no probability; the second is the mean.
    """
    whole, hot, other = _told(explanation, area, count, seed, only=False)
    return whole - hot, whole - other


def topk_sufficiency(explanation: Explanation, area: float = 0.25, count: int = RANDOM, seed: int = 0) -> tuple[Floats, Floats]:
    """What it gives to show nothing but the hottest part of the picture, and nothing but a random part of the same area.

    The rest is grey. With `topk_occlusion_drop` it is the sufficiency and comprehensiveness of DeYoung et al., "ERASER", 2020,
    section 5.2, of pixels, and held against random parts.

    Args:
        explanation: of K targets, made by `explain`.
        area: share of what the model sees of the picture that is shown, in 0..1.
        count: random parts, the same as of `topk_occlusion_drop`.
        seed: of the random parts.

    Returns:
        (K,) and (K,): log-probability gained over an all grey picture, natural logarithm, or score where there is no
        probability; the second is the mean.
    """
    nothing, hot, other = _told(explanation, area, count, seed, only=True)
    return hot - nothing, other - nothing


def _told(explanation: Explanation, area: float, count: int, seed: int, *, only: bool) -> tuple[Floats, Floats, Floats]:
    """(K,) each, of no part, the hottest and the mean of random ones: log-probabilities with it hidden, or `only` it shown."""
    variants, likely = Variants([explanation]), has_likelihood(explanation.task)
    (seen,) = variants.seen
    inside = torch.ones(seen.shape, dtype=torch.bool) if seen.tiled else within(seen.view.box, seen.shape)  # type: ignore[arg-type]
    rows = range(len(explanation))
    heats = [variants.heat(k) * inside for k in rows]
    size = max(1, round(area * int(inside.sum())))
    asked = [(k, hottest(heat, size) & (heat > 0)) for k, heat in enumerate(heats)]
    parts = [torch.zeros_like(inside), *random_parts(inside, size, count, seed)]
    asked += [(k, part) for part in parts for k in rows]
    kept = [(k, (part | ~inside if only else ~part).float()) for k, part in asked]
    told = variants.ask(kept, fill_mean, likely=likely).double().view(-1, len(rows)).numpy()
    return told[1], told[0], told[2:].mean(0)


def within(box: Box, shape: tuple[int, ...]) -> Tensor:
    """(*shape) bool: the pixels that show the picture, and not what it was padded with; `box` is what all pixels cover."""
    *_, h, w = shape
    x0, y0, x1, y1 = box
    ys, xs = (low + (torch.arange(n) + 0.5) / n * (high - low) for n, low, high in ((h, y0, y1), (w, x0, x1)))
    made = ((ys > 0) & (ys < 1))[:, None] & ((xs > 0) & (xs < 1))[None]
    return made.expand(shape)


def hottest(heat: Tensor, size: int) -> Tensor:
    """(*shape) bool: so many cells, where the heat is largest."""
    made = torch.zeros(heat.numel(), dtype=torch.bool)
    made[heat.flatten().argsort(descending=True, stable=True)[:size]] = True
    return made.view(heat.shape)


def random_parts(inside: Tensor, size: int, count: int, seed: int) -> list[Tensor]:
    """Blobs of so many of the cells that are inside, (*shape) bool; the same in every frame or tile."""
    draw = torch.Generator().manual_seed(seed)
    fields = F.interpolate(
        torch.rand(count, 1, 6, 6, generator=draw), size=inside.shape[-2:], mode="bicubic", align_corners=False
    ).squeeze(1)
    return [hottest(field.expand(inside.shape).masked_fill(~inside, -1e9), size) for field in fields]


def has_likelihood(task: Task) -> bool:
    """Whether a task can say log-probabilities."""
    return task.unit == "log-probability" or type(task).log_prob is not Task.log_prob


def sanity_result_of(warning: str | None, unit: str, figures: dict[str, float]) -> SanityResult:
    """The result for one map, by the limits of `sanity_check`; `warning` is why it shows nothing, `unit` that of costs."""
    if warning:
        return SanityResult(FAIL, f"the map shows nothing ({warning})", figures)
    r, held = figures["weights"], figures["noise"]
    gains = {name: figures[f"hot_{name}"] - figures[f"other_{name}"] for name in AREAS}
    part = max(gains, key=gains.__getitem__)
    hot, other = figures[f"hot_{part}"], figures[f"other_{part}"]
    changes = f"when the model's weights are made random (r {_r(r)})"
    costs = f"hiding its hottest {part} costs {_n(hot)} {unit}"
    if not r < ALIKE:  # nor where it is not a number
        return SanityResult(FAIL, f"little of the map changes {changes}", figures)
    if not held >= HOLDS:
        return SanityResult(FAIL, f"noise that nobody would see makes another map of it (r {_r(held)})", figures)
    shown, others = figures["shown_quarter"], figures["shown_other"]
    enough = gains[part] >= SOMEWHAT and shown - others >= ENOUGH
    if gains[part] < NEEDED and not enough:
        more = "hardly more" if gains[part] > 0 else "no more"
        return SanityResult(WEAK, f"{costs}, {more} than a random {part} ({_n(other)})", figures)
    moved = "changes" if r < 0.5 else "changes somewhat"
    why = f"the map {moved} {changes}, holds under noise (r {_r(held)}), and {costs}, a random {part} {_n(other)}"
    if gains[part] < NEEDED:
        why += f"; showing nothing but its hottest quarter gives back {_n(shown)}, a random quarter {_n(others)}"
    return SanityResult(PASS, why, figures)


def _r(value: float) -> str:
    return "0" if abs(value) < 0.005 else f"{value:.2f}".replace("0.", ".")


def _n(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 0.95 else _r(value)
