"""How a measurement is laid out: which loads, for how long, when each task of an open loop is due, what a payload is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

SHARES_OF_PROBE = 8
"""What of its time a burst may spend on finding its size: a part in so many."""
MOST_OUTSTANDING = 10_000
"""Tasks that are accepted and have not ended, at any time: a bench measures a system, it does not bury it."""
MOST_RATE = 20_000.0
FIRST_PROBE = 200
SMALLEST_PAYLOAD = len(b'{"n":"000000000000","pad":""}')


class Shape(StrEnum):
    """The loads, in the order they are put on."""

    LONE = "lone"
    """One task outstanding."""
    CROWD = "crowd"
    """So many callers, each submitting its next task when its last has ended."""
    BURST = "burst"
    """Everything at once."""
    OPEN = "open"
    """At a rate, whatever comes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`seconds`: for sending, altogether; `tasks` of the burst, None: what fits; `rate` of the open loop, None: none."""

    seconds: float = 15.0
    outstanding: int = 32
    tasks: int | None = None
    rate: float | None = None

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(shape for shape in Shape if shape is not Shape.OPEN or self.rate is not None)

    @property
    def share(self) -> float:
        """Seconds that each load may send."""
        return self.seconds / len(self.shapes)


def due_after(number: int, rate: float) -> float:
    """Seconds from the beginning of an open loop until its task `number`, counted from 0, is due."""
    return number / rate


def due_within(seconds: float, rate: float) -> int:
    """How many tasks are due before `seconds` have passed."""
    count = max(0, math.ceil(seconds * rate))
    # Multiplied and divided, a number may come out a hair on the wrong side of itself.
    while count and due_after(count - 1, rate) >= seconds:
        count -= 1
    while due_after(count, rate) < seconds:
        count += 1
    return count


def fitting(tasks: int, took: float, seconds: float, *, most: int = MOST_OUTSTANDING) -> int:
    """How many tasks take about `seconds` where `tasks` took `took` seconds; at least one, in round numbers from 1,000."""
    wanted = min(float(most), tasks / took * seconds) if took > 0 else float(most)
    return max(1, int(wanted) if wanted < 1000 else int(wanted) // 100 * 100)


def payload(number: int, size: int) -> dict[str, Any]:
    """An object of `size` bytes as JSON, another for each of a trillion numbers; at least SMALLEST_PAYLOAD."""
    return {"n": f"{number:012d}", "pad": "x" * (size - SMALLEST_PAYLOAD)}


def size_of(value: Any) -> int:
    """Bytes of it as JSON."""
    return len(msgspec.json.encode(value))
