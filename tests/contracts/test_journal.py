"""What every bus's journal must do, over memory and over a real NATS server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.domain.decisions import Candidate, Decision, DecisionContext
from agent_engines.domain.errors import Conflict, InvalidRequest, Unavailable
from agent_engines.domain.journal import JournalEntry
from agent_engines.domain.messages import Report, ReportKind, TaskMessage
from agent_engines.domain.tasks import Task, TaskStatus

AnyBus = MemoryBus | JetStreamBus
PATIENCE = 10.0


@pytest.fixture(params=["memory", "jetstream"])
async def bus(request: pytest.FixtureRequest, nats_url: str) -> AsyncIterator[AnyBus]:
    bus: AnyBus = (
        MemoryBus(lease_seconds=1.0)
        if request.param == "memory"
        else await JetStreamBus.connect(nats_url, lease_seconds=1.0)
    )
    await bus.provision()
    yield bus
    await bus.close()


def entry(task_id: str, *, key: str | None = None, body: bytes = b'{"text":"\xc3\xa9"}') -> JournalEntry:
    task = Task(
        task_id=task_id,
        request_id=f"r-{task_id}",
        task_type="echo",
        payload=msgspec.Raw(body),
        requirements={"gpu": True},
        idempotency_key=key,
        body_hash=b"\x00\xff" if key else b"",
        submitted_at=1_700_000_000.25,
    )
    context = DecisionContext(request_id=task.request_id, task_type="echo", requirements=task.requirements)
    candidate = Candidate(
        agent="worker",
        replicas=1,
        slots=4,
        in_flight=0,
        service_ms=1.5,
        completion_ms=2.0,
        success=0.9,
        cost=0.0,
        age_seconds=0.1,
    )
    decision = Decision(
        request_id=task.request_id,
        task_id=task_id,
        task_type="echo",
        selected_agent="worker",
        confidence=0.9,
        propensity=1.0,
        strategy="load_aware",
        policy_version="1",
        reasoning="it was alone",
        candidates=(candidate,),
        created_at=1_700_000_000.5,
        context=context,
    )
    message = TaskMessage(
        task_id=task_id, request_id=task.request_id, task_type="echo", agent="worker", payload=task.payload
    )
    return JournalEntry.of(task, decision, message)


async def test_an_entry_arrives_as_it_was_written(bus: AnyBus) -> None:
    plain, keyed = entry("t1"), entry("t2", key="k")
    assert await bus.journal.publish_entries([plain, keyed]) == [None, None]
    inbox = await bus.journal.open_journal()
    found = {one.entry.task.task_id: one.entry for one in await inbox.pull(10, PATIENCE)}
    assert found == {"t1": plain, "t2": keyed}
    assert found["t1"].dispatch is None
    sent = found["t2"].dispatch
    assert sent is not None
    assert bytes(sent.payload) == b'{"text":"\xc3\xa9"}'
    await inbox.close()


async def test_the_first_entry_of_a_task_stays_and_the_second_is_told(bus: AnyBus) -> None:
    first, second = entry("t1", key="k"), entry("t1", key="k", body=b"2")
    assert await bus.journal.publish_entries([first]) == [None]
    again = await bus.journal.publish_entries([second, entry("t2")])
    assert [type(outcome) for outcome in again] == [Conflict, type(None)]
    assert await bus.journal.find("t1") == first
    assert await bus.journal.find("t3") is None


async def test_an_entry_comes_again_until_it_is_acknowledged_and_is_remembered_after_that(bus: AnyBus) -> None:
    await bus.journal.publish_entries([entry("t1")])
    inbox = await bus.journal.open_journal()
    (first,) = await inbox.pull(10, PATIENCE)
    assert (await bus.journal.state()).waiting == 1
    await inbox.release([first])
    (second,) = await inbox.pull(10, PATIENCE)
    assert second.entry == first.entry
    await inbox.ack([second])
    assert await inbox.pull(10, 1.5) == []
    assert (await bus.journal.state()).waiting == 0
    assert await bus.journal.find("t1") == first.entry
    await inbox.close()


async def test_two_keepers_share_the_journal(bus: AnyBus) -> None:
    one, two = await bus.journal.open_journal(), await bus.journal.open_journal()
    await bus.journal.publish_entries([entry(f"t{number}") for number in range(10)])
    names = [found.entry.task.task_id for inbox in (one, two) for found in await inbox.pull(5, PATIENCE)]
    assert sorted(names) == [f"t{number}" for number in range(10)]
    await one.close()
    await two.close()


@pytest.mark.parametrize("name", ["a.b", "a *", "a>", ""])
async def test_a_name_that_is_no_task_id_is_refused(bus: AnyBus, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await bus.journal.find(name)


async def test_a_closed_inbox_says_so(bus: AnyBus) -> None:
    inbox = await bus.journal.open_journal()
    await inbox.close()
    with pytest.raises(Unavailable):
        await inbox.pull(1, 0.1)


async def test_what_the_recorder_has_not_acknowledged_counts_as_waiting(bus: AnyBus) -> None:
    report = Report(
        kind=ReportKind.FINAL,
        task_id="t1",
        request_id="r1",
        task_type="echo",
        agent="worker",
        status=TaskStatus.SUCCESS,
    )
    inbox = await bus.reports.open_reports()
    assert (await bus.reports.state()).waiting == 0
    await bus.reports.publish_reports("worker", [report])
    assert (await bus.reports.state()).waiting == 1
    (delivery,) = await inbox.pull(1, PATIENCE)
    assert (await bus.reports.state()).waiting == 1
    await inbox.ack([delivery])
    assert await inbox.pull(1, 0.2) == []
    assert (await bus.reports.state()).waiting == 0
    await inbox.close()


async def test_one_server_without_a_word_about_its_disk_is_not_safe(bus: AnyBus) -> None:
    assert bus.safe is False
