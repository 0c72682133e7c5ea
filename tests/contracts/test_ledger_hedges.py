"""What every ledger promises about hedged tasks: two legs, one end, one retry."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_ledger import NOW, decision, entry, failure, retry, success
from test_ledger import report as told

from agent_engines.domain.legs import LOST
from agent_engines.domain.messages import ReportKind
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.ledger import Hedge, Ledger, StoredTask, Verdict

RECORDED, FALLEN, STALE = Verdict.RECORDED, Verdict.FALLEN, Verdict.STALE


async def accepted(ledger: Ledger, **task: Any) -> str:
    new = entry(**task)
    assert await ledger.tasks.accept([new]) == []
    return new.task.task_id


def second(task_id: str, agent: str = "ben") -> Hedge:
    return Hedge("ann", decision(f"r-{task_id}:2", task_id, agent=agent, at=NOW + 1, hedge="Hedged after 1.00 s"))


async def hedged(ledger: Ledger, **task: Any) -> str:
    """A task that runs at ann and was sent to ben too."""
    task_id = await accepted(ledger, **task)
    await ledger.tasks.record([told(task_id, ReportKind.STARTED)])
    assert len(await ledger.tasks.hedge([second(task_id)])) == 1
    return task_id


class TestTheSecondLeg:
    async def test_it_is_the_next_generation_of_the_same_attempt_with_a_decision_of_its_own(
        self, ledger: Ledger
    ) -> None:
        task_id = await accepted(ledger, max_attempts=3)
        (stored,) = await ledger.tasks.hedge([second(task_id)])
        assert (stored.task.task_id, stored.generation, stored.attempt, stored.max_attempts) == (task_id, 2, 1, 3)
        assert await ledger.tasks.legs(task_id) == ["ann", "ben"]
        legs = [await ledger.decisions.decision(name) for name in (f"r-{task_id}", f"r-{task_id}:2")]
        assert [(leg.selected_agent, leg.task_id) for leg in legs] == [("ann", task_id), ("ben", task_id)]
        assert [leg.hedge for leg in legs] == ["", "Hedged after 1.00 s"]

    async def test_there_is_no_third_one(self, ledger: Ledger) -> None:
        task_id = await hedged(ledger)
        assert await ledger.tasks.hedge([second(task_id, "cat")]) == []
        assert await ledger.tasks.legs(task_id) == ["ann", "ben"]

    @pytest.mark.parametrize("before", ["ended", "failed", "cancelled", "stranded", "retried", "unknown"])
    async def test_there_is_none_for_a_task_to_which_something_else_happened(self, ledger: Ledger, before: str) -> None:
        task_id = await accepted(ledger) if before != "unknown" else "nobody-knows-it"
        await ledger.tasks.record([told(task_id, ReportKind.STARTED)] if before == "cancelled" else [])
        match before:
            case "ended":
                await ledger.tasks.record([success(task_id)])
            case "failed":
                await ledger.tasks.record([retry(task_id)])
            case "cancelled":
                await ledger.tasks.cancel(task_id, NOW + 1)
            case "stranded":
                assert len(await ledger.tasks.claim_stranded(NOW + 10_000, 10)) == 1
            case "retried":
                await ledger.tasks.record([retry(task_id)])
                assert len(await ledger.tasks.claim_due(NOW + 10_000, 10)) == 1
            case _:
                pass
        assert await ledger.tasks.hedge([second(task_id)]) == []
        assert await ledger.tasks.legs(task_id) == []

    async def test_nothing_is_hedged_twice_by_two_routers_at_once(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        both = await asyncio.gather(*(ledger.tasks.hedge([second(task_id, agent)]) for agent in ("ben", "cat")))
        assert sorted(len(one) for one in both) == [0, 1]


class TestTheRace:
    @pytest.mark.parametrize("winner", [1, 2])
    async def test_the_first_success_ends_the_task_and_the_other_one_changes_nothing(
        self, ledger: Ledger, winner: int
    ) -> None:
        task_id = await hedged(ledger)
        agents = {1: "ann", 2: "ben"}
        loser = 3 - winner
        assert await ledger.tasks.record([success(task_id, generation=winner, agent=agents[winner])]) == [RECORDED]
        assert await ledger.tasks.record([success(task_id, generation=loser, agent=agents[loser])]) == [STALE]
        view = await ledger.reader.task(task_id)
        assert (view.status, view.selected_agent, view.attempts) == (TaskStatus.SUCCESS, agents[winner], 1)

    @pytest.mark.parametrize("winner", [1, 2])
    async def test_the_loser_is_in_the_history_as_cancelled_and_judged_by_nobody(
        self, ledger: Ledger, winner: int
    ) -> None:
        task_id = await hedged(ledger)
        agents = {1: "ann", 2: "ben"}
        loser = 3 - winner
        cancelled = failure(task_id, TaskStatus.CANCELLED, generation=loser, agent=agents[loser])
        await ledger.tasks.record([success(task_id, generation=winner, agent=agents[winner])])
        assert await ledger.tasks.record([cancelled]) == [STALE]
        assert await ledger.tasks.record([cancelled]) == [STALE]
        (attempt,) = [one for one in await ledger.reader.attempts(task_id) if one.generation == loser]
        assert (attempt.agent, attempt.status, attempt.error_type) == (agents[loser], TaskStatus.CANCELLED, LOST)
        assert attempt.error_message == f"{agents[winner]} was faster"
        ends = {one.decision.selected_agent: one.status for one in await ledger.decisions.history(0.0, 10)}
        assert ends == {agents[winner]: TaskStatus.SUCCESS, agents[loser]: TaskStatus.CANCELLED}

    @pytest.mark.parametrize("first", [1, 2])
    @pytest.mark.parametrize("kind", ["retry", "failed", "dead_letter", "expired"])
    async def test_a_leg_that_fails_ends_nothing_and_retries_nothing(
        self, ledger: Ledger, first: int, kind: str
    ) -> None:
        task_id = await hedged(ledger)
        agents = {1: "ann", 2: "ben"}
        other = 3 - first
        fall = _failing(task_id, kind, generation=first, agent=agents[first])
        assert await ledger.tasks.record([fall]) == [FALLEN]
        assert not (await ledger.tasks.record([fall]))[0].kept
        assert await ledger.tasks.legs(task_id) == [agents[other]]
        assert await ledger.tasks.claim_due(NOW + 10_000, 10) == []
        view = await ledger.reader.task(task_id)
        assert (view.status, view.selected_agent) == (TaskStatus.RUNNING, agents[other])
        assert await ledger.tasks.record([success(task_id, generation=other, agent=agents[other])]) == [RECORDED]
        fallen = [one for one in await ledger.reader.attempts(task_id) if one.generation == first]
        assert [(one.agent, one.status, one.error_type) for one in fallen] == [
            (agents[first], TaskStatus.RETRYING, fall.error.type)
        ]

    @pytest.mark.parametrize("first", [1, 2])
    async def test_when_both_fail_there_is_one_retry(self, ledger: Ledger, first: int) -> None:
        task_id = await hedged(ledger)
        both = [retry(task_id, generation=generation) for generation in (first, 3 - first)]
        assert [await ledger.tasks.record([one]) for one in both] == [[FALLEN], [RECORDED]]
        (claimed,) = await ledger.tasks.claim_due(NOW + 10_000, 10)
        assert (claimed.generation, claimed.attempt) == (3, 2)
        assert await ledger.tasks.claim_due(NOW + 20_000, 10) == []
        assert not any(verdict.kept for verdict in await ledger.tasks.record(both))
        assert await ledger.tasks.legs(task_id) == []

    @pytest.mark.parametrize("first", [1, 2])
    async def test_when_both_fail_for_good_the_last_word_ends_the_task(self, ledger: Ledger, first: int) -> None:
        task_id = await hedged(ledger)
        both = [failure(task_id, generation=generation) for generation in (first, 3 - first)]
        assert await ledger.tasks.record(both) == [FALLEN, RECORDED], "in one batch too"
        assert (await ledger.reader.task(task_id)).status is TaskStatus.FAILED

    async def test_two_legs_that_fail_at_the_same_moment_make_one_retry(self, ledger: Ledger) -> None:
        for _ in range(20):
            task_id = await hedged(ledger)
            verdicts = await asyncio.gather(
                *(ledger.tasks.record([retry(task_id, generation=generation)]) for generation in (1, 2))
            )
            assert sorted(verdict for (verdict,) in verdicts) == [FALLEN, RECORDED]
            assert len(await ledger.tasks.claim_due(NOW + 10_000, 10)) == 1

    async def test_two_legs_that_succeed_at_the_same_moment_make_one_end(self, ledger: Ledger) -> None:
        for _ in range(20):
            task_id = await hedged(ledger)
            verdicts = await asyncio.gather(
                *(ledger.tasks.record([success(task_id, generation=generation)]) for generation in (1, 2))
            )
            assert sorted(verdict for (verdict,) in verdicts) == [RECORDED, STALE]

    async def test_the_last_leg_is_stranded_like_any_task_and_a_fallen_one_may_still_succeed(
        self, ledger: Ledger
    ) -> None:
        task_id = await hedged(ledger)
        await ledger.tasks.record([retry(task_id, generation=2, agent="ben")])
        kinds = await ledger.tasks.stranded_kinds(NOW + 10_000, agents=["ann"])
        (claimed,) = await ledger.tasks.claim_stranded(NOW + 10_000, 10, kinds=kinds, agents=["ann"])
        assert (claimed.generation, claimed.attempt) == (3, 1)
        assert await ledger.tasks.record([retry(task_id, generation=1)]) == [STALE]
        assert await ledger.tasks.record([success(task_id, generation=1)]) == [Verdict.LATE]

    async def test_a_cancellation_that_was_asked_for_ends_the_task_from_either_leg(self, ledger: Ledger) -> None:
        for generation in (1, 2):
            task_id = await hedged(ledger)
            assert await ledger.tasks.cancel(task_id, NOW + 2) is TaskStatus.RUNNING
            assert await ledger.tasks.legs(task_id) == ["ann", "ben"]
            ended = failure(task_id, TaskStatus.CANCELLED, generation=generation)
            assert await ledger.tasks.record([ended]) == [RECORDED]

    async def test_what_a_fallen_leg_used_up_is_booked(self, ledger: Ledger) -> None:
        task_id = await hedged(ledger)
        await ledger.tasks.record([retry(task_id, generation=1, cost=0.25, tokens=7)])
        await ledger.tasks.record([success(task_id, generation=2, agent="ben", cost=0.5, tokens=3)])
        spent = await ledger.tenants.spent("default", 0.0)
        assert (spent.cost, spent.tokens) == (0.75, 10)


def _failing(task_id: str, kind: str, **more: Any) -> Any:
    return retry(task_id, **more) if kind == "retry" else failure(task_id, TaskStatus(kind), **more)


def test_a_stored_task_says_nothing_of_legs() -> None:
    """Whoever claims a task dispatches it anew: legs are the ledger's own business."""
    assert "legs" not in StoredTask.__struct_fields__
