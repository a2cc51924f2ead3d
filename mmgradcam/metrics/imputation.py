"""ROAD's linear imputation: unknown pixels become the weighted mean of their neighbours, solved to a tolerance.

The weights are 1/6 beside and 1/12 across, renormalised at the picture's edge. The matrix is the Laplacian of the grid's graph
without the known pixels: symmetric and positive definite. It is solved by conjugate gradients, preconditioned by a multigrid
cycle (smoothed aggregation), whose cost grows with the number of pixels alone.

Source of the system: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022, section
5; of the solver: Vanek, Mandel and Brezina, "Algebraic Multigrid by Smoothed Aggregation", Computing 56, 1996.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmgradcam.errors import ModelError

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Matrix = Any
"""A sparse matrix of scipy."""

TOLERANCE = 1e-4
"""How far a filled pixel may lie from the exact solution, over the standard deviation of the known ones: 1% of ROAD's noise."""
_EDGES = ((0, 1, 2.0), (1, 0, 2.0), (1, 1, 1.0), (1, -1, 1.0))
"""Rows down, columns right, and weight (of 12) of the neighbours that come after a pixel."""
_COARSEST, _SIDE, _DAMPING, _MOST = 500, 3, 0.8, 100


def impute(planes: npt.NDArray[Any], known: Mask, tolerance: float = TOLERANCE) -> Values:
    """Planes with their unknown pixels filled.

    One core takes about 0.06 s for a picture of 224 x 224 of which 20% is unknown, and 0.15 s where 80% is.

    Args:
        planes: (C, h, w), finite where known.
        known: (h, w), at least one pixel.
        tolerance: of the largest error, over the standard deviation of the known values of all planes.

    Returns:
        (C, h, w): known pixels as they are, and each unknown one the weighted mean of its up to 8 neighbours.

    Raises:
        ModelError: the solver did not reach the tolerance.

    >>> impute(np.array([[[1.0, 0.0, 3.0]]]), np.array([[True, False, True]])).tolist()
    [[[1.0, 2.0, 3.0]]]
    """
    made = planes.astype(np.float64)
    if known.all():
        return made
    made[:, ~known] = 0
    values = made[:, known]
    spread = float(values.std())
    matrix, right = _system(made, known)
    start = np.tile(values.mean(1), (len(right), 1))
    made[:, ~known] = _solved(matrix, right, start, ~known, tolerance * spread).T if spread > 0 else start.T
    return made


def _system(planes: Values, known: Mask) -> tuple[Matrix, Values]:
    """The (U, U) matrix of the unknown pixels and the (U, C) right-hand sides; the unknown pixels of the planes are 0."""
    h, w = known.shape
    place = np.cumsum(~known.ravel()).reshape(h, w) - 1
    import scipy.sparse

    degree, pull = np.zeros((h, w)), np.zeros_like(planes)
    rows, columns, weights = [], [], []
    for down, right, weight in _EDGES:
        one = slice(0, h - down), slice(max(0, -right), w - max(0, right))
        other = slice(down, h), slice(max(0, right), w + min(0, right))
        for here, there in ((one, other), (other, one)):
            degree[here] += weight
            pull[(..., *here)] += weight * planes[(..., *there)]
            both = ~known[here] & ~known[there]
            rows.append(place[here][both])
            columns.append(place[there][both])
            weights.append(np.full(int(both.sum()), -weight))
    count = int((~known).sum())
    rows, columns, weights = [*rows, np.arange(count)], [*columns, np.arange(count)], [*weights, degree[~known]]
    entries = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
    return scipy.sparse.csr_array(entries, shape=(count, count)), pull[:, ~known].T


class _Level(NamedTuple):
    """A matrix, the inverse of its diagonal, and how values of the next coarser level become its own."""

    matrix: Matrix
    inverse: Values
    prolong: Matrix
    restrict: Matrix


def _levels(matrix: Matrix, unknown: Mask) -> tuple[list[_Level], Any]:
    """The levels from fine to coarse, and the solver of the coarsest: blocks of 3 x 3 cells become one cell of the next."""
    import scipy.sparse.linalg

    levels = []
    while unknown.sum() > _COARSEST:
        ys, xs = np.nonzero(unknown)
        ys, xs = ys // _SIDE, xs // _SIDE
        unknown = np.zeros((ys.max() + 1, xs.max() + 1), np.bool_)
        unknown[ys, xs] = True
        block = (np.cumsum(unknown.ravel()).reshape(unknown.shape) - 1)[ys, xs]
        inverse = 1 / matrix.diagonal()
        ones, ends = np.ones(len(block)), np.arange(len(block) + 1)
        gather = scipy.sparse.csr_array((ones, block, ends), shape=(len(block), int(unknown.sum())))
        prolong = (gather - scipy.sparse.diags_array(_DAMPING * inverse) @ (matrix @ gather)).tocsr()
        restrict = prolong.T.tocsr()
        levels.append(_Level(matrix, inverse[:, None], prolong, restrict))
        matrix = (restrict @ matrix @ prolong).tocsr()
    return levels, scipy.sparse.linalg.splu(matrix.tocsc())


def _cycle(levels: list[_Level], coarsest: Any, right: Values) -> Values:
    """One V-cycle from 0: a symmetric approximation of the inverse."""
    if not levels:
        solved: Values = coarsest.solve(right)
        return solved
    level, *coarser = levels
    made = _DAMPING * level.inverse * right
    made = made + level.prolong @ _cycle(coarser, coarsest, level.restrict @ (right - level.matrix @ made))
    smoothed: Values = made + _DAMPING * level.inverse * (right - level.matrix @ made)
    return smoothed


def _solved(matrix: Matrix, right: Values, start: Values, unknown: Mask, tolerance: float) -> Values:
    """(U, C) solutions by conjugate gradients, each column on its own, until a cycle moves no pixel by the tolerance."""
    levels, coarsest = _levels(matrix, unknown)
    made, rest = start, right - matrix @ start
    step = toward = _cycle(levels, coarsest, rest)
    energy = (rest * step).sum(0)
    for _ in range(_MOST):
        if np.abs(step).max() <= tolerance:
            return made + step
        moved = matrix @ toward
        share = energy / np.maximum((toward * moved).sum(0), np.finfo(np.float64).tiny)
        made, rest = made + share * toward, rest - share * moved
        step = _cycle(levels, coarsest, rest)
        before, energy = energy, (rest * step).sum(0)
        toward = step + energy / np.maximum(before, np.finfo(np.float64).tiny) * toward
    raise ModelError(
        f"road: the filling did not reach {tolerance:.1e} in {_MOST} steps; please report the picture and the mask"
    )
