"""Ridge: one linear model of quality for each kind, with full covariance; for tasks that come with numbers of their own.

Recursive least squares by the Sherman-Morrison identity: one update costs size^2 multiplications. Row 0 belongs to whoever is
new: it is never taught, and a row that is taught for the first time starts as its copy. Learning uses element-wise
arithmetic and sums in a fixed order only, no BLAS: two machines come to the same bits. Newcomers are expected to be as good
as everybody's outcomes so far, with the full width of the prior.
"""

from __future__ import annotations

import msgspec
import numpy as np

from .features import Floats
from .snapshot import Array

NEWCOMER = 0
NEWCOMER_PRIOR = 10.0
"""Outcomes of quality 0 that the newcomer's expectation starts with."""


_total = np.add.reduce
"""What `sum` does, without its wrapper."""


class RidgeState(msgspec.Struct, frozen=True):
    inverse: Array
    weights: Array
    seen: float


class Ridge:
    """Expected quality and its standard deviation (in units of the noise) by row, given an encoded vector."""

    def __init__(self, size: int, *, penalty: float = 1.0, forgetting: float = 1.0) -> None:
        self._size = size
        self._forgetting = forgetting
        self._widest = size / penalty
        self._seen = NEWCOMER_PRIOR
        self._used = 1
        self._inverse = np.eye(size)[None] / penalty
        self._weights = np.zeros((1, size))
        self._square = np.empty((size, size))

    @property
    def rows(self) -> int:
        return self._used

    def grow(self, rows: int) -> None:
        """Make room for `rows` rows; those that are new know nothing."""
        missing = rows - len(self._weights)
        if missing > 0:
            room = max(missing, len(self._weights) // 8)
            self._inverse = np.concatenate([self._inverse, np.repeat(self._inverse[:1], room, axis=0)])
            self._weights = np.concatenate([self._weights, np.zeros((room, self._size))])
        self._weights[self._used : rows] = self._weights[NEWCOMER]
        self._used = max(self._used, rows)

    def copy(self, start: int, to: int, widened: float) -> None:
        """Row `to` takes over what row `start` believes, with its variances multiplied by `widened`."""
        self._weights[to] = self._weights[start]
        self._inverse[to] = self._inverse[start] * widened

    def predict(self, rows: NDArrayInt | slice, encoded: Floats) -> tuple[Floats, Floats]:
        """(means, standard deviations) of these rows."""
        spread = (self._inverse[rows] @ encoded) @ encoded
        np.maximum(spread, 0.0, out=spread)
        return self._weights[rows] @ encoded, np.sqrt(spread, out=spread)

    def learn(self, row: int, encoded: Floats, quality: float) -> None:
        """Take in one outcome."""
        inverse, weights, square = self._inverse[row], self._weights[row], self._square
        np.multiply(inverse, encoded, out=square)
        gain: Floats = _total(square, axis=1)
        scale = 1.0 / (1.0 + float(_total(encoded * gain)))
        np.multiply(gain[:, None], gain * scale, out=square)
        inverse -= square
        weights += gain * (scale * (quality - float(_total(weights * encoded))))
        self._seen += 1.0
        self._weights[NEWCOMER, -1] += (quality - self._weights[NEWCOMER, -1]) / self._seen
        if self._forgetting < 1.0:
            self.widen(row, 1.0 / self._forgetting)

    def widen(self, row: int, times: float) -> None:
        """Multiply the row's variances, at most to what a newcomer's are on average."""
        inverse = self._inverse[row]
        now = float(inverse.diagonal().sum())
        inverse *= max(1.0, min(times, self._widest / now))

    def forget_all(self) -> None:
        """Start again with the same rows."""
        self._inverse[1:] = self._inverse[0]
        self._weights[1:] = self._weights[0]

    def state(self) -> RidgeState:
        return RidgeState(Array.of(self._inverse[: self._used]), Array.of(self._weights[: self._used]), self._seen)

    @classmethod
    def of(cls, state: RidgeState, forgetting: float = 1.0) -> Ridge:
        """The same model. Raises ValueError when the arrays do not belong together."""
        weights = state.weights.values()
        made = cls(weights.shape[1], forgetting=forgetting)
        made._seen = state.seen
        made._inverse = state.inverse.values()
        made._weights = weights
        made._used = len(weights)
        if made._inverse.shape != (len(weights), weights.shape[1], weights.shape[1]):
            raise ValueError("inverse and weights of a ridge do not belong together")
        return made


def together(rows: NDArrayInt) -> NDArrayInt | slice:
    """The rows as a slice where they follow each other: that reads in place instead of copying."""
    first, size = int(rows[0]), len(rows)
    if int(rows[-1]) - first == size - 1 and bool((rows[1:] - rows[:-1] == 1).all()):
        return slice(first, first + size)
    return rows


NDArrayInt = np.ndarray[tuple[int], np.dtype[np.intp]]
