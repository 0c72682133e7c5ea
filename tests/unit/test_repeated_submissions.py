"""A submission that is repeated gets its first answer, even while nobody could take it."""

from __future__ import annotations

from collections.abc import Collection

from agent_engines.domain.agents import AgentMode
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import SubmitResult
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.ports.ledger import Known
from routing_house import RoutingHouse


async def submit(house: RoutingHouse, *requests: TaskRequest) -> list[SubmitResult]:
    return await house.dispatcher.submit(requests)


def keyed(key: str, payload: int = 1) -> TaskRequest:
    return TaskRequest(task_type="echo", payload=payload, idempotency_key=key)


async def test_a_repeat_is_answered_while_every_agent_is_away() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        first = await house.submit(payload=1, idempotency_key="k")
        await house.fleet.set_mode("a", AgentMode.QUARANTINED)
        [again] = await submit(house, keyed("k"))
        assert again.accepted is not None
        assert (again.accepted.task_id, again.accepted.existing) == (first.task_id, True)
        assert (again.accepted.selected_agent, again.accepted.reasoning) == ("a", first.reasoning)
        assert len(await house.queued("a")) == 1, "it was not sent once more"


async def test_another_body_is_a_conflict_a_new_key_and_no_key_are_refused() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.submit(payload=1, idempotency_key="k")
        await house.fleet.set_mode("a", AgentMode.QUARANTINED)
        results = await submit(house, keyed("k", 2), keyed("new"), TaskRequest(task_type="echo"), keyed("k"))
        kinds = [None if one.refused is None else one.refused.kind for one in results]
        assert kinds == ["Conflict", "NoEligibleAgent", "NoEligibleAgent", None]


async def test_what_was_promised_again_cannot_be_withdrawn() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        first = await house.submit(payload=1, idempotency_key="k")
        await house.fleet.set_mode("a", AgentMode.QUARANTINED)
        await submit(house, keyed("k"))
        await house.ledger.tasks.withdraw([first.task_id])
        assert (await house.ledger.reader.task(first.task_id)).status is TaskStatus.QUEUED


async def test_a_ledger_that_is_away_leaves_the_refusal() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", ("other",))

        async def away(task_ids: Collection[str]) -> list[Known]:
            raise Unavailable("the ledger is away")

        house.ledger.tasks.known = away  # type: ignore[method-assign]
        [result] = await submit(house, keyed("k"))
        assert result.refused is not None
        assert result.refused.kind == "NoEligibleAgent"
        assert "Whether refused submissions are repeats is unknown" in house.telemetry.messages("warning")
