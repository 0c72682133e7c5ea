"""The recorder: reports from the bus into the ledger, acknowledged after the commit, then told to whoever waits.

    pull -> gather (500 reports or 20 ms under load, less when nothing comes, at once when idle) -> gate (capabilities) -> one transaction -> ack -> broadcast

An acknowledgement before the commit could lose outcomes; a crash between the two repeats a batch, which changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from agent_engines.domain.capability import Capabilities
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import NO_PAYLOAD, TaskError, TaskStatus
from agent_engines.ports.bus import Bus, ReportDelivery, ReportInbox
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import TaskLedger, Verdict
from agent_engines.ports.telemetry import Telemetry

from .background import Background
from .broadcasts import tell_waiters
from .naps import nap
from .outcomes import Outcome, outcome_of
from .report_gate import ReportGate

PULL_MESSAGES = 50
PULL_SECONDS = 5.0
BATCH_REPORTS = 500
BATCH_SECONDS = 0.02
QUIET_SECONDS = 0.004
"""Nobody waits for the rest of a batch when nothing came for so long: its callers may be waiting for this one."""
BUSY_REPORTS = 32
"""A batch at least this large means that waiting for more is worth it: 1,600 reports/s and up."""
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
UNRECORDABLE = "UnrecordableReport"


class Listener(Protocol):
    """Who hears of everything that was recorded here, whoever handed it in. `home`: the origin whose waiters it tells."""

    home: str

    def recorded(self, outcomes: Sequence[Outcome]) -> None: ...


class Recorder:
    """Start it once per process; any number of processes share the report log."""

    def __init__(
        self,
        bus: Bus,
        ledger: TaskLedger,
        *,
        capabilities: Capabilities,
        clock: Clock,
        telemetry: Telemetry,
        on_retry: Callable[[float], None] | None = None,
        listener: Listener | None = None,
    ) -> None:
        """`on_retry` hears when the next retry is due."""
        self._bus = bus
        self._ledger = ledger
        self._clock = clock
        self._telemetry = telemetry
        self._on_retry = on_retry
        self._listener = listener
        self._gate = ReportGate(capabilities, clock=clock, telemetry=telemetry)
        self._log = telemetry.log("intelligence")
        self._background = Background(self._log)
        self._inbox: ReportInbox | None = None
        self._stopping = asyncio.Event()
        self._busy = False
        self.recorded: Counter[Verdict] = Counter()

    async def start(self) -> None:
        self._inbox = await self._bus.reports.open_reports()
        self._background.keep("recorder", self._run)

    async def stop(self) -> None:
        """Finish the batch under way, hand back what was pulled and not committed."""
        self._stopping.set()
        await self._background.stop()
        if self._inbox is not None:
            await self._inbox.close()
            self._inbox = None

    async def _run(self) -> None:
        inbox = self._inbox
        if inbox is None:
            return
        committing: asyncio.Task[None] | None = None
        try:
            while True:
                batch = await self._gather(inbox)
                if committing is not None:
                    # One commit at a time keeps the order of an agent's reports; the next batch gathers meanwhile.
                    # Waited for, not awaited: a cancelled await would cancel the commit with it.
                    await asyncio.wait([committing])
                    done, committing = committing, None
                    done.result()
                if batch:
                    committing = asyncio.get_running_loop().create_task(self._commit(inbox, batch), name="record")
        finally:
            if committing is not None:
                await asyncio.wait([committing])

    async def _gather(self, inbox: ReportInbox) -> list[ReportDelivery]:
        batch = await inbox.pull(PULL_MESSAGES, PULL_SECONDS)
        count = _reports_in(batch)
        if self._busy and batch:
            until = self._clock.monotonic() + BATCH_SECONDS
            while count < BATCH_REPORTS and (left := until - self._clock.monotonic()) > 0:
                more = await inbox.pull(PULL_MESSAGES, min(left, QUIET_SECONDS))
                if not more:
                    break
                batch.extend(more)
                count += _reports_in(more)
        self._busy = count >= BUSY_REPORTS
        return batch

    async def _commit(self, inbox: ReportInbox, batch: list[ReportDelivery]) -> None:
        batch = self._gate.admitted(batch)
        pause, again = FIRST_PAUSE, False
        while True:
            try:
                await self._record(inbox, batch, again=again)
                return
            except Unavailable as error:
                if self._stopping.is_set():
                    await self._release(inbox, batch)
                    return
                # Held, not released: the ledger is away for everybody, and the bus delivers again if we die.
                self._log.warning("Reports wait for the ledger", reports=_reports_in(batch), error=str(error))
            again = True
            await nap(self._clock, pause, self._stopping)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _record(self, inbox: ReportInbox, batch: list[ReportDelivery], *, again: bool) -> None:
        """Commit, acknowledge, tell. A batch the ledger cannot take is halved until the one bad report is alone.

        `again`: it may have been committed before, and only the answer was lost: then nobody was told.
        """
        reports = [report for delivery in batch for report in delivery.reports]
        try:
            verdicts = await self._ledger.record(reports) if reports else []
        except Unavailable:
            raise
        except Exception as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._record(inbox, batch[:middle], again=again)
                await self._record(inbox, batch[middle:], again=again)
                return
            self._log.error("A report message was refused by the ledger", reports=len(reports), error=repr(error))
            reports, verdicts = await self._one_by_one(reports)
        await inbox.ack(batch)
        if again:
            # What is there already is what the lost commit wrote, and those who wait for it still do.
            verdicts = [Verdict.RECORDED if verdict is Verdict.DUPLICATE else verdict for verdict in verdicts]
        await self._tell(reports, verdicts)

    async def _one_by_one(self, reports: Sequence[Report]) -> tuple[list[Report], list[Verdict]]:
        kept: list[Report] = []
        verdicts: list[Verdict] = []
        for report in reports:
            for attempt in (report, _unrecordable(report)):
                try:
                    verdicts.extend(await self._ledger.record([attempt]))
                    kept.append(attempt)
                    break
                except Unavailable:
                    raise
                except Exception as error:
                    self._log.error("A report cannot be recorded", task_id=report.task_id, error=repr(error))
        return kept, verdicts

    async def _tell(self, reports: Sequence[Report], verdicts: Sequence[Verdict]) -> None:
        found = Counter(verdicts)
        self.recorded.update(found)
        for verdict, amount in found.items():
            self._telemetry.count("reports_recorded_total", amount, verdict=str(verdict))
        listener = self._listener
        homes: dict[str, list[Report]] = {}
        told: list[Report] = []
        retry_at: float | None = None
        for report, verdict in zip(reports, verdicts, strict=True):
            if verdict is Verdict.FALLEN:
                told.append(_fallen(report))
            if not verdict.kept:
                continue
            told.append(report)
            homes.setdefault(report.origin, []).append(report)
            if report.kind is ReportKind.FINAL:
                self._count(report)
            elif report.kind is ReportKind.RETRY:
                due = report.retry_at or 0.0
                retry_at = due if retry_at is None else min(retry_at, due)
        if retry_at is not None and self._on_retry is not None:
            self._on_retry(retry_at)
        for origin, theirs in homes.items():
            if listener is None or origin != listener.home:
                await tell_waiters(self._bus, origin, theirs)
        if listener is not None and told:
            try:
                listener.recorded([outcome_of(report) for report in told])
            except Exception as error:
                # They are recorded; whoever could not take them must not keep the next ones from being.
                self._log.error("Recorded outcomes were not taken in", outcomes=len(told), error=repr(error))

    def _count(self, report: Report) -> None:
        """The router's page speaks for the fleet: an agent's own page is on a port that only its scraper knows."""
        if report.agent is not None:
            milliseconds = report.execution_time_ms
            self._telemetry.task_done(
                report.agent, report.status, None if milliseconds is None else milliseconds / 1000.0
            )

    async def _release(self, inbox: ReportInbox, batch: list[ReportDelivery]) -> None:
        try:
            await inbox.release(batch)
        except Unavailable as error:
            self._log.info("Reports were not handed back; their lease ends by itself", error=str(error))


def _fallen(report: Report) -> Report:
    """A leg of a hedged task that failed, as routers and statistics hear of it: the task goes on, so its submitter hears nothing."""
    return msgspec.structs.replace(report, kind=ReportKind.RETRY, status=TaskStatus.RETRYING, retry_at=None)


def _reports_in(batch: Sequence[ReportDelivery]) -> int:
    return sum(len(delivery.reports) for delivery in batch)


def _unrecordable(report: Report) -> Report:
    """The same attempt, ended as a dead letter: without this the task would run, and fail to be recorded, for ever."""
    return msgspec.structs.replace(
        report,
        kind=ReportKind.FINAL,
        status=TaskStatus.DEAD_LETTER,
        result=NO_PAYLOAD,
        quality=None,
        cost=None,
        error=TaskError(UNRECORDABLE, "the ledger cannot store what the agent reported"),
    )
