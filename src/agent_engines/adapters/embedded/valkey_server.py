"""The embedded Valkey, which stands in the place of Redis. It is a cache: everything in it can be rebuilt."""

from __future__ import annotations

import json
from pathlib import Path

from .child import Command
from .free_ports import LOOPBACK, PortBook
from .private_files import private_directory, write_private
from .server import Place, converse


class ValkeyServer:
    """Keeps its keys over a restart by an append-only file that is flushed every second."""

    name = "redis"
    port_names = ("redis",)

    def __init__(self, binary: Path, place: Place, *, ports: PortBook, password: str) -> None:
        self._binary = binary
        self._place = place
        self._ports = ports
        self._password = password
        self._directory = place.root / "redis"

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{LOOPBACK}:{self._ports['redis']}/0"

    async def prepare(self) -> None:
        private_directory(self._directory)

    async def clean(self) -> None:
        # A file and not arguments: every account of the machine can read the arguments.
        write_private(self._directory / "valkey.conf", self._settings().encode(), lasting=False)

    def command(self) -> Command:
        return Command(
            argv=(str(self._binary), str(self._directory / "valkey.conf")),
            env={"HOME": str(self._directory), "TZ": "UTC"},
            cwd=self._directory,
            log=self._place.logs / "redis.log",
        )

    async def ready(self, pid: int) -> bool:
        request = f"AUTH {self._password}\r\nPING\r\n".encode()
        return b"+PONG" in await converse(self._ports["redis"], request, b"+PONG\r\n")

    def _settings(self) -> str:
        # hz is how often it wakes up when idle, and how soon it sees a SIGTERM: within 0.2 s.
        return f"""
bind {LOOPBACK}
port {self._ports["redis"]}
requirepass {self._password}
dir {json.dumps(str(self._directory))}
appendonly yes
appendfsync everysec
save ""
maxmemory 64mb
maxmemory-policy allkeys-lru
hz 5
activerehashing no
daemonize no
"""
