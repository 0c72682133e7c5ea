"""A whole measurement: one task to see that it works, a warm-up, then one load after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from agent_engines.domain.errors import AgentEnginesError
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.testing.processes import cpu_by_name

from .load import PATIENCE_SECONDS, Load, Submitter
from .plan import FIRST_PROBE, SHARES_OF_PROBE, Plan, Shape, due_within, fitting
from .tally import LOST, UNENDED, Tally, exit_code, spent, summary

OURSELVES = "engines bench"
WARM_UP = (0.1, 1.0)
"""Seconds: a part of the time for sending, and at most."""


class Measurement:
    """`tallies` has each load from its beginning on: after an interruption, what was measured so far.

    `pids`: processes of the system that can be seen from here, by name.
    """

    def __init__(self, client: Submitter, load: Load, plan: Plan, pids: Mapping[str, int]) -> None:
        self._client = client
        self._load = load
        self._plan = plan
        self._pids = pids
        self.tallies: dict[Shape, Tally] = {}
        self.beside = Tally(begun=time.perf_counter())
        """Warm-up and probes: tasks like the others, in no figure."""
        self.burst_tasks = plan.tasks
        self.stage = "proving"
        """What is being done, in a word or two."""

    async def prove(self, request: TaskRequest) -> None:
        """One task alone. Raises AgentEnginesError unless it ends well."""
        handle = await self._client.submit_request(request)
        self.beside.sent += 1
        self.beside.take(handle.task_id, handle.acceptance.durability, time.perf_counter())
        try:
            view = await handle.outcome(PATIENCE_SECONDS)
        except TimeoutError:
            raise AgentEnginesError(
                f"the first task ({handle.task_id}) did not end within {PATIENCE_SECONDS:g} s: nothing was measured; "
                "`engines agents list` shows who is busy"
            ) from None
        self.beside.end(handle.task_id, view.status.value, time.perf_counter())
        if view.status is not TaskStatus.SUCCESS:
            why = f": {view.error.type}: {view.error.message}" if view.error else ""
            raise AgentEnginesError(
                f"the first task ({handle.task_id}) ended as {view.status.value}{why}; nothing was measured, "
                "--payload gives the handler what it takes"
            )

    async def run(self) -> None:
        """Every load of the plan; no further one when nobody answers, or tasks have no end: that system has enough."""
        self.stage = "warming up"
        part, most = WARM_UP
        self.beside.begun = time.perf_counter()
        seconds = min(part * self._plan.seconds, most)
        await self._load.closed(self.beside, outstanding=self._plan.outstanding, seconds=seconds)
        await self._load.settle(self.beside)
        for shape in self._plan.shapes:
            if shape is Shape.BURST and self.burst_tasks is None:
                self.burst_tasks = await self._size_of_burst()
            if any(tally.ends[UNENDED] or tally.ends[LOST] or exit_code([tally]) == 3 for tally in self.all):
                return
            await self._measure(shape)

    @property
    def all(self) -> list[Tally]:
        return [self.beside, *self.tallies.values()]

    @property
    def complete(self) -> bool:
        """Whether every load of the plan was put on."""
        return len(self.tallies) == len(self._plan.shapes)

    def figures(self) -> list[dict[str, Any]]:
        """`summary` of each load, with its `load`, and `outstanding`, `tasks` or `rate`."""
        return [{"load": shape.value, **self._size(shape), **summary(tally)} for shape, tally in self.tallies.items()]

    async def _measure(self, shape: Shape) -> None:
        self.stage = shape.value
        before = self._cpu()
        tally = self.tallies[shape] = Tally(begun=time.perf_counter())
        try:
            await self._put_on(shape, tally)
            tally.ended = time.perf_counter()
            tally.cpu = spent(before, self._cpu())
            await self._load.settle(tally)
        finally:
            if not tally.ended:
                tally.ended = time.perf_counter()
                tally.cpu = spent(before, self._cpu())
            if self._plan.rate is not None and shape is Shape.OPEN:
                tally.due = due_within(min(self._plan.share, tally.ended - tally.begun), self._plan.rate)

    async def _put_on(self, shape: Shape, tally: Tally) -> None:
        loads: dict[Shape, Callable[..., Any]] = {
            Shape.LONE: self._load.closed,
            Shape.CROWD: self._load.closed,
            Shape.BURST: self._load.burst,
            Shape.OPEN: self._load.open_loop,
        }
        await loads[shape](tally, **self._size(shape), seconds=self._plan.share)

    def _size(self, shape: Shape) -> dict[str, Any]:
        match shape:
            case Shape.LONE:
                return {"outstanding": 1}
            case Shape.CROWD:
                return {"outstanding": self._plan.outstanding}
            case Shape.BURST:
                return {"tasks": self.burst_tasks}
            case Shape.OPEN:
                return {"rate": self._plan.rate}

    async def _size_of_burst(self) -> int:
        """So many that it takes about half of its time, by the speed of the crowd and then of two smaller bursts."""
        self.stage = "sizing the burst"
        seconds = self._plan.share / SHARES_OF_PROBE
        crowd = self.tallies[Shape.CROWD]
        guess = fitting(max(1, crowd.done), crowd.ended - crowd.begun, seconds, most=FIRST_PROBE)
        first = await self._probe(guess, seconds)
        again = await self._probe(fitting(*first, seconds), seconds)
        return fitting(*again, self._plan.share / 2)

    async def _probe(self, tasks: int, seconds: float) -> tuple[int, float]:
        """Tasks that ended, and the seconds they took."""
        begun, before = time.perf_counter(), self.beside.ends.total()
        self.beside.begun = begun
        await self._load.burst(self.beside, tasks=tasks, seconds=seconds)
        took = time.perf_counter() - begun
        await self._load.settle(self.beside)
        return max(1, self.beside.ends.total() - before), took

    def _cpu(self) -> dict[str, float]:
        return {**cpu_by_name(self._pids), OURSELVES: time.process_time()}
