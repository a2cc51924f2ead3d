"""Models by name: bundled ones, folders laid out as they are, and those of others (`mmgradcam.tasks.hub`)."""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmgradcam import checkpoints, methods
from mmgradcam.errors import InputError
from mmgradcam.explaining.arguments import method_of
from mmgradcam.images.pictures import Preprocess
from mmgradcam.layers import find_target_layer
from mmgradcam.task import Task
from mmgradcam.tasks import hub, plugins
from mmgradcam.tasks.fetching import refuse_adapter
from mmgradcam.utils.files import is_folder
from mmgradcam.utils.locks import exclusive
from mmgradcam.utils.writing import write_folder

FORMAT = 1
ENCODER = "MMGRADCAM_ENCODER"
"""The variable that names a folder with the image encoder, for models whose own files hold only the head."""


class NoEncoder(InputError):
    """The image encoder that a model stands on is neither here nor within reach."""


_LOADING = object()
"""Models load one at a time: libraries below set switches of the whole process meanwhile."""


@exclusive([_LOADING])
def load(
    name: str | Path, device: str | torch.device = "auto", device_map: Any = None, encoder: str | Path | None = None
) -> Task:
    """A task ready to explain.

    Args:
        name: a bundled model (`mmgradcam models` lists them), a folder with `config.json` and `model.safetensors`, a hub id
            ("org/name"), "torchvision:NAME" or "timm:NAME"; "PLUGIN:NAME" of an installed package, or "FILE.py:NAME", a task in
            a file of your own (docs/custom-heads.md).
        device: "auto" is a GPU if there is one, else the CPU; or "cpu", "cuda", "cuda:1", ...
        device_map: spreads a hub model over several devices instead, as `from_pretrained` does: "auto", or device by module.
            Needs the package accelerate.
        encoder: where to take the image encoder from, for a model whose own files hold only the head: a folder with the model
            that its card names, laid out as the hub's; by default the one that the variable MMGRADCAM_ENCODER names, else it
            is fetched from the hub, once.

    Returns:
        The task, its model in eval mode on the device, float32 (of the hub on a GPU: as it was saved); its method, target
        layers and fusion are those its card names.

    Raises:
        InputError: no such model (the nearest names are given), a damaged file, or no such device.
        NoEncoder: an InputError: the encoder is out of reach.
    """
    if not isinstance(name, (str, Path)):
        what = "a Task already; explain it as it is" if isinstance(name, Task) else type(name).__name__
        raise InputError(
            f"load: expected a name or a folder, got {what}. Of models in memory, wrap a classifier as Layer(model, layer); "
            "save one of the hub with its processor, by save_pretrained(folder), and load that"
        )
    where = _device(device)
    of_users = None if str(name).startswith(hub.PREFIXES) else plugins.find(str(name))
    if of_users is not None:
        for module in of_users.modules():
            module.eval().to(where)
        if "device" in vars(of_users):  # where its own code looks for it
            of_users.device = where
        return of_users
    bundled = str(name) in checkpoints.names()
    folder = checkpoints.folder(str(name)) if bundled else Path(name)
    refuse_adapter(folder)
    if _is_of_others(str(name), folder):
        task = hub.build(str(name), str(where), device_map)
        for module in task.modules():
            module.eval()
            if device_map is None:
                module.to(where)
        task.name = folder.name if is_folder(folder) else str(name)
        return task
    if not is_folder(folder) and str(name)[:1] in ("/", ".", "~"):
        raise InputError(f"{name}: no such folder; give one with config.json and model.safetensors")
    if not is_folder(folder):
        near = difflib.get_close_matches(str(name), checkpoints.names(), n=3, cutoff=0.3) or checkpoints.names()
        raise InputError(
            f"there is no model {str(name)!r}; did you mean {' or '.join(near)}? "
            "Bundled models, folders, hub ids (org/name), torchvision:NAME, timm:NAME and FILE.py:NAME can be named"
            + "".join(f", and {plugin}:NAME" for plugin in plugins.offered())
        )
    task = _of_folder(str(name), folder, encoder)
    for module in task.modules():
        module.eval().to(where)
    task.name = str(name) if bundled else folder.name
    return task


