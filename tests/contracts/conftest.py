"""One ledger after the other: what every adapter must do is asked of each."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.postgres import migrate
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.ports.ledger import Ledger


@pytest.fixture
def memory_ledger() -> Ledger:
    return MemoryLedger(SystemClock())


@pytest.fixture
async def postgres_ledger(postgres_url: str) -> AsyncIterator[Ledger]:
    await migrate.migrate(postgres_url)
    ledger = await PostgresLedger.connect(postgres_url, pool_min=1, pool_max=4)
    yield ledger
    await ledger.close()


@pytest.fixture(params=["memory", "postgres"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    return request.getfixturevalue(f"{request.param}_ledger")
