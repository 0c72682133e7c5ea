"""PostgreSQL of a data directory without the other servers: for what is done while nothing else may run."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from agent_engines.domain.errors import EmbeddedServerError
from agent_engines.runtime.plain_log import PlainLog

from .accounts import account_for_postgres
from .binaries import find_postgres
from .child import Child
from .data_lock import DataLock
from .free_ports import PortBook
from .leftovers import PidBook
from .log_files import LogFiles
from .passwords import Passwords
from .postgres_server import PostgresServer
from .private_files import data_directory
from .server import Place, until_ready

STOP_SECONDS = 30.0


@asynccontextmanager
async def postgres_alone(data_dir: Path) -> AsyncGenerator[str]:
    """The URL of a server that runs for as long as the block does; a directory without data gets an empty database.

    `data_dir` is absolute. Nobody else can start on the directory meanwhile. Raises DataInUse when something runs there, EmbeddedServerError.
    """
    directory = data_directory(data_dir)
    lock, log = DataLock(directory / "servers.lock"), PlainLog("embedded")
    # Not the installation's own list: the ports of the other servers are remembered there, and stay theirs.
    ports_file = directory / "ports.alone.json"
    lock.take()
    try:
        logs, pid_book = LogFiles(directory / "logs"), PidBook(directory / "servers.pids.json", log)
        logs.prepare()
        await pid_book.stop_leftovers()
        server, ports = _describe(directory, ports_file)
        ports.settle(server.port_names)
        await server.prepare()
        await server.clean()
        start = logs.size(server.name)
        child = Child.spawn(server.command())
        pid_book.remember(server.name, child.pid, signal.SIGINT)
        try:
            if not await _serves(server, child):
                raise EmbeddedServerError(
                    f"PostgreSQL did not start: {logs.reason(server.name, start) or 'it wrote no reason'} "
                    f"(its log: {logs.path(server.name)})"
                )
            yield server.url
        finally:
            await child.stop(STOP_SECONDS)
            pid_book.forget(server.name)
    finally:
        ports_file.unlink(missing_ok=True)
        lock.release()


def has_postgres_data(data_dir: Path) -> bool:
    """Whether an installation has ever run here with data that outlives it."""
    return (data_dir / "postgres.home").exists() or (data_dir / "postgres" / "data").is_dir()


def _describe(directory: Path, ports_file: Path) -> tuple[PostgresServer, PortBook]:
    place = Place(directory, directory / "logs", ephemeral=False)
    passwords, new = Passwords.keep(directory / "passwords.json")
    ports = PortBook(ports_file)
    server = PostgresServer(
        find_postgres(),
        place,
        ports=ports,
        password=passwords.postgres,
        account=account_for_postgres(),
        password_is_new=new,
    )
    return server, ports


async def _serves(server: PostgresServer, child: Child) -> bool:
    try:
        return await until_ready(server, child)
    except TimeoutError:
        return False
