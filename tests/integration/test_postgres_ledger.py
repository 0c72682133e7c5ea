"""What only the real ledger can show: races between recorders, rows it cannot hold, plans that stay fast."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.postgres import migrate, rows
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.adapters.postgres.pool import Pool
from agent_engines.adapters.postgres.queries import queries
from agent_engines.domain.decisions import Candidate, Decision, DecisionContext
from agent_engines.domain.errors import AgentEnginesError, InvalidRequest, Unavailable
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import Task, TaskError, TaskStatus
from agent_engines.ports.ledger import Entry, Ledger, TaskFilter, Verdict

NOW = 1_700_000_000.0


@pytest.fixture
async def database(postgres_url: str) -> str:
    await migrate.migrate(postgres_url)
    return postgres_url


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[PostgresLedger]:
    ledger = await PostgresLedger.connect(database, pool_min=1, pool_max=8)
    yield ledger
    await ledger.close()


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database, ssl=False)
    yield connection
    await connection.close()


def entry(task_id: str, **task: object) -> Entry:
    decision = Decision(
        request_id=f"r-{task_id}",
        task_id=task_id,
        task_type="echo",
        selected_agent="ann",
        confidence=0.5,
        propensity=0.5,
        strategy="sampled",
        policy_version="v1",
        reasoning="",
        candidates=(),
        created_at=NOW,
    )
    given_task = Task(task_id=task_id, request_id=f"r-{task_id}", task_type="echo", submitted_at=NOW)
    return Entry(msgspec.structs.replace(given_task, **task), decision)


def final(task_id: str, status: TaskStatus = TaskStatus.SUCCESS, **more: object) -> Report:
    one = Report(
        kind=ReportKind.FINAL,
        task_id=task_id,
        request_id=f"r-{task_id}",
        task_type="echo",
        agent="ann",
        status=status,
        result=msgspec.Raw(b'{"said":"hi"}'),
        completed_at=NOW + 1,
        submitted_at=NOW,
    )
    return msgspec.structs.replace(one, **more)


async def test_of_many_recorders_exactly_one_ends_each_task(ledger: PostgresLedger, database: str) -> None:
    ids = [f"t-{number:03}" for number in range(200)]
    await ledger.tasks.accept([entry(task_id) for task_id in ids[:150]])  # the rest is overtaken by its outcome
    others = [await PostgresLedger.connect(database, pool_min=1, pool_max=2) for _ in range(3)]
    batches = [
        [final(task_id, delivery=number + 1) for task_id in (ids if number % 2 else reversed(ids))]
        for number in range(4)
    ]
    recorders = [ledger, *others]
    answers = await asyncio.gather(
        *(recorder.tasks.record(batch) for recorder, batch in zip(recorders, batches, strict=True))
    )
    winners: dict[str, list[int]] = {task_id: [] for task_id in ids}
    for batch, verdicts in zip(batches, answers, strict=True):
        for one, verdict in zip(batch, verdicts, strict=True):
            assert verdict in (Verdict.RECORDED, Verdict.STALE)
            if verdict is Verdict.RECORDED:
                winners[one.task_id].append(one.delivery)
    assert {len(deliveries) for deliveries in winners.values()} == {1}
    for other in others:
        await other.close()


async def test_the_same_message_at_two_recorders_is_recorded_once_and_a_duplicate_once(ledger: PostgresLedger) -> None:
    batch = [final(f"t-{number}") for number in range(50)]
    answers = await asyncio.gather(*(ledger.tasks.record(batch) for _ in range(4)))
    for verdicts in zip(*answers, strict=True):
        assert sorted(verdicts) == [Verdict.DUPLICATE] * 3 + [Verdict.RECORDED]


async def test_a_commit_whose_answer_was_lost_is_told_as_recorded_and_spent_once(
    ledger: PostgresLedger, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool tries again on a fresh connection and finds its own rows: those who wait have to hear of them."""
    paid = msgspec.structs.replace(final("t-1"), tenant="acme", cost=2.0)
    await ledger.tasks.record([paid])
    used, lost = Pool._attempt, True

    async def unheard(pool: Pool, work: Any, wait: float) -> Any:
        nonlocal lost
        answer = await used(pool, work, wait)
        if lost:
            lost = False
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return answer

    monkeypatch.setattr(Pool, "_attempt", unheard)
    both = [msgspec.structs.replace(paid, task_id="t-2"), final("t-3")]
    assert await ledger.tasks.record(both) == [Verdict.RECORDED] * 2
    assert not lost
    assert await ledger.tasks.record(both) == [Verdict.DUPLICATE] * 2
    assert await connection.fetchval("SELECT sum(cost) FROM tenant_spending") == 4.0


