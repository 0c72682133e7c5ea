"""Restoring a backup: everything in one transaction, which commits only when the rows are those of the manifest."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import msgspec

from agent_engines.adapters.postgres.migrate import (
    current_revision,
    migrate,
    newest_revision,
    render,
)
from agent_engines.adapters.postgres.pool import AWAY, unreachable
from agent_engines.adapters.postgres.queries import queries
from agent_engines.adapters.postgres.single_connection import connect_once, disconnect
from agent_engines.domain.errors import BackupFailed

from .login import login
from .manifest import DUMP, Manifest
from .programs import Programs, end, find_programs, major_of, reason, spawn
from .verify import verify_backup

BLOCK = 1024 * 1024
HEAD = 4096
LOCK_SECONDS = 5
NOT_BEFORE_17 = b"SET transaction_timeout = 0;\n"
"""The only line of a newer pg_restore that an older server does not understand; it comes first of all."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """`schema`: the revision after the migrations."""

    manifest: Manifest
    schema: str | None
    replaced: bool


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A database before a restore. `schema`: its revision, None without our tables; `holds`: what would be replaced."""

    server: str
    schema: str | None
    holds: list[str]
    sessions: int
    foreign: list[str]


async def checked(directory: Path) -> Manifest:
    """The manifest of a backup this program can restore. Raises BackupFailed."""
    manifest, faults = await verify_backup(directory)
    if manifest is None:
        raise BackupFailed(faults[0])
    if faults:
        more = f" (and {len(faults) - 1} more: `engines backup verify {directory}`)" if len(faults) > 1 else ""
        raise BackupFailed(f"{directory} cannot be restored: {faults[0]}{more}; use another backup")
    head = newest_revision()
    if manifest.schema > head:
        raise BackupFailed(
            f"the backup's schema is at revision {manifest.schema}, this program knows up to {head}: "
            f"restore it with agent-engines {manifest.program} or newer"
        )
    return manifest


async def restore_backup(
    dsn: str, directory: Path, manifest: Manifest, *, force: bool = False, bus_kept: bool = False
) -> Restored:
    """Put a checked backup into a database that holds nothing, or with `force` in the place of what it holds.

    `bus_kept`: open tasks may still be on the bus, so they are given the usual time; else they are sent again at once.
    All or nothing; then migrations up to today's revision. Raises BackupFailed, Unavailable, ConfigurationError.
    """
    target = await _examine(dsn, manifest)
    _refuse(target, force)
    programs = find_programs(max(major_of(manifest.client), major_of(target.server)), "the backup or the server")
    last = _after(manifest, bus_kept=bus_kept)
    await _load(programs, dsn, directory / DUMP, target, last)
    schema = (await migrate(dsn)).current
    return Restored(manifest=manifest, schema=schema, replaced=bool(target.holds))


async def _examine(dsn: str, manifest: Manifest) -> Target:
    text = queries()
    connection = await connect_once(dsn)
    try:
        schema = await current_revision(connection)
        holds, foreign = [], []
        if schema is None:
            rows = await connection.fetch(text["foreign_tables"], [*manifest.tables])
            foreign = [row["name"] for row in rows if row["name"] != "alembic_version"]
        else:
            held = await connection.fetchrow(text["held"])
            holds = [name for name, some in (held.items() if held else ()) if some]
        return Target(
            server=str(await connection.fetchval(text["server_version"])),
            schema=schema,
            holds=holds,
            sessions=int(await connection.fetchval(text["engine_sessions"]) or 0),
            foreign=foreign,
        )
    except asyncpg.UndefinedTableError as error:
        raise BackupFailed(f"the target's schema is not whole ({error}): restore into an empty database") from error
    except AWAY as error:
        raise unreachable(dsn, error) from error
    finally:
        await disconnect(connection)


