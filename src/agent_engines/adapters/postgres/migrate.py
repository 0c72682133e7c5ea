"""Bringing the schema up: alembic orders the scripts and renders them as SQL, one locked transaction runs them."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import asyncpg
import msgspec
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from agent_engines.domain.errors import Unavailable

from .pool import AWAY, unreachable
from .queries import queries
from .single_connection import connect_once, disconnect

LOCK_SECONDS = 2
ATTEMPTS = 10
"""Several processes may start at once: each waits for the one that migrates, twenty seconds in all."""
SCRIPTS = Path(__file__).parent / "migrations"


class MigrationStatus(msgspec.Struct, frozen=True):
    """Where the database is and where this program would take it; `pending` in the order they would run."""

    current: str | None
    head: str
    pending: list[str]


async def migrate(dsn: str, *, to: str = "head") -> MigrationStatus:
    """Run what is pending, all or nothing; to a revision or "base" it also goes down. Raises Unavailable, ConfigurationError."""
    for _ in range(ATTEMPTS):
        connection = await connect_once(dsn)
        try:
            return await _migrate(connection, to)
        except asyncpg.LockNotAvailableError:
            continue
        except AWAY as error:
            raise unreachable(dsn, error) from error
        finally:
            await disconnect(connection)
    raise Unavailable(
        "another migration holds the lock, or a table is in use for too long: try again in a quiet minute"
    )


async def status(dsn: str) -> MigrationStatus:
    """Raises Unavailable, ConfigurationError."""
    connection = await connect_once(dsn)
    try:
        return revisions_from(await current_revision(connection))
    except AWAY as error:
        raise unreachable(dsn, error) from error
    finally:
        await disconnect(connection)


async def _migrate(connection: asyncpg.Connection, to: str) -> MigrationStatus:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        await connection.execute(queries()["migration_lock"])
        current = await current_revision(connection)
        if current is None:
            # Left empty by a way down; the rendered way up creates it.
            await connection.execute("DROP TABLE IF EXISTS alembic_version")
        script = render(current, to)
        if script:
            await connection.execute(script)
        return revisions_from(await current_revision(connection))


def render(current: str | None, to: str) -> str:
    """The SQL that leads from one revision to another, empty when there is nothing to do."""
    head = _scripts().get_current_head()
    target = head if to == "head" else None if to == "base" else to
    if current == target or (to == "head" and current is not None and head is not None and current > head):
        return ""
    out = StringIO()
    config = _config(out)
    span = to if current is None else f"{current}:{to}"
    if current is None or (target is not None and target > current):
        command.upgrade(config, span, sql=True)
    else:
        command.downgrade(config, span, sql=True)
    return out.getvalue()


def newest_revision() -> str:
    """Where this program would take a database."""
    head = _scripts().get_current_head()
    assert head is not None, "the package has at least one migration"
    return head


def _config(out: StringIO | None = None) -> Config:
    config = Config(output_buffer=out)
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def revisions_from(current: str | None) -> MigrationStatus:
    """Where a database at this revision is, and what it lacks."""
    revisions = sorted(script.revision for script in _scripts().walk_revisions())
    return MigrationStatus(
        current, newest_revision(), [name for name in revisions if current is None or name > current]
    )


async def current_revision(connection: asyncpg.Connection) -> str | None:
    """None when nothing was ever migrated."""
    if not await connection.fetchval(queries()["schema_version"]):
        return None
    return await connection.fetchval(queries()["schema_revision"])
