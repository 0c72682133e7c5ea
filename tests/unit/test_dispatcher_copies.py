"""A router may die between the ledger's commit and the bus: whoever repeats the submission sets it going."""

from __future__ import annotations

from agent_engines.domain.agents import AgentMode
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.tasks import TaskRequest
from routing_house import RoutingHouse


async def committed_and_not_sent(house: RoutingHouse) -> None:
    """What a router leaves that is killed between the two."""
    publish = house.bus.tasks.publish_tasks

    async def dying(*_: object) -> list[Exception | None]:
        raise Unavailable("killed")

    house.bus.tasks.publish_tasks = dying  # type: ignore[method-assign]
    [result] = await house.dispatcher.submit([request()])
    assert result.refused is not None
    house.bus.tasks.publish_tasks = publish  # type: ignore[method-assign]


def request(payload: int = 1) -> TaskRequest:
    return TaskRequest(task_type="echo", payload=payload, idempotency_key="k")


async def test_a_repeated_submission_sends_what_its_first_router_could_not() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await committed_and_not_sent(house)
        [again] = await house.dispatcher.submit([request()])
        assert again.accepted is not None
        assert again.accepted.existing
        [message] = await house.queued("a")
        assert (message.task_id, message.generation, message.attempt) == (again.accepted.task_id, 1, 1)


async def test_it_goes_to_the_agent_that_the_answer_names() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await committed_and_not_sent(house)
        for name in "bcdefgh":
            await house.beat(name)
        [again] = await house.dispatcher.submit([request()])
        assert again.accepted is not None
        assert again.accepted.selected_agent == "a"
        assert len(await house.queued("a")) == 1


async def test_another_body_or_a_late_repetition_sends_nothing() -> None:
    """Later the bus would not know a copy for one: then it is left to the search for stranded tasks."""
    async with RoutingHouse() as house:
        await house.beat("a")
        await committed_and_not_sent(house)
        [other] = await house.dispatcher.submit([request(payload=2)])
        assert other.refused is not None
        assert await house.queued("a") == []
        await house.clock.advance(61.0)
        await house.beat("a")
        await house.dispatcher.submit([request()])
        assert await house.queued("a") == []


async def test_a_repetition_that_cannot_be_sent_either_is_promised_nothing() -> None:
    """The row alone would be found after many minutes only: 202 means that the bus has it too."""
    async with RoutingHouse() as house:
        await house.beat("a")
        await committed_and_not_sent(house)
        house.bus.switch(False)
        [again] = await house.dispatcher.submit([request()])
        assert again.accepted is None
        assert again.refused is not None
        assert again.refused.kind == "Unavailable"
        house.bus.switch(True)
        [last] = await house.dispatcher.submit([request()])
        assert last.accepted is not None
        assert len(await house.queued("a")) == 1


async def test_a_router_that_could_choose_nobody_now_sends_them_too() -> None:
    """As one that has just started, and has not heard from any agent when the client repeats itself: the answer is a promise."""
    async with RoutingHouse() as house:
        await house.beat("a")
        await committed_and_not_sent(house)
        await house.fleet.set_mode("a", AgentMode.QUARANTINED)
        [stranger] = await house.dispatcher.submit([TaskRequest(task_type="echo", idempotency_key="new")])
        assert stranger.refused is not None
        assert stranger.refused.kind == "NoEligibleAgent"
        [again] = await house.dispatcher.submit([request()])
        assert again.accepted is not None
        assert again.accepted.selected_agent == "a"
        [message] = await house.queued("a")
        assert (message.task_id, message.max_attempts) == (again.accepted.task_id, 4), "as its agent said at the time"


async def test_such_a_router_promises_nothing_it_cannot_send() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await committed_and_not_sent(house)
        await house.fleet.set_mode("a", AgentMode.QUARANTINED)
        house.bus.switch(False)
        [again] = await house.dispatcher.submit([request()])
        assert again.refused is not None
        assert again.refused.kind == "Unavailable"
        house.bus.switch(True)
        [last] = await house.dispatcher.submit([request()])
        assert last.accepted is not None
        assert len(await house.queued("a")) == 1
