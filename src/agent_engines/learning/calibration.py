"""Calibration: the expected quality of the one that was chosen, turned into a probability that holds; learned online.

Two steps, both from outcomes of choices only, so what choosing the best-looking one does to its prediction is corrected too:
a line through (prediction, outcome) with slow forgetting, shrunk towards the identity; then the mean of what is still wrong
in the neighbourhood of this prediction, over about its last three hundred outcomes. Sums and products in a fixed order only.
"""

from __future__ import annotations

import msgspec

EDGE = 1e-3
"""Probabilities are kept this far from 0 and 1: nobody is certain."""
MOST = 1.0 - EDGE
KEEP = 0.997
"""Weight that the line keeps of what it knew, per outcome."""
PRIOR_VARIANCE = 0.05
"""Of slope and shift: how far from the identity the line is expected to be."""
NOISE = 0.15
"""Variance of one outcome."""
CELLS = 20
"""Neighbourhoods: overlapping triangles, one around each of 0, 1/CELLS, ... 1."""
LOCAL_KEEP = 0.997
LOCAL_PRIOR = 12.0
"""Outcomes without an error that every neighbourhood starts with."""


class CalibrationState(msgspec.Struct, frozen=True):
    slope: float
    shift: float
    covariance: tuple[float, float, float]
    errors: tuple[float, ...]
    counts: tuple[float, ...]


class Calibration:
    """Starts as the identity and follows the outcomes."""

    __slots__ = ("_counts", "_covariance", "_errors", "_shift", "_slope")

    def __init__(self) -> None:
        self._slope, self._shift = 0.0, 0.0
        self._covariance = (PRIOR_VARIANCE, 0.0, PRIOR_VARIANCE)
        self._errors = [0.0] * (CELLS + 1)
        self._counts = [0.0] * (CELLS + 1)

    def __call__(self, raw: float) -> float:
        """The calibrated probability, within EDGE..1 - EDGE."""
        straight = self._line(raw)
        cell = int(straight * CELLS)
        right = straight * CELLS - cell
        left = 1.0 - right
        error = left * self._errors[cell] + right * self._errors[cell + 1]
        count = left * self._counts[cell] + right * self._counts[cell + 1]
        return _inside(straight + error / (count + LOCAL_PRIOR))

    def learn(self, raw: float, outcome: float) -> None:
        """`outcome`: 0..1, of a choice that was predicted `raw`."""
        straight = self._line(raw)
        error = outcome - straight
        cell = int(straight * CELLS)
        right = straight * CELLS - cell
        left = 1.0 - right
        errors, counts = self._errors, self._counts
        keep = 1.0 - (1.0 - LOCAL_KEEP) * left
        errors[cell] = errors[cell] * keep + left * error
        counts[cell] = counts[cell] * keep + left
        keep = 1.0 - (1.0 - LOCAL_KEEP) * right
        errors[cell + 1] = errors[cell + 1] * keep + right * error
        counts[cell + 1] = counts[cell + 1] * keep + right
        self._learn_line(raw - 0.5, error)

    def _line(self, raw: float) -> float:
        return _inside(raw + self._slope * (raw - 0.5) + self._shift)

    def _learn_line(self, x: float, error: float) -> None:
        """Recursive least squares for error = slope * x + shift; what is known never gets vaguer than at the start."""
        a, b, c = self._covariance
        gain_slope, gain_shift = a * x + b, b * x + c
        scale = 1.0 / (NOISE + x * gain_slope + gain_shift)
        a, b, c = (
            a - gain_slope * gain_slope * scale,
            b - gain_slope * gain_shift * scale,
            c - gain_shift * gain_shift * scale,
        )
        self._slope += (a * x + b) * error / NOISE
        self._shift += (b * x + c) * error / NOISE
        if a + c < 2.0 * PRIOR_VARIANCE:
            a, b, c = a / KEEP, b / KEEP, c / KEEP
        self._covariance = (a, b, c)

    def state(self) -> CalibrationState:
        return CalibrationState(self._slope, self._shift, self._covariance, tuple(self._errors), tuple(self._counts))

    @classmethod
    def of(cls, state: CalibrationState) -> Calibration:
        """The same calibration. Raises ValueError when the number of cells is another one."""
        if len(state.errors) != CELLS + 1 or len(state.counts) != CELLS + 1:
            raise ValueError(f"a calibration has {CELLS + 1} cells, not {len(state.errors)}")
        made = cls()
        made._slope, made._shift, made._covariance = state.slope, state.shift, state.covariance
        made._errors, made._counts = list(state.errors), list(state.counts)
        return made


def _inside(value: float) -> float:
    return EDGE if value < EDGE else MOST if value > MOST else value
