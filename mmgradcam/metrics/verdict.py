"""May this map be trusted? The sanity checks that one explanation can be put to, in a line of plain words per target."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgradcam.explanation import Explanation
from mmgradcam.metrics.likeness import Floats
from mmgradcam.metrics.randomizing import unlearned
from mmgradcam.metrics.sanity import noise_sensitivity
from mmgradcam.metrics.variants import Variants, greyed
from mmgradcam.pictures import Box
from mmgradcam.record import Verdict
from mmgradcam.task import Task

TRUST, LITTLE, DISTRUST = "trust it", "rests on little", "do not trust it"
ALIKE, HOLDS, GAIN = 0.8, 0.5, 0.3
AREA, RANDOM, MODELS = 0.1, 8, 3


def examine(explanation: Explanation, seed: int = 0) -> Explanation:
    """Says of each map whether it may be trusted, with the figures that say so.

    "do not trust it": it shows nothing; or `weights`, its mean rank correlation with the maps of three models that learned
    nothing (`unlearned`), is at least .8; or `noise`, its mean rank correlation with the maps under noise of a twentieth of
    the picture's range (`noise_sensitivity`), is below .5. "rests on little": `hot`, what hiding its hottest tenth costs the
    target in log-probability, is not at least .3 nats (a factor of 1.35) above `other`, what a random tenth costs on average
    (`hiding`); so it is with most words such as "a", which owe the picture nothing. Else "trust it". The limits were chosen
    on the first 140 validation scenes; on others, maps that pass point right far more often (docs/trust.md). A map may pass
    and yet peak beside the thing: what passed is that its hottest tenth holds what the target rests on.

    It takes the method eleven times more (three models, eight noisy copies), and K + 9 encodes for K targets.

    Args:
        explanation: made by `explain`; its model stays as it is.
        seed: of the random weights, the noise and the random parts.

    Returns:
        The same explanation with `verdicts`, which pages, tables and files show.

    Raises:
        InputError: it was loaded from a file, and has no model.
        ModelError: the model cannot be copied.
    """
    made = copy.copy(explanation)
    if not explanation.targets:
        return made
    weights = unlearned(explanation, range(MODELS * seed, MODELS * (seed + 1))).mean(0)
    noise = noise_sensitivity(explanation, seed=seed).correlation
    hot, other = hiding(explanation, seed=seed)
    unit = "nats" if has_likelihood(explanation.task) else f"of the {explanation.about.unit}"
    made.verdicts = [
        verdict_of(one.problem, unit, dict(zip(("weights", "noise", "hot", "other"), map(float, figures), strict=True)))
        for one, figures in zip(explanation, zip(weights, noise, hot, other, strict=True), strict=True)
    ]
    return made


def hiding(explanation: Explanation, area: float = AREA, count: int = RANDOM, seed: int = 0) -> tuple[Floats, Floats]:
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
    variants, likely = Variants([explanation]), has_likelihood(explanation.task)
    seen = variants.seen[0]
    inside = torch.ones(seen.shape, dtype=torch.bool) if seen.tiled else within(seen.view.box, seen.shape)  # type: ignore[arg-type]
    rows = range(len(explanation))
    heats = [variants.heat(k) * inside for k in rows]
    size = max(1, round(area * int(inside.sum())))
    asked = [(k, hottest(heat, size) & (heat > 0)) for k, heat in enumerate(heats)]
    parts = [torch.zeros_like(inside), *random_parts(inside, size, count, seed)]
    asked += [(k, part) for part in parts for k in rows]
    shown = [(k, (~hidden).float()) for k, hidden in asked]
    told = variants.ask(shown, greyed, likely=likely).double().view(-1, len(rows)).numpy()
    return told[1] - told[0], told[1] - told[2:].mean(0)


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
    )[:, 0]
    return [hottest(field.expand(inside.shape).masked_fill(~inside, -1e9), size) for field in fields]


def has_likelihood(task: Task) -> bool:
    """Whether a task can say log-probabilities."""
    return task.unit == "log-probability" or type(task).likelihood is not Task.likelihood


def verdict_of(problem: str | None, unit: str, figures: dict[str, float]) -> Verdict:
    """The verdict on one map, by the limits of `examine`; `problem` is why it shows nothing, `unit` that of costs."""
    if problem:
        return Verdict(DISTRUST, f"the map shows nothing ({problem})", figures)
    r, held, hot, other = figures["weights"], figures["noise"], figures["hot"], figures["other"]
    changes = f"when the model's weights are made random (r {_r(r)})"
    costs = f"hiding its hottest tenth costs {_n(hot)} {unit}"
    if r >= ALIKE:
        return Verdict(DISTRUST, f"little of the map changes {changes}", figures)
    if held < HOLDS:
        return Verdict(DISTRUST, f"noise that nobody would see makes another map of it (r {_r(held)})", figures)
    if hot - other < GAIN:
        more = "hardly more" if hot > other else "no more"
        return Verdict(LITTLE, f"{costs}, {more} than a random tenth ({_n(other)})", figures)
    moved = "changes" if r < 0.5 else "changes somewhat"
    why = f"the map {moved} {changes}, holds under noise (r {_r(held)}), and {costs}, a random tenth {_n(other)}"
    return Verdict(TRUST, why, figures)


def _r(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) >= 0.005 else "0"


def _n(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 0.95 else _r(value)