def _of_folder(name: str, folder: Path, encoder: str | Path | None) -> Task:
    """A task as a folder's config describes it, with the folder's weights; both are checked before anything large is made."""
    from mmgradcam.tasks import stored

    file, weights = folder / "config.json", folder / "model.safetensors"
    config = checkpoints.config(folder)
    if config.get("format") != FORMAT or isinstance(config["format"], bool):
        raise InputError(f"{folder}: expected model format {FORMAT}, got {config.get('format')!r}; upgrade mmgradcam")
    stored.check_config(config, file)
    apart = bool(config["encoder"].get("weights"))
    if encoder is not None and not apart:
        raise InputError(f"{name} has its own encoder; encoder= is for models whose files hold only the head")
    told = "encoder" if encoder is not None else ENCODER
    encoder = encoder if encoder is not None or not apart else os.environ.get(ENCODER) or None
    if encoder is not None:
        if not isinstance(encoder, (str, Path)) or not is_folder(Path(encoder)):
            raise InputError(f"{told}: {encoder}: no such folder; give one that holds {config['encoder'].get('name')}")
        config = {**config, "encoder": {**config["encoder"], "name": str(encoder)}}
    try:
        with torch.device("meta"), _Unfilled(), warnings.catch_warnings():  # where a model of any size takes no memory
            warnings.simplefilter("ignore")
            planned = build(config, nn.Identity() if apart else None)
        stored.check_weights(_state(planned), weights, ("encoder.",) if apart else ())
        task = _built(name, config) if apart and encoder is None else build(config)
        values = stored.unpacked(load_file(weights), weights)
        for part, module in parts(task).items():
            own = {k.removeprefix(f"{part}."): v for k, v in values.items() if k.startswith(f"{part}.")}
            if own or not (apart and part == "encoder"):
                module.load_state_dict(own)
        for target_layer in task.target_layers:
            find_target_layer(target_layer, task.modules())
    except InputError as error:
        if isinstance(error, NoEncoder) or str(error).startswith(tuple(str(at) for at in (folder, encoder) if at)):
            raise
        raise InputError(f"{file}: {error}") from None
    except Exception as error:  # constructors and libraries below fail in their own ways
        line = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise InputError(f"{folder}: the model is damaged or incomplete ({line}); fetch it again") from None
    return task


class _Unfilled(TorchFunctionMode):
    """Leaves out what fills new tensors with values: on the device `meta` that does nothing but import torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is torch.arange:
            return func(*args, **{**given, "device": "cpu"}).to("meta")
        if getattr(func, "__module__", None) == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def _is_of_others(name: str, folder: Path) -> bool:
    """Whether a name means a model that is not laid out as the project's own."""
    if is_folder(folder):
        if (folder / hub.FILE).is_file():
            return True
        for key in ("architectures", "architecture"):  # of transformers, of timm
            with suppress(InputError):
                return bool(checkpoints.config(folder, key))
        return False
    return name.startswith(hub.PREFIXES) or (name.count("/") == 1 and name[0] not in "./~")


def _built(name: str | Path, config: Mapping[str, Any]) -> Task:
    """The task, its encoder fetched from the hub."""
    try:
        return build(config)
    except InputError as error:
        source = config["encoder"]["name"]
        reason = str(error).partition("; where there is")[0].removeprefix(f"{source}: ")
        raise NoEncoder(
            f"{name} stands on the image encoder {source}, which {reason}. Where there is a network, fetch it by `hf download "
            f"{source} --local-dir FOLDER`; name it by --encoder FOLDER, the variable {ENCODER}, or load(..., encoder=FOLDER)"
        ) from None


