"""Secrets that all routers have and nobody else."""

from __future__ import annotations

from typing import Protocol


class SharedSecrets(Protocol):
    """Secrets of the routers; agents have no access to the ledger."""

    async def shared(self, name: str, proposed: bytes) -> bytes:
        """The secret of this name, the same for everybody; `proposed` becomes it when there is none yet."""
        ...
