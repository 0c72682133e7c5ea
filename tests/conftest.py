"""Real servers for every test that asks: one set for each test process, wiped between tests."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import nats
import pytest
import redis.asyncio
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from agent_engines.adapters.embedded import Endpoints
from agent_engines.testing.servers import BackgroundServers
from kernel_house import build

# A slow machine must not fail a test: an example may take as long as the test may.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


FLEET = "fleet: System"
"""How the test functions of a file ask for the running system that all of them share (tests/e2e/conftest.py)."""


class OneFleet(LoadFileScheduling):
    """Files stay whole, and those that share a system go to one worker: a system for each costs its start and its idling."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return FLEET if _shares_the_fleet(self.config.rootpath / file) else file


@cache
def _shares_the_fleet(file: Path) -> bool:
    return FLEET in file.read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return OneFleet(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all kernels, compiled from today's sources."""
    return build(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def background_servers() -> Iterator[BackgroundServers]:
    """NATS, PostgreSQL and Valkey, started at first use; a test may kill them, they come back."""
    with tempfile.TemporaryDirectory(prefix="ae-tests-") as directory, BackgroundServers(Path(directory)) as servers:
        yield servers


@pytest.fixture(scope="session")
def servers(background_servers: BackgroundServers) -> Endpoints:
    """Where they are. Tests that write should ask for `nats_url`, `postgres_url`, `redis_url` instead."""
    return background_servers.endpoints


@pytest.fixture
async def nats_url(servers: Endpoints, background_servers: BackgroundServers) -> AsyncIterator[str]:
    """JetStream without any stream or bucket; what the test leaves is deleted."""
    yield servers.nats_url
    background_servers.ready()
    client = await nats.connect(servers.nats_url)
    try:
        jetstream = client.jetstream()
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(str(stream.config.name))
    finally:
        await client.close()


@pytest.fixture
async def postgres_url(servers: Endpoints, background_servers: BackgroundServers) -> AsyncIterator[str]:
    """A new, empty database, dropped afterwards even when connections are left."""
    name = f"test_{secrets.token_hex(6)}"
    await _administrate(servers, f"CREATE DATABASE {name}")
    yield f"{servers.postgres_url.rpartition('/')[0]}/{name}"
    background_servers.ready()
    await _administrate(servers, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def redis_url(servers: Endpoints, background_servers: BackgroundServers) -> AsyncIterator[str]:
    """A cache without keys."""
    yield servers.redis_url
    background_servers.ready()
    client = redis.asyncio.Redis.from_url(servers.redis_url)
    try:
        await client.flushall()
    finally:
        await client.aclose()


async def _administrate(servers: Endpoints, statement: str) -> None:
    connection = await asyncpg.connect(servers.postgres_url, ssl=False)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
