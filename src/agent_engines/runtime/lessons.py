"""Lessons: what one router learned from an outcome, taught to all of them in one order.

deciding router -> LESSONS (a log) -> every router, in the order of the log -> Learned (values, sequence)

State is a function of (snapshot, sequence): a message is applied once, by its sequence; what cannot be used is passed over by
everybody alike. Messages carry the routers' seal (domain/capability.py), so that nobody else can teach. The leader writes
snapshots into the ledger; start-up is the newest snapshot and the log after it. Each minute routers tell each other
(sequence, digest); whoever finds another digest at the same sequence counts it, says so and loads the snapshot again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.capability import Capabilities
from agent_engines.domain.errors import AgentEnginesError, Unavailable
from agent_engines.learning.lesson import Lesson
from agent_engines.ports.bus import Bus, Subscription
from agent_engines.ports.clock import Clock
from agent_engines.ports.learned import LearnedSnapshot, LearnedStore
from agent_engines.ports.telemetry import Telemetry

from .background import Background
from .learned import Learned

MOST_IN_MESSAGE = 100
TEACH_SECONDS = 0.05
"""A message for each lesson of a slow stream of tasks cost the bus a quarter, each router a sixth of all they do for a task."""
MOST_WAITING = 50_000
"""Lessons that wait for the bus; the oldest are given up."""
TELL_SECONDS = 60.0
SNAPSHOT_SECONDS = 60.0
RELOAD_SECONDS = 30.0
"""A router that differs loads the snapshot again at most this often."""
CHECKPOINT = 256
"""Every so many messages the digest is kept, so that routers that are not at the same message can compare."""
CHECKPOINTS = 32
PUBLISH_TRIES = 5
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0


class LessonMessage(msgspec.Struct, frozen=True, kw_only=True):
    """`seal`: the routers' mark over `lessons`, a JSON list of Lesson."""

    v: int = 1
    seal: str = ""
    lessons: msgspec.Raw


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far a router has learned, and what that made: at its newest message and at a checkpoint all have passed."""

    v: int = 1
    router: str
    version: str
    stream: str
    sequence: int
    digest: str
    checkpoint: int = 0
    checkpoint_digest: str = ""


class Parcel(NamedTuple):
    """What travels in one message: `text` is a JSON list of so many lessons.

    `message_id`: of several messages with the same one the bus keeps the first, for two minutes.
    """

    message_id: str
    text: bytes
    lessons: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonOptions:
    """`router`: this router's name; `version`: of what is learned, routers of another one are not compared with.

    `gather_seconds`: how long lessons gather before they travel together. `older`: versions whose snapshots are read
    while there is none of this one, the newest first.
    """

    router: str
    version: str
    gather_seconds: float = TEACH_SECONDS
    leads: Callable[[], bool] = lambda: False
    older: tuple[str, ...] = ()


_decode_message = msgspec.json.Decoder(LessonMessage).decode
_decode_lessons = msgspec.json.Decoder(tuple[Lesson, ...]).decode
_decode_standing = msgspec.json.Decoder(Standing).decode
_encode = msgspec.json.Encoder().encode


class Lessons:
    """Start it once per router. `teach` never waits."""

    def __init__(
        self,
        bus: Bus,
        store: LearnedStore,
        learned: Learned,
        capabilities: Capabilities,
        *,
        clock: Clock,
        telemetry: Telemetry,
        options: LessonOptions,
    ) -> None:
        self._bus = bus
        self._store = store
        self._capabilities = capabilities
        self._clock = clock
        self._telemetry = telemetry
        self._options = options
        self._log = telemetry.log("intelligence")
        self._background = Background(self._log)
        self._waiting: deque[Lesson] = deque()
        self._single: deque[Lesson] = deque()
        """Those another router may teach too: each travels alone, under a name all routers give it."""
        self._began = clock.now()
        self._sent = 0
        self._news = asyncio.Event()
        self._reload = asyncio.Event()
        self._reloaded_at = float("-inf")
        self._checkpoints: dict[int, str] = {}
        self._saved = 0
        self._stream = ""
        self._listening: Subscription | None = None
        self.learned = learned

    async def start(self) -> None:
        self._listening = await self._bus.signals.listen(subjects.LEARNED, self._on_standing)
        self._background.keep("lessons-learn", self._learn_for_ever)
        self._background.keep("lessons-teach", self._publish_for_ever)
        self._background.keep("lessons-tell", self._tell_for_ever)
        self._background.keep("lessons-snapshot", self._save_for_ever)

    async def stop(self) -> None:
        """What waits is published if the bus takes it at once."""
        if self._listening is not None:
            await self._listening.close()
            self._listening = None
        await self._background.stop()
        try:
            while self._waits:
                await self._publish(self._next())
        except AgentEnginesError as error:
            self._log.info("Some lessons were not taught", lessons=self._waits, error=str(error))

    def teach(self, lesson: Lesson) -> None:
        """Let every router learn this, in the order of the log."""
        self._take_up(self._waiting, lesson)

    def teach_once(self, lesson: Lesson) -> None:
        """Let every router learn this once, whichever of them teaches it within two minutes. `lesson.id` names it."""
        self._take_up(self._single, lesson)

    def standing(self) -> Standing:
        """Where this router is now."""
        learned, newest = self.learned, max(self._checkpoints, default=0)
        return Standing(
            router=self._options.router,
            version=self._options.version,
            stream=self._stream,
            sequence=learned.sequence,
            digest=learned.values.digest(),
            checkpoint=newest,
            checkpoint_digest=self._checkpoints.get(newest, ""),
        )

    async def tell(self) -> None:
        """Tell the others where this router is. Raises Unavailable."""
        await self._bus.signals.send(subjects.learned(self._options.router), _encode(self.standing()))

    async def save(self) -> bool:
        """Write a snapshot of what is learned by now; False when there is nothing new. Raises Unavailable."""
        learned = self.learned
        if not self._stream or learned.sequence <= self._saved:
            return False
        state = learned.values.snapshot()
        snapshot = LearnedSnapshot(
            name=self._name, sequence=learned.sequence, digest=learned.values.digest(), state=state
        )
        await self._store.save(snapshot, self._clock.now())
        self._saved = snapshot.sequence
        return True

    def take(self, sequence: int, data: bytes) -> None:
        """Apply one message of the log; one that was applied already changes nothing."""
        learned = self.learned
        if sequence <= learned.sequence:
            return
        for lesson in self._lessons(sequence, data):
            try:
                learned.values.learn(lesson)
            except ValueError as error:
                self._refuse(sequence, "unusable", str(error))
        learned.sequence = sequence
        if sequence % CHECKPOINT == 0:
            self._checkpoints[sequence] = learned.values.digest()
            if len(self._checkpoints) > CHECKPOINTS:
                del self._checkpoints[next(iter(self._checkpoints))]

    @property
    def _name(self) -> str:
        return f"{self._options.version}/{self._stream}"

    def _lessons(self, sequence: int, data: bytes) -> tuple[Lesson, ...]:
        try:
            message = _decode_message(data)
            if not self._capabilities.sealed(bytes(message.lessons), message.seal):
                self._refuse(sequence, "forged", "the seal is not the routers'")
                return ()
            return _decode_lessons(message.lessons)
        except (msgspec.MsgspecError, ValueError) as error:
            self._refuse(sequence, "unreadable", str(error))
            return ()

    def _refuse(self, sequence: int, reason: str, error: str) -> None:
        self._telemetry.count("routing_lessons_lost_total", reason=reason)
        self._log.warning("A lesson was passed over", sequence=sequence, reason=reason, error=error)

    async def _learn_for_ever(self) -> None:
        while True:
            await self._load()
            self._reload.clear()
            reading = asyncio.ensure_future(self._read())
            asked = asyncio.ensure_future(self._reload.wait())
            try:
                await asyncio.wait({reading, asked}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
                reading.cancel()
                await asyncio.gather(reading, asked, return_exceptions=True)
            if not reading.cancelled() and (error := reading.exception()) is not None:
                raise error

    async def _read(self) -> None:
        while True:
            async with aclosing(self._bus.lessons.follow(self.learned.sequence)) as messages:
                await self._take_in_order(messages)

    async def _take_in_order(self, messages: AsyncGenerator[tuple[int, bytes], None]) -> None:
        """Returns at a gap: what is missing is asked for again, and only what the log itself has forgotten is passed over."""
        asked = True
        async for sequence, data in messages:
            if sequence > self.learned.sequence + 1 and not asked:
                return
            self.take(sequence, data)
            asked = False
            # A backlog is thousands of messages: others get a turn between two of them.
            await asyncio.sleep(0)

    async def _load(self) -> None:
        """Become what the newest snapshot says; without one, learn from the beginning of the log."""
        self._stream = await self._bus.lessons.identity()
        newest = await self._newest()
        self._checkpoints.clear()
        self.learned.forget()
        if newest is not None:
            try:
                # Of another log than today's: what was learned is kept, the log is read from its beginning.
                here = newest.name.partition("/")[2] == self._stream
                self.learned.restore(newest.sequence if here else 0, newest.state)
            except ValueError as error:
                self._log.error("A snapshot of what was learned cannot be used", name=newest.name, error=str(error))
        self._saved = self.learned.sequence
        missed = (await self._bus.lessons.state()).first - 1 - self.learned.sequence
        if missed > 0:
            self._telemetry.count("routing_lessons_lost_total", missed, reason="forgotten")
            self._log.warning("The log has forgotten lessons that were not learned", messages=missed)
        self._log.info("Learning goes on from a snapshot", sequence=self.learned.sequence, stream=self._stream)

    async def _newest(self) -> LearnedSnapshot | None:
        for version in (self._options.version, *self._options.older):
            found = await self._store.newest(f"{version}/")
            if found is not None:
                return found
        return None

    async def _publish_for_ever(self) -> None:
        while True:
            await self._news.wait()
            if self._options.gather_seconds > 0:
                await self._clock.sleep(self._options.gather_seconds)
            self._news.clear()
            while self._waits:
                await self._insist(self._next())

    @property
    def _waits(self) -> int:
        return len(self._waiting) + len(self._single)

    def _take_up(self, waiting: deque[Lesson], lesson: Lesson) -> None:
        waiting.append(lesson)
        if len(waiting) > MOST_WAITING:
            waiting.popleft()
            self._telemetry.count("routing_lessons_lost_total", reason="waiting")
        self._news.set()

    def _next(self) -> Parcel:
        """What is sent next. Raises IndexError when nothing waits."""
        if self._single:
            lesson = self._single.popleft()
            return Parcel(_digest(lesson.id.encode()), _encode([lesson]), 1)
        waiting = self._waiting
        lessons = [waiting.popleft() for _ in range(min(MOST_IN_MESSAGE, len(waiting)))]
        text = _encode(lessons)
        # Not by the names of its lessons: those of a task's two attempts have the same one and are no copies.
        self._sent += 1
        name = f"{self._options.router}|{self._began!r}|{self._sent}|"
        return Parcel(_digest(name.encode() + text), text, len(lessons))

    async def _insist(self, parcel: Parcel) -> None:
        pause = FIRST_PAUSE
        for _ in range(PUBLISH_TRIES):
            try:
                await self._publish(parcel)
                return
            except Unavailable as error:
                self._log.debug("Lessons wait for the bus", lessons=parcel.lessons, error=str(error))
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        self._telemetry.count("routing_lessons_lost_total", parcel.lessons, reason="bus")

    async def _publish(self, parcel: Parcel) -> None:
        """Sent again under the same id, so that the bus drops a copy. Raises Unavailable."""
        seal = self._capabilities.seal(parcel.text)
        data = _encode(LessonMessage(seal=seal, lessons=msgspec.Raw(parcel.text)))
        await self._bus.lessons.publish(self._options.router, data, parcel.message_id)

    async def _tell_for_ever(self) -> None:
        while True:
            await self._clock.sleep(TELL_SECONDS)
            await self.tell()

    async def _save_for_ever(self) -> None:
        while True:
            await self._clock.sleep(SNAPSHOT_SECONDS)
            if self._options.leads():
                await self.save()

    async def _on_standing(self, subject: str, data: bytes) -> None:
        try:
            told = _decode_standing(data)
        except msgspec.MsgspecError as error:
            self._log.warning("Another router's standing could not be read", subject=subject, error=str(error))
            return
        if told.router == self._options.router or (told.version, told.stream) != (self._options.version, self._stream):
            return
        if self._differs(told):
            self._telemetry.count("routing_learned_mismatches_total")
            self._log.error(
                "Routers have learned different things from the same lessons; loading the snapshot again",
                router=told.router,
                sequence=told.sequence,
                own_sequence=self.learned.sequence,
            )
            if self._clock.monotonic() - self._reloaded_at >= RELOAD_SECONDS:
                self._reloaded_at = self._clock.monotonic()
                self._reload.set()

    def _differs(self, told: Standing) -> bool:
        if told.sequence == self.learned.sequence:
            return told.digest != self.learned.values.digest()
        known = self._checkpoints.get(told.sequence)
        if known is not None:
            return known != told.digest
        known = self._checkpoints.get(told.checkpoint)
        return known is not None and known != told.checkpoint_digest


def _digest(name: bytes) -> str:
    return blake2b(name, digest_size=16).hexdigest()
