"""Which database `backup` and `restore` mean: --data-dir, else POSTGRES_URL, else what `engines up` left in its folder."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent_engines.adapters.embedded.data_lock import DataInUse
from agent_engines.adapters.embedded.postgres_alone import has_postgres_data, postgres_alone
from agent_engines.config.client_url import read_endpoints
from agent_engines.domain.errors import BackupFailed, ConfigurationError

from .session import Session


@dataclass(frozen=True, slots=True)
class Ledger:
    """A database that can be reached now. `nats_url` None: no bus is known, or it does not run; `name`: for people."""

    url: str
    name: str
    nats_url: str | None = None


@asynccontextmanager
async def ledger_to_read(session: Session) -> AsyncGenerator[Ledger]:
    """Of a running system, or of a stopped installation, whose PostgreSQL then runs for as long as the block does.

    Raises ConfigurationError when there is none, EmbeddedServerError.
    """
    if _external(session):
        config = session.config
        nats = config.nats_url if config.explicit("NATS_URL") else None
        yield Ledger(config.postgres_url, "POSTGRES_URL", nats)
        return
    directory = _directory(session)
    running = read_endpoints(session.config)
    if has_postgres_data(directory):
        try:
            async with postgres_alone(directory) as url:
                yield Ledger(url, str(directory))
                return
        except DataInUse:
            if not running.get("postgres_url"):
                raise
    elif not running.get("postgres_url"):
        raise ConfigurationError(
            [f"there is no installation in {directory}: name one with --data-dir, or a server with POSTGRES_URL"]
        )
    yield Ledger(running["postgres_url"], str(directory), running.get("nats_url"))


@asynccontextmanager
async def ledger_to_write(session: Session) -> AsyncGenerator[Ledger]:
    """An external database, or that of a folder where nothing runs. Raises BackupFailed when something does."""
    if _external(session):
        yield Ledger(session.config.postgres_url, "POSTGRES_URL")
        return
    directory = _directory(session)
    try:
        async with postgres_alone(directory) as url:
            yield Ledger(url, str(directory))
    except DataInUse as error:
        raise BackupFailed(f"engines are running there: {error} (Ctrl-C in its terminal, or SIGTERM)") from error


def _external(session: Session) -> bool:
    return session.data_dir is None and bool(session.config.postgres_url)


def _directory(session: Session) -> Path:
    return Path(os.path.abspath(session.config.engines_data_dir))
