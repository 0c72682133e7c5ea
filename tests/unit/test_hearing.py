"""Hearing: waiters at once, everybody else together; a router hears itself without the bus."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain import subjects
from agent_engines.domain.messages import ReportKind
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.ports.connections import Connections
from agent_engines.runtime.hearing import Hearing
from agent_engines.runtime.outcome_feed import MOST_TOGETHER, TOGETHER_SECONDS
from agent_engines.runtime.outcomes import Outcome, decode_outcomes, decode_sealed
from routing_house import RoutingHouse, settle, until


def outcome(number: int = 0) -> Outcome:
    return Outcome(
        kind=ReportKind.FINAL, task_id=f"task-{number}", task_type="echo", agent="a", status=TaskStatus.SUCCESS
    )


class Site:
    """A house's bus, and who listens on it besides."""

    def __init__(self, house: RoutingHouse) -> None:
        self.house = house
        self.messages: list[bytes] = []

    async def listen(self, subject: str) -> None:
        await self.house.bus.signals.listen(subject, self._hear)

    async def _hear(self, subject: str, data: bytes) -> None:
        self.messages.append(data)

    @property
    def told(self) -> list[list[str]]:
        """Task ids of each message."""
        return [[one.task_id for one in decode_outcomes(data)] for data in self.messages]


async def test_what_is_recorded_within_a_moment_is_told_together_and_sealed() -> None:
    async with RoutingHouse() as house:
        site = Site(house)
        await site.listen(subjects.OUTCOMES)
        house.hearing.recorded([outcome(1)])
        await settle()
        house.hearing.recorded([outcome(2), outcome(3)])
        await settle()
        assert site.told == []
        await house.clock.advance(TOGETHER_SECONDS)
        await settle()
        assert site.told == [["task-1", "task-2", "task-3"]]
        _, sealed = decode_sealed(site.messages[0], house.capabilities.sealed)
        assert sealed
        await house.clock.advance(10 * TOGETHER_SECONDS)
        await settle()
        assert len(site.told) == 1, "nothing new, nothing told"


async def test_judgements_are_told_by_themselves_too() -> None:
    async with RoutingHouse() as house:
        site = Site(house)
        await site.listen(subjects.FEEDBACK)
        judged = Outcome(kind=ReportKind.FEEDBACK, task_id="judged", task_type="echo", quality=0.5)
        house.hearing.recorded([outcome(1), judged])
        await house.clock.advance(TOGETHER_SECONDS)
        await settle()
        assert site.told == [["judged"]]


async def test_many_at_once_do_not_wait_for_the_moment() -> None:
    async with RoutingHouse() as house:
        site = Site(house)
        await site.listen(subjects.OUTCOMES)
        house.hearing.recorded([outcome(number) for number in range(MOST_TOGETHER)])
        await settle()
        assert [len(ids) for ids in site.told] == [MOST_TOGETHER]


async def test_a_router_that_stops_tells_what_is_left() -> None:
    async with RoutingHouse() as house:
        site = Site(house)
        await site.listen(subjects.OUTCOMES)
        house.hearing.recorded([outcome(1)])
        await house.hearing.stop()
        await settle()
        assert site.told == [["task-1"]]


async def test_a_router_takes_in_what_it_recorded_once_and_what_others_recorded_too() -> None:
    clock = ManualClock()
    bus = MemoryBus(clock=clock)
    connections = Connections(bus=bus, telemetry=NullTelemetry(), clock=clock)
    async with RoutingHouse() as house:
        taken: dict[str, list[tuple[str, bool]]] = {"one": [], "two": []}

        def hearing(name: str) -> Hearing:
            def take(outcomes: Sequence[Outcome], sealed: bool) -> None:
                taken[name].extend((one.task_id, sealed) for one in outcomes)

            return Hearing(connections, house.capabilities, home=name, take=take, desk=house.desk)

        one, two = hearing("one"), hearing("two")
        await one.start()
        await two.start()
        one.recorded([outcome(1)])
        assert taken == {"one": [("task-1", True)], "two": []}, "its own at once"
        await clock.advance(TOGETHER_SECONDS)
        await settle()
        assert taken == {"one": [("task-1", True)], "two": [("task-1", True)]}
        await bus.signals.send(
            subjects.outcomes("evil"), b'{"seal":"","reports":%b}' % msgspec.json.encode([outcome(2)])
        )
        await bus.signals.send(subjects.outcomes("evil"), b"not JSON")
        await settle()
        assert taken["one"][1:] == taken["two"][1:] == [("task-2", False)], "nobody vouches for it"
        await one.stop()
        await two.stop()
        await bus.close()


async def test_what_was_handed_in_at_a_router_is_told_to_its_waiters_without_the_bus() -> None:
    async with RoutingHouse() as house:
        site = Site(house)
        await site.listen(subjects.RECORDED)
        await house.beat("a")
        home = house.hearing.home
        await house.dispatcher.submit([TaskRequest(task_type="echo"), TaskRequest(task_type="echo")], origin=home)
        first, second = await house.queued("a")
        await house.recorder.start()
        with house.desk.watch(first.task_id, final=True) as watch:
            await house.bus.reports.publish_reports("a", [house.report(first)])
            await until(watch.news.is_set)
            assert site.told == []
        # Another router has recorded it: that one has to say so over the bus.
        with house.desk.watch(second.task_id, final=True) as watch:
            told = b'{"seal":"","reports":%b}' % msgspec.json.encode([house.report(second)])
            await house.bus.signals.send(subjects.recorded(home), told)
            await until(watch.news.is_set)


async def test_a_part_that_cannot_take_an_outcome_does_not_keep_the_next_ones_from_being_recorded() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.dispatcher.submit([TaskRequest(task_type="echo"), TaskRequest(task_type="echo")])
        first, second = await house.queued("a")
        house.fleet.learned = lambda outcomes: 1 / 0  # type: ignore[method-assign]
        await house.recorder.start()
        await house.bus.reports.publish_reports("a", [house.report(first)])
        await until(lambda: house.recorder.recorded.total() == 1)
        await house.bus.reports.publish_reports("a", [house.report(second)])
        await until(lambda: house.recorder.recorded.total() == 2)
        assert house.telemetry.messages("error") == ["Recorded outcomes were not taken in"] * 2
