"""The cache over the server forms that are not one plain server: a cluster, sentinels, a socket."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.asyncio
from redis.exceptions import RedisError

from agent_engines.adapters.embedded.binaries import find_valkey_server
from agent_engines.adapters.redis_cache import connect_cache
from agent_engines.ports.cache import Cache

PATIENCE = 20.0


def free_port() -> int:
    """A free port with room above it: a cluster also listens 10,000 higher."""
    while True:
        with socket.socket() as probe, socket.socket() as above:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port > 55_000:
                continue
            try:
                above.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


class Servers:
    """Starts servers in one directory and ends them all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *settings: str, sentinel: bool = False) -> int:
        port = free_port()
        config = self.directory / f"{port}.conf"
        lines = [f"port {port}", "bind 127.0.0.1", f"dir {self.directory}", 'save ""', *settings]
        config.write_text("\n".join(lines) + "\n")
        arguments = [str(find_valkey_server()), str(config), *(["--sentinel"] if sentinel else [])]
        self._processes.append(subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return port

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    servers.stop()


async def command(port: int, *words: str, password: str | None = None) -> bytes:
    """Repeats until the server is there and agrees."""
    async with asyncio.timeout(PATIENCE):
        while True:
            client = redis.asyncio.Redis(port=port, password=password)
            try:
                return await client.execute_command(*words)
            except RedisError:
                await asyncio.sleep(0.05)
            finally:
                await client.aclose()


async def works(cache: Cache) -> bool:
    async with asyncio.timeout(PATIENCE):
        while not await cache.check():
            await asyncio.sleep(0.05)
        while await cache.get("k") != b"v":
            await cache.set("k", b"v", 30.0)
            await asyncio.sleep(0.01)
    await cache.close()
    return True


async def test_a_cluster_is_a_cache(started: Servers) -> None:
    port = started.start("cluster-enabled yes", "requirepass secret")
    await command(port, "CLUSTER", "ADDSLOTSRANGE", "0", "16383", password="secret")
    # A new cluster refuses writes for the first seconds.
    await command(port, "SET", "ready", "yes", password="secret")
    assert await works(connect_cache(f"redis+cluster://:secret@127.0.0.1:1,127.0.0.1:{port}"))


async def test_sentinels_lead_to_the_cache(started: Servers) -> None:
    port = started.start("requirepass secret")
    watcher = started.start(
        f"sentinel monitor main 127.0.0.1 {port} 1",
        "sentinel auth-pass main secret",
        "requirepass guard",
        sentinel=True,
    )
    await command(port, "PING", password="secret")
    await command(watcher, "PING", password="guard")
    url = f"redis+sentinel://:secret@127.0.0.1:1,127.0.0.1:{watcher}/main/0?sentinel_password=guard"
    assert await works(connect_cache(url))


async def test_a_socket_leads_to_the_cache(started: Servers) -> None:
    path = Path(f"/tmp/ae-{started.directory.stat().st_ino}.sock")  # a socket's path must be short
    port = started.start(f"unixsocket {path}")
    await command(port, "PING")
    assert await works(connect_cache(f"unix://{path}?db=1"))
    path.unlink(missing_ok=True)
