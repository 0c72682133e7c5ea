"""Steady load with a reconnect every minute: memory, descriptors, threads and consumers stay where they were.

SOAK_MINUTES (30, at least 12) sets the length, SOAK_RATE (100) the tasks a second. The first fifth, at least nine minutes, is
warm-up.

The bar is less than 1 MiB an hour. Twenty-one minutes of it are 0.35 MiB, and a Python process moves by more than that for
no reason (the allocator takes memory by the megabyte, a reconnect needs buffers). So what is measured is anonymous memory
(heap and stacks: what the process itself asked for, not which pages of libraries happen to be mapped), its floor in each
minute, and the median slope of all pairs of minutes with its 95 % interval. The run fails when even the low end of a
process's interval is above the bar (it grows for certain), or when it grew by more than 4 MiB altogether; the printed line
has the whole interval, so that nobody takes a short run for more than it can tell. SOAK_MINUTES=480 resolves the bar itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from slope import Slope, floors, slope

from fault_house import AGENT, SEED, Load, Nemesis, environment, verdict, work
from running_system import System, system

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
RATE = float(os.environ.get("SOAK_RATE", "100"))
WARM_UP = min(max(540.0, MINUTES * 12), MINUTES * 30)
"""An agent remembers the last 20,000 tasks it has ended: seven minutes at this rate, and six megabytes."""
SAMPLE_SECONDS = 5.0
BAR = 1.0
"""MiB an hour."""
MOST = 4.0
"""MiB altogether after the warm-up, in however short a run; an hour more may bring one more."""
ROW_KIB = 1.5
"""The optimizing engine keeps a row of every decision of a day, up to its own limit: it may grow by so much a task."""
OURS = ("intelligence", "performance", "optimizing", "agent")
pytestmark = pytest.mark.timeout(int(MINUTES * 60) + 300)

Samples = defaultdict[str, list[tuple[float, dict[str, float]]]]


def gauges(pid: int) -> dict[str, float]:
    """Anonymous MiB, descriptors and threads of a process. Raises OSError when it is gone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    rollup = dict(line.split(":", 1) for line in lines)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "memory": int(rollup["Anonymous"].split()[0]) / 1024,
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(status["Threads"]),
    }


async def watch(running: System, nemesis: Nemesis, samples: Samples) -> dict[str, int]:
    """Sample until the time is over, and cut every connection once a minute. Returns the pids."""
    began = time.monotonic()
    pids = {name: pid for name, pid in running.endpoints["pids"].items() if name.split(":")[0] in OURS}
    cut = began + 60.0
    while time.monotonic() < began + MINUTES * 60:
        await asyncio.sleep(SAMPLE_SECONDS)
        for name, pid in pids.items():
            samples[name].append((time.monotonic() - began, await asyncio.to_thread(gauges, pid)))
        samples["nats"].append((time.monotonic() - began, await consumers(running)))
        if time.monotonic() > cut:
            cut += 60.0
            await nemesis.kill("nats")
            await running.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            nemesis.faults["connections to postgres cut"] += 1
    return pids


async def consumers(running: System) -> dict[str, float]:
    """How many JetStream consumers there are; the last number again while the server is away."""
    try:
        async with httpx2.AsyncClient(base_url=running.endpoints["nats_monitor_url"], timeout=5) as http:
            return {"consumers": float((await http.get("/jsz")).json()["consumers"])}
    except (httpx2.HTTPError, KeyError, ValueError):
        return {}


async def test_nothing_grows_under_steady_load(tmp_path: Path) -> None:
    options = ["--ephemeral", "--engine", f"{AGENT}*2"]
    samples: Samples = defaultdict(list)
    with system(tmp_path, *options, environment=environment(tmp_path)) as running:
        load = Load(running.url, Random(SEED), work)
        nemesis = Nemesis(running, Random(SEED))
        until = asyncio.Event()
        loading = asyncio.ensure_future(load.run(until, rate=RATE))
        try:
            pids = await watch(running, nemesis, samples)
        finally:
            until.set()
            await loading
        found = await verdict("soak", running, load, nemesis)
        now = {name: pid for name, pid in running.endpoints["pids"].items() if name in pids}
    warm = {name: [one for one in taken if one[0] >= WARM_UP] for name, taken in samples.items()}
    slopes = {name: memory_slope(taken) for name, taken in warm.items() if name in pids}
    found.more.update(minutes=MINUTES, warm_up_s=WARM_UP, bar_mib_per_hour=BAR, memory=told(slopes), flat=flat(warm))
    found.say()
    assert found.passed, found.line()
    assert now == pids, "a process was started again, its gauges are another's"
    for name, (taken, grown) in slopes.items():
        if name == "optimizing":
            assert grown <= MOST + len(load.accepted) * ROW_KIB / 1024, f"{name} grew by {grown:.1f} MiB"
            continue
        assert taken.low <= BAR, f"{name} grows by {taken.low:.2f} MiB an hour or more"
        assert grown <= max(MOST, (MINUTES / 60 - 1) * BAR + MOST), f"{name} grew by {grown:.1f} MiB"
    for name, gauge, first, last in flat(warm):
        assert last <= first + 2, f"{name}: {gauge} went from {first} to {last}"


def memory_slope(taken: list[tuple[float, dict[str, float]]]) -> tuple[Slope, float]:
    """The slope of a process's memory in MiB an hour, and by how many MiB its floor rose."""
    lowest = floors([(at, values["memory"]) for at, values in taken])
    return slope(lowest), lowest[-1][1] - lowest[0][1]


def flat(warm: dict[str, list[tuple[float, dict[str, float]]]]) -> list[tuple[str, str, float, float]]:
    """(process, gauge, highest in the first third, lowest in the last third): a leak makes the second pass the first."""
    found: list[tuple[str, str, float, float]] = []
    for name, taken in warm.items():
        for gauge in ("descriptors", "threads", "consumers"):
            values = [values[gauge] for _, values in taken if gauge in values]
            if values:
                third = max(1, len(values) // 3)
                found.append((name, gauge, max(values[:third]), min(values[-third:])))
    return found


def told(slopes: dict[str, tuple[Slope, float]]) -> dict[str, Any]:
    return {
        name: {**{key: round(value, 2) for key, value in taken._asdict().items()}, "grown_mib": round(grown, 2)}
        for name, (taken, grown) in slopes.items()
    }
