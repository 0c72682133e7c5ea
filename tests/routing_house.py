"""A routing house in memory for tests: bus, ledger, clock and agents that say what the test tells them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import msgspec

from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.cache import MemoryCache
from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.memory.secrets import TEST_CAPABILITY_KEY
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentProfile, AgentState, Capability, Load
from agent_engines.domain.breaker import BreakerRule
from agent_engines.domain.capability import Capabilities
from agent_engines.domain.messages import Acceptance, Heartbeat, Report, ReportKind, TaskMessage
from agent_engines.domain.tasks import PriorityClass, TaskError, TaskRequest, TaskStatus
from agent_engines.learning.lesson import Lesson
from agent_engines.ports.connections import Connections
from agent_engines.runtime.decider import Decider
from agent_engines.runtime.desk import TaskDesk
from agent_engines.runtime.dispatcher import Dispatcher, DispatchOptions
from agent_engines.runtime.events import TaskEvents
from agent_engines.runtime.fleet import Fleet
from agent_engines.runtime.hearing import Hearing
from agent_engines.runtime.hedging import Hedging
from agent_engines.runtime.learned import Learned
from agent_engines.runtime.outcomes import Outcome
from agent_engines.runtime.recorder import Recorder
from agent_engines.runtime.redispatch import Redispatcher
from agent_engines.runtime.shipped_strategies import PolicyMaker, makers
from agent_engines.runtime.strategies import Strategies, StrategyChoice


class RoutingHouse:
    """Everything an intelligence engine is made of, on a clock the test moves. Use `async with`."""

    def __init__(
        self,
        *,
        seed: int = 1,
        lanes: int = 2,
        max_tasks_per_class: int = 1000,
        choice: StrategyChoice | None = None,
        policies: Mapping[str, PolicyMaker] | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(clock=self.clock, max_tasks_per_class=max_tasks_per_class)
        self.ledger = MemoryLedger(self.clock)
        self.cache = MemoryCache(clock=self.clock)
        self.telemetry = NullTelemetry(debug=True)
        self.connections = Connections(
            bus=self.bus, telemetry=self.telemetry, clock=self.clock, ledger=self.ledger, cache=self.cache
        )
        rule = BreakerRule(threshold=3, open_seconds=60.0, jitter=0.0)
        self.fleet = Fleet(
            self.bus, self.ledger.agents, clock=self.clock, telemetry=self.telemetry, rule=rule, rng=Random(seed)
        )
        self.capabilities = Capabilities([TEST_CAPABILITY_KEY])
        ids = itertools.count(1)
        self.learned = Learned()
        self.lessons: list[Lesson] = []
        made = makers(Random(seed), self.learned, price=0.1, policies=policies)
        choice = choice or StrategyChoice(default="load_aware")
        self.strategies = Strategies(
            made, choice, telemetry=self.telemetry, rng=Random(seed), teach=self.lessons.append
        )
        self.fleet.on_load = self.strategies.loaded
        decider = Decider(self.fleet, self.strategies, clock=self.clock, telemetry=self.telemetry)
        self.dispatcher = Dispatcher(
            self.connections,
            self.ledger,
            self.fleet,
            decider=decider,
            new_id=lambda: f"id-{next(ids)}",
            options=DispatchOptions(origin="here", capabilities=self.capabilities, lanes=lanes),
        )
        self.calm = True
        self.hedging = self.dispatcher.hedging = Hedging(
            self.connections,
            self.ledger,
            self.fleet,
            self.strategies,
            decider=decider,
            dispatches=self.dispatcher.dispatches,
            calm=lambda: self.calm,
        )
        self.redispatcher = Redispatcher(
            self.bus, self.ledger, self.dispatcher, self.fleet, clock=self.clock, telemetry=self.telemetry
        )
        self.desk = TaskDesk(
            self.bus,
            self.ledger,
            self.redispatcher,
            clock=self.clock,
            telemetry=self.telemetry,
            cache=self.cache,
        )
        self.hearing = Hearing(self.connections, self.capabilities, home="this-router", take=self._take, desk=self.desk)
        self.recorder = Recorder(
            self.bus,
            self.ledger.tasks,
            capabilities=self.capabilities,
            clock=self.clock,
            telemetry=self.telemetry,
            on_retry=self.redispatcher.arm,
            listener=self.hearing,
        )
        self.events = TaskEvents(self.bus, self.ledger, self.desk, self.telemetry.log("intelligence"))
        self._beats: Iterator[int] = itertools.count(1)

    async def __aenter__(self) -> RoutingHouse:
        await self.hearing.start()
        await self.fleet.start()
        await settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.dispatcher.close()
        await self.hedging.stop()
        await self.redispatcher.stop()
        await self.recorder.stop()
        await self.hearing.stop()
        await self.fleet.stop()
        await self.bus.close()

    async def beat(self, agent: str, task_types: tuple[str, ...] | None = ("echo",), **changes: Any) -> None:
        """One heartbeat; `task_types` None: a light one. `load` and other fields as changes."""
        profile = None
        metadata, idempotent = changes.pop("metadata", {}), changes.pop("idempotent", False)
        if task_types is not None:
            capabilities = tuple(
                Capability(task_type=name, max_attempts=4, idempotent=idempotent) for name in task_types
            )
            profile = AgentProfile(name=agent, capabilities=capabilities, metadata=metadata)
        fields: dict[str, Any] = {
            "replica": "r1",
            "state": AgentState.RUNNING,
            "load": Load(slots=10),
            "sent_at": self.clock.now(),
            "seq": next(self._beats),
        }
        beat = Heartbeat(agent=agent, profile=profile, **(fields | changes))
        await self.bus.signals.send(subjects.heartbeat(agent), msgspec.json.encode(beat))
        await settle()

    async def submit(self, task_type: str = "echo", payload: Any = None, **fields: Any) -> Acceptance:
        """Submit one task that must be accepted."""
        found = await self.dispatcher.submit([TaskRequest(task_type=task_type, payload=payload, **fields)])
        assert found[0].accepted is not None, found[0].refused
        return found[0].accepted

    async def queued(self, agent: str) -> list[TaskMessage]:
        """Take everything that waits for an agent, and acknowledge it."""
        inbox = await self.bus.tasks.open_inbox(agent)
        messages: list[TaskMessage] = []
        for priority in PriorityClass:
            deliveries = await inbox.pull(priority, 1000, 0.0)
            await inbox.ack(deliveries)
            messages.extend(delivery.message for delivery in deliveries if delivery.message is not None)
        return messages

    def report(self, message: TaskMessage, status: TaskStatus = TaskStatus.SUCCESS, **changes: Any) -> Report:
        """The final report of one attempt."""
        now = self.clock.now()
        fields: dict[str, Any] = {
            "kind": ReportKind.FINAL,
            "task_id": message.task_id,
            "request_id": message.request_id,
            "task_type": message.task_type,
            "agent": message.agent,
            "replica": "r1",
            "generation": message.generation,
            "attempt": message.attempt,
            "status": status,
            "result": msgspec.Raw(b'"done"') if status is TaskStatus.SUCCESS else msgspec.Raw(b"null"),
            "error": None if status is TaskStatus.SUCCESS else TaskError("ValueError", "it broke", retryable=True),
            "started_at": now,
            "completed_at": now + 0.01,
            "execution_time_ms": 10.0,
            "origin": message.origin,
            "submitted_at": message.submitted_at,
            "capability": message.capability,
        }
        return Report(**(fields | changes))

    def retry(self, message: TaskMessage, seconds: float = 5.0, **changes: Any) -> Report:
        """The report of an attempt that is to be repeated in `seconds`."""
        return self.report(
            message,
            TaskStatus.RETRYING,
            **({"kind": ReportKind.RETRY, "retry_at": self.clock.now() + seconds} | changes),
        )

    def _take(self, told: Sequence[Outcome], _sealed: bool) -> None:
        outcomes = self.hedging.recorded(told)
        self.strategies.learned(outcomes, self.clock.now(), lambda task_type: None)
        self.fleet.learned(outcomes)
        self.redispatcher.recorded(outcomes)
        self.desk.recorded(outcomes)


async def settle(turns: int = 20) -> None:
    """Let everything that is ready now run."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], turns: int = 2000) -> None:
    """Let others run until the condition holds; fails when it does not come to hold."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition did not come to hold")
