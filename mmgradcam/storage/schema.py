"""What a saved explanation must hold (docs/schema.md), and how one is read back: nothing of the file is taken on trust."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import AfterValidator, AllowInfNan, Field

from mmgradcam.errors import InputError
from mmgradcam.images.pictures import MOST_PIXELS, picture_hash
from mmgradcam.storage import version1
from mmgradcam.storage.npz import SCHEMA, VERSION
from mmgradcam.task import Target, spelled
from mmgradcam.utils.archives import UNREADABLE, Archive, Claim, opened
from mmgradcam.utils.files import exists, is_folder, regular
from mmgradcam.utils.validation import Strict, validated

LONGEST_DESCRIPTION = 2**26
"""Bytes that a description may take, unpacked."""
ANEW = "take the files as `save` wrote them, or explain anew"

Array = npt.NDArray[Any]


def _ordered(value: float) -> float:
    if value != value:
        raise ValueError("Input should be a number")
    return value


Count = Annotated[int, Field(ge=1, le=2**31)]
Index = Annotated[int, Field(ge=0, le=2**31)]
Share = Annotated[float, Field(ge=0, le=1.00001)]  # softmax sums to 1 within rounding
Edge = Annotated[float, Field(ge=-1e6, le=1e6)]
Box = tuple[Edge, Edge, Edge, Edge]


class _Header(Strict):
    schema_: Any = Field(None, alias="schema")
    version: Any = None


class _Model(Strict):
    name: str
    sha256: str


class _Image(Strict):
    name: str
    width: Count
    height: Count
    sha256: str


class _Clip(Strict):
    frames: Count
    rate: Annotated[float, Field(gt=0)]


class _FeatureLayer(Strict):
    name: str
    grid: Annotated[list[Count], Field(min_length=1)]
    box: Box | Annotated[list[Box], Field(min_length=1)]


class _SanityResult(Strict):
    status: Literal["pass", "weak", "fail"]
    reason: str
    figures: dict[str, Annotated[float, AllowInfNan(True)] | None] = Field(default_factory=dict)


class _TextSpan(Strict):
    text: str
    first: Index
    last: Index
    importance: float | None = None


class _Target(Strict):
    label: str
    text: str | None = None
    score: float
    probability: Share | None
    value: Any
    grounding: Annotated[float, AllowInfNan(True), AfterValidator(_ordered)] | None = None
    hallucination_probability: Share | None = None
    is_hallucinated: bool = False
    asserted: bool = True
    peak: Annotated[list[Index], Field(min_length=2)] | None
    warning: Annotated[str, Field(min_length=1)] | None
    input_tokens: list[_TextSpan]
    sanity_result: _SanityResult | None = None


class Description(Strict):
    """The description of an explanation, version 2: its keys, types and ranges."""

    mmgradcam: str
    model: _Model
    image: _Image
    clip: _Clip | None = None
    query: dict[str, Any]
    text: str
    unit: str
    method: str
    remarks: tuple[str, ...] = ()
    feature_layer: _FeatureLayer
    targets: list[_Target]


def read_saved(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """The description and the arrays of a saved explanation: a folder, its `explanation.json`, or an .npz.

    Raises:
        InputError: no such file, or not what `Explanation.save` writes: the line names the file and the key.
    """
    if path.name == "explanation.json":
        path = path.parent
    folder = path if is_folder(path) else None
    file = regular(path / "maps.npz" if folder else path, "a folder or .npz that an explanation was saved to")
    try:
        with opened(file) as archive:
            text = _text(archive)
            version, made = _description(text, file)
            names = version1.ARRAYS if version == 1 else {}
            claims = {names.get(name, name): claim for name, claim in archive.claims.items()}
            stored = {new: old for old, new in names.items() if old in archive.claims}
            wanted = {stored.get(name, name): name for name in _claimed(made, claims, file)}
            arrays = {wanted[name]: array for name, array in archive.read(wanted).items()}
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not an explanation ({error}); give a folder or .npz that one was saved to") from None
    if folder is not None and exists(folder / "explanation.json"):
        _same(text, folder / "explanation.json")
    for key, expected, got in _contradictions(made, arrays):
        raise InputError(f"{file}: {key}: expected {expected}, got {got}; {ANEW}")
    return made, {name: np.asarray(array, array.dtype.newbyteorder("=")) for name, array in arrays.items()}


def _text(archive: Archive) -> str:
    shape, dtype = archive.claims["description"]
    if shape or dtype.kind != "U" or dtype.itemsize > LONGEST_DESCRIPTION:
        raise ValueError(f"its description is an array {shape} of {dtype}; expected one text of at most 16 million characters")
    return str(archive.read(["description"])["description"])


def _description(text: str, file: Path) -> tuple[int, dict[str, Any]]:
    """The version it was written in, and the description in the keys of today's."""
    header = validated(_Header, text, file, ANEW)
    if header.schema_ != SCHEMA or header.version not in (1, VERSION) or isinstance(header.version, bool):
        got = f"{header.schema_} version {header.version}"
        raise InputError(f"{file}: expected {SCHEMA} version {VERSION} or 1, got {got}; upgrade mmgradcam")
    if header.version == 1:
        text = json.dumps(version1.upgraded(json.loads(text)))
    return header.version, validated(Description, text, file, ANEW).model_dump()


