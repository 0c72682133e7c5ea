"""kill -9 of every process there is, under load: what was accepted ends exactly once.

With CHAOS_SCALE=full the counts are the reliability bars: R1 100,000 tasks and 200 kills, R2 50,000 and 50 for each
component, R5 50,000 and 20, and a database that stands still for ten minutes.
"""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import Any

import pytest

from fault_house import SEED, TIMEOUT, Load, Nemesis, Verdict, during, scaled, verdict

pytestmark = pytest.mark.timeout(TIMEOUT)
RATE = 200.0


async def crashed(
    test: str, system: Any, names: list[str], times: int, pause: tuple[float, float], *, tasks: int = 0
) -> Verdict:
    """`times` kills under load, then the rest of `tasks`."""
    rng = Random(f"{SEED}-{test}")
    load, nemesis = Load(system.url, rng), Nemesis(system, rng)
    await during(load, nemesis.kill_some(names, times, pause), rate=RATE)
    await load.amount(tasks)
    found = await verdict(test, system, load, nemesis)
    found.say()
    return found


async def test_r1_killed_agents_lose_nothing(start: Any) -> None:
    with start(replicas=3) as system:
        names = [f"agent:worker:{number}" for number in (1, 2, 3)]
        kills, tasks = scaled(15, full=200), scaled(4_000, full=100_000)
        found = await crashed("R1", system, names, kills, (0.5, 2.0), tasks=tasks)
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}


async def test_r2_a_killed_router_loses_nothing(start: Any) -> None:
    """The API, the dispatcher and the recorder live in it: all three are killed at once."""
    with start() as system:
        kills, tasks = scaled(5, full=50), scaled(4_000, full=50_000)
        found = await crashed("R2", system, ["intelligence"], kills, (3.0, 6.0), tasks=tasks)
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}


async def test_r2b_observers_killed_are_not_missed(start: Any) -> None:
    with start() as system:
        kills, tasks = scaled(8, full=100), scaled(1_000, full=50_000)
        found = await crashed("R2b", system, ["performance", "optimizing"], kills, (0.5, 1.5), tasks=tasks)
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    assert set(found.answers) == {"accepted"}


async def test_r4_a_killed_broker_loses_nothing(start: Any) -> None:
    with start() as system:
        found = await crashed("R4", system, ["nats"], scaled(5, full=10), (2.0, 5.0))
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}


async def test_r5_a_killed_ledger_loses_nothing(start: Any) -> None:
    with start() as system:
        kills, tasks = scaled(6, full=20), scaled(3_000, full=50_000)
        found = await crashed("R5", system, ["postgres"], kills, (2.0, 5.0), tasks=tasks)
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}


async def test_r5b_a_ledger_that_stands_still_loses_nothing_and_the_backlog_drains_faster_than_it_came(
    start: Any,
) -> None:
    """Everything that was accepted before or meanwhile ends soon after the server wakes."""
    with start() as system:
        rng = Random(f"{SEED}-R5b")
        load, nemesis = Load(system.url, rng), Nemesis(system, rng)
        seconds = scaled(20, full=600)
        awake = 0.0

        async def harm() -> None:
            nonlocal awake
            await asyncio.sleep(5.0)
            await nemesis.stand_still("postgres", seconds)
            awake = time.monotonic()

        await during(load, harm(), rate=RATE)
        found = await verdict("R5b", system, load, nemesis)
        drained = time.monotonic() - awake
        found.more.update(outage_s=seconds, drained_s=round(drained, 1))
        found.say()
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    # Twice as fast as it came, with what a restart of connections takes.
    assert drained <= seconds / 2 + 20


async def test_everything_is_killed_in_turn(start: Any) -> None:
    with start() as system:
        names = ["agent:worker:1", "agent:worker:2", "intelligence", "nats", "postgres", "redis"]
        found = await crashed("R1-5", system, names, scaled(10, full=100), (1.0, 4.0))
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
