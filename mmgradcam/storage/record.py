"""What is kept of an explanation: its description and its arrays (docs/schema.md), written and read back."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmgradcam.errors import InputError
from mmgradcam.explanation import Explanation, SanityResult
from mmgradcam.images.clips import Clip
from mmgradcam.images.pictures import picture_hash
from mmgradcam.render import heatmaps, pages
from mmgradcam.storage.npz import SCHEMA, VERSION, pack
from mmgradcam.task import Target, TextSpan
from mmgradcam.utils.archives import MOST_BYTES
from mmgradcam.utils.version import __version__
from mmgradcam.utils.writing import to_json


def describe(made: Explanation) -> dict[str, Any]:
    """An explanation in plain numbers and texts; its schema is in docs/schema.md."""
    targets = []
    for one in made:
        target = one.targets[0]
        value = (
            dataclasses.asdict(target.value)
            if dataclasses.is_dataclass(target.value) and not isinstance(target.value, type)
            else target.value
        )
        importance: list[float | None] = [v for _, v in one.importances] or [None] * len(target.input_tokens)
        input_tokens = [
            {**dataclasses.asdict(w), "importance": v} for w, v in zip(target.input_tokens, importance, strict=True)
        ]
        targets.append(
            {
                "label": target.label, "text": target.text, "score": one.score, "probability": target.probability,
                "value": value, "grounding": target.grounding, "asserted": target.asserted,
                "hallucination_probability": target.hallucination_probability, "is_hallucinated": target.is_hallucinated,
                "peak": one.peak, "warning": one.warning, "input_tokens": input_tokens,
                "sanity_result": None if one.sanity_result is None else dataclasses.asdict(one.sanity_result),
            }
        )  # fmt: skip
    metadata = made.metadata
    described = {
        "schema": SCHEMA, "version": VERSION, "mmgradcam": __version__,
        "model": {"name": metadata.model, "sha256": made.model_hash()},
        "image": {
            "name": metadata.image_name, "width": made.picture.width, "height": made.picture.height,
            "sha256": picture_hash(made.picture),
        },
        **({} if made.clip is None else {"clip": {"frames": len(made.clip), "rate": made.clip.rate}}),
        "query": metadata.query, "text": made.text, "unit": metadata.unit, "method": metadata.method,
        "remarks": list(metadata.remarks),
        "feature_layer": {"name": metadata.feature_layer, "grid": list(made.maps.shape[1:]), "box": list(made.box)},
        "targets": targets,
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(to_json(described))
    return plain


def archive(made: Explanation) -> bytes:
    """All of an explanation as a compressed .npz."""
    more = {"words": made.words, "std": made.std}
    given = {name: tensor.numpy() for name, tensor in more.items() if tensor is not None}
    if made.clip is not None:
        given["frames"] = np.stack([np.asarray(frame) for frame in made.clip.frames])
    arrays = {
        "maps": made.maps.detach().cpu().numpy(), "scores": made.scores.detach().cpu().numpy(),
        "picture": np.asarray(made.picture), **given,
    }  # fmt: skip
    if (total := sum(array.nbytes for array in arrays.values())) > MOST_BYTES:
        raise InputError(f"maps, picture and frames come to {total:,} bytes; expected at most {MOST_BYTES:,}: explain fewer")
    return pack({"description": np.array(to_json(describe(made))), **arrays})


def files(made: Explanation, film: str = ".gif") -> dict[str, bytes]:
    """What `Explanation.save` writes into a folder, by name; of a clip, animated as ".gif", ".webp" or ".mp4"."""
    drawn = (
        {"words.png": heatmaps.encoded(made.panels()), "index.html": pages.page(made).encode()} if made.clip is None else None
    )
    text = to_json(describe(made), indent=2) + "\n"
    return {**(drawn or made.animation().files(film)), "explanation.json": text.encode(), "maps.npz": archive(made)}


def read(made: Mapping[str, Any]) -> tuple[dict[str, Any], list[Target], list[str | None]]:
    """Of a description: how it was made, as arguments of `Metadata`, its targets, and why maps show nothing."""
    targets = [
        Target(
            t["label"], t["value"], probability=t["probability"], text=t.get("text"), grounding=t.get("grounding"),
            hallucination_probability=t.get("hallucination_probability"), is_hallucinated=t.get("is_hallucinated", False),
            asserted=t.get("asserted", True),
            input_tokens=tuple(TextSpan(r["text"], r["first"], r["last"]) for r in t["input_tokens"]),
        )
        for t in made["targets"]
    ]  # fmt: skip
    metadata = {
        "model": made["model"]["name"], "unit": made["unit"], "method": made["method"],
        "feature_layer": made["feature_layer"]["name"], "query": made["query"], "image_name": made["image"]["name"],
        "model_hash": made["model"]["sha256"],
        "remarks": tuple(made.get("remarks") or ()),
    }  # fmt: skip
    return metadata, targets, [t["warning"] for t in made["targets"]]


def sanity_results_of(made: Mapping[str, Any]) -> list[SanityResult | None]:
    """Of a description: what checks said of the maps."""
    return [None if (one := t.get("sanity_result")) is None else _sanity_result(one) for t in made["targets"]]


def _sanity_result(kept: Mapping[str, Any]) -> SanityResult:
    """A figure that JSON holds as null is not a number."""
    figures = {name: math.nan if value is None else value for name, value in kept.get("figures", {}).items()}
    return SanityResult(kept["status"], kept["reason"], figures)


def clip_of(made: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Clip | None:
    """The clip an explanation is of, if it is of one."""
    if made.get("clip") is None:
        return None
    return Clip(tuple(Image.fromarray(frame) for frame in arrays["frames"]), made["clip"]["rate"], made["image"]["name"])
