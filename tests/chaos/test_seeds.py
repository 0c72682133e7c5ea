"""Ten thousand simulated worlds (a million with CHAOS_SCALE=full), on two processors; prints one line of JSON, and how to repeat whatever broke."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import Counter

import pytest

from agent_engines.testing.simulation.world import Mode, simulate
from fault_house import FULL

SEEDS = 1_000_000 if FULL else 10_000
PROCESSES = 2


def _run(seed: int) -> tuple[int, str, tuple[str, ...], int, int]:
    """Half of the seeds for safety, half for liveness."""
    mode = Mode.SAFETY if seed % 2 else Mode.LIVENESS
    outcome = simulate(seed, mode)
    return seed, str(mode), outcome.violations, outcome.accepted, outcome.executions


@pytest.mark.timeout(36_000 if FULL else 3600)
def test_no_seed_breaks_a_promise() -> None:
    began = time.perf_counter()
    totals: Counter[str] = Counter()
    broken: list[str] = []
    with multiprocessing.get_context("spawn").Pool(PROCESSES, maxtasksperchild=500) as pool:
        for seed, mode, violations, accepted, executions in pool.imap_unordered(_run, range(SEEDS), chunksize=25):
            totals.update(accepted=accepted, executions=executions, violations=len(violations))
            for violation in violations:
                broken.append(violation)
                print(f"seed {seed}: {violation}")
                print(f"  repeat: python -m agent_engines.testing.simulation --seed {seed} --mode {mode} --trace")
    line = {
        "test": "R17",
        "seeds": SEEDS,
        "processes": PROCESSES,
        **totals,
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(line))
    assert not broken
