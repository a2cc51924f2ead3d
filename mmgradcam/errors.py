"""What users are told when an input or a model cannot be explained."""

from __future__ import annotations


class InputError(ValueError):
    """A user's mistake: the message says what was expected, what came, and what to do. Nothing was written."""


class ModelError(RuntimeError):
    """A model or task that cannot be explained as it stands: no gradient, scores that are not finite, a wrong shape."""
