"""Intercepts: mean quality of each kind for each task type, shrunk towards the kind's and the type's own means.

For tasks that come without numbers. An empirical-Bayes table: a type nobody did yet borrows from the kind, a kind nobody
knows borrows from the others, and every cell moves to its own mean as its outcomes come in. Row 0 belongs to whoever is
new and is never taught.
"""

from __future__ import annotations

import msgspec
import numpy as np

from .arithmetic import CELL_PRIOR, KIND_PRIOR
from .arrays import Floats, Rows, how_many
from .kernel import table_learn, table_predict
from .snapshot import Array

FIRST_GUESS = 0.85
GUESS_WEIGHT = 2.0
MOST_TYPES = 1024
"""Task types with cells of their own; the one that was not taught for the longest time makes room."""
NOISE, NOISE_WEIGHT = 0.15, 30.0
"""Variance of one outcome, and how many outcomes it counts for: a first run of equal ones must not look like certainty."""


class CellsState(msgspec.Struct, frozen=True):
    """`rows`: counts, sums and 1 / (count + prior), one column for each row of the table."""

    rows: Array
    totals: tuple[float, float]


class InterceptsState(msgspec.Struct, frozen=True):
    types: dict[str, CellsState]
    every: CellsState
    squares: float


class Cells:
    """Outcome counts and quality sums by row, their totals, and the inverses of the counts with their prior."""

    __slots__ = ("prior", "rows", "totals")

    def __init__(self, rows: int, prior: float) -> None:
        self.prior = prior
        self.rows = np.zeros((3, rows))
        self.rows[2] = 1.0 / prior
        self.totals = (0.0, 0.0)

    def grow(self, rows: int) -> None:
        missing = rows - self.rows.shape[1]
        if missing > 0:
            self.rows = np.concatenate([self.rows, Cells(missing, self.prior).rows], axis=1)

    def learn(self, row: int, quality: float, keep: float) -> None:
        more, better = table_learn(self.rows, row, quality, keep, self.prior)
        self.totals = (self.totals[0] + more, self.totals[1] + better)

    def widen(self, row: int, times: float) -> None:
        """Keep the mean, and `times` less of the weight."""
        count, total = float(self.rows[0, row]), float(self.rows[1, row])
        self.rows[:2, row] /= times
        self.rows[2, row] = 1.0 / (count / times + self.prior)
        lost = 1.0 - 1.0 / times
        self.totals = (self.totals[0] - count * lost, self.totals[1] - total * lost)

    def adopt(self, row: int, parent: int, times: float) -> None:
        """An untaught row takes over the parent's mean, with `times` less of its weight."""
        count, total = float(self.rows[0, parent]) / times, float(self.rows[1, parent]) / times
        self.rows[:, row] = count, total, 1.0 / (count + self.prior)
        self.totals = (self.totals[0] + count, self.totals[1] + total)

    def state(self) -> CellsState:
        return CellsState(Array.of(self.rows), self.totals)

    @classmethod
    def of(cls, state: CellsState, prior: float) -> Cells:
        made = cls(0, prior)
        made.rows, made.totals = state.rows.values(), state.totals
        return made


class Intercepts:
    """Expected quality and its standard deviation by row, given a task type. `forgetting`: weight kept per outcome."""

    def __init__(self, *, forgetting: float = 1.0) -> None:
        self._forgetting = forgetting
        self._all = Cells(1, KIND_PRIOR)
        self._types: dict[str, Cells] = {}
        self._squares = 0.0

    @property
    def rows(self) -> int:
        return self._all.rows.shape[1]

    def grow(self, rows: int) -> None:
        """Make room for `rows` rows; those that are new know nothing."""
        self._all.grow(rows)
        for cells in self._types.values():
            cells.grow(rows)

    def predict(self, rows: Rows, task_type: str) -> tuple[Floats, Floats]:
        """(means, standard deviations) of these rows."""
        total, every = self._all.totals
        pool = (every + FIRST_GUESS * GUESS_WEIGHT) / (total + GUESS_WEIGHT)
        noise = (max(self._squares - total * pool * pool, 0.0) + NOISE * NOISE_WEIGHT) / (total + NOISE_WEIGHT)
        known = self._types.get(task_type)
        count = how_many(rows)
        means, widths = np.empty(count), np.empty(count)
        table_predict(self._all.rows, None if known is None else known.rows, rows, (pool, noise), means, widths)
        return means, widths

    def learn(self, row: int, task_type: str, quality: float) -> None:
        """Take in one outcome."""
        cells = self._types.pop(task_type, None)
        if cells is None:
            cells = Cells(self.rows, CELL_PRIOR)
            if len(self._types) >= MOST_TYPES:
                del self._types[next(iter(self._types))]
        self._types[task_type] = cells
        keep = self._forgetting
        cells.learn(row, quality, keep)
        self._all.learn(row, quality, keep)
        self._squares = self._squares * keep + quality * quality

    def adopt(self, row: int, parent: int, times: float) -> None:
        """A row that was never taught starts from what is believed of `parent`, with `times` the variance."""
        total = self._all.totals[0]
        for cells in (self._all, *self._types.values()):
            cells.adopt(row, parent, times)
        if total > 0.0:
            # Outcomes nobody had: they are as scattered as those there were.
            self._squares *= self._all.totals[0] / total

    def widen(self, row: int, times: float) -> None:
        """Believe as before of this row, with `times` the variance."""
        for cells in (self._all, *self._types.values()):
            cells.widen(row, times)

    def state(self) -> InterceptsState:
        types = {name: cells.state() for name, cells in self._types.items()}
        return InterceptsState(types, self._all.state(), self._squares)

    def load(self, state: InterceptsState) -> None:
        self._types = {name: Cells.of(cells, CELL_PRIOR) for name, cells in state.types.items()}
        self._all = Cells.of(state.every, KIND_PRIOR)
        self._squares = state.squares