def _claimed(made: Mapping[str, Any], claims: Mapping[str, Claim], file: Path) -> list[str]:
    """The arrays to unpack, their shapes and types being what the description says."""
    image, clip, count = made["image"], made["clip"], len(made["targets"])
    size = (image["height"], image["width"], 3)
    maps = (count, *made["feature_layer"]["grid"])
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        "maps": (maps, "f"), "scores": ((count,), "f"), "picture": (size, "u"),
    }  # fmt: skip
    if "words" in claims:
        expected["words"] = (count, *claims["words"][0][-1:]), "f"
    if "std" in claims:
        expected["std"] = maps, "f"
    if clip is not None:
        expected["frames"] = (clip["frames"], *size), "u"
    elif "frames" in claims:
        raise InputError(f"{file}: clip: expected its frames and rate, as there is an array of frames, got none; {ANEW}")
    for name, (wanted, kind) in expected.items():
        if name not in claims:
            raise InputError(f"{file}: {name}: expected an array of that name, got none; {ANEW}")
        shape, dtype = claims[name]
        if shape != wanted or dtype.kind != kind or dtype.itemsize not in ((1,) if kind == "u" else (2, 4, 8)):
            of = "uint8" if kind == "u" else "floats"
            raise InputError(f"{file}: {name}: expected {wanted} of {of}, got {shape} of {dtype}; {ANEW}")
    if image["height"] * image["width"] > MOST_PIXELS:
        raise InputError(f"{file}: image: {image['width']} x {image['height']} is over {MOST_PIXELS:,} pixels")
    return list(expected)


