"""Driving many dead letters again, at a bounded rate."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_engines.domain.errors import Conflict, InvalidRequest, NotFound, Unavailable
from agent_engines.domain.redrives import RedriveOrder, RedriveState
from agent_engines.domain.tasks import TaskStatus
from agent_engines.runtime.redriving import CLAIM_SECONDS, Redriving
from routing_house import RoutingHouse, settle


class RedriveHouse(RoutingHouse):
    def __init__(self) -> None:
        super().__init__()
        self._ids = itertools.count(1)
        self.redriving = self.router()

    def router(self) -> Redriving:
        return Redriving(
            self.ledger,
            self.desk,
            clock=self.clock,
            telemetry=self.telemetry,
            new_id=lambda: f"redrive-{next(self._ids)}",
        )

    async def bury(self, count: int, task_type: str = "echo", **changes: Any) -> list[str]:
        """Give so many tasks up; each a second after the one before."""
        buried: list[str] = []
        for _ in range(count):
            accepted = await self.submit(task_type)
            [message] = await self.queued("ann")
            await self.ledger.tasks.record([self.report(message, TaskStatus.DEAD_LETTER, **changes)])
            buried.append(accepted.task_id)
            await self.clock.advance(1.0)
        await self.beat("ann", ("echo", "other"))
        return buried

    async def pass_seconds(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            await self.beat("ann", ("echo", "other"))
            await self.clock.advance(0.5)
            await settle()


@pytest.fixture
async def house() -> AsyncIterator[RedriveHouse]:
    house = RedriveHouse()
    async with house:
        await house.beat("ann", ("echo", "other"))
        yield house
        await house.redriving.stop()


async def test_all_of_them_run_again_no_faster_than_ordered(house: RedriveHouse) -> None:
    buried = await house.bury(12)
    await house.redriving.start()
    begun = await house.redriving.begin(RedriveOrder(rate=4))
    assert (begun.state, begun.matched, begun.redriven) == (RedriveState.RUNNING, 12, 0)
    await settle(100)
    assert (await house.redriving.latest()).redriven == 2
    await house.pass_seconds(1)
    assert 4 <= (await house.redriving.latest()).redriven <= 6
    await house.pass_seconds(3)
    done = await house.redriving.latest()
    assert (done.state, done.redriven, done.skipped) == (RedriveState.DONE, 12, 0)
    assert sorted(message.task_id for message in await house.queued("ann")) == sorted(buried)


async def test_only_what_matches_runs_again(house: RedriveHouse) -> None:
    await house.bury(2)
    [wanted] = await house.bury(1, "other")
    await house.redriving.start()
    await house.redriving.begin(RedriveOrder(task_type="other", agent="ann", reason="IT BROKE", since=1.0))
    await house.pass_seconds(2)
    assert [message.task_id for message in await house.queued("ann")] == [wanted]
    assert (await house.redriving.begin(RedriveOrder(reason="something else"))).matched == 0


async def test_no_more_than_the_limit_and_the_newest_first(house: RedriveHouse) -> None:
    buried = await house.bury(5)
    await house.redriving.start()
    begun = await house.redriving.begin(RedriveOrder(limit=2))
    await house.pass_seconds(2)
    assert begun.matched == 2
    assert {message.task_id for message in await house.queued("ann")} == set(buried[-2:])


async def test_one_that_dies_again_is_not_driven_again_by_the_same_order(house: RedriveHouse) -> None:
    await house.bury(3)
    await house.redriving.start()
    await house.redriving.begin(RedriveOrder(rate=1))
    for _ in range(6):
        await house.pass_seconds(1)
        for message in await house.queued("ann"):
            assert message.generation == 2
            await house.ledger.tasks.record([house.report(message, TaskStatus.DEAD_LETTER)])
    done = await house.redriving.latest()
    assert (done.state, done.redriven) == (RedriveState.DONE, 3)


async def test_one_order_at_a_time_and_it_can_be_stopped(house: RedriveHouse) -> None:
    await house.bury(10)
    await house.redriving.start()
    await house.redriving.begin(RedriveOrder(rate=1))
    await house.pass_seconds(2)
    with pytest.raises(Conflict):
        await house.redriving.begin(RedriveOrder())
    stopped = await house.redriving.end()
    assert stopped.state is RedriveState.STOPPED
    await house.pass_seconds(20)
    assert len(await house.queued("ann")) == stopped.redriven
    assert (await house.redriving.end()).state is RedriveState.STOPPED
    rest = await house.redriving.begin(RedriveOrder(rate=1000))
    assert rest.matched == 10 - stopped.redriven
    await house.pass_seconds(2)
    assert (await house.redriving.latest()).state is RedriveState.DONE


async def test_another_router_goes_on_when_the_first_one_dies(house: RedriveHouse) -> None:
    buried = await house.bury(8)
    await house.redriving.start()
    await house.redriving.begin(RedriveOrder(rate=1))
    await house.pass_seconds(3)
    other = house.router()
    await other.start()
    await house.pass_seconds(1)
    before = (await house.redriving.latest()).redriven
    await _killed(house.redriving)
    await house.pass_seconds(2 * CLAIM_SECONDS)
    await other.stop()
    done = await house.redriving.latest()
    assert 0 < before < 8
    assert (done.state, done.redriven) == (RedriveState.DONE, 8)
    messages = await house.queued("ann")
    assert sorted(message.task_id for message in messages) == sorted(buried)


async def test_what_died_again_under_the_first_router_is_not_driven_again_by_the_next(house: RedriveHouse) -> None:
    await house.bury(6)
    await house.redriving.start()
    await house.redriving.begin(RedriveOrder(rate=1))
    await house.pass_seconds(2)
    await _killed(house.redriving)
    again = await house.queued("ann")
    assert again
    await house.ledger.tasks.record([house.report(message, TaskStatus.DEAD_LETTER) for message in again])
    other = house.router()
    await other.start()
    await house.pass_seconds(2 * CLAIM_SECONDS)
    await other.stop()
    assert (await other.latest()).state is RedriveState.DONE
    messages = [*again, *await house.queued("ann")]
    assert sorted((message.task_id, message.generation) for message in messages) == sorted(
        (task_id, 2) for task_id in {message.task_id for message in messages}
    )
    assert len(messages) == 6


async def test_a_router_that_stops_in_order_hands_over_at_once(house: RedriveHouse) -> None:
    await house.bury(8)
    await house.redriving.start()
    await house.redriving.begin(RedriveOrder(rate=4))
    await house.pass_seconds(1)
    await house.redriving.stop()
    other = house.router()
    await other.start()
    await house.pass_seconds(3)
    await other.stop()
    done = await house.redriving.latest()
    assert (done.state, done.redriven) == (RedriveState.DONE, 8)


async def _killed(redriving: Redriving) -> None:
    await redriving._background.stop()


async def test_it_goes_on_after_the_ledger_was_away(house: RedriveHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.bury(6)
    letters, asked = house.ledger.reader.letters, itertools.count()

    async def sometimes(wanted: Any) -> Any:
        if next(asked) == 1:
            raise Unavailable("PostgreSQL does not answer")
        return await letters(wanted)

    monkeypatch.setattr(house.ledger.reader, "letters", sometimes)
    # The pause before background work starts again is real time.
    monkeypatch.setattr(house.redriving._background, "keep", _keep_at_once(house))
    await house.redriving.start()
    await house.redriving.begin(RedriveOrder(rate=4))
    await house.pass_seconds(5)
    done = await house.redriving.latest()
    assert (done.state, done.redriven) == (RedriveState.DONE, 6)


def _keep_at_once(house: RedriveHouse) -> Any:
    keep = type(house.redriving._background).keep

    def at_once(name: str, work: Any) -> Any:
        return keep(house.redriving._background, name, work, pause=0.0)

    return at_once


async def test_letters_somebody_else_took_care_of_are_passed_over(
    house: RedriveHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.bury(3)
    reopen, asked = house.ledger.tasks.reopen, itertools.count()

    async def taken(task_id: str, now: float) -> Any:
        if next(asked) == 0:
            raise Conflict("it is queued")
        return await reopen(task_id, now)

    monkeypatch.setattr(house.ledger.tasks, "reopen", taken)
    await house.redriving.start()
    await house.redriving.begin(RedriveOrder())
    await house.pass_seconds(2)
    done = await house.redriving.latest()
    assert (done.state, done.redriven, done.skipped) == (RedriveState.DONE, 2, 1)


@pytest.mark.parametrize(
    ("order", "field"),
    [
        (RedriveOrder(rate=0), "rate"),
        (RedriveOrder(rate=1001), "rate"),
        (RedriveOrder(rate=float("nan")), "rate"),
        (RedriveOrder(limit=0), "limit"),
        (RedriveOrder(task_type=""), "task_type"),
        (RedriveOrder(reason="a\0b"), "reason"),
    ],
)
async def test_a_wrong_field_is_named(house: RedriveHouse, order: RedriveOrder, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await house.redriving.begin(order)
    assert refused.value.field == field


async def test_before_the_first_order_there_is_nothing_to_tell(house: RedriveHouse) -> None:
    with pytest.raises(NotFound):
        await house.redriving.latest()
