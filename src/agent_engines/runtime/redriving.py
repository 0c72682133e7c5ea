"""Redriving: dead letters by the thousand go on their way again, no faster than was ordered.

One router works on the order; how far it got is in the ledger, so that another one goes on when it dies. Letters are taken
newest first from the ledger itself: one that is redriven does not come up again, whoever redrove it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from msgspec.structs import replace

from agent_engines.domain.errors import NotFound, Unavailable
from agent_engines.domain.redrives import Redrive, RedriveOrder, RedriveState, check_order
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import DeadLetter, Ledger, LetterFilter
from agent_engines.ports.telemetry import Telemetry

from .background import Background
from .desk import TaskDesk
from .naps import nap

POLL_SECONDS = 5.0
"""How soon a router notices that the one that worked on an order fell silent."""
CLAIM_SECONDS = 15.0
TURN_SECONDS = 0.5
"""A batch is what the rate allows in this time: progress is seen twice a second, and stopping takes no longer."""
MAX_BATCH = 200


class Redriving:
    """Implements ports.later.RedriveService; from `start` to `stop` it also does the work."""

    def __init__(
        self, ledger: Ledger, desk: TaskDesk, *, clock: Clock, telemetry: Telemetry, new_id: Callable[[], str]
    ) -> None:
        self._ledger = ledger
        self._desk = desk
        self._clock = clock
        self._log = telemetry.log("intelligence")
        self._new_id = new_id
        self._router = new_id()
        self._background = Background(self._log)
        self._ordered = asyncio.Event()
        self._working: Redrive | None = None
        self._batch: asyncio.Future[int] | None = None

    async def start(self) -> None:
        self._background.keep("redriving", self._follow)

    async def stop(self) -> None:
        """Leave the rest to another router, which need not wait for our silence. May be called twice."""
        await self._background.stop()
        if self._batch is not None:
            # A letter that was reopened and not sent would wait until it counts as stranded.
            await asyncio.gather(self._batch, return_exceptions=True)
            self._batch = None
        left, self._working = self._working, None
        if left is not None:
            try:
                await self._ledger.redrives.note(left, self._router, self._clock.now())
            except Unavailable as error:
                self._log.warning("A redrive was left without a word", redrive=left.id, error=str(error))

    async def begin(self, order: RedriveOrder) -> Redrive:
        check_order(order)
        now = self._clock.now()
        matched = await self._ledger.reader.count_letters(_wanted(order, now))
        redrive = Redrive(
            id=self._new_id(),
            order=order,
            state=RedriveState.RUNNING,
            matched=matched if order.limit is None else min(matched, order.limit),
            started_at=now,
            updated_at=now,
        )
        await self._ledger.redrives.begin(redrive)
        self._ordered.set()
        return redrive

    async def latest(self) -> Redrive:
        found = await self._ledger.redrives.latest()
        if found is None:
            raise NotFound("no redrive was ever ordered")
        return found

    async def end(self) -> Redrive:
        latest = await self.latest()
        stopped = await self._ledger.redrives.end(latest.id, RedriveState.STOPPED, self._clock.now())
        return stopped or await self.latest()

    async def _follow(self) -> None:
        while True:
            self._ordered.clear()
            now = self._clock.now()
            redrive = await self._ledger.redrives.claim(self._router, now, now + CLAIM_SECONDS)
            if redrive is None:
                await nap(self._clock, POLL_SECONDS, self._ordered)
            else:
                self._working = redrive
                await self._work(redrive)
                self._working = None

    async def _work(self, redrive: Redrive) -> None:
        """Until it is done, or somebody stopped it or took it over."""
        order = redrive.order
        turn = max(1, min(MAX_BATCH, int(order.rate * TURN_SECONDS)))
        began, done = self._clock.now(), 0
        cursor: str | None = None
        while order.limit is None or redrive.redriven < order.limit:
            most = turn if order.limit is None else min(turn, order.limit - redrive.redriven)
            page = await self._ledger.reader.letters(
                replace(_wanted(order, redrive.started_at), limit=most, cursor=cursor)
            )
            letters: list[DeadLetter] = page.items
            self._batch = asyncio.ensure_future(self._desk.redrive_many([letter.task_id for letter in letters]))
            redriven = await asyncio.shield(self._batch)
            done += len(letters)
            redrive = await self._noted(redrive, redriven, len(letters) - redriven)
            if redrive.state is not RedriveState.RUNNING:
                return
            cursor = page.next_cursor
            if cursor is None:
                break
            if not await self._keep_pace(redrive, began + done / order.rate):
                return
        await self._ledger.redrives.end(redrive.id, RedriveState.DONE, self._clock.now())
        self._log.info("Dead letters were redriven", redriven=redrive.redriven, skipped=redrive.skipped)

    async def _noted(self, redrive: Redrive, redriven: int, skipped: int) -> Redrive:
        """How far it got; as stopped when it is not ours any more."""
        now = self._clock.now()
        noted = replace(
            redrive, redriven=redrive.redriven + redriven, skipped=redrive.skipped + skipped, updated_at=now
        )
        ours = await self._ledger.redrives.note(noted, self._router, now + CLAIM_SECONDS)
        self._working = noted if ours else None
        return noted if ours else replace(noted, state=RedriveState.STOPPED)

    async def _keep_pace(self, redrive: Redrive, until: float) -> bool:
        """False when it was stopped or taken over. The claim is renewed: slow orders wait long between letters."""
        while (left := until - self._clock.now()) > 0:
            await self._clock.sleep(min(left, CLAIM_SECONDS / 3))
            if not await self._ledger.redrives.note(redrive, self._router, self._clock.now() + CLAIM_SECONDS):
                return False
        return True


def _wanted(order: RedriveOrder, until: float) -> LetterFilter:
    return LetterFilter(
        task_type=order.task_type,
        agent=order.agent,
        reason=order.reason,
        since=order.since,
        # The ledger keeps microseconds; what was given up in this very moment belongs to it.
        until=math.ceil(until * 1e6) / 1e6,
        waiting=True,
    )
