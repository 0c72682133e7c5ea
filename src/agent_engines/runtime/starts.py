"""Starts: the durable notes about redelivered tasks, written before their handlers run, kept for hours in the settings.

One small value for each task that came a second time; ordinary tasks have none. Rule: domain/poison.py.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec

from agent_engines.domain.errors import AgentEnginesError, Conflict, Unavailable
from agent_engines.domain.poison import Place, Starts
from agent_engines.ports.bus import Settings
from agent_engines.ports.clock import Clock

from .attempt import Attempt

AT_ONCE = 64
"""Notes under way: a thousand redeliveries take sixteen round trips."""
PATIENCE_SECONDS = 2.0
PAUSE_SECONDS = 5.0
"""After a failure nobody asks for this long: a bucket that does not answer must not stop the work of a thousand tasks."""
TRIES = 4
KEPT_SECONDS = 3600.0
GONE_SECONDS = 1.0
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,128}")


class StartNotes:
    """Reads and writes the notes. Every method raises Unavailable when the settings do not answer in time."""

    def __init__(self, settings: Settings, replica: str, *, lease_seconds: float, clock: Clock) -> None:
        self._settings = settings
        self._replica = replica
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._few = asyncio.Semaphore(AT_ONCE)
        self._silent_until = float("-inf")
        self._decoder = msgspec.json.Decoder(Starts)
        self._encode = msgspec.json.Encoder().encode

    async def note(self, attempt: Attempt, allowed: Place) -> Place:
        """Note the start of `attempt` if its place is `allowed`; where it belongs. Any other place is told and not noted."""
        message = attempt.message
        key = _key(message.task_id)
        if allowed is Place.SHARED:
            # Mostly there is no note yet: one round trip.
            first = Starts(attempt=message.attempt).started(self._replica)
            if await self._put(attempt, key, first, 0):
                return Place.SHARED
        for _ in range(TRIES):
            starts, revision = await self._read(attempt, key)
            attempt.starts = starts
            if starts.place is not allowed:
                return starts.place
            if await self._put(attempt, key, starts.started(self._replica), revision):
                return allowed
        raise Unavailable("the note of its starts changes all the time")

    async def bury(self, attempt: Attempt) -> None:
        """Write down that it was given up now: other copies of it are too, and a redrive begins with a blank note."""
        if attempt.starts is not None:
            attempt.starts = msgspec.structs.replace(attempt.starts, buried=self._clock.now())
            await self._write(attempt, attempt.starts, self._seconds(attempt))

    async def withdraw(self, attempt: Attempt) -> None:
        """Take the latest start back: it ended in an orderly way."""
        if attempt.starts is not None:
            await self._write(attempt, attempt.starts.withdrawn(), self._seconds(attempt))

    async def clear(self, attempt: Attempt) -> None:
        """Let the note go: the attempt has its report. Written over, as a deleted key would leave its marker for ever."""
        await self._write(attempt, Starts(attempt=0), GONE_SECONDS)

    async def _read(self, attempt: Attempt, key: str) -> tuple[Starts, int]:
        async with self._request():
            found = await self._settings.get(key)
        message = attempt.message
        if found is None:
            return Starts(attempt=message.attempt), 0
        try:
            starts = self._decoder.decode(found[0])
        except (msgspec.MsgspecError, ValueError):
            # Nobody can read it: as good as none, and written over by the next start.
            starts = Starts(attempt=message.attempt)
        return starts.about(message.attempt, message.dispatched_at), found[1]

    async def _put(self, attempt: Attempt, key: str, starts: Starts, revision: int) -> bool:
        try:
            async with self._request():
                await self._settings.put(key, self._encode(starts), revision=revision, ttl=self._seconds(attempt))
        except Conflict:
            return False
        attempt.starts = starts
        return True

    async def _write(self, attempt: Attempt, starts: Starts, seconds: float) -> None:
        async with self._request():
            await self._settings.put(_key(attempt.message.task_id), self._encode(starts), ttl=seconds)

    @asynccontextmanager
    async def _request(self) -> AsyncGenerator[None, None]:
        """Around one request: few at once, each within its time, any failure but a conflict is Unavailable."""
        loop = asyncio.get_running_loop()
        async with self._few:
            if loop.time() < self._silent_until:
                raise Unavailable("the settings did not answer a moment ago")
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    yield
            except Conflict:
                raise
            except (TimeoutError, AgentEnginesError) as error:
                self._silent_until = loop.time() + PAUSE_SECONDS
                raise Unavailable(f"the settings did not answer: {error!r}") from error

    def _seconds(self, attempt: Attempt) -> float:
        """A note outlives the runs it is about, however long they take."""
        return KEPT_SECONDS + 10.0 * self._lease_seconds + 2.0 * attempt.timeout


def _key(task_id: str) -> str:
    """A task id may hold what a settings key may not."""
    if _PLAIN.fullmatch(task_id):
        return f"starts.{task_id}"
    return f"starts.={base64.urlsafe_b64encode(task_id.encode()).decode()}"
