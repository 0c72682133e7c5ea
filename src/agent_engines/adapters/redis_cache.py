"""The cache in Redis or Valkey: quick or not at all, and never believed blindly.

Every command has 100 ms. After five failures in a row the cache is left alone for about five seconds, then tried in the
background (`runtime/dependency.py`); meanwhile every answer is "not there". A value carries its key, because a client whose replies slipped by
one would otherwise hand out somebody else's (seen in the wild with cancelled commands).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, Connection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.memory.cache import MemoryCache
from agent_engines.adapters.redis_address import RedisAddress
from agent_engines.domain.breaker import BreakerRule, Permit
from agent_engines.ports.cache import Cache
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Log, Telemetry
from agent_engines.runtime.dependency import Dependency
from agent_engines.runtime.local import LocalTelemetry
from agent_engines.runtime.plain_log import PlainLog

COMMAND_SECONDS = 0.1
PROBE_SECONDS = 1.0
"""The background probe may take longer: it opens the connection (TLS, sentinels) that commands then use."""
FAILURES_TO_BYPASS = 5
BYPASS_SECONDS = 5.0
"""The longest pause before the next probe; the shortest is a fifth less."""
RULE = BreakerRule(threshold=FAILURES_TO_BYPASS, error_share=2.0, open_seconds=BYPASS_SECONDS / 1.25, jitter=0.25)
MAX_CONNECTIONS = 50
PREFIX = "ae:"
FAILED = object()
"""In the place of an answer that did not come."""

Command = Callable[[Any], Awaitable[Any]]


def connect_cache(
    url: str, *, log: Log | None = None, clock: Clock | None = None, telemetry: Telemetry | None = None
) -> Cache:
    """A cache for this URL; connects on first use. `memory://` stays in the process. Raises ConfigurationError."""
    if url.startswith("memory:"):
        return MemoryCache(clock=clock)
    address = RedisAddress.parse(url)
    clock = clock or SystemClock()
    dependency = Dependency("redis", clock=clock, telemetry=telemetry or LocalTelemetry(), rule=RULE)
    return RedisCache(lambda: make_client(address), log=log or PlainLog("cache"), clock=clock, dependency=dependency)


class RedisCache:
    """Implements ports.cache.Cache; `make` builds a client and is called again when one does not recover."""

    def __init__(
        self, make: Callable[[], Any], *, log: Log, clock: Clock, dependency: Dependency | None = None
    ) -> None:
        self._make = make
        self._log = log
        self._client = make()
        self._dependency = dependency or Dependency("redis", clock=clock, telemetry=LocalTelemetry(), rule=RULE)
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False
        self._trouble = ""
        self.failures = 0
        """Commands that did not work since the start."""
        self.clients_built = 1

    @property
    def bypassed(self) -> bool:
        return self._dependency.away

    async def get(self, key: str) -> bytes | None:
        stored = await self._run(lambda client: client.get(PREFIX + key))
        return _opened(key, stored)

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        milliseconds = int(ttl_seconds * 1000)
        if milliseconds <= 0:
            await self.delete(key)
        else:
            await self._run(lambda client: client.set(PREFIX + key, _sealed(key, value), px=milliseconds))

    async def delete(self, key: str) -> None:
        await self._run(lambda client: client.delete(PREFIX + key))

    async def check(self) -> bool:
        if self._closed:
            return False
        answer = await self._try(lambda client: client.ping(), COMMAND_SECONDS)
        self._count(answer is not FAILED)
        return answer is True

    async def close(self) -> None:
        """Ends the probe and the connections; may be called twice."""
        self._closed = True
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._discard(self._client)

    async def _run(self, command: Command) -> Any:
        """The command's answer, or None for any trouble."""
        if self._closed:
            return None
        if self._dependency.away:
            permit = self._dependency.probe()
            if permit is not None:
                self._spawn(self._probe(permit))
            return None
        answer = await self._try(command, COMMAND_SECONDS)
        self._count(answer is not FAILED)
        return None if answer is FAILED else answer

    def _count(self, good: bool) -> None:
        if good:
            self._dependency.worked()
        else:
            self._dependency.failed(self._trouble)

    async def _try(self, command: Command, seconds: float) -> Any:
        """The command's answer, or FAILED for any trouble."""
        try:
            async with asyncio.timeout(seconds):
                answer = await command(self._client)
        except Exception as error:
            # Also what a broken server's bytes raise inside the driver: the cache may never be the reason of a failure.
            self.failures += 1
            self._trouble = type(error).__name__
            return FAILED
        return answer

    async def _probe(self, permit: Permit) -> None:
        """Try with a client of its own making: one that failed this often may be beyond repair."""
        old, self._client = self._client, self._make()
        self.clients_built += 1
        await self._discard(old)
        answer = await self._try(lambda client: client.ping(), PROBE_SECONDS)
        self._dependency.probed(permit, answer is not FAILED, self._trouble)

    async def _discard(self, client: Any) -> None:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await client.aclose()
        except Exception as error:
            self._log.debug("A cache client did not close cleanly", error=type(error).__name__)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="cache-probe")
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def make_client(address: RedisAddress) -> Any:
    """A client that has not connected yet; it never repeats a command by itself."""
    settings: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "socket_timeout": PROBE_SECONDS,
        "socket_connect_timeout": PROBE_SECONDS,
        # The older protocol: no handshake, nothing pushed into the stream of replies.
        "protocol": 2,
    }
    settings["retry"] = Retry(NoBackoff(), 0)
    tls: dict[str, Any] = {"ssl": True, **address.options} if address.tls else {}
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return RedisCluster(startup_nodes=nodes, **settings, **tls)
    settings["db"] = address.database
    if address.kind == "sentinel":
        guard = {**settings, "username": None, "password": address.sentinel_password, "db": 0, **tls}
        return Sentinel(address.hosts, sentinel_kwargs=guard, **settings, **tls).master_for(address.service)
    kind: type[AbstractConnection] = Connection
    if address.kind == "socket":
        kind = UnixDomainSocketConnection
        settings["path"] = address.path
    else:
        settings["host"], settings["port"] = address.hosts[0]
    if address.tls:
        kind = SSLConnection
        settings |= address.options
    pool = BlockingConnectionPool(
        max_connections=MAX_CONNECTIONS, timeout=PROBE_SECONDS, connection_class=kind, **settings
    )
    return Redis.from_pool(pool)


def _sealed(key: str, value: bytes) -> bytes:
    name = key.encode()
    return b"%d:%b:%b" % (len(name), name, value)


def _opened(key: str, stored: Any) -> bytes | None:
    """The value, if this is what was stored under this key."""
    head = _sealed(key, b"")
    return stored[len(head) :] if isinstance(stored, bytes) and stored.startswith(head) else None
