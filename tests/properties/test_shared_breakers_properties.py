"""Whatever several routers do in whatever order: one trial at a time, and in the end they all say the same."""

from __future__ import annotations

import asyncio
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.queues import Power
from agent_engines.adapters.memory.settings import MemorySettings
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.breaker import BreakerRule, BreakerState
from agent_engines.runtime.background import Background
from agent_engines.runtime.shared_breakers import SharedBreakers

RULE = BreakerRule(threshold=2, error_share=2.0, open_seconds=10.0, jitter=0.3)
ROUTERS = 3

steps = st.lists(
    st.tuples(
        st.sampled_from(["fail", "fail", "work", "choose", "choose", "bring back good", "bring back bad", "wait"]),
        st.integers(0, ROUTERS - 1),
        st.integers(0, 12),
    ),
    max_size=60,
)


class DistantSettings(MemorySettings):
    """As over a network: between reading and writing others have their turn."""

    async def put(self, key: str, value: bytes, *, revision: int | None = None, ttl: float | None = None) -> int:
        await asyncio.sleep(0)
        return await super().put(key, value, revision=revision, ttl=ttl)


class Routers:
    def __init__(self, seed: int) -> None:
        self.clock = ManualClock()
        self.settings = DistantSettings(self.clock, Power())
        log = NullTelemetry().log("test")
        self.background = Background(log)
        self.shared = [
            SharedBreakers(self.settings, self.clock, log, rule=RULE, rng=Random(seed + n), by=f"router-{n}")
            for n in range(ROUTERS)
        ]
        for shared in self.shared:
            shared.start(self.background, lambda _: None)
        self.trials: list[tuple[int, str, float]] = []
        self._tasks = 0

    async def step(self, what: str, router: int, amount: int) -> None:
        breaker, now = self.shared[router].of("a"), self.clock.monotonic()
        if what == "wait":
            await self.clock.advance(float(amount))
        elif what == "choose":
            self._choose(router)
        elif what in ("fail", "work"):
            breaker.judged(f"other-{self._tasks}", what == "work", now, "Timeout")
        else:
            mine = [trial for trial in self.trials if trial[0] == router]
            for trial in mine[:1]:
                self.trials.remove(trial)
                breaker.judged(trial[1], what == "bring back good", now, "Timeout")
        # A few turns only: others act before all news has arrived.
        for _ in range(amount % 5):
            await asyncio.sleep(0)

    def _choose(self, router: int) -> None:
        breaker, now = self.shared[router].of("a"), self.clock.monotonic()
        if breaker.state(now) is not BreakerState.HALF_OPEN or not breaker.admits(now):
            return
        under_way = [trial for trial in self.trials if now < trial[2]]
        assert not under_way, f"router {router} tries while {under_way} is under way"
        self._tasks += 1
        breaker.sent(f"trial-{self._tasks}", now)
        self.trials.append((router, f"trial-{self._tasks}", now + RULE.open_seconds))

    def states(self) -> set[BreakerState]:
        return {shared.of("a").state(self.clock.monotonic()) for shared in self.shared}


@settings(max_examples=150)
@given(steps, st.integers(0, 1000))
def test_one_trial_at_a_time_and_one_state_for_all(todo: list[tuple[str, int, int]], seed: int) -> None:
    async def run() -> None:
        routers = Routers(seed)
        try:
            for step in todo:
                await routers.step(*step)
            for _ in range(200):
                await asyncio.sleep(0)
            assert len(routers.states()) == 1, [shared.of("a").word for shared in routers.shared]
        finally:
            await routers.background.stop()
            await routers.settings.close()

    asyncio.run(run())


async def test_of_claims_made_in_the_same_moment_one_is_stored() -> None:
    routers = Routers(1)
    try:
        for _ in range(RULE.threshold):
            await routers.step("fail", 0, 4)
        await routers.clock.advance(RULE.open_seconds * 2)
        assert routers.states() == {BreakerState.HALF_OPEN}
        breakers = [shared.of("a") for shared in routers.shared]
        assert not any(breaker.admits(routers.clock.monotonic()) for breaker in breakers)
        await routers.clock.advance(0.1)
        assert sum(breaker.claimed(routers.clock.monotonic()) for breaker in breakers) == 1
        assert len({breaker.word for breaker in breakers}) == 1
    finally:
        await routers.background.stop()
        await routers.settings.close()
