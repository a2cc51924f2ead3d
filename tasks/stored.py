"""Model folders: what `config.json` and `model.safetensors` must hold, checked before a model is built or weights are read."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Required, cast, get_type_hints

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from safetensors import safe_open
from torch import Tensor
from typing_extensions import TypedDict

from mmgradcam.errors import InputError
from mmgradcam.explaining.arguments import method_of
from mmgradcam.images.pictures import SMALLEST_SIDE
from mmgradcam.tasks.vocabulary import SPECIAL
from mmgradcam.utils.files import regular
from mmgradcam.utils.validation import Strict, reason, validated

ANEW = "fetch the folder again"
LARGEST = 1_000_000
"""Of the numbers that say how large a model is."""
DEEPEST = 1_000
"""Of those that say how many parts it has."""
OF_PARTS = ("depths", "layers", "blocks", "glimpses", "around", "heads", "patch")

Side = Annotated[int, Field(ge=SMALLEST_SIDE, le=10_000)]
Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
Three = tuple[float, float, float]


class _Fit(Strict):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")

    size: tuple[Side, Side]
    mean: Three = (0.5, 0.5, 0.5)
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.25, 0.25, 0.25)
    how: Literal["pad", "crop", "stretch"] = "pad"


class _Config(Strict):
    task: str
    encoder: dict[str, Any]
    head: dict[str, Any]
    feature_layer: str
    method: str
    fuse: Literal["product", "mean"]
    target_layers: list[str]
    fit: _Fit | None = None
    words: Texts | None = None
    answers: Texts | None = None
    labels: Texts | None = None
    actions: Texts | None = None
    beam: Annotated[int, Field(ge=1, le=DEEPEST)] | None = None
    no_repeat: Annotated[int, Field(ge=0, le=DEEPEST)] | None = None
    length_penalty: Annotated[float, Field(ge=0, le=2)] | None = None
    length: Annotated[int, Field(ge=1, le=DEEPEST)] | None = None
    unit: str | None = None
    stored: Literal["int8"] | None = None


def check_config(config: Mapping[str, Any], file: Path) -> None:
    """Raises InputError where a config lacks a key, or one holds what it cannot; the line names the file and the key."""
    validated(_Config, json.dumps(config), file, ANEW)
    for key, value in config.items():
        if value is None:
            raise InputError(f"{file}: {key}: expected a value or no such key, got null; {ANEW}")
    try:
        method_of(config["method"])
    except InputError:
        got = repr(config["method"])[:100]
        raise InputError(f"{file}: method: expected a method of `mmgradcam methods`, got {got}; {ANEW}") from None
    for key in ("words", "answers", "actions"):
        if len(set(config.get(key, ()))) < len(config.get(key, ())):
            raise InputError(f"{file}: {key}: expected each of them once; {ANEW}")
    lengths = {
        "vocabulary": ("words", len(SPECIAL)),
        "answers": ("answers", 0),
        "classes": ("labels", 0),
        "actions": ("actions", 0),
    }
    for key, (texts, more) in lengths.items():
        count = config["head"].get(key)
        if count is not None and texts in config and count != len(config[texts]) + more:
            told = f"{len(config[texts]) + more}, as {texts} are {len(config[texts])}"
            raise InputError(f"{file}: head.{key}: expected {told}, got {str(count)[:60]!r}; {ANEW}")


def check_settings(made: Callable[..., Any], given: Mapping[str, Any], at: str) -> None:
    """Raises InputError where settings are not the arguments of a class, by its own signature, or beyond all measure.

    Args:
        made: the class.
        given: arguments by name.
        at: where in the config they stand.
    """
    hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    fields: dict[str, Any] = {
        name: (Required if one.default is one.empty else NotRequired)[hints.get(name, Any)]
        for name, one in inspect.signature(made).parameters.items()
    }
    strictly = with_config(ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
    expected: Any = strictly(cast(Any, TypedDict)("expected", fields))
    try:
        TypeAdapter(expected).validate_json(json.dumps(given))
    except ValidationError as error:
        raise InputError(f"{at}.{reason(error, 'settings')}") from None
    for name, value in given.items():
        most = DEEPEST if name in OF_PARTS else LARGEST
        for number in _numbers(value):
            if not 0 <= number <= most and not isinstance(value, Mapping):
                raise InputError(f"{at}.{name}: expected numbers of 0 to {most:,}, got {number}")
            if abs(number) > 10 * LARGEST:
                raise InputError(f"{at}.{name}: expected numbers of at most {10 * LARGEST:,}, got {number}")


def _numbers(value: Any) -> list[int]:
    """The whole numbers in lists and mappings, however deep."""
    if isinstance(value, Mapping):
        return [number for one in value.values() for number in _numbers(one)]
    if isinstance(value, list):
        return [number for one in value for number in _numbers(one)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


SCALE = ":scale"
"""Ends the name of the scales of an int8 matrix, one a row."""
FLOATS = ("F16", "F32", "F64", "BF16")
WHOLE = ("I64", "I32", "I16", "I8", "U8", "BOOL")


def check_weights(expected: Mapping[str, Tensor], file: Path, besides: tuple[str, ...] = ()) -> None:
    """Raises InputError where stored weights are not those of a model: names, shapes and types, by the file's header alone.

    Args:
        expected: parameters and buffers of the model by name, on any device; on "meta" they need no memory.
        file: the weights.
        besides: how names begin that may be there too.
    """
    regular(file, "weights (model.safetensors)")
    with safe_open(str(file), "pt") as weights:
        told = {key: (tuple(weights.get_slice(key).get_shape()), weights.get_slice(key).get_dtype()) for key in weights.keys()}  # noqa: SIM118
    for key, value in expected.items():
        if key not in told:
            raise InputError(f"{file}: {key}: expected a tensor of that name, got none; {ANEW}")
        shape, kind = told.pop(key)
        if shape != tuple(value.shape):
            raise InputError(f"{file}: {key}: expected {tuple(value.shape)}, got {shape}; {ANEW}")
        scale = told.pop(key + SCALE, None)
        if value.is_floating_point() and kind == "I8":
            rows = shape[:1]
            if len(shape) < 2 or scale is None or scale[0] != rows or scale[1] not in FLOATS:
                got = "none" if scale is None else f"{scale[0]} of {scale[1]}"
                raise InputError(f"{file}: {key}{SCALE}: expected a scale for each row of int8, {rows}, got {got}; {ANEW}")
        elif scale is not None or kind not in (FLOATS if value.is_floating_point() else WHOLE):
            more = " with scales" if scale is not None else ""
            wanted = "floats, or int8 with scales" if value.is_floating_point() else "whole numbers"
            raise InputError(f"{file}: {key}: expected {wanted}, got {kind}{more}; {ANEW}")
    told = {key: one for key, one in told.items() if not key.startswith(besides)} if besides else told
    if told:
        raise InputError(f"{file}: {next(iter(told))}: the model has no tensor of that name; {ANEW}")


def packed(key: str, value: Tensor, short: bool) -> dict[str, Tensor]:
    """A tensor as it is stored: fp16, or int8 with an fp16 scale for each row where `short` and it is a large matrix."""
    if not value.is_floating_point():
        return {key: value.contiguous()}
    if not short or value.dim() < 2 or value.numel() < 4096:
        return {key: value.half().contiguous()}
    scale = (value.flatten(1).abs().amax(1) / 127).clamp(min=1e-7).half()
    rows = value.flatten(1) / scale[:, None].float()
    return {key: rows.round().clamp(-127, 127).to(torch.int8).view(value.shape).contiguous(), key + SCALE: scale}


def unpacked(weights: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Tensors as the model has them, floats as float32.

    Raises:
        InputError: a value is not finite, or the scale of a row below 0.
    """
    made = {}
    for key, value in weights.items():
        if not torch.isfinite(value).all() or (key.endswith(SCALE) and bool((value < 0).any())):
            raise InputError(
                f"{file}: {key}: expected finite numbers{', not below 0' * key.endswith(SCALE)}, got others; {ANEW}"
            )
        scale = weights.get(key + SCALE)
        if scale is not None:
            made[key] = value.float() * scale.float().view(-1, *[1] * (value.dim() - 1))
        elif not key.endswith(SCALE):
            made[key] = value.float() if value.is_floating_point() else value
    return made
