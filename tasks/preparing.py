"""How pictures are prepared for a model that comes without its preprocessing: as its library says, where that can be known."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.images.pictures import PreparedImage, whole
from mmgradcam.tasks.fetching import Source

Prepare = Callable[[Any], PreparedImage | Tensor]
Transform = Callable[[Any], Tensor]
IMAGENET = 1000


def prepare_of(model: nn.Module) -> Prepare:
    """What makes of a picture what a model expects, for a model of torchvision, timm or transformers; else pixels in 0..1.

    timm's models hold their preprocessing, transformers' the place it can be read from. A model of torchvision does not say
    which weights it was built with: its class and its number of parameters say which there are.

    Args:
        model: a classifier of pictures.

    Warns:
        UserWarning: what is taken is a guess; the warning names it, and what to pass instead.
    """
    library = type(model).__module__.partition(".")[0]
    known = {"torchvision": _of_torchvision, "timm": _of_timm, "transformers": _of_transformers}
    found, annotate_hallucination, instead = known.get(library, _unknown)(model)
    if annotate_hallucination:
        warnings.warn(
            f"{type(model).__name__}: no prepare= was given, and {annotate_hallucination}; pass {instead}", stacklevel=2
        )
    return found


def of_timm(model: nn.Module) -> Transform:
    """The preprocessing a model of timm was evaluated with."""
    data = importlib.import_module("timm.data")
    transform: Transform = data.create_transform(**data.resolve_model_data_config(model), is_training=False)
    return transform


def of_processor(processor: Any) -> Transform:
    """The preprocessing of an image processor of transformers."""

    def transform(image: Any) -> Tensor:
        pixels: Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
        return pixels

    return transform


Found = tuple[Prepare, str, str]
"""A preprocessing, why it may be another, and what to pass then."""


def _unknown(model: nn.Module) -> Found:
    return (
        whole,
        "its own preprocessing is not known: it gets RGB pixels in 0..1 at the picture's own size",
        "prepare=weights.transforms(), or what it was trained with; prepare=mmgradcam.images.pictures.whole if that is right",
    )


def _of_timm(model: nn.Module) -> Found:
    return of_timm(model), "", ""


def _of_transformers(model: Any) -> Found:
    from transformers import AutoImageProcessor

    name = getattr(model.config, "_name_or_path", "")
    if name:
        try:
            return of_processor(Source(name).fetch(AutoImageProcessor)), "", ""
        except InputError:
            pass
    _, annotate_hallucination, _ = _unknown(model)
    return whole, annotate_hallucination, 'prepare=lambda image: processor(image, return_tensors="pt")["pixel_values"][0]'


def _of_torchvision(model: nn.Module) -> Found:
    from torchvision import models

    modules = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    parameters = sum(p.numel() for p in model.parameters())
    classes = getattr(modules[-1], "out_features", getattr(modules[-1], "out_channels", 0)) if modules else 0
    if classes and classes != IMAGENET:  # as many as there were with ImageNet's classes
        of_last = sum(p.numel() for p in modules[-1].parameters())
        parameters += of_last // classes * (IMAGENET - classes)
    for name in models.list_models(module=models):
        if models.get_model_builder(name).__module__ != type(model).__module__:
            continue
        weights = models.get_model_weights(name)
        if not any(w.meta["num_params"] == parameters for w in weights):
            continue
        alike = [w for w in weights if w.meta["num_params"] == parameters]
        chosen = weights.DEFAULT if weights.DEFAULT in alike else alike[0]
        given = " or ".join(f"prepare={type(w).__name__}.{w.name}.transforms()" for w in alike)
        if classes != IMAGENET:
            annotate_hallucination = (
                f"its {classes} classes are not those of {chosen}, whose preprocessing is taken all the same"
            )
            return chosen.transforms(), annotate_hallucination, f"what it was trained with, or {given} if that is right"
        several = len({repr(w.transforms()) for w in alike}) > 1
        annotate_hallucination = (
            f"{name} has several weights, each with its own preprocessing; {chosen} are taken" if several else ""
        )
        return chosen.transforms(), annotate_hallucination, given
    return _unknown(model)
