"""Scenario after scenario against one system, one report for each."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent_engines.domain.errors import ConfigurationError

from .judgement import Verdict
from .judgement import reports as counted
from .load import work
from .nemesis import Running
from .run import Options, Run
from .scenarios import SCENARIOS, Needs, Scenario, watch

PASS, FAIL, SKIPPED = "pass", "FAIL", "skipped"


@dataclass(frozen=True)
class Report:
    """What is told about one scenario. `verdict`: pass, FAIL, or skipped because nobody can do this harm here."""

    scenario: str
    verdict: str
    seconds: float
    problems: list[str]
    found: Verdict | None = None

    @property
    def data(self) -> dict[str, Any]:
        """One JSON line."""
        counted = {} if self.found is None else self.found.summary()
        counted.pop("test", None)
        line = {"scenario": self.scenario, **counted, "problems": self.problems}
        return {**line, "seconds": round(self.seconds, 1), "verdict": self.verdict}


def chosen(names: Sequence[str]) -> list[Scenario]:
    """All when none is named. Raises ConfigurationError for a name that is none."""
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise ConfigurationError([f"there is no scenario {name!r}: use {', '.join(SCENARIOS)}" for name in unknown])
    return [SCENARIOS[name] for name in names or SCENARIOS]


async def reports(
    system: Running, scenarios: Sequence[Scenario], options: Options, *, begun: Callable[[Scenario], None]
) -> AsyncGenerator[Report]:
    """One after the other; `begun` is called before each."""
    able = abilities(system, options)
    for scenario in scenarios:
        if scenario.needs not in able:
            yield Report(scenario.name, SKIPPED, 0.0, ["this harm cannot be done from here; see --kill and --data-dir"])
            continue
        begun(scenario)
        run = Run(scenario.name, system, options, scenario.make)
        yield await _report(run, scenario.do(run))


async def watched(system: Running, seconds: float, options: Options) -> Report:
    """Load for `seconds` while somebody else does the harm."""
    run = Run("watch", system, options, work)
    return await _report(run, watch(run, seconds))


def abilities(system: Running, options: Options) -> Needs:
    """What we may do to this system."""
    if options.kill is not None:
        return Needs.KILL
    return Needs.KILL | Needs.SIGNAL if system.endpoints["pids"] else Needs.NOTHING


async def _report(run: Run, doing: Awaitable[Verdict]) -> Report:
    began = time.monotonic()
    before = await counted(run.system.url)
    found = await doing
    # Counters of a router that was started again begin at zero.
    found.reports = {
        name: now - before.get(name, 0) if now >= before.get(name, 0) else now for name, now in found.reports.items()
    }
    found.more.update(run.more)
    passed = found.passed and not run.problems
    return Report(run.name, PASS if passed else FAIL, time.monotonic() - began, run.problems, found)
