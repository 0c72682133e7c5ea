"""Lessons: whatever is delivered twice, late or in another order, and whoever restarts, all routers come to know the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from random import Random

import msgspec
import pytest

from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.learned import MemoryLearned
from agent_engines.adapters.memory.secrets import TEST_CAPABILITY_KEY
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.capability import Capabilities
from agent_engines.learning.lesson import Lesson
from agent_engines.runtime.learned import Learned
from agent_engines.runtime.lessons import LessonMessage, LessonOptions, Lessons
from routing_house import settle, until

CAPABILITIES = Capabilities([TEST_CAPABILITY_KEY])


def a_lesson(number: int, rng: Random) -> Lesson:
    """Some with numbers, some without; three kinds, two task types."""
    return Lesson(
        id=f"task-{number}",
        kind=rng.choice("abc"),
        task_type=rng.choice(["ocr", "summarize"]),
        quality=rng.random(),
        raw=rng.random(),
        features=tuple(rng.gauss(0, 1) for _ in range(4)) if rng.random() < 0.5 else None,
        cost=rng.random(),
    )


class Town:
    """A log that delivers badly, a store, and routers that come and go."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.clock = ManualClock()
        self.bus = MemoryBus(clock=self.clock)
        self.store = MemoryLearned()
        self.telemetry = NullTelemetry()
        follow = self.bus.lessons.follow

        async def badly(after: int) -> AsyncGenerator[tuple[int, bytes], None]:
            """The first is the right one, as the server promises; then messages come twice, early, or not at all."""
            begun = False
            async for sequence, data in follow(after):
                if begun and sequence < len(self.bus.lessons._stored) and rng.random() < 0.2:
                    continue
                yield sequence, data
                begun = True
                if rng.random() < 0.2:
                    again = rng.randint(1, sequence)
                    yield again, self.bus.lessons._stored[again - 1]

        self.bus.lessons.follow = badly  # type: ignore[method-assign]

    def router(
        self,
        name: str,
        capabilities: Capabilities = CAPABILITIES,
        version: str = "adaptive-3",
        older: str = "adaptive-2",
        gather_seconds: float = 0.0,
    ) -> Lessons:
        options = LessonOptions(router=name, version=version, older=(older,), gather_seconds=gather_seconds)
        return Lessons(
            self.bus, self.store, Learned(), capabilities, clock=self.clock, telemetry=self.telemetry, options=options
        )

    async def caught_up(self, router: Lessons) -> None:
        await settle()
        last = (await self.bus.lessons.state()).last
        await until(lambda: router.learned.sequence == last)


@pytest.mark.parametrize("seed", range(100))
async def test_routers_that_restart_and_are_served_badly_come_to_the_same_digest(seed: int) -> None:
    rng = Random(seed)
    town = Town(rng)
    lessons = [a_lesson(number, rng) for number in range(60)]
    routers = {name: town.router(name) for name in "ab"}
    for router in routers.values():
        await router.start()
    for lesson in lessons:
        teacher = rng.choice(list(routers.values()))
        teacher.teach(lesson)
        if rng.random() < 0.5:
            await settle(3)
        if rng.random() < 0.1:
            name = rng.choice("ab")
            await settle()
            if rng.random() < 0.5:
                await routers[name].save()
            await routers[name].stop()
            routers[name] = town.router(name)
            await routers[name].start()
    await settle()
    for router in routers.values():
        await town.caught_up(router)
    newcomer = town.router("c")
    await newcomer.start()
    await town.caught_up(newcomer)
    standings = [router.standing() for router in (*routers.values(), newcomer)]
    assert len({(one.sequence, one.digest) for one in standings}) == 1
    assert newcomer.learned.values.lessons == len(lessons), "each lesson counts once"
    for router in (*routers.values(), newcomer):
        await router.stop()
    await town.bus.close()


async def test_a_snapshot_of_an_older_version_is_read_while_there_is_none_of_this_one() -> None:
    town = Town(Random(0))
    old = town.router("a", version="adaptive-2", older="adaptive-1")
    await old.start()
    for number in range(20):
        old.teach(a_lesson(number, Random(number)))
    await town.caught_up(old)
    assert await old.save()
    # What the snapshot holds is not in the log any more.
    town.bus.lessons._stored = [b"gone" for _ in town.bus.lessons._stored]
    new = town.router("b")
    await new.start()
    await town.caught_up(new)
    assert new.learned.values.lessons == 20
    assert new.learned.sequence == old.learned.sequence
    new.teach(a_lesson(20, Random(20)))
    await town.caught_up(new)
    assert await new.save()
    newest = await town.store.newest("adaptive-3/")
    assert newest is not None
    third = town.router("c")
    await third.start()
    await town.caught_up(third)
    assert third.standing().digest == new.standing().digest
    assert third.learned.values.lessons == 21
    for router in (old, new, third):
        await router.stop()
    await town.bus.close()


