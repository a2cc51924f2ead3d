"""A whole model nobody wants to take apart: name a layer, and the maps are taken there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError, ModelError
from mmgradcam.images.clips import Clip
from mmgradcam.images.pictures import Box, PreparedImage, TracedPreprocess
from mmgradcam.layers import Layout, TargetLayer
from mmgradcam.task import Target, Task
from mmgradcam.tasks.classes import likelihood_of, scores_of, targets_of
from mmgradcam.tasks.preparing import Prepare, prepare_of


class Layer(Task):
    """A classifier, or any model of one score per class, explained at one of its layers.

    The model's one forward predicts and scores, recorded from the layer on.

    Query: `classes=[...]` by index or label, else the `top` likeliest; `contrast=` explains why the first of them and not that
    one, by the difference of their scores.

    Args:
        model: maps (B, 3, h, w), or clips (B, 3, T, h, w), to (B, N) scores, or to an output whose `logits` are that.
        layer: a module of the model, or its dotted name.
        labels: names of the N scores, for reading and for asking by name.
        prepare: what makes of an RGB picture what the model sees, such as torchvision's `weights.transforms()`: a tensor
            (3, h, w), or (3, T, h, w) of a `Clip` for a model of clips; which part of the picture that shows is found by
            showing it ramps (`images.pictures.TracedPreprocess`). Or `PreparedImage`, which says itself which part it shows. By
            default the preprocessing of a model of torchvision, timm or transformers, where it can be known; else, with a
            warning, pixels in 0..1 at the picture's own size. Its `length`, where it has one, is the task's `clip_length`.
        layout: makes (B, C, *grid) of the layer's output, if it puts out tokens; see `mmgradcam.layouts`.
        several: any number of classes may hold at once (multi-label): probabilities are each class's own, and all above a
            half are explained unless told otherwise.
    """

    unit = "logit"
    feature_layer = "scores"

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str,
        labels: Sequence[str] | None = None,
        prepare: Prepare | None = None,
        layout: Layout | None = None,
        several: bool = False,
    ) -> None:
        self.model, self.labels, self.preparing, self.several = model, list(labels or ()), prepare, several
        self.name = type(model).__name__
        self.clip_length = getattr(prepare, "length", None)
        self._seen: dict[int, TracedPreprocess] = {}
        """By the number of frames of a clip; of pictures, 0."""
        modules = dict(model.named_modules())
        if isinstance(layer, str) and layer not in modules:
            raise InputError(f"{self.name} has no layer {layer!r}; it has {', '.join(n for n in modules if n)}")
        self.target_layers = (TargetLayer(modules[layer] if isinstance(layer, str) else layer, layout),)

    def modules(self) -> list[nn.Module]:
        return [self.model]  # what prepares pictures may be a module too, as torchvision's is

    def prepare(self, image: Image.Image) -> PreparedImage:
        if self.preparing is None:
            if isinstance(image, Clip):
                raise InputError(f"{self.name}: pass prepare=, which makes (3, T, h, w) of a Clip, to explain clips with it")
            self.preparing = prepare_of(self.model)
        made = self.preparing(image)
        return made if isinstance(made, PreparedImage) else PreparedImage(made, self._box(image))

    def _box(self, given: Any) -> Box | tuple[Box, ...]:
        """The part of a picture, or of each frame of a clip, that the model sees where `prepare` does not say it."""
        clip = given if isinstance(given, Clip) else None
        length = len(clip) if clip else 0
        if length not in self._seen:

            def shown(frame: Image.Image) -> Any:
                made: Any = self.preparing(replace(clip, frames=(frame,) * length) if clip else frame)  # type: ignore[misc]
                return made[:, 0] if clip else made

            self._seen[length] = TracedPreprocess(shown)
        return self._seen[length].box((clip.frames[0] if clip else given).size)

    def target_layer(self, name: str) -> TargetLayer:
        from mmgradcam.tasks.hub.tracing import layer_of

        return layer_of(self, name)

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
        contrast: int | str | None = None,
    ) -> list[Target]:
        return targets_of(features[0], self.labels, classes, top, contrast, self.several)

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return scores_of(features, targets)

    def log_prob(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return likelihood_of(features, targets, self.several)
