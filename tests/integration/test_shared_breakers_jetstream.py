"""Breakers shared over a real bus: what one router writes the others follow, and a claim is stored once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pytest

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.breaker import BreakerRule, BreakerState
from agent_engines.runtime.agent_breaker import AgentBreaker
from agent_engines.runtime.background import Background
from agent_engines.runtime.shared_breakers import SharedBreakers

RULE = BreakerRule(threshold=3, open_seconds=120.0, jitter=0.1)


class Clock(SystemClock):
    """The machine's time, which a test may put forward."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


CLOCK = Clock()


class Router:
    def __init__(self, bus: JetStreamBus, name: str) -> None:
        log = NullTelemetry().log("test")
        self.told: list[str] = []
        self.background = Background(log)
        self.shared = SharedBreakers(bus.settings, CLOCK, log, rule=RULE, rng=Random(name), by=name)
        self.shared.start(self.background, self.told.append)

    @property
    def breaker(self) -> AgentBreaker:
        return self.shared.of("a")

    @property
    def state(self) -> BreakerState:
        return self.breaker.state(CLOCK.monotonic())

    def fail(self) -> None:
        for number in range(RULE.threshold):
            self.breaker.judged(f"f{number}", False, CLOCK.monotonic(), "Timeout")

    def admits(self) -> bool:
        return self.breaker.admits(CLOCK.monotonic())


@asynccontextmanager
async def routers(url: str, number: int, *, name: str = "router") -> AsyncIterator[list[Router]]:
    async with AsyncExitStack() as stack:
        found: list[Router] = []
        for count in range(number):
            bus = await JetStreamBus.connect(url, name=f"{name}-{count}")
            stack.push_async_callback(bus.close)
            if count == 0:
                await bus.provision()
            router = Router(bus, f"{name}-{count}")
            stack.push_async_callback(router.background.stop)
            found.append(router)
        yield found


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_all_routers_open_until_the_same_moment_also_one_that_starts_later(nats_url: str) -> None:
    async with routers(nats_url, 3) as found:
        # Two at once: one word is stored, the other router takes it over.
        found[0].fail()
        found[1].fail()
        await until(lambda: all(one.state is BreakerState.OPEN for one in found))
        await until(lambda: len({one.breaker.word for one in found}) == 1)
        async with routers(nats_url, 1, name="late") as late:
            await until(lambda: late[0].state is BreakerState.OPEN)
            assert late[0].breaker.word == found[0].breaker.word
            assert late[0].breaker.cause == "3 failures of Timeout"


async def test_of_routers_that_all_want_the_trial_one_gets_it_and_its_success_closes_all(nats_url: str) -> None:
    async with routers(nats_url, 3) as found:
        found[0].fail()
        await until(lambda: all(one.state is BreakerState.OPEN for one in found))
        CLOCK.ahead += RULE.open_seconds * 1.2
        assert all(one.state is BreakerState.HALF_OPEN for one in found)
        await until(lambda: sum([one.admits() for one in found]) > 0)
        now = CLOCK.monotonic()
        owners = [one for one in found if one.admits()]
        assert len(owners) == 1
        owners[0].breaker.sent("trial", now)
        assert not any(one.admits() for one in found)
        owners[0].breaker.judged("trial", True, CLOCK.monotonic())
        await until(lambda: all(one.state is BreakerState.CLOSED for one in found))
        assert {one.breaker.word.opened for one in found} == {1}


@pytest.mark.parametrize("value", [b"nonsense", b""])
async def test_nonsense_in_the_bucket_is_overwritten_by_the_next_word(nats_url: str, value: bytes) -> None:
    async with routers(nats_url, 2) as found:
        await found[0].shared._settings.put("breaker.a", value)
        found[0].fail()
        await until(lambda: all(one.state is BreakerState.OPEN for one in found))
