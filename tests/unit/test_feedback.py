"""The feedback desk: stored first, learned by every router, told again when the bus was away."""

from __future__ import annotations

import pytest

from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.client import Client, ClientOptions
from agent_engines.client.bus_transport import BusTransport
from agent_engines.domain.errors import Conflict, NotFound
from agent_engines.domain.feedback import FeedbackDraft
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.ledger import Verdict
from agent_engines.runtime.feedback import UNTOLD_SECONDS, FeedbackDesk
from api_house import open_house
from routing_house import RoutingHouse, until


def desk_of(house: RoutingHouse, *, leads: bool = True) -> FeedbackDesk:
    return FeedbackDesk(
        house.bus,
        house.ledger,
        capabilities=house.capabilities,
        clock=house.clock,
        telemetry=NullTelemetry(),
        leads=lambda: leads,
    )


async def ended(house: RoutingHouse) -> str:
    await house.beat("a")
    await house.recorder.start()
    task_id = (await house.submit()).task_id
    (message,) = await house.queued("a")
    await house.bus.reports.publish_reports("a", [house.report(message, TaskStatus.SUCCESS)])
    await until(lambda: house.recorder.recorded.total() > 0)
    return task_id


def quality(house: RoutingHouse) -> float | None:
    [member] = house.fleet.roster("echo", {}).members
    return member.candidate("echo", None, house.clock.monotonic()).quality


async def test_a_judgement_reaches_the_picture_the_router_chooses_by() -> None:
    async with RoutingHouse() as house:
        task_id = await ended(house)
        [member] = house.fleet.roster("echo", {}).members
        await until(lambda: member.in_flight() == 0)
        assert quality(house) is None
        await desk_of(house).give(task_id, FeedbackDraft(quality=0.0))
        await until(lambda: house.recorder.recorded[Verdict.RECORDED] == 2)
        await until(lambda: quality(house) is not None)
        assert (member.in_flight(), quality(house)) == (0, 0.5)


async def test_said_twice_it_is_learned_once() -> None:
    async with RoutingHouse() as house:
        task_id = await ended(house)
        desk = desk_of(house)
        first = await desk.give(task_id, FeedbackDraft(quality=0.0))
        await until(lambda: quality(house) == 0.5)
        again = await desk.give(task_id, FeedbackDraft(quality=0.0))
        assert again.recorded_at is not None
        assert again.created_at == first.created_at
        with pytest.raises(Conflict):
            await desk.give(task_id, FeedbackDraft(quality=0.1))
        await desk.give(task_id, FeedbackDraft(quality=0.0, source="other"))
        await until(lambda: house.recorder.recorded[Verdict.RECORDED] == 3)
        assert house.recorder.recorded.total() == 3


async def test_what_the_bus_did_not_take_is_told_by_the_sweep() -> None:
    async with RoutingHouse() as house:
        task_id = await ended(house)
        desk = desk_of(house)
        house.bus.switch(False)
        told = await desk.give(task_id, FeedbackDraft(quality=0.0))
        assert told.recorded_at is None
        house.bus.switch(True)
        assert await desk.sweep() == 0
        await house.clock.advance(UNTOLD_SECONDS + 1)
        assert await desk.sweep() == 1
        await until(lambda: quality(house) == 0.5)
        assert await desk.sweep() == 0


async def test_only_the_router_that_leads_sweeps() -> None:
    async with RoutingHouse() as house:
        task_id = await ended(house)
        desk, follower = desk_of(house), desk_of(house, leads=False)
        house.bus.switch(False)
        await desk.give(task_id, FeedbackDraft(quality=0.0))
        house.bus.switch(True)
        await follower.start()
        await house.clock.advance(UNTOLD_SECONDS + 60)
        [told] = await desk.of(task_id)
        assert told.recorded_at is None
        await desk.start()
        await house.clock.advance(UNTOLD_SECONDS + 60)
        await until(lambda: house.recorder.recorded[Verdict.RECORDED] == 2)
        await desk.stop()
        await follower.stop()


async def test_a_client_on_the_bus_judges_too() -> None:
    async with open_house() as house:
        done = await house.ended("echo")
        transport = await BusTransport.open(house.bus, ClientOptions(), owns_bus=False)
        async with Client(transport=transport) as client:
            told = await client.feedback(done["task_id"], 0.25, source="validator")
            assert (told["quality"], told["agent"]) == (0.25, "worker-1")
            with pytest.raises(Conflict):
                await client.feedback(done["task_id"], 0.5, source="validator")
            with pytest.raises(NotFound):
                await client.feedback("nothing", 0.5)