def _refuse(target: Target, force: bool) -> None:
    """Raises BackupFailed when this target must not be written."""
    if target.sessions:
        raise BackupFailed(
            f"engines are running on this database ({target.sessions} connections): stop them first "
            "(Ctrl-C or SIGTERM to `engines up` or `engines run`, scale the deployment to 0)"
        )
    if target.foreign:
        raise BackupFailed(
            f"the database has tables {', '.join(target.foreign)} that are not ours: restore into an empty one"
        )
    if target.schema is not None and target.schema > newest_revision():
        raise BackupFailed(
            f"the target's schema ({target.schema}) is newer than this program: restore into an empty database"
        )
    if target.holds and not force:
        raise BackupFailed(
            f"the target is not empty: it holds {', '.join(target.holds)}; restore into a new --data-dir or an empty "
            "database, or replace what is there with --force"
        )


async def _load(programs: Programs, dsn: str, dump: Path, target: Target, last: str) -> None:
    """psql runs what pg_restore writes; the COMMIT is sent only after pg_restore has ended well."""
    address, environment = login(dsn)
    options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--no-password")
    psql = await spawn(
        (programs.program("psql"), *options, f"--dbname={address}"), environment, stdin=asyncio.subprocess.PIPE
    )
    reader: asyncio.subprocess.Process | None = None
    try:
        argv = (programs.program("pg_restore"), "--file=-", "--no-owner", "--no-privileges", str(dump))
        reader = await spawn(argv, {"PATH": os.defpath, "LC_ALL": "C"}, stdout=asyncio.subprocess.PIPE)
        said, complaint, _ = await asyncio.gather(
            _all_of(psql.stderr), _all_of(reader.stderr), _feed(psql, reader, target, last)
        )
        codes = (await psql.wait(), await reader.wait())
    finally:
        await end(psql)
        if reader is not None:
            await end(reader)
    if codes[0]:
        raise BackupFailed(f"nothing was restored: {reason(said, codes[0])}")
    if codes[1]:
        raise BackupFailed(f"nothing was restored: {reason(complaint, codes[1])}")


async def _feed(
    psql: asyncio.subprocess.Process, reader: asyncio.subprocess.Process, target: Target, last: str
) -> None:
    source, sink = reader.stdout, psql.stdin
    assert source is not None, "asked for"
    assert sink is not None, "asked for"
    try:
        sink.write(_before(target).encode())
        head = await source.read(HEAD)
        while len(head) < HEAD and (more := await source.read(HEAD)):
            head += more
        sink.write(head.replace(NOT_BEFORE_17, b"", 1) if major_of(target.server) < 17 else head)
        while block := await source.read(BLOCK):
            sink.write(block)
            await sink.drain()
        if await reader.wait() == 0:
            sink.write(last.encode())
        await sink.drain()
    except (BrokenPipeError, ConnectionResetError):
        # psql has ended and says why; pg_restore has nobody to write to.
        await end(reader)
    finally:
        sink.close()


def _before(target: Target) -> str:
    """Make room in the same transaction: our own tables go the way the migrations would take them down."""
    lines = ["BEGIN;", f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s';", f"{queries()['migration_lock']};"]
    if target.schema is not None:
        lines.append(render(target.schema, "base"))
    return "\n".join([*lines, "DROP TABLE IF EXISTS alembic_version;", ""])


def _after(manifest: Manifest, *, bus_kept: bool) -> str:
    lines = [
        # pg_restore leaves an empty search path behind.
        "RESET search_path;",
        _expect("tables", manifest.tables),
        *([] if manifest.modes is None else [_expect("modes", manifest.modes)]),
        f"{queries()['check_restored']};",
        *([] if bus_kept else [f"{queries()['forget_news']};"]),
        "COMMIT;",
    ]
    return "\n".join(["", *lines, ""])


def _expect(what: str, content: Mapping[str, object]) -> str:
    """For `check_restored`, which runs in the same transaction."""
    text = msgspec.json.encode(content).decode().replace("'", "''")
    return f"SELECT set_config('agent_engines.{what}', '{text}', true);"


async def _all_of(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()
