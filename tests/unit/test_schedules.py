"""Schedules: each occurrence makes one task, whatever happens to routers."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from agent_engines.domain.errors import Conflict, InvalidRequest, NotFound, Unavailable
from agent_engines.domain.schedules import CatchUp, ScheduleDraft, TaskTemplate
from agent_engines.domain.terms import Affinity, Budget, Terms
from agent_engines.runtime.schedules import CLAIM_SECONDS, Schedules
from routing_house import RoutingHouse, settle

MINUTE = 60.0


class ScheduleHouse(RoutingHouse):
    """A routing house on whose clock it is 22:13:20; `router` makes another router's share of the work."""

    def __init__(self) -> None:
        super().__init__()
        self._ids = itertools.count(1)
        self.schedules = self.router()

    def router(self) -> Schedules:
        return Schedules(
            self.ledger.schedules,
            self.dispatcher,
            clock=self.clock,
            telemetry=self.telemetry,
            new_id=lambda: f"run-{next(self._ids)}",
        )

    async def pass_minutes(self, minutes: float, agent: str | None = "ann") -> None:
        """Time goes on while the agent keeps telling that it is there."""
        for _ in range(int(minutes * 12)):
            if agent is not None:
                await self.beat(agent)
            await self.clock.advance(5.0)
            await settle()

    async def made(self) -> list[str]:
        """What was made meanwhile: the local minute each task was for."""
        messages = await self.queued("ann")
        return [
            datetime.fromtimestamp(message.metadata["scheduled_for"], UTC).strftime("%H:%M") for message in messages
        ]


@pytest.fixture
async def house() -> AsyncIterator[ScheduleHouse]:
    house = ScheduleHouse()
    async with house:
        await house.beat("ann")
        yield house
        await house.schedules.stop()


def draft(name: str = "often", cron: str = "* * * * *", **changes: Any) -> ScheduleDraft:
    template = TaskTemplate(task_type="echo", payload=msgspec.Raw(b'{"n": 1}'), metadata={"by": "test"})
    return ScheduleDraft(name=name, cron=cron, **({"task": template} | changes))


async def test_each_minute_makes_one_task(house: ScheduleHouse) -> None:
    await house.schedules.start()
    await house.schedules.add(draft())
    await house.pass_minutes(3)
    [first, *rest] = await house.queued("ann")
    assert len(rest) == 2
    assert bytes(first.payload) == b'{"n": 1}'
    assert first.metadata == {"by": "test", "schedule": "often", "scheduled_for": 1_700_000_040}
    stored = await house.schedules.schedule("often")
    assert stored.last_run_at == 1_700_000_160
    assert stored.next_run_at == 1_700_000_220
    assert stored.last_task_id == rest[-1].task_id


async def test_its_tasks_have_a_strategy_an_account_a_budget_and_an_affinity(house: ScheduleHouse) -> None:
    await house.schedules.start()
    task = TaskTemplate(
        task_type="echo",
        strategy="c3",
        features=[1.0, 2.0],
        tenant="acme",
        budget=Budget(attempts=2),
        affinity=Affinity(key="k"),
    )
    await house.schedules.add(draft(task=task))
    await house.pass_minutes(1)
    [message] = await house.queued("ann")
    assert message.max_attempts == 2, "the budget's attempts"
    decision = await house.ledger.decisions.decision(message.request_id)
    assert decision.context is not None
    assert (decision.strategy, decision.context.features) == ("c3", (1.0, 2.0))
    assert decision.context.terms == Terms(tenant="acme", budget=Budget(attempts=2), affinity=Affinity(key="k"))


async def test_two_routers_make_it_once(house: ScheduleHouse) -> None:
    other = house.router()
    await house.schedules.start()
    await other.start()
    await house.schedules.add(draft())
    await house.pass_minutes(4)
    await other.stop()
    assert await house.made() == ["22:14", "22:15", "22:16", "22:17"]


async def test_a_router_that_dies_after_making_the_task_leaves_no_second_one(
    house: ScheduleHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: Any) -> None:
        raise Unavailable("the process is gone")

    store = house.ledger.schedules
    await house.schedules.add(draft(cron="@hourly"))
    advance = store.advance
    monkeypatch.setattr(store, "advance", dies)
    await house.schedules.start()
    await house.pass_minutes(47)
    await house.schedules.stop()
    assert await house.made() == ["23:00"]
    assert (await store.schedule("often")).last_task_id is None
    monkeypatch.setattr(store, "advance", advance)
    other = house.router()
    await other.start()
    await house.pass_minutes(2 * CLAIM_SECONDS / MINUTE)
    await other.stop()
    assert await house.made() == []
    stored = await store.schedule("often")
    assert stored.last_task_id is not None
    assert stored.next_run_at == 1_700_002_800 + 3600


