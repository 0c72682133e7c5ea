"""Figures: what the performance engine knows about each agent and task type, in bounded memory.

Fed with outcomes and heartbeats, asked for two documents (plain dicts, ready for JSON). Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from agent_engines.domain.agents import AgentProfile, AgentState
from agent_engines.domain.anomalies import Anomaly, Baseline, Interval
from agent_engines.domain.messages import Heartbeat
from agent_engines.domain.scaling import CapacityWatch, ScalingAction, ScalingAdvice, advise, most_urgent, used_share
from agent_engines.domain.windows import SlidingWindow, WindowSummary, counted, merged

WINDOW_SECONDS = 60.0
BUCKETS = 12
TIMELINE_SECONDS = 300.0
TIMELINE_SLICES = 60
SILENT_SECONDS = 900.0
"""Agents and task types without any news for this long are forgotten."""
MOST_WORK = 5_000
MOST_AGENTS = 2_000
MOST_REPLICAS = 1_000
LEAST_PATIENCE = 15.0
"""A replica is gone after three heartbeat intervals, but never sooner than this."""


class Outcome(msgspec.Struct, frozen=True):
    """The few fields of a report that count here; decoding skips the rest, results included."""

    kind: str
    task_type: str
    agent: str | None = None
    status: str = "running"
    execution_time_ms: float | None = None
    quality: float | None = None
    cost: float | None = None


class OutcomeBatch(msgspec.Struct, frozen=True):
    reports: list[Outcome]


NO_OUTCOME = frozenset({"started", "feedback"})
ERRORS = frozenset({"failed", "dead_letter", "expired", "retrying"})


class Work:
    """One agent doing one task type."""

    __slots__ = ("anomalies", "baseline", "judged", "seen", "window")

    def __init__(self, now: float) -> None:
        self.window = SlidingWindow(WINDOW_SECONDS, BUCKETS)
        self.baseline = Baseline()
        self.anomalies: tuple[Anomaly, ...] = ()
        self.judged = self.window.epoch(now) - 1
        self.seen = now

    def judge(self, now: float) -> None:
        """Compare every slice that has closed since the last call with this work's own past."""
        newest = self.window.epoch(now) - 1
        for epoch in range(max(self.judged + 1, newest - BUCKETS + 2), newest + 1):
            bucket = self.window.bucket(epoch)
            self.anomalies = ()
            if bucket is not None:
                interval = Interval(bucket.count, bucket.errors, bucket.quantile(0.5))
                self.anomalies = self.baseline.observe(interval)
        self.judged = max(self.judged, newest)


class Member:
    """One agent: its replicas' loads and what waits for it on the bus."""

    __slots__ = ("advised", "backlog", "profile", "replicas", "seen", "watch")

    def __init__(self, now: float) -> None:
        self.replicas: dict[str, tuple[Heartbeat, float]] = {}
        self.profile: AgentProfile | None = None
        self.backlog: int | None = None
        self.watch = CapacityWatch()
        self.advised = ScalingAction.NONE
        self.seen = now

    @property
    def performs(self) -> bool:
        """False for engines that say they perform no task type: they have no queue worth scaling."""
        return self.profile is None or bool(self.profile.capabilities)

    def drop_silent(self, now: float) -> None:
        gone = [
            name
            for name, (beat, at) in self.replicas.items()
            if now - at > max(LEAST_PATIENCE, 3 * beat.interval_seconds)
        ]
        for name in gone:
            del self.replicas[name]

    def state(self) -> MemberState:
        loads = [beat.load for beat, _ in self.replicas.values()]
        running = sum(load.running for load in loads)
        queued = sum(load.queued for load in loads)
        # The bus counts running tasks too, as they are not acknowledged yet.
        waiting = queued if self.backlog is None else max(queued, self.backlog - running)
        slots = sum(load.slots for load in loads)
        queue_size = sum(load.queue_size for load in loads)
        return MemberState(
            replicas=len(loads),
            slots=slots,
            running=running,
            waiting=waiting,
            queue_size=queue_size,
            utilization=min(1.0, running / slots) if slots else 0.0,
            capacity_used=used_share(waiting, running, slots, queue_size),
        )


