"""Do two groups of pictures differ, or is it chance? Intervals by bootstrap, p by permutation, corrected for all tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mmgradcam.errors import InputError

Floats = npt.NDArray[np.float64]
LEVEL = 0.05
_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Difference:
    """One measure over two groups of pictures, or of the same pictures twice.

    Attributes:
        what: what was measured.
        first: mean of the first group.
        second: mean of the second.
        counts: how many pictures each mean is over.
        low: lower end of the 95% interval of first less second, by bootstrap over pictures.
        high: its upper end.
        p: how often chance makes a difference as large, by permutation: of the groups, or of the two values of each picture.
        adjusted: p after Holm's correction for everything that was tested with it.
        paired: the same pictures twice.
        share: the values are shares, in 0..1.
        least: the smallest difference that counts.
    """

    what: str
    first: float
    second: float
    counts: tuple[int, int]
    low: float
    high: float
    p: float
    adjusted: float
    paired: bool = False
    share: bool = False
    least: float = 0.0

    @property
    def difference(self) -> float:
        """First less second."""
        return self.first - self.second

    @property
    def sure(self) -> bool:
        """Whether it is no chance: the interval leaves 0 out, and the corrected p is below 0.05."""
        return self.adjusted < LEVEL and not self.low <= 0 <= self.high

    @property
    def found(self) -> bool:
        """Whether the groups differ: it is no chance, and no less than the least that counts."""
        return self.sure and abs(self.difference) >= self.least


def between(
    what: str, first: Sequence[float], second: Sequence[float], *, share: bool = False, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """The difference of the means of two groups of pictures.

    Source of the interval: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3 (percentiles); of p:
    Phipson and Smyth, "Permutation P-values Should Never Be Zero", 2010, (b + 1) / (m + 1).

    Args:
        what: what was measured.
        first: one value per picture of the first group, two at least.
        second: and of the second.
        share: the values are shares, in 0..1.
        resamples: of the bootstrap and of the permutation test, each.
        seed: of their draws.

    Raises:
        InputError: fewer than two values in a group, or values that are not numbers.

    >>> made = between("heat", [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0])
    >>> made.difference, made.low, made.high, round(made.p, 2)
    (1.0, 1.0, 1.0, 0.03)
    """
    one, other = _values(what, first), _values(what, second)
    rng = np.random.default_rng(seed)
    observed = one.mean() - other.mean()
    drawn = _draws(lambda n: _resampled(one, n, rng) - _resampled(other, n, rng), resamples, len(one) + len(other))
    every = np.concatenate([one, other])

    def shuffled(n: int) -> Floats:
        mixed = rng.permuted(np.broadcast_to(every, (n, len(every))), axis=1)
        return np.asarray(mixed[:, : len(one)].mean(1) - mixed[:, len(one) :].mean(1))

    # Not scipy.stats.permutation_test: it goes through all splits of small groups, for a smallest p other than the source's.
    chance = _draws(shuffled, resamples, len(every))
    return _made(what, one.mean(), other.mean(), (len(one), len(other)), observed, drawn, chance, False, share)


def within(
    what: str, first: Sequence[float], second: Sequence[float], *, share: bool = False, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """The mean difference of two values of the same pictures; p by changing the signs of the pictures' differences.

    Args:
        what: what was measured.
        first: one value per picture, two at least.
        second: the other value of each.
        share: the values are shares, in 0..1.
        resamples: as of `between`.
        seed: as of `between`.

    Raises:
        InputError: not as many of one as of the other, fewer than two, or values that are not numbers.
    """
    one, other = _values(what, first), _values(what, second)
    if len(one) != len(other):
        raise InputError(f"{what}: expected two values of each picture, got {len(one)} and {len(other)}")
    rng, gained = np.random.default_rng(seed), one - other
    drawn = _draws(lambda n: _resampled(gained, n, rng), resamples, len(gained))
    chance = _draws(lambda n: (rng.choice((-1.0, 1.0), (n, len(gained))) * gained).mean(1), resamples, len(gained))
    return _made(what, one.mean(), other.mean(), (len(one), len(one)), gained.mean(), drawn, chance, True, share)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction: what each p is worth when all of them were tested.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(ps, dtype=np.float64)
    order, left = values.argsort(), np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(left * values[order]).clip(max=1)
    return [float(p) for p in adjusted]


def corrected(rows: Sequence[Difference], least: float = 0.0) -> tuple[Difference, ...]:
    """The same rows, their p corrected for all of them.

    Args:
        rows: all that was tested.
        least: the smallest difference of shares that counts, in 0..1.
    """
    adjusted = holm([row.p for row in rows])
    return tuple(replace(r, adjusted=p, least=least if r.share else r.least) for r, p in zip(rows, adjusted, strict=True))


def _made(
    what: str,
    first: float,
    second: float,
    counts: tuple[int, int],
    observed: float,
    drawn: Floats,
    chance: Floats,
    paired: bool,
    share: bool,
) -> Difference:
    low, high = np.quantile(drawn, (0.025, 0.975))
    as_large = int((np.abs(chance) >= abs(observed) - 1e-12).sum())
    p = (as_large + 1) / (len(chance) + 1)
    return Difference(what, float(first), float(second), counts, float(low), float(high), p, p, paired, share)


def _values(what: str, values: Sequence[float]) -> Floats:
    made = np.asarray(values, dtype=np.float64)
    if made.ndim != 1 or len(made) < 2 or not np.isfinite(made).all():
        raise InputError(f"{what}: expected two or more numbers in each group, got {values!r:.80}")
    return made


def _resampled(values: Floats, n: int, rng: np.random.Generator) -> Floats:
    return np.asarray(values[rng.integers(len(values), size=(n, len(values)))].mean(1))


def _draws(draw: Callable[[int], Floats], resamples: int, width: int) -> Floats:
    """Draws of `draw(n)`, so many at once as fit the memory."""
    size = max(1, _AT_ONCE // width)
    return np.concatenate([draw(min(size, resamples - at)) for at in range(0, resamples, size)])