async def test_after_downtime_the_latest_missed_occurrence_is_made_up_for(house: ScheduleHouse) -> None:
    await house.schedules.add(draft())
    await house.pass_minutes(10)
    await house.schedules.start()
    await house.pass_minutes(0.5)
    assert await house.made() == ["22:23"]


async def test_or_all_of_them_oldest_first(house: ScheduleHouse) -> None:
    await house.schedules.add(draft(catch_up=CatchUp.ALL))
    await house.pass_minutes(4)
    await house.schedules.start()
    await house.pass_minutes(0.25)
    assert await house.made() == ["22:14", "22:15", "22:16", "22:17"]


async def test_while_nobody_can_take_it_the_occurrence_waits_and_says_why(house: ScheduleHouse) -> None:
    await house.schedules.start()
    template = TaskTemplate(task_type="rare")
    await house.schedules.add(draft(cron="@hourly", task=template))
    await house.pass_minutes(48)
    waiting = await house.schedules.schedule("often")
    assert waiting.last_error is not None
    assert "rare" in waiting.last_error
    assert waiting.last_run_at is None
    await house.beat("cat", ("rare",))
    await house.pass_minutes(0.5, agent=None)
    assert len(await house.queued("cat")) == 1
    done = await house.schedules.schedule("often")
    assert (done.last_error, done.last_run_at) == (None, 1_700_002_800)


async def test_a_paused_one_makes_nothing_and_makes_up_for_nothing(house: ScheduleHouse) -> None:
    await house.schedules.start()
    await house.schedules.add(draft())
    await house.schedules.pause("often")
    await house.pass_minutes(3)
    assert await house.made() == []
    resumed = await house.schedules.resume("often")
    assert resumed.next_run_at is not None
    assert resumed.next_run_at > house.clock.now()
    await house.pass_minutes(1)
    assert len(await house.made()) == 1


async def test_one_that_is_made_paused_has_no_time_until_it_is_resumed(house: ScheduleHouse) -> None:
    made = await house.schedules.add(draft(enabled=False))
    assert made.next_run_at is None
    assert (await house.schedules.resume("often")).next_run_at == 1_700_000_040


async def test_it_can_be_run_by_hand_at_any_time(house: ScheduleHouse) -> None:
    await house.schedules.add(draft(cron="@yearly"))
    first, second = await house.schedules.run("often"), await house.schedules.run("often")
    assert first.accepted is not None
    assert second.accepted is not None
    assert {message.task_id for message in await house.queued("ann")} == {
        first.accepted.task_id,
        second.accepted.task_id,
    }
    assert (await house.schedules.schedule("often")).last_task_id == second.accepted.task_id


async def test_one_that_is_edited_between_making_and_noting_does_not_make_two(
    house: ScheduleHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: Any) -> None:
        raise Unavailable("the process is gone")

    store = house.ledger.schedules
    await house.schedules.add(draft(cron="@hourly"))
    with monkeypatch.context() as patched:
        patched.setattr(store, "advance", dies)
        await house.schedules.start()
        await house.pass_minutes(47)
        await house.schedules.stop()
    [made] = await house.queued("ann")
    await house.schedules.put(draft(cron="@hourly", task=TaskTemplate(task_type="echo", payload=msgspec.Raw(b"2"))))
    other = house.router()
    await other.start()
    await house.pass_minutes(2 * CLAIM_SECONDS / MINUTE)
    await other.stop()
    assert await house.made() == []
    assert (await store.schedule("often")).last_task_id == made.task_id


async def test_a_name_is_given_once_and_a_missing_one_is_not_found(house: ScheduleHouse) -> None:
    await house.schedules.add(draft())
    with pytest.raises(Conflict):
        await house.schedules.add(draft())
    for work in (house.schedules.run("x"), house.schedules.resume("x"), house.schedules.remove("x")):
        with pytest.raises(NotFound):
            await work


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"cron": "often"}, "cron"),
        ({"timezone": "Mars/Base"}, "timezone"),
        ({"task": TaskTemplate(task_type="")}, "task.task_type"),
        ({"task": TaskTemplate(task_type="x", priority=9)}, "task.priority"),
        ({"task": TaskTemplate(task_type="x", tenant="no name")}, "task.tenant"),
        ({"task": TaskTemplate(task_type="x", features=[float("nan")])}, "task.features[0]"),
        ({"task": TaskTemplate(task_type="x", strategy="none")}, "task.strategy"),
        ({"task": TaskTemplate(task_type="x", metadata={str(n): n for n in range(63)})}, "task.metadata"),
    ],
)
async def test_a_wrong_field_is_named(house: ScheduleHouse, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await house.schedules.add(draft(**changes))
    assert refused.value.field == field
