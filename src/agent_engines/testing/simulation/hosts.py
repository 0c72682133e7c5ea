"""What runs where: routers and agents of the real runtime, each in a process of the simulation that may die and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, TypeVar

from agent_engines.adapters.memory.secrets import TEST_CAPABILITY_KEY
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.breaker import BreakerRule
from agent_engines.domain.capability import Capabilities
from agent_engines.domain.errors import PermanentFailure, Unavailable
from agent_engines.ports.bus import Bus
from agent_engines.ports.clock import Clock
from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import Ledger
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.decider import Decider
from agent_engines.runtime.desk import TaskDesk
from agent_engines.runtime.dispatcher import Dispatcher, DispatchOptions
from agent_engines.runtime.engine import Engine
from agent_engines.runtime.fleet import Fleet
from agent_engines.runtime.hearing import Hearing
from agent_engines.runtime.hedging import Hedging
from agent_engines.runtime.learned import Learned
from agent_engines.runtime.outcomes import Outcome
from agent_engines.runtime.recorder import Recorder
from agent_engines.runtime.redispatch import Redispatcher, RedispatchOptions
from agent_engines.runtime.rule_strategy import LoadAwareStrategy
from agent_engines.runtime.shipped_strategies import makers
from agent_engines.runtime.strategies import Strategies, StrategyChoice
from agent_engines.testing.history import Execution

from .process import Process
from .virtual_loop import VirtualLoop

Answer = TypeVar("Answer")
HEDGED_SHARE, LONGEST_WAIT_SECONDS = 0.7, 4.0
TASK_TYPE = "work"
LONGEST_SECONDS = 5.0
"""The time limit of every attempt."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The classes under test; a planted bug replaces one."""

    dispatcher: type[Dispatcher] = Dispatcher
    recorder: type[Recorder] = Recorder
    redispatcher: type[Redispatcher] = Redispatcher
    desk: type[TaskDesk] = TaskDesk
    engine: type[Engine] = Engine


@dataclass(slots=True)
class Surroundings:
    """What a process gets from its world. `connect(process)` gives it its own view of bus and ledger."""

    connect: Callable[[Process], tuple[Bus, Ledger]]
    loop: VirtualLoop
    clock: Clock
    rng: Random
    parts: Parts
    longest_timeout: float
    """What the reconciler allows for on top of two leases."""
    hedges: Random | None = None
    """When tasks get second legs; None: in this world they do not."""
    executions: list[Execution] = field(default_factory=list[Execution])

    def connections(self, process: Process) -> Connections:
        bus, ledger = self.connect(process)
        return Connections(bus=bus, telemetry=NullTelemetry(), clock=self.clock, ledger=ledger)

    def seed(self) -> Random:
        return Random(self.rng.getrandbits(64))


class Impatient(LoadAwareStrategy):
    """Hedges as chance will have it: what two legs may do to each other does not depend on when the second one starts."""

    def __init__(self, rng: Random, hedges: Random) -> None:
        super().__init__(rng)
        self._hedges = hedges

    def hedge_after(self, predicted: float, ticket: Any) -> float | None:
        if self._hedges.random() > HEDGED_SHARE:
            return None
        return self._hedges.random() * self._hedges.choice((0.1, 1.0, LONGEST_WAIT_SECONDS))

    def hedged(self) -> None:
        """There is no budget."""

    def raced(self, *, won: bool) -> None:
        """Here every hedge is worth its price."""


class Host:
    """A place where one program runs; `crash` ends it without a word, `start` begins it anew."""

    def __init__(self, name: str, surroundings: Surroundings) -> None:
        self.name = name
        self.surroundings = surroundings
        self.process: Process | None = None
        self._life = 0

    def start(self) -> None:
        if self.process is not None and self.process.alive:
            return
        self._life += 1
        # The name is the machine's: a cut network does not heal because a program starts again.
        self.process = Process(self.name)
        self.process.spawn(self.main(self.process, self.surroundings.seed()), name=f"{self.name}-{self._life}")

    def crash(self) -> None:
        if self.process is not None:
            self.process.kill()
            # Its stacks unwind, which a stopped process could not.
            self.surroundings.loop.thaw(self.process)

    async def main(self, process: Process, rng: Random) -> None:
        raise NotImplementedError

    async def ended(self) -> None:
        """Wait until nothing of a killed process is left."""
        while self.process is not None and self.process.tasks:
            await asyncio.sleep(0)


@dataclass(slots=True)
class RouterParts:
    dispatcher: Dispatcher
    desk: TaskDesk
    fleet: Fleet
    recorder: Recorder
    redispatcher: Redispatcher
    hedging: Hedging
    hearing: Hearing


def _take(hedging: Hedging, fleet: Fleet, desk: TaskDesk, outcomes: Sequence[Outcome], sealed: bool) -> None:
    heard = hedging.recorded(outcomes)
    fleet.learned(heard)
    desk.recorded(heard)


