"""Discovery: where engine processes are. A hint for people and tools; who may be given work is known from heartbeats alone."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One engine process: a replica of an agent, and where its HTTP side listens."""

    agent: str
    replica: str
    engine: str
    """Its kind: intelligence, performance, optimizing, or the agent type of a custom engine."""
    address: str
    """Host; empty in an announcement: whatever host the registry knows this machine by."""
    port: int

    @property
    def url(self) -> str:
        return f"http://[{self.address}]:{self.port}" if ":" in self.address else f"http://{self.address}:{self.port}"


class Discovery(Protocol):
    """Never raises for trouble of its own: a registry that is away leaves the last list as it was."""

    def announce(self, instance: Instance) -> None:
        """Make this process known and keep it known, in the background."""
        ...

    def follow(self) -> None:
        """Keep `peers` up to date, in the background."""
        ...

    def peers(self) -> tuple[Instance, ...]:
        """Engine processes as far as known, this one among them; empty before the first answer."""
        ...

    async def withdraw(self) -> None:
        """Take the announcement back, within a second or not at all: it runs out by itself."""
        ...

    async def check(self) -> bool:
        """A real round trip within a second; False at once while the registry is known to be away."""
        ...

    async def close(self) -> None: ...
