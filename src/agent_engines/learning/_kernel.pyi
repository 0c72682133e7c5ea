from .arithmetic import Fleet, Terms
from .arrays import Floats, NDArrayInt, Rows

VERSION: int

def all_finite(raw: Floats, /) -> bool: ...
def encode(raw: Floats | tuple[float, ...], scale: Floats, limit: float, encoded: Floats, /) -> None: ...
def ridge_learn(beliefs: Floats, row: int, encoded: Floats, quality: float, /) -> None: ...
def ridge_predict(
    beliefs: Floats, rows: Rows, encoded: Floats, width: float, means: Floats, widths: Floats, /
) -> None: ...
def table_learn(cells: Floats, row: int, quality: float, keep: float, prior: float, /) -> tuple[float, float]: ...
def table_predict(
    every: Floats, cells: Floats | None, rows: Rows, shared: tuple[float, float], means: Floats, widths: Floats, /
) -> None: ...
def weigh(
    believed: tuple[Floats, Floats],
    fleet: Fleet,
    numbers: Floats | None,
    terms: Terms,
    draws: Floats,
    best: NDArrayInt,
    room: Floats,
    /,
) -> tuple[int, int, float, float, float]: ...
