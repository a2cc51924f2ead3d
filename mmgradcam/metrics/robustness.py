"""Do the maps stay when the picture is attacked?"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.explaining.explain import explain
from mmgradcam.explanation import Explanation
from mmgradcam.images.pictures import iou, open_picture
from mmgradcam.layers import preserve_state
from mmgradcam.metrics.localization import Mask, peak_in
from mmgradcam.metrics.similarity import spearman
from mmgradcam.probe import AskingMethod
from mmgradcam.task import Method, Task
from mmgradcam.utils.locks import exclusive

Attack = Callable[[nn.Module, float, int], Any]
"""(model of pixels in 0..1, eps, steps) -> an attack of torchattacks."""

SURE = 0.99


@dataclass(frozen=True)
class Adversarial:
    """A picture changed by so little that nobody sees it, so that the model says something else.

    Attributes:
        pixels: (3, h, w) what the model is given.
        picture: the same as an RGB picture of 8 bits.
        wrong: the likeliest class now.
        probability: of that class, 0..1.
        was: probability of the (first) true class on the picture as it came.
        now: and on the changed one.
        distance: the largest change of a pixel, in 0..1.
        before: the true classes' maps on the picture as it came.
        after: their maps on the changed one, drawn on the picture as it came.
        correlations: of each true class, Spearman's rank correlation of its two maps.
        overlaps: of each, intersection over union of the boxes around the largest segment above 15% of the maximum.
        peaks: of each, whether the map peaks in its mask, before and after; empty where no masks were given.
    """

    pixels: Tensor
    picture: Image.Image
    wrong: str
    probability: float
    was: float
    now: float
    distance: float
    before: Explanation
    after: Explanation
    correlations: tuple[float, ...]
    overlaps: tuple[float, ...]
    peaks: tuple[tuple[bool, bool], ...] = ()

    @property
    def fooled(self) -> bool:
        """Whether the model is sure (above 0.99) of a class that is not among the true ones."""
        return self.probability > SURE and self.wrong not in self.before.labels


def pgd(model: nn.Module, eps: float, steps: int) -> Any:
    """Projected gradient descent (Madry et al., ICLR 2018), from a random start, in steps of 2.5 eps / steps."""
    return _torchattacks().PGD(model, eps=eps, alpha=2.5 * eps / steps, steps=steps)


def fgsm(model: nn.Module, eps: float, steps: int) -> Any:
    """The fast gradient sign method (Goodfellow et al., ICLR 2015): one step of eps."""
    return _torchattacks().FGSM(model, eps=eps)


def adversarial(
    task: Task,
    picture: Any,
    label: int | str | Sequence[int | str],
    *,
    attack: Attack = pgd,
    eps: float = 8 / 255,
    steps: int = 40,
    wrong: int | str | None = None,
    masks: Sequence[Mask] = (),
    method: Method | AskingMethod | None = None,
    target_layers: Sequence[Any] | None = None,
    seed: int = 0,
) -> Adversarial:
    """Attacks a classifier, and compares the maps of what is truly in the picture before and after.

    The attack works on the prepared picture, between what a black and a white picture are prepared to, and its result is
    rounded to 8 bits, so that it is a picture one could save.

    Source: Selvaraju et al., "Grad-CAM", IJCV 2019, section 6.2: the true classes stay localized while the network is sure
    (p > 0.9999) of one that is not there.

    Args:
        task: a classifier, asked with classes=[...].
        picture: as for `explain`.
        label: what is truly in the picture, a class by index or name, or several; the attack leads away from the first.
        attack: `pgd`, `fgsm`, or a function that makes any other attack of torchattacks.
        eps: the largest change of a pixel, in 0..1.
        steps: of the attack.
        wrong: the class that the model shall see instead; by default whichever comes out.
        masks: of each true class, (H, W) on the picture, where it is.
        method: as for `explain`.
        target_layers: as for `explain`.
        seed: of the attack's random start.

    Raises:
        InputError: torchattacks is not installed, or the task is no classifier, or there is no such class.
    """
    labels = [label] if isinstance(label, (int, str)) else list(label)
    if masks and len(masks) != len(labels):
        raise InputError(f"masks: expected one per true class, {len(labels)}, got {len(masks)}")
    image = open_picture(picture)
    how: dict[str, Any] = {"method": method, "target_layers": target_layers}
    before = explain(task, image, classes=labels, **how)
    device = task.device
    clean, low, high = (_prepared(task, one).to(device) for one in (image, *(Image.new("RGB", image.size, c) for c in BOUNDS)))
    with preserve_state(task.modules()):
        model = _Logits(task, low, high, clean)
        start = model.unit(clean)
        true, aim = model.index(labels[0]), None if wrong is None else model.index(wrong)
        generators = [device] if device.type == "cuda" else []
        with exclusive([torch.default_generator]), torch.random.fork_rng(devices=generators):
            torch.manual_seed(seed)
            made = attack(model, eps, steps)
            if aim is not None:
                with redirect_stdout(io.StringIO()):  # it tells of its mode
                    made.set_mode_targeted_by_function(lambda images, labels: torch.full_like(labels, aim))
            found = made(start[None], torch.tensor([true], device=device)).squeeze(0).detach()
        found = torch.where(model.free, (found * 255).round() / 255, start)
        with torch.no_grad():
            was, now = (model(one[None]).squeeze(0).float().softmax(-1) for one in (start, found))
    best = int(now.argmax())
    pixels = model.pixels(found).cpu()
    seen = explain(task, pixels, classes=labels, **how)
    after = Explanation(
        before.picture, before.box, seen.targets, seen.maps, seen.scores, seen.words, seen.warnings, seen.metadata, task
    )
    return Adversarial(
        pixels,
        Image.fromarray((found * 255).round().byte().permute(1, 2, 0).cpu().numpy()),
        model.every[best].label,
        float(now[best]),
        float(was[true]),
        float(now[true]),
        float((found - start).abs().max()),
        before,
        after,
        *compared(before, after),
        tuple((peak_in(b.heat(), m), peak_in(a.heat(), m)) for b, a, m in zip(before, after, masks, strict=False)),
    )


def compared(one: Explanation, other: Explanation) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Rank correlation of the raw maps, and IoU of the boxes, target by target."""
    boxes = [(a.boxes()[:1], b.boxes()[:1]) for a, b in zip(one, other, strict=True)]
    overlaps = tuple(iou(a[0], b[0]) if a and b else 0.0 for a, b in boxes)
    return tuple(spearman(one.maps, other.maps).tolist()), overlaps


