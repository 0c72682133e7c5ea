"""The pure parts of the benchmarks: numbers from numbers, what is run, and the table made of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.percentiles import percentile
from benchmarks.peers.environments import PYTHON_PACKAGES, known_systems
from benchmarks.peers.plan import scenarios
from benchmarks.peers.runner import summary
from benchmarks.peers.session import Cost
from benchmarks.peers.statistics import median, percentiles, spread
from benchmarks.peers.table import BEGIN, END, render, render_into
from benchmarks.workloads.shapes import PAYLOAD_BYTES, batch, closed, fan_out, open_loop, payloads


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentiles(list(range(1000, 0, -1))) == {"p50": 500, "p95": 950, "p99": 990, "p99_9": 999}


def test_a_percentile_beyond_the_number_of_values_is_not_told() -> None:
    found = percentiles(range(1, 500))
    assert (found["p99"], found["p99_9"]) == (495, None)
    assert percentile([], 0.5) is None
    assert percentiles([7.0]) == {"p50": 7.0, "p95": None, "p99": None, "p99_9": None}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0.01, 0.99))
def test_the_asked_share_of_values_is_not_above_a_percentile(values: list[float], share: float) -> None:
    found = percentile(sorted(values), share)
    if found is not None:
        assert sum(value <= found for value in values) >= share * len(values) - 1e-3


def test_the_middle_and_the_ends_of_runs() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5
    assert spread([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert median([]) is None
    assert spread([]) is None


def test_a_scenario_becomes_rates_and_milliseconds() -> None:
    answer = {"tasks": 1600, "probed": 400, "seconds": 4.0, "latencies": [1500] * 1600, "submit_seconds": None}
    found = summary(answer, Cost(cpu=1.0, workers_mib=50.0, total_mib=200.0))
    assert (found["per_second"], found["p50"], found["p99_9"], found["cpu_per_1000"]) == (400.0, 1.5, 1.5, 0.5)


def test_an_open_loop_that_would_only_grow_a_queue_is_left_out() -> None:
    fitting = [one.name for one in scenarios(1.0) if one.rate is not None and one.fits(400.0)]
    assert fitting == ["open-50", "open-200"]
    assert not any(one.fits(None) for one in scenarios(1.0) if one.rate is not None)


def test_every_system_but_ours_has_requirements_and_every_requirement_a_system() -> None:
    systems = known_systems()
    assert systems[:2] == ["ours_bus", "ours_http"]
    files = {path.name.removesuffix(".txt").removesuffix(".npm") for path in PYTHON_PACKAGES.iterdir()}
    assert files == set(systems[2:])


def a_measure(system: str, run: int, **values: Any) -> dict[str, Any]:
    usual = {
        "record": "measure",
        "workers": 1,
        "scenario": "batch",
        "p50": None,
        "p95": None,
        "p99": None,
        "p99_9": None,
    }
    costs = {"cpu_per_1000": 0.5, "workers_mib": 40.0, "total_mib": 100.0 + run}
    return {**usual, **costs, "system": system, "run": run, **values}


RECORDS: list[dict[str, Any]] = [
    {
        "record": "system",
        "system": "slow",
        "label": "Slow",
        "durability": "none",
        "settings": "as is",
        "versions": "slow 1",
    },
    {
        "record": "system",
        "system": "fast",
        "label": "Fast",
        "durability": "a | b",
        "settings": "as is",
        "versions": "fast 2",
    },
    a_measure("slow", 1, per_second=100.0),
    a_measure("slow", 2, per_second=300.0),
    a_measure("slow", 3, per_second=200.0),
    a_measure("fast", 1, per_second=1234.5),
    a_measure("fast", 1, scenario="closed-1", per_second=10.0, p50=1.0, p95=2.0, p99=3.0),
    a_measure("fast", 1, scenario="open-50", per_second=50.0, p50=4.0, p99=5.0),
    {"record": "missing", "system": "gone", "reason": "no wheel"},
    {"record": "failed", "system": "slow", "scenario": "closed-32", "workers": 1, "run": 2, "reason": "TimeoutError"},
]


def test_the_table_has_medians_with_their_spread_and_the_fastest_first() -> None:
    text = render(RECORDS)
    rows = [line for line in text.splitlines() if line.startswith(("| Fast", "| Slow"))]
    assert rows[0].startswith("| Fast | 1,23")
    assert rows[1].startswith("| Slow | 200 (100-300) | - |")
    assert "| Fast | 1.00 / 2.00 / 3.00 / - |" in text
    assert "| Fast | 4.0 / 5.0 |" in text
    assert "102 |" in rows[1], "memory is the middle of the runs' greatest"


def test_the_table_names_what_failed_and_what_was_left_out() -> None:
    text = render(RECORDS)
    assert "- Slow: closed-32 with 1 worker(s), run 2: TimeoutError" in text
    assert "- gone was left out: no wheel" in text


@pytest.mark.parametrize(("load", "said"), [(0.4, False), (6.0, True)])
def test_a_busy_machine_is_said_to_be_one(load: float, said: bool) -> None:
    machine = {
        "record": "machine",
        "cores": 2,
        "processor": "p",
        "memory_gib": 8,
        "system": "s",
        "python": "3",
        "runs": 1,
    }
    assert ("busy with other work" in render([{**machine, "load_before": load}, *RECORDS])) is said


def test_a_bar_in_a_text_does_not_end_its_cell() -> None:
    assert "a \\| b" in render(RECORDS)


def test_rendering_replaces_only_what_is_between_the_marks(tmp_path: Path) -> None:
    page, results = tmp_path / "page.md", tmp_path / "results.jsonl"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    results.write_text('{"record": "missing", "system": "gone", "reason": "no wheel"}\n')
    render_into(page, results)
    render_into(page, results)
    assert page.read_text().startswith(f"before\n{BEGIN}\n### What failed")
    assert page.read_text().endswith(f"{END}\nafter\n")
    assert "old" not in page.read_text()
    page.write_text("nothing here")
    with pytest.raises(ValueError, match="needs the lines"):
        render_into(page, results)


class Obedient:
    """A system that answers after `pause` seconds; `wrong` turns its results into others."""

    def __init__(self, pause: float = 0.0, *, wrong: bool = False) -> None:
        self._pause = pause
        self._wrong = wrong
        self.running = 0
        self.most = 0

    async def submit(self, kind: str, payload: str) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        return payload

    async def result(self, handle: str) -> str:
        await asyncio.sleep(self._pause)
        self.running -= 1
        return handle.upper() if self._wrong else handle

    async def submit_many(self, kind: str, payloads: Sequence[str]) -> list[str]:
        return list(payloads)

    async def results(self, handles: Sequence[str]) -> list[str | None]:
        return list(handles)


async def test_a_closed_loop_keeps_its_number_outstanding_and_no_more() -> None:
    system = Obedient(0.001)
    measured = await closed(system, outstanding=5, seconds=0.1)
    assert system.most == 5
    assert measured.tasks == len(measured.latencies) >= 5
    assert min(measured.latencies) >= 900


async def test_an_open_loop_counts_the_wait_of_tasks_it_was_late_with() -> None:
    """The whole loop is stopped once; every task that was due meanwhile waited, and the numbers say so."""

    class Stalling(Obedient):
        async def submit(self, kind: str, payload: str) -> str:
            if payload.startswith(f"{10:012d}"):
                time.sleep(0.2)  # the whole loop, on purpose
            return await super().submit(kind, payload)

    measured = await open_loop(Stalling(), rate=200, seconds=0.3)
    assert measured.tasks == 60
    assert sum(latency > 100_000 for latency in measured.latencies) >= 15


async def test_a_batch_and_a_fan_out_take_every_result() -> None:
    found = await batch(Obedient(), seconds=0.01, most=500)
    assert found.tasks in range(200, 501)
    assert found.probed in range(400, 701), "what was spent was spent on the probes too"
    burst = await fan_out(Obedient(), width=10, seconds=0.01)
    assert burst.tasks == 10 * len(burst.latencies)


async def test_a_result_that_is_another_is_an_error_not_a_number() -> None:
    with pytest.raises(AssertionError, match="not the payload"):
        await closed(Obedient(wrong=True), outstanding=2, seconds=0.1)


def test_payloads_differ_and_have_their_size() -> None:
    assert len({*payloads(50)}) == 50
    assert {len(one.encode()) for one in payloads(3, 999)} == {PAYLOAD_BYTES}
