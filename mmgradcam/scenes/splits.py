"""Which seeds are for what: models train, are chosen and are reported on scenes that never meet."""

from __future__ import annotations

SPLITS: dict[str, int] = {"train": 1_000_000, "validation": 50_000, "test": 90_000}
"""The first seed of each split. Validation and test may grow to 10,000 scenes each, train without bound."""


def seeds(split: str, count: int, start: int = 0) -> range:
    """The seeds of `count` scenes of a split, from its `start`-th on.

    Raises:
        ValueError: no such split, or more scenes than it has.

    >>> seeds("test", 3)
    range(90000, 90003)
    """
    if split not in SPLITS:
        raise ValueError(f"expected a split among {', '.join(SPLITS)}, got {split!r}")
    if split != "train" and start + count > 10_000:
        raise ValueError(f"{split}: expected at most 10,000 scenes, got {start + count}")
    return range(SPLITS[split] + start, SPLITS[split] + start + count)
