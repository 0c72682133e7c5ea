"""Reading what PostgreSQL says about itself: each fact apart, so that a missing right hides one fact and not the rest."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from agent_engines.domain.preflight.finding import Unread

from .migrate import revisions_from
from .pool import AWAY, unreachable
from .queries import queries
from .single_connection import connect_once, disconnect

QUERY_SECONDS = 2.0
NUMBERS = frozenset(
    {
        "server_version_num",
        "max_connections",
        "superuser_reserved_connections",
        "idle_in_transaction_session_timeout",
        "statement_timeout",
        "autovacuum_freeze_max_age",
    }
)
TEXTS = (
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "synchronous_standby_names",
    "wal_level",
    "archive_mode",
    "data_checksums",
    "password_encryption",
    "autovacuum",
    "data_directory",
)
LISTS = {
    "activity": "inspect_activity",
    "locks": "inspect_locks",
    "tables": "inspect_tables",
    "settings": "inspect_all_settings",
}
"""For an incident bundle: file name to query."""

Facts = dict[str, Any]
Reader = Callable[[asyncpg.Connection, Facts], Awaitable[None]]


async def read_postgres(dsn: str, facts: Facts) -> None:
    """Fill in what rules ask about (domain/preflight/postgres.py). Raises Unavailable, ConfigurationError; what was read stays."""
    facts["our.sslmode"] = parse_qs(urlsplit(dsn).query).get("sslmode", ["prefer"])[-1]
    connection = await connect_once(dsn)
    try:
        for read, names in READERS:
            await _guarded(connection, facts, read, names)
    except AWAY as error:
        raise unreachable(dsn, error) from error
    finally:
        await disconnect(connection)


async def read_list(dsn: str, name: str) -> list[dict[str, Any]]:
    """Rows of one of LISTS, every value plain. Raises Unavailable, ConfigurationError, asyncpg.PostgresError (no right)."""
    connection = await connect_once(dsn)
    try:
        return [dict(row) for row in await connection.fetch(queries()[LISTS[name]], timeout=QUERY_SECONDS)]
    except AWAY as error:
        raise unreachable(dsn, error) from error
    finally:
        await disconnect(connection)


async def _guarded(connection: asyncpg.Connection, facts: Facts, read: Reader, names: tuple[str, ...]) -> None:
    """A refused right or a missing view is told at the facts it hides; a server that went away is raised."""
    try:
        await read(connection, facts)
    except asyncpg.InsufficientPrivilegeError as error:
        facts |= {name: Unread(f"no right to ({error})") for name in names}
    except AWAY:
        raise
    except asyncpg.PostgresError as error:
        facts |= {name: Unread(str(error)) for name in names}


async def _row(connection: asyncpg.Connection, query: str, *arguments: Any) -> Any:
    return await connection.fetchrow(queries()[query], *arguments, timeout=QUERY_SECONDS)


async def _settings(connection: asyncpg.Connection, facts: Facts) -> None:
    rows = await connection.fetch(queries()["inspect_settings"], [*TEXTS, *NUMBERS], timeout=QUERY_SECONDS)
    for row in rows:
        name = row["name"]
        facts[name] = int(row["setting"]) if name in NUMBERS else row["setting"]
        facts[f"{name}.source"] = row["source"]
    for name in (*TEXTS, *NUMBERS):
        facts.setdefault(name, Unread("the server does not show it to this role"))


async def _overrides(connection: asyncpg.Connection, facts: Facts) -> None:
    rows = await connection.fetch(queries()["inspect_overrides"], timeout=QUERY_SECONDS)
    facts["overrides"] = [dict(row) for row in rows]


async def _role(connection: asyncpg.Connection, facts: Facts) -> None:
    facts["role"] = dict(await _row(connection, "inspect_role"))


async def _session(connection: asyncpg.Connection, facts: Facts) -> None:
    facts |= dict(await _row(connection, "inspect_session"))


async def _clock(connection: asyncpg.Connection, facts: Facts) -> None:
    """Compared with the middle of the question's way there and back."""
    before = time.time()
    theirs = (await _row(connection, "inspect_clock"))["now"]
    facts["clock_difference_seconds"] = round(theirs - (before + time.time()) / 2, 3)


async def _transaction_ids(connection: asyncpg.Connection, facts: Facts) -> None:
    facts["transaction_id_age"] = (await _row(connection, "inspect_transaction_ids"))["age"]


async def _standbys(connection: asyncpg.Connection, facts: Facts) -> None:
    row = await _row(connection, "inspect_standbys")
    facts["standbys"] = row["standbys"] if row["allowed"] else Unread("needs pg_read_all_stats")


async def _oldest(connection: asyncpg.Connection, facts: Facts) -> None:
    row = await _row(connection, "inspect_oldest_transaction")
    facts["oldest_transaction_seconds"] = (
        round(row["seconds"], 1) if row["allowed"] else Unread("needs pg_read_all_stats")
    )


async def _hba(connection: asyncpg.Connection, facts: Facts) -> None:
    rows = await connection.fetch(queries()["inspect_hba"], timeout=QUERY_SECONDS)
    facts["hba"] = [dict(row) for row in rows]


async def _schema(connection: asyncpg.Connection, facts: Facts) -> None:
    migrated = (await _row(connection, "schema_version"))["migrated"]
    row = await _row(connection, "schema_revision") if migrated else None
    found = revisions_from(row["version_num"] if row else None)
    facts |= {"schema.current": found.current, "schema.head": found.head, "schema.pending": found.pending}


async def _disk(connection: asyncpg.Connection, facts: Facts) -> None:
    """Only where the server's files are ours to see: on this machine, with the right to know where they are."""
    directory = facts.get("data_directory")
    why = "" if facts.get("local") is True else "the server is on another machine"
    if not why and isinstance(directory, str):
        try:
            usage = await asyncio.to_thread(shutil.disk_usage, directory)
        except OSError as error:
            why = f"{directory}: {error.strerror}"
        else:
            facts |= {"disk.free_bytes": usage.free, "disk.total_bytes": usage.total}
            return
    unread = Unread(why or "the server does not tell this role where its files are")
    facts |= {"disk.free_bytes": unread, "disk.total_bytes": unread}


READERS: tuple[tuple[Reader, tuple[str, ...]], ...] = (
    (_settings, (*TEXTS, *sorted(NUMBERS))),
    (_session, ("tls", "tls_version", "local", "in_recovery")),
    (_overrides, ("overrides",)),
    (_role, ("role",)),
    (_schema, ("schema.current", "schema.head", "schema.pending")),
    (_clock, ("clock_difference_seconds",)),
    (_transaction_ids, ("transaction_id_age",)),
    (_standbys, ("standbys",)),
    (_oldest, ("oldest_transaction_seconds",)),
    (_hba, ("hba",)),
    (_disk, ("disk.free_bytes", "disk.total_bytes")),
)
