"""What the reporter does with a spool: keep what the bus does not take, and bring over what a dead replica kept.

None of it happens while the bus takes reports. A kept report's task is not acknowledged: that is for when the report is
durable on the bus. Everything may be told twice, the ledger takes it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from agent_engines.domain.errors import AgentEnginesError, Unavailable
from agent_engines.domain.messages import Report
from agent_engines.ports.bus import Delivery, ReportBus, TaskInbox
from agent_engines.ports.spool import Orphan, Spool, Spooled
from agent_engines.ports.telemetry import Log

from .attempt import Attempt, Key
from .background import Background
from .batching import Batcher

MAX_GROUP = 1_000
MAX_WAITING = 1_000_000
"""Never reached: the reporter takes no more long before."""
ADOPT_SECONDS = 5.0
"""How long a start waits for a dead replica's reports: told before the first pull, their tasks need not run again."""
ADOPT_PAUSE = 2.0


class Spooling:
    """The reporter's pen: `begin` with the first refusal, `add` while it lasts, `end` when all of it was told."""

    def __init__(self, spool: Spool, log: Log) -> None:
        self._spool = spool
        self._log = log
        self._pen: Batcher[Spooled, None] = Batcher(self._write, max_batch=MAX_GROUP, max_waiting=MAX_WAITING)
        self._one_at_a_time = asyncio.Lock()
        self._written = False
        self.active = False
        self.full = False
        """No more fits, or it cannot be written: take no more work."""

    async def begin(self, travelling: Sequence[Spooled], waiting: Sequence[Spooled]) -> None:
        """Keep what is under way, as one group so that it gets the same message id again, and what waits behind it."""
        self.active = True
        if self._written:
            await self._forget()
        if travelling:
            await self._write(travelling)
        for one in waiting:
            self.add(one)

    def add(self, one: Spooled) -> None:
        self._pen.post(one)

    async def end(self) -> None:
        """All that was kept is on the bus."""
        self.active = False
        while len(self._pen):
            await asyncio.sleep(0.01)
        await self._forget()

    async def close(self, seconds: float) -> None:
        """Let what is being written become durable, for `seconds` at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._pen.close()
                await self._spool.close()
        except (TimeoutError, Unavailable) as error:
            self._log.error("The spool could not be closed", error=str(error) or "no answer in time")

    async def _write(self, group: Sequence[Spooled]) -> list[None]:
        async with self._one_at_a_time:
            self._written = True
            try:
                kept = await self._spool.keep(group)
            except Unavailable as error:
                self._refused(error.detail)
            else:
                if not kept:
                    self._refused("it is full")
        return [None] * len(group)

    def _refused(self, why: str) -> None:
        if not self.full:
            self.full = True
            self._log.error("Reports are in memory only, and no more work is taken: the spool refuses", error=why)

    async def _forget(self) -> None:
        async with self._one_at_a_time:
            try:
                await self._spool.clear()
            except Unavailable as error:
                # It would be told again by the next start, and recorded once.
                self._log.warning("The spool could not be cleared", error=error.detail)
            self._written = self.full = False


class Adoption:
    """Brings what dead replicas of this agent kept to the bus; `told` hears which tasks need not run any more."""

    def __init__(
        self, spool: Spool, bus: ReportBus, inbox: TaskInbox, *, agent: str, log: Log, told: Callable[[list[Key]], None]
    ) -> None:
        self._spool = spool
        self._bus = bus
        self._inbox = inbox
        self._agent = agent
        self._log = log
        self._told = told
        self._background = Background(log)
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look now, and wait for the end of it a little; a bus that is away is waited for in the background."""
        self.look()
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=ADOPT_SECONDS)

    def look(self) -> None:
        """Look (again), in the background."""
        if self._looking is None or self._looking.done():
            self._looking = self._background.spawn("adopt-spools", self._look())

    async def stop(self) -> None:
        await self._background.stop()

    async def _look(self) -> None:
        while True:
            try:
                if await self._adopt_all():
                    return
            except AgentEnginesError as error:
                self._log.warning("Reports of a dead replica could not be read", error=str(error))
            await asyncio.sleep(ADOPT_PAUSE)

    async def _adopt_all(self) -> bool:
        """False: the bus did not take all of it."""
        complete = True
        orphans = await self._spool.orphans()
        for orphan in orphans:
            # Each by itself: one that cannot be read must not leave the others locked, and their reports untold.
            try:
                done = await self._adopt_and_close(orphan)
            except AgentEnginesError as error:
                self._log.warning("Reports of a dead replica could not be read", error=str(error))
                done = False
            complete = complete and done
        return complete

    async def _adopt_and_close(self, orphan: Orphan) -> bool:
        done = False
        try:
            done = await self._adopt(orphan)
        finally:
            await (orphan.remove() if done else orphan.leave())
        return done

    async def _adopt(self, orphan: Orphan) -> bool:
        count = 0
        while (group := await orphan.read()) is not None:
            try:
                sent = await self._publish(group)
            except Unavailable:
                return False
            self._told([(one.report.task_id, one.report.generation) for one in sent])
            await self._acknowledge(sent)
            count += len(sent)
        if count:
            self._log.info("Reports of a replica that is gone were sent", reports=count)
        return True

    async def _publish(self, group: Sequence[Spooled]) -> Sequence[Spooled]:
        """Those that are durable now: what the bus takes in no form is left out, its task comes again. Raises Unavailable."""
        try:
            await self._bus.publish_reports(self._agent, [one.report for one in group])
        except Unavailable:
            raise
        except AgentEnginesError as error:
            if len(group) > 1:
                return [sent for one in group for sent in await self._publish([one])]
            self._log.error("A kept report was refused", task_id=group[0].report.task_id, error=str(error))
            return []
        return group

    async def _acknowledge(self, group: Sequence[Spooled]) -> None:
        deliveries = [Delivery(None, one.report.delivery, one.token) for one in group if one.token is not None]
        try:
            await self._inbox.ack(deliveries)
        except AgentEnginesError as error:
            self._log.debug("Tasks of a replica that is gone were not acknowledged", error=str(error))


def spooled(report: Report, attempt: Attempt) -> Spooled:
    """What is kept of a report: with the means to acknowledge its task, where these outlive a process."""
    token = attempt.delivery.token
    return Spooled(report, token if isinstance(token, bytes) else None)
