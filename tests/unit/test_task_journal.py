"""Tasks accepted while the ledger is away: on a bus that is safe they are as good as committed ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.errors import NotFound, Unavailable
from agent_engines.domain.messages import Acceptance, Refusal
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.ports.connections import Connections
from agent_engines.runtime import journal
from agent_engines.runtime.engine import Engine
from agent_engines.runtime.journal import TaskJournal
from switched_ledger import SwitchedLedger


class Town:
    """One router and one agent on a bus that survives a power cut, with a ledger that comes and goes."""

    def __init__(self, *, safe: bool = True, max_journal_entries: int = 1000) -> None:
        self.clock = SystemClock()
        self.telemetry = NullTelemetry()
        self.bus = MemoryBus(clock=self.clock, safe=safe, max_journal_entries=max_journal_entries)
        self.ledger = SwitchedLedger(MemoryLedger(self.clock))
        self.connections = Connections(
            bus=self.bus, telemetry=self.telemetry, clock=self.clock, ledger=self.ledger.port()
        )
        self.router = IntelligenceEngine(seed=3)
        self.agent = Engine("worker")
        self.runs: list[Any] = []
        self.fail_once: set[str] = set()

        @self.agent.task("echo", max_attempts=3)
        async def echo(payload: Any) -> Any:
            self.runs.append(payload)
            if payload in self.fail_once:
                self.fail_once.remove(payload)
                raise ValueError("not yet")
            return payload

    async def submit(self, payload: Any, **fields: Any) -> Acceptance | Refusal:
        (result,) = await self.router.submit([TaskRequest(task_type="echo", payload=payload, **fields)])
        answer = result.accepted or result.refused
        assert answer is not None
        return answer

    async def accepted(self, payload: Any, **fields: Any) -> Acceptance:
        answer = await self.submit(payload, **fields)
        assert isinstance(answer, Acceptance), answer
        return answer

    async def row(self, task_id: str) -> None:
        """Wait until the keeper has brought the task into the ledger."""
        await until(lambda: task_id in self.ledger.real.tables.tasks)


async def started(town: Town) -> AsyncIterator[Town]:
    await town.router.start(town.connections)
    await town.agent.start(town.connections)
    async with asyncio.timeout(30):
        while (await town.router.ready()).status != "ready":
            await asyncio.sleep(0.01)
    yield town
    await town.agent.stop(0.1)
    await town.router.stop()
    await town.bus.close()


@pytest.fixture
async def town(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    monkeypatch.setattr(journal, "LONGEST_PAUSE", 0.2)
    async for one in started(Town()):
        yield one


@pytest.fixture
async def unsafe_town() -> AsyncIterator[Town]:
    async for one in started(Town(safe=False)):
        yield one


@pytest.fixture
async def small_town() -> AsyncIterator[Town]:
    async for one in started(Town(max_journal_entries=2)):
        yield one


@pytest.mark.parametrize("known", [False, True], ids=["finds-out", "knows"])
async def test_a_task_is_accepted_and_runs_while_the_ledger_is_away(town: Town, known: bool) -> None:
    town.ledger.away, town.ledger.known = True, known
    answer = await town.accepted("hello")
    assert (answer.durability, answer.existing, answer.selected_agent) == ("journal", False, "worker")
    await until(lambda: town.runs == ["hello"])
    town.ledger.away = False
    await town.row(answer.task_id)
    view = await town.router.task(answer.task_id, wait=30.0)
    assert (view.status, view.result) == (TaskStatus.SUCCESS, "hello")
    assert town.runs == ["hello"]
    assert (await town.router.decision(answer.request_id)).selected_agent == "worker"


async def test_an_ordinary_answer_says_committed(town: Town) -> None:
    assert (await town.accepted("hello")).durability == "committed"
    assert (await town.bus.journal.state()).waiting == 0


async def test_a_bus_that_may_forget_accepts_nothing_alone(unsafe_town: Town) -> None:
    unsafe_town.ledger.away = True
    answer = await unsafe_town.submit("hello")
    assert isinstance(answer, Refusal)
    assert (answer.kind, answer.retry_after) == ("Unavailable", 2.0)


async def test_a_full_journal_refuses_and_says_when_to_come_back(small_town: Town) -> None:
    small_town.ledger.away = True
    answers = [await small_town.submit(number, idempotency_key=f"k{number}") for number in range(4)]
    assert [type(answer) for answer in answers] == [Acceptance, Acceptance, Refusal, Refusal]
    refused = answers[-1]
    assert isinstance(refused, Refusal)
    assert refused.kind == "Unavailable"
    assert refused.retry_after is not None
    small_town.ledger.away = False
    for answer in answers[:2]:
        assert isinstance(answer, Acceptance)
        await small_town.row(answer.task_id)
    assert (await small_town.accepted("more")).durability == "committed"


async def test_a_key_is_judged_by_the_ledger_before_the_task_runs(town: Town) -> None:
    town.ledger.away = True
    first = await town.accepted("one", idempotency_key="k")
    again = await town.accepted("one", idempotency_key="k")
    other = await town.submit("two", idempotency_key="k")
    assert (first.durability, first.existing) == ("journal", False)
    assert (again.task_id, again.existing, again.durability) == (first.task_id, True, "journal")
    assert isinstance(other, Refusal)
    assert other.kind == "Conflict"
    assert town.runs == []
    town.ledger.away = False
    await town.row(first.task_id)
    assert (await town.router.task(first.task_id, wait=30.0)).result == "one"
    assert town.runs == ["one"]


async def test_a_key_the_ledger_knows_from_before_does_not_run_twice(town: Town) -> None:
    first = await town.accepted("one", idempotency_key="k")
    await town.router.task(first.task_id, wait=30.0)
    town.ledger.away = True
    again = await town.accepted("one", idempotency_key="k")
    assert (again.task_id, again.durability) == (first.task_id, "journal")
    town.ledger.away = False
    await until_settled(town)
    assert town.runs == ["one"]


async def test_an_attempt_that_failed_meanwhile_is_tried_again_afterwards(town: Town) -> None:
    town.ledger.away = True
    town.fail_once.add("flaky")
    answer = await town.accepted("flaky")
    await until(lambda: town.runs == ["flaky"])
    town.ledger.away = False
    await town.row(answer.task_id)
    view = await town.router.task(answer.task_id, wait=30.0)
    assert (view.status, view.result, view.attempts) == (TaskStatus.SUCCESS, "flaky", 2)
    assert town.runs == ["flaky", "flaky"]


async def test_who_asks_before_the_keeper_came_is_answered(town: Town) -> None:
    keeper = town.router._parts.guard.journal
    await keeper.stop()
    town.ledger.away = True
    answer = await town.accepted("one", idempotency_key="k")
    with pytest.raises(Unavailable):
        await town.router.task(answer.task_id)
    town.ledger.away = False
    assert (await town.router.task(answer.task_id)).status is TaskStatus.QUEUED
    with pytest.raises(NotFound):
        await town.router.task("no-such-task")
    with pytest.raises(NotFound):
        await town.router.task("not a name for a subject")
    assert await town.router.cancel(answer.task_id) is TaskStatus.CANCELLED
    await keeper.start()
    await until_settled(town)
    assert (await town.router.task(answer.task_id)).status is TaskStatus.CANCELLED
    later = await town.accepted("later")
    await town.router.task(later.task_id, wait=30.0)
    assert town.runs == ["later"]


async def test_what_a_dead_keeper_held_is_brought_by_another(town: Town) -> None:
    await town.router._parts.guard.journal.stop()
    town.ledger.away = True
    answer = await town.accepted("one")
    inbox = await town.bus.journal.open_journal()
    (held,) = await inbox.pull(10, 5.0)
    town.ledger.away = False
    # It wrote the row and died before it acknowledged: the entry comes again.
    await town.router._parts.guard.journal.bring(answer.task_id)
    await inbox.release([held])
    other = TaskJournal(town.bus, town.ledger.port().tasks, clock=town.clock, telemetry=town.telemetry)
    await other.start()
    await until_settled(town)
    await other.stop()
    assert (await town.router.task(answer.task_id, wait=30.0)).status is TaskStatus.SUCCESS
    assert town.runs == ["one"]


async def test_a_task_that_waited_long_in_the_journal_is_not_taken_for_stranded(town: Town) -> None:
    town.ledger.away = True
    answer = await town.accepted("one", idempotency_key="k")
    before = town.clock.now()
    town.ledger.away = False
    await town.row(answer.task_id)
    await until_settled(town)
    row = town.ledger.real.tables.tasks[answer.task_id]
    assert row.updated_at >= before > row.task.submitted_at


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks and clocks bring about."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def until_settled(town: Town) -> None:
    async with asyncio.timeout(30):
        while (await town.bus.journal.state()).waiting:
            await asyncio.sleep(0.02)
