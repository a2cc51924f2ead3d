"""A whole model nobody wants to take apart: name a layer, and the maps are taken there."""

from __future__ import annotations

import difflib
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

    Query: `classes=[...]` by index or label, else the `top` likeliest; `against=` explains why the first of them and not that
    one, by the difference of their scores.

    Args:
        model: maps (B, 3, h, w) to (B, N) scores, or to an output whose `logits` are that.
        layer: a module of the model, or its dotted name.
        labels: names of the N scores, for reading and for asking by name.
        prepare: what makes of an RGB picture what the model sees; by default pixels in 0..1 at their own size. A function
            that returns a tensor, such as torchvision's `weights.transforms()`, is taken to see the whole picture.
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
        prepare: Callable[[Image.Image], Prepared | Tensor] = whole,
        layout: Layout | None = None,
        several: bool = False,
    ) -> None:
        self.model, self.labels, self._prepare, self.several = model, list(labels or ()), prepare, several
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

    def targets(
        self,
        features: Tensor,
        classes: Sequence[int | str] | None = None,
        top: int | None = None,
        against: int | str | None = None,
        **query: Any,
    ) -> list[Target]:
        if query:
            raise InputError(f"Layer is asked with classes=[...], top=K or against=..., got {', '.join(query)}")
        count = features.shape[1]
        logits = features[0].float()
        probabilities = logits.sigmoid() if self.several else logits.softmax(-1)
        if classes is None:
            likely = probabilities.topk(min(max(top or 1, 1), count)).indices.tolist()
            above = probabilities.argsort(descending=True)[: int((probabilities > 0.5).sum())].tolist()
            classes = above if self.several and top is None and above else likely
        indices = [self._index(c, count) for c in classes]
        made = [Target(self._label(i), (i, None), probability=float(probabilities[i])) for i in indices]
        if against is not None:
            other = self._index(against, count)
            if other == indices[0]:
                raise InputError(f"against: {self._label(other)!r} is the class itself; name another one")
            made.insert(1, Target(f"{self._label(indices[0])} rather than {self._label(other)}", (indices[0], other)))
        return made

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        rows = torch.arange(len(targets), device=features.device)
        classes = torch.tensor([target.value[0] for target in targets], device=features.device)
        others = torch.tensor([-1 if t.value[1] is None else t.value[1] for t in targets], device=features.device)
        scores = features[rows, classes]
        return torch.where(others >= 0, scores - features[rows, others.clamp(min=0)], scores)

    def _index(self, key: int | str, count: int) -> int:
        if isinstance(key, str):
            if key not in self.labels and key.isdigit():
                return self._index(int(key), count)
            if key not in self.labels:
                near = difflib.get_close_matches(key, self.labels, n=5, cutoff=0.4) or self.labels[:20]
                raise InputError(f"no class is called {key!r}; there are {', '.join(near) or 'no labels'}")
            return self.labels.index(key)
        if not -count <= key < count:
            raise InputError(f"expected a class in 0..{count - 1}, got {key}")
        return key % count

    def _label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else f"class {index}"
