"""PostgreSQL away for long, and more work than can be done: submissions stay open, what comes back is caught up with."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest

from fault_house import SEED, TIMEOUT, Load, Nemesis, during, scaled, verdict, work

pytestmark = pytest.mark.timeout(TIMEOUT)

RATE = 50.0
"""Tasks a second that arrive while PostgreSQL is away."""
OVERLOAD = 5.0
GOODPUT = 0.9
GROWTH_BYTES = 64 << 20


class NotingLoad(Load):
    """Counts what answers said about durability, by second."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.durability: Counter[str] = Counter()
        self.refused = 0

    def submitted(self, client: str, nonce: str, task: Any, answer: Any, began: float) -> Any:
        entry = answer[1]
        if "task_id" in entry:
            self.durability[entry["durability"]] += 1
        else:
            self.refused += 1
        return super().submitted(client, nonce, task, answer, began)


async def keep_down(system: Any, name: str, seconds: float) -> int:
    """kill -9 whenever it is there: its supervisor starts it again, in vain. Returns how often."""
    kills, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        pid = system.endpoints["pids"].get(name)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills += 1
        await asyncio.sleep(0.05)
    return kills


async def stored(system: Any) -> int | None:
    try:
        return (await system.sql("SELECT count(*) AS found FROM tasks"))[0]["found"]
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None


async def test_r5_submissions_stay_open_while_postgresql_is_away(start: Any) -> None:
    """The journal takes them; once PostgreSQL is back it is emptied at least twice as fast as it was filled."""
    with start(replicas=2, ENGINES_BUS_SYNC="always") as system:
        rng = Random(f"{SEED}-R5-journal")
        load, nemesis = NotingLoad(system.url, rng), Nemesis(system, rng)
        drained: dict[str, float] = {}

        async def harm() -> None:
            await asyncio.sleep(2.0)
            seconds = scaled(30, full=600)
            before = load.durability["journal"]
            nemesis.faults["SIGKILL postgres"] += await keep_down(system, "postgres", seconds)
            backlog = load.durability["journal"] - before
            drained.update(backlog=backlog, arrival=backlog / seconds)
            while (first := await stored(system)) is None:
                await asyncio.sleep(0.05)
            began = time.monotonic()
            while (now := await stored(system)) is not None and now < len(load.accepted):
                await asyncio.sleep(0.05)
            drained["drain"] = ((now or 0) - first) / max(0.05, time.monotonic() - began)

        await during(load, harm(), rate=RATE)
        found = await verdict("R5-journal", system, load, nemesis)
        found.more = {**drained, "durability": dict(load.durability), "refused": load.refused}
        found.say()
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    assert load.durability["journal"] > 0.5 * drained["backlog"] > 0
    # A few answers while the router finds out that PostgreSQL has gone or come back.
    assert load.refused <= 0.05 * sum(load.durability.values())
    assert drained["drain"] >= 2 * drained["arrival"]


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no resident size")


async def finished(system: Any) -> int:
    return (await system.sql("SELECT count(*) AS found FROM task_results"))[0]["found"]


async def test_e5_overload_keeps_what_can_be_done_and_the_memory_flat(start: Any) -> None:
    """Forty slots, half a second a task, short queues: five times as much as that comes, in all priorities."""
    replicas, slots, pause = 2, 20, 0.5
    capacity = replicas * slots / pause
    with start(replicas=replicas, ENGINES_QUEUE_MAX_TASKS="200") as system:
        rng = Random(f"{SEED}-E5")

        def steady(n: int, rng: Random) -> dict[str, Any]:
            return {**work(n, rng), "payload": {"n": n, "pause": pause}}

        load, nemesis = NotingLoad(system.url, rng, steady), Nemesis(system, rng)
        measured: dict[str, float] = {}

        async def watch() -> None:
            # Until the queues are full.
            await asyncio.sleep(8.0)
            memory = resident_bytes(system.pid("intelligence"))
            before, began = await finished(system), time.monotonic()
            await asyncio.sleep(scaled(30, full=600))
            measured["goodput"] = (await finished(system) - before) / (time.monotonic() - began)
            measured["growth"] = resident_bytes(system.pid("intelligence")) - memory

        await during(load, watch(), rate=OVERLOAD * capacity)
        found = await verdict("E5", system, load, nemesis)
        found.more = {"capacity": capacity, **measured, "refused": load.refused}
        found.say()
    assert found.passed, found.line()
    assert load.refused > 0
    assert set(load.answers) <= {"accepted", "429", "503"}
    assert measured["goodput"] >= GOODPUT * capacity
    assert measured["growth"] <= GROWTH_BYTES
