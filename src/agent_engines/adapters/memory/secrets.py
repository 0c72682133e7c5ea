"""Shared secrets in memory. The one that marks dispatches is always the same here: tests play agents with it."""

from __future__ import annotations

from agent_engines.domain.capability import SHARED_NAME

TEST_CAPABILITY_KEY = b"a key for tests, known to everyone, of no use elsewhere"


class MemorySecrets:
    """See ports/secrets.py: SharedSecrets."""

    def __init__(self) -> None:
        self._secrets = {SHARED_NAME: TEST_CAPABILITY_KEY}

    async def shared(self, name: str, proposed: bytes) -> bytes:
        return self._secrets.setdefault(name, proposed)
