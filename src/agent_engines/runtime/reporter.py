"""Reports on their way out: whatever has gathered while one message travels goes together in the next.

A task is acknowledged only after its report is durable. While the bus is away the reports wait here, bounded, and in
the spool if there is one; when too many wait, the agent takes no more work. If the process dies meanwhile, the next one
tells what the spool kept; the other tasks come back unacknowledged and run again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec.structs import replace

from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.retry import RetryRule, readable
from agent_engines.domain.tasks import NO_PAYLOAD, TaskError, TaskStatus
from agent_engines.ports.bus import ReportBus
from agent_engines.ports.spool import Spool, Spooled
from agent_engines.ports.telemetry import Log, Telemetry

from .attempt import Attempt
from .batching import Batcher
from .spooling import Spooling, spooled

MAX_BATCH = 1_000
MAX_PENDING = 10_000
MAX_PENDING_BYTES = 64 * 1024 * 1024
SPOOL_SECONDS = 2.0
"""A disk that stands still holds up the end of the process no longer."""
ANSWER_SECONDS = 0.5
"""After the end of `close` the answer to what was sent last is waited for this long."""
MAX_WAITING = 1_000_000
"""Never reached: intake stops at MAX_PENDING, what is taken already is bounded by slots and queue."""

Settle = Callable[[list[Attempt]], Awaitable[None]]


class _Pending(msgspec.Struct, frozen=True):
    report: Report
    attempt: Attempt | None
    size: int


class Reporter:
    """Publishes reports in batches, then hands their attempts to `settle`, which acknowledges them."""

    def __init__(
        self,
        bus: ReportBus,
        agent: str,
        *,
        settle: Settle,
        telemetry: Telemetry,
        rng: random.Random,
        spool: Spool | None = None,
    ) -> None:
        self._bus = bus
        self._agent = agent
        self._settle = settle
        self._telemetry = telemetry
        self._log: Log = telemetry.log(agent)
        self._rng = rng
        self._pauses = RetryRule(base_seconds=0.2, cap_seconds=2.0)
        self._batcher: Batcher[_Pending, None] = Batcher(self._flush, max_batch=MAX_BATCH, max_waiting=MAX_WAITING)
        self._pending = 0
        self._bytes = 0
        self._closing = asyncio.Event()
        self._give_up_at: float | None = None
        self._spooling = None if spool is None else Spooling(spool, self._log)
        self._travelling: Sequence[_Pending] = ()
        self._told = 0
        self._spooled_until: int | None = None
        """How many must have been told before the spool holds nothing that is still needed."""
        self._refused_since: float | None = None
        self.on_relief: Callable[[], None] | None = None
        """Called when reports went out after `congested` was true."""
        self.on_recovery: Callable[[], None] | None = None
        """Called when the bus takes reports again."""

    def __len__(self) -> int:
        return self._pending

    @property
    def congested(self) -> bool:
        """Too much waits to be told: take no more work."""
        full = self._spooling is not None and self._spooling.full
        return full or self._pending >= MAX_PENDING or self._bytes >= MAX_PENDING_BYTES

    @property
    def refused_seconds(self) -> float:
        """For how long the bus has taken no report that was offered; 0: it does."""
        since = self._refused_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    def put(self, report: Report, attempt: Attempt | None) -> None:
        """Queue one report; `attempt` is settled once it is durable. Announcements (no attempt) are dropped when congested."""
        if attempt is None and self.congested:
            return
        size = len(memoryview(report.result))
        self._pending += 1
        self._bytes += size
        self._batcher.post(_Pending(report, attempt, size))
        if attempt is not None and self._spooling is not None and self._spooling.active:
            self._spooling.add(spooled(report, attempt))

    async def close(self, seconds: float) -> int:
        """Send what is left, for at most about `seconds` while the bus is away; how many reports were left behind."""
        self._give_up_at = asyncio.get_running_loop().time() + seconds
        self._closing.set()
        sending = asyncio.ensure_future(self._batcher.close())
        await asyncio.wait({sending}, timeout=seconds + ANSWER_SECONDS)
        if not sending.done():
            # A bus that stands still would be waited for longer than the process may live: keep what it was offered.
            sending.cancel()
            await self._refused()
        if self._spooling is not None:
            if not self._pending:
                await self._spooling.end()
            await self._spooling.close(SPOOL_SECONDS)
        return self._pending

    async def _flush(self, batch: Sequence[_Pending]) -> list[None]:
        self._travelling = batch
        told = await self._publish(batch)
        await self._settle([pending.attempt for pending in told if pending.attempt is not None])
        relieved = self.congested
        self._pending -= len(batch)
        self._bytes -= sum(pending.size for pending in batch)
        self._told += len(batch)
        if self._spooled_until is not None and self._told >= self._spooled_until:
            self._spooled_until = None
            await self._unspool()
        if relieved and not self.congested and self.on_relief is not None:
            self.on_relief()
        return [None] * len(batch)

    async def _publish(self, batch: Sequence[_Pending]) -> Sequence[_Pending]:
        """Those of the batch that are durable now: all, unless some cannot be sent in any form."""
        try:
            await self._insist([pending.report for pending in batch])
        except Unavailable:
            raise
        except Exception as error:
            self._log.error("A batch of reports was refused and goes one by one", size=len(batch), error=repr(error))
        else:
            return batch
        return [pending for pending in batch if await self._publish_alone(pending.report)]

    async def _publish_alone(self, report: Report) -> bool:
        for form in (report, _without_result(report)):
            try:
                await self._insist([form])
            except Unavailable:
                raise
            except Exception as error:
                self._log.error("A report was refused", task_id=report.task_id, error=repr(error))
            else:
                return True
        return False

    async def _insist(self, reports: list[Report]) -> None:
        """Publish until it is durable. Raises Unavailable only past the end given to `close`."""
        tries = 0
        while True:
            try:
                await self._bus.publish_reports(self._agent, reports)
            except Unavailable as error:
                tries += 1
                self._telemetry.count("agent_report_retries_total", agent_name=self._agent)
                if tries == 1:
                    self._log.warning(
                        "Reports wait: the bus did not take them", reports=self._pending, error=error.detail
                    )
                    await self._refused()
                await self._pause(tries, error)
            else:
                if tries:
                    self._log.info("Reports flow again", reports=self._pending)
                    self._recovered()
                return

    async def _refused(self) -> None:
        """Keep what waits where the end of this process cannot reach it."""
        if self._refused_since is None:
            self._refused_since = asyncio.get_running_loop().time()
        # Refused again without a recovery between (the end of `close`): what waits is in the spool, and what was given up must stay.
        if self._spooling is not None and not self._spooling.active:
            self._spooled_until = None
            waiting = (_spooled(self._travelling), _spooled(self._batcher.waiting))
            await self._spooling.begin(*waiting)

    def _recovered(self) -> None:
        self._refused_since = None
        if self._spooling is not None and self._spooling.active:
            self._spooling.active = False
            self._spooled_until = self._told + self._pending
        if self.on_recovery is not None:
            self.on_recovery()

    async def _unspool(self) -> None:
        if self._spooling is not None:
            await self._spooling.end()

    async def _pause(self, tries: int, error: Unavailable) -> None:
        seconds = self._pauses.ceiling(tries) * (0.5 + 0.5 * self._rng.random())
        now = asyncio.get_running_loop().time()
        if self._give_up_at is not None:
            if now >= self._give_up_at:
                raise error
            await asyncio.sleep(min(seconds, self._give_up_at - now))
            return
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return


def _spooled(pendings: Sequence[_Pending]) -> list[Spooled]:
    """Announcements are left out: they are not worth keeping."""
    return [spooled(one.report, one.attempt) for one in pendings if one.attempt is not None]


def _without_result(report: Report) -> Report:
    """The same report, failing: what a bus refuses for its result it takes without."""
    if report.kind is not ReportKind.FINAL or report.status is not TaskStatus.SUCCESS:
        return replace(report, error=TaskError("ReportRefused", "the bus did not take the report", retryable=False))
    size = len(memoryview(report.result))
    detail = readable(f"the bus did not take the result of {size} bytes")
    return replace(
        report, status=TaskStatus.FAILED, result=NO_PAYLOAD, error=TaskError("ResultTooLarge", detail, retryable=False)
    )
