"""Forgetting what is old enough."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Purged(msgspec.Struct, frozen=True):
    """How many rows retention removed."""

    tasks: int
    results: int
    decisions: int


class Retention(Protocol):
    """Part of the ledger."""

    async def purge(self, older_than: float) -> Purged:
        """Delete what ended before `older_than` (epoch seconds), with its attempts, dead letter and decisions.

        In small commits; a task that is still open keeps everything.
        """
        ...
