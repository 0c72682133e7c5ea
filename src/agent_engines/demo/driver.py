"""The driver: sends tasks in bursts, as callers do, waits for every outcome and counts what the ledger has."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from agent_engines.domain.errors import AgentEnginesError
from agent_engines.domain.tasks import TERMINAL, TaskRequest, TaskView

from .results import Run

LARGEST_BURST = 60
PAGE = 200


class Handle(Protocol):
    """A submitted task, as the client gives it."""

    @property
    def task_id(self) -> str: ...

    async def outcome(self, timeout: float | None = None) -> TaskView: ...


class Submitter(Protocol):
    """The part of `Client` that the driver needs."""

    async def submit_many(self, requests: Sequence[TaskRequest], *, return_exceptions: bool = False) -> list[Any]: ...


class Lister(Protocol):
    """The part of `Client` that counting needs."""

    async def tasks(self, **filters: Any) -> dict[str, Any]: ...


CountTerminal = Callable[[Collection[str]], Awaitable[int]]
"""Given task ids: how many of them have a terminal row."""


@dataclass(frozen=True, slots=True)
class DriveOptions:
    """`rate`: tasks a second on average, 0 for no pauses at all; `timeout`: seconds to wait for one outcome.

    Outcomes come back in about the order of the tasks, so a few `waiters` are enough and cost the fewest requests.
    """

    seed: int = 7
    rate: float = 150.0
    timeout: float = 120.0
    waiters: int = 16


def bursts(count: int, options: DriveOptions) -> Iterator[tuple[int, float]]:
    """(size, pause after it in seconds) until `count` tasks are out; the same for a seed, `rate` a second on average."""
    rng = random.Random(options.seed)
    while count > 0:
        size = min(count, LARGEST_BURST, 1 + int(rng.expovariate(1 / 15)))
        count -= size
        yield size, rng.expovariate(options.rate / size) if options.rate > 0 else 0.0


async def drive(
    client: Submitter,
    requests: Sequence[TaskRequest],
    *,
    count_terminal: CountTerminal,
    options: DriveOptions | None = None,
    console: Console | None = None,
) -> Run:
    """Send everything, wait for everything. A refused task is counted as refused; one without outcome in time is left
    to `count_terminal` to judge. With a console, shows progress."""
    options = options or DriveOptions()
    with _progress(console) as progress:
        drive = _Drive(client, options, progress, progress.add_task("tasks", total=len(requests)))
        started = time.perf_counter()
        await drive.send(requests)
        views = await drive.collect()
        seconds = time.perf_counter() - started
    ids = [handle.task_id for handle in drive.handles]
    return Run(
        submitted=len(requests),
        accepted=len(ids),
        terminal=await count_terminal(ids),
        seconds=seconds,
        views=tuple(views),
        refusals=tuple(sorted({str(error) for error in drive.refused})),
    )


def listed(client: Lister, *, since: float | None = None) -> CountTerminal:
    """Count by reading the task list of the API page by page. `since`: epoch seconds, to skip older tasks."""

    async def count(task_ids: Collection[str]) -> int:
        wanted, found = set(task_ids), 0
        cursor: str | None = None
        while wanted:
            filters = {"limit": PAGE, "since": since, "cursor": cursor}
            page = await client.tasks(**{name: value for name, value in filters.items() if value is not None})
            for item in page["items"]:
                if item["task_id"] in wanted:
                    wanted.discard(item["task_id"])
                    found += item["status"] in TERMINAL
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return found

    return count


class _Drive:
    """One run under way."""

    def __init__(self, client: Submitter, options: DriveOptions, progress: Progress, bar: TaskID) -> None:
        self._client = client
        self._options = options
        self._progress = progress
        self._bar = bar
        self._waiters = asyncio.Semaphore(options.waiters)
        self._watches: list[asyncio.Task[TaskView | None]] = []
        self.handles: list[Handle] = []
        self.refused: list[AgentEnginesError] = []

    async def send(self, requests: Sequence[TaskRequest]) -> None:
        """Bursts are sent on time even while an earlier one is still being accepted."""
        at = 0
        due = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for size, pause in bursts(len(requests), self._options):
                group.create_task(self._send_burst(requests[at : at + size]))
                at += size
                due += pause
                await asyncio.sleep(max(0.0, due - time.perf_counter()))

    async def collect(self) -> list[TaskView]:
        views = await asyncio.gather(*self._watches)
        return [view for view in views if view is not None]

    async def _send_burst(self, requests: Sequence[TaskRequest]) -> None:
        for answer in await self._client.submit_many(requests, return_exceptions=True):
            if isinstance(answer, AgentEnginesError):
                self.refused.append(answer)
                self._progress.advance(self._bar)
            else:
                self.handles.append(answer)
                self._watches.append(asyncio.create_task(self._watch(answer), name="demo-outcome"))

    async def _watch(self, handle: Handle) -> TaskView | None:
        async with self._waiters:
            try:
                return await handle.outcome(self._options.timeout)
            except (TimeoutError, AgentEnginesError) as error:
                self._progress.console.print(f"no outcome of {handle.task_id}: {error!r}", style="yellow")
                return None
            finally:
                self._progress.advance(self._bar)


def _progress(console: Console | None) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console or Console(stderr=True),
        disable=console is None,
        refresh_per_second=4,
    )
