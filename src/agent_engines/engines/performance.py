"""The performance engine: how fast, how well and how full, and when to add replicas.

It listens to what the recorder has just committed and to heartbeats; both are lossy signals, so its figures are good
enough to steer by and never the truth about a task. It keeps nothing across a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.errors import AgentEnginesError
from agent_engines.domain.messages import Heartbeat
from agent_engines.domain.scaling import URGENCY, ScalingAction
from agent_engines.domain.windows import WindowSummary
from agent_engines.ports.bus import Subscription
from agent_engines.ports.connections import Connections
from agent_engines.ports.telemetry import Log
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.background import Background
from agent_engines.runtime.engine import Engine

from .figures import CapacityChange, Figures, OutcomeBatch
from .fitting import fitting

TICK_SECONDS = 2.0
BACKLOG_SECONDS = 5.0
BACKLOG_LANES = 8
FRESH_SECONDS = 1.0
"""Documents asked for within this time are the same one: many pages may be open."""
NOTHING = WindowSummary()
GAUGES = (
    "agent_utilization_ratio",
    "agent_error_ratio",
    "agent_tasks_per_second",
    "agent_waiting_tasks",
    "agent_scale_up_replicas",
)
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding foreign bytes may raise."""


class PerformanceEngine(Engine):
    """Answers two questions over the bus, both as JSON objects; times are epoch seconds, shares are 0..1.

    `ask.performance.report`:
    {"window_seconds": 60.0, "generated_at": t,
     "agents": [{"agent", "task_type": null | str, "count", "errors", "rate_per_s", "error_rate", "p50_ms", "p95_ms",
                 "p99_ms", "quality", "cost", "anomalies": [{"task_type", "signal": "latency" | "errors", "value",
                 "usual", "z"}]}],
     "fleet": {the same figures over everything, "agents": n, "replicas", "slots", "running", "queue", "anomalies": n,
               "timeline": {"slice_seconds": 5.0, "counts": [59 numbers, oldest first], "errors": [59 numbers]}}}
    Rows with task_type null are the whole agent and also have "queue", "running", "slots", "queue_size", "replicas",
    "utilization" and "capacity_used". Percentiles, quality and cost are null when nothing was measured. `count` and the
    rates are attempts that ended in the window: an attempt that will be retried is an error.

    `ask.performance.scaling`:
    {"generated_at": t,
     "agents": [{"agent", "queue", "running", "slots", "queue_size", "replicas", "utilization", "capacity_used",
                 "capacity_warning": bool, "action": "none" | "monitor" | "scale_up" | "emergency", "add_replicas": n,
                 "reason": sentence}],
     "fleet": {"action": the most urgent, "add_replicas": sum, "queue": sum, "capacity_warnings": [agent]}}

    `queue` is what waits for the agent anywhere: in its replicas or still on the bus. `left_out` in either document: how
    many rows of a very large fleet did not fit into one message of the bus; whole agents and busy ones come first.
    """

    def __init__(self, config: AgentConfig | str = "performance") -> None:
        super().__init__(config, agent_type="performance")
        self.figures = Figures()
        self._outside: Connections | None = None
        self._background: Background | None = None
        self._subscriptions: list[Subscription] = []
        self._batches = msgspec.json.Decoder(OutcomeBatch)
        self._beats = msgspec.json.Decoder(Heartbeat)
        self._answers: dict[str, tuple[float, bytes]] = {}
        self._shown: set[str] = set()
        """Agents that have gauges."""

    async def on_start(self, connections: Connections) -> None:
        self._outside = connections
        self._background = Background(self._log)
        listen = connections.bus.signals.listen
        self._subscriptions = [
            await listen(subjects.OUTCOMES, self._recorded),
            await listen(subjects.HEARTBEATS, self._heartbeat),
            await listen(subjects.ask("performance", "report"), self._report, queue="performance"),
            await listen(subjects.ask("performance", "scaling"), self._scaling, queue="performance"),
        ]
        self._background.keep("performance-tick", self._tick_for_ever)
        self._background.keep("performance-backlog", self._backlog_for_ever)
        await connections.bus.signals.send(subjects.HELLO, b"{}")

    async def on_stop(self) -> None:
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions = []
        if self._background is not None:
            await self._background.stop()

    def tick(self) -> None:
        """One look at everything: warnings that begin or end, advice that got more urgent, gauges."""
        outside = self._connected
        now = outside.clock.monotonic()
        for change in self.figures.tick(now):
            self._tell_capacity(change)
        totals = self.figures.totals(now)
        told = self.figures.advice()
        for agent, (state, advice) in told.items():
            self._tell_advice(agent, advice.action, reason=advice.reason, queue=state.waiting)
            summary = totals.get(agent, NOTHING)
            values = (
                state.utilization,
                summary.error_rate,
                summary.rate_per_s,
                float(state.waiting),
                float(advice.add_replicas),
            )
            for name, value in zip(GAUGES, values, strict=True):
                outside.telemetry.gauge(name, value, agent_name=agent)
        for agent in self._shown - told.keys():
            for name in GAUGES:
                outside.telemetry.forget(name, agent_name=agent)
        self._shown = set(told)

    async def measure_backlog(self) -> None:
        """Ask the bus what waits for each agent: replicas fetch only what they have room for, the rest waits there."""
        tasks, lanes = self._connected.bus.tasks, asyncio.Semaphore(BACKLOG_LANES)

        async def measure(agent: str) -> None:
            async with lanes:
                backlog = await tasks.backlog(agent)
            member = self.figures.members.get(agent)
            if member is not None:
                member.backlog = backlog

        names = [name for name, member in self.figures.members.items() if member.performs]
        outcomes = await asyncio.gather(*(measure(name) for name in names), return_exceptions=True)
        for name, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, AgentEnginesError):
                # An agent without a queue yet, or a bus that is away: what the replicas say has to do.
                if (member := self.figures.members.get(name)) is not None:
                    member.backlog = None
                self._log.debug("Backlog is not known", agent=name, error=repr(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome

    @property
    def _connected(self) -> Connections:
        if self._outside is None:
            raise RuntimeError("the performance engine has not been started")
        return self._outside

    @property
    def _log(self) -> Log:
        return self._connected.telemetry.log("performance")

    async def _tick_for_ever(self) -> None:
        while True:
            self.tick()
            await self._connected.clock.sleep(TICK_SECONDS)

    async def _backlog_for_ever(self) -> None:
        while True:
            await self.measure_backlog()
            await self._connected.clock.sleep(BACKLOG_SECONDS)

    async def _recorded(self, subject: str, data: bytes) -> None:
        try:
            batch = self._batches.decode(data)
        except UNREADABLE as error:
            self._log.warning("Reports could not be read", subject=subject, error=str(error))
            return
        self.figures.outcomes(batch.reports, self._connected.clock.monotonic())

    async def _heartbeat(self, subject: str, data: bytes) -> None:
        try:
            beat = self._beats.decode(data)
        except UNREADABLE as error:
            self._log.warning("A heartbeat could not be read", subject=subject, error=str(error))
            return
        self.figures.heartbeat(beat, self._connected.clock.monotonic())

    async def _report(self, subject: str, data: bytes) -> bytes:
        clock = self._connected.clock
        return self._answer("report", lambda: self.figures.report(clock.monotonic(), clock.now()))

    async def _scaling(self, subject: str, data: bytes) -> bytes:
        return self._answer("scaling", lambda: self.figures.scaling(self._connected.clock.now()))

    def _answer(self, what: str, make: Callable[[], dict[str, Any]]) -> bytes:
        now = self._connected.clock.monotonic()
        at, answer = self._answers.get(what, (float("-inf"), b""))
        if now - at >= FRESH_SECONDS:
            answer = fitting(make(), "agents", _importance, self._connected.bus.max_message_bytes)
            self._answers[what] = (now, answer)
        return answer

    def _tell_capacity(self, change: CapacityChange) -> None:
        state = change.state
        numbers = {
            "agent": change.agent,
            "capacity_used": round(state.capacity_used, 3),
            "queue": state.waiting,
            "running": state.running,
            "slots": state.slots,
            "queue_size": state.queue_size,
        }
        if change.high:
            self._log.warning("Agent is at 80 % of its capacity or more", **numbers)
        else:
            self._log.info("Agent is back under 80 % of its capacity", **numbers)

    def _tell_advice(self, agent: str, action: ScalingAction, **numbers: Any) -> None:
        """Log advice to add replicas once, again only when it gets more urgent or after a calm queue."""
        member = self.figures.members[agent]
        if action is ScalingAction.NONE:
            member.advised = action
        elif action in (ScalingAction.SCALE_UP, ScalingAction.EMERGENCY) and (
            URGENCY.index(action) > URGENCY.index(member.advised)
        ):
            member.advised = action
            self._log.warning("More replicas are advised", agent=agent, action=action, **numbers)


def _importance(row: dict[str, Any]) -> float:
    return row.get("count", 0) + row.get("queue", 0)
