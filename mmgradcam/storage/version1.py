"""Descriptions of schema version 1, which 0.1.0 wrote, in the keys and values of version 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOP_KEYS = {"seam": "feature_layer"}
QUERY_KEYS = {"against": "contrast"}
TARGET_KEYS = {
    "reliance": "grounding", "made_up": "hallucination_probability", "flagged": "is_hallucinated", "problem": "warning",
    "reads": "input_tokens", "verdict": "sanity_result",
}  # fmt: skip
RESULT_KEYS = {"short": "status", "why": "reason"}
STATUSES = {
    "map passes": "pass", "map is weak": "weak", "map fails": "fail",
    "trust it": "pass", "rests on little": "weak", "do not trust it": "fail",
}  # fmt: skip
ARRAYS = {"spread": "std"}


def upgraded(made: Any) -> Any:
    """A description of version 1 as one of version 2; what is no description comes back as it is, for the schema to refuse."""
    if not isinstance(made, Mapping):
        return made
    new = {**_renamed(made, TOP_KEYS), "version": 2}
    if isinstance(new.get("query"), Mapping):
        new["query"] = _renamed(new["query"], QUERY_KEYS)
    if isinstance(new.get("targets"), list):
        new["targets"] = [_target(one) for one in new["targets"]]
    return new


def _target(one: Any) -> Any:
    if not isinstance(one, Mapping):
        return one
    new = _renamed(one, TARGET_KEYS)
    if new.get("warning") == "nothing in favour":
        new["warning"] = "no positive evidence"
    if isinstance(new.get("value"), Mapping):
        new["value"] = _renamed(new["value"], QUERY_KEYS)
    if isinstance(result := new.get("sanity_result"), Mapping):
        result = _renamed(result, RESULT_KEYS)
        status = result.get("status")
        new["sanity_result"] = {**result, "status": STATUSES.get(status, status) if isinstance(status, str) else status}
    return new


def _renamed(made: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    return {keys.get(key, key): value for key, value in made.items()}
