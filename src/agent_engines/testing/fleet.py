"""A fleet in virtual time: a trace of arrivals, replicas with slots, speeds and faults, routers with late reports.

Every policy of `agent_engines.testing.evaluation` can be driven by it. A replica runs up to `slots` tasks at once, each the
slower the more run beside it (those that wait cost nothing); the rest wait in order. Faults: a replica turns slow, turns new
tasks away with an error, or stands still: what runs there stands still too, and it sends no reports. A policy that offers `hedge_after` may have a
late task sent to a second replica; the first answer counts, the other leg is cancelled wherever it is.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from agent_engines.learning.policy import HedgingPolicy, RoutingPolicy

CROWDING = 0.03
REPORT_SECONDS = 1.0
FAIL_SECONDS = 0.02


class FleetPolicy(RoutingPolicy, Protocol):
    """What a router needs of a policy; see `evaluation.AdaptivePolicy`."""

    def on_report(self, agent: str, report: Mapping[str, Any], now: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """One task: seconds from the start, expected and real work in seconds on a nominal replica."""

    at: float
    hint: float
    work: float


@dataclass(frozen=True, slots=True)
class Fault:
    """From `begin` to `end` (seconds) replica number `replica` is `slow` (times `factor`), `failing` or `stopped`."""

    replica: int
    begin: float
    end: float
    kind: str
    factor: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetShape:
    """`speeds`: seconds of real time one second of work takes, one for each replica."""

    speeds: Sequence[float]
    slots: Sequence[int]
    faults: Sequence[Fault] = ()
    deadline_factor: float = 10.0
    """A task is late after this many times its expected work."""
    routers: int = 1


@dataclass(slots=True)
class Report:
    """What one run came to. Latencies in seconds, sorted; shares in 0..1."""

    latencies: np.ndarray[Any, np.dtype[np.float64]]
    errors: float
    late: float
    hedged: float
    tasks: int

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.latencies, share)) if len(self.latencies) else float("nan")

    def row(self) -> dict[str, float]:
        return {
            "p50": self.percentile(50),
            "p99": self.percentile(99),
            "p99.9": self.percentile(99.9),
            "errors": self.errors,
            "late": self.late,
            "hedged": self.hedged,
        }


@dataclass(slots=True, eq=False)
class _Task:
    number: int
    arrival: Arrival
    router: int
    context: dict[str, Any]
    legs: list[_Leg] = field(default_factory=list["_Leg"])
    ended: bool = False


@dataclass(slots=True, eq=False)
class _Leg:
    """A task at one replica."""

    task: _Task
    replica: _Replica
    decision: dict[str, Any]
    sent: float
    begun: float = 0.0
    until: float = 0.0
    """When it will be done, if nothing happens to its replica."""
    open: bool = True


@dataclass(slots=True, eq=False)
class _Replica:
    number: int
    name: str
    speed: float
    slots: int
    running: list[_Leg] = field(default_factory=list["_Leg"])
    queue: deque[_Leg] = field(default_factory=deque["_Leg"])
    done: deque[float] = field(default_factory=lambda: deque[float](maxlen=64))


class FleetRun:
    """One run of one policy over one trace; `run` returns its report."""

    def __init__(self, shape: FleetShape, policy: Callable[[int], FleetPolicy]) -> None:
        """`policy`: makes the policy of router number 0, 1, ..."""
        self._shape = shape
        self._routers = [policy(number) for number in range(shape.routers)]
        self._replicas = [
            _Replica(number, f"replica-{number}", speed, slots)
            for number, (speed, slots) in enumerate(zip(shape.speeds, shape.slots, strict=True))
        ]
        self._candidates = [
            {"agent": one.name, "cost": 0.0, "slots": one.slots, "cls": "kind"} for one in self._replicas
        ]
        self._by_name = {one.name: one for one in self._replicas}
        self._events: list[tuple[float, int, str, Any]] = []
        self._count = 0
        self._latencies: list[float] = []
        self._errors = 0
        self._late = 0
        self._hedges = 0

    def run(self, arrivals: Sequence[Arrival]) -> Report:
        for number, arrival in enumerate(arrivals):
            self._later(arrival.at, "arrive", (number, arrival))
        end = arrivals[-1].at if arrivals else 0.0
        self._later(0.0, "report", None)
        while self._events:
            now, _, what, data = heapq.heappop(self._events)
            if what == "arrive":
                self._arrive(now, *data)
            elif what == "hedge":
                self._hedge(now, data)
            elif what == "done":
                self._done(now, data)
            elif what == "failed":
                self._failed(now, data)
            elif now <= end:
                self._report_all(now)
                self._later(now + REPORT_SECONDS, "report", None)
        total = max(1, len(arrivals))
        latencies = np.sort(np.array(self._latencies))
        return Report(latencies, self._errors / total, self._late / total, self._hedges / total, len(arrivals))

    def _later(self, at: float, what: str, data: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, what, data))

    def _arrive(self, now: float, number: int, arrival: Arrival) -> None:
        router = number % len(self._routers)
        context = {
            "task_id": str(number),
            "task_type": "trace",
            "features": None,
            "priority": 3,
            "now": now,
            "work_hint": arrival.hint,
            "deadline_s": now + self._shape.deadline_factor * arrival.hint,
        }
        task = _Task(number, arrival, router, context)
        leg = self._send(now, task, self._candidates)
        policy = self._routers[router]
        if isinstance(policy, HedgingPolicy) and leg.open:
            after = policy.hedge_after(leg.decision)
            if after is not None:
                self._later(now + after, "hedge", task)

    def _send(self, now: float, task: _Task, candidates: Sequence[Mapping[str, Any]]) -> _Leg:
        context = {**task.context, "now": now}
        agent, confidence, propensity = self._routers[task.router].choose(context, candidates)
        decision = {
            "context": context,
            "candidates": candidates,
            "agent": agent,
            "confidence": confidence,
            "propensity": propensity,
        }
        replica = self._by_name[agent]
        leg = _Leg(task, replica, decision, now)
        task.legs.append(leg)
        if self._fault(replica, now, "failing") is not None:
            self._later(now + FAIL_SECONDS, "failed", leg)
        elif len(replica.running) < replica.slots:
            self._begin(now, leg)
        else:
            replica.queue.append(leg)
        return leg

    def _hedge(self, now: float, task: _Task) -> None:
        """Send a late task to somebody else too, and tell the policy."""
        policy = self._routers[task.router]
        # Asked again, as the router does: meanwhile its budget may be spent, or hedging may have turned out not to pay.
        if task.ended or not isinstance(policy, HedgingPolicy) or policy.hedge_after(task.legs[0].decision) is None:
            return
        others = [one for one in self._candidates if one["agent"] != task.legs[0].replica.name]
        if others:
            self._hedges += 1
            policy.hedged()
            self._send(now, task, others)

    def _begin(self, now: float, leg: _Leg) -> None:
        replica = leg.replica
        replica.running.append(leg)
        leg.begun = now
        seconds = leg.task.arrival.work * replica.speed * (1.0 + CROWDING * len(replica.running))
        slow = self._fault(replica, now, "slow")
        if slow is not None:
            seconds *= slow.factor
        stopped = self._fault(replica, now, "stopped")
        if stopped is not None:
            seconds += stopped.end - now
        leg.until = now + seconds
        self._later(leg.until, "done", leg)

    def _done(self, now: float, leg: _Leg) -> None:
        if not leg.open:
            return
        stopped = self._fault(leg.replica, now, "stopped")
        if stopped is not None:
            self._later(stopped.end + max(0.0, now - max(stopped.begin, leg.begun)), "done", leg)
            return
        task, replica = leg.task, leg.replica
        task.ended = True
        latency = now - task.arrival.at
        self._latencies.append(latency)
        self._late += latency > self._shape.deadline_factor * task.arrival.hint
        replica.done.append(now)
        outcome = {
            "quality": 1.0,
            "success": True,
            "error": False,
            "cost": 0.0,
            "now": now,
            "latency": now - leg.sent,
            "service": now - leg.begun,
            "work": task.arrival.work,
        }
        self._close(now, leg, outcome)
        for other in task.legs:
            if other.open:
                self._close(now, other, {"cancelled": True, "now": now})

    def _close(self, now: float, leg: _Leg, outcome: dict[str, Any]) -> None:
        """End a leg wherever it is, tell its router, and begin what waited behind it."""
        replica, router = leg.replica, self._routers[leg.task.router]
        leg.open = False
        if leg in replica.running:
            replica.running.remove(leg)
        elif leg in replica.queue:
            replica.queue.remove(leg)
        while replica.queue and len(replica.running) < replica.slots:
            self._begin(now, replica.queue.popleft())
        router.learn(leg.decision, outcome)
        if self._fault(replica, now, "stopped") is None:
            router.on_report(replica.name, self._load(replica, now), now)

    def _failed(self, now: float, leg: _Leg) -> None:
        if not leg.open:
            return
        outcome = {"success": False, "error": True, "cost": 0.0, "now": now, "latency": now - leg.sent}
        self._close(now, leg, outcome)
        if not any(one.open for one in leg.task.legs):
            leg.task.ended = True
            self._errors += 1

    def _report_all(self, now: float) -> None:
        for replica in self._replicas:
            if self._fault(replica, now, "stopped") is not None:
                continue
            report = self._load(replica, now)
            for router in self._routers:
                router.on_report(replica.name, report, now)

    def _load(self, replica: _Replica, now: float) -> dict[str, float]:
        recent = [at for at in replica.done if now - at <= REPORT_SECONDS * 5]
        return {
            "rif": float(len(replica.running) + len(replica.queue)),
            "util": len(replica.running) / replica.slots,
            "rate": len(recent) / (REPORT_SECONDS * 5),
            "lat": 0.0,
        }

    def _fault(self, replica: _Replica, now: float, kind: str) -> Fault | None:
        for fault in self._shape.faults:
            if fault.replica == replica.number and fault.kind == kind and fault.begin <= now < fault.end:
                return fault
        return None


class OmniscientRun(FleetRun):
    """What no policy can know: each task goes where it will be done first, its work and all faults known beforehand.

    One task at a time, without a plan for those to come: a mark to see policies against, no proof of what is possible.
    It is the policy of all its routers.
    """

    def __init__(self, shape: FleetShape) -> None:
        super().__init__(shape, lambda _: self)
        self._arrivals: Sequence[Arrival] = ()

    def run(self, arrivals: Sequence[Arrival]) -> Report:
        self._arrivals = arrivals
        return super().run(arrivals)

    def choose(self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> tuple[str, float, float]:
        now, work = float(context["now"]), self._arrivals[int(context["task_id"])].work
        best = min(self._replicas, key=lambda replica: self._end(replica, now, work))
        return best.name, 1.0, 1.0

    def learn(self, decision: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """There is nothing it does not know."""

    def on_report(self, agent: str, report: Mapping[str, Any], now: float) -> None:
        """There is nothing it does not know."""

    def _end(self, replica: _Replica, now: float, work: float) -> float:
        """When one more task of this much work would be done there."""
        if self._fault(replica, now, "failing") is not None:
            return float("inf")
        slow, stopped = self._fault(replica, now, "slow"), self._fault(replica, now, "stopped")
        full = replica.speed * (1.0 if slow is None else slow.factor)
        crowded = full * (1.0 + CROWDING * replica.slots)
        free = [max(now, leg.until) for leg in replica.running] + [now] * (replica.slots - len(replica.running))
        heapq.heapify(free)
        for leg in replica.queue:
            heapq.heapreplace(free, free[0] + leg.task.arrival.work * crowded)
        beside = min(replica.slots, len(replica.running) + len(replica.queue) + 1)
        end = free[0] + work * full * (1.0 + CROWDING * beside)
        return end if stopped is None else end + stopped.end - now