class MemberState(msgspec.Struct, frozen=True, kw_only=True):
    """The load of one agent over all its replicas; `capacity_used` is over 1 when work waits for slots."""

    replicas: int
    slots: int
    running: int
    waiting: int
    queue_size: int
    utilization: float
    capacity_used: float


class CapacityChange(msgspec.Struct, frozen=True):
    """An agent has reached, or come back under, 80 % of its capacity."""

    agent: str
    high: bool
    state: MemberState


class Figures:
    """Everything known now. Every method is cheap, except the two documents."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.work: dict[tuple[str, str], Work] = {}
        self._everything = SlidingWindow(TIMELINE_SECONDS, TIMELINE_SLICES)

    def outcomes(self, reports: Iterable[Outcome], now: float) -> None:
        """Count ended attempts: retries and failures (expired included) are errors, cancelled tasks are nobody's."""
        count = errors = 0
        for report in reports:
            if report.agent is None or report.kind in NO_OUTCOME or report.status == "cancelled":
                continue
            work = self.work.get((report.agent, report.task_type))
            if work is None:
                _make_room(self.work, MOST_WORK)
                work = self.work[(report.agent, report.task_type)] = Work(now)
            work.seen = now
            error = report.kind == "retry" or report.status in ERRORS
            work.window.add(now, report.execution_time_ms, error=error, quality=report.quality, cost=report.cost)
            count += 1
            errors += error
        if count:
            self._everything.count(now, count, errors)

    def heartbeat(self, beat: Heartbeat, now: float) -> None:
        member = self.members.get(beat.agent)
        if member is None:
            _make_room(self.members, MOST_AGENTS)
            member = self.members[beat.agent] = Member(now)
        member.seen = now
        member.profile = beat.profile or member.profile
        if beat.state is AgentState.STOPPED:
            member.replicas.pop(beat.replica, None)
        elif beat.replica in member.replicas or len(member.replicas) < MOST_REPLICAS:
            member.replicas[beat.replica] = (beat, now)

    def tick(self, now: float) -> list[CapacityChange]:
        """Judge closed slices, forget the silent, and say whose capacity warning has just begun or ended."""
        for work in self.work.values():
            work.judge(now)
        self._forget(now)
        changes: list[CapacityChange] = []
        for name, member in self.members.items():
            member.drop_silent(now)
            state = member.state()
            if member.performs and member.watch.update(now, state.capacity_used):
                changes.append(CapacityChange(name, member.watch.active, state))
        return changes

    def advice(self) -> dict[str, tuple[MemberState, ScalingAdvice]]:
        """The scaling matrix for every agent that performs tasks."""
        states = {name: member.state() for name, member in sorted(self.members.items()) if member.performs}
        return {name: (state, advise(state.waiting)) for name, state in states.items()}

    def totals(self, now: float) -> dict[str, WindowSummary]:
        """Counts of each agent over all its work, without the percentiles, which cost a merge."""
        return {agent: counted((w.window for w in works.values()), now) for agent, works in self._by_agent().items()}

    def report(self, now: float, generated_at: float) -> dict[str, Any]:
        """The document of `ask.performance.report`; its shape is in `PerformanceEngine`."""
        by_agent = self._by_agent()
        for name, member in self.members.items():
            if member.performs:
                by_agent.setdefault(name, {})
        rows: list[dict[str, Any]] = []
        for agent, works in sorted(by_agent.items()):
            rows.append(self._agent_row(agent, works, now))
            for task_type, work in sorted(works.items()):
                row = {"agent": agent, "task_type": task_type, **_numbers(work.window.summary(now))}
                rows.append({**row, "anomalies": _anomalies(task_type, work)})
        everything = merged((work.window for work in self.work.values()), now)
        states = [state for state, _ in self.advice().values()]
        return {
            "window_seconds": WINDOW_SECONDS,
            "generated_at": generated_at,
            "agents": rows,
            "fleet": {
                **_numbers(everything),
                "agents": len(by_agent),
                **{key: sum(getattr(s, key) for s in states) for key in ("replicas", "slots", "running")},
                "queue": sum(s.waiting for s in states),
                "anomalies": sum(len(work.anomalies) for work in self.work.values()),
                "timeline": self._timeline(now),
            },
        }

    def scaling(self, generated_at: float) -> dict[str, Any]:
        """The document of `ask.performance.scaling`; its shape is in `PerformanceEngine`."""
        advice = self.advice()
        rows = [
            {
                "agent": name,
                "queue": state.waiting,
                **_load(state),
                "capacity_warning": self.members[name].watch.active,
                "action": told.action,
                "add_replicas": told.add_replicas,
                "reason": told.reason,
            }
            for name, (state, told) in advice.items()
        ]
        return {
            "generated_at": generated_at,
            "agents": rows,
            "fleet": {
                "action": most_urgent([told.action for _, told in advice.values()]),
                "add_replicas": sum(told.add_replicas for _, told in advice.values()),
                "queue": sum(state.waiting for state, _ in advice.values()),
                "capacity_warnings": [row["agent"] for row in rows if row["capacity_warning"]],
            },
        }

    def _agent_row(self, agent: str, works: dict[str, Work], now: float) -> dict[str, Any]:
        member = self.members.get(agent)
        state = member.state() if member is not None else Member(now).state()
        return {
            "agent": agent,
            "task_type": None,
            **_numbers(merged((work.window for work in works.values()), now)),
            "queue": state.waiting,
            **_load(state),
            "anomalies": [row for task_type, work in works.items() for row in _anomalies(task_type, work)],
        }

    def _timeline(self, now: float) -> dict[str, Any]:
        """The last five minutes in closed slices, oldest first."""
        newest = self._everything.epoch(now)
        slices = [self._everything.bucket(epoch) for epoch in range(newest - TIMELINE_SLICES + 1, newest)]
        return {
            "slice_seconds": self._everything.width,
            "counts": [0 if found is None else found.count for found in slices],
            "errors": [0 if found is None else found.errors for found in slices],
        }

    def _by_agent(self) -> dict[str, dict[str, Work]]:
        found: dict[str, dict[str, Work]] = {}
        for (agent, task_type), work in self.work.items():
            found.setdefault(agent, {})[task_type] = work
        return found

    def _forget(self, now: float) -> None:
        for key in [key for key, work in self.work.items() if now - work.seen > SILENT_SECONDS]:
            del self.work[key]
        for name in [name for name, member in self.members.items() if now - member.seen > SILENT_SECONDS]:
            del self.members[name]


