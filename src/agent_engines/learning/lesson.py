"""A lesson: what one ended task teaches about a kind of agent; small, self-contained, fit to travel in a stream."""

from __future__ import annotations

import math

import msgspec


class Lesson(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`quality` is 0..1 and an error counts as 0. `raw` and `confidence` are what the decision predicted, before and after calibration.

    `features` are the caller's own numbers (scaling is learned), `cost` in the caller's unit of money, `seconds` of service.
    `parent`: the kind whose experience a kind that is new here starts from. `id` is for whoever keeps the sequence: `Values`
    takes every lesson it is given, so duplicates must be dropped before (same id, or a sequence number already applied).
    """

    kind: str
    quality: float
    id: str = ""
    task_type: str = ""
    features: tuple[float, ...] | None = None
    raw: float | None = None
    confidence: float | None = None
    cost: float | None = None
    seconds: float | None = None
    parent: str | None = None

    def check(self) -> None:
        """Raises ValueError naming the field that cannot be used."""
        if not self.kind:
            raise ValueError("kind is empty: a lesson is about a kind of agent")
        if not 0.0 <= self.quality <= 1.0:
            raise ValueError(f"quality is {self.quality}, it must be from 0 to 1")
        # One by one, without a loop over names: every outcome passes here.
        if self.raw is not None and not 0.0 <= self.raw <= 1.0:
            raise ValueError(f"raw is {self.raw}, it must be from 0 to 1")
        if self.confidence is not None and not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence is {self.confidence}, it must be from 0 to 1")
        if self.cost is not None and not 0.0 <= self.cost < math.inf:
            raise ValueError(f"cost is {self.cost}, it must be a finite number from 0 up")
        if self.seconds is not None and not 0.0 <= self.seconds < math.inf:
            raise ValueError(f"seconds is {self.seconds}, it must be a finite number from 0 up")
        # A finite sum has finite terms only; where it is not, one of them is at fault or the sum itself was too large.
        features = self.features
        if features and not math.isfinite(sum(features)) and not all(map(math.isfinite, features)):
            place = next(place for place, value in enumerate(features) if not math.isfinite(value))
            raise ValueError(f"features[{place}] is not a finite number")
