"""Fault runs of our own suite: `agent_engines.testing.chaos` with this suite's seed, scale and short leases."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Generic, TypeVar

from agent_engines.testing import chaos
from agent_engines.testing.chaos.judgement import SETTLE_SECONDS, Verdict, reports, starts
from agent_engines.testing.chaos.load import CERTAIN, Load, Make, Task, during, some_flaky, work
from agent_engines.testing.chaos.nemesis import Nemesis, Running

__all__ = [
    "AGENT",
    "CERTAIN",
    "FULL",
    "LEASE_SECONDS",
    "SEED",
    "SETTLE_SECONDS",
    "TIMEOUT",
    "Faulty",
    "Load",
    "Make",
    "Nemesis",
    "Running",
    "Task",
    "Verdict",
    "during",
    "environment",
    "reports",
    "scaled",
    "some_flaky",
    "starts",
    "verdict",
    "work",
]

SEED = int(os.environ.get("CHAOS_SEED", "20240607"))
FULL = os.environ.get("CHAOS_SCALE", "") == "full"
"""The counts of the reliability bars (100,000 tasks and 200 kills for R1, ...) instead of a few minutes for each test."""
SCALE = 1.0 if FULL else float(os.environ.get("CHAOS_SCALE", "0.7"))
TIMEOUT = 5400 if FULL else 300
"""Seconds one test may take."""
LEASE_SECONDS = 5
HERE = Path(__file__).resolve().parent
AGENT = "fault_engine:engine"
AnySystem = TypeVar("AnySystem", bound=Running)


def scaled(count: int, *, full: int | None = None) -> int:
    """`count` times CHAOS_SCALE (0.7 unless told otherwise); `full` is the bar, for CHAOS_SCALE=full."""
    return full if FULL and full is not None else max(1, round(count * SCALE))


def environment(directory: Path, **more: str) -> dict[str, str]:
    """For `engines up`: short leases, and the fault engine can be imported and writes to `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    # What the caller put there already is what is tested.
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    return {"ENGINES_LEASE_SECONDS": str(LEASE_SECONDS), "FAULT_DIR": str(directory), "PYTHONPATH": path, **more}


async def verdict(
    test: str,
    system: Running,
    load: Load,
    nemesis: Nemesis,
    *,
    settle: float = SETTLE_SECONDS + LEASE_SECONDS,
    alone: bool = True,
) -> Verdict:
    """Wait until every accepted task has its end, at most `settle` seconds, then count and check the history.

    `alone` False: the system served other loads before, only rows of this one are judged.
    """
    return await chaos.verdict(test, system, load, nemesis, settle=settle, seed=SEED, alone=alone)


@dataclass
class Faulty(Generic[AnySystem]):
    """A system that several tests harm, and everything that was ever asked of it.

    Each judges its own tasks; `whole`, at the end, the whole ledger, so that a row nobody asked for is found as well.
    """

    system: AnySystem
    loads: list[Load] = field(default_factory=list)

    def load(self, rng: Random, make: Make = work) -> Load:
        """One test's tasks, to be told from those of the others by their nonces."""
        number = len(self.loads) + 1

        def numbered(n: int, rng: Random) -> Task:
            # Of a task that ended although its acceptance was never committed the ledger's evidence knows "task-" and this.
            made = make(n, rng)
            return {**made, "payload": {**made["payload"], "n": f"{number}-{n}"}}

        self.loads.append(Load(self.system.url, rng, numbered, prefix=f"task-{number}"))
        return self.loads[-1]

    async def verdict(
        self, test: str, load: Load, nemesis: Nemesis, *, settle: float = SETTLE_SECONDS + LEASE_SECONDS
    ) -> Verdict:
        return await verdict(test, self.system, load, nemesis, settle=settle, alone=False)

    async def whole(self) -> Verdict:
        """All loads judged as one, which has to account for every row and every start of a handler."""
        rng = Random(SEED)
        together = Load(self.system.url, rng)
        for load in self.loads:
            together.calls += load.calls
            together.accepted |= load.accepted
        return await verdict("whole", self.system, together, Nemesis(self.system, rng))
