"""A family: tasks of one type whose features have one length, with everything learned about kinds of agents on them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from .arrays import Floats, Rows, together
from .calibration import Calibration, CalibrationState
from .features import Scale, ScaleState
from .ridge import NEWCOMER, Ridge, RidgeState
from .snapshot import Array

CHILD_VARIANCE = 4.0
"""A new version of a kind starts from its parent's weights, with variances this many times as wide."""


class Kept(msgspec.Struct, frozen=True):
    """A lesson of the warm-up, learned again whenever the scale moves."""

    features: Array
    row: int
    quality: float


class FamilyState(msgspec.Struct, frozen=True):
    task_type: str
    scale: ScaleState
    model: RidgeState
    places: Array
    kept: tuple[Kept, ...]
    calibration: CalibrationState


class Family:
    """One ridge; `places` says which of its rows belongs to which kind, 0 to those it never saw."""

    def __init__(self, task_type: str, size: int, forgetting: float = 1.0) -> None:
        self.task_type = task_type
        self.scale = Scale(size)
        self.model = Ridge(size + 1, forgetting=forgetting)
        self.calibration = Calibration()
        self._places = np.zeros(1, dtype=np.intp)
        self._asked: tuple[Any, Any, Rows] = (None, None, slice(0, 0))
        self._kept: list[tuple[Floats, int, float]] = []

    def grow(self, kinds: int) -> None:
        """Make room for kinds with numbers under `kinds`."""
        missing = kinds - len(self._places)
        if missing > 0:
            self._places = np.concatenate([self._places, np.zeros(missing, dtype=np.intp)])

    def predict(self, kinds: Rows, raw: Floats, width: float) -> tuple[Floats, Floats]:
        """(means, standard deviations times `width`) of these kinds."""
        return self.model.predict(self._part(kinds), self.scale.encode(raw), width)

    def _part(self, kinds: Rows) -> Rows:
        """The model's rows of these kinds, kept while the same kinds are asked for."""
        asked, places, part = self._asked
        if asked is not kinds or places is not self._places:
            part = together(self._places[kinds])
            self._asked = (kinds, self._places, part)
        return part

    def adopt(self, kind: int, parent: int) -> None:
        """A kind that is new here starts from what is believed of `parent`."""
        if self._places[kind] == NEWCOMER and self._places[parent] != NEWCOMER:
            self.model.copy(int(self._places[parent]), self._row(kind), CHILD_VARIANCE)

    def learn(self, kind: int, raw: Floats | tuple[float, ...], quality: float) -> None:
        """Take in one outcome of `kind`."""
        if self.scale.see(raw):
            self._learn_again()
        row = int(self._places[kind]) or self._row(kind)
        self.model.learn(row, self.scale.encode(raw), quality)
        if not self.scale.frozen:
            self._kept.append((np.array(raw), row, quality))

    def widen(self, kind: int, times: float) -> None:
        """Believe as before of this kind, with `times` the variance."""
        if kind < len(self._places) and self._places[kind] != NEWCOMER:
            self.model.widen(int(self._places[kind]), times)

    def _row(self, kind: int) -> int:
        row = int(self._places[kind])
        if row == NEWCOMER:
            row = self.model.rows
            self._places = self._places.copy()
            self._places[kind] = row
            self.model.grow(row + 1)
        return int(row)

    def _learn_again(self) -> None:
        self.model.forget_all()
        for before, row, quality in self._kept:
            self.model.learn(row, self.scale.encode(before), quality)
        if self.scale.frozen:
            self._kept.clear()

    def state(self) -> FamilyState:
        kept = tuple(Kept(Array.of(raw), row, quality) for raw, row, quality in self._kept)
        places = Array.of(self._places.astype(np.float64))
        return FamilyState(
            self.task_type, self.scale.state(), self.model.state(), places, kept, self.calibration.state()
        )

    @classmethod
    def of(cls, state: FamilyState, forgetting: float = 1.0) -> Family:
        """The same family. Raises ValueError when its parts do not belong together."""
        scale = Scale.of(state.scale)
        made = cls(state.task_type, scale.size)
        made.scale, made.model = scale, Ridge.of(state.model, forgetting)
        made._places = state.places.values().astype(np.intp)
        made._kept = [(one.features.values(), one.row, one.quality) for one in state.kept]
        made.calibration = Calibration.of(state.calibration)
        return made
