"""Breakers with one state on all routers: every change is one word in the shared settings, watched by everybody.

A router counts for itself. Where its counts lead it writes down, if nobody wrote in the meantime (compare and set);
if somebody did, that word holds and its own gives way. So all routers open one agent until the same moment, and a
half-open agent is tried by the one router whose claim was stored. While the bus is away each router goes by its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from random import Random

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.breaker import Breaker, BreakerRule, BreakerState
from agent_engines.domain.breaker_word import SILENT, BreakerWord, read_word
from agent_engines.domain.errors import Conflict, Unavailable
from agent_engines.ports.bus import Settings
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Log

from .agent_breaker import AgentBreaker
from .background import Background

AGAIN_SECONDS = 1.0
"""Between two tries to write to a bus that is away."""
KEEP_SECONDS = 3600.0
"""A word is forgotten this long after it has nothing more to say: agents that are gone leave nothing behind."""

_encode = msgspec.json.Encoder().encode


class SharedBreakers:
    """One breaker for each agent; `changed(agent)` is told when another router changed one."""

    def __init__(
        self, settings: Settings, clock: Clock, log: Log, *, rule: BreakerRule, rng: Random, by: str = ""
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._log = log
        self._rule = rule
        self._rng = rng
        self._by = by
        self._breakers: dict[str, AgentBreaker] = {}
        self._to_tell: dict[str, None] = {}
        self._to_claim: dict[str, None] = {}
        self._work = asyncio.Event()
        self._changed: Callable[[str], None] = _nobody_listens

    def start(self, background: Background, changed: Callable[[str], None]) -> None:
        """Follow the others and tell them, until `background` ends."""
        self._changed = changed
        background.keep("fleet-breakers", self._follow)
        background.keep("fleet-breakers-told", self._tell)

    def of(self, agent: str) -> AgentBreaker:
        """The agent's breaker, with what is known about it already."""
        found = self._breakers.get(agent)
        if found is None:
            breaker = Breaker(self._rule, self._rng)
            found = AgentBreaker(agent, breaker, self._clock, moved=self._on_moved, wanted=self._on_wanted)
            self._breakers[agent] = found
        return found

    def forget(self, agent: str) -> None:
        """The agent is gone; what the others say about it stays known."""
        found = self._breakers.get(agent)
        if found is not None and found.word == SILENT and agent not in self._to_tell:
            del self._breakers[agent]

    def _on_moved(self, breaker: AgentBreaker) -> None:
        self._to_tell[breaker.agent] = None
        self._work.set()

    def _on_wanted(self, breaker: AgentBreaker) -> None:
        self._to_claim[breaker.agent] = None
        self._work.set()

    async def _follow(self) -> None:
        while True:
            async for key, value in self._settings.watch(subjects.BREAKERS):
                agent = key[len(subjects.BREAKERS) :]
                if value is None:
                    self._forgotten(agent)
                    continue
                word = self._read(agent, value)
                if word is not None:
                    self._heard(self.of(agent), word)
            await self._clock.sleep(AGAIN_SECONDS)

    async def _tell(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            away = False
            for breaker in self._pending(self._to_claim):
                await self._claim(breaker)
            for breaker in self._pending(self._to_tell):
                if not await self._say(breaker):
                    away = True
                    self._to_tell.setdefault(breaker.agent)
            if away:
                await self._clock.sleep(AGAIN_SECONDS)
                self._work.set()

    def _heard(self, breaker: AgentBreaker, word: BreakerWord) -> None:
        if word.turn <= breaker.word.turn:
            return
        if word.state == "half-open" and self._by and word.by == self._by:
            # Our claim, stored although the bus could not say so; the trial is under way.
            breaker.word = word
        else:
            self._adopt(breaker, word)

    def _pending(self, names: dict[str, None]) -> Iterator[AgentBreaker]:
        """Each is taken off the list before it is dealt with, so that what happens meanwhile puts it on again."""
        for name in list(names):
            names.pop(name, None)
            yield self.of(name)

    async def _say(self, breaker: AgentBreaker) -> bool:
        """Write down where this router's counts led; False: the bus is away."""
        try:
            revision = await self._revision(breaker)
            if revision is not None:
                await self._write(breaker, breaker.says(self._by), revision)
        except Unavailable as error:
            self._log.debug("A breaker could not be told to the other routers", agent=breaker.agent, error=str(error))
            return False
        return True

    async def _claim(self, breaker: AgentBreaker) -> None:
        """Take the trial for this router; without the bus it simply takes it."""
        now = self._clock.monotonic()
        if breaker.claimed(now) or breaker.state(now) is not BreakerState.HALF_OPEN:
            return
        seconds = self._rule.open_seconds
        try:
            revision = await self._revision(breaker)
            if revision is None or breaker.claimed_elsewhere:
                return
            if not await self._write(breaker, breaker.claims(self._by, seconds), revision):
                return
        except Unavailable as error:
            self._log.debug("The bus is away, the trial is taken unasked", agent=breaker.agent, error=str(error))
        breaker.own_trial(seconds)

    async def _revision(self, breaker: AgentBreaker) -> int | None:
        """Of the word this router knows; None when another one holds meanwhile (it was taken over)."""
        stored = await self._settings.get(_key(breaker.agent))
        if stored is None:
            return 0
        word = self._read(breaker.agent, stored[0])
        if word is None or word == breaker.word:
            return stored[1]
        self._adopt(breaker, word)
        return None

    async def _write(self, breaker: AgentBreaker, word: BreakerWord, revision: int) -> bool:
        """False when another router was faster: its word holds."""
        ttl = max(0.0, word.until - self._clock.now()) + KEEP_SECONDS
        # Set first: the watch may bring it back before the bus acknowledges it.
        known, breaker.word = breaker.word, word
        try:
            await self._settings.put(_key(breaker.agent), _encode(word), revision=revision, ttl=ttl)
        except Unavailable:
            if breaker.word is word:
                breaker.word = known
            raise
        except Conflict:
            if breaker.word is word:
                breaker.word = known
            stored = await self._settings.get(_key(breaker.agent))
            other = self._read(breaker.agent, stored[0]) if stored is not None else None
            if other is not None:
                self._adopt(breaker, other)
            return False
        # A newer word may have come in while this one was being stored.
        return breaker.word is word

    def _adopt(self, breaker: AgentBreaker, word: BreakerWord) -> None:
        self._to_tell.pop(breaker.agent, None)
        breaker.adopt(word)
        self._changed(breaker.agent)

    def _forgotten(self, agent: str) -> None:
        """The word was deleted (by an operator) or is too old: closed, unless this router has news to tell."""
        breaker = self._breakers.get(agent)
        if breaker is None or agent in self._to_tell:
            return
        breaker.adopt(SILENT)
        self._changed(agent)

    def _read(self, agent: str, value: bytes) -> BreakerWord | None:
        try:
            return read_word(value, self._clock.now())
        except (msgspec.MsgspecError, ValueError) as error:
            self._log.warning(
                "A breaker's shared state could not be read and is ignored", agent=agent, error=str(error)
            )
            return None


def _key(agent: str) -> str:
    return subjects.agent_breaker(agent)


def _nobody_listens(_: str) -> None: ...
