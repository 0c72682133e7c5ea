"""Intake: how tasks come from the bus into the process, no more than it can start soon.

listening: there is room. One long pull for each priority class at the same time, so a task is here at once.
scarce:    there is none. When a slot frees, one sweep asks the classes in order of urgency; what is fetched is run next,
           nothing is hoarded, urgent work on the bus overtakes. A sweep that finds less than it has room for ends scarcity.

Every eighth sweep begins with the least urgent class for a quarter of the room, so that none starves.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from agent_engines.domain.errors import AgentEnginesError
from agent_engines.domain.retry import RetryRule
from agent_engines.domain.tasks import PriorityClass
from agent_engines.ports.bus import Delivery, TaskInbox
from agent_engines.ports.telemetry import Log

from .background import Background

CLASSES = tuple(PriorityClass)
FAIR_SWEEP = 8
FAIR_SHARE = 4
STOP_MARGIN_SECONDS = 0.5


class Consumer(Protocol):
    """Who takes what the intake brings."""

    def wanted(self) -> int:
        """How many tasks could start now or very soon; 0 or less: none."""
        ...

    def room(self) -> int:
        """How many can be held at all besides those that are held."""
        ...

    def threshold(self) -> int:
        """How many must be wanted before a sweep is worth its round trips."""
        ...

    async def admit(self, deliveries: Sequence[Delivery], leased_at: float) -> None:
        """Take these, whose leases began at `leased_at` or a little earlier."""
        ...


class Intake:
    """Pulls for one consumer. `start`, then `stop`; `freed` tells it that there may be room again."""

    listen_seconds: ClassVar[float] = 1.0
    """Also the longest a shutdown waits for an idle pull: cancelling one may strand what is arriving until its lease ends."""

    def __init__(
        self, inbox: TaskInbox, consumer: Consumer, *, log: Log, rng: random.Random, clock: Callable[[], float]
    ) -> None:
        """`clock`: of Leases, seconds."""
        self._inbox = inbox
        self._clock = clock
        self._unanswered_since: float | None = None
        self._consumer = consumer
        self._log = log
        self._rng = rng
        self._background = Background(log)
        self._pauses = RetryRule(base_seconds=0.2, cap_seconds=2.0)
        self._plenty = asyncio.Event()
        self._plenty.set()
        self._freed = asyncio.Event()
        self._open = False
        self._reserved = 0
        self._listening: set[PriorityClass] = set()
        self._sweeps = 0
        self._errors = 0

    @property
    def open(self) -> bool:
        return self._open

    @property
    def scarce(self) -> bool:
        return not self._plenty.is_set()

    @property
    def silence(self) -> float:
        """For how many seconds pulls have been going out without any of them being answered."""
        since = self._unanswered_since
        return 0.0 if since is None else self._clock() - since

    def start(self) -> None:
        self._open = True
        for priority in CLASSES:
            self._background.keep(f"intake-{priority}", lambda priority=priority: self._listen(priority))
        self._background.keep("intake-sweep", self._sweep)

    def freed(self) -> None:
        """Called after each end of a task; costs next to nothing while there is plenty."""
        if not self._plenty.is_set() and self._consumer.wanted() >= self._consumer.threshold():
            self._freed.set()

    async def stop(self) -> None:
        """Take no more; pulls under way end by themselves, what they bring is handed back by the consumer."""
        if self._open:
            self._open = False
            self._plenty.set()
            self._freed.set()
            until = asyncio.get_running_loop().time() + self.listen_seconds + STOP_MARGIN_SECONDS
            while self._background.names and asyncio.get_running_loop().time() < until:
                await asyncio.sleep(0.005)
        await self._background.stop()

    async def _listen(self, priority: PriorityClass) -> None:
        while self._open:
            await self._plenty.wait()
            if not self._open:
                return
            # At least one for each class, however small the queue: a class nobody listens to would wait for ever.
            limit = min(self._consumer.wanted(), max(1, self._consumer.room() - self._reserved))
            if limit <= 0:
                self._be_scarce()
                continue
            self._reserved += limit
            self._listening.add(priority)
            try:
                await self._pull(priority, limit, self.listen_seconds)
            finally:
                self._reserved -= limit
                self._listening.discard(priority)

    async def _sweep(self) -> None:
        while self._open:
            await self._freed.wait()
            self._freed.clear()
            if self._plenty.is_set():
                continue
            if await self._one_sweep():
                self._plenty.set()

    async def _one_sweep(self) -> bool:
        """Ask every class once; True when nothing is left on the bus that there is room for."""
        self._sweeps += 1
        if self._sweeps % FAIR_SWEEP == 0:
            share = max(1, self._limit() // FAIR_SHARE)
            await self._look(CLASSES[-1], min(share, self._limit()))
        for priority in CLASSES:
            limit = self._limit()
            if limit <= 0:
                return False
            await self._look(priority, limit)
        return self._limit() >= self._consumer.threshold()

    async def _look(self, priority: PriorityClass, limit: int) -> None:
        # A long pull from the time of plenty may still be under way: it brings what comes, and a second one would wait for it.
        if priority not in self._listening:
            await self._pull(priority, limit, 0.0)

    def _limit(self) -> int:
        return min(self._consumer.wanted(), self._consumer.room())

    def _be_scarce(self) -> None:
        self._plenty.clear()
        # Room may have come between the look and the clearing, or what is awaited is the reporter.
        self.freed()

    async def _pull(self, priority: PriorityClass, limit: int, wait: float) -> None:
        if limit <= 0:
            return
        began = self._clock()
        if self._unanswered_since is None:
            self._unanswered_since = began
        try:
            deliveries = await self._inbox.pull(priority, limit, wait)
        except AgentEnginesError as error:
            await self._pause(error)
            return
        self._unanswered_since = None
        if self._errors:
            self._errors = 0
            self._log.info("Intake flows again")
        if deliveries:
            # The bus sends nothing after `wait`: what this process reads later, because it stood still, is that old.
            await self._consumer.admit(deliveries, min(self._clock(), began + wait))

    async def _pause(self, error: AgentEnginesError) -> None:
        self._errors += 1
        if self._errors == 1:
            self._log.warning("Intake waits: the bus did not answer", error=str(error))
        await asyncio.sleep(self._pauses.ceiling(self._errors) * (0.5 + 0.5 * self._rng.random()))
