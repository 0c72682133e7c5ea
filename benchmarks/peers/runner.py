"""Run the plan over all systems, one after the other, again and again; what comes out are lines of JSON. Knows no system."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_engines.domain.errors import AgentEnginesError

from .environments import Environment, NotInstallable, environment
from .plan import BATCH, Scenario
from .session import Cost, Session, SystemFailed, facts, session
from .statistics import percentiles


@dataclass(frozen=True, slots=True)
class Candidate:
    """A system that can be run."""

    name: str
    environment: Environment
    servers: Sequence[str]
    most_workers: int


class Journal:
    """The results, one JSON object a line, written as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_text("")

    def write(self, record: str, **values: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"record": record, **values}) + "\n")


class Runner:
    """`logs`: a folder for what the systems print; `home`: where their environments are kept.

    `minutes`: no session begins later than so long after the start; what is left out then is told. None: no limit.
    """

    def __init__(self, journal: Journal, *, logs: Path, home: Path, minutes: float | None = None) -> None:
        self._until = math.inf if minutes is None else 60 * minutes
        self._journal = journal
        self._logs = logs
        self._home = home
        self._begun = time.monotonic()

    async def run(self, systems: Sequence[str], scenarios: Sequence[Scenario], runs: int) -> None:
        """A B C A B C ...: what disturbs the machine for a while disturbs them all."""
        self._journal.write("machine", **machine(), runs=runs)
        candidates = [found for name in systems if (found := await self._candidate(name)) is not None]
        for number in range(1, runs + 1):
            for candidate in candidates:
                await self._measure(candidate, scenarios, number)

    async def _candidate(self, name: str) -> Candidate | None:
        log = self._logs / f"{name}.log"
        try:
            place = environment(name, self._home)
            found = await facts(name, place, log)
        except (NotInstallable, SystemFailed) as error:
            self._journal.write("missing", system=name, reason=str(error))
            self._say(f"{name}: left out: {error}")
            return None
        self._journal.write("system", system=name, **found)
        return Candidate(name, place, found["servers"], found["most_workers"])

    async def _measure(self, candidate: Candidate, scenarios: Sequence[Scenario], number: int) -> None:
        batch_rate: float | None = None
        left = [one for one in scenarios if one.workers <= candidate.most_workers]
        while left:
            begun = left[0]
            if time.monotonic() - self._begun > self._until:
                names = ", ".join(dict.fromkeys(f"{one.name} ({one.workers})" for one in left))
                reason = f"run {number} had no time left for {names}"
                self._journal.write("missing", system=candidate.name, reason=reason)
                self._say(f"{candidate.name}: {reason}")
                return
            # A failed scenario ends the session; those after it get a new one.
            try:
                async with session(
                    candidate.name,
                    candidate.environment,
                    self._logs / f"{candidate.name}.log",
                    servers=candidate.servers,
                    workers=begun.workers,
                ) as running:
                    while left and left[0].workers == begun.workers:
                        begun = left[0]
                        if begun.fits(batch_rate):
                            rate = await self._one(candidate, running, begun, number)
                            batch_rate = rate if begun.name == BATCH else batch_rate
                        left.pop(0)
            except (SystemFailed, AgentEnginesError) as error:
                failed = {"system": candidate.name, "run": number, "scenario": begun.name, "workers": begun.workers}
                self._journal.write("failed", **failed, reason=str(error))
                self._say(f"{candidate.name}: {begun.name} failed: {error}")
                # Whatever ended it, starting or running: it is not tried again in this run.
                left = [one for one in left if one is not begun]

    async def _one(self, candidate: Candidate, running: Session, scenario: Scenario, number: int) -> float:
        answer, cost = await running.run(scenario)
        values = summary(answer, cost)
        self._journal.write(
            "measure",
            system=candidate.name,
            run=number,
            workers=scenario.workers,
            scenario=scenario.name,
            at=round(time.monotonic() - self._begun),
            **values,
        )
        self._say(
            f"run {number}  {candidate.name:<14} {scenario.name:<14} {scenario.workers}w "
            f"{values['per_second']:>9.0f}/s  p50 {_ms(values['p50']):>8}  p99 {_ms(values['p99']):>8} ms  "
            f"{values['cpu_per_1000']:.3f} s/1000  {values['total_mib']:.0f} MiB"
        )
        return values["per_second"]

    def _say(self, text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - self._begun:6.0f}] {text}\n")
        sys.stderr.flush()


def summary(answer: dict[str, Any], cost: Cost) -> dict[str, Any]:
    """One scenario's numbers: latencies in milliseconds, memory in MiB, processor seconds for 1,000 tasks."""
    milliseconds = {name: None if us is None else us / 1000 for name, us in percentiles(answer["latencies"]).items()}
    return {
        "tasks": answer["tasks"],
        "seconds": round(answer["seconds"], 3),
        "per_second": round(answer["tasks"] / answer["seconds"], 1),
        "submit_seconds": None if answer["submit_seconds"] is None else round(answer["submit_seconds"], 3),
        **milliseconds,
        "cpu_per_1000": round(1000 * cost.cpu / (answer["tasks"] + answer["probed"]), 4),
        "workers_mib": round(cost.workers_mib, 1),
        "total_mib": round(cost.total_mib, 1),
    }


def machine() -> dict[str, Any]:
    """Where this was run."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