def build(config: Mapping[str, Any], encoder: nn.Module | None = None) -> Task:
    """The task a config describes, with untrained weights.

    Args:
        config: what `config.json` holds.
        encoder: to take in place of the config's.

    Raises:
        InputError: a class, its settings or what the task needs are not as they should be; the line names the key.
    """
    made = [encoder or _made(config["encoder"], "encoder"), _made(config["head"], "head")]
    given = ("beam", "no_repeat", "length_penalty", "unit", "labels", "length", "actions")
    more = {name: config[name] for name in given if name in config}
    if "fit" in config:
        more["fit"] = Preprocess(**{**config["fit"], "size": tuple(config["fit"]["size"])})
    more |= _words(config)
    kind = _class(config["task"], Task, "task")
    arguments = inspect.signature(kind).parameters
    needed = {name for name, one in list(arguments.items())[2:] if one.default is one.empty}
    for name in sorted(needed - set(more)) + sorted(set(more) - set(arguments)):
        key, of = "words" if name == "vocabulary" else name, config["task"]
        raise InputError(f"{key}: {of} needs it, and there is none" if name in needed else f"{key}: {of} has no use for it")
    task: Task = kind(*made, **more)
    task.feature_layer = config["feature_layer"]
    method: Any = method_of(config["method"])
    task.method = method
    task.target_layers = tuple(config["target_layers"]) or task.target_layers
    task.fuse = getattr(methods, config["fuse"])
    return task


def save(task: Task, config: Mapping[str, Any], folder: Path) -> None:
    """Writes a model folder: weights as safetensors, and the config that `build` reads.

    Weights are fp16, or, where the config says `"stored": "int8"`, matrices are rows of int8 with an fp16 scale each. An
    encoder that the config says to fetch (`"weights": true`) is left out.
    """
    from mmgradcam.tasks.stored import packed

    weights = {}
    for part, module in parts(task).items():
        if part == "encoder" and config["encoder"].get("weights"):
            continue
        for key, value in module.state_dict().items():
            weights.update(packed(f"{part}.{key}", value.cpu(), config.get("stored") == "int8"))
    described = json.dumps({"format": FORMAT, **config}, indent=1) + "\n"
    write_folder(folder, {"model.safetensors": to_bytes(weights), "config.json": described.encode()})


def parts(task: Task) -> dict[str, nn.Module]:
    """The modules of a task by the name of the attribute that holds them."""
    return {name: value for name, value in vars(task).items() if isinstance(value, nn.Module)}


def _state(task: Task) -> dict[str, Tensor]:
    return {f"{part}.{key}": value for part, module in parts(task).items() for key, value in module.state_dict().items()}


def _words(config: Mapping[str, Any]) -> dict[str, Any]:
    from mmgradcam.tasks.vocabulary import Vocabulary

    words = {"vocabulary": Vocabulary(tuple(config["words"]))} if "words" in config else {}
    return words | ({"answers": config["answers"]} if "answers" in config else {})


def _made(config: Mapping[str, Any], part: str) -> nn.Module:
    from mmgradcam.tasks.stored import check_settings

    settings = dict(config)
    kind = _class(settings.pop("class", ""), nn.Module, f"{part}.class")
    check_settings(kind, settings, part)
    module: nn.Module = kind(**settings)
    return module


def _class(path: Any, kind: type, key: str) -> Any:
    """The class "mmgradcam.tasks.some.module:Name", or a function that returns one; nothing else is imported for a config."""
    module, _, name = str(path).partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None) if module.startswith("mmgradcam.tasks.") else None
    except ImportError:
        found = None
    made = get_type_hints(found).get("return") if inspect.isfunction(found) else found
    if not (isinstance(made, type) and issubclass(made, kind)):
        raise InputError(f"{key}: expected a {kind.__name__} of mmgradcam, got {str(path)[:100]}")
    return found


def _device(device: str | torch.device) -> torch.device:
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        if where.type == "meta":
            raise RuntimeError("it holds no values")
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device {str(device)!r} cannot be used ({str(error).splitlines()[0]}); try auto or cpu") from None
    return where
