"""Load: when would one more task be done on this replica?

    completion = slowness * (work * (1 + CROWDING * in flight) + max(0, in flight + 1 - slots) / slots * mean work)

divided by the chance that it succeeds at all (`suspicion`). Latency is learned from reports and outcomes, never explored.
Work is in seconds on a nominal replica, so that long tasks do not look like slow replicas. What a decision reads lies in flat
arrays that every event keeps up to date; one decision costs a few operations on them.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from .arithmetic import FLIGHT, ODDS, PACE, SILENCE, SLOWNESS, WAIT
from .arrays import Floats, NDArrayInt
from .suspicion import Base, Suspicion

CROWDING = 0.03
FAST, SLOW = 0.3, 0.05
"""Weights of a new sample in the two moving averages of slowness; the larger one counts."""
USUAL = 100.0
"""Samples over which the usual slowness is averaged."""
CALM_SECONDS, FORGET_SECONDS = 5.0, 20.0
"""Without samples the fast average returns to the slow one within about the first time, the slow one to the usual within the second."""
ERROR_WEIGHT = 0.1
CONSECUTIVE = 3
ERROR_SHARE = 0.5
EJECT_SECONDS, EJECT_CAP_SECONDS = 5.0, 60.0
OPEN_DECISIONS = 100_000
"""Tasks without an outcome that are remembered; older ones no longer count as under way."""
SWEEP_SECONDS = 0.5
SILENT_SECONDS, SILENT_TIMES = 2.0, 2.0
"""A replica is silent when its last report is older than this and than this many times that of three quarters of the others."""
BUSY_SECONDS = 20.0
"""Time over which utilisation is averaged: a burst is no regime."""


class Sent(msgspec.Struct, frozen=True, gc=False):
    """A task under way: where to, the predictions it was sent with, when, and in how many seconds it should be back."""

    row: int
    raw: float
    confidence: float
    at: float
    seconds: float = 0.0


class Replica:
    """One replica's numbers."""

    __slots__ = (
        "counted", "ejections", "errors", "open", "out_until", "quick", "reported", "reported_at", "reports", "sampled_at", "samples",
        "sent",
        "slots", "steady", "streak", "usual",
    )  # fmt: skip

    def __init__(self) -> None:
        self.slots, self.quick, self.steady = 1.0, 1.0, 1.0
        self.reported, self.sent, self.reports = 0.0, 0.0, 0
        self.errors, self.streak, self.out_until, self.ejections = 0.0, 0, 0.0, 0
        self.usual, self.samples = 1.0, 0.0
        self.sampled_at, self.reported_at = 0.0, -math.inf
        self.counted = (0.0, 0.0)
        self.open: dict[str, tuple[Sent, int]] = {}
        """Tasks under way there, each with the number of reports that had come before it was sent."""


