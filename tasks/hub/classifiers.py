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

from mmgradcam import checkpoints
from mmgradcam.errors import InputError
from mmgradcam.images.pictures import TracedPreprocess
from mmgradcam.tasks.fetching import Source, fetched, timm
from mmgradcam.tasks.hub import FILE, frames
from mmgradcam.tasks.hub.tracing import layer_of
from mmgradcam.tasks.layer import Layer
from mmgradcam.tasks.preparing import IMAGENET, of_processor, of_timm
from mmgradcam.utils.writing import write_folder


def supports(architecture: str) -> bool:
    return architecture.endswith(("ForImageClassification", "ForImageClassificationWithTeacher"))


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
        prepare = (frames.Frames if name in films else TracedPreprocess)(weights.transforms())
        return with_fresh_head(models.get_model(name, weights=None), prepare, labels)
    file = weights.url.rpartition("/")[2]
    with fetched(f"torchvision:{name}", f"fetch {file} and put it into the folder hub/checkpoints of TORCH_HOME"):
        model = models.get_model(name, weights=weights)
    return made(model, weights.transforms(), weights.meta["categories"])


def from_timm(name: str, labels: Sequence[str] | None = None, pretrained: bool | None = None) -> Layer:
    """A pretrained classifier of timm with its classes and its preprocessing.

    Args:
        name: as timm has it.
        labels: other classes, for which it gets a fresh head; an encoder without classes can have them too.
        pretrained: fetch the weights; by default only without other classes.

    Raises:
        InputError: timm is not installed, there is no such model, or its weights are out of reach.
    """
    library = timm()
    if name.partition(".")[0] not in library.list_models():
        near = library.list_models(f"*{name.partition('.')[0][:6]}*")[:5]
        raise InputError(f"timm has no model {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
    with fetched(f"timm:{name}"):
        model = library.create_model(name, pretrained=labels is None if pretrained is None else pretrained)
    return (
        _of_timm(model, f"timm:{name}") if labels is None else with_fresh_head(model, TracedPreprocess(of_timm(model)), labels)
    )


def from_timm_folder(folder: Path) -> Layer:
    """A classifier of timm in a folder as the hub has it: `config.json`, which names the architecture, and safetensors.

    Raises:
        InputError: timm is not installed or does not know the architecture, or the folder is incomplete or damaged.
    """
    library = timm()
    with fetched(str(folder)):
        config = checkpoints.config(folder, "architecture")
        own = {"num_classes": config["num_classes"]} if "num_classes" in config else {}
        more = {**own, **config.get("model_args", {})}
        if config.get("global_pool"):
            more["global_pool"] = config["global_pool"]
        model = library.create_model(
            config["architecture"], pretrained=False, pretrained_cfg=config.get("pretrained_cfg"), **more
        )
        model.load_state_dict(load_file(folder / "model.safetensors"))
    return _of_timm(model, str(folder), config.get("label_names") or model.pretrained_cfg.get("label_names"))


def is_timm(folder: Path) -> bool:
    """Whether a folder holds a model of timm, laid out as the hub's are."""
    try:
        return isinstance(checkpoints.config(folder, "architecture")["architecture"], str)
    except InputError:
        return False


def _of_timm(model: Any, name: str, labels: Sequence[str] | None = None) -> Layer:
    if not model.num_classes:
        raise InputError(
            f"{name} is an encoder without classes; take a model with a classifier, or train classes of your own on it: "
            "scripts/bundled/finetune_classifier.py"
        )
    if not labels and model.num_classes == IMAGENET:
        names = timm().data.ImageNetInfo()
        labels = [names.index_to_description(i) for i in range(IMAGENET)]
    return of_model(model, of_timm(model), labels or ())


def with_fresh_head(model: nn.Module, prepare: Any, labels: Sequence[str]) -> Layer:
    """A model with classes of its own, yet to be trained or loaded.

    Its layer is looked for after it got a fresh head: some heads are born as zeros, and then no score depends on anything.
    """
    task = with_classes(Layer(model.eval(), model, (), prepare), labels)
    task.target_layers = (layer_of(task),)
    return task


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
    if is_timm(Path(base)):
        more = checkpoints.config(Path(base), "architecture").get("model_args", {})
        more.pop("num_classes", None)
        timm().models.save_for_hf(model, folder, {"label_names": task.labels}, more, safe_serialization=True)
        return
    described = json.dumps({"classifier": base, "labels": task.labels}, indent=1) + "\n"
    weights = {name: value.contiguous().cpu() for name, value in task.model.state_dict().items()}
    write_folder(folder, {"model.safetensors": to_bytes(weights), FILE: described.encode()})


def with_classes(task: Layer, labels: Sequence[str]) -> Layer:
    """The classifier with a fresh last layer for other classes; only that layer, or two, of a head of two, ask for gradients.

    Args:
        task: a classifier, or a model of timm without classes; its model is changed.
        labels: names of the new classes.

    Raises:
        InputError: the model does not end in a layer that can be replaced.
    """
    model: Any = task.model
    before = list(model.parameters())
    for parameter in before:
        parameter.requires_grad_(False)
    if hasattr(model, "reset_classifier"):  # timm's, which knows its heads, also where there is none yet
        model.reset_classifier(len(labels))
        held = {id(parameter) for parameter in before}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) not in held)
    else:
        _replace_heads(task, len(labels))
    config: Any = getattr(model, "config", None)
    if config is not None:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
        model.num_labels = len(labels)
    made = Layer(model, model, labels, task.preparing or task.prepare)
    made.name, made.target_layers = task.name, task.target_layers
    return made


def _replace_heads(task: Layer, classes: int) -> None:
    """Puts a fresh layer in place of the last that puts out the scores, and, of transformers, of a second classifier."""
    model = task.model
    with torch.no_grad():
        example = getattr(task.preparing, "example", lambda: Image.new("RGB", (256, 256)))
        count = task.encode(task.prepare(example()).pixels[None]).shape[1]
    last = [(n, m) for n, m in model.named_modules() if getattr(m, "out_features", getattr(m, "out_channels", None)) == count]
    if not last or not isinstance(last[-1][1], (nn.Linear, nn.Conv2d)):
        raise InputError(f"{task.name}: no layer puts out its {count} classes; take a model that ends in a linear layer")
    second = [one for one in last[:-1] if "classifier" in one[0] and isinstance(one[1], nn.Linear)]
    for name, old in [*(second if hasattr(model, "config") else ()), last[-1]]:
        fresh: nn.Module = (
            nn.Linear(old.in_features, classes)
            if isinstance(old, nn.Linear)
            else nn.Conv2d(old.in_channels, classes, old.kernel_size[0])
        )
        where, _, own = name.rpartition(".")
        setattr(model.get_submodule(where), own, fresh)


def build(source: Source) -> Layer:
    """An image classifier of the hub or of a folder, as transformers has it."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model, processor = source.model(AutoModelForImageClassification), source.fetch(AutoImageProcessor)
    labels = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
    several = model.config.problem_type == "multi_label_classification"
    return of_model(model, of_processor(processor), labels, several)


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
    task = Layer(model, model, labels, TracedPreprocess(transform), several=several)
    task.target_layers = (layer_of(task),)
    return task
