"""Connections with deadlines, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from agent_engines.adapters.postgres import migrate
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.adapters.postgres.pool import Connection, Pool, connection_options
from agent_engines.domain.errors import ConfigurationError, NotFound, Unavailable


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    await migrate.migrate(postgres_url)
    pool = await Pool.connect(postgres_url, minimum=1, maximum=1)
    yield pool
    await pool.close()


@pytest.fixture
async def operator(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else on the same database."""
    connection = await asyncpg.connect(postgres_url, ssl=False)
    yield connection
    await connection.close()


async def cut_all(operator: asyncpg.Connection) -> None:
    """As a restart of the server does."""
    await operator.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )


async def test_nobody_there_is_said_with_the_place_and_never_the_password() -> None:
    with pytest.raises(Unavailable) as caught:
        await PostgresLedger.connect("postgresql://me:secret@127.0.0.1:1/db", pool_min=1, pool_max=2)
    assert "127.0.0.1:1/db" in caught.value.detail
    assert "secret" not in caught.value.detail
    assert caught.value.__cause__ is not None


async def test_a_wrong_login_or_database_is_a_wrong_setting(postgres_url: str) -> None:
    base, _, name = postgres_url.rpartition("/")
    with pytest.raises(ConfigurationError, match="nowhere"):
        await Pool.connect(f"{base}/nowhere")
    with pytest.raises(ConfigurationError, match="POSTGRES_URL"):
        await Pool.connect(f"postgresql://nobody:wrong@{base.rpartition('@')[2]}/{name}")
    with pytest.raises(ConfigurationError, match="POSTGRES_URL"):
        await Pool.connect("postgresql://host:not-a-port/db")


async def test_waiting_for_a_free_connection_has_an_end(pool: Pool) -> None:
    busy, free = asyncio.Event(), asyncio.Event()

    async def hold(_: Connection) -> None:
        busy.set()
        await free.wait()

    holder = asyncio.create_task(pool.run(hold))
    await busy.wait()
    with pytest.raises(Unavailable):
        await pool.fetch("counts", wait=0.02)
    free.set()
    await holder
    assert await pool.fetch("counts") == []


async def test_a_statement_that_takes_too_long_is_given_up(pool: Pool) -> None:
    async def slow(connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = '20ms'")
            await connection.execute("SELECT pg_sleep(60)")

    with pytest.raises(Unavailable) as caught:
        await pool.run(slow)
    assert isinstance(caught.value.__cause__, asyncpg.QueryCanceledError)
    assert await pool.fetch("counts") == []


async def test_a_broken_connection_is_replaced_without_anybody_noticing(
    pool: Pool, operator: asyncpg.Connection
) -> None:
    await pool.fetch("counts")
    await cut_all(operator)
    assert await pool.fetch("counts") == []


async def test_a_connection_that_breaks_under_a_statement_is_retried_once_if_that_is_safe(
    pool: Pool, operator: asyncpg.Connection
) -> None:
    calls: list[str] = []

    async def cut_off(connection: Connection) -> int:
        calls.append("tried")
        if len(calls) % 2:
            await cut_all(operator)
        return await connection.fetchval("SELECT 1")

    assert await pool.run(cut_off) == 1
    assert len(calls) == 2
    with pytest.raises(Unavailable):
        await pool.run(cut_off, repeat=False)
    assert len(calls) == 3


async def test_a_changed_table_does_not_break_prepared_statements(pool: Pool, operator: asyncpg.Connection) -> None:
    assert await pool.fetch("agents") == []
    await operator.execute("ALTER TABLE agents ALTER COLUMN agent_type TYPE varchar(300)")
    assert await pool.fetch("agents") == []


async def test_a_deadlock_is_settled(postgres_url: str) -> None:
    await migrate.migrate(postgres_url)
    pool = await Pool.connect(postgres_url, maximum=2)
    await pool.run(lambda connection: connection.execute("INSERT INTO agents (name) VALUES ('a'), ('b')"))
    both_hold = asyncio.Barrier(2)

    async def update(first: str, second: str) -> str:
        tries: list[str] = []

        async def work(connection: Connection) -> str:
            tries.append(first)
            await connection.execute("UPDATE agents SET status = $1 WHERE name = $2", "x", first)
            if len(tries) == 1:
                await both_hold.wait()
            return await connection.execute("UPDATE agents SET status = $1 WHERE name = $2", "x", second)

        return await pool.in_transaction(work)

    assert await asyncio.gather(update("a", "b"), update("b", "a")) == ["UPDATE 1", "UPDATE 1"]
    await pool.close()


async def test_every_session_has_limits_and_stable_plans(pool: Pool) -> None:
    expected = {
        "application_name": "agent-engines",
        "statement_timeout": "10s",
        "lock_timeout": "3s",
        "idle_in_transaction_session_timeout": "15s",
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "jit": "off",
    }

    async def settings(connection: Connection) -> dict[str, str]:
        return {name: await connection.fetchval(f"SHOW {name}") for name in expected}

    # Twice: giving a connection back must not take its settings away.
    assert await pool.run(settings) == expected
    assert await pool.run(settings) == expected


async def test_a_transaction_whose_caller_went_away_is_not_handed_to_the_next(pool: Pool) -> None:
    inside = asyncio.Event()

    async def interrupted(connection: Connection) -> None:
        await connection.execute("INSERT INTO agents (name) VALUES ('half')")
        inside.set()
        await asyncio.Event().wait()

    caller = asyncio.create_task(pool.in_transaction(interrupted))
    await inside.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await pool.fetch("agents") == []


async def test_a_closed_ledger_answers_unavailable_and_may_be_closed_twice(postgres_url: str) -> None:
    await migrate.migrate(postgres_url)
    ledger = await PostgresLedger.connect(postgres_url, pool_min=1, pool_max=1)
    assert await ledger.check() is True
    with pytest.raises(NotFound):
        await ledger.reader.task("unknown")
    await ledger.close()
    await ledger.close()
    assert await ledger.check() is False
    with pytest.raises(Unavailable):
        await ledger.reader.counts()


def test_loopback_without_a_word_about_tls_looks_for_no_certificates() -> None:
    assert connection_options("postgresql://me@127.0.0.1:5432/db")["ssl"] is False
    assert connection_options("postgresql://me@[::1]/db")["ssl"] is False
    assert "ssl" not in connection_options("postgresql://me@localhost/db?sslmode=require")
    assert "ssl" not in connection_options("postgresql://me@db.example.org/db")
