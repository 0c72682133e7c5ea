"""Pausing: between the intake and the worker, shuts when tasks die in series, lets single probes through. Rule: domain/series.py.

Tasks that end their process leave nobody to remember it. So each burial is written into the settings, with the ends this
process saw before; the next process goes on from there, and a probe that ends its process makes the next pause longer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence

import msgspec

from agent_engines.domain.errors import AgentEnginesError, Conflict
from agent_engines.domain.poison import Place
from agent_engines.domain.series import LIVED, POISONED, WINDOW, Intake, Series, judged
from agent_engines.domain.tasks import TaskError, TaskStatus
from agent_engines.ports.bus import Delivery, Settings, TaskInbox
from agent_engines.ports.telemetry import Telemetry

from .attempt import Attempt, Outcome
from .background import Background
from .intake import Consumer
from .suspects import Host

KEPT_SECONDS = 3600.0
GONE_SECONDS = 1.0
LATER_SECONDS = 5.0
"""What arrives during a pause comes again after this long; by then another replica may have taken it."""
TRIES = 4


class Remembered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What outlives the processes of an agent: the last ends of its tasks and the pauses in a row."""

    ends: tuple[str, ...] = ()
    step: int = 0


class Pausing:
    """Implements intake.Consumer around the worker's own. `start`, `ended` for each outcome, `stop`."""

    def __init__(
        self,
        worker: Consumer,
        host: Host,
        inbox: TaskInbox,
        settings: Settings,
        *,
        agent: str,
        telemetry: Telemetry,
    ) -> None:
        self._worker = worker
        self._inbox = inbox
        self._settings = settings
        self._agent = agent
        self._key = f"series.{agent}"
        self._telemetry = telemetry
        log = self._log = telemetry.log(agent)
        self._host = host
        self._series = Series()
        self._loop = asyncio.get_running_loop()
        self._background = Background(log)
        self._timer: asyncio.TimerHandle | None = None
        self._admitting = False
        self._lived = 0
        """Ends that were not worth a look, since the last one that was."""
        self._since: deque[str] = deque(maxlen=WINDOW)
        """Ends since the last burial was remembered."""
        self._stored = False
        """Does the settings' memory tell of trouble?"""

    @property
    def reason(self) -> str:
        """Why no work is taken; empty while it is, and while one task is tried."""
        return self._series.reason

    def start(self) -> None:
        self._background.spawn("series-recall", self._quietly(self._recall()))

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._background.stop()

    def wanted(self) -> int:
        if self._series.state is Intake.TAKING:
            return self._worker.wanted()
        return self._allowance()

    def room(self) -> int:
        if self._series.state is Intake.TAKING:
            return self._worker.room()
        return self._allowance()

    def threshold(self) -> int:
        return self._worker.threshold() if self._series.state is Intake.TAKING else 1

    async def admit(self, deliveries: Sequence[Delivery], leased_at: float) -> None:
        """All while work is taken, one probe after a pause; the rest is handed back."""
        if self._series.state is Intake.TAKING:
            await self._worker.admit(deliveries, leased_at)
            return
        probes = self._allowance()
        if probes:
            self._admitting = True
            if self._stored:
                # Before it begins: a probe that ends this process must be known to the next one.
                await self._quietly(self._remember())
            await self._worker.admit(deliveries[:probes], leased_at)
            self._admitting = False
        if deliveries[probes:]:
            await self._quietly(self._inbox.release(deliveries[probes:], LATER_SECONDS))

    def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take in how one attempt ended."""
        if outcome.status is TaskStatus.SUCCESS and not self._series.troubled:
            self._lived += 1
            return
        error = outcome.error
        if error is not None and error.type == POISONED and attempt.place is not Place.BURIED:
            # A copy of what was given up before: one death is counted once.
            return
        self._judge(outcome.status, error, attempt.message.task_type)

    def _judge(self, status: TaskStatus, error: TaskError | None, task_type: str) -> None:
        now = self._loop.time()
        said = judged(status, error, task_type)
        if said is None:
            changed = status is TaskStatus.RETRYING and self._series.probed(False, now)
        else:
            changed = self._series.ended(said, now)
            self._since.extend([LIVED] * min(self._lived, WINDOW))
            self._since.append(said)
            self._lived = 0
        if said and error is not None and error.type == POISONED:
            self._background.spawn("series-remember", self._quietly(self._remember()))
        if changed:
            self._changed()
        elif self._stored and not self._series.troubled:
            self._spawn_forget()

    def _allowance(self) -> int:
        return int(self._series.state is Intake.PROBING and not self._admitting and self._host.idle())

    def _changed(self) -> None:
        series = self._series
        self._telemetry.gauge("agent_paused", float(series.state is not Intake.TAKING), agent_name=self._agent)
        if series.state is Intake.TAKING:
            self._log.info("Tasks live again: taking work")
            if self._stored:
                self._spawn_forget()
            self._host.freed()
        elif series.state is Intake.PAUSED:
            seconds = max(0.0, series.until - self._loop.time())
            tell = self._log.error if series.step == 1 else self._log.info
            tell("Tasks die in series: taking no work", seconds=round(seconds, 1), cause=series.reason)
            self._timer = self._loop.call_later(seconds, self._over)
            self._background.spawn("series-release", self._quietly(self._host.release_queued()))

    def _over(self) -> None:
        if self._series.probe(max(self._loop.time(), self._series.until)):
            self._log.info("Trying one task")
            self._host.freed()

    def _spawn_forget(self) -> None:
        self._stored = False
        self._background.spawn("series-forget", self._quietly(self._forget()))

    async def _recall(self) -> None:
        known, _ = await self._read()
        if known is None:
            return
        self._stored = any(known.ends)
        if self._series.restore(known.ends, known.step, self._loop.time()):
            self._changed()

    async def _remember(self) -> None:
        """Add what happened here since the last time to what all processes of this agent remember."""
        fresh = tuple(self._since)
        self._since.clear()
        for _ in range(TRIES):
            known, revision = await self._read()
            before = known.ends if known is not None else ()
            ends = (*before, *fresh)[-WINDOW:]
            told = Remembered(ends=ends, step=self._series.step)
            try:
                await self._settings.put(self._key, msgspec.json.encode(told), revision=revision, ttl=KEPT_SECONDS)
            except Conflict:
                continue
            self._stored = any(ends)
            if self._series.state is Intake.TAKING and self._series.restore(ends, told.step, self._loop.time()):
                self._changed()
            return

    async def _forget(self) -> None:
        # Written over, as a deleted key would leave its marker for ever.
        await self._settings.put(self._key, msgspec.json.encode(Remembered()), ttl=GONE_SECONDS)

    async def _read(self) -> tuple[Remembered | None, int]:
        found = await self._settings.get(self._key)
        if found is None:
            return None, 0
        try:
            return msgspec.json.decode(found[0], type=Remembered), found[1]
        except (msgspec.MsgspecError, ValueError):
            self._log.warning("What is remembered of deaths in series cannot be read", key=self._key)
            return None, found[1]

    async def _quietly(self, work: Awaitable[None]) -> None:
        try:
            await work
        except AgentEnginesError as error:
            self._log.warning("Deaths in series could not be noted", error=str(error))