def _make_room(known: dict[Any, Any], most: int) -> None:
    """Names come from outside: past the bound the one known longest goes, so memory cannot grow."""
    if len(known) >= most:
        del known[next(iter(known))]


def _numbers(summary: WindowSummary) -> dict[str, Any]:
    return {
        "count": summary.count,
        "errors": summary.errors,
        "rate_per_s": round(summary.rate_per_s, 4),
        "error_rate": round(summary.error_rate, 6),
        "p50_ms": _rounded(summary.p50_ms),
        "p95_ms": _rounded(summary.p95_ms),
        "p99_ms": _rounded(summary.p99_ms),
        "quality": _rounded(summary.quality),
        "cost": _rounded(summary.cost),
    }


def _load(state: MemberState) -> dict[str, Any]:
    return {
        "running": state.running,
        "slots": state.slots,
        "queue_size": state.queue_size,
        "replicas": state.replicas,
        "utilization": round(state.utilization, 4),
        "capacity_used": round(state.capacity_used, 4),
    }


def _anomalies(task_type: str, work: Work) -> list[dict[str, Any]]:
    return [
        {
            "task_type": task_type,
            "signal": found.signal,
            "value": _rounded(found.value),
            "usual": _rounded(found.usual),
            "z": round(found.z, 2),
        }
        for found in work.anomalies
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
