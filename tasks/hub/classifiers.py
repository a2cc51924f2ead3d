"""Classifiers as people have them: torchvision's, timm's, and image classifiers of the hub or of a folder."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.pictures import Seen
from mmgradcam.tasks.hub.source import Source, said
from mmgradcam.tasks.hub.tracing import layer_of
from mmgradcam.tasks.layer import Layer



def serves(architecture: str) -> bool:
    return architecture.endswith("ForImageClassification")


def from_torchvision(name: str) -> Layer:
    """A classifier of torchvision with its newest weights, its classes and its preprocessing.

    Raises:
        InputError: there is no such model, or its weights are out of reach.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.3) or known[:10]
        raise InputError(f"torchvision has no classifier {name!r}; did you mean {', '.join(near)}?")
    weights = models.get_model_weights(name).DEFAULT
    file = weights.url.rpartition("/")[2]
    with said(f"torchvision:{name}", f"fetch {file}, put it into the folder hub/checkpoints of TORCH_HOME"):
        model = models.get_model(name, weights=weights)
    return of_model(model, weights.transforms(), weights.meta["categories"])


def from_timm(name: str) -> Layer:
    """A pretrained classifier of timm with its classes and its preprocessing.

    Raises:
        InputError: timm is not installed, there is no such model, or its weights are out of reach.
    """
    try:
        import timm
    except ImportError:
        raise InputError(f"timm:{name}: timm is not installed; pip install timm") from None
    if name.partition(".")[0] not in timm.list_models():
        near = timm.list_models(f"*{name.partition('.')[0][:6]}*")[:5]
        raise InputError(f"timm has no model {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
    with said(f"timm:{name}"):
        model = timm.create_model(name, pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    try:
        names = timm.data.ImageNetInfo()
        labels = [names.index_to_description(i) for i in range(model.num_classes)] if model.num_classes == 1000 else []
    except (AttributeError, ValueError):
        labels = []
    return of_model(model, transform, labels)


def build(source: Source) -> Layer:
    """An image classifier of the hub or of a folder, as transformers has it."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model, processor = source.fetch(AutoModelForImageClassification), source.fetch(AutoImageProcessor)
    labels = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
    several = model.config.problem_type == "multi_label_classification"
    return of_model(model, lambda image: processor(image, return_tensors="pt")["pixel_values"][0], labels, several)


def of_model(
    model: nn.Module,
    transform: Callable[[Image.Image], Tensor],
    labels: Sequence[str] = (),
    several: bool = False,
) -> Layer:
    """A classifier, its maps taken at the last layer that has a grid its scores depend on.

    Args:
        model: maps (B, 3, h, w) to (B, N) scores.
        transform: its own preprocessing, RGB picture -> (3, h, w).
        labels: names of the N classes.
        several: multi-label.
    """
    model.eval()
    task = Layer(model, model, labels, Seen(transform), several=several)
    task.taps = (layer_of(task),)
    return task
