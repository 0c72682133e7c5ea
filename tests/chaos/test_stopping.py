"""Signals: to single engines under load, to the whole while a server stands still, and a second one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fault_house import SEED, TIMEOUT, Load, Nemesis, during, scaled, verdict

GRACE = 5
AWAY = 2
"""Seconds on top of the grace while a server is silent, as while it answers."""
pytestmark = pytest.mark.timeout(TIMEOUT)


async def test_s1_engines_told_to_stop_lose_nothing_and_end_with_zero(start: Any) -> None:
    with start(replicas=2, AGENT_SHUTDOWN_GRACE_SECONDS=str(GRACE)) as system:
        rng = Random(f"{SEED}-S1")
        load, nemesis = Load(system.url, rng), Nemesis(system, rng)
        seconds: dict[str, float] = {}

        async def harm() -> None:
            # A hundred times for each of the three is the bar.
            for turn in range(scaled(9, full=300)):
                await asyncio.sleep(rng.uniform(2.0, 4.0))
                name = ("intelligence", "agent:worker:1", "agent:worker:2")[turn % 3]
                seconds[name] = max(seconds.get(name, 0.0), await _ended(nemesis, name))

        await during(load, harm())
        found = await verdict("S1", system, load, nemesis)
        ends = re.findall(r"A process died and starts again process=(\S+) code=(-?\d+)", system.log.read_text())
        found.more.update(
            exit_codes=sorted({int(code) for _, code in ends}),
            ends=len(ends),
            longest_s=seconds,
        )
        found.say()
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    assert len(ends) == sum(nemesis.faults.values())
    assert found.more["exit_codes"] == [0]
    assert max(seconds.values()) <= GRACE + 2


@pytest.mark.parametrize("server", ["postgres", "nats"])
async def test_s2_engines_and_the_whole_end_although_a_server_stands_still(start: Any, server: str) -> None:
    """An engine soon after its grace; the whole after agents and router, then observers, then servers had their time."""
    with start(AGENT_SHUTDOWN_GRACE_SECONDS=str(GRACE)) as system:
        nemesis = Nemesis(system, Random(f"{SEED}-S2"))
        load = Load(system.url, Random(f"{SEED}-S2"))
        until = asyncio.Event()
        loading = asyncio.ensure_future(load.run(until))
        await asyncio.sleep(2.0)
        names = ("intelligence", "agent:worker:1", "performance", "optimizing")
        with _standing_still(system.pid(server)) as stopped:
            await asyncio.sleep(1.0)
            seconds = dict(zip(names, await asyncio.gather(*(_ended(nemesis, name) for name in names)), strict=True))
            await asyncio.sleep(2.0)
            pids = dict(system.endpoints["pids"])
            began = time.monotonic()
            system.process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(_wait, system.process, 90)
            seconds["all"] = time.monotonic() - began
            # PostgreSQL's backends go when they wake and find their server gone.
            for pid in stopped:
                if _state(pid) == "T":
                    os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(1.0)
            left = [name for name, pid in pids.items() if _alive(pid)] + [f"{pid}" for pid in stopped if _alive(pid)]
        until.set()
        loading.cancel()
        with suppress(asyncio.CancelledError, BaseExceptionGroup):
            await loading
        ends = re.findall(r"A process died and starts again process=(\S+) code=(-?\d+)", system.log.read_text())
        line = {"test": f"S2-{server}", "exit": code, "seconds": seconds, "codes": ends, "left": left}
        print(f"\n{json.dumps(line)}")
    assert code == 0
    assert left == []
    assert {dict(reversed(ends))[name] for name in names} == {"0"}
    assert seconds.pop("all") <= 3 * (GRACE + 5) + 15
    assert max(seconds.values()) <= GRACE + AWAY


async def test_s3_the_second_signal_ends_everything_at_once(start: Any) -> None:
    with start() as system:
        pids = dict(system.endpoints["pids"])
        with system.http() as http:
            tasks = [{"task_type": "work", "payload": {"n": n, "pause": 15}} for n in range(20)]
            assert http.post("/v1/tasks:batch", json={"tasks": tasks}).status_code == 202
        await asyncio.sleep(1.0)
        system.process.send_signal(signal.SIGINT)
        await asyncio.sleep(1.0)
        assert system.process.poll() is None
        began = time.monotonic()
        system.process.send_signal(signal.SIGINT)
        code = await asyncio.to_thread(_wait, system.process, 30)
        seconds = time.monotonic() - began
        left = [name for name, pid in pids.items() if _alive(pid)]
        print(f'\n{{"test": "S3", "exit": {code}, "seconds": {seconds:.2f}, "left": {left}}}')
    assert left == []
    assert seconds <= 2.0


async def _ended(nemesis: Nemesis, name: str) -> float:
    """Seconds from SIGTERM to the end of a process."""
    pid = await nemesis.signal(name, signal.SIGTERM)
    began = time.monotonic()
    while _alive(pid):
        await asyncio.sleep(0.02)
    return round(time.monotonic() - began, 2)


def _wait(process: subprocess.Popen[str], seconds: float) -> int:
    return process.wait(timeout=seconds)


def _alive(pid: int) -> bool:
    return _state(pid) not in ("Z", "X", "")


def _state(pid: int) -> str:
    """One letter as in ps; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def _family(pid: int) -> list[int]:
    """A process and its children; PostgreSQL's backends are sessions of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


@contextmanager
def _standing_still(pid: int) -> Iterator[list[int]]:
    """SIGSTOP a server with all its processes; whatever is left of it at the end is killed."""
    family = _family(pid)
    for one in family:
        os.kill(one, signal.SIGSTOP)
    try:
        yield family
    finally:
        for one in family:
            # Still stopped: it cannot be somebody else's who got its number meanwhile.
            if _state(one) == "T":
                os.kill(one, signal.SIGKILL)
