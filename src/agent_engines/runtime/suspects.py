"""Suspects: redelivered tasks, from their turn to their start. Their starts are noted, and the worst run alone.

turn -> asked (holds a slot for a round trip) -> begins, noted
                └-> waits here for its lane or for solitude -> asked again -> begins, noted | buried

Nothing of this touches a task that is delivered for the first time. Rule: domain/poison.py, notes: starts.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from agent_engines.domain.errors import Unavailable
from agent_engines.domain.poison import Company, Place, unnoted
from agent_engines.ports.telemetry import Telemetry

from .attempt import Attempt
from .background import Background
from .starts import StartNotes

MOST_WAITING = 100
"""More than this go back to the bus: other replicas try them at the same time."""
LATER_SECONDS = 5.0
TICK_SECONDS = 0.1
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the worker does for those who decide about its tasks."""

    begin: Callable[[Attempt], None]
    """Start it now, or finish it when a gate says so."""
    lost: Callable[[Attempt], bool]
    """Is it somebody else's by now?"""
    bury: Callable[[Attempt, str], None]
    """End it as poison, for this reason."""
    hand_back: Callable[[Attempt, float], Awaitable[None]]
    """Give it back to the bus, to come again after so many seconds."""
    free: Callable[[], int]
    """Slots nobody uses; those that are asked count as used."""
    running: Callable[[], int]
    freed: Callable[[], None]
    """There may be room for others again."""
    idle: Callable[[], bool]
    """Nothing runs and nothing waits."""
    release_queued: Callable[[], Awaitable[None]]
    """Give back what waits here."""


