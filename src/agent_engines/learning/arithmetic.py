"""Arithmetic of decisions and lessons on arrays, in numpy: what `kernel` falls back to where `_kernel.c` was not compiled.

Both have the same functions. What a lesson leaves behind (`encode`, `ridge_learn`, `table_learn`) has the same bits in both and on every
machine: products are element by element, sums go in the order of the index, nothing is fused, no BLAS. What a decision reads
(`ridge_predict`) may differ in the last bits. Rows are an index array, or a slice where they follow each other.

A *belief* is one row of a ridge: the upper triangle of its covariance, row after row, then its weights.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats, NDArrayInt, Rows, how_many
from .exploration import shares, taken, winners

VERSION = 4
"""Goes up with every change of a function here: a kernel that was compiled from another one is not used."""
CELL_PRIOR = 15.0
"""Outcomes a cell of the table needs until its own mean weighs as much as what it borrows."""
KIND_PRIOR = 4.0
TYPE_PRIOR = 5.0
FLIGHT, SLOWNESS, PACE, WAIT, ODDS, SILENCE = range(6)
"""What is known of each replica, line by line: see load.py."""
LOST_WORKS = 5.0
"""Mean tasks' time that a failure costs beside the attempt itself."""

Fleet: TypeAlias = tuple[Floats, Rows, NDArrayInt, NDArrayInt, NDArrayInt | None]
"""Cost of each kind, its replicas in the load model, first and number of each kind's in there, and the grid of candidates.py."""
Terms: TypeAlias = tuple[float, float, float, float, float, float, float, float, float, float]
"""Work of this task and of the mean one, whether anybody is silent and whether suspected (not 0: yes), price, haste, what being
late costs, seconds left, floor of the probabilities, and a number from 0 to 1 that falls on the kind that is taken."""

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


def weigh(
    believed: tuple[Floats, Floats],
    fleet: Fleet,
    numbers: Floats | None,
    terms: Terms,
    draws: Floats,
    best: NDArrayInt,
    room: Floats,
) -> tuple[int, int, float, float, float]:
    """One decision: (the kind that is taken, the one of the greatest utility, and of the first its expected quality, the seconds until
    it would be done, 0 without `numbers`, and the probability it was taken with).

    `believed`: expected quality of each kind and its standard deviation. `numbers`: of all replicas, line by line (see load.py);
    None where nothing is known of time. `draws`: so many numbers for each kind.

    Written to `room`, a line each with one number for each kind: seconds until its best replica would be done (only with
    `numbers`), its utility, the probability it was taken with. Of kinds with several replicas `best` says which one that is.
    """
    work, mean, silent, suspected, price, haste, late, left, floor, chance = terms
    means, widths = believed
    costs, rows, starts, sizes, grid = fleet
    finish, worth, probabilities = room
    np.subtract(means, costs * price, out=worth)
    if numbers is not None:
        if how_many(rows) == len(means):
            _complete(numbers, rows, (work, mean), (silent, suspected), finish)
        else:
            times = np.empty(how_many(rows))
            _complete(numbers, rows, (work, mean), (silent, suspected), times)
            if grid is not None:
                np.add(starts, times[grid].argmin(axis=1), out=best)
            else:
                best[:] = [a + times[a : a + size].argmin() for a, size in zip(starts, sizes, strict=True)]
            times.take(best, out=finish, mode="clip")
        worth -= haste * finish
        worth -= late * (finish > left)
    kinds = len(means)
    if kinds == 1:
        kind, probabilities[0] = 0, 1.0
    else:
        won = winners(worth, widths, draws.reshape(-1, kinds))
        shares(won, kinds, floor, probabilities)
        kind = taken(won, kinds, floor, chance)
    seconds = 0.0 if numbers is None else float(finish[kind])
    return kind, int(worth.argmax()), float(means[kind]), seconds, float(probabilities[kind])


def _complete(
    numbers: Floats, rows: Rows, works: tuple[float, float], told: tuple[float, float], times: Floats
) -> None:
    """Seconds until each would be done. `works`: of this task and of the mean one; `told`: whether anybody is silent, suspected."""
    work, mean = works
    silent, suspected = told
    np.multiply(numbers[PACE, rows], work, out=times)
    times += numbers[WAIT, rows] * mean
    if silent:
        times += numbers[SILENCE, rows]
    if suspected:
        # Odds are failures to successes: this many attempts are lost before one succeeds, and each has to be done elsewhere.
        times += numbers[ODDS, rows] * (float(times.min()) + LOST_WORKS * mean)
