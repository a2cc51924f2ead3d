"""Classifiers as people have them: torchvision's, timm's, and image classifiers of the hub or of a folder."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.pictures import Seen
from mmgradcam.tasks.fetching import Source, fetched, timm
from mmgradcam.tasks.hub import FILE, frames
from mmgradcam.tasks.hub.tracing import layer_of
from mmgradcam.tasks.layer import Layer
from mmgradcam.writing import write_folder


def serves(architecture: str) -> bool:
    return architecture.endswith("ForImageClassification")


def from_torchvision(name: str, labels: Sequence[str] | None = None) -> Layer:
    """A classifier of pictures or clips of torchvision with its newest weights, its classes and its preprocessing.

    Args:
        name: as `torchvision.models` has it.
        labels: other classes; the weights are then not fetched.

    Raises:
        InputError: there is no such model, or its weights are out of reach.
    """
    from torchvision import models

    films = models.list_models(module=models.video)
    known = models.list_models(module=models) + films
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.3) or known[:10]
        raise InputError(f"torchvision has no classifier {name!r}; did you mean {', '.join(near)}?")
    weights = models.get_model_weights(name).DEFAULT
    made = frames.of_model if name in films else of_model
    if labels is not None:
        return with_classes(made(models.get_model(name, weights=None), weights.transforms()), labels)
    file = weights.url.rpartition("/")[2]
    with fetched(f"torchvision:{name}", f"fetch {file} and put it into the folder hub/checkpoints of TORCH_HOME"):
        model = models.get_model(name, weights=weights)
    return made(model, weights.transforms(), weights.meta["categories"])


def from_timm(name: str, labels: Sequence[str] | None = None) -> Layer:
    """A pretrained classifier of timm with its classes and its preprocessing.

    Args:
        name: as timm has it.
        labels: other classes; the weights are then not fetched.

    Raises:
        InputError: timm is not installed, there is no such model, or its weights are out of reach.
    """
    library = timm()
    if name.partition(".")[0] not in library.list_models():
        near = library.list_models(f"*{name.partition('.')[0][:6]}*")[:5]
        raise InputError(f"timm has no model {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
    with fetched(f"timm:{name}"):
        model = library.create_model(name, pretrained=labels is None)
    transform = library.data.create_transform(**library.data.resolve_model_data_config(model), is_training=False)
    if labels is not None:
        return with_classes(of_model(model, transform), labels)
    names = library.data.ImageNetInfo() if model.num_classes == 1000 else None
    return of_model(model, transform, [names.index_to_description(i) for i in range(1000)] if names else [])


def from_folder(folder: Path) -> Layer:
    """A classifier that `save` has written.

    Raises:
        InputError: the folder is damaged.
    """
    with fetched(str(folder)):
        kept = json.loads((folder / FILE).read_text(encoding="utf-8"))
        prefix, _, name = kept["classifier"].partition(":")
        task = {"torchvision": from_torchvision, "timm": from_timm}[prefix](name, kept["labels"])
        task.model.load_state_dict(load_file(folder / "model.safetensors"))
    return task


def save(task: Layer, base: str, folder: Path) -> None:
    """Writes a classifier with classes of its own, so that its folder can be loaded by name.

    Args:
        task: the classifier, made of `base` by `with_classes`.
        base: "torchvision:NAME", "timm:NAME", a hub id or a folder.
        folder: where to.
    """
    model: Any = task.model
    if hasattr(model, "save_pretrained"):
        from transformers import AutoImageProcessor

        model.save_pretrained(folder)
        Source(base, "").fetch(AutoImageProcessor).save_pretrained(folder)
        return
    described = json.dumps({"classifier": base, "labels": task.labels}, indent=1) + "\n"
    weights = {name: value.contiguous().cpu() for name, value in task.model.state_dict().items()}
    write_folder(folder, {"model.safetensors": to_bytes(weights), FILE: described.encode()})


def with_classes(task: Layer, labels: Sequence[str]) -> Layer:
    """The classifier with a fresh last layer for other classes; only that layer asks for gradients.

    Args:
        task: a classifier; its model is changed.
        labels: names of the new classes.

    Raises:
        InputError: the model does not end in a layer that can be replaced.
    """
    model = task.model
    with torch.no_grad():
        example = getattr(task.preparing, "example", lambda: Image.new("RGB", (256, 256)))
        count = task.encode(task.prepare(example()).pixels[None]).shape[1]
    last = [(n, m) for n, m in model.named_modules() if getattr(m, "out_features", getattr(m, "out_channels", None)) == count]
    if not last or not isinstance(last[-1][1], (nn.Linear, nn.Conv2d)):
        raise InputError(f"{task.name}: no layer puts out its {count} classes; take a model that ends in a linear layer")
    name, old = last[-1]
    fresh: nn.Module = (
        nn.Linear(old.in_features, len(labels))
        if isinstance(old, nn.Linear)
        else nn.Conv2d(old.in_channels, len(labels), old.kernel_size[0])
    )
    where, _, own = name.rpartition(".")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    setattr(model.get_submodule(where), own, fresh)
    config: Any = getattr(model, "config", None)
    if config is not None:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
        model.num_labels = len(labels)  # type: ignore[assignment]
    made = Layer(model, model, labels, task.prepare)
    made.name, made.taps = task.name, task.taps
    return made


def build(source: Source) -> Layer:
    """An image classifier of the hub or of a folder, as transformers has it."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model, processor = source.model(AutoModelForImageClassification), source.fetch(AutoImageProcessor)
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
