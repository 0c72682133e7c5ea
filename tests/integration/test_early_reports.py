"""An agent may answer before the acceptance of its task has committed: then neither transaction sees the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest

from agent_engines.adapters.postgres import migrate
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.domain.decisions import Decision
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import Task, TaskError, TaskStatus
from agent_engines.ports.ledger import Entry, Verdict

NOW = 1_700_000_000.0
TASK = Task(task_id="t-1", request_id="r-1", task_type="echo", submitted_at=NOW)
DECISION = Decision(
    request_id="r-1",
    task_id="t-1",
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
RETRY = Report(
    kind=ReportKind.RETRY,
    task_id="t-1",
    request_id="r-1",
    task_type="echo",
    agent="ann",
    status=TaskStatus.RETRYING,
    error=TaskError("Oops", "not yet", retryable=True),
    completed_at=NOW + 1,
    retry_at=NOW + 2,
    submitted_at=NOW,
)
BLOCKER = """
    INSERT INTO tasks (
        task_id, request_id, task_type, payload, requirements, metadata, priority, body_hash, submitted_at, origin,
        status, generation, attempt, updated_at
    ) VALUES ('t-1', 'r-1', 'echo', 'null', '{}', '{}', 3, '', now(), '', 'queued', 1, 1, now())
"""


@pytest.fixture
async def ledger(postgres_url: str) -> AsyncIterator[PostgresLedger]:
    await migrate.migrate(postgres_url)
    ledger = await PostgresLedger.connect(postgres_url, pool_min=1, pool_max=4)
    yield ledger
    await ledger.close()


async def meanwhile(url: str, ledger: PostgresLedger, report: Report) -> Verdict:
    """Record `report` while the acceptance of its task has its snapshot and has not committed."""
    blocker = await asyncpg.connect(url, ssl=False)
    try:
        undone = blocker.transaction()
        await undone.start()
        # The acceptance waits for this row's fate, with the view of the world it had when it began.
        await blocker.execute(BLOCKER)
        accepting = asyncio.ensure_future(ledger.tasks.accept([Entry(TASK, DECISION)]))
        while not await blocker.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
        [verdict] = await ledger.tasks.record([report])
        await undone.rollback()
        assert await accepting == []
    finally:
        await blocker.close()
    return verdict


async def test_a_retry_recorded_beside_its_acceptance_comes_due(postgres_url: str, ledger: PostgresLedger) -> None:
    assert await meanwhile(postgres_url, ledger, RETRY) is Verdict.RECORDED
    [due] = await ledger.tasks.claim_due(NOW + 3, 10)
    assert (due.task.task_id, due.generation, due.attempt) == ("t-1", 2, 2)
    assert await ledger.tasks.claim_due(NOW + 30, 10) == []


async def test_a_retry_whose_task_never_comes_is_not_asked_for_without_end(ledger: PostgresLedger) -> None:
    assert await ledger.tasks.record([RETRY]) == [Verdict.RECORDED]
    assert await ledger.tasks.claim_due(NOW + 3, 10) == []
    assert await ledger.tasks.claim_due(NOW + 300, 10) == []
    await ledger.tasks.accept([Entry(TASK, DECISION)])
    # The acceptance sees what was noted long before it, by itself.
    [due] = await ledger.tasks.claim_due(NOW + 301, 10)
    assert (due.generation, due.attempt) == (2, 2)


async def test_an_end_recorded_beside_its_acceptance_is_the_end(postgres_url: str, ledger: PostgresLedger) -> None:
    end = msgspec.structs.replace(RETRY, kind=ReportKind.FINAL, status=TaskStatus.SUCCESS, error=None, retry_at=None)
    assert await meanwhile(postgres_url, ledger, end) is Verdict.RECORDED
    assert (await ledger.reader.task("t-1")).status is TaskStatus.SUCCESS
    assert await ledger.tasks.claim_stranded(NOW + 1000, 10) == []
