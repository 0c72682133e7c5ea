"""Ridge: one linear model of quality for each kind, with full covariance; for tasks that come with numbers of their own.

Recursive least squares by the Sherman-Morrison identity (arithmetic.py); a covariance is kept by its upper triangle, half the
memory of the square. Row 0 belongs to whoever is new: it is never taught, and a row that is taught for the first time starts
as its copy. Learning sums in a fixed order: two machines come to the same bits. Newcomers are expected to be as good as
everybody's outcomes so far, with the full width of the prior.
"""

from __future__ import annotations

import msgspec
import numpy as np

from .arithmetic import triangle
from .arrays import Floats, Rows, how_many
from .kernel import ridge_learn, ridge_predict
from .snapshot import Array

NEWCOMER = 0
NEWCOMER_PRIOR = 10.0
"""Outcomes of quality 0 that the newcomer's expectation starts with."""


class RidgeState(msgspec.Struct, frozen=True):
    """`inverse`: a row of packed covariance each; format 1 wrote whole squares."""

    inverse: Array
    weights: Array
    seen: float


class Ridge:
    """Expected quality and its standard deviation (in units of the noise) by row, given an encoded vector."""

    def __init__(self, size: int, *, penalty: float = 1.0, forgetting: float = 1.0) -> None:
        self._size = size
        self._packed = size * (size + 1) // 2
        self._forgetting = forgetting
        self._widest = size / penalty
        self._seen = NEWCOMER_PRIOR
        self._used = 1
        self._beliefs = np.zeros((1, self._packed + size))
        self._beliefs[0, triangle(size).diagonal] = 1.0 / penalty

    @property
    def rows(self) -> int:
        return self._used

    def grow(self, rows: int) -> None:
        """Make room for `rows` rows; those that are new know nothing."""
        missing = rows - len(self._beliefs)
        if missing > 0:
            room = max(missing, len(self._beliefs) // 8)
            self._beliefs = np.concatenate([self._beliefs, np.repeat(self._beliefs[:1], room, axis=0)])
        self._beliefs[self._used : rows] = self._beliefs[NEWCOMER]
        self._used = max(self._used, rows)

    def copy(self, start: int, to: int, widened: float) -> None:
        """Row `to` takes over what row `start` believes, with its variances multiplied by `widened`."""
        self._beliefs[to] = self._beliefs[start]
        self._beliefs[to, : self._packed] *= widened

    def predict(self, rows: Rows, encoded: Floats, width: float = 1.0) -> tuple[Floats, Floats]:
        """(means, `width` times the standard deviations) of these rows."""
        count = how_many(rows)
        means, widths = np.empty(count), np.empty(count)
        ridge_predict(self._beliefs, rows, encoded, width, means, widths)
        return means, widths

    def learn(self, row: int, encoded: Floats, quality: float) -> None:
        """Take in one outcome."""
        beliefs = self._beliefs
        ridge_learn(beliefs, row, encoded, quality)
        self._seen += 1.0
        mean = float(beliefs[NEWCOMER, -1])
        beliefs[NEWCOMER, -1] = mean + (quality - mean) / self._seen
        if self._forgetting < 1.0:
            self.widen(row, 1.0 / self._forgetting)

    def widen(self, row: int, times: float) -> None:
        """Multiply the row's variances, at most to what a newcomer's are on average."""
        inverse = self._beliefs[row, : self._packed]
        now = float(inverse[triangle(self._size).diagonal].sum())
        inverse *= max(1.0, min(times, self._widest / now))

    def forget_all(self) -> None:
        """Start again with the same rows."""
        self._beliefs[1:] = self._beliefs[NEWCOMER]

    def state(self) -> RidgeState:
        used = self._beliefs[: self._used]
        return RidgeState(Array.of(used[:, : self._packed]), Array.of(used[:, self._packed :]), self._seen)

    @classmethod
    def of(cls, state: RidgeState, forgetting: float = 1.0) -> Ridge:
        """The same model. Raises ValueError when the arrays do not belong together."""
        weights, inverse = state.weights.values(), state.inverse.values()
        if weights.ndim != 2:
            raise ValueError("weights of a ridge have a row for each kind")
        made = cls(weights.shape[1], forgetting=forgetting)
        if inverse.shape == (len(weights), made._size, made._size):
            upper = triangle(made._size)
            inverse = inverse[:, upper.rows, upper.columns]
        if inverse.shape != (len(weights), made._packed):
            raise ValueError("inverse and weights of a ridge do not belong together")
        made._seen = state.seen
        made._beliefs = np.concatenate([inverse, weights], axis=1)
        made._used = len(weights)
        return made
