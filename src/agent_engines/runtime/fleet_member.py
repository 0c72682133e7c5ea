"""One agent as a router sees it: its replicas' last words, what was sent to it since, and what came of that.

heard < 5 s ago    healthy
silent > 5 s       suspect   (light heartbeats come every 1 to 2 s: two or three are missing)
silent > 3 x heartbeat interval, at least 15 s    lost
"""

from __future__ import annotations

import math
from typing import Any

from agent_engines.domain.agents import MOST_SLOTS, AgentMode, AgentProfile, AgentState, Load
from agent_engines.domain.breaker import BreakerState
from agent_engines.domain.budgets import NOTHING
from agent_engines.domain.decisions import Candidate
from agent_engines.domain.eligibility import Offer
from agent_engines.domain.estimates import Track, completion_ms
from agent_engines.domain.messages import Heartbeat, ReportKind
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.service import AgentView, ReplicaView

from .agent_breaker import AgentBreaker
from .outcomes import Outcome

SUSPECT_SECONDS = 5.0
LOST_SECONDS = 15.0
LOST_INTERVALS = 3
TAKING = frozenset({AgentState.READY, AgentState.RUNNING})
FAILED = frozenset({TaskStatus.FAILED, TaskStatus.DEAD_LETTER})


class Replica:
    """The last heartbeat of one process. Times are monotonic seconds of this router."""

    __slots__ = ("heard_at", "interval", "load", "name", "seq", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = AgentState.STARTING
        self.load = Load()
        self.interval = 30.0
        self.seq = -1
        self.heard_at = 0.0

    def lost(self, now: float) -> bool:
        return now - self.heard_at > max(LOST_SECONDS, LOST_INTERVALS * self.interval)


class Member:
    """One agent with all its replicas; changed only by `hear`, `sent`, `learn` and `refresh`."""

    def __init__(self, name: str, breaker: AgentBreaker) -> None:
        self.name = name
        self.profile = AgentProfile(name=name)
        self.described = False
        self.registered = False
        self.mode = AgentMode.ACTIVE
        self.replicas: dict[str, Replica] = {}
        self.tracks: dict[str, Track] = {}
        self.breaker = breaker
        self.breaker_state = BreakerState.CLOSED
        self.attempts: dict[str, int] = {}
        self.idempotent: frozenset[str] = frozenset()
        """Task types its handlers may do twice at the same time."""
        self.longest_timeout = 0.0
        self.last_seen: float | None = None
        self.heard_at = 0.0
        self.slots = 1
        self.cost = 0.0
        self.kind = ""
        self.notes: tuple[str, ...] = ()
        """What it declares that routing cannot use."""
        self.price = NOTHING
        self.outstanding = 0
        self.backlog = 0
        self._reported = 0
        self._sent = 0
        self._done = 0
        self._saturated = False
        self._service_ms: float | None = None
        self._loop_lag_ms = 0.0
        self._status = "lost"
        self._paused = ""

    def hear(self, beat: Heartbeat, now: float, epoch: float) -> bool:
        """Take in a heartbeat; True when it changes who may be chosen."""
        replica = self.replicas.get(beat.replica)
        if replica is None:
            replica = self.replicas[beat.replica] = Replica(beat.replica)
        elif beat.seq and beat.seq < replica.seq and now - replica.heard_at < LOST_SECONDS:
            return False
        replica.seq, replica.state, replica.load = beat.seq, beat.state, beat.load
        replica.interval, replica.heard_at = beat.interval_seconds, now
        self.last_seen = epoch
        if beat.state is AgentState.STOPPED:
            del self.replicas[beat.replica]
        described = beat.profile is not None and self._describe(beat.profile)
        # With n replicas one report tells about a share of what was sent; the rest is still on its way.
        share = 1.0 - 1.0 / max(1, len(self.replicas))
        sent = self._sent
        self._sent, self._done = int(sent * share), int(self._done * share)
        changed = self.refresh(now)
        if not self._saturated:
            # An agent with a free slot has an empty queue: whatever else we think is under way, its news was lost.
            self.outstanding = min(self.outstanding, self._reported + sent)
            self.backlog = 0
        return changed or described

    def refresh(self, now: float) -> bool:
        """Add the replicas up again; True when the status or the slots changed."""
        for replica in [replica for replica in self.replicas.values() if replica.lost(now)]:
            if len(self.replicas) > 1:
                del self.replicas[replica.name]
        taking = [replica for replica in self.replicas.values() if replica.state in TAKING]
        self.heard_at = max((replica.heard_at for replica in self.replicas.values()), default=self.heard_at)
        fresh = [replica for replica in taking if now - replica.heard_at <= SUSPECT_SECONDS] or taking
        slots = self.slots
        # Agents tell these numbers, so they may be anything.
        self.slots = max(1, sum(min(max(replica.load.slots, 1), MOST_SLOTS) for replica in fresh))
        running = sum(max(0, replica.load.running) for replica in fresh)
        self._reported = running + sum(max(0, replica.load.queued) for replica in fresh)
        self._saturated = bool(fresh) and self._reported >= self.slots
        told = [replica.load.service_ms for replica in fresh]
        timed = [service for service in told if service is not None and 0.0 <= service < math.inf]
        self._service_ms = sum(timed) / len(timed) if timed else None
        self._loop_lag_ms = max((0.0, *(replica.load.loop_lag_ms for replica in fresh)))
        before = self._status, self._paused
        self._status = self._judge(now, bool(taking))
        # One replica that takes work is enough.
        self._paused = min((replica.load.paused for replica in fresh), default="")
        return before != (self._status, self._paused) or slots != self.slots

    def sent(self, task_id: str, now: float) -> None:
        """One more task was dispatched to this agent."""
        self._sent += 1
        self.outstanding += 1
        if self.breaker_state is not BreakerState.CLOSED:
            self.breaker.sent(task_id, now)

    def unsent(self, task_id: str) -> None:
        """The dispatch counted by `sent` did not take place."""
        self._sent = max(0, self._sent - 1)
        self.outstanding = max(0, self.outstanding - 1)
        self.breaker.unsent(task_id)

    def learn(self, outcome: Outcome, now: float) -> bool:
        """Take in one recorded outcome; True when the breaker changed."""
        if outcome.kind is ReportKind.STARTED:
            return False
        if outcome.kind is ReportKind.FEEDBACK:
            # Says how good the work was, nothing about what is under way now.
            if outcome.quality is not None:
                self._track(outcome.task_type).judge(outcome.quality)
            return False
        self._done += 1
        self.outstanding = max(0, self.outstanding - 1)
        failed = outcome.kind is ReportKind.RETRY or outcome.status in FAILED
        worked = not failed and outcome.status is TaskStatus.SUCCESS
        if failed or worked:
            self._track(outcome.task_type).learn(worked, outcome.execution_time_ms, outcome.quality)
        if worked:
            self.breaker.judged(outcome.task_id, True, now)
        else:
            self._tell_breaker(outcome, failed, now)
        return self.breaker_moved(now)

    def breaker_moved(self, now: float) -> bool:
        """Look at the breaker again; True when its state is another one."""
        before, self.breaker_state = self.breaker_state, self.breaker.state(now)
        return before is not self.breaker_state

    def in_flight(self) -> int:
        """Tasks this agent has or is about to get: its own report while it has free slots, our books when it has none."""
        if self._saturated:
            return max(self.outstanding, self._reported + self._sent, self.backlog + self._sent)
        known = self._reported + self._sent - self._done
        return known if known > 0 else 0

    @property
    def saturated(self) -> bool:
        return self._saturated

    @property
    def drain_seconds(self) -> float:
        """Expected time until everything that waits for this agent is done."""
        service = self._service_ms if self._service_ms is not None else 1000.0
        return self.in_flight() * service / 1000.0 / self.slots

    def candidate(self, task_type: str, usual: Track | None, now: float) -> Candidate:
        """The numbers a policy chooses by. `usual`: the whole fleet's experience, for agents that have none."""
        known = self.tracks.get(task_type, UNKNOWN)
        service = known.service_ms
        if service is None:
            service = self._usual_service_ms(usual)
        slots, in_flight, age = self.slots, self.in_flight(), now - self.heard_at
        return Candidate(
            agent=self.name,
            replicas=len(self.replicas),
            slots=slots,
            in_flight=in_flight,
            service_ms=service,
            completion_ms=completion_ms(service, in_flight, slots, self._loop_lag_ms),
            success=known.success,
            cost=self.cost,
            age_seconds=age if age > 0 else 0.0,
            doubt=known.doubt,
            quality=known.quality,
            kind=self.kind,
        )

    def mapping(self) -> dict[str, Any]:
        """What strategies read of it that changes seldom: see learning/policy.py."""
        return {
            "agent": self.name,
            "cls": self.kind or self.name,
            "parent": self.profile.follows or None,
            "cost": self.cost,
            "slots": self.slots,
            "metadata": self.profile.metadata,
        }

    def offer(self) -> Offer:
        return Offer(
            name=self.name,
            agent_type=self.profile.agent_type,
            capabilities=frozenset(self.attempts),
            metadata=self.profile.metadata,
            blocked=self._blocked(),
            suspect=self._status == "suspect",
        )

    def view(self, now: float) -> AgentView:
        return AgentView(
            name=self.name,
            agent_type=self.profile.agent_type,
            status=self.status,
            mode=self.mode,
            capabilities=tuple(self.attempts),
            metadata=self.profile.metadata,
            replicas=tuple(
                ReplicaView(replica=r.name, state=r.state, load=r.load, age_seconds=max(0.0, now - r.heard_at))
                for r in self.replicas.values()
            ),
            last_seen=self.last_seen,
            breaker=self.breaker_state.name.lower().replace("_", "-"),
            breaker_cause=self.breaker.cause,
            breaker_until=self.breaker.until(now),
            notes=self.notes,
        )

    @property
    def status(self) -> str:
        """healthy, suspect, lost, draining or quarantined."""
        if self.mode is not AgentMode.ACTIVE:
            return str(self.mode)
        return self._status

    def _usual_service_ms(self, usual: Track | None) -> float:
        if usual is not None and usual.service_ms is not None:
            return usual.service_ms
        return 100.0 if self._service_ms is None else self._service_ms

    def _judge(self, now: float, taking: bool) -> str:
        alive = [replica for replica in self.replicas.values() if not replica.lost(now)]
        if not alive:
            return "lost"
        if not taking:
            # However long ago it said so: silence is no reason to send work to one that takes none.
            return "draining"
        return "suspect" if now - self.heard_at > SUSPECT_SECONDS else "healthy"

    def _blocked(self) -> str:
        if self.mode is not AgentMode.ACTIVE:
            return f"{self.mode} by an operator"
        if self._status == "lost":
            return "lost: no heartbeat"
        if self._status == "draining":
            return "takes no work: all its replicas are starting or draining"
        if self._paused:
            return f"paused: {self._paused}"
        return "" if self.registered else "not registered in the ledger yet"

    def _describe(self, profile: AgentProfile) -> bool:
        if self.described and profile == self.profile:
            return False
        self.described = True
        self.profile = profile
        self.cost, self.kind, self.notes = profile.cost_per_task, profile.kind, profile.oddities
        self.price = profile.price
        self.longest_timeout = max((c.timeout_seconds or 0.0 for c in profile.capabilities), default=0.0)
        self.attempts = {capability.task_type: capability.max_attempts for capability in profile.capabilities}
        self.idempotent = frozenset(one.task_type for one in profile.capabilities if one.idempotent)
        self.tracks = {name: track for name, track in self.tracks.items() if name in self.attempts}
        return True

    def _track(self, task_type: str) -> Track:
        track = self.tracks.get(task_type)
        if track is None:
            track = Track()
            if task_type in self.attempts:
                self.tracks[task_type] = track
        return track

    def _tell_breaker(self, outcome: Outcome, failed: bool, now: float) -> None:
        # A task that can never work (not retryable) speaks against the task; cancelled and expired ones say nothing.
        harmless = failed and outcome.status is TaskStatus.FAILED and not (outcome.error and outcome.error.retryable)
        why = outcome.error.type if outcome.error is not None else ""
        self.breaker.judged(outcome.task_id, False if failed and not harmless else None, now, why)


UNKNOWN = Track()
"""What is known about an agent that never did a task type: the prior. Never taught."""
