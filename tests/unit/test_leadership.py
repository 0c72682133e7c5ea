"""One router leads; when it ends, dies or is cut off, another one does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain import subjects
from agent_engines.domain.lease import HOLD_SHARE
from agent_engines.runtime.leadership import TTL_SECONDS, Leadership
from routing_house import settle

REFRESH = TTL_SECONDS / 3


class Hall:
    """Candidates over one bus and one clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(clock=self.clock)
        self.telemetry = NullTelemetry()
        self.candidates: list[Leadership] = []

    async def join(self, name: str) -> Leadership:
        one = Leadership(self.bus.settings, "chores", name, clock=self.clock, telemetry=self.telemetry)
        self.candidates.append(one)
        await one.start()
        await settle()
        return one


@asynccontextmanager
async def hall() -> AsyncIterator[Hall]:
    made = Hall()
    yield made
    for one in made.candidates:
        await one.stop()
    await made.bus.close()


async def test_the_first_leads_and_keeps_leading() -> None:
    async with hall() as there:
        one, two = await there.join("one"), await there.join("two")
        for _ in range(30):
            assert (one.leads(), two.leads()) == (True, False)
            await there.clock.advance(REFRESH / 2)
        assert there.telemetry.messages("info") == ["This router leads"]


async def test_an_orderly_end_hands_over_at_once() -> None:
    async with hall() as there:
        one, two = await there.join("one"), await there.join("two")
        await one.stop()
        assert not one.leads()
        await there.clock.advance(REFRESH)
        assert two.leads()


async def test_the_token_rises_with_every_leader() -> None:
    async with hall() as there:
        tokens: list[int] = []
        for name in ("one", "two", "three"):
            one = await there.join(name)
            assert one.token is not None
            tokens.append(one.token)
            await one.stop()
            assert one.token is None
        assert tokens == sorted(set(tokens))


async def test_a_leader_that_dies_is_replaced_within_its_lease_and_a_third() -> None:
    async with hall() as there:
        one, two = await there.join("one"), await there.join("two")
        await one._background.stop()
        await there.clock.advance(TTL_SECONDS * HOLD_SHARE)
        assert not one.leads(), "it stops believing before anybody else may lead"
        assert not two.leads()
        await there.clock.advance(TTL_SECONDS + REFRESH - TTL_SECONDS * HOLD_SHARE)
        assert two.leads()


async def test_while_the_bus_is_away_nobody_leads_and_afterwards_somebody_does() -> None:
    async with hall() as there:
        one, two = await there.join("one"), await there.join("two")
        there.bus.switch(False)
        await there.clock.advance(TTL_SECONDS)
        assert (one.leads(), two.leads()) == (False, False)
        await there.clock.advance(100)
        there.bus.switch(True)
        await there.clock.advance(TTL_SECONDS + REFRESH)
        assert [one.leads(), two.leads()].count(True) == 1


async def test_a_short_absence_of_the_bus_changes_nothing() -> None:
    async with hall() as there:
        one = await there.join("one")
        there.bus.switch(False)
        await there.clock.advance(REFRESH * 1.5)
        assert one.leads()
        there.bus.switch(True)
        await there.clock.advance(REFRESH)
        assert one.leads()


async def test_a_key_that_was_taken_away_ends_the_leadership() -> None:
    async with hall() as there:
        one = await there.join("one")
        await there.bus.settings.put(subjects.leader("chores"), b"usurper")
        await there.clock.advance(REFRESH)
        assert not one.leads()
        await there.bus.settings.delete(subjects.leader("chores"))
        await there.clock.advance(2 * REFRESH)
        assert one.leads()


async def test_an_answer_that_was_lost_is_found_again() -> None:
    """The write came through and nobody told us: the key carries our name."""
    async with hall() as there:
        await there.bus.settings.put(subjects.leader("chores"), b"one", ttl=TTL_SECONDS)
        one = await there.join("one")
        assert one.leads()


async def test_the_metric_shows_who_leads() -> None:
    async with hall() as there:
        one = await there.join("one")
        gauge = "engine_leader", (("role", "chores"),)
        assert there.telemetry.gauges[gauge] == 1
        await one.stop()
        assert there.telemetry.gauges[gauge] == 0
