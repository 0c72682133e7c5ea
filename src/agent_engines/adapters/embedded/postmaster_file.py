"""PostgreSQL's lock file `postmaster.pid`: how it tells that it is ready, and what a crash leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from agent_engines.domain.errors import EmbeddedServerError

from .leftovers import POLL_SECONDS, stop_process
from .process_identity import command_lines, identity

ORPHANS_SECONDS = 10.0


class PostmasterFile:
    """Lines (PostgreSQL's pidfile.h): 1 process id, 2 data directory, 4 port, 8 state.

    `cluster`: the server's cluster_name, which no other server has.
    """

    def __init__(self, data: Path, cluster: str) -> None:
        self._data = data
        self._cluster = cluster
        self._path = data / "postmaster.pid"

    def says_ready(self, pid: int) -> bool:
        """Whether the server with this process id accepts connections."""
        lines = self._lines()
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7] == "ready"

    async def clear(self) -> None:
        """Stop a server that still runs on this data, then remove a stale file. Raises EmbeddedServerError.

        PostgreSQL itself does not start while the number in the file is alive, also when by now it belongs to another
        program, as it does in restarted containers. The file may go only when no process of the cluster is left, which
        only Linux tells.
        """
        lines = self._lines()
        if not lines or sys.platform != "linux":
            return
        workers = self._processes()
        owner = int(lines[0]) if lines[0].isdigit() else 0
        if owner in workers:
            await stop_process(owner, identity(owner) or "", signal.SIGINT)
        await self._orphans_gone()
        if self._lines() and _alive(owner) and owner not in workers:
            self._path.unlink(missing_ok=True)

    async def _orphans_gone(self) -> None:
        try:
            async with asyncio.timeout(ORPHANS_SECONDS):
                # They notice by themselves that their parent is gone; no one else is told.
                while self._processes():
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise EmbeddedServerError(
                f"processes {self._processes()} still work in {self._data}; stop them and start again"
            ) from None

    def _processes(self) -> list[int]:
        """The postmaster by its setting, the others by their title; both are visible to every account."""
        title, setting = f"postgres: {self._cluster}", f"cluster_name={self._cluster}"
        return [
            pid
            for pid, arguments in command_lines().items()
            if arguments[0].startswith(title) or (arguments[0].endswith("/postgres") and setting in arguments)
        ]

    def _lines(self) -> list[str]:
        try:
            return [line.strip() for line in self._path.read_text().splitlines()]
        except OSError:
            return []


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
