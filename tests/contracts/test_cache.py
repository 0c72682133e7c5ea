"""What every cache must do, over memory and over a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agent_engines.adapters.memory.cache import MemoryCache
from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.redis_cache import connect_cache
from agent_engines.ports.cache import Cache


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Cache]:
    cache = connect_cache("memory://" if request.param == "memory" else redis_url)
    # A busy machine may need more than a command's 100 ms for the very first connection.
    while not await cache.check():
        pass
    yield cache
    await cache.close()


async def test_a_value_is_what_was_stored(cache: Cache) -> None:
    await cache.set("k", b"\x00\xff:value", 30.0)
    assert await cache.get("k") == b"\x00\xff:value"


async def test_an_empty_value_is_a_value(cache: Cache) -> None:
    await cache.set("k", b"", 30.0)
    assert await cache.get("k") == b""


async def test_a_key_that_was_never_stored_is_not_there(cache: Cache) -> None:
    assert await cache.get("nothing") is None


async def test_the_last_value_counts(cache: Cache) -> None:
    await cache.set("k", b"1", 30.0)
    await cache.set("k", b"2", 30.0)
    assert await cache.get("k") == b"2"


async def test_a_deleted_key_is_gone(cache: Cache) -> None:
    await cache.set("k", b"1", 30.0)
    await cache.delete("k")
    await cache.delete("k")
    assert await cache.get("k") is None


async def test_a_value_without_time_to_live_is_not_kept(cache: Cache) -> None:
    await cache.set("k", b"1", 30.0)
    await cache.set("k", b"2", 0.0)
    assert await cache.get("k") is None


async def test_a_value_is_gone_after_its_time(cache: Cache) -> None:
    await cache.set("k", b"1", 0.05)
    while await cache.get("k") is not None:
        pass
    assert await cache.get("k") is None


@pytest.mark.parametrize("key", ["", "a b", "é", "a:b", "x" * 1_000, "\r\nFLUSHALL\r\n"])
async def test_any_text_is_a_key(cache: Cache, key: str) -> None:
    await cache.set(key, b"v", 30.0)
    assert await cache.get(key) == b"v"


async def test_a_cache_that_works_says_so(cache: Cache) -> None:
    assert await cache.check()


async def test_a_full_memory_cache_forgets_what_was_used_least_recently() -> None:
    cache = MemoryCache(max_entries=2)
    await cache.set("a", b"1", 30.0)
    await cache.set("b", b"2", 30.0)
    assert await cache.get("a") == b"1"
    await cache.set("c", b"3", 30.0)
    assert [await cache.get(key) for key in "abc"] == [b"1", None, b"3"]
    assert len(cache) == 2


async def test_a_memory_cache_keeps_a_value_until_its_time_and_not_longer() -> None:
    clock = ManualClock()
    cache = MemoryCache(clock=clock)
    await cache.set("k", b"v", 10.0)
    await clock.advance(9.9)
    assert await cache.get("k") == b"v"
    await clock.advance(0.1)
    assert await cache.get("k") is None