async def test_a_recorder_that_loses_the_race_sees_what_won(
    ledger: PostgresLedger, connection: asyncpg.Connection
) -> None:
    await ledger.tasks.accept([entry("t-1"), entry("t-2")])
    async with connection.transaction():
        for task_id, status in (("t-1", "success"), ("t-2", "failed")):
            await connection.execute(
                "INSERT INTO task_results (task_id, status, request_id, task_type, priority, replica, generation,"
                " attempt, delivery, submitted_at) VALUES ($1, $2, 'r', 'echo', 3, '', 1, 1, 1, now())",
                task_id,
                status,
            )
        recording = asyncio.create_task(ledger.tasks.record([final("t-1"), final("t-2")]))
        await until_blocked(connection)
    assert await recording == [Verdict.DUPLICATE, Verdict.STALE]
    assert (await ledger.reader.task("t-2")).status is TaskStatus.FAILED
    assert await hint(connection, "t-2") == "failed"


async def test_of_many_submissions_of_the_same_tasks_exactly_one_is_new(ledger: PostgresLedger, database: str) -> None:
    """Whoever loses runs again and sees the winner; nobody is refused for it."""
    other = await PostgresLedger.connect(database, pool_min=1, pool_max=8)
    ids = [f"t-{number:02}" for number in range(60)]
    batches = [ids[start : start + 40] if start % 2 else ids[start : start + 40][::-1] for start in range(0, 20, 2)]
    ledgers = [ledger, other] * 5
    answers = await asyncio.gather(
        *(one.tasks.accept([entry(name) for name in batch]) for one, batch in zip(ledgers, batches, strict=True))
    )
    new = [
        name for batch, known in zip(batches, answers, strict=True) for name in {*batch} - {k.task_id for k in known}
    ]
    assert sorted(new) == sorted({name for batch in batches for name in batch})
    await other.close()


async def test_a_task_that_is_withdrawn_while_it_is_submitted_again_is_new(
    ledger: PostgresLedger, connection: asyncpg.Connection
) -> None:
    """Told that it is known, the caller would wait for something nobody does."""
    await ledger.tasks.accept([entry("t-1")])
    async with connection.transaction():
        await connection.fetch(queries()["withdraw"], ["t-1"])
        accepting = asyncio.create_task(ledger.tasks.accept([entry("t-1")]))
        await until_blocked(connection)
    assert await accepting == []
    assert (await ledger.reader.task("t-1")).status is TaskStatus.QUEUED


async def test_a_task_that_is_submitted_again_first_is_not_withdrawn(
    ledger: PostgresLedger, connection: asyncpg.Connection, database: str
) -> None:
    await ledger.tasks.accept([entry("t-1")])
    assert [known.task_id for known in await ledger.tasks.accept([entry("t-1"), entry("t-2")])] == ["t-1"]
    await ledger.tasks.withdraw(["t-1", "t-2"])
    assert await connection.fetchval("SELECT array_agg(task_id) FROM tasks") == ["t-1"]


async def test_decisions_of_one_name_in_one_call_are_both_kept(
    ledger: PostgresLedger, connection: asyncpg.Connection
) -> None:
    both = [entry("t-1"), entry("t-2", request_id="r-t-1")]
    both[1] = Entry(both[1].task, msgspec.structs.replace(both[1].decision, request_id="r-t-1"))
    assert await ledger.tasks.accept(both) == []
    names = await connection.fetchval("SELECT array_agg(request_id ORDER BY task_id) FROM decision_history")
    assert names == ["r-t-1", "r-t-1/t-2"]