def _contradictions(made: Mapping[str, Any], arrays: Mapping[str, Array]) -> Iterator[tuple[str, str, str]]:
    """What of the description cannot be, or is not so in the arrays: key, what was expected, what came."""
    image, feature_layer, clip, targets = made["image"], made["feature_layer"], made["clip"], made["targets"]
    tiled = isinstance(feature_layer["box"], list)
    boxes = feature_layer["box"] if tiled else [feature_layer["box"]]
    for t, (x0, y0, x1, y1) in enumerate(boxes):
        if x0 == x1 or y0 == y1:  # x0 > x1 is a mirrored picture
            yield f"feature_layer.box[{t}]" if tiled else "feature_layer.box", "a rectangle with an area", str((x0, y0, x1, y1))
    if tiled and len(boxes) != feature_layer["grid"][0]:
        yield "feature_layer.box", f"{feature_layer['grid'][0]} boxes, one per tile of feature_layer.grid", str(len(boxes))
    picture = arrays["picture"]
    if (found := picture_hash(Image.fromarray(picture))) != image["sha256"]:
        yield "image.sha256", f"the picture's, {found}", image["sha256"]
    for name in ("scores", "words"):
        if name in arrays and not np.isfinite(arrays[name]).all():
            yield name, "finite numbers", "others"
    if "std" in arrays and (arrays["std"] < 0).any():
        yield "std", "no standard deviation below 0", "one"
    if clip is not None and not np.array_equal(arrays["frames"][clip["frames"] // 2], picture):
        yield "frames", "the picture as their middle one", "another"
    labels = [target["label"] for target in targets]
    whole = spelled([Target(target["label"], text=target["text"]) for target in targets])
    if made["text"] not in (whole, ", ".join(labels)):
        yield "text", f"the labels in a row, {whole!r}", repr(made["text"])
    for k, target in enumerate(targets):
        for key, expected, got in _of_target(target, k, image, clip, arrays):
            yield f"targets[{k}].{key}", expected, got


def _of_target(
    target: Mapping[str, Any], k: int, image: Mapping[str, Any], clip: Mapping[str, Any] | None, arrays: Mapping[str, Array]
) -> Iterator[tuple[str, str, str]]:
    score, words = float(arrays["scores"][k]), arrays.get("words")
    if target["score"] != score:
        yield "score", f"scores[{k}], {score}", str(target["score"])
    finite = bool(np.isfinite(arrays["maps"][k]).all())
    if finite == (target["warning"] == "not finite"):
        yield (
            "warning",
            "something else, as the map is finite" if finite else "'not finite', as the map is",
            repr(target["warning"]),
        )
    limits = (image["width"], image["height"], *(() if clip is None else (clip["frames"],)))
    if (peak := target["peak"]) is not None and (len(peak) != len(limits) or any(map(operator.ge, peak, limits))):
        yield "peak", f"a place within {' x '.join(map(str, limits))}", str(peak)
    for n, word in enumerate(target["input_tokens"]):
        if word["first"] > word["last"]:
            yield f"input_tokens[{n}].last", f"at least first, {word['first']}", str(word["last"])
        elif words is not None and word["last"] >= words.shape[1]:
            yield f"input_tokens[{n}].last", f"a column of words, 0 to {words.shape[1] - 1}", str(word["last"])
        elif words is not None and word["importance"] is not None:
            summed = float(words[k, word["first"] : word["last"] + 1].sum(dtype=np.float64))
            if not math.isclose(word["importance"], summed, rel_tol=1e-3, abs_tol=1e-5 * float(np.abs(words[k]).max())):
                yield (
                    f"input_tokens[{n}].importance",
                    f"the sum of its columns of words[{k}], {summed:.6g}",
                    str(word["importance"]),
                )


def _same(text: str, file: Path) -> None:
    """The description beside the arrays must be the one inside them, so that nobody reads the one and draws the other."""
    try:
        if regular(file, "a description").stat().st_size > LONGEST_DESCRIPTION:
            raise ValueError(f"it is over {LONGEST_DESCRIPTION:,} bytes long")
        beside, inside = json.loads(file.read_text(encoding="utf-8")), json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read ({error}); {ANEW}") from None
    if (key := _difference(beside, inside)) is not None:
        raise InputError(f"{file}: {key or 'description'}: differs from the description in maps.npz beside it; {ANEW}")


def _difference(one: Any, other: Any, at: str = "") -> str | None:
    """Where two descriptions differ first; None where they do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        steps = [(f"{at}.{key}".removeprefix("."), one.get(key, ...), other.get(key, ...)) for key in {**one, **other}]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        steps = [(f"{at}[{i}]", part, other[i]) for i, part in enumerate(one)]
    else:
        return None if repr(one) == repr(other) else at  # which tells 1 from 1.0 and from true, and not NaN from NaN
    return next((found for found in (_difference(a, b, key) for key, a, b in steps) if found is not None), None)
