"""Short fault runs on real servers: the long ones are in tests/chaos.

One system for all of them, as its start costs more than most of them take.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from random import Random

import pytest

from agent_engines.testing.history import Op, Phase
from fault_engine import FIXED
from fault_house import (
    AGENT,
    SEED,
    Faulty,
    Nemesis,
    during,
    environment,
    reports,
    work,
)
from running_system import System, system


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty[System]]:
    """Its own servers, and two replicas of the fault engine."""
    place = tmp_path_factory.mktemp("faulty")
    with system(place, "--ephemeral", "--engine", f"{AGENT}*2", environment=environment(place)) as running:
        shared = Faulty(running)
        yield shared
        found = asyncio.run(shared.whole())
        assert found.passed, found.line()


async def test_every_process_is_killed_once_and_nothing_is_lost(faulty: Faulty[System]) -> None:
    """kill -9 of servers, router and an agent in a random order, under load: each accepted task ends once, as it should."""
    rng = Random(f"{SEED}-kill")
    load, nemesis = faulty.load(rng), Nemesis(faulty.system, rng)
    names = ["agent:worker:1", "intelligence", "nats", "postgres", "redis"]
    rng.shuffle(names)

    async def harm() -> None:
        for name in names:
            await asyncio.sleep(1.0)
            await nemesis.kill(name)
        await asyncio.sleep(2.0)

    await during(load, harm(), rate=100.0)
    found = await faulty.verdict("kill", load, nemesis)
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    assert len(found.faults) == len(names)


async def test_quick_failures_come_due_although_they_overtake_their_acceptance(faulty: Faulty[System]) -> None:
    """Handlers that fail at once answer while their tasks are still being committed: every retry happens all the same."""
    rng = Random(f"{SEED}-quick")

    def quick(n: int, rng: Random) -> dict[str, object]:
        return {"task_type": "flaky", "payload": {"n": n, "pause": 0, "failures": rng.randint(0, 1)}}

    load, nemesis = faulty.load(rng, quick), Nemesis(faulty.system, rng)
    await during(load, asyncio.sleep(5.0), rate=300.0)
    found = await faulty.verdict("quick", load, nemesis, settle=20.0)
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}


async def test_an_agent_that_stood_still_changes_no_result(faulty: Faulty[System]) -> None:
    """Stopped for two leases, its tasks are done elsewhere; what it brings on waking is late, and counted as such."""
    rng = Random(f"{SEED}-zombie")
    load, nemesis = faulty.load(rng), Nemesis(faulty.system, rng)
    pid = faulty.system.pid("agent:worker:1")
    before = await reports(faulty.system.url)

    async def harm() -> None:
        await asyncio.sleep(1.0)
        await nemesis.signal("agent:worker:1", signal.SIGSTOP)
        await asyncio.sleep(10.0)
        os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(2.0)

    await during(load, harm(), rate=100.0)
    found = await faulty.verdict("zombie", load, nemesis)
    assert found.passed, found.line()
    assert found.reruns > 0
    assert sum(found.reports.get(late, 0) - before.get(late, 0) for late in ("stale", "duplicate")) > 0


async def test_poison_ends_as_a_dead_letter_and_a_redrive_brings_it_home(faulty: Faulty[System]) -> None:
    """A task that kills its process is given up with a reason; the others succeed, and so does it once it is fixed."""
    rng = Random(f"{SEED}-poison")

    def one_is_poison(n: int, rng: Random) -> dict[str, object]:
        return {**work(n, rng), "task_type": "poison" if n == 10 else "work"}

    load, nemesis = faulty.load(rng, one_is_poison), Nemesis(faulty.system, rng)
    await load.amount(40)
    found = await faulty.verdict("poison", load, nemesis)
    assert found.passed, found.line()
    assert found.statuses == {"success": 39, "dead_letter": 1}
    (letter,) = await faulty.system.sql("SELECT task_id, reason FROM dead_letters")
    assert "its process ended 4 times while it ran, 2 of them with nothing else running" in letter["reason"]
    fixed = faulty.system.data_dir / FIXED
    fixed.touch()
    with faulty.system.http() as http:
        assert http.post(f"/v1/dead-letters/{letter['task_id']}:redrive").status_code in (200, 202)
    load.note("operator", Op.REOPEN, time.monotonic(), Phase.OK, letter["task_id"])
    again = await faulty.verdict("redriven", load, nemesis)
    assert again.passed, again.line()
    assert again.statuses == {"success": 40}
    fixed.unlink()
