"""Features: what a learner sees of a task, as numbers of about unit size whatever the caller's units were.

numeric features -> centred and scaled by what was seen at warm-up -> clipped -> length of the vector fixed -> 1 appended
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from .arrays import Floats
from .kernel import all_finite, encode
from .snapshot import Array

LENGTH = 3.0
"""Euclidean length of a typical encoded vector: with it one exploration width fits sets of 18 to 74 columns (ADR 0016)."""
CLIP = 4.0
"""Standard deviations beyond which a value is an outlier."""
WARM_UP = (30, 120)
"""Tasks after which the scale is fixed for good; what was learned before is learned again with it."""


class ScaleState(msgspec.Struct, frozen=True):
    """`arrays`: mean, squares, centre, factor, one row each."""

    seen: int
    arrays: Array


class Scale:
    """Running centre and spread of one family of feature vectors; frozen after WARM_UP. Told by lessons, never by decisions."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._seen = 0
        self._mean = np.zeros(size)
        self._squares = np.ones(size)
        self._limit = CLIP * LENGTH / math.sqrt(size)
        self._scale = np.stack([np.zeros(size), np.ones(size)])

    @property
    def frozen(self) -> bool:
        return self._seen >= WARM_UP[-1]

    def see(self, given: Floats | tuple[float, ...]) -> bool:
        """Take one vector into account; True when the scale was fixed anew by it."""
        if self._seen >= WARM_UP[-1]:
            return False
        self._seen += 1
        raw = np.asarray(given)
        step = raw - self._mean
        self._mean += step / self._seen
        self._squares += step * (raw - self._mean)
        if self._seen != 2 and self._seen not in WARM_UP:
            return False
        self._scale[0] = self._mean
        self._scale[1] = (LENGTH / math.sqrt(self.size)) / np.sqrt(self._squares / self._seen + 1e-6)
        return True

    def encode(self, raw: Floats | tuple[float, ...]) -> Floats:
        """The vector a learner sees: `size` numbers and a 1."""
        encoded = np.empty(self.size + 1)
        encode(raw, self._scale, self._limit, encoded)
        return encoded

    def state(self) -> ScaleState:
        arrays = np.stack([self._mean, self._squares, *self._scale])
        return ScaleState(self._seen, Array.of(arrays))

    @classmethod
    def of(cls, state: ScaleState) -> Scale:
        arrays = state.arrays.values()
        made = cls(arrays.shape[1])
        made._seen = state.seen
        made._mean, made._squares, made._scale = arrays[0].copy(), arrays[1].copy(), arrays[2:].copy()
        return made


def checked(features: object) -> Floats | None:
    """A finite float vector, or None when there is none. Raises ValueError naming what is wrong."""
    if features is None:
        return None
    try:
        raw = np.asarray(features, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise ValueError(f"features must be a flat list of numbers: {error}") from None
    if raw.ndim != 1:
        raise ValueError(f"features must be a flat list of numbers, not {raw.ndim}-dimensional")
    if raw.size == 0:
        return None
    if not all_finite(raw):
        raise ValueError(f"features[{int(np.flatnonzero(~np.isfinite(raw))[0])}] is not a finite number")
    return raw