async def test_decisions_come_in_the_order_jsonb_keeps_keys_in(connection: asyncpg.Connection) -> None:
    """The server sorts keys that come in another order, which costs it a fifth of reading a decision."""
    numbers = dict.fromkeys(("service_ms", "completion_ms", "success", "cost", "age_seconds"), 1.0)
    candidate = Candidate(agent="ann", replicas=1, slots=1, in_flight=0, **numbers)
    context = DecisionContext(request_id="r", task_type="echo", task_id="t", price=1.0, deadline=2.0, strategy="random")
    decision = msgspec.structs.replace(entry("t").decision, candidates=(candidate,), context=context, eligible=("ann",))
    columns = rows.decision_columns([decision])
    for text in (columns[8][0], columns[9][0]):
        kept = await connection.fetchval("SELECT $1::text::jsonb::text", text)
        assert [*_keys(msgspec.json.decode(kept))] == [*_keys(msgspec.json.decode(text))]


def _keys(value: Any) -> Iterator[str]:
    """Of objects, at every depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)


async def test_a_claimer_does_not_wait_for_what_another_one_is_taking(
    ledger: PostgresLedger, connection: asyncpg.Connection
) -> None:
    await ledger.tasks.accept([entry("t-1"), entry("t-2"), entry("t-3")])
    waits = [
        final(f"t-{number}", TaskStatus.RETRYING, kind=ReportKind.RETRY, retry_at=NOW + number) for number in (1, 2)
    ]
    await ledger.tasks.record(waits)
    async with connection.transaction():
        [taken] = await connection.fetch(queries()["claim_due"], NOW + 10, 1)
        assert taken["task_id"] == "t-1"
        assert [one.task.task_id for one in await ledger.tasks.claim_due(NOW + 10, 10)] == ["t-2"]
        await connection.fetch(queries()["claim_stranded"], NOW + 10, 1, None, None, None)
        assert await ledger.tasks.claim_stranded(NOW + 10, 10) == []
    assert await ledger.tasks.claim_due(NOW + 10, 10) == []


async def test_acceptance_and_outcome_may_commit_side_by_side(
    ledger: PostgresLedger, connection: asyncpg.Connection
) -> None:
    """The outcome does not see the task and the task does not see the outcome; the hint is put right later."""
    async with connection.transaction():
        await insert_task(connection, "t-1")
        assert await ledger.tasks.record([final("t-1")]) == [Verdict.RECORDED]
    assert await hint(connection, "t-1") == "queued"
    assert (await ledger.reader.task("t-1")).status is TaskStatus.SUCCESS
    assert await ledger.reader.counts() == {"success": 1}
    assert (await ledger.reader.tasks(TaskFilter(status=TaskStatus.QUEUED))).items == []
    await ledger.tasks.record([final("another")])
    assert await hint(connection, "t-1") == "success"


async def test_a_recorder_that_forgot_is_healed_when_stranded_tasks_are_looked_for(
    ledger: PostgresLedger, connection: asyncpg.Connection
) -> None:
    async with connection.transaction():
        await insert_task(connection, "t-1")
        await ledger.tasks.record([final("t-1")])
    assert await ledger.tasks.claim_stranded(time.time(), 10) == []
    assert await hint(connection, "t-1") == "success"


async def test_a_failure_that_waits_for_a_claim_is_judged_by_the_generation_after_it(
    ledger: PostgresLedger, connection: asyncpg.Connection
) -> None:
    """Otherwise a superseded failure ends a task that is on its way again."""
    await ledger.tasks.accept([entry("t-1")])
    async with connection.transaction():
        await connection.execute("UPDATE tasks SET generation = 2 WHERE task_id = 't-1'")
        recording = asyncio.create_task(ledger.tasks.record([final("t-1", TaskStatus.FAILED)]))
        await until_blocked(connection)
    assert await recording == [Verdict.STALE]
    assert (await ledger.reader.task("t-1")).status is TaskStatus.QUEUED


@pytest.mark.parametrize(
    "result",
    [
        rb'{"text":"\u0000"}',
        rb'"\ud800"',
        b'"\xff"',
        b"1e999999",
        b"{not json",
        b"[" * 50_000 + b"]" * 50_000,
    ],
    ids=["nul", "lone surrogate", "not utf-8", "number too large", "not json", "too deep"],
)
async def test_a_result_the_database_cannot_hold_costs_only_itself(ledger: PostgresLedger, result: bytes) -> None:
    await ledger.tasks.accept([entry("before"), entry("bad"), entry("after")])
    reports = [final("before"), final("bad", result=msgspec.Raw(result)), final("after"), final("before")]
    expected = [Verdict.RECORDED, Verdict.RECORDED, Verdict.RECORDED, Verdict.DUPLICATE]
    assert await ledger.tasks.record(reports) == expected
    bad = await ledger.reader.task("bad")
    assert (bad.status, bad.result) == (TaskStatus.SUCCESS, None)
    assert bad.error is not None
    assert bad.error.type == "UnstorableResult"
    assert (await ledger.reader.task("after")).result == {"said": "hi"}


async def test_names_the_database_cannot_hold_are_cleaned(ledger: PostgresLedger) -> None:
    await ledger.tasks.accept([entry("t-1")])
    odd = final("t-1", TaskStatus.FAILED, replica="a\0b", error=TaskError("E\0", "because \ud800", True))
    assert await ledger.tasks.record([odd]) == [Verdict.RECORDED]
    view = await ledger.reader.task("t-1")
    assert view.error is not None
    assert (view.status, view.error.type) == (TaskStatus.FAILED, "E\N{REPLACEMENT CHARACTER}")
    assert await ledger.tasks.record([final("a\0b"), final("t-2", generation=1 << 40)]) == [Verdict.STALE] * 2


async def test_a_batch_with_a_task_that_cannot_be_stored_is_refused_as_a_whole(ledger: PostgresLedger) -> None:
    with pytest.raises(InvalidRequest):
        await ledger.tasks.accept([entry("good"), entry("bad", metadata={"a": "\0"})])
    assert await ledger.tasks.accept([entry("good")]) == []


async def test_a_nul_in_a_payload_is_kept_as_it_came(ledger: PostgresLedger) -> None:
    await ledger.tasks.accept([entry("t-1", payload=msgspec.Raw(rb'{"b":"\u0000", "a":1e400}'))])
    [claimed] = await ledger.tasks.claim_stranded(NOW + 1, 1)
    assert bytes(claimed.task.payload) == rb'{"b":"\u0000", "a":1e400}'


async def test_an_agent_that_was_deleted_meanwhile_is_noted_again(
    ledger: PostgresLedger, connection: asyncpg.Connection
) -> None:
    await ledger.tasks.record([final("t-1")])
    await connection.execute("DELETE FROM task_results")
    await connection.execute("DELETE FROM agents")
    assert await ledger.tasks.record([final("t-2")]) == [Verdict.RECORDED]
    assert await connection.fetchval("SELECT agent_id FROM task_results") == "ann"


async def test_a_redriven_dead_letter_keeps_its_history(ledger: PostgresLedger, connection: asyncpg.Connection) -> None:
    await ledger.tasks.accept([entry("t-1")])
    for generation in (1, 2):
        error = TaskError("Broken", f"for the {generation}. time")
        await ledger.tasks.record([final("t-1", TaskStatus.DEAD_LETTER, generation=generation, error=error)])
        await ledger.tasks.reopen("t-1", NOW + generation)
    history = msgspec.json.decode(await connection.fetchval("SELECT history FROM dead_letters"))
    assert [past["error"] for past in history] == ["for the 1. time", "for the 2. time"]
    assert [past["generation"] for past in history] == [1, 2]


async def test_kinds_beyond_a_page_are_looked_at_in_turn(ledger: PostgresLedger) -> None:
    """A thousand kinds nobody may do must not hide the one that somebody may."""
    await ledger.tasks.accept([entry(f"t-{n}", requirements={"n": n}) for n in range(2500)])
    seen: set[int] = set()
    for _ in range(3):
        found = [kind.requirements["n"] for kind in await ledger.tasks.stranded_kinds(NOW + 10)]
        assert len(found) == len(set(found))
        seen.update(found)
    assert seen == set(range(2500))
    await ledger.tasks.record([final(f"t-{n}") for n in range(2500) if n != 7])
    for _ in range(2):
        assert [kind.requirements for kind in await ledger.tasks.stranded_kinds(NOW + 10)] == [{"n": 7}]


async def test_due_retries_that_were_claimed_are_handed_out_although_planned_tasks_cannot_be_asked_for(
    ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.tasks.accept([entry("t-1")])
    await ledger.tasks.record([final("t-1", TaskStatus.RETRYING, kind=ReportKind.RETRY, retry_at=NOW)])
    pool = ledger.tasks._pool
    fetch = pool.fetch

    async def breaks(name: str, *arguments: object, **options: object) -> object:
        if name == "claim_planned":
            raise Unavailable("the connection was lost")
        return await fetch(name, *arguments, **options)

    monkeypatch.setattr(pool, "fetch", breaks)
    assert [stored.generation for stored in await ledger.tasks.claim_due(NOW + 10, 10)] == [2]
    with pytest.raises(Unavailable):
        await ledger.tasks.claim_due(NOW + 10, 10)


async def test_what_is_run_again_while_old_tasks_are_deleted_stays(
    ledger: PostgresLedger, connection: asyncpg.Connection
) -> None:
    """Its old end is gone when the deletion comes to it: without its row a retry of it would never become due."""
    await ledger.tasks.accept([entry("t-1"), entry("t-2")])
    await ledger.tasks.record([final(task_id, TaskStatus.DEAD_LETTER) for task_id in ("t-1", "t-2")])
    async with connection.transaction():
        await connection.fetch(queries()["reopen"], "t-1", NOW + 5)
        purging = asyncio.create_task(ledger.retention.purge(time.time() + 60))
        while not purging.done() and not await blocks_somebody(connection):
            await asyncio.sleep(0)
    purged = await purging
    assert (purged.tasks, purged.results) == (1, 1)
    assert (await ledger.reader.task("t-1")).status is TaskStatus.QUEUED
    assert (await ledger.reader.dead_letter("t-1")).redriven_at == NOW + 5


@pytest.mark.parametrize(
    "name",
    [
        "accept",
        "known",
        "withdraw",
        "redispatched",
        "record_finals",
        "record_retries",
        "record_starts",
        "heal",
        "claim_due",
        "cancel",
        "reopen",
        "several",
        "ended",
        "decision",
        "history",
    ],
)
async def test_no_hot_query_ever_scans_a_table(connection: asyncpg.Connection, name: str) -> None:
    """Plans are made once, often while the tables are empty; a scan chosen then would be with us for ever."""
    await connection.fetch(queries()["session"], "10s", "3s", "15s")
    query = queries()[name]
    arguments = max(int(number) for number in re.findall(r"\$(\d+)", query))
    await connection.execute(f"PREPARE hot AS {query}")
    rows = await connection.fetch(f"EXPLAIN EXECUTE hot ({', '.join(['NULL'] * arguments)})")
    plan = "\n".join(row[0] for row in rows)
    scanned = re.findall(r"Seq Scan on (\w+)", plan)
    assert set(scanned) <= {"agents"}, plan


@pytest.mark.parametrize(
    ("name", "arguments", "index"),
    [
        ("tasks_page", "9007199254740991, '', 0, NULL, NULL, NULL, 51", "tasks_by_time"),
        ("tasks_page", "9007199254740991, '', 0, 'success', NULL, NULL, 51", "tasks_by_time"),
        ("tasks_page_unhappy", "9007199254740991, '', 0, 'failed', NULL, NULL, 51", "tasks_unhappy"),
        ("tasks_page_open", "9007199254740991, '', 0, 'running', NULL, NULL, 51", "tasks_open"),
        ("decisions_page", "9007199254740991, 0, 0, NULL, 51", "decision_history_by_time"),
        ("decisions_page_of_type", "9007199254740991, 0, 0, NULL, 51, 'rare'", "idx_decision_history_task_type"),
    ],
)
async def test_a_page_is_read_along_its_index(
    ledger: PostgresLedger, connection: asyncpg.Connection, name: str, arguments: str, index: str
) -> None:
    for start in range(0, 3000, 500):
        ids = [f"t-{number}" for number in range(start, start + 500)]
        await ledger.tasks.accept([entry(task_id) for task_id in ids])
        await ledger.tasks.record([final(task_id) for task_id in ids])
    await connection.execute("ANALYZE")
    await connection.fetch(queries()["session"], "10s", "3s", "15s")
    async with connection.transaction():
        await connection.fetch(queries()["plan_afresh"])
        await connection.execute(f"PREPARE page AS {queries()[name]}")
        rows = await connection.fetch(f"EXPLAIN EXECUTE page ({arguments})")
    plan = "\n".join(row[0] for row in rows)
    assert index in plan
    assert "Seq Scan" not in plan


steps = st.one_of(
    st.just(("accept",)),
    st.tuples(
        st.just("record"),
        st.lists(
            st.tuples(
                st.integers(0, 1),
                st.sampled_from(
                    [
                        (ReportKind.STARTED, TaskStatus.RUNNING),
                        (ReportKind.RETRY, TaskStatus.RETRYING),
                        (ReportKind.FINAL, TaskStatus.SUCCESS),
                        (ReportKind.FINAL, TaskStatus.FAILED),
                        (ReportKind.FINAL, TaskStatus.DEAD_LETTER),
                        (ReportKind.FINAL, TaskStatus.CANCELLED),
                    ]
                ),
                st.integers(1, 3),
                st.integers(1, 2),
                st.integers(1, 2),
            ),
            min_size=1,
            max_size=6,
        ),
    ),
    st.just(("claim_due",)),
    st.just(("claim_stranded",)),
    st.tuples(st.just("claim_gone"), st.booleans()),
    st.tuples(st.sampled_from(["cancel", "reopen", "withdraw"]), st.integers(0, 1)),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=14))
async def test_the_real_ledger_and_the_one_in_memory_agree_on_every_history(
    ledger: PostgresLedger, history: list[tuple[object, ...]]
) -> None:
    memory = MemoryLedger(SystemClock())
    ids = [str(uuid4()), str(uuid4())]
    # Rounded, so that both keep exactly the same moments.
    start = float(round(time.time()))
    try:
        for place, step in enumerate(history):
            now = start + 1000 * (place + 1)
            mine, real = [await take(one, step, ids, now) for one in (memory, ledger)]
            assert real == mine, step
        for task_id in ids:
            assert await picture(ledger, task_id) == await picture(memory, task_id)
    finally:
        # What is left open must not turn up in the next example.
        await ledger.tasks.record([final(task_id) for task_id in ids])
        await ledger.retention.purge(start * 2)


async def take(ledger: Ledger, step: tuple[object, ...], ids: list[str], now: float) -> object:
    tasks = ledger.tasks
    match step:
        case ("accept",):
            known = await tasks.accept([entry(task_id) for task_id in ids])
            return sorted((one.task_id, one.status, one.decision) for one in known)
        case ("record", list() as told):
            return await tasks.record([told_report(ids, *one) for one in told])
        case ("claim_due",):
            return sorted(msgspec.json.encode(one) for one in await tasks.claim_due(now, 10))
        case ("claim_stranded",):
            return sorted(msgspec.json.encode(one) for one in await tasks.claim_stranded(now, 10))
        case ("claim_gone", bool() as wanted):
            kinds = await tasks.stranded_kinds(now, agents=["ann"])
            claimed = await tasks.claim_stranded(now, 10, kinds=kinds if wanted else [], agents=["ann"])
            return sorted(map(str, kinds)), sorted(msgspec.json.encode(one) for one in claimed)
        case ("withdraw", int() as which):
            return await tasks.withdraw([ids[which]])
        case (str() as name, int() as which):
            try:
                return await getattr(tasks, name)(ids[which], now)
            except AgentEnginesError as error:
                return type(error)
        case _:
            raise AssertionError(step)


def told_report(
    ids: list[str], which: int, kind: tuple[ReportKind, TaskStatus], generation: int, attempt: int, delivery: int
) -> Report:
    one = final(ids[which], kind[1], generation=generation, attempt=attempt, delivery=delivery, started_at=NOW + 1)
    if kind[1] is not TaskStatus.SUCCESS:
        one = msgspec.structs.replace(one, error=TaskError("E", f"{generation}.{attempt}.{delivery}"))
    changes = {"completed_at": None} if kind[0] is ReportKind.STARTED else {}
    return msgspec.structs.replace(one, kind=kind[0], retry_at=NOW + 5, **changes)


async def picture(ledger: Ledger, task_id: str) -> object:
    """Everything the outside can see of one task."""
    try:
        view: object = await ledger.reader.task(task_id)
    except AgentEnginesError as error:
        view = type(error)
    try:
        letter: object = await ledger.reader.dead_letter(task_id)
    except AgentEnginesError as error:
        letter = type(error)
    logged = [one for one in await ledger.decisions.history(0.0, 1000) if one.decision.task_id == task_id]
    return view, letter, await ledger.reader.attempts(task_id), logged


async def insert_task(connection: asyncpg.Connection, task_id: str) -> None:
    """As `accept` does, in a transaction the test keeps open."""
    await connection.execute(
        "INSERT INTO tasks (task_id, request_id, task_type, payload, requirements, metadata, priority, body_hash,"
        " submitted_at, origin, status, generation, attempt, updated_at)"
        " VALUES ($1, $1, 'echo', 'null', '{}', '{}', 3, '', to_timestamp(1), '', 'queued', 1, 1, to_timestamp(1))",
        task_id,
    )


async def hint(connection: asyncpg.Connection, task_id: str) -> str:
    return await connection.fetchval("SELECT status FROM tasks WHERE task_id = $1", task_id)


async def until_blocked(connection: asyncpg.Connection) -> None:
    """Until somebody waits for a lock this connection holds."""
    async with asyncio.timeout(30):
        while not await blocks_somebody(connection):
            await asyncio.sleep(0)


async def blocks_somebody(connection: asyncpg.Connection) -> bool:
    return await connection.fetchval(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    )


@pytest.mark.parametrize(
    "name", ["record_finals", "record_retries", "record_starts", "renew", "redispatched", "cancel"]
)
async def test_what_is_written_by_key_is_found_by_key_although_nothing_was_open_when_it_was_planned(
    ledger: PostgresLedger, connection: asyncpg.Connection, name: str
) -> None:
    """An index of open tasks that was empty when it was counted looks cheaper than the key, and the plan is kept."""
    entries = [entry(f"done-{number}") for number in range(2_000)]
    await ledger.tasks.accept(entries)
    await connection.execute("UPDATE tasks SET status = 'success'")
    await connection.execute("VACUUM ANALYZE tasks")
    await connection.fetch(queries()["session"], "10s", "3s", "15s")
    query = queries()[name]
    arguments = max(int(number) for number in re.findall(r"\$(\d+)", query))
    await connection.execute(f"PREPARE planned AS {query}")
    rows = await connection.fetch(f"EXPLAIN EXECUTE planned ({', '.join(['NULL'] * arguments)})")
    plan = "\n".join(row[0] for row in rows)
    assert "Index Cond: (task_id = " in plan, plan
    assert "tasks_open" not in plan, plan
