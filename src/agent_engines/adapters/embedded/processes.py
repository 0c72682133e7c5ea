"""The processes of one installation: engines and agents as children that are kept running, and where all of it is found."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from agent_engines.ports.telemetry import Log
from agent_engines.runtime.plain_log import PlainLog

from .child import Command
from .data_lock import DataLock
from .endpoints import Endpoints
from .kept_process import KeptProcess
from .leftovers import PidBook
from .log_files import LogFiles
from .private_files import data_directory
from .restart_pause import RestartPause
from .stack import EmbeddedServers

ENDPOINTS_FILE = "endpoints.json"
LATER_GRACE_SECONDS = 10.0


class ProcessSupervisor:
    """Runs named commands, starts again what dies, and keeps `data_dir/endpoints.json` true from `publish` to `stop`.

    Output goes to `data_dir/logs/<name>.log`, or with `inherit_output` to where ours goes. `servers` are listened to
    for their process ids, and killed by the second signal; starting and stopping them is their owner's business.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        servers: EmbeddedServers | None = None,
        log: Log | None = None,
        inherit_output: bool = False,
    ) -> None:
        self._directory = data_dir.absolute()
        self._servers = servers
        self._log = log or PlainLog("supervisor")
        self._logs = None if inherit_output else LogFiles(self._directory / "logs")
        self._lock = DataLock(self._directory / "processes.lock")
        self._pid_book = PidBook(self._directory / "processes.pids.json", self._log)
        self._kept: dict[str, KeptProcess] = {}
        self._started = False
        self._endpoints: Endpoints | None = None
        if servers is not None:
            servers.on_change(lambda name, pid: self._write_endpoints())

    @property
    def pids(self) -> dict[str, int]:
        """Of all that are alive now, servers included."""
        own = {name: kept.pid for name, kept in self._kept.items() if kept.pid is not None}
        return {**(self._servers.pids if self._servers is not None else {}), **own}

    @property
    def restarts(self) -> dict[str, int]:
        """How often each process was started again."""
        return {name: kept.restarts for name, kept in self._kept.items()}

    def add(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Name a process with its whole environment; after `start` it starts at once. Raises EmbeddedServerError."""
        command = Command(
            argv=tuple(argv),
            env=dict(env),
            cwd=Path.cwd(),
            log=None if self._logs is None else self._logs.path(name),
            # Without a supervisor the servers are gone too: there is nothing a drain could hand back to.
            orphan_signal=signal.SIGKILL,
        )
        self._kept[name] = KeptProcess(
            name, lambda: command, on_change=self._changed, log=self._log, pause=RestartPause()
        )
        if self._started:
            self._begin(self._kept[name])

    async def start(self) -> None:
        """Start all that were added. Raises EmbeddedServerError with none of them left running."""
        data_directory(self._directory)
        self._lock.take()
        try:
            if self._logs is not None:
                self._logs.prepare()
            self._endpoints_path.unlink(missing_ok=True)
            await self._pid_book.stop_leftovers()
            self._started = True
            for kept in self._kept.values():
                self._begin(kept)
        except BaseException:
            await self.stop(grace=1.0)
            raise

    def publish(self, endpoints: Endpoints) -> None:
        """Write `endpoints.json` now that everything is ready, and again at every change."""
        self._endpoints = endpoints
        self._write_endpoints()

    def handle_signals(self) -> asyncio.Event:
        """The first SIGINT, SIGTERM or SIGHUP sets the event; the next kills all processes at once, servers too."""
        stopping = asyncio.Event()

        def heard() -> None:
            if stopping.is_set():
                self.kill()
            stopping.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, heard)
        return stopping

    async def stop(self, grace: float = 30.0) -> None:
        """Agents and the intelligence engine first, while the others still listen; by force after `grace` seconds.

        May be called twice. Removes `endpoints.json` at the end.
        """
        self._started = False
        first = [kept for kept in self._kept.values() if kept.name == "intelligence" or kept.name.startswith("agent:")]
        later = [kept for kept in self._kept.values() if kept not in first]
        await asyncio.gather(*(kept.stop(grace) for kept in first))
        await asyncio.gather(*(kept.stop(min(grace, LATER_GRACE_SECONDS)) for kept in later))
        if self._lock.held:
            self._endpoints = None
            self._endpoints_path.unlink(missing_ok=True)
        self._lock.release()

    def kill(self) -> None:
        """End everything by force, now, servers too; `stop` still has to be awaited."""
        for kept in self._kept.values():
            kept.kill()
        if self._servers is not None:
            self._servers.kill()

    @property
    def _endpoints_path(self) -> Path:
        return self._directory / ENDPOINTS_FILE

    def _begin(self, kept: KeptProcess) -> None:
        kept.spawn()
        kept.keep()

    def _changed(self, name: str, pid: int | None) -> None:
        if pid is None:
            self._pid_book.forget(name)
        else:
            self._pid_book.remember(name, pid, signal.SIGTERM)
        self._write_endpoints()

    def _write_endpoints(self) -> None:
        if self._endpoints is not None:
            current = msgspec.structs.replace(self._endpoints, pids=self.pids, supervisor_pid=os.getpid())
            current.write(self._endpoints_path)
