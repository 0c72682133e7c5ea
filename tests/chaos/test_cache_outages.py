"""R6, what a kill and a FLUSHALL do not show: a cache that answers after two seconds, that answers nonsense, that is mute.

A second router of the same system has its cache behind a proxy; all load goes through that router.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from agent_engines.testing.history import Op
from consul_house import free_port
from fault_house import SEED, TIMEOUT, Load, Nemesis, during, environment, scaled, verdict
from fault_proxy import FaultProxy

pytestmark = pytest.mark.timeout(TIMEOUT)

NONSENSE = [
    b"$3\r\nabc\r\n",
    b":12\r\n",
    b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"-ERR not now\r\n",
    b"\x00\x01\x02\r\n",
    b"$-5\r\n",
]


async def test_r6_a_cache_that_is_slow_mute_or_talks_nonsense_is_not_noticed(start: Any, tmp_path: Any) -> None:
    with start() as system:
        rng = Random(f"{SEED}-R6-lies")
        target = urlsplit(system.endpoints["redis_url"])
        assert target.port is not None
        place = {"port": target.port}
        async with FaultProxy(lambda: place["port"], rng=rng) as proxy, _liar(rng) as liar:
            login = target.netloc.rpartition(":")[0]
            url = target._replace(netloc=f"{login}:{proxy.port}").geturl()
            async with _router(system, tmp_path, REDIS_URL=url) as router:
                load, nemesis = Load(router, rng), Nemesis(system, rng)
                marks: list[tuple[str, int]] = []

                async def phase(name: str, seconds: float) -> None:
                    marks.append((name, len(load.calls)))
                    nemesis.faults[name] += 1
                    await asyncio.sleep(seconds)
                    proxy.heal()
                    place["port"] = target.port or 0
                    proxy.reset()

                async def harm() -> None:
                    for _ in range(scaled(2, full=10)):
                        await phase("healthy", 3.0)
                        proxy.slow(delay=1.0)  # there and back: two seconds
                        await phase("two seconds late", 4.0)
                        place["port"] = liar
                        proxy.reset()
                        await phase("nonsense", 4.0)
                        proxy.cut()
                        await phase("mute", 4.0)
                    marks.append(("end", len(load.calls)))

                await during(load, harm(), rate=150.0)
                found = await verdict("R6-lies", system, load, nemesis)
                found.more["submit_p99_ms"] = _p99(load, marks)
                found.say()
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    assert set(found.answers) == {"accepted"}


def _p99(load: Load, marks: list[tuple[str, int]]) -> dict[str, float]:
    """For each kind of phase; to be read, not judged: the machine's other work is in it."""
    times: dict[str, list[float]] = {}
    for (name, start), (_, end) in pairwise(marks):
        times.setdefault(name, []).extend(
            (call.ended - call.began) * 1000 for call in load.calls[start:end] if call.op is Op.SUBMIT
        )
    return {name: round(sorted(found)[int(len(found) * 0.99)], 1) for name, found in times.items() if found}


@asynccontextmanager
async def _liar(rng: Random) -> AsyncIterator[int]:
    """A server that answers anything; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65_536):
                writer.write(rng.choice(NONSENSE))
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def _router(system: Any, directory: Any, **variables: str) -> AsyncIterator[str]:
    """Another `engines run intelligence` on the same servers; yields its URL once it has heard from agents."""
    port = free_port()
    common = {
        **os.environ,
        **environment(directory),
        "NATS_URL": system.endpoints["nats_url"],
        "POSTGRES_URL": system.endpoints["postgres_url"],
        "AGENT_HTTP_PORT": str(port),
        **variables,
    }
    with (directory / "router.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent_engines.cli", "run", "intelligence"], env=common, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx2.AsyncClient(base_url=url, timeout=10) as http, asyncio.timeout(60):
            while True:
                try:
                    if (await http.get("/ready")).status_code == 200:
                        break
                except httpx2.HTTPError:
                    assert process.poll() is None, (directory / "router.log").read_text()[-3000:]
                await asyncio.sleep(0.1)
        yield url
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 60)
