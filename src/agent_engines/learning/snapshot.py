"""Snapshots: numbers and arrays as bytes, the same bytes for the same state."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

FORMAT = 3
READABLE = (1, 2, FORMAT)
"""Format 1 kept whole squares of covariance and summed in another order, format 2 had other sums against drift: both are read."""


class Array(msgspec.Struct, frozen=True):
    """An array of float64 as it travels: little-endian bytes, rows first."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, values: np.ndarray[Any, np.dtype[np.float64]]) -> Array:
        return cls(values.shape, np.ascontiguousarray(values, dtype="<f8").tobytes())

    def values(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """A writable copy. Raises ValueError when shape and bytes do not belong together."""
        return np.frombuffer(self.data, dtype="<f8").reshape(self.shape).astype(np.float64)
