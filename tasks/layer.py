"""A whole model nobody wants to take apart: name a layer, and the maps are taken there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image
from torch import Tensor, nn

from mmgradcam.arguments import refuse_unknown
from mmgradcam.errors import InputError, ModelError
from mmgradcam.pictures import Prepared, whole
from mmgradcam.seam import Layout, Tap
from mmgradcam.task import Target, Task
from mmgradcam.tasks.classes import likelihood_of, scores_of, targets_of


class Layer(Task):
    """A classifier, or any model of one score per class, explained at one of its layers.

    The model's one forward predicts and scores, recorded from the layer on.

    Query: `classes=[...]` by index or label, else the `top` likeliest; `against=` explains why the first of them and not that
    one, by the difference of their scores.

    Args:
        model: maps (B, 3, h, w), or clips (B, 3, T, h, w), to (B, N) scores, or to an output whose `logits` are that.
        layer: a module of the model, or its dotted name.
        labels: names of the N scores, for reading and for asking by name.
        prepare: what makes of an RGB picture what the model sees; by default pixels in 0..1 at their own size. A function
            that returns a tensor, such as torchvision's `weights.transforms()`, is taken to see the whole picture. For a model
            of clips, it gets a `Clip` and makes (3, T, h, w) of it.
        layout: makes (B, C, *grid) of the layer's output, if it puts out tokens; see `mmgradcam.layouts`.
        several: any number of classes may hold at once (multi-label): probabilities are each class's own, and all above a
            half are explained unless told otherwise.
    """

    unit = "logit"
    seam = "scores"

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str,
        labels: Sequence[str] | None = None,
        prepare: Callable[[Any], Prepared | Tensor] = whole,
        layout: Layout | None = None,
        several: bool = False,
    ) -> None:
        self.model, self.labels, self.preparing, self.several = model, list(labels or ()), prepare, several
        self.name = type(model).__name__
        modules = dict(model.named_modules())
        if isinstance(layer, str) and layer not in modules:
            raise InputError(f"{self.name} has no layer {layer!r}; it has {', '.join(n for n in modules if n)}")
        self.taps = (Tap(modules[layer] if isinstance(layer, str) else layer, layout),)

    def prepare(self, image: Image.Image) -> Prepared:
        prepared = self.preparing(image)
        return prepared if isinstance(prepared, Prepared) else Prepared(prepared, (0.0, 0.0, 1.0, 1.0))

    def encode(self, images: Tensor) -> Tensor:
        output = self.model(images)
        scores = getattr(output, "logits", output)
        if not isinstance(scores, Tensor) or scores.dim() != 2:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(output).__name__
            raise ModelError(f"{self.name}: expected (B, N) scores, got {got}; write a Task of your own for such a model")
        return scores

    def targets(
        self,
        features: Tensor,
        classes: Sequence[int | str] | None = None,
        top: int | None = None,
        against: int | str | None = None,
        **query: Any,
    ) -> list[Target]:
        refuse_unknown(self, query, ("classes", "top", "against"), "with classes=[...], top=K or against=...")
        return targets_of(features[0], self.labels, classes, top, against, self.several)

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return scores_of(features, targets)

    def likelihood(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return likelihood_of(features, targets, self.several)
