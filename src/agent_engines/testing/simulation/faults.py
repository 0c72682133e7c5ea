"""Faults: how bad the weather is, and which misfortunes strike when; all drawn from the seed.

Each seed switches each kind on or off by itself (swarm testing), so that rare combinations are not drowned by common ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from random import Random


class Fate(Enum):
    """What becomes of one request."""

    SERVED = "served"
    REQUEST_LOST = "request lost"
    """Never executed; the caller's deadline passes."""
    REPLY_LOST = "reply lost"
    """Executed; the caller's deadline passes all the same."""
    LATE = "late"
    """Executed, but slower than the caller's patience."""


class Strike(StrEnum):
    """One misfortune of the schedule."""

    CRASH = "crash"
    FREEZE = "freeze"
    BROKER_DOWN = "broker-down"
    BROKER_ELECTION = "broker-election"
    BROKER_FORGETS_IDS = "broker-forgets-ids"
    BROKER_POWER = "broker-power"
    LEDGER_DOWN = "ledger-down"
    CUT_BROKER = "cut-broker"
    CUT_LEDGER = "cut-ledger"
    DRAIN = "drain"


@dataclass(slots=True)
class Weather:
    """Probabilities for each request and signal while faults last."""

    lost_requests: float = 0.0
    lost_replies: float = 0.0
    late: float = 0.0
    lost_signals: float = 0.0
    lost_acks: float = 0.0
    late_seconds: float = 6.0

    @classmethod
    def of(cls, rng: Random) -> Weather:
        def maybe(most: float) -> float:
            return rng.random() * most if rng.random() < 0.5 else 0.0

        return cls(maybe(0.05), maybe(0.08), maybe(0.05), maybe(0.5), maybe(0.3), 1.0 + 9.0 * rng.random())

    def fate(self, rng: Random) -> Fate:
        chance = rng.random()
        if chance < self.lost_requests:
            return Fate.REQUEST_LOST
        chance -= self.lost_requests
        if chance < self.lost_replies:
            return Fate.REPLY_LOST
        return Fate.LATE if chance - self.lost_replies < self.late else Fate.SERVED


CLEAR = Weather()


@dataclass(frozen=True, slots=True)
class Misfortune:
    """`target` picks a process (modulo their number); `seconds` is how long it lasts."""

    at: float
    strike: Strike
    target: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that will go wrong in one run. After `until` seconds all is well."""

    weather: Weather
    misfortunes: tuple[Misfortune, ...]
    until: float
    kinds: tuple[Strike, ...] = field(default=())

    @classmethod
    def of(cls, rng: Random, *, lease: float, until: float) -> Plan:
        """About half of the kinds, up to a dozen strikes; freezes and cuts are often longer than a lease."""
        weather = Weather.of(rng)
        kinds = tuple(strike for strike in Strike if rng.random() < 0.5)
        misfortunes: list[Misfortune] = []
        for _ in range(rng.randrange(13) if kinds else 0):
            long = rng.random() < 0.4
            seconds = lease * (1.0 + 1.5 * rng.random()) if long else 0.2 + 3.0 * rng.random()
            misfortunes.append(
                Misfortune(rng.random() * until, rng.choice(kinds), rng.randrange(1 << 16), min(seconds, until / 2))
            )
        misfortunes.sort(key=lambda one: one.at)
        return cls(weather, tuple(misfortunes), until, kinds)


CALM = Plan(CLEAR, (), 0.0)
