"""Arrays: what they are called, and which rows of one are meant."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
NDArrayInt: TypeAlias = np.ndarray[tuple[int], np.dtype[np.intp]]
Rows: TypeAlias = NDArrayInt | slice
"""Numbers of rows; a slice from start to stop where they follow each other: that reads in place instead of copying."""


def together(rows: NDArrayInt) -> Rows:
    """The rows as a slice where that can be."""
    first, size = int(rows[0]), len(rows)
    if int(rows[-1]) - first == size - 1 and bool((rows[1:] - rows[:-1] == 1).all()):
        return slice(first, first + size)
    return rows


def how_many(rows: Rows) -> int:
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)
