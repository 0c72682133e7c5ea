"""The intelligence engine: routes every task, explains why, learns from outcomes. Any number of replicas work side by side."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from secrets import token_bytes
from typing import Any

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentMode
from agent_engines.domain.breaker import BreakerRule
from agent_engines.domain.capability import SHARED_NAME, Capabilities
from agent_engines.domain.decisions import Decision, DecisionContext, Recommendation
from agent_engines.domain.errors import ConfigurationError, InvalidRequest, Unavailable
from agent_engines.domain.messages import SubmitResult
from agent_engines.domain.tasks import TaskRequest, TaskStatus, TaskView
from agent_engines.ports.connections import Connections
from agent_engines.ports.feedback import FeedbackService
from agent_engines.ports.later import RedriveService, ScheduleService
from agent_engines.ports.ledger import (
    AttemptView,
    DeadLetter,
    DecisionFilter,
    Ledger,
    LetterFilter,
    Page,
    Several,
    TaskFilter,
)
from agent_engines.ports.policies import PolicyService
from agent_engines.ports.service import AgentView, Readiness, TaskEvent
from agent_engines.ports.tenants import TenantService
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.desk import TaskDesk
from agent_engines.runtime.dispatcher import Dispatcher, DispatchOptions
from agent_engines.runtime.engine import Engine
from agent_engines.runtime.events import TaskEvents
from agent_engines.runtime.feedback import FeedbackDesk
from agent_engines.runtime.fleet import Fleet
from agent_engines.runtime.hearing import Hearing
from agent_engines.runtime.hedging import Hedging
from agent_engines.runtime.outcomes import Outcome
from agent_engines.runtime.recorder import Recorder
from agent_engines.runtime.redispatch import Redispatcher, RedispatchOptions
from agent_engines.runtime.tenants import Pricer, TenantBooks

from .chores import Chores, candidate
from .gateway import Gateway
from .guard import Guard
from .later import Later
from .replay import asked_to_replay
from .route_span import parent_of, told_of
from .routing import Routing, RoutingOptions
from .whereabouts import located

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils import uuid7

REPORT_SECONDS = 1.0
ASK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What a started intelligence engine is made of."""

    connections: Connections
    ledger: Ledger
    fleet: Fleet
    routing: Routing
    dispatcher: Dispatcher
    redispatcher: Redispatcher
    recorder: Recorder
    hearing: Hearing
    guard: Guard
    desk: TaskDesk
    hedging: Hedging
    events: TaskEvents
    chores: Chores
    later: Later
    feedback: FeedbackDesk
    books: TenantBooks


