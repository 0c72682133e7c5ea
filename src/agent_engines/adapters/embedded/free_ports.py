"""Loopback ports: chosen once, kept between runs while they are free."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from pathlib import Path

import msgspec

from agent_engines.domain.errors import EmbeddedServerError

from .private_files import write_private

LOOPBACK = "127.0.0.1"
# Below every system's range for outgoing connections (Linux 32768, macOS 49152): a client that reconnects to a port
# inside that range while the server is down may be given that very port as its own and talk to itself.
LOWEST, HIGHEST = 12_000, 32_000


def is_free(port: int) -> bool:
    """Whether a server could listen on the loopback `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


class PortBook:
    """The ports of one data directory, by name; remembered in `path`."""

    def __init__(self, path: Path, *, rng: random.Random | None = None) -> None:
        self._path = path
        self._rng = rng or random.SystemRandom()
        self._ports: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        return self._ports[name]

    def settle(self, names: Iterable[str]) -> None:
        """Keep what is remembered and free, choose the rest, remember. Raises EmbeddedServerError."""
        remembered = self._remembered()
        for name in names:
            port = remembered.get(name)
            self._ports[name] = port if port is not None and is_free(port) else self._choose()
        self._remember()

    def change(self, name: str) -> int:
        """Choose another port because someone took this one meanwhile."""
        self._ports[name] = self._choose()
        self._remember()
        return self._ports[name]

    def _choose(self) -> int:
        for _ in range(200):
            port = self._rng.randrange(LOWEST, HIGHEST)
            if port not in self._ports.values() and is_free(port):
                return port
        raise EmbeddedServerError(f"no free port between {LOWEST} and {HIGHEST} on {LOOPBACK}; stop other services")

    def _remembered(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, int])
        except (FileNotFoundError, msgspec.DecodeError):
            # A damaged list costs new port numbers, nothing else.
            return {}

    def _remember(self) -> None:
        write_private(self._path, msgspec.json.encode(self._ports))
