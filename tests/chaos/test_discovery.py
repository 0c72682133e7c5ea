"""R7: Consul absent for the whole run, and coming and going: it is a hint, so no task may notice.

The second run has a real agent where `consul` is installed (`scripts/get_consul.sh`), else the stand-in; it says which.
"""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest

from consul_house import KINDS, free_port, running
from fault_house import SEED, TIMEOUT, Load, Nemesis, during, scaled, verdict

pytestmark = pytest.mark.timeout(TIMEOUT)

SILENT_SECONDS = 5.0
"""The bar: no heartbeat for so long, and an agent counts as suspect, whatever discovery says about it."""


async def test_r7_a_consul_that_was_never_there_is_not_noticed(start: Any) -> None:
    with start(CONSUL_URL=f"http://127.0.0.1:{free_port()}") as system:
        rng = Random(f"{SEED}-R7-absent")
        load, nemesis = Load(system.url, rng), Nemesis(system, rng)
        noticed = 0.0

        async def harm() -> None:
            nonlocal noticed
            await asyncio.sleep(scaled(5))
            noticed = await _seconds_until_suspect(system, nemesis)

        await during(load, harm())
        async with httpx2.AsyncClient(base_url=system.url, timeout=30) as http:
            health = await http.get("/health")
        found = await verdict("R7-absent", system, load, nemesis)
        found.more["suspect_after_s"] = round(noticed, 1)
        found.say()
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    assert set(found.answers) == {"accepted"}
    # For information only.
    assert (health.status_code, health.json()["checks"]["consul"]) == (200, False)
    assert noticed <= SILENT_SECONDS + 15.0


async def test_r7_a_consul_that_comes_and_goes_is_not_noticed(start: Any, tmp_path: Path) -> None:
    async with running(KINDS[-1], tmp_path) as consul:
        with start(CONSUL_URL=consul.url) as system:
            rng = Random(f"{SEED}-R7-flapping")
            load, nemesis = Load(system.url, rng), Nemesis(system, rng)
            seen = 0

            async def harm() -> None:
                nonlocal seen
                for _ in range(scaled(4, full=30)):
                    await asyncio.sleep(rng.uniform(1.0, 2.0))
                    await consul.stop()
                    nemesis.faults["stop consul"] += 1
                    # Once with the registry away: a process that is killed comes back without it.
                    await nemesis.kill("agent:worker:1")
                    await asyncio.sleep(rng.uniform(1.0, 2.0))
                    await consul.start()
                seen = await _located(system, 2)

            await during(load, harm())
            found = await verdict("R7-flapping", system, load, nemesis)
            found.more |= {"consul": KINDS[-1], "replicas_with_url": seen}
            found.say()
        left = await _registered(consul.url)
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    assert set(found.answers) == {"accepted"}
    # Every process had registered again, and took itself off the list when it was stopped.
    assert seen == 2
    assert left == []


async def _seconds_until_suspect(system: Any, nemesis: Nemesis) -> float:
    """Both replicas of the agent stand still; how long until the router stops counting on it."""
    names = ("agent:worker:1", "agent:worker:2")
    for name in names:
        await nemesis.signal(name, signal.SIGSTOP)
    began = time.monotonic()
    async with httpx2.AsyncClient(base_url=system.url, timeout=30) as http, asyncio.timeout(60):
        while (await http.get("/v1/agents/worker")).json()["status"] == "healthy":
            await asyncio.sleep(0.1)
    took = time.monotonic() - began
    for name in names:
        await nemesis.signal(name, signal.SIGCONT)
    return took


async def _located(system: Any, wanted: int) -> int:
    """How many replicas of the agent are shown with an address, once there are as many as wanted."""
    async with httpx2.AsyncClient(base_url=system.url, timeout=30) as http, asyncio.timeout(60):
        while True:
            agent = (await http.get("/v1/agents/worker")).json()
            urls = {replica["url"] for replica in agent["replicas"] if replica["url"]}
            if len(urls) >= wanted:
                break
            await asyncio.sleep(0.2)
        for url in urls:
            assert (await http.get(f"{url}/livez")).status_code == 200
    return len(urls)


async def _registered(url: str) -> list[str]:
    async with httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
        entries = (await http.get("/v1/health/service/agent-engines", params={"passing": "true"})).json()
    return sorted(
        entry["Service"]["Meta"]["agent"] for entry in entries if entry["Service"]["Meta"]["agent"] != "worker"
    )
