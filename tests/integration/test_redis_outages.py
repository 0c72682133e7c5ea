"""A cache server that lies, hangs or is gone never becomes the reason of a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import redis.asyncio

from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.redis_address import RedisAddress
from agent_engines.adapters.redis_cache import BYPASS_SECONDS, FAILURES_TO_BYPASS, PREFIX, RedisCache, make_client
from agent_engines.domain.errors import ConfigurationError
from agent_engines.runtime.plain_log import PlainLog

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def cache_at(url: str, clock: ManualClock | None = None) -> RedisCache:
    address = RedisAddress.parse(url)
    return RedisCache(lambda: make_client(address), log=PlainLog("cache"), clock=clock or ManualClock())


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    """A server of our own making; yields its URL."""
    handlers: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        handlers.add(task)
        await asyncio.gather(task, return_exceptions=True)
        writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def answering(*answers: bytes) -> Serve:
    """Answers each command with the next of these, the last one for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        while await reader.read(65_536):
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()

    return serve


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(65_536):
        pass


@pytest.mark.parametrize(
    "garbage",
    [
        b"$3\r\nabc\r\n",
        b":12\r\n",
        b"+OK\r\n",
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"-ERR not now\r\n",
        b"-LOADING Redis is loading\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\x01\x02\r\n",
        b"$-5\r\nxx\r\n",
        b"$3\r\nab",
    ],
)
async def test_garbage_means_not_there(garbage: bytes) -> None:
    async with server(answering(garbage)) as url:
        cache = cache_at(url)
        assert await cache.get("k") is None
        await cache.set("k", b"v", 30.0)
        await cache.delete("k")
        await cache.close()


async def test_another_keys_answer_is_not_believed(redis_url: str) -> None:
    cache = cache_at(redis_url)
    client = redis.asyncio.Redis.from_url(redis_url)
    await cache.set("mine", b"secret of mine", 30.0)
    stolen = await client.get(f"{PREFIX}mine")
    assert stolen is not None
    await client.set(f"{PREFIX}yours", stolen)
    await client.aclose()
    assert await cache.get("yours") is None
    assert await cache.get("mine") == b"secret of mine"
    await cache.close()


async def test_a_cancelled_command_does_not_shift_the_answers(redis_url: str) -> None:
    cache = cache_at(redis_url)
    for number in range(50):
        await cache.set(f"k{number}", b"%d" % number, 30.0)
    reads = [asyncio.ensure_future(cache.get(f"k{number}")) for number in range(50)]
    await asyncio.sleep(0)
    for read in reads[::2]:
        read.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
    answers = [await cache.get(f"k{number}") for number in range(50)]
    assert all(answer in (None, b"%d" % number) for number, answer in enumerate(answers))
    assert any(answers)
    await cache.close()


async def test_a_silent_server_costs_a_few_commands_and_is_then_left_alone() -> None:
    async with server(silent) as url:
        cache = cache_at(url)
        for _ in range(FAILURES_TO_BYPASS):
            assert await cache.get("k") is None
        assert cache.bypassed
        failures = cache.failures
        for _ in range(100):
            assert await cache.get("k") is None
        assert cache.failures == failures
        assert not await cache.check()
        await cache.close()


async def test_a_server_that_is_gone_is_not_there_and_nothing_else() -> None:
    cache = cache_at("redis://127.0.0.1:1")
    for _ in range(FAILURES_TO_BYPASS + 1):
        assert await cache.get("k") is None
        await cache.set("k", b"v", 1.0)
    assert not await cache.check()
    assert cache.bypassed
    await cache.close()
    await cache.close()


