"""What the three embedded servers have in common: their name, how to prepare, run and probe them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .child import Child, Command
from .free_ports import LOOPBACK

USER = "ae"
PROBE_SECONDS = 2.0
READY_SECONDS = 60.0
PROBE_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Place:
    """Where the servers of one installation keep things. `ephemeral`: nothing has to outlive a power loss."""

    root: Path
    logs: Path
    ephemeral: bool


class Server(Protocol):
    """One kind of server on fixed ports."""

    @property
    def name(self) -> str: ...

    @property
    def port_names(self) -> tuple[str, ...]:
        """The names under which its ports are remembered."""
        ...

    async def prepare(self) -> None:
        """Before the first start: directories, settings, first-time work. Raises EmbeddedServerError."""
        ...

    async def clean(self) -> None:
        """Before every start: remove what a crash left in the way. Raises EmbeddedServerError."""
        ...

    def command(self) -> Command: ...

    async def ready(self, pid: int) -> bool:
        """Probe once whether the process `pid` serves; never raises for a server that is not there yet."""
        ...


async def converse(port: int, request: bytes, until: bytes) -> bytes:
    """Send `request` to the loopback port, read up to `until` or the end of the stream; empty when nobody answers."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(request)
                return await reader.readuntil(until)
            except asyncio.IncompleteReadError as error:
                return error.partial
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.LimitOverrunError):
        return b""


async def until_ready(server: Server, child: Child) -> bool:
    """True once it is ready, False when it ended first. Raises TimeoutError after READY_SECONDS."""
    async with asyncio.timeout(READY_SECONDS):
        while child.running:
            if await server.ready(child.pid):
                return True
            await asyncio.sleep(PROBE_PAUSE)
    return False