class Loads:
    """What is known about each replica; `routers`: how many deciders send to the same fleet."""

    def __init__(self, routers: int = 1) -> None:
        self._routers = float(max(1, routers))
        self._rows: dict[str, int] = {}
        self._replicas: list[Replica] = []
        self._numbers = np.zeros((6, 0))
        self._stale: set[int] = set()
        """Rows of it that are behind: a task that is sent and the report of it are brought in together."""
        self._mean_work = 1.0
        self._works = 0
        self._swept_at = -math.inf
        self._open: dict[str, Sent] = {}
        self._suspects: dict[int, Suspicion] = {}
        self._base = Base()
        self._silent = False
        self._slots, self._busy, self._utilisation = 0.0, 0.0, 0.0
        self._out_until = 0.0

    def row(self, agent: str) -> int:
        """The replica's row, made when it is new."""
        row = self._rows.get(agent)
        if row is None:
            row = self._rows[agent] = len(self._replicas)
            self._replicas.append(Replica())
            if row >= self._numbers.shape[1]:
                self._numbers = np.concatenate([self._numbers, np.zeros((6, max(16, row // 4)))], axis=1)
            self._stale.add(row)
        return row

    def slots(self, row: int, slots: float) -> None:
        self._replicas[row].slots = max(1.0, slots)
        self._stale.add(row)

    def at(self, now: float) -> Floats:
        """Every replica's numbers, line by line; to be read before anything else is told."""
        self._refresh()
        for row, suspicion in self._suspects.items():
            self._numbers[ODDS, row] = suspicion.odds(now)
        return self._numbers

    def terms(self, work: float | None) -> tuple[float, float, bool, bool]:
        """Of one more task of `work` seconds: its work and the mean one's, whether anybody is silent, and whether suspected."""
        mean = self._mean_work
        return (mean if work is None else work, mean, self._silent, bool(self._suspects))

    def predicted(self, task_id: str, row: int) -> float | None:
        """Seconds that were predicted for a task under way there; None when it is not, or nothing was predicted."""
        found = self._replicas[row].open.get(task_id)
        return found[0].seconds if found is not None and found[0].seconds > 0.0 else None

    def under_way(self, task_id: str) -> bool:
        """Whether it was sent to somebody and has not come back."""
        return task_id in self._open

    def utilisation(self) -> float:
        """Share of all slots that were taken over the last BUSY_SECONDS."""
        return self._utilisation

    def flight(self, rows: NDArrayInt) -> Floats:
        """Tasks each of them has or is about to get."""
        self._refresh()
        return self._numbers[FLIGHT, rows]

    def slowness(self, rows: NDArrayInt) -> Floats:
        """Seconds each of them takes for a second of work."""
        self._refresh()
        return self._numbers[SLOWNESS, rows]

    def error_share(self, row: int) -> float:
        """Share of its recent calls that ended in an error."""
        return self._replicas[row].errors

    def ejected(self, rows: NDArrayInt, now: float) -> NDArrayBool | None:
        """Which of them are out now by the plain rule (three errors in a row, or half of the recent ones); None: nobody."""
        if now >= self._out_until:
            return None
        out = np.array([self._replicas[row].out_until > now for row in rows])
        return out if out.any() else None

    def sent(self, task_id: str, sent: Sent) -> None:
        """One more task goes there; what was predicted is kept for `back`.

        An ejected replica that is tried stays out until that one is back.
        """
        row = sent.row
        replica = self._replicas[row]
        replica.sent += 1.0
        if replica.out_until > 0.0:
            self._eject(replica, sent.at + EJECT_SECONDS)
        if row in self._suspects:
            self._suspects[row].tried(sent.at)
        self._open[task_id] = sent
        replica.open[task_id] = (sent, replica.reports)
        if len(self._open) > OPEN_DECISIONS:
            oldest = next(iter(self._open))
            self._replicas[self._open.pop(oldest).row].open.pop(oldest, None)
        self._stale.add(row)

    def reported(self, row: int, in_flight: float, now: float) -> None:
        """Its own word on how much it has: what we sent before is in it."""
        replica = self._replicas[row]
        replica.reported = max(0.0, in_flight)
        replica.sent = 0.0
        replica.reports += 1
        replica.reported_at = now
        self._numbers[SILENCE, row] = 0.0
        passed = now - replica.sampled_at
        if passed > SWEEP_SECONDS:
            replica.quick += (replica.steady - replica.quick) * min(1.0, passed / CALM_SECONDS)
            replica.steady += (replica.usual - replica.steady) * min(1.0, passed / FORGET_SECONDS)
            replica.sampled_at = now
        self._stale.add(row)
        if now - self._swept_at >= SWEEP_SECONDS:
            self._sweep(now)

    def back(self, task_id: str, row: int, *, refresh: bool = True) -> Sent | None:
        """The task came back from there; None when it is not known to be under way there.

        `refresh`: not where `succeeded` is told next, which does it too.
        """
        replica = self._replicas[row]
        found = replica.open.pop(task_id, None)
        if found is None:
            return None
        sent, reports = found
        if self._open.get(task_id) is sent:
            del self._open[task_id]
        # What was sent before the last report is in that report.
        if reports == replica.reports:
            replica.sent = max(0.0, replica.sent - 1.0)
        else:
            replica.reported = max(0.0, replica.reported - 1.0)
        if refresh:
            self._stale.add(row)
        return sent

    def succeeded(
        self, row: int, service: float | None, work: float | None, now: float = 0.0, *, sent_at: float = math.inf
    ) -> None:
        """A success after `service` seconds on `work` seconds worth of task, sent at `sent_at`."""
        replica = self._replicas[row]
        replica.errors *= 1.0 - ERROR_WEIGHT
        replica.streak, replica.out_until = 0, 0.0
        if replica.errors < ERROR_WEIGHT:
            replica.ejections = 0
        self._base.told(False)
        suspicion = self._suspects.get(row)
        if suspicion is not None and suspicion.cleared(sent_at):
            self._numbers[ODDS, row] = 0.0
            del self._suspects[row]
        if service is not None and service >= 0.0:
            known = work is not None and work > 0.0
            amount = work if work is not None and known else service
            self._works += 1
            self._mean_work += max(0.01, 1.0 / self._works) * (amount - self._mean_work)
            sample = service / (amount if known else max(self._mean_work, 1e-9))
            # What it had beside this task slowed it too; the prediction puts that in again.
            sample /= 1.0 + CROWDING * min(replica.reported + replica.sent, replica.slots)
            replica.quick += FAST * (sample - replica.quick)
            replica.steady += SLOW * (sample - replica.steady)
            replica.samples += 1.0
            replica.usual += (sample - replica.usual) / min(replica.samples, USUAL)
            replica.sampled_at = now
        self._stale.add(row)

    def failed(self, row: int, now: float) -> None:
        """An error. Three in a row, or half of the recent ones, take the replica out for a while."""
        replica = self._replicas[row]
        replica.streak += 1
        replica.errors += ERROR_WEIGHT * (1.0 - replica.errors)
        trial = replica.out_until > 0.0
        if trial or replica.streak >= CONSECUTIVE or replica.errors > ERROR_SHARE:
            self._eject(replica, now + min(EJECT_CAP_SECONDS, EJECT_SECONDS * 2.0**replica.ejections))
            replica.ejections = min(replica.ejections + 1, 10)
        suspicion = self._suspects.get(row)
        if suspicion is None:
            suspicion = self._suspects[row] = Suspicion()
        suspicion.failed(self._base, now)

    def _eject(self, replica: Replica, until: float) -> None:
        replica.out_until = until
        self._out_until = max(self._out_until, until)

    def _sweep(self, now: float) -> None:
        """Who has fallen silent, and how busy everybody is. What stands still will do so for about as long again (Lindy)."""
        self._refresh()
        passed = min(BUSY_SECONDS, now - self._swept_at)
        self._swept_at = now
        share = self._busy / self._slots if self._slots else 0.0
        self._utilisation += (share - self._utilisation) * passed / BUSY_SECONDS
        ages = now - np.array([one.reported_at for one in self._replicas])
        known = np.isfinite(ages)
        limit = SILENT_SECONDS + SILENT_TIMES * float(np.quantile(ages[known], 0.75))
        silence = np.where(known & (ages > limit), ages, 0.0)
        self._silent = bool(silence.any())
        self._numbers[SILENCE, : len(silence)] = silence

    def _refresh(self) -> None:
        """Bring the arrays up to date."""
        numbers, routers = self._numbers, self._routers
        for row in self._stale:
            replica = self._replicas[row]
            slow = replica.quick if replica.quick > replica.steady else replica.steady
            flight = replica.reported + replica.sent * routers
            numbers[FLIGHT, row] = flight
            numbers[SLOWNESS, row] = slow
            numbers[PACE, row] = slow * (1.0 + CROWDING * flight)
            over = flight + 1.0 - replica.slots
            self._slots += replica.slots - replica.counted[0]
            busy = min(flight, replica.slots)
            self._busy += busy - replica.counted[1]
            replica.counted = (replica.slots, busy)
            numbers[WAIT, row] = slow * over / replica.slots if over > 0.0 else 0.0
        self._stale.clear()


NDArrayBool = np.ndarray[tuple[int], np.dtype[np.bool_]]
