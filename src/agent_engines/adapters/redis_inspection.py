"""Reading what Redis or Valkey says about itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError, RedisError, ResponseError

from agent_engines.domain.errors import Unavailable
from agent_engines.domain.preflight.finding import Unread

from .redis_address import RedisAddress
from .redis_cache import make_client

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
INFO_FACTS = ("maxmemory", "maxmemory_policy", "version", "evicted_keys")
READ_SECONDS = 2.0

Facts = dict[str, Any]


async def read_redis(url: str, facts: Facts) -> None:
    """Fill in what rules ask about (domain/preflight/cache.py). Raises Unavailable, ConfigurationError."""
    address = RedisAddress.parse(url)
    facts |= {
        "tls": address.tls,
        "local": address.kind == "socket" or all(host in LOOPBACK for host, _ in address.hosts),
    }
    try:
        facts |= await _told(address)
    except (NoPermissionError, ResponseError) as error:
        facts |= {name: Unread(f"no right: {error}") for name in INFO_FACTS}
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"the cache does not answer: {str(error) or type(error).__name__}") from error
    facts["anonymous"] = await _as_nobody(replace(address, username=None, password=None))


async def _told(address: RedisAddress) -> Facts:
    client = make_client(address)
    try:
        async with asyncio.timeout(READ_SECONDS):
            told: dict[str, Any] = await client.info()
    finally:
        await client.aclose()
    if address.kind == "cluster":
        # One node speaks for all: they are set up alike.
        told = next((one for one in told.values() if isinstance(one, dict)), told)
    return {
        "maxmemory": int(told.get("maxmemory", 0)),
        "maxmemory_policy": str(told.get("maxmemory_policy", "unknown")),
        "version": str(told.get("valkey_version") or told.get("redis_version") or "unknown"),
        "evicted_keys": int(told.get("evicted_keys", 0)),
    }


async def _as_nobody(address: RedisAddress) -> str | Unread:
    client = make_client(address)
    try:
        async with asyncio.timeout(READ_SECONDS):
            await client.ping()
        return "accepted"
    except (AuthenticationError, NoPermissionError, ResponseError):
        return "refused"
    except (ConnectionError, RedisError, OSError, TimeoutError) as error:
        # Some clients meet the refusal while they look for the cluster's shape.
        return "refused" if "NOAUTH" in str(error) or "uthentication" in str(error) else Unread(type(error).__name__)
    finally:
        await client.aclose()
