"""The spool: finished work that the bus does not take at the moment, kept where the end of the process cannot reach it.

Guarantees an adapter must keep (and the behaviour suite checks):
- what `keep` said True to is read back by whoever adopts it, in the same groups, however the process ended;
- a group that was only half written is not there;
- a replica's spool belongs to it alone while it lives; when it is gone, exactly one other has it at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from agent_engines.domain.messages import Report

MAX_REPORTS = 10_000
MAX_BYTES = 256 * 1024 * 1024
"""RELIABILITY 4.5, row NATS."""


class Spooled(msgspec.Struct, frozen=True, omit_defaults=True):
    """One report; `token` acknowledges its task once the report is durable on the bus (None: it cannot be kept)."""

    report: Report
    token: bytes | None = None


class Orphan(Protocol):
    """The spool of a replica that is gone; ours until `remove` or `leave`."""

    async def read(self) -> tuple[Spooled, ...] | None:
        """The next group as it was kept; None after the last whole one."""
        ...

    async def remove(self) -> None:
        """All of it is on the bus: forget it."""
        ...

    async def leave(self) -> None:
        """Let somebody else, or a later start, have it."""
        ...


class Spool(Protocol):
    """Of one replica of one agent. Nothing of it exists until the first `keep`."""

    async def keep(self, group: Sequence[Spooled]) -> bool:
        """Durable when it returns True; False: it is full. Raises Unavailable when it cannot be written."""
        ...

    async def clear(self) -> None:
        """All of it is on the bus: forget it. May be called at any time. Raises Unavailable."""
        ...

    async def orphans(self) -> Sequence[Orphan]:
        """Spools of this agent's replicas that are gone, now ours. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Let go; what was kept and not cleared stays for others. May be called twice."""
        ...
