"""What is kept of an explanation: its description and its arrays (docs/schema.md), written and read back."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmgradcam.errors import InputError
from mmgradcam.images.clips import Clip
from mmgradcam.images.pictures import picture_hash
from mmgradcam.render import heatmaps, pages
from mmgradcam.storage.npz import SCHEMA, VERSION, pack
from mmgradcam.task import Target, Word
from mmgradcam.utils.archives import MOST_BYTES
from mmgradcam.utils.version import __version__
from mmgradcam.utils.writing import to_json

if TYPE_CHECKING:
    from mmgradcam.explanation import Explanation


@dataclass(frozen=True)
class About:
    """How an explanation was made.

    Attributes:
        model: the model's name.
        unit: what a score is.
        method: the method's name.
        seam: where the maps were taken.
        query: what was asked, as given to `explain`.
        image_name: file name of the picture, or empty.
        model_hash: SHA-256 of the model's weights, in an explanation that was loaded from a file.
        remarks: what people should know of the targets, a line each; see `Task.remarks`.
    """

    model: str
    unit: str
    method: str
    seam: str
    query: dict[str, Any] = field(default_factory=dict)
    image_name: str = ""
    model_hash: str = ""
    remarks: tuple[str, ...] = ()


PASSES, WEAK, FAILS = "map passes", "map is weak", "map fails"
_EARLIER = {"trust it": PASSES, "rests on little": WEAK, "do not trust it": FAILS}
"""What these were called in files written before."""


@dataclass(frozen=True)
class Verdict:
    """What a check says of a map, which is not whether the word is true.

    Attributes:
        short: "map passes", "map is weak" or "map fails".
        why: the reasons in plain words, with their figures, in a line.
        figures: these figures by name; see `mmgradcam.metrics.examine`.
    """

    CAVEAT: ClassVar[str] = "A map that passes shows what the model rests a word or answer on, not that it is true."

    short: str
    why: str
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def trust(self) -> bool:
        """Whether the map passes."""
        return self.short == PASSES

    @property
    def fails(self) -> bool:
        """Whether the map fails: it shows the picture or the noise, not what the model learned."""
        return self.short == FAILS

    def __str__(self) -> str:
        return f"{self.short}: {self.why}"


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
        importance: list[float | None] = [v for _, v in one.importances] or [None] * len(target.reads)
        reads = [{**dataclasses.asdict(w), "importance": v} for w, v in zip(target.reads, importance, strict=True)]
        targets.append(
            {
                "label": target.label, "text": target.text, "score": one.score, "probability": target.probability,
                "value": value, "reliance": target.reliance, "made_up": target.made_up, "flagged": target.flagged,
                "asserted": target.asserted,
                "peak": one.peak, "problem": one.problem, "reads": reads,
                "verdict": None if one.verdict is None else dataclasses.asdict(one.verdict),
            }
        )  # fmt: skip
    about = made.about
    described = {
        "schema": SCHEMA, "version": VERSION, "mmgradcam": __version__,
        "model": {"name": about.model, "sha256": made.model_hash()},
        "image": {
            "name": about.image_name, "width": made.picture.width, "height": made.picture.height,
            "sha256": picture_hash(made.picture),
        },
        **({} if made.clip is None else {"clip": {"frames": len(made.clip), "rate": made.clip.rate}}),
        "query": about.query, "text": made.text, "unit": about.unit, "method": about.method,
        "remarks": list(about.remarks),
        "seam": {"name": about.seam, "grid": list(made.maps.shape[1:]), "box": list(made.box)},
        "targets": targets,
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(to_json(described))
    return plain


def archive(made: Explanation) -> bytes:
    """All of an explanation as a compressed .npz."""
    more = {"words": made.words, "spread": made.spread}
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
    return {**(drawn or made.film().files(film)), "explanation.json": text.encode(), "maps.npz": archive(made)}


def read(made: Mapping[str, Any]) -> tuple[dict[str, Any], list[Target], list[str | None]]:
    """Of a description: how it was made, as arguments of `About`, its targets, and why maps show nothing."""
    targets = [
        Target(
            t["label"], t["value"], probability=t["probability"], text=t.get("text"), reliance=t.get("reliance"),
            made_up=t.get("made_up"), flagged=t.get("flagged", False), asserted=t.get("asserted", True),
            reads=tuple(Word(r["text"], r["first"], r["last"]) for r in t["reads"]),
        )
        for t in made["targets"]
    ]  # fmt: skip
    about = {
        "model": made["model"]["name"], "unit": made["unit"], "method": made["method"], "seam": made["seam"]["name"],
        "query": made["query"], "image_name": made["image"]["name"], "model_hash": made["model"]["sha256"],
        "remarks": tuple(made.get("remarks") or ()),
    }  # fmt: skip
    return about, targets, [t["problem"] for t in made["targets"]]


def verdicts_of(made: Mapping[str, Any]) -> list[Verdict | None]:
    """Of a description: what checks said of the maps, in the words of today."""
    return [None if (one := t.get("verdict")) is None else _verdict(one) for t in made["targets"]]


def _verdict(kept: Mapping[str, Any]) -> Verdict:
    """A figure that JSON holds as null is not a number."""
    figures = {name: math.nan if value is None else value for name, value in kept.get("figures", {}).items()}
    return Verdict(_EARLIER.get(kept["short"], kept["short"]), kept["why"], figures)


def clip_of(made: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Clip | None:
    """The clip an explanation is of, if it is of one."""
    if made.get("clip") is None:
        return None
    return Clip(tuple(Image.fromarray(frame) for frame in arrays["frames"]), made["clip"]["rate"], made["image"]["name"])