class IntelligenceEngine(Engine):
    """Implements ports.service.IntelligenceService. `seed` makes its choices repeatable; `routing`: how it chooses.

    What ended more than `retention_days` ago is deleted. `capability_keys` mark dispatches, the newest first; none: the
    routers share one in the ledger. `pricer`: the price of cost for a tenant by the pace of its spending; None: as
    `routing.pacing` says.
    """

    def __init__(
        self,
        config: AgentConfig | str = "intelligence",
        *,
        seed: int | None = None,
        routing: RoutingOptions | None = None,
        retention_days: float = 30.0,
        capability_keys: Sequence[str] = (),
        pricer: Pricer | None = None,
    ) -> None:
        super().__init__(config, agent_type="intelligence")
        self._rng = Random(seed)
        self.routing: RoutingOptions | None = routing
        self._retention_days = retention_days
        self._pricer = pricer
        self._capability_keys = tuple(capability_keys)
        self._joined: Parts | None = None
        self._gateway: Gateway | None = None
        self._reports: dict[tuple[str, str], tuple[float, dict[str, Any]]] = {}

    async def on_start(self, connections: Connections) -> None:
        parts = self._joined = self._join(connections, await self._capabilities(connections))
        await parts.hearing.start()
        await parts.routing.start()
        await parts.fleet.start()
        await parts.guard.start()
        await parts.recorder.start()
        await parts.redispatcher.start()
        await parts.hedging.start()
        await parts.chores.start()
        await parts.later.start()
        await parts.feedback.start()
        await parts.books.start()
        self._gateway = Gateway(self, connections.bus, connections.telemetry.log("intelligence"))
        await self._gateway.start()

    async def on_stop(self) -> None:
        """Intake ends first, then what was taken gets its answer, then the chores end."""
        if self._gateway is not None:
            await self._gateway.stop()
        parts = self._joined
        if parts is None:
            return
        await parts.hedging.stop()
        await parts.chores.stop()
        await parts.later.stop()
        await parts.feedback.stop()
        await parts.books.stop()
        # Side by side: while the ledger is away each of them waits for an answer that does not come.
        await asyncio.gather(parts.dispatcher.close(), parts.redispatcher.stop(), parts.recorder.stop())
        await parts.guard.stop()
        await parts.fleet.stop()
        await parts.routing.stop()
        await parts.hearing.stop()

    async def route_task(self, context: DecisionContext) -> Recommendation:
        """Who should do this? Nothing is dispatched. Raises NoEligibleAgent, InvalidRequest, Unavailable."""
        return Recommendation.of(await self.recommend(context))

    async def submit(
        self,
        requests: Sequence[TaskRequest],
        *,
        origin: str | None = None,
        traceparent: str | None = None,
        fresh: bool = False,
    ) -> list[SubmitResult]:
        parts = self._parts
        parent, requests = parent_of(requests, traceparent)
        kind = requests[0].task_type if len(requests) == 1 else None
        telemetry = parts.connections.telemetry
        with telemetry.span("route", parent=parent, kind="server", tasks=len(requests), task_type=kind) as entered:
            carried = entered.traceparent or parent
            results = await parts.later.planner.submit(requests, origin=origin, traceparent=carried, fresh=fresh)
            if telemetry.tracing:
                entered.set(**told_of(results))
            return results

    async def recommend(self, context: DecisionContext) -> Decision:
        return await self._parts.dispatcher.recommend(context)

    async def task(self, task_id: str, wait: float = 0.0) -> TaskView:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Read one task. An intelligence engine hosts no handlers: `Engine.task` is for engines that do."""
        return await self._parts.desk.task(task_id, wait)

    async def ended(self, task_ids: Sequence[str], wait: float = 0.0) -> Several:
        return await self._parts.desk.ended(task_ids, wait)

    async def tasks(self, wanted: TaskFilter) -> Page:
        return await self._parts.desk.tasks(wanted)

    async def several(self, task_ids: Sequence[str], most_bytes: int) -> Several:
        """Those that are known, ended or not, as long as their results weigh less; at least one if there is one."""
        return await self._parts.ledger.reader.several(task_ids, most_bytes)

    async def attempts(self, task_id: str) -> list[AttemptView]:
        return await self._parts.ledger.reader.attempts(task_id)

    async def counts(self) -> dict[str, int]:
        return await self._parts.ledger.reader.counts()

    async def cancel(self, task_id: str) -> TaskStatus:
        return await self._parts.desk.cancel(task_id)

    async def retry(self, task_id: str) -> TaskView:
        return await self._parts.desk.retry(task_id)

    async def events(self, task_id: str, after: str | None = None) -> AsyncIterator[TaskEvent]:
        async with aclosing(self._parts.events.follow(task_id, after)) as events:
            async for event in events:
                yield event

    async def decision(self, request_id: str) -> Decision:
        return await self._parts.ledger.decisions.decision(request_id)

    async def decisions(self, wanted: DecisionFilter) -> Page:
        return await self._parts.ledger.decisions.decisions(wanted)

    async def wait_for_agents(self, names: Collection[str]) -> None:
        """Return as soon as each of these was heard from and is in the ledger: before that no task can go to it."""
        fleet = self._parts.fleet
        while not fleet.registered.issuperset(names):
            await fleet.wait_for_change()

    def agents(self) -> list[AgentView]:
        return located(self._parts.fleet.agents(), self._parts.connections.discovery)

    def agent(self, name: str) -> AgentView:
        return located([self._parts.fleet.agent(name)], self._parts.connections.discovery)[0]

    async def set_mode(self, name: str, mode: AgentMode) -> AgentView:
        return await self._parts.fleet.set_mode(name, mode)

    async def dead_letters(self, limit: int, cursor: str | None) -> Page:
        return await self._parts.desk.dead_letters(limit, cursor)

    async def dead_letter(self, task_id: str) -> DeadLetter:
        return await self._parts.ledger.reader.dead_letter(task_id)

    @property
    def schedules(self) -> ScheduleService:
        return self._parts.later.schedules

    @property
    def redrives(self) -> RedriveService:
        return self._parts.later.redrives

    @property
    def tenants(self) -> TenantService:
        return self._parts.books

    @property
    def feedback(self) -> FeedbackService:
        return self._parts.feedback

    async def letters(self, wanted: LetterFilter) -> Page:
        return await self._parts.ledger.reader.letters(wanted)

    async def redrive(self, task_id: str) -> TaskView:
        return await self._parts.desk.redrive(task_id)

    async def report(self, engine: str, what: str) -> dict[str, Any]:
        """Documents of other engines, at most a second old. Raises Unavailable, InvalidRequest."""
        if not (engine.isidentifier() and what.isidentifier()):
            raise InvalidRequest("engine and what must be plain names", field="what")
        connections = self._parts.connections
        now = connections.clock.monotonic()
        kept = self._reports.get((engine, what))
        if kept is not None and now - kept[0] < REPORT_SECONDS:
            return kept[1]
        data = await connections.bus.signals.ask(subjects.ask(engine, what), b"{}", ASK_SECONDS)
        try:
            document = msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise Unavailable(f"the {engine} engine's answer could not be read: {error}") from None
        self._reports[engine, what] = (now, document)
        return document

    async def replay(self, policy: str, since: float | None) -> dict[str, Any]:
        """What a policy would have earned on recorded decisions. Raises NotFound, Unavailable."""
        return await asked_to_replay(self._parts.connections.bus, policy, since)

    @property
    def policies(self) -> PolicyService:
        return self._parts.routing.promotions

    async def ready(self) -> Readiness:
        """Ready when it runs and has heard from at least one agent."""
        answer = await super().ready()
        if answer.status == "ready" and not self._parts.fleet.heard_from:
            return Readiness("not_ready", "no agent has been heard from yet")
        return answer

    @property
    def _parts(self) -> Parts:
        if self._joined is None:
            raise Unavailable("the intelligence engine has not started")
        return self._joined

    async def _capabilities(self, connections: Connections) -> Capabilities:
        """The configured keys, or the one the routers share in the ledger. Raises Unavailable, ValueError (keys)."""
        keys = [key.encode() for key in self._capability_keys]
        return Capabilities(keys or [await _ledger(connections).secrets.shared(SHARED_NAME, token_bytes(32))])

    def _fleet(self, connections: Connections, ledger: Ledger, origin: str) -> Fleet:
        rule = BreakerRule(threshold=self.config.breaker_threshold, open_seconds=self.config.breaker_timeout)
        return Fleet(
            connections.bus,
            ledger.agents,
            clock=connections.clock,
            telemetry=connections.telemetry,
            rule=rule,
            rng=Random(self._rng.random()),
            router=origin,
        )

    def _dispatcher(
        self, connections: Connections, ledger: Ledger, routing: Routing, origin: str
    ) -> tuple[Dispatcher, TenantBooks]:
        options = DispatchOptions(origin=origin, capabilities=routing.capabilities, texts=routing.texts)
        dispatcher = Dispatcher(
            connections, ledger, routing.fleet, decider=routing.decider, new_id=_new_id, options=options
        )
        pricer = self._pricer or routing.options.pricer
        books = TenantBooks(ledger.tenants, clock=connections.clock, telemetry=connections.telemetry, pricer=pricer)
        dispatcher.keep_books(books)
        return dispatcher, books

    def _join(self, connections: Connections, capabilities: Capabilities) -> Parts:
        ledger = _ledger(connections)
        bus, clock, telemetry = connections.bus, connections.clock, connections.telemetry
        origin = f"router-{_new_id()}"
        fleet = self._fleet(connections, ledger, origin)
        leader = candidate(connections, origin)
        routing = Routing.join(
            connections, ledger, fleet, leader, capabilities, options=self.routing or RoutingOptions(), rng=self._rng
        )
        dispatcher, books = self._dispatcher(connections, ledger, routing, origin)
        guard = Guard.join(connections, ledger, dispatcher)
        hedging = routing.hedging(connections, ledger, dispatcher, lambda: guard.admission.calm)
        again = RedispatchOptions(
            longest_timeout=self.config.task_timeout_seconds, leads=lambda: leader.leads() and guard.admission.calm
        )
        redispatcher = Redispatcher(bus, ledger, dispatcher, fleet, clock=clock, telemetry=telemetry, options=again)
        desk = TaskDesk(bus, ledger, redispatcher, clock=clock, telemetry=telemetry, cache=connections.cache)
        desk.journal = guard.journal
        hearing = Hearing(connections, capabilities, home=origin, take=self._take, desk=desk)
        recorder = Recorder(
            bus,
            ledger.tasks,
            capabilities=capabilities,
            clock=clock,
            telemetry=telemetry,
            on_retry=redispatcher.arm,
            listener=hearing,
        )
        events = TaskEvents(bus, ledger, desk, telemetry.log("intelligence"))
        days = self._retention_days
        chores = Chores.join(connections, ledger, leader, redispatcher=redispatcher, fleet=fleet, retention_days=days)
        later = Later.join(
            connections, ledger, dispatcher=dispatcher, redispatcher=redispatcher, desk=desk, new_id=_new_id
        )
        feedback = FeedbackDesk(
            bus, ledger, capabilities=capabilities, clock=clock, telemetry=telemetry, leads=leader.leads
        )
        heart = (fleet, routing, dispatcher, redispatcher, recorder, hearing, guard, desk, hedging)
        return Parts(connections, ledger, *heart, events, chores, later, feedback, books)

    def _take(self, outcomes: Sequence[Outcome], sealed: bool) -> None:
        """Hear what was recorded; `sealed`: it came through a router's gate."""
        parts = self._parts
        heard = parts.hedging.recorded(outcomes) if sealed else outcomes
        parts.routing.recorded(heard, parts.connections.clock.now(), sealed=sealed)
        parts.books.recorded(heard)
        parts.redispatcher.recorded(heard)
        parts.desk.recorded(heard)


def _ledger(connections: Connections) -> Ledger:
    """Raises ConfigurationError."""
    if connections.ledger is None:
        raise ConfigurationError(["POSTGRES_URL: the intelligence engine needs a ledger"])
    return connections.ledger


def _new_id() -> str:
    return str(uuid7())
