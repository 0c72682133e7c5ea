"""Arithmetic of decisions and lessons on arrays, in numpy: what `kernel` falls back to where `_kernel.c` was not compiled.

Both have the same functions. What a lesson leaves behind (`encode`, `ridge_learn`, `table_learn`) has the same bits in both and on every
machine: products are element by element, sums go in the order of the index, nothing is fused, no BLAS. What a decision reads
(`ridge_predict`) may differ in the last bits. Rows are an index array, or a slice where they follow each other.

A *belief* is one row of a ridge: the upper triangle of its covariance, row after row, then its weights.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats, NDArrayInt, Rows
from .exploration import shares, taken, winners

VERSION = 3
"""Goes up with every change of a function here: a kernel that was compiled from another one is not used."""
CELL_PRIOR = 15.0
"""Outcomes a cell of the table needs until its own mean weighs as much as what it borrows."""
KIND_PRIOR = 4.0
TYPE_PRIOR = 5.0
FLIGHT, SLOWNESS, PACE, WAIT, ODDS, SILENCE = range(6)
"""What is known of each replica, line by line: see load.py."""
LOST_WORKS = 5.0
"""Mean tasks' time that a failure costs beside the attempt itself."""

_total = np.add.reduce
"""What `sum` does, without its wrapper."""


class Triangle(NamedTuple):
    """Index tables for beliefs about `size` columns: where row and column of each packed number are, and the way back.

    `whole` is (size, size + 1): each row of the covariance and, behind it, that row's weight.
    """

    rows: NDArrayInt
    columns: NDArrayInt
    whole: NDArray[np.intp]
    diagonal: NDArrayInt
    times: Floats


@lru_cache(maxsize=64)
def triangle(size: int) -> Triangle:
    rows, columns = np.triu_indices(size)
    packed = len(rows)
    whole = np.empty((size, size + 1), dtype=np.intp)
    whole[rows, columns] = whole[columns, rows] = np.arange(packed)
    whole[:, size] = packed + np.arange(size)
    return Triangle(rows, columns, whole, whole.diagonal().copy(), np.where(rows == columns, 1.0, 2.0))


def all_finite(raw: Floats) -> bool:
    """Whether all of a vector's numbers are."""
    return bool(np.isfinite(raw).all())


def encode(raw: Floats | tuple[float, ...], scale: Floats, limit: float, encoded: Floats) -> None:
    """`scale`: centre and factor; the last place of `encoded` becomes 1."""
    part = encoded[:-1]
    np.subtract(raw, scale[0], out=part)
    part *= scale[1]
    np.minimum(part, limit, out=part)
    np.maximum(part, -limit, out=part)
    encoded[-1] = 1.0


def ridge_learn(beliefs: Floats, row: int, encoded: Floats, quality: float) -> None:
    """Recursive least squares by the Sherman-Morrison identity, in place."""
    size = len(encoded)
    rows, columns, whole, *_ = triangle(size)
    belief = beliefs[row]
    square = belief.take(whole)
    square *= encoded[:, None]
    # Along the slow axis numpy adds whole rows, one after the other.
    sums = _total(square, axis=0)
    gain = sums[:size]
    scale = 1.0 / (1.0 + float(np.add.accumulate(encoded * gain)[-1]))
    belief[: len(rows)] -= gain.take(rows) * (gain * scale).take(columns)
    belief[len(rows) :] += gain * (scale * (quality - float(sums[size])))


def ridge_predict(beliefs: Floats, rows: Rows, encoded: Floats, width: float, means: Floats, widths: Floats) -> None:
    """Means and `width` times the standard deviations of these rows."""
    upper = triangle(len(encoded))
    packed = len(upper.rows)
    found = beliefs[rows]
    point = encoded.take(upper.rows)
    point *= encoded.take(upper.columns)
    point *= upper.times
    np.dot(found[:, :packed], point, out=widths)
    np.dot(found[:, packed:], encoded, out=means)
    np.maximum(widths, 0.0, out=widths)
    np.sqrt(widths, out=widths)
    widths *= width


