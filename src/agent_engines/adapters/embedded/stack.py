"""The three servers as one: started together, kept running, stopped together."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from agent_engines.domain.errors import EmbeddedServerError
from agent_engines.ports.telemetry import Log
from agent_engines.runtime.plain_log import PlainLog

from .accounts import account_for_postgres
from .binaries import find_nats_server, find_postgres, find_valkey_server
from .child import Child
from .data_lock import DataLock
from .endpoints import Endpoints
from .free_ports import PortBook, is_free
from .kept_process import KeptProcess, OnChange
from .leftovers import PidBook
from .log_files import LogFiles
from .nats_server import NatsOptions, NatsServer
from .passwords import Passwords
from .postgres_home import remove_home
from .postgres_server import PostgresServer
from .private_files import data_directory, write_private
from .restart_pause import RestartPause
from .server import PROBE_PAUSE, READY_SECONDS, Place, Server, until_ready
from .valkey_server import ValkeyServer

STOP_SECONDS = 10.0
TRIM_SECONDS = 60.0
PORT_ATTEMPTS = 3


class EmbeddedServers:
    """NATS, PostgreSQL and Valkey on loopback, with their data in `data_dir`.

    `ephemeral`: the data is in a temporary directory that goes with `stop`; `data_dir` holds logs and the lock only.
    A server that dies is started again on the same port. The thread that calls `start` must live until `stop`.
    """

    def __init__(
        self, data_dir: Path, *, ephemeral: bool = False, nats: NatsOptions | None = None, log: Log | None = None
    ) -> None:
        self._directory = data_dir.absolute()
        self._ephemeral = ephemeral
        self._nats = nats or NatsOptions()
        self._log = log or PlainLog("embedded")
        self._logs = LogFiles(self._directory / "logs")
        self._lock = DataLock(self._directory / "servers.lock")
        self._pid_book = PidBook(self._directory / "servers.pids.json", self._log)
        self._listeners: list[OnChange] = []
        self._servers: list[Server] = []
        self._kept: dict[str, KeptProcess] = {}
        self._trimmer: asyncio.Task[None] | None = None
        self._place: Place | None = None
        self._endpoints: Endpoints | None = None

    async def __aenter__(self) -> EmbeddedServers:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def endpoints(self) -> Endpoints:
        """With the process ids of this moment. Raises EmbeddedServerError before `start`."""
        if self._endpoints is None:
            raise EmbeddedServerError("the embedded servers are not started")
        return msgspec.structs.replace(self._endpoints, pids=self.pids, supervisor_pid=os.getpid())

    @property
    def pids(self) -> dict[str, int]:
        """Of those alive now, by the names nats, postgres, redis."""
        return {name: kept.pid for name, kept in self._kept.items() if kept.pid is not None}

    def on_change(self, listener: OnChange) -> None:
        """`listener(name, pid)` is called in the loop's thread at every birth, with None at every death."""
        self._listeners.append(listener)

    async def start(self) -> Endpoints:
        """Return when all three serve. Raises EmbeddedServerError with nothing left running."""
        data_directory(self._directory)
        self._lock.take()
        try:
            self._logs.prepare()
            await self._pid_book.stop_leftovers()
            self._place = self._settle_place()
            ports = PortBook(self._place.root / "ports.json")
            servers = self._describe_servers(self._place, ports)
            self._servers = list(servers)
            ports.settle(name for server in servers for name in server.port_names)
            await _all_or_none([self._start_server(server, ports) for server in servers])
            nats, postgres, redis = servers
            self._endpoints = Endpoints(
                nats_url=nats.url, postgres_url=postgres.url, redis_url=redis.url, nats_monitor_url=nats.monitor_url
            )
        except BaseException:
            await self.stop()
            raise
        self._trimmer = asyncio.get_running_loop().create_task(self._trim_logs(), name="trim-server-logs")
        return self.endpoints

    async def ready(self) -> None:
        """Return when all three serve, which after a crash takes a moment. Raises EmbeddedServerError."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                for server in self._servers:
                    while not await self._answers(server):
                        await asyncio.sleep(PROBE_PAUSE)
        except TimeoutError:
            raise EmbeddedServerError(f"not all servers answer after {READY_SECONDS:g} s: {self.pids}") from None

    async def stop(self) -> None:
        """End all servers cleanly, by force those that do not. May be called twice."""
        trimmer, self._trimmer = self._trimmer, None
        if trimmer is not None:
            trimmer.cancel()
            await asyncio.gather(trimmer, return_exceptions=True)
        await asyncio.gather(*(kept.stop(STOP_SECONDS) for kept in self._kept.values()))
        self._kept.clear()
        self._endpoints = None
        if self._ephemeral and self._place is not None:
            self._discard(self._place)
        self._place = None
        self._lock.release()

    def kill(self) -> None:
        """End all servers by force, now; `stop` still has to be awaited. They recover at the next start."""
        for kept in self._kept.values():
            kept.kill()

    def _settle_place(self) -> Place:
        if not self._ephemeral:
            return Place(self._directory, self._directory / "logs", ephemeral=False)
        record = self._directory / "ephemeral.home"
        if record.exists():
            # An earlier run was killed before it could tidy up.
            self._discard(Place(Path(record.read_text().strip()), self._directory / "logs", ephemeral=True))
        root = Path(tempfile.mkdtemp(prefix="agent-engines-"))
        if os.geteuid() == 0:
            root.chmod(0o711)
        write_private(record, f"{root}\n".encode())
        return Place(root, self._directory / "logs", ephemeral=True)

    def _discard(self, place: Place) -> None:
        remove_home(place)
        shutil.rmtree(place.root, ignore_errors=True)
        (self._directory / "ephemeral.home").unlink(missing_ok=True)

    def _describe_servers(self, place: Place, ports: PortBook) -> tuple[NatsServer, PostgresServer, ValkeyServer]:
        passwords, new = Passwords.keep(place.root / "passwords.json")
        return (
            NatsServer(find_nats_server(), place, ports=ports, password=passwords.nats, options=self._nats),
            PostgresServer(
                find_postgres(),
                place,
                ports=ports,
                password=passwords.postgres,
                account=account_for_postgres(),
                password_is_new=new,
            ),
            ValkeyServer(find_valkey_server(), place, ports=ports, password=passwords.redis),
        )

    async def _start_server(self, server: Server, ports: PortBook) -> None:
        await server.prepare()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            await server.clean()
            kept = self._kept[server.name] = KeptProcess(
                server.name,
                server.command,
                on_change=self._changed,
                log=self._log,
                pause=RestartPause(first=0.05),
                clean=server.clean,
            )
            log_start = self._logs.size(server.name)
            child = kept.spawn()
            if await self._serves(server, child):
                kept.keep()
                return
            taken = [name for name in server.port_names if not is_free(ports[name])]
            if not taken or attempt == PORT_ATTEMPTS:
                reason = self._logs.reason(server.name, log_start) or "it wrote no reason"
                raise EmbeddedServerError(
                    f"{server.name} did not start: {reason} (its log: {self._logs.path(server.name)})"
                )
            for name in taken:
                self._log.warning("A port was taken, another is used", port=ports[name], now=ports.change(name))

    async def _serves(self, server: Server, child: Child) -> bool:
        """True once it is ready; False, with the process gone, when it ended or took too long."""
        try:
            return await until_ready(server, child)
        except TimeoutError:
            self._log.error("A server did not become ready", server=server.name, seconds=READY_SECONDS)
            await child.stop(grace=1.0)
            return False

    async def _answers(self, server: Server) -> bool:
        pid = self._kept[server.name].pid
        return pid is not None and await server.ready(pid)

    def _changed(self, name: str, pid: int | None) -> None:
        if pid is None:
            self._pid_book.forget(name)
        else:
            self._pid_book.remember(name, pid, self._kept[name].stop_signal)
        for listener in self._listeners:
            listener(name, pid)

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            try:
                self._logs.trim()
            except EmbeddedServerError as error:
                self._log.warning("The servers' logs cannot be trimmed", error=str(error))


async def _all_or_none(work: list[Coroutine[Any, Any, None]]) -> None:
    """Run all; when one fails, cancel the others and raise its error."""
    tasks = [asyncio.get_running_loop().create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
