"""Who watches the queues behind the door, and keeps the bus's logs from filling up with what is settled.

Asked for every submission, so the answer is worked out beforehand, a few times a second.
"""

from __future__ import annotations

from typing import Protocol

from agent_engines.domain.admission import Gate, Shares, crowded
from agent_engines.domain.errors import QueueFull, Unavailable
from agent_engines.domain.journal import LogState, forget_before
from agent_engines.domain.tasks import PriorityClass
from agent_engines.domain.terms import DEFAULT_TENANT
from agent_engines.ports.bus import Bus, Journal, ReportBus
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import Ledger
from agent_engines.ports.telemetry import Telemetry

from .background import Background

LOOK_SECONDS = 0.25
LOG_SECONDS = 1.0
COMMIT_SECONDS = 2.0
"""Longest wait for a place in a commit."""
COMMIT_FREE = 500
"""One commit's worth waits in any case."""
RECORD_SECONDS = 30.0
"""How far the ledger's record may lag behind what agents have reported."""
RECORD_FREE = 200
FULLEST = 0.9
"""Share of the report log that may be unrecorded."""
FULL_RETRY_SECONDS = 5.0

GROWN = 1.1
"""How much longer than it was at its shortest a backlog may get before it counts as growing."""

CALM_SECONDS = 10.0

Refusals = dict[PriorityClass, Unavailable]


class Queue(Protocol):
    """What waits for the ledger's commit; see Batcher."""

    settled: int

    def __len__(self) -> int: ...


class Admission:
    """`check` says whether a submission may come in. `queue`: what waits for a commit."""

    def __init__(self, bus: Bus, ledger: Ledger, queue: Queue, *, clock: Clock, telemetry: Telemetry) -> None:
        self._bus = bus
        self._ledger = ledger
        self._queue = queue
        self._clock = clock
        self._telemetry = telemetry
        self._log = telemetry.log("intelligence")
        self._background = Background(self._log)
        self._commits = Gate(COMMIT_SECONDS, COMMIT_FREE)
        self._records = Gate(RECORD_SECONDS, RECORD_FREE)
        self._settled = 0
        self._recorded = 0
        self._reports = LogState()
        self._was_away = False
        self._shortest: int | None = None
        """Of the backlog an outage left: how short it has become since; None: there is none."""
        self._shares = Shares()
        self._refusals: Refusals = {}
        """For the classes the door is closed to; mostly none."""
        self.calm = True
        """Whether the record is nearly up to date: while it is not, silence says nothing about a task."""

    async def start(self) -> None:
        self._background.keep("admission-queue", self._follow_queue)
        self._background.keep("admission-logs", self._follow_logs)

    async def stop(self) -> None:
        await self._background.stop()

    def check(self, priority: int, tenant: str = DEFAULT_TENANT, weight: float = 1.0) -> None:
        """Raises QueueFull (too much work), Unavailable (no room while the ledger is away)."""
        now = self._clock.monotonic()
        refusal = self._refusals.get(PriorityClass.of(priority)) if self._refusals else None
        if refusal is not None and not (isinstance(refusal, QueueFull) and self._shares.behind(tenant, weight, now)):
            self._telemetry.count("submissions_shed_total", priority=PriorityClass.of(priority).value)
            raise refusal
        self._shares.note(tenant, weight, now)

    def look(self, seconds: float, waiting: int) -> None:
        """Work out who is let in; `waiting`: what was queued `seconds` ago."""
        settled = self._queue.settled
        self._commits.rate.note(settled - self._settled, seconds, waiting=waiting)
        self._settled = settled
        away = self._ledger.refusal() is not None
        refusals = ((priority, self._refusal(priority, away)) for priority in PriorityClass)
        self._refusals = {priority: refusal for priority, refusal in refusals if refusal is not None}

    def note_reports(self, log: LogState, seconds: float) -> None:
        """What the report log looks like now, and `seconds` ago."""
        away = self._ledger.refusal() is not None
        before, self._reports = self._reports, log
        if away or self._was_away or log.settled < before.settled:
            # Standing still, or just begun again: the old rate says nothing.
            self._records.rate.forget()
        else:
            self._records.rate.note(log.settled - before.settled, seconds, waiting=before.waiting)
        self._was_away = away
        self._follow_recovery(log.waiting, away)
        known = self._records.rate.per_second is not None
        soon = log.waiting <= RECORD_FREE or (known and self._records.rate.wait(log.waiting) <= CALM_SECONDS)
        self.calm = soon and not away
        self._telemetry.gauge("reports_unrecorded", log.waiting)

    def _follow_recovery(self, waiting: int, away: bool) -> None:
        """What an outage has left over shrinks, and closes no door: it was let in then, and others may come in now."""
        if away:
            self._shortest = waiting
        elif self._shortest is not None:
            self._shortest = min(self._shortest, waiting)
            if waiting <= RECORD_FREE or waiting > GROWN * self._shortest + RECORD_FREE:
                self._shortest = None

    def _refusal(self, priority: PriorityClass, away: bool) -> Unavailable | None:
        held = self._reports.last - self._reports.first + 1
        unsettled = self._reports.fullness * self._reports.waiting / held if held > 0 else 0.0
        if crowded(unsettled, priority, bound=FULLEST):
            return Unavailable("the report log is nearly full of what is not recorded", retry_after=FULL_RETRY_SECONDS)
        if away:
            return None
        late = self._commits.retry_after(len(self._queue), priority)
        if late is not None:
            return QueueFull(f"too many tasks wait to be accepted for {priority} priority", retry_after=late)
        if self._shortest is not None:
            return None
        late = self._records.retry_after(self._reports.waiting, priority)
        if late is not None:
            return QueueFull(f"the record is too far behind for {priority} priority", retry_after=late)
        return None

    async def _follow_queue(self) -> None:
        before, waiting = self._clock.monotonic(), len(self._queue)
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            now = self._clock.monotonic()
            self.look(now - before, waiting)
            before, waiting = now, len(self._queue)

    async def _follow_logs(self) -> None:
        before = self._clock.monotonic()
        while True:
            try:
                log = await trimmed(self._bus.reports)
                await trimmed(self._bus.journal)
            except Unavailable as error:
                self._log.debug("The bus does not say how full its logs are", error=str(error))
            else:
                now = self._clock.monotonic()
                self.note_reports(log, now - before)
                before = now
            await self._clock.sleep(LOG_SECONDS)


async def trimmed(log: ReportBus | Journal) -> LogState:
    """The state of a log, after forgetting what it need not keep when it is nearly full. Raises Unavailable."""
    state = await log.state()
    before = forget_before(state)
    if before is None:
        return state
    await log.trim(before)
    return await log.state()