BOUNDS = ("black", "white")


class _Logits(nn.Module):
    """The task as attacks want it: (1, 3, h, w) in 0..1 -> (1, N) scores of all classes."""

    def __init__(self, task: Task, low: Tensor, high: Tensor, clean: Tensor) -> None:
        super().__init__()
        self.task, self.low, self.high, self.clean = task, low, high, clean
        self.free = (high - low).abs() > 1e-6
        self.where = nn.Parameter(low.new_zeros(()), requires_grad=False)
        with torch.no_grad():
            features = task.encode(clean[None])
            count = len(task.labels) or (features.shape[1] if features.dim() == 2 else 0)
            if count < 2 or "classes" not in task.query_types:
                raise InputError(f"{task.name}: expected a classifier, asked with classes=[...]")
            self.every = list(task.targets(features, classes=list(range(count))))
            self.features = features

    def index(self, label: int | str) -> int:
        (asked,) = self.task.targets(self.features, classes=[label])
        return [target.value for target in self.every].index(asked.value)

    def unit(self, pixels: Tensor) -> Tensor:
        """Prepared pixels as 0..1; what is padding is 0."""
        return torch.where(self.free, (pixels - self.low) / torch.where(self.free, self.high - self.low, 1.0), 0.0).clamp(0, 1)

    def pixels(self, unit: Tensor) -> Tensor:
        return torch.where(self.free, self.low + unit * (self.high - self.low), self.clean)

    def forward(self, unit: Tensor) -> Tensor:
        features = self.task.encode(self.pixels(unit))
        return self.task.score(features.expand(len(self.every), *features.shape[1:]), self.every)[None]


def _prepared(task: Task, image: Image.Image) -> Tensor:
    pixels = task.prepare(image).pixels
    if pixels.dim() != 3:
        raise InputError(f"{task.name} sees the picture in tiles; attack a model that sees it whole")
    return pixels


def _torchattacks() -> Any:
    try:
        import torchattacks
    except ImportError:
        raise InputError('attacks need torchattacks; install it with pip install "mmgradcam[robust]"') from None
    return torchattacks
