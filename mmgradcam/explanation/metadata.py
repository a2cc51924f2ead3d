"""What is told of an explanation beside its maps: how it was made, and whether its maps pass a check."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from mmgradcam.errors import InputError


@dataclass(frozen=True)
class Metadata:
    """How an explanation was made.

    Attributes:
        model: the model's name.
        unit: what a score is.
        method: the method's name.
        feature_layer: where the maps were taken.
        query: what was asked, as given to `explain`.
        image_name: file name of the picture, or empty.
        model_hash: SHA-256 of the model's weights, in an explanation that was loaded from a file.
        remarks: what people should know of the targets, a line each; see `Task.remarks`.
    """

    model: str
    unit: str
    method: str
    feature_layer: str
    query: dict[str, Any] = field(default_factory=dict)
    image_name: str = ""
    model_hash: str = ""
    remarks: tuple[str, ...] = ()


PASS, WEAK, FAIL = "pass", "weak", "fail"
_HEADLINES = {PASS: "map passes", WEAK: "map is weak", FAIL: "map fails"}


@dataclass(frozen=True)
class SanityResult:
    """What a check says of a map, which is not whether the word is true.

    Attributes:
        status: "pass", "weak" or "fail".
        reason: what it rests on in plain words, with the figures, in a line.
        figures: these figures by name; see `mmgradcam.metrics.sanity_check`.
    """

    CAVEAT: ClassVar[str] = "A map that passes shows what the model rests a word or answer on, not that it is true."

    status: str
    reason: str
    figures: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in _HEADLINES:
            raise InputError(f"status: expected {', '.join(_HEADLINES)}, got {self.status!r}")

    @property
    def passes(self) -> bool:
        """Whether the map passes."""
        return self.status == PASS

    @property
    def fails(self) -> bool:
        """Whether the map fails: it shows the picture or the noise, not what the model learned."""
        return self.status == FAIL

    @property
    def headline(self) -> str:
        """The status as people read it: "map passes", "map is weak" or "map fails"."""
        return _HEADLINES[self.status]

    def __str__(self) -> str:
        return f"{self.headline}: {self.reason}"
