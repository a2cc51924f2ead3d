"""Files of JSON from users, checked against a model of what they must hold: one line that names the file and the key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mmgradcam.errors import InputError, unicode_text


class Strict(BaseModel):
    """No value is taken for one of another type; keys that it does not name are passed over."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=BaseModel)


def validated(kind: type[Kind], text: str, file: Path, advice: str) -> Kind:
    """What a text of JSON holds.

    Args:
        kind: its model.
        text: the JSON.
        file: where it stands.
        advice: what to do if it is not what was expected.

    Raises:
        InputError: it is not.
    """
    try:
        return kind.model_validate_json(unicode_text(text))
    except ValidationError as error:
        raise InputError(f"{file}: {reason(error, 'description')}; {advice}") from None


def reason(error: ValidationError, whole: str) -> str:
    """What is wrong, and where; of the branches of a union, that which fitted furthest. `whole` names all of the text."""
    first = max(error.errors(include_url=False), key=lambda one: len(one["loc"]))
    got = "" if first["type"] in ("missing", "json_invalid") else f", got {str(first['input'])[:60]!r}"
    return f"{_key(first['loc']) or whole}: {first['msg'][:1].lower()}{first['msg'][1:]}{got}"


def _key(steps: Sequence[Any]) -> str:
    named = [step for step in steps if isinstance(step, int) or step.isidentifier()]  # others are types of a union
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in named).removeprefix(".")