async def test_a_message_that_is_applied_again_changes_nothing() -> None:
    town = Town(Random(0))
    router = town.router("a")
    await router.start()
    router.teach(a_lesson(1, Random(1)))
    await town.caught_up(router)
    before = router.standing()
    router.take(1, town.bus.lessons._stored[0])
    assert router.standing() == before
    await router.stop()
    await town.bus.close()


async def test_lessons_of_the_same_name_that_travel_apart_all_count() -> None:
    # The two attempts of one task, of two tasks nobody named: the bus must not take the second message for a copy.
    town = Town(Random(0))
    router = town.router("a")
    await router.start()
    for number in range(3):
        router.teach(msgspec.structs.replace(a_lesson(1, Random(1)), quality=0.5 + number / 10))
        await town.caught_up(router)
    router.teach(a_lesson(1, Random(1)))
    await town.caught_up(router)
    router.teach(a_lesson(1, Random(1)))
    await town.caught_up(router)
    assert router.learned.values.lessons == 5
    await router.stop()
    await town.bus.close()


async def test_what_two_routers_teach_once_counts_once() -> None:
    town = Town(Random(0))
    one, two = town.router("one"), town.router("two")
    await one.start()
    await two.start()
    for router in (one, two):
        for number in range(3):
            router.teach_once(a_lesson(number, Random(number)))
        await town.caught_up(router)
    await town.caught_up(one)
    assert one.learned.values.lessons == two.learned.values.lessons == 3
    assert one.standing().digest == two.standing().digest
    await one.stop()
    await two.stop()
    await town.bus.close()


async def test_lessons_of_the_same_moment_travel_together() -> None:
    town = Town(Random(0))
    router = town.router("a", gather_seconds=0.05)
    await router.start()
    for number in range(7):
        router.teach(a_lesson(number, Random(number)))
        await settle()
    assert (await town.bus.lessons.state()).last == 0, "they gather"
    await town.clock.advance(0.05)
    await town.caught_up(router)
    assert (await town.bus.lessons.state()).last == 1
    assert router.learned.values.lessons == 7
    await router.stop()
    await town.bus.close()


async def test_lessons_that_gather_when_a_router_stops_are_taught() -> None:
    town = Town(Random(0))
    router = town.router("a", gather_seconds=60.0)
    await router.start()
    router.teach(a_lesson(1, Random(1)))
    await settle()
    await router.stop()
    assert (await town.bus.lessons.state()).last == 1
    await town.bus.close()


async def test_only_routers_can_teach() -> None:
    town = Town(Random(0))
    router = town.router("a")
    await router.start()
    text = msgspec.json.encode([a_lesson(1, Random(1))])
    stranger = Capabilities([b"some other key of at least thirty-two bytes"])
    for seal in ("", stranger.seal(text), CAPABILITIES.seal(text + b" "), CAPABILITIES.sign("t", 1, "a")):
        forged = LessonMessage(seal=seal, lessons=msgspec.Raw(text))
        await town.bus.lessons.publish("evil", msgspec.json.encode(forged), f"id-{seal}")
    await town.bus.lessons.publish("evil", b"no message at all", "id")
    await town.caught_up(router)
    assert router.learned.values.lessons == 0
    assert router.learned.sequence == 5, "what cannot be used is passed over by everybody alike"
    assert town.telemetry.counts["routing_lessons_lost_total"] == 5
    await router.stop()
    await town.bus.close()


async def test_a_router_that_differs_is_found_counted_and_loads_the_snapshot_again() -> None:
    town = Town(Random(0))
    good, bad = town.router("good"), town.router("bad")
    await good.start()
    await bad.start()
    rng = Random(3)
    for number in range(5):
        good.teach(a_lesson(number, rng))
    await settle()
    await town.caught_up(good)
    await town.caught_up(bad)
    await good.save()
    bad.learned.values.learn(a_lesson(99, rng))
    assert bad.standing().digest != good.standing().digest
    await good.tell()
    await until(lambda: bad.standing().digest == good.standing().digest)
    assert town.telemetry.counts["routing_learned_mismatches_total"] == 1
    await good.stop()
    await bad.stop()
    await town.bus.close()


async def test_routers_that_agree_say_nothing() -> None:
    town = Town(Random(0))
    one, two = town.router("one"), town.router("two")
    await one.start()
    await two.start()
    one.teach(a_lesson(1, Random(1)))
    await settle()
    await town.caught_up(one)
    await town.caught_up(two)
    await one.tell()
    await settle()
    assert town.telemetry.counts["routing_learned_mismatches_total"] == 0
    await one.stop()
    await two.stop()
    await town.bus.close()


async def test_lessons_wait_while_the_bus_is_away() -> None:
    town = Town(Random(0))
    router = town.router("a")
    await router.start()
    await settle()
    town.bus.switch(False)
    router.teach(a_lesson(1, Random(1)))
    await settle()
    town.bus.switch(True)
    await town.clock.advance(1.0)
    await town.caught_up(router)
    assert router.learned.values.lessons == 1
    await router.stop()
    await town.bus.close()
    await asyncio.sleep(0)
