"""A whole model nobody wants to take apart: name a layer, and the maps are taken there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError, ModelError
from mmgradcam.pictures import Prepared, whole
from mmgradcam.seam import Layout, Tap
from mmgradcam.task import Target, Task


class Layer(Task):
    """A classifier, or any model of one score per class, explained at one of its layers.

    The model's one forward predicts and scores, recorded from the layer on.

    Args:
        model: maps (B, 3, h, w) to (B, N) scores, or to an output whose `logits` are that.
        layer: a module of the model, or its dotted name.
        labels: names of the N scores, for reading and for asking by name.
        prepare: what makes of an RGB picture what the model sees; by default pixels in 0..1 at their own size. A function
            that returns a tensor, such as torchvision's `weights.transforms()`, is taken to see the whole picture.
        layout: makes (B, C, *grid) of the layer's output, if it puts out tokens; see `mmgradcam.layouts`.
    """

    unit = "logit"
    seam = "scores"

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str,
        labels: Sequence[str] | None = None,
        prepare: Callable[[Image.Image], Prepared | Tensor] = whole,
        layout: Layout | None = None,
    ) -> None:
        self.model, self.labels, self._prepare = model, list(labels or ()), prepare
        self.name = type(model).__name__
        modules = dict(model.named_modules())
        if isinstance(layer, str) and layer not in modules:
            raise InputError(f"{self.name} has no layer {layer!r}; it has {', '.join(n for n in modules if n)}")
        self.taps = (Tap(modules[layer] if isinstance(layer, str) else layer, layout),)

    def prepare(self, image: Image.Image) -> Prepared:
        prepared = self._prepare(image)
        return prepared if isinstance(prepared, Prepared) else Prepared(prepared, (0.0, 0.0, 1.0, 1.0))

    def encode(self, images: Tensor) -> Tensor:
        output = self.model(images)
        scores = getattr(output, "logits", output)
        if not isinstance(scores, Tensor) or scores.dim() != 2:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(output).__name__
            raise ModelError(f"{self.name}: expected (B, N) scores, got {got}; write a Task of your own for such a model")
        return scores

    def targets(self, features: Tensor, classes: Sequence[int | str] | None = None, top: int = 1, **query: Any) -> list[Target]:
        """The classes named by index or label, else the `top` most likely ones."""
        if query:
            raise InputError(f"Layer is asked with classes=[...] or top=K, got {', '.join(query)}")
        count = features.shape[1]
        probabilities = features[0].float().softmax(-1)
        if classes is None:
            classes = probabilities.topk(min(max(top, 1), count)).indices.tolist()
        indices = [self._index(c, count) for c in classes]
        return [Target(self._label(i), i, probability=float(probabilities[i])) for i in indices]

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        index = torch.tensor([target.value for target in targets], device=features.device)
        return features.gather(1, index[:, None])[:, 0]

    def _index(self, key: int | str, count: int) -> int:
        if isinstance(key, str):
            if key not in self.labels:
                raise InputError(f"no class is called {key!r}; there are {', '.join(self.labels[:20]) or 'no labels'}")
            return self.labels.index(key)
        if not -count <= key < count:
            raise InputError(f"expected a class in 0..{count - 1}, got {key}")
        return key % count

    def _label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else f"class {index}"
