"""One scenario under way: its load, its nemesis, its time, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .engine import AGENT
from .judgement import LEASE_SECONDS, SETTLE_SECONDS, Verdict, verdict
from .load import Load, Make, Task, during
from .nemesis import CommandNemesis, Nemesis, Running

SLOWEST, FASTEST = 20.0, 500.0
"""Tasks a second: enough to be under way at every fault, not more than a small machine takes."""
PORTION = 500
"""Tasks that are sent between two looks at the clock."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """`tasks` for each scenario; `scenario_seconds`: what harm and load of one may take (None: as long as they need)."""

    tasks: int = 2000
    faults: int = 5
    seed: int = 1
    scenario_seconds: float | None = None
    lease_seconds: float = LEASE_SECONDS
    kill: str | None = None
    """A shell command that kills `{name}`, where we cannot."""
    api_key: str | None = None
    alone: bool = False
    """Nobody else uses the system: then every row in it is judged."""


@dataclass
class Run:
    """What a scenario works with. `problems`: what it found wrong beside the history."""

    name: str
    system: Running
    options: Options
    make: Make
    problems: list[str] = field(default_factory=list[str])
    more: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        options = self.options
        self.began = time.monotonic()
        self.rng = Random(f"{options.seed}-{self.name}")
        # Two runs with one seed on one cluster must not meet each other's rows.
        self.prefix = f"{self.name}-{options.seed}-{time.time_ns() // 1_000_000:x}"
        self.load = Load(self.system.url, self.rng, self.pinned, prefix=self.prefix, api_key=options.api_key)
        self.nemesis = (
            Nemesis(self.system, self.rng)
            if options.kill is None
            else CommandNemesis(self.system, self.rng, options.kill)
        )

    def pinned(self, n: int, rng: Random) -> Task:
        """Never for agents that are not ours."""
        return {**self.make(n, rng), "requirements": {"agent": AGENT}}

    async def under_load(self, harm: Coroutine[Any, Any, None], *, seconds: float) -> None:
        """All tasks, spread over the `seconds` the harm takes about; no more of either when the scenario's time is over.

        Nothing under way is cut off: an answer nobody waited for would be missing in the history.
        """
        rate = min(max(self.options.tasks / seconds, SLOWEST), FASTEST)
        await during(self.load, self._in_time(harm), rate=rate)
        while self.load.sent < self.options.tasks and self.time_left > 0:
            await self.load.amount(min(self.options.tasks, self.load.sent + PORTION))

    @property
    def time_left(self) -> float:
        """Seconds of the scenario's own; infinite when it may take as long as it needs."""
        if self.options.scenario_seconds is None:
            return float("inf")
        return max(0.0, self.began + self.options.scenario_seconds - time.monotonic())

    async def _in_time(self, harm: Coroutine[Any, Any, None]) -> None:
        doing = asyncio.ensure_future(harm)
        left = self.time_left
        try:
            await asyncio.wait({doing}, timeout=None if left == float("inf") else left)
            if doing.done():
                doing.result()
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)

    async def kill_some(self, names: Sequence[str], pause: tuple[float, float]) -> None:
        """As often as the options say, under load."""
        harm = self.nemesis.kill_some(list(names), self.options.faults, pause)
        await self.under_load(harm, seconds=self.options.faults * (sum(pause) / 2 + 1.5))

    async def verdict(self, expected: set[str], *, patience: float = 0.0) -> Verdict:
        """Every task ended, each in one of the `expected` ways; `patience`: seconds it may take beyond the usual."""
        found = await verdict(
            self.name,
            self.system,
            self.load,
            self.nemesis,
            settle=SETTLE_SECONDS + self.options.lease_seconds + patience,
            seed=self.options.seed,
            alone=False,
        )
        if unexpected := {status: count for status, count in found.statuses.items() if status not in expected}:
            self.problems.append(f"ended otherwise: {unexpected}")
        return found
