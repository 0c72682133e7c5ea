"""A cache that is gone, agents that stand still and come back: nobody is told anything wrong."""

from __future__ import annotations

import asyncio
import signal
from random import Random
from typing import Any

import pytest
import redis.asyncio

from fault_house import LEASE_SECONDS, SEED, TIMEOUT, Load, Nemesis, during, scaled, verdict

pytestmark = pytest.mark.timeout(TIMEOUT)


async def test_r6_a_cache_that_dies_or_forgets_is_not_noticed(start: Any) -> None:
    with start() as system:
        rng = Random(f"{SEED}-R6")
        load, nemesis = Load(system.url, rng), Nemesis(system, rng)

        async def harm() -> None:
            for _ in range(scaled(4, full=40)):
                await nemesis.kill_some(["redis"], 1, (1.0, 2.0))
                # It answers, but only after two seconds.
                await nemesis.stand_still("redis", 2.0)
                cache = redis.asyncio.Redis.from_url(system.endpoints["redis_url"])
                await cache.flushall()
                await cache.aclose()
                nemesis.faults["FLUSHALL"] += 1

        await during(load, harm())
        await load.amount(scaled(1_000, full=20_000))
        found = await verdict("R6", system, load, nemesis)
        found.say()
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    assert set(found.answers) == {"accepted"}


async def test_r8_agents_that_stood_still_overwrite_nothing(start: Any) -> None:
    """SIGSTOP for two leases: the work is done elsewhere; what the zombie brings on waking changes no row."""
    with start(replicas=3) as system:
        rng = Random(f"{SEED}-R8")
        load, nemesis = Load(system.url, rng), Nemesis(system, rng)
        changed = 0

        async def harm() -> None:
            nonlocal changed
            for _ in range(scaled(3, full=100)):
                await asyncio.sleep(1.0)
                name = f"agent:worker:{rng.randint(1, 3)}"
                pid = await nemesis.signal(name, signal.SIGSTOP)
                await asyncio.sleep(2 * LEASE_SECONDS)
                before = await _results(system)
                await nemesis.signal(name, signal.SIGCONT)
                assert system.pid(name) == pid
                await asyncio.sleep(2.0)
                after = await _results(system)
                changed += sum(1 for task_id, row in before.items() if after.get(task_id) != row)

        await during(load, harm(), rate=100.0)
        await load.amount(scaled(1_000, full=20_000))
        found = await verdict("R8", system, load, nemesis)
        found.more["changed_rows"] = changed
        found.say()
    assert found.passed, found.line()
    assert changed == 0
    assert set(found.statuses) == {"success"}
    assert found.reruns > 0
    assert sum(found.reports.get(what, 0) for what in ("stale", "duplicate", "late")) > 0


async def _results(system: Any) -> dict[str, tuple[str, str]]:
    rows = await system.sql("SELECT task_id, xmin::text AS version, md5(r::text) AS content FROM task_results r")
    return {row["task_id"]: (row["version"], row["content"]) for row in rows}
