"""Making a backup: one snapshot for the counts and the dump, into a directory that appears when it is whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from agent_engines.adapters.postgres.migrate import current_revision
from agent_engines.adapters.postgres.pool import AWAY, unreachable
from agent_engines.adapters.postgres.queries import queries
from agent_engines.adapters.postgres.single_connection import connect_once, disconnect
from agent_engines.domain.errors import BackupFailed

from .draft import draft_of, refuse_existing
from .login import login
from .manifest import DUMP, BackupFile, Bus, Manifest
from .programs import Programs, find_programs, major_of, run

LOCK_WAIT_MS = 30_000
COMPRESSION = "1"
"""zlib's fastest: half of the default's CPU, for a file a sixth larger (docs/adr/0033)."""
HASHED_BYTES = 1024 * 1024
ELSEWHERE = ("--no-publications", "--no-subscriptions", "--no-security-labels", "--no-tablespaces")
"""What belongs to the server the data was on, not to the data."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of the database; valid while its transaction is open."""

    name: str
    server: str
    schema: str
    tables: dict[str, int]
    open_tasks: int
    modes: dict[str, str]


async def make_backup(dsn: str, out: Path, *, bus: Bus | None, program: str, now: float) -> Manifest:
    """Write a whole backup of the database to `out`, which must not exist or be empty. `now`: epoch seconds.

    `bus`: what was found there before this was called; what it had settled by then is in the snapshot. Raises BackupFailed,
    Unavailable, ConfigurationError; then there is no `out`.
    """
    refuse_existing(out)
    async with _snapshot(dsn) as snapshot:
        programs = find_programs(major_of(snapshot.server), "the server")
        with draft_of(out) as draft:
            await _dump(programs, dsn, snapshot, draft / DUMP)
            manifest = Manifest(
                created_at=datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                program=program,
                schema=snapshot.schema,
                server=snapshot.server,
                client=programs.version,
                tables=snapshot.tables,
                open_tasks=snapshot.open_tasks,
                modes=snapshot.modes,
                bus=bus,
                files=[await asyncio.to_thread(described, draft / DUMP)],
            )
            manifest.write(draft)
    return manifest


def described(path: Path) -> BackupFile:
    """Name, size and SHA-256 of a file. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASHED_BYTES):
            digest.update(block)
        return BackupFile(name=path.name, size=os.fstat(file.fileno()).st_size, sha256=digest.hexdigest())


async def _dump(programs: Programs, dsn: str, snapshot: Snapshot, file: Path) -> None:
    address, environment = login(dsn)
    argv = (
        *(programs.program("pg_dump"), "--format=custom", f"--compress={COMPRESSION}", f"--file={file}"),
        *(f"--snapshot={snapshot.name}", f"--lock-wait-timeout={LOCK_WAIT_MS}", "--no-password", *ELSEWHERE),
        f"--dbname={address}",
    )
    await run(argv, environment)


@asynccontextmanager
async def _snapshot(dsn: str) -> AsyncGenerator[Snapshot]:
    connection = await connect_once(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            # It waits for pg_dump, however long that takes.
            await connection.execute(
                "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0"
            )
            yield await _counted(connection)
    except asyncpg.InsufficientPrivilegeError as error:
        raise BackupFailed(
            f"this login may not read everything: {error}; back up as the owner of the tables"
        ) from error
    except AWAY as error:
        raise unreachable(dsn, error) from error
    finally:
        await disconnect(connection)


async def _counted(connection: asyncpg.Connection) -> Snapshot:
    text = queries()
    found = await connection.fetchrow(text["export_snapshot"])
    schema = await current_revision(connection)
    if found is None or schema is None:
        raise BackupFailed("there are no tables of Agent Engines in this database: is it the right one?")
    tables = {
        row["name"]: int(await connection.fetchval(row["counting"]) or 0)
        for row in await connection.fetch(text["countable_tables"])
    }
    return Snapshot(
        name=found["snapshot"],
        server=found["server"],
        schema=schema,
        tables=tables,
        open_tasks=int(await connection.fetchval(text["count_open"]) or 0),
        modes={row["name"]: row["status"] for row in await connection.fetch(text["agent_modes"])},
    )
