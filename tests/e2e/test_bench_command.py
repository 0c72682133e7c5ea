"""`engines bench`, as a user runs it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from agent_engines.testing.bench.measurement import OURSELVES
from running_system import System

SOURCE = '{"source": "engines bench"}'
COUNT = "SELECT count(*) AS n FROM tasks WHERE metadata @> $1 AND task_type = $2"


async def marked(fleet: System, task_type: str) -> int:
    """Tasks of this type in the ledger that say they come from a bench."""
    (row,) = await fleet.sql(COUNT, SOURCE, task_type)
    return row["n"]


async def test_it_measures_a_running_system_and_leaves_nothing_but_its_tasks(fleet: System) -> None:
    """Every load has its figures, every task is told and marked, and the durability is the one this system has."""
    before = await marked(fleet, "echo")
    done = fleet.engines("bench", "--seconds", "2", "--rate", "40", "--outstanding", "8", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    loads = {one["load"]: one for one in found["loads"]}
    assert list(loads) == ["lone", "crowd", "burst", "open"]
    for load in loads.values():
        assert load["done"] == load["accepted"] == load["sent"] > 0
        assert load["done_per_s"] > 0
        assert {"intelligence", "postgres", "nats", OURSELVES} <= load["cpu_s_per_1000"].keys()
    assert loads["open"]["sent"] == 20
    assert 0 < loads["lone"]["accept_ms"]["p50"] < loads["lone"]["latency_ms"]["p50"]
    assert await marked(fleet, "echo") - before == found["tasks"], "warm-up and probes too"
    durability = found["durability"]
    assert durability["acceptances"] == {"committed": found["tasks"]}
    assert durability["postgres"]["fsync"] == "off", (
        "the fleet of these tests is ephemeral, and it is read, not claimed"
    )
    assert durability["bus"] == {"copies": 1, "synced": "every 1 s"}


async def test_an_interruption_ends_it_and_tells_what_was_measured(fleet: System) -> None:
    """Ctrl-C in the middle of the first load, over the bus: a table, exit code 130, nothing sent any more."""
    command = [sys.executable, "-m", "agent_engines.cli", "bench", "--task-type", "test", "--seconds", "300"]
    environment = {**os.environ, "ENGINES_URL": fleet.url, "ENGINES_DATA_DIR": str(fleet.data_dir)}
    # In the background of a shell it is ignored, by us and by whom we start.
    heeded = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*command, "--over", "nats", "--outstanding", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, heeded)
    # One after the other, so many take longer than the warm-up lasts.
    while await marked(fleet, "test") < 250:
        assert process.poll() is None
        await asyncio.sleep(0.1)
    process.send_signal(signal.SIGINT)
    told, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    assert complaint == ""
    assert "1 caller " in told
    assert "interrupted" in told
    assert "over nats" in told
    assert "fsync off" in told


def test_with_nothing_running_it_measures_an_installation_of_its_own_and_removes_it(tmp_path: Path) -> None:
    """One that keeps its promises: what is written through is part of what a task costs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ENGINES_", "NATS_", "AGENT_"))}
    home = tmp_path / "temporary"
    home.mkdir()
    home.chmod(0o711)
    done = subprocess.run(
        [sys.executable, "-m", "agent_engines.cli", "bench", "--seconds", "1", "--tasks", "50", "--json"],
        env={**kept, "TMPDIR": str(home), "AGENT_HTTP_PORT": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["own_installation"]
    assert found["durability"]["postgres"]["fsync"] == "on"
    assert [load["sent"] for load in found["loads"] if load["load"] == "burst"] == [50]
    assert list(home.glob("ae-bench-*")) == []
