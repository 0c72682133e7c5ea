"""Bringing a database up, and refusing one that is too old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from agent_engines.adapters.postgres import migrate, schema
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.adapters.postgres.pool import Pool
from agent_engines.domain.errors import ConfigurationError, Unavailable

TABLES = {"agents", "tasks", "task_results", "decision_history", "attempts", "dead_letters"}
LATER_TABLES = {"shared_secrets", "schedules", "redrives", "learned_snapshots"}
TERMS_TABLES = {"task_feedback", "tenants", "tenant_spending"}


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_url, ssl=False)
    yield connection
    await connection.close()


async def tables(connection: asyncpg.Connection) -> set[str]:
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row["tablename"] for row in rows}


async def test_an_empty_database_gets_every_table(postgres_url: str, connection: asyncpg.Connection) -> None:
    before = await migrate.status(postgres_url)
    assert (before.current, before.pending) == (None, ["0001", "0002", "0003", "0004", "0005", "0006"])
    after = await migrate.migrate(postgres_url)
    assert (after.current, after.pending) == (after.head, [])
    assert await tables(connection) == TABLES | LATER_TABLES | TERMS_TABLES | {"alembic_version"}


async def test_migrating_again_changes_nothing(postgres_url: str, connection: asyncpg.Connection) -> None:
    await migrate.migrate(postgres_url)
    await connection.execute("INSERT INTO agents (name) VALUES ('ann')")
    assert (await migrate.migrate(postgres_url)).pending == []
    assert await connection.fetchval("SELECT name FROM agents") == "ann"


async def test_the_first_migration_can_be_taken_back_and_done_again(
    postgres_url: str, connection: asyncpg.Connection
) -> None:
    await migrate.migrate(postgres_url)
    assert (await migrate.migrate(postgres_url, to="base")).current is None
    assert await tables(connection) <= {"alembic_version"}
    assert (await migrate.migrate(postgres_url)).pending == []


async def test_processes_that_start_together_migrate_once(postgres_url: str) -> None:
    answers = await asyncio.gather(*(migrate.migrate(postgres_url) for _ in range(4)))
    assert [answer.pending for answer in answers] == [[]] * 4


async def test_a_lock_that_is_never_given_back_is_named(
    postgres_url: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.05)
    monkeypatch.setattr(migrate, "ATTEMPTS", 2)
    async with connection.transaction():
        await connection.execute(migrate.queries()["migration_lock"])
        with pytest.raises(Unavailable, match="another migration"):
            await migrate.migrate(postgres_url)
    assert (await migrate.migrate(postgres_url)).pending == []


async def test_a_failed_migration_leaves_nothing_behind(postgres_url: str, connection: asyncpg.Connection) -> None:
    """A table of somebody else has one of our names."""
    await connection.execute("CREATE TABLE dead_letters (unrelated int)")
    with pytest.raises(asyncpg.DuplicateTableError):
        await migrate.migrate(postgres_url)
    assert await tables(connection) == {"dead_letters"}


async def test_a_database_without_tables_is_refused_with_the_command_that_helps(postgres_url: str) -> None:
    ledger = await PostgresLedger.connect(postgres_url, pool_min=1, pool_max=1)
    with pytest.raises(ConfigurationError, match="engines db migrate"):
        await ledger.require_schema()
    await migrate.migrate(postgres_url)
    await ledger.require_schema()
    await ledger.close()


async def test_an_older_schema_is_refused_and_a_newer_one_is_not(
    postgres_url: str, connection: asyncpg.Connection
) -> None:
    await migrate.migrate(postgres_url)
    pool = await Pool.connect(postgres_url, maximum=1)
    await connection.execute("UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(ConfigurationError, match="0000"):
        await schema.require_schema(pool)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await schema.require_schema(pool)
    assert (await migrate.migrate(postgres_url)).current == "9999"
    await pool.close()


async def test_an_unreachable_server_is_named_without_the_password() -> None:
    with pytest.raises(Unavailable) as caught:
        await migrate.status("postgresql://me:secret@127.0.0.1:1/db")
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_tables_have_the_columns_others_rely_on(postgres_url: str, connection: asyncpg.Connection) -> None:
    await migrate.migrate(postgres_url)
    promised = {
        "agents": "id name agent_type status capabilities metadata created_at updated_at last_seen",
        "task_results": "task_id agent_id status result error execution_time_ms started_at completed_at created_at",
        "decision_history": "id request_id task_type selected_agent confidence reasoning context_data system_state created_at",
    }
    for table, columns in promised.items():
        rows = await connection.fetch(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = $1", table
        )
        types = {row["column_name"]: row["data_type"] for row in rows}
        assert set(columns.split()) <= set(types)
        for name in ("capabilities", "metadata", "result", "context_data", "system_state"):
            assert types.get(name, "jsonb") == "jsonb"
    assert await connection.fetchval("INSERT INTO agents (name) VALUES ('a') RETURNING status") == "healthy"
    rows = await connection.fetch("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'")
    indexes = {row["indexname"]: row["indexdef"] for row in rows}
    assert indexes["idx_task_results_agent_time"].endswith("(agent_id, created_at DESC)")
    assert indexes["idx_decision_history_task_type"].endswith("(task_type, created_at DESC)")


async def test_a_result_row_is_never_updated(postgres_url: str, connection: asyncpg.Connection) -> None:
    await migrate.migrate(postgres_url)
    await connection.execute(
        "INSERT INTO task_results (task_id, status, request_id, task_type, priority, replica, generation, attempt,"
        " delivery, submitted_at) VALUES ('t', 'failed', 'r', 'echo', 3, '', 1, 1, 1, now())"
    )
    with pytest.raises(asyncpg.RestrictViolationError, match="final"):
        await connection.execute("UPDATE task_results SET status = 'success'")
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(
            "INSERT INTO task_results (task_id, status, request_id, task_type, priority, replica, generation, attempt,"
            " delivery, submitted_at) VALUES ('u', 'running', 'r', 'echo', 3, '', 1, 1, 1, now())"
        )