class Suspects:
    """Of one worker. `examine` takes a doubtful attempt that has a slot; `ended` must follow each that was begun."""

    def __init__(self, notes: StartNotes, host: Host, *, agent: str, telemetry: Telemetry) -> None:
        self.open = True
        """May others begin now? False while a suspect runs alone, or waits for that."""
        self.asking = 0
        """Suspects that hold a slot while their notes are asked for."""
        self.waiting: dict[Attempt, Place] = {}
        """Oldest first."""
        self._notes = notes
        self._host = host
        self._agent = agent
        self._telemetry = telemetry
        log = self._log = telemetry.log(agent)
        self._company = Company()
        self._background = Background(log)
        self._loop = asyncio.get_running_loop()
        self._turning: asyncio.Task[None] | None = None
        self._silent = False
        self._closed = False

    def examine(self, attempt: Attempt) -> None:
        """Find out beside whom it may run, then begin it or let it wait."""
        self._ask(attempt, Place.SHARED)

    def ended(self, attempt: Attempt) -> None:
        """It ended, in whatever way."""
        if attempt.place is not None:
            self._company.end(attempt.place, self._loop.time())
        self.turn()

    def turn(self) -> None:
        """Begin whoever may begin now."""
        if self._closed:
            return
        now = self._loop.time()
        if any(place is Place.ALONE for place in self.waiting.values()):
            self._company.wait_alone(now)
        else:
            self._company.nobody_waits(now)
        for attempt, place in list(self.waiting.items()):
            others = self._host.running() + self.asking
            if self._host.free() > 0 and self._company.may_begin(place, others, now):
                del self.waiting[attempt]
                self._company.begin(place, now)
                self._ask(attempt, place)
        opened, self.open = self.open, not self._company.shut
        if self.open and not opened:
            self._loop.call_soon(self._host.freed)
        if (self.waiting or not self.open) and (self._turning is None or self._turning.done()):
            self._turning = self._background.spawn("suspects-turn", self._keep_turning())

    def discard(self, attempt: Attempt) -> bool:
        """Take one out that waits; False when it does not."""
        return self.waiting.pop(attempt, None) is not None

    def clear(self) -> list[Attempt]:
        """Take out all that wait."""
        waiting = list(self.waiting)
        self.waiting.clear()
        return waiting

    def settled(self, attempt: Attempt) -> None:
        """Its report is durable: the note may go, unless it says that the task was given up."""
        starts = attempt.starts
        if starts is not None and starts.places and not starts.buried:
            self._background.spawn("clears-note", self._quietly(self._notes.clear(attempt)))

    async def withdraw(self, attempts: Sequence[Attempt]) -> None:
        """Take back the starts of attempts that this process hands back in good order."""
        noted = [attempt for attempt in attempts if attempt.starts is not None and attempt.place is not None]
        await asyncio.gather(*(self._quietly(self._notes.withdraw(attempt)) for attempt in noted))

    async def close(self) -> None:
        """Begin nothing more; what is asked for ends by itself and is handed back. May be called twice."""
        self._closed = True
        until = self._loop.time() + CLOSE_SECONDS
        while self._background.names and self._loop.time() < until:
            await asyncio.sleep(0.005)
        await self._background.stop()

    async def _keep_turning(self) -> None:
        """Doors move with time, and a lane frees by itself."""
        while not self._closed and (self.waiting or not self.open):
            await asyncio.sleep(TICK_SECONDS)
            self.turn()

    def _ask(self, attempt: Attempt, place: Place) -> None:
        self.asking += 1
        self._background.spawn("notes-start", self._asked(attempt, place))

    async def _asked(self, attempt: Attempt, allowed: Place) -> None:
        """Note its start, then begin it; or do what its note says."""
        try:
            place = await self._place(attempt, allowed)
        finally:
            self.asking -= 1
        if self._closed or self._host.lost(attempt):
            if place is allowed:
                attempt.place = place
                await self.withdraw([attempt])
            self._leave(allowed)
            await self._host.hand_back(attempt, 0.0)
        elif place is allowed:
            attempt.place = place
            if place is Place.ALONE and attempt.starts is not None:
                # This process may end now: what waits in it need not wait for the end of its leases.
                await self._host.release_queued()
            self._host.begin(attempt)
            if attempt.task is None:
                # A gate ended it.
                self._leave(allowed)
        else:
            self._leave(allowed)
            await self._sort(attempt, place)
        if not self._closed:
            self.turn()
            self._host.freed()

    async def _place(self, attempt: Attempt, allowed: Place) -> Place:
        try:
            place = await self._notes.note(attempt, allowed)
        except Unavailable as error:
            if not self._silent:
                self._silent = True
                self._log.warning("Starts of redelivered tasks cannot be noted", error=error.detail)
            self._telemetry.count("agent_starts_unnoted_total", agent_name=self._agent)
            attempt.starts = None
            place = unnoted(attempt.delivery.count)
            # Who waited for its lane has it: running unnoted is better than waiting for ever.
            return allowed if place not in (Place.LATER, Place.BURIED) and allowed is not Place.SHARED else place
        if self._silent:
            self._silent = False
            self._log.info("Starts of redelivered tasks can be noted again")
        return place

    async def _sort(self, attempt: Attempt, place: Place) -> None:
        if place is Place.BURIED:
            starts = attempt.starts
            if starts is None or not starts.buried:
                attempt.place = Place.BURIED
                await self._quietly(self._notes.bury(attempt))
            reason = f"delivered {attempt.delivery.count} times without an outcome; its starts could not be noted"
            if starts is not None:
                reason = starts.reason
            self._log.error("A task ends its process and is given up", task_id=attempt.message.task_id, reason=reason)
            self._host.bury(attempt, reason)
        elif place is Place.LATER or len(self.waiting) >= MOST_WAITING:
            await self._host.hand_back(attempt, LATER_SECONDS)
        else:
            self.waiting[attempt] = place

    def _leave(self, place: Place) -> None:
        self._company.end(place, self._loop.time())

    async def _quietly(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Unavailable as error:
            # A note that stays says one start too many; that alone buries nobody.
            self._log.debug("A note of starts was not changed", error=error.detail)
