"""Heartbeats: who we are, and how busy.

full:  with the profile; at the start, every interval, at every change of state, and when a router says hello
light: load only; a second after it changed, else every other second
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentProfile, AgentState, Load
from agent_engines.domain.errors import AgentEnginesError
from agent_engines.domain.messages import Heartbeat
from agent_engines.ports.bus import Signals, Subscription
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Telemetry

from .background import Background

LIGHT_SECONDS = 1.0
QUIET_SECONDS = 2.0
HELLO_JITTER_SECONDS = 0.25
"""So that a fleet of thousands does not answer a router's hello in the same millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """What heartbeats tell: constants of the replica, and where to read what changes."""

    replica: str
    interval: float
    profile: Callable[[], AgentProfile]
    state: Callable[[], AgentState]
    load: Callable[[], Load]


class Heartbeats:
    """Sends until stopped. Lossy: a bus that is away is only counted, the next beat tells everything again."""

    def __init__(
        self, pulse: Pulse, signals: Signals, *, telemetry: Telemetry, clock: Clock, rng: random.Random
    ) -> None:
        self._pulse = pulse
        self._signals = signals
        self._telemetry = telemetry
        self._clock = clock
        self._rng = rng
        self._agent = pulse.profile().name
        self._log = telemetry.log(self._agent)
        self._background = Background(self._log)
        self._encode = msgspec.json.Encoder().encode
        self._subscription: Subscription | None = None
        self._sequence = 0
        self._last_at = float("-inf")
        self._last_full_at = float("-inf")
        self._last: tuple[AgentState, int, int] | None = None
        self._greeted = False

    async def start(self) -> None:
        """Send the first full beat, answer hellos, go on beating. Raises Unavailable."""
        self._subscription = await self._signals.listen(subjects.HELLO, self._hello)
        await self.beat(full=True)
        self._background.keep("heartbeats", self._beat_for_ever)

    async def stop(self) -> None:
        """Send the last beat and be silent. May be called twice."""
        if self._subscription is None:
            return
        subscription, self._subscription = self._subscription, None
        await self._background.stop()
        try:
            await subscription.close()
        except AgentEnginesError as error:
            self._log.debug("The hello subscription did not close", error=str(error))
        await self.beat(full=True)

    async def beat(self, *, full: bool) -> None:
        """Send one beat now."""
        state, load = self._pulse.state(), self._pulse.load()
        self._telemetry.queue_size(self._agent, load.queued)
        self._telemetry.gauge("agent_loop_lag_seconds", load.loop_lag_ms / 1000.0, agent_name=self._agent)
        self._sequence += 1
        beat = Heartbeat(
            agent=self._agent,
            replica=self._pulse.replica,
            state=state,
            load=load,
            sent_at=self._clock.now(),
            seq=self._sequence,
            profile=self._pulse.profile() if full else None,
            interval_seconds=self._pulse.interval,
        )
        now = asyncio.get_running_loop().time()
        self._last_at, self._last = now, (state, load.running, load.queued)
        if full:
            self._last_full_at = now
        try:
            await self._signals.send(subjects.heartbeat(self._agent), self._encode(beat))
        except AgentEnginesError as error:
            self._log.debug("A heartbeat was not sent", error=str(error))

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(min(LIGHT_SECONDS, self._pulse.interval))
            now = asyncio.get_running_loop().time()
            state, load = self._pulse.state(), self._pulse.load()
            turned = self._last is None or self._last[0] is not state
            if turned or now - self._last_full_at >= self._pulse.interval:
                await self.beat(full=True)
            elif self._last != (state, load.running, load.queued) or now - self._last_at >= QUIET_SECONDS * 0.9:
                await self.beat(full=False)

    async def _hello(self, subject: str, data: bytes) -> bytes | None:
        if not self._greeted and self._subscription is not None:
            # Many routers greet at once after a restart: one answer reaches all of them.
            self._greeted = True
            self._background.spawn("hello", self._answer())
        return None

    async def _answer(self) -> None:
        await asyncio.sleep(HELLO_JITTER_SECONDS * self._rng.random())
        self._greeted = False
        await self.beat(full=True)