async def test_a_bypassed_cache_comes_back_with_a_new_client(redis_url: str) -> None:
    clock = ManualClock()
    address = RedisAddress.parse(redis_url)
    addresses = [RedisAddress.parse("redis://127.0.0.1:1"), address]
    cache = RedisCache(lambda: make_client(addresses.pop(0)), log=PlainLog("cache"), clock=clock)
    for _ in range(FAILURES_TO_BYPASS):
        await cache.set("k", b"v", 30.0)
    assert cache.bypassed
    await clock.advance(BYPASS_SECONDS)
    assert await cache.get("k") is None
    async with asyncio.timeout(5.0):
        while cache.bypassed:
            await asyncio.sleep(0.01)
    await cache.set("k", b"v", 30.0)
    assert await cache.get("k") == b"v"
    assert cache.clients_built == 2
    await cache.close()


async def test_only_one_caller_probes_a_bypassed_cache() -> None:
    clock = ManualClock()
    async with server(silent) as url:
        cache = cache_at(url, clock)
        for _ in range(FAILURES_TO_BYPASS):
            await cache.get("k")
        await clock.advance(BYPASS_SECONDS)
        await asyncio.gather(*(cache.get("k") for _ in range(100)))
        await asyncio.sleep(0)
        assert cache.clients_built == 2
        await cache.close()


async def test_a_closed_cache_answers_nothing(redis_url: str) -> None:
    cache = cache_at(redis_url)
    await cache.set("k", b"v", 30.0)
    await cache.close()
    assert await cache.get("k") is None
    assert not await cache.check()


async def test_a_wrong_password_is_not_there_and_is_not_told(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    cache = cache_at(f"redis://:wrong-secret@{redis_url.rpartition('@')[2]}")
    for _ in range(FAILURES_TO_BYPASS):
        assert await cache.get("k") is None
    assert "wrong-secret" not in caplog.text
    assert cache.bypassed
    await cache.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", RedisAddress("single", hosts=(("h", 6379),))),
        ("redis://h:7000/3", RedisAddress("single", hosts=(("h", 7000),), database=3)),
        ("redis://[::1]:7000", RedisAddress("single", hosts=(("::1", 7000),))),
        ("redis://:p%40ss@h", RedisAddress("single", hosts=(("h", 6379),), password="p@ss")),
        ("rediss://u:p@h", RedisAddress("single", hosts=(("h", 6379),), tls=True, username="u", password="p")),
        (
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
            RedisAddress(
                "single",
                hosts=(("h", 6379),),
                tls=True,
                options={"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
            ),
        ),
        (
            "redis+cluster://u:p@a:1,b:2",
            RedisAddress("cluster", hosts=(("a", 1), ("b", 2)), username="u", password="p"),
        ),
        ("rediss+cluster://a", RedisAddress("cluster", hosts=(("a", 6379),), tls=True)),
        (
            "redis+sentinel://:p@a,b:2/main/4?sentinel_password=s",
            RedisAddress(
                "sentinel",
                hosts=(("a", 26379), ("b", 2)),
                password="p",
                sentinel_password="s",
                database=4,
                service="main",
            ),
        ),
        ("unix:///run/cache.sock?db=2", RedisAddress("socket", path="/run/cache.sock", database=2)),
    ],
)
async def test_every_documented_form_of_the_url_is_understood(url: str, expected: RedisAddress) -> None:
    address = RedisAddress.parse(url)
    assert address == expected
    # Made without connecting: a form that the driver refuses would raise here.
    await make_client(address).aclose()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://h",
        "redis://",
        "redis://h:0",
        "redis://h:x",
        "redis://h/1/2",
        "redis://h/first",
        "redis://:secret@h1,h2",
        "redis+sentinel://h",
        "redis+weird://h",
    ],
)
def test_another_form_is_refused_without_naming_the_secret(url: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        RedisAddress.parse(url)
    assert "secret" not in str(refusal.value)
    assert "REDIS_URL" in str(refusal.value)


def test_an_address_does_not_show_its_secrets() -> None:
    address = RedisAddress.parse("redis+sentinel://user:secret-1@h/main?sentinel_password=secret-2")
    assert "secret" not in repr(address)
