"""Tasks that are submitted to run later."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_engines.domain.agents import AgentMode
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import SubmitResult
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.runtime.planning import Planner
from routing_house import RoutingHouse, settle

HOUR = 3600.0


class PlanningHouse(RoutingHouse):
    """A routing house whose submissions may run later."""

    def __init__(self) -> None:
        super().__init__()
        ids = itertools.count(1)
        self.planner = Planner(
            self.dispatcher,
            self.ledger,
            clock=self.clock,
            telemetry=self.telemetry,
            new_id=lambda: f"plan-{next(ids)}",
            on_planned=self.redispatcher.arm,
        )

    async def later(self, seconds: float = HOUR, **fields: Any) -> SubmitResult:
        request = TaskRequest(task_type="echo", run_at=self.clock.now() + seconds, **fields)
        [result] = await self.planner.submit([request])
        return result


@pytest.fixture
async def house() -> AsyncIterator[PlanningHouse]:
    house = PlanningHouse()
    async with house:
        await house.beat("ann")
        await house.redispatcher.start()
        yield house
        await house.planner.close()


async def test_nothing_is_on_the_bus_before_its_time_and_then_it_is_dispatched(house: PlanningHouse) -> None:
    accepted = (await house.later()).accepted
    assert accepted is not None
    assert (accepted.status, accepted.selected_agent) == (TaskStatus.QUEUED, "ann")
    assert "chosen then" in accepted.reasoning
    await house.clock.advance(HOUR - 5)
    assert await house.queued("ann") == []
    await house.beat("ann")
    await house.clock.advance(5)
    await settle()
    [message] = await house.queued("ann")
    assert (message.task_id, message.generation, message.attempt) == (accepted.task_id, 1, 1)
    view = await house.ledger.reader.task(accepted.task_id)
    assert (view.status, view.selected_agent) == (TaskStatus.QUEUED, "ann")
    decided = await house.ledger.decisions.decision(accepted.request_id)
    assert decided.created_at == house.clock.now()


async def test_the_agents_own_number_of_attempts_counts_when_the_submitter_named_none(house: PlanningHouse) -> None:
    await house.later(1.0)
    await house.clock.advance(1.0)
    await settle()
    [message] = await house.queued("ann")
    assert message.max_attempts == 4


async def test_the_decision_is_made_again_when_it_is_due(house: PlanningHouse) -> None:
    accepted = (await house.later(30.0)).accepted
    assert accepted is not None
    assert accepted.selected_agent == "ann"
    await house.clock.advance(25)
    await house.beat("ben")
    await house.fleet.set_mode("ann", AgentMode.DRAINING)
    await house.clock.advance(5)
    await settle()
    assert [message.task_id for message in await house.queued("ben")] == [accepted.task_id]
    assert await house.queued("ann") == []


async def test_a_time_that_has_passed_means_now(house: PlanningHouse) -> None:
    accepted = (await house.later(-5.0)).accepted
    assert accepted is not None
    assert [message.task_id for message in await house.queued("ann")] == [accepted.task_id]
    assert (await house.ledger.reader.task(accepted.task_id)).run_at is None


async def test_it_is_accepted_when_nobody_could_take_it_now_and_waits_for_somebody(house: PlanningHouse) -> None:
    request = TaskRequest(task_type="unheard-of", run_at=house.clock.now() + 1)
    [result] = await house.planner.submit([request])
    assert result.accepted is not None
    assert result.accepted.selected_agent is None
    assert "Nobody could take it now" in result.accepted.reasoning
    await house.clock.advance(3)
    await house.beat("cat", ("unheard-of",))
    await house.clock.advance(3)
    await settle()
    assert [message.task_id for message in await house.queued("cat")] == [result.accepted.task_id]


async def test_the_same_key_is_the_same_task_and_nothing_is_sent_early(house: PlanningHouse) -> None:
    run_at = house.clock.now() + 50
    request = TaskRequest(task_type="echo", run_at=run_at, idempotency_key="k")
    [first] = await house.planner.submit([request])
    [again] = await house.planner.submit([request])
    assert first.accepted is not None
    assert again.accepted is not None
    assert (again.accepted.task_id, again.accepted.existing) == (first.accepted.task_id, True)
    assert await house.queued("ann") == []
    await house.clock.advance(49)
    await house.beat("ann")
    await house.clock.advance(1)
    await settle()
    assert len(await house.queued("ann")) == 1
    # The caller's last repetition comes after its time.
    [late] = await house.planner.submit([request])
    assert late.accepted is not None
    assert (late.accepted.task_id, late.accepted.existing) == (first.accepted.task_id, True)
    assert await house.queued("ann") == []


async def test_the_same_key_with_another_time_is_a_conflict(house: PlanningHouse) -> None:
    await house.later(50.0, idempotency_key="k")
    refused = (await house.later(60.0, idempotency_key="k")).refused
    assert refused is not None
    assert refused.kind == "Conflict"


async def test_twice_in_one_submission_the_same_key_is_one_task(house: PlanningHouse) -> None:
    request = TaskRequest(task_type="echo", run_at=house.clock.now() + 50, idempotency_key="k")
    first, second = await house.planner.submit([request, request])
    assert first.accepted is not None
    assert second.accepted is not None
    assert first.accepted.task_id == second.accepted.task_id
    assert (first.accepted.existing, second.accepted.existing) == (False, True)


async def test_one_submission_may_mix_now_later_and_never(house: PlanningHouse) -> None:
    now = house.clock.now()
    requests = [
        TaskRequest(task_type="echo", run_at=now + HOUR),
        TaskRequest(task_type="echo"),
        TaskRequest(task_type="echo", run_at=now + 400 * 86_400),
        TaskRequest(task_type="echo", run_at=now + HOUR, deadline=now + 60),
    ]
    later, at_once, too_far, too_late = await house.planner.submit(requests)
    assert later.accepted is not None
    assert at_once.accepted is not None
    assert [message.task_id for message in await house.queued("ann")] == [at_once.accepted.task_id]
    for refused in (too_far.refused, too_late.refused):
        assert refused is not None
        assert (refused.kind, refused.field) == ("InvalidRequest", "run_at")


async def test_a_cancelled_one_never_runs(house: PlanningHouse) -> None:
    accepted = (await house.later(5.0)).accepted
    assert accepted is not None
    assert await house.desk.cancel(accepted.task_id) is TaskStatus.CANCELLED
    await house.clock.advance(10)
    await settle()
    assert await house.queued("ann") == []


async def test_one_whose_deadline_passed_before_an_agent_came_is_expired(house: PlanningHouse) -> None:
    request = TaskRequest(task_type="unheard-of", run_at=house.clock.now() + 1, deadline=house.clock.now() + 10)
    [result] = await house.planner.submit([request])
    assert result.accepted is not None
    await house.clock.advance(15)
    await settle()
    assert (await house.ledger.reader.task(result.accepted.task_id)).status is TaskStatus.EXPIRED


async def test_without_a_ledger_nothing_is_promised(house: PlanningHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(tasks: Any) -> Any:
        raise Unavailable("PostgreSQL does not answer")

    monkeypatch.setattr(house.ledger.tasks, "plan", away)
    refused = (await house.later()).refused
    assert refused is not None
    assert refused.kind == "Unavailable"