def table_learn(cells: Floats, row: int, quality: float, keep: float, prior: float) -> tuple[float, float]:
    """One more outcome in a cell, which keeps `keep` of what it had; by how much its count and its sum have grown."""
    count, total = float(cells[0, row]), float(cells[1, row])
    more, whole = count * keep + 1.0, total * keep + quality
    cells[0, row], cells[1, row], cells[2, row] = more, whole, 1.0 / (more + prior)
    return more - count, whole - total


def table_predict(
    every: Floats, cells: Floats | None, rows: Rows, shared: tuple[float, float], means: Floats, widths: Floats
) -> None:
    """Counts, sums and inverses of the kinds and of one task type's cells; `shared`: mean of all, variance of one outcome."""
    pool, noise = shared
    inverse = every[2, rows]
    np.add(every[1, rows], KIND_PRIOR * pool, out=means)
    means *= inverse
    if cells is None:
        np.add(inverse, 1.0 / CELL_PRIOR, out=widths)
    else:
        counts, sums, weight = cells[0, rows], cells[1, rows], cells[2, rows]
        # How much harder this type is, over those of these kinds that did it.
        harder = (float(_total(sums)) - float(means.dot(counts))) / (float(_total(counts)) + TYPE_PRIOR)
        means += harder
        means *= CELL_PRIOR
        means += sums
        means *= weight
        np.add(inverse, weight, out=widths)
    widths *= noise
    np.sqrt(widths, out=widths)


def completion(numbers: Floats, rows: Rows, works: tuple[float, float], told: tuple[bool, bool], times: Floats) -> None:
    """`works`: of this task and of the mean one; `told`: whether anybody is silent, and whether anybody is suspected."""
    work, mean = works
    silent, suspected = told
    np.multiply(numbers[PACE, rows], work, out=times)
    times += numbers[WAIT, rows] * mean
    if silent:
        times += numbers[SILENCE, rows]
    if suspected:
        # Odds are failures to successes: this many attempts are lost before one succeeds, and each has to be done elsewhere.
        times += numbers[ODDS, rows] * (float(times.min()) + LOST_WORKS * mean)


def quickest(
    times: Floats, starts: NDArrayInt, sizes: NDArrayInt, grid: NDArrayInt | None, best: NDArrayInt, least: Floats
) -> None:
    """Of each kind the place of the replica with the smallest of `times`, and that time."""
    if grid is not None:
        np.add(starts, times[grid].argmin(axis=1), out=best)
    else:
        best[:] = [a + times[a : a + size].argmin() for a, size in zip(starts, sizes, strict=True)]
    times.take(best, out=least, mode="clip")


def utility(
    means: Floats, costs: Floats, finish: Floats | None, terms: tuple[float, float, float, float], found: Floats
) -> None:
    """Quality minus price * cost, haste * completion, and `late` where completion is beyond `left`; that order of `terms`."""
    price, haste, late, left = terms
    np.subtract(means, costs * price, out=found)
    if finish is not None:
        found -= haste * finish
        found -= late * (finish > left)


def explore(
    values: Floats, widths: Floats, draws: Floats, at: tuple[float, float], probabilities: Floats
) -> tuple[int, int]:
    """(the kind that is taken, the best one); `draws`: so many numbers for each kind, `at`: floor and chance.

    The share of draws each kind wins, mixed with a uniform distribution of weight `floor`, goes to `probabilities`, and
    `chance`, uniform in 0..1, falls on a kind with exactly that probability.
    """
    floor, chance = at
    kinds = len(values)
    won = winners(values, widths, draws.reshape(-1, kinds))
    shares(won, kinds, floor, probabilities)
    return taken(won, kinds, floor, chance), int(values.argmax())
