"""One connection outside of any pool: for migrations, backups, restores and inspections."""

from __future__ import annotations

import asyncio

import asyncpg

from .pool import AWAY, CLOSE_SECONDS, REFUSED, connection_options, refused, unreachable


async def connect_once(dsn: str) -> asyncpg.Connection:
    """Raises Unavailable, ConfigurationError (address or login is wrong)."""
    try:
        return await asyncpg.connect(dsn, **connection_options(dsn))
    except (*REFUSED, ValueError) as error:
        raise refused(dsn, error) from error
    except AWAY as error:
        raise unreachable(dsn, error) from error


async def disconnect(connection: asyncpg.Connection) -> None:
    """By force where the server does not answer any more."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.close()
    except AWAY:
        connection.terminate()
