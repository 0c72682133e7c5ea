"""One run: a seed makes the world, its faults and its clients; the checker says whether every promise was kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from enum import StrEnum
from random import Random
from typing import Any, cast

import msgspec

from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.ports.bus import Bus
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import Ledger
from agent_engines.testing.evidence import Evidence
from agent_engines.testing.history import History, Op, Phase, Row, Violation, check

from .broker_model import Broker
from .broker_ports import BROKER, SimulatedBus, Switchboard
from .faults import CLEAR, Misfortune, Plan, Strike
from .hosts import LONGEST_SECONDS, AgentHost, Host, Parts, RouterHost, Surroundings
from .ledger_model import LEDGER, LedgerServer
from .network import Network
from .process import Process
from .virtual_loop import Stuck, VirtualClock, VirtualLoop
from .workload import Clients, Habits

WARM_UP_SECONDS = 1.5
FAULT_SECONDS = 30.0
BOUND_SECONDS = 400.0
"""Liveness: everything accepted has ended by then. Three rounds of patience (two leases, the time limit, twice the queue
ahead, the reconciler's period) and the backoff of a full retry budget."""


class Mode(StrEnum):
    SAFETY = "safety"
    """Faults to the end: nothing wrong may ever be written or told."""
    LIVENESS = "liveness"
    """Faults stop: then everything accepted must end."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one run showed. `digest` covers all that the servers did: equal seeds, equal digests."""

    seed: int
    mode: Mode
    violations: tuple[str, ...]
    digest: str
    tasks: int
    accepted: int
    executions: int
    hedges: int
    seconds: float
    """Virtual."""
    trace: tuple[str, ...] = ()


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """Bugs to plant: replaced classes, a ledger that misbehaves, a queue that drops."""

    parts: Parts = Parts()
    ledger: Callable[[Clock], MemoryLedger] = MemoryLedger
    discard_old: bool = False


SOUND = Planted()


class World:
    """Everything of one run. Made inside its loop."""

    def __init__(self, seed: int, mode: Mode, loop: VirtualLoop, planted: Planted, *, keep_trace: bool) -> None:
        rng = self.rng = Random(f"{mode} {seed}")
        self._mode = mode
        self.clock = VirtualClock(loop)
        self.loop = loop
        self.lease = rng.choice((4.0, 6.0, 10.0))
        self.plan = Plan.of(rng, lease=self.lease, until=FAULT_SECONDS)
        self.network = Network(loop, Random(rng.getrandbits(64)), keep_trace=keep_trace)
        self.evidence = Evidence()
        limit = rng.choice((2, 4, 1_000_000, 1_000_000))
        self.broker = Broker(
            self.network,
            self.evidence,
            self.lease,
            window=rng.choice((2.0, 15.0, 120.0)),
            limit=limit,
            discard_old=planted.discard_old,
        )
        self.switchboard = Switchboard(self.network)
        self.ledger = LedgerServer(self.network, planted.ledger(self.clock), self.evidence)
        # As in production, a poisonous task is found (four leases) before the reconciler's patience ends.
        allowed = max(LONGEST_SECONDS, 2.5 * self.lease)
        self.surroundings = Surroundings(
            self._connect, loop, self.clock, Random(rng.getrandbits(64)), planted.parts, allowed
        )
        # Of its own, so that a world without hedges is what it was before there were any.
        hedges = Random(f"hedges {mode} {seed}")
        self.surroundings.hedges = hedges if hedges.random() < 0.5 else None
        self.routers = [RouterHost(f"router-{n}", self.surroundings) for n in range(rng.choice((1, 2)))]
        self.agents = [
            AgentHost(f"agent-{n}", replica, self.surroundings, slots=rng.choice((1, 2, 8)))
            for n in range(rng.choice((1, 2, 3)))
            for replica in range(rng.choice((1, 1, 2)))
        ]
        self.count = rng.choice((4, 12, 30))
        self.clients = Clients(self.routers, self.clock, Random(rng.getrandbits(64)), Habits.of(rng))
        self._struck: set[asyncio.Task[None]] = set()

    @property
    def hosts(self) -> list[Host]:
        return [*self.routers, *self.agents]

    async def run(self) -> None:
        for host in self.hosts:
            host.start()
        await self.clock.sleep(WARM_UP_SECONDS)
        started = self.clock.monotonic()
        guard = asyncio.ensure_future(self._supervise())
        clients = asyncio.ensure_future(self.clients.run(self.count, FAULT_SECONDS * 0.8))
        self.network.weather = self.plan.weather
        for misfortune in self.plan.misfortunes:
            await self.clock.sleep(max(0.0, started + misfortune.at - self.clock.monotonic()))
            self._strike(misfortune)
        await self.clock.sleep(max(0.0, started + FAULT_SECONDS - self.clock.monotonic()))
        if self._mode is Mode.LIVENESS:
            self._heal()
            await clients
            await self._calm()
        else:
            await clients
        guard.cancel()
        await self._end()

    def history(self) -> History:
        tables = self.ledger.ledger.tables
        tasks, reports = self.broker.remaining()
        remaining: list[tuple[str, Hashable]] = [("task", key) for key in tasks]
        remaining.extend(("report", key) for key in reports)
        return History(
            calls=self.clients.calls,
            rows=[self._row(task_id) for task_id in {**tables.tasks, **tables.outcomes}],
            executions=self.surroundings.executions,
            facts=self.evidence.facts,
            remaining=remaining,
        )

    def _row(self, task_id: str) -> Row:
        tables = self.ledger.ledger.tables
        row, outcome = tables.tasks.get(task_id), tables.outcomes.get(task_id)
        report = None if outcome is None else outcome.report
        request_id = row.task.request_id if row is not None else cast("Any", report).request_id
        return Row(
            task_id=task_id,
            request_id=request_id,
            key=None if row is None else row.task.idempotency_key,
            submitted=row is not None,
            generation=1 if row is None else row.generation,
            max_attempts=3 if row is None else row.task.max_attempts or 3,
            end=None if report is None else report.status,
            end_generation=None if report is None else report.generation,
            end_delivery=0 if report is None else report.delivery,
            ends=0 if report is None else 1,
            result=None if report is None else msgspec.json.decode(report.result),
            error="" if report is None or report.error is None else report.error.type,
            deadline=None if row is None else row.task.deadline,
            legs=() if row is None or row.legs is None else tuple(row.legs),
        )

    def _connect(self, process: Process) -> tuple[Bus, Ledger]:
        return SimulatedBus(process, self.broker, self.switchboard), self.ledger.view(process)

    def _strike(self, misfortune: Misfortune) -> None:
        self.network.note(f"{misfortune.strike} {misfortune.target} for {misfortune.seconds:.3f} s")
        host = self.hosts[misfortune.target % len(self.hosts)]
        match misfortune.strike:
            case Strike.BROKER_ELECTION:
                self.broker.elect()
            case Strike.BROKER_FORGETS_IDS:
                self.broker.forget_ids()
            case Strike.CRASH:
                host.crash()
            case _:
                task = asyncio.ensure_future(self._endure(misfortune, host))
                self._struck.add(task)
                task.add_done_callback(self._struck.discard)

    async def _endure(self, misfortune: Misfortune, host: Host) -> None:
        """A misfortune with an end."""
        match misfortune.strike:
            case Strike.FREEZE:
                await self._freeze(host, misfortune.seconds)
            case Strike.DRAIN if isinstance(host, AgentHost):
                await host.drain_and_stop()
            case Strike.BROKER_DOWN | Strike.BROKER_POWER:
                if misfortune.strike is Strike.BROKER_POWER:
                    self.broker.lose_power()
                self.broker.drop_connections()
                await self._down(BROKER, misfortune.seconds)
            case Strike.LEDGER_DOWN:
                await self._down(LEDGER, misfortune.seconds)
            case Strike.CUT_BROKER | Strike.CUT_LEDGER:
                pair = host.name, BROKER if misfortune.strike is Strike.CUT_BROKER else LEDGER
                self.network.cut.add(pair)
                await self.clock.sleep(misfortune.seconds)
                self.network.cut.discard(pair)
            case _:
                host.crash()

    async def _freeze(self, host: Host, seconds: float) -> None:
        process = host.process
        if process is None:
            return
        process.freeze()
        await self.clock.sleep(seconds)
        self.loop.thaw(process)

    async def _down(self, server: str, seconds: float) -> None:
        self.network.down.add(server)
        await self.clock.sleep(seconds)
        self.network.down.discard(server)

    def _heal(self) -> None:
        """All faults end at once."""
        for task in list(self._struck):
            task.cancel()
        self.network.note("all is well")
        self.network.weather = CLEAR
        self.network.down.clear()
        self.network.cut.clear()
        for host in self.hosts:
            if host.process is not None:
                self.loop.thaw(host.process)

    async def _supervise(self) -> None:
        """What a process manager does: start again what died."""
        rng = Random(self.rng.getrandbits(64))
        while True:
            await self.clock.sleep(0.3 + rng.random())
            for host in self.hosts:
                if host.process is None or not host.process.alive:
                    host.start()

    async def _calm(self) -> None:
        until = self.clock.monotonic() + BOUND_SECONDS
        while self.clock.monotonic() < until and self._open():
            await self.clock.sleep(1.0)

    def _open(self) -> bool:
        """Is anything that a client believes in without an end?"""
        outcomes = self.ledger.ledger.tables.outcomes
        return any(
            call.op is Op.SUBMIT and call.phase is Phase.OK and call.task_id not in outcomes
            for call in self.clients.calls
        )

    async def _end(self) -> None:
        for host in self.hosts:
            host.crash()
        for host in self.hosts:
            await host.ended()


def simulate(seed: int, mode: Mode = Mode.LIVENESS, planted: Planted = SOUND, *, keep_trace: bool = False) -> Outcome:
    """Run one seed to its end and judge it."""
    loop = VirtualLoop()
    world: World | None = None

    async def live() -> World:
        nonlocal world
        world = World(seed, mode, loop, planted, keep_trace=keep_trace)
        await world.run()
        return world

    found: list[str] = []
    try:
        loop.run_until_complete(live())
    except Stuck as stuck:
        found.append(f"stuck loop: {stuck}")
    assert world is not None
    history = world.history()
    found.extend(str(violation) for violation in _judged(history, mode))
    outcome = Outcome(
        seed=seed,
        mode=mode,
        violations=tuple(found),
        digest=world.network.digest,
        tasks=world.count,
        accepted=sum(call.op is Op.SUBMIT and call.phase is Phase.OK for call in history.calls),
        executions=len(world.surroundings.executions),
        hedges=sum(fact.what == "hedged" for fact in world.evidence.facts),
        seconds=loop.time(),
        trace=tuple(world.network.trace or ()),
    )
    loop.close()
    return outcome


def _judged(history: History, mode: Mode) -> list[Violation]:
    return check(history, all_ended=mode is Mode.LIVENESS)
