"""Snapshots of what the routers have learned, so that a start need not read every lesson ever taught."""

from __future__ import annotations

from typing import Protocol

import msgspec


class LearnedSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state after the lesson `sequence` of the log that `name` ends with; `digest` is the state's own."""

    name: str
    sequence: int
    digest: str
    state: bytes


class LearnedStore(Protocol):
    """Kept with the ledger. Every call raises Unavailable past its deadline."""

    async def save(self, snapshot: LearnedSnapshot, now: float) -> None:
        """Keep it; only the newest few of one name stay."""
        ...

    async def newest(self, prefix: str) -> LearnedSnapshot | None:
        """The one saved last among those whose name begins so."""
        ...