class RouterHost(Host):
    """The intelligence engine's runtime, without its doors: clients call `ask`."""

    def __init__(self, name: str, surroundings: Surroundings) -> None:
        super().__init__(name, surroundings)
        self.router: RouterParts | None = None
        self._ids = 0

    async def main(self, process: Process, rng: Random) -> None:
        connections = self.surroundings.connections(process)
        router = self._join(connections, rng)
        await _until_done(router.hearing.start)
        await _until_done(router.fleet.start)
        await _until_done(router.recorder.start)
        await router.redispatcher.start()
        if self.surroundings.hedges is not None:
            await router.hedging.start()
        self.router = router

    async def ask(self, work: Callable[[RouterParts], Coroutine[Any, Any, Answer]], seconds: float) -> Answer:
        """Let the router do something for a client. Raises what it raises; TimeoutError, ConnectionError: no answer."""
        process, router = self.process, self.router
        if process is None or not process.alive or router is None:
            raise ConnectionRefusedError(self.name)
        task = process.spawn(work(router), name="request")
        done, _ = await asyncio.wait([task], timeout=seconds)
        if not done:
            raise TimeoutError
        if task.cancelled():
            raise ConnectionResetError(self.name)
        return task.result()

    def crash(self) -> None:
        super().crash()
        self.router = None

    def _join(self, connections: Connections, rng: Random) -> RouterParts:
        parts = self.surroundings.parts
        bus, clock, telemetry, ledger = connections.bus, connections.clock, connections.telemetry, connections.ledger
        assert ledger is not None
        rule = BreakerRule(threshold=10, open_seconds=5.0)
        fleet = Fleet(bus, ledger.agents, clock=clock, telemetry=telemetry, rule=rule, rng=Random(rng.random()))
        capabilities = Capabilities([TEST_CAPABILITY_KEY])
        options = DispatchOptions(origin=self.name, capabilities=capabilities)
        choice = StrategyChoice(default="load_aware", fallback="random")
        made, hedges = makers(rng, Learned(), price=0.1), self.surroundings.hedges
        if hedges is not None:
            made["load_aware"] = lambda: Impatient(rng, hedges)
        strategies = Strategies(made, choice, telemetry=telemetry, rng=rng)
        decider = Decider(fleet, strategies, clock=clock, telemetry=telemetry)
        dispatcher = parts.dispatcher(connections, ledger, fleet, decider=decider, new_id=self._new_id, options=options)
        hedging = Hedging(connections, ledger, fleet, strategies, decider=decider, dispatches=dispatcher.dispatches)
        dispatcher.hedging = hedging
        allowed = self.surroundings.longest_timeout
        redispatcher = parts.redispatcher(
            bus,
            ledger,
            dispatcher,
            fleet,
            clock=clock,
            telemetry=telemetry,
            options=RedispatchOptions(longest_timeout=allowed),
        )
        desk = parts.desk(bus, ledger, redispatcher, clock=clock, telemetry=telemetry)
        take = partial(_take, hedging, fleet, desk)
        hearing = Hearing(connections, capabilities, home=self.name, take=take, desk=desk)
        recorder = parts.recorder(
            bus,
            ledger.tasks,
            capabilities=capabilities,
            clock=clock,
            telemetry=telemetry,
            on_retry=redispatcher.arm,
            listener=hearing,
        )
        return RouterParts(dispatcher, desk, fleet, recorder, redispatcher, hedging, hearing)

    def _new_id(self) -> str:
        self._ids += 1
        return f"{self.name}-{self._life}-{self._ids}"


class AgentHost(Host):
    """One replica of an agent: the real engine with one handler that does what the payload says."""

    def __init__(self, agent: str, number: int, surroundings: Surroundings, *, slots: int) -> None:
        super().__init__(f"{agent}.{number}", surroundings)
        self._agent = agent
        self._slots = slots
        self.engine: Engine | None = None

    async def main(self, process: Process, rng: Random) -> None:
        config = AgentConfig(
            agent_id=self._agent,
            max_concurrent_tasks=self._slots,
            queue_size=8,
            task_timeout_seconds=LONGEST_SECONDS,
            heartbeat_interval=5.0,
            shutdown_grace_seconds=1.0,
        )
        connections = self.surroundings.connections(process)
        while True:
            engine = self.engine = self.surroundings.parts.engine(config, rng=rng)
            twice = self.surroundings.hedges is not None
            engine.task(TASK_TYPE, timeout_seconds=LONGEST_SECONDS, idempotent=twice)(self._handler(process, rng))
            try:
                await engine.start(connections)
                return
            except Unavailable:
                await asyncio.sleep(0.5)

    async def drain_and_stop(self) -> None:
        """SIGTERM: end in an orderly way, then the process is gone."""
        process, engine = self.process, self.engine
        if process is None or engine is None or not process.alive:
            return
        try:
            await asyncio.wait([process.spawn(engine.stop(), name="stop")], timeout=20.0)
        finally:
            process.kill()

    def _handler(self, process: Process, rng: Random) -> Callable[..., Awaitable[dict[str, Any]]]:
        executions = self.surroundings.executions
        clock = self.surroundings.clock

        async def work(context: TaskContext, payload: dict[str, Any]) -> dict[str, Any]:
            token = f"{process.name}#{len(executions)}"
            executions.append(
                Execution(
                    task_id=context.task_id,
                    generation=context.generation,
                    attempt=context.attempt,
                    where=process.name,
                    at=clock.monotonic(),
                    token=token,
                )
            )
            await asyncio.sleep(float(payload["seconds"]))
            if payload.get("kills") and rng.random() < payload["kills"]:
                process.kill()
                await asyncio.sleep(0)
            if context.attempt <= int(payload.get("fails", 0)):
                raise RuntimeError("not this time")
            if payload.get("hopeless"):
                raise PermanentFailure("never")
            return {"n": payload["n"], "token": token}

        return work


async def _until_done(work: Callable[[], Awaitable[Any]]) -> None:
    while True:
        try:
            await work()
            return
        except Unavailable:
            await asyncio.sleep(0.5)
