"""What every ledger promises, in memory and on PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import time
from itertools import pairwise
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_engines.adapters.keyset import Place, encode_cursor
from agent_engines.domain.agents import AgentMode, AgentProfile, Capability
from agent_engines.domain.decisions import Candidate, Decision, DecisionContext, Rejection
from agent_engines.domain.errors import Conflict, InvalidRequest, NotFound
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import Task, TaskError, TaskStatus
from agent_engines.ports.ledger import (
    ENDED_BYTES,
    DecisionFilter,
    Entry,
    Ledger,
    TaskFilter,
    TaskKind,
    Verdict,
)
from agent_engines.ports.retention import Purged

NOW = 1_700_000_000.0
RECORDED, DUPLICATE, STALE = Verdict.RECORDED, Verdict.DUPLICATE, Verdict.STALE


def entry(task_id: str | None = None, *, agent: str = "ann", at: float = NOW, **task: Any) -> Entry:
    task_id = task_id or str(uuid4())
    fields: dict[str, Any] = {"request_id": f"r-{task_id}", "task_type": "echo", "submitted_at": at, **task}
    return Entry(Task(task_id=task_id, **fields), decision(fields["request_id"], task_id, agent=agent, at=at))


def decision(
    request_id: str, task_id: str | None = None, *, agent: str = "ann", at: float = NOW, **more: Any
) -> Decision:
    candidate = Candidate(
        agent=agent,
        replicas=2,
        slots=8,
        in_flight=1,
        service_ms=12.5,
        completion_ms=20.25,
        success=0.9,
        cost=0.002,
        age_seconds=0.5,
        score=1.0 / 3.0,
        probability=0.7,
    )
    fields: dict[str, Any] = {
        "task_type": "echo",
        "confidence": 0.8,
        "propensity": 0.7,
        "strategy": "sampled",
        "policy_version": "v1",
        "reasoning": "ann is expected to finish first",
        "candidates": (candidate, msgspec.structs.replace(candidate, agent="ben", probability=0.3)),
        "rejected": (Rejection("cat", "does not know echo"),),
        "context": DecisionContext(request_id=request_id, task_type="echo", requirements={"gpu": True}),
        **more,
    }
    return Decision(request_id=request_id, task_id=task_id, selected_agent=agent, created_at=at, **fields)


def report(task_id: str, kind: ReportKind = ReportKind.FINAL, **more: Any) -> Report:
    fields: dict[str, Any] = {
        "request_id": f"r-{task_id}",
        "task_type": "echo",
        "agent": "ann",
        "replica": "ann-1",
        "started_at": NOW + 1,
        "submitted_at": NOW,
        **more,
    }
    if kind is not ReportKind.STARTED:
        fields.setdefault("completed_at", NOW + 2)
    return Report(kind=kind, task_id=task_id, **fields)


def success(task_id: str, **more: Any) -> Report:
    return report(task_id, status=TaskStatus.SUCCESS, **{"result": msgspec.Raw(b'{"said":"hi"}'), **more})


def failure(task_id: str, status: TaskStatus = TaskStatus.FAILED, **more: Any) -> Report:
    return report(task_id, status=status, **{"error": TaskError("Broken", "it broke", True), **more})


def retry(task_id: str, at: float = NOW + 10, **more: Any) -> Report:
    error = TaskError("Busy", "come back", True)
    return report(task_id, ReportKind.RETRY, status=TaskStatus.RETRYING, retry_at=at, **{"error": error, **more})


def started(task_id: str, **more: Any) -> Report:
    return report(task_id, ReportKind.STARTED, **more)


async def accepted(ledger: Ledger, **task: Any) -> str:
    one = entry(**task)
    assert await ledger.tasks.accept([one]) == []
    return one.task.task_id


async def status(ledger: Ledger, task_id: str) -> TaskStatus:
    return (await ledger.reader.task(task_id)).status


class TestAcceptance:
    async def test_an_accepted_task_is_queued_with_all_it_was_given(self, ledger: Ledger) -> None:
        task_id = await accepted(
            ledger,
            priority=2,
            metadata={"who": "Zoë"},
            deadline=NOW + 60,
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        view = await ledger.reader.task(task_id)
        assert (view.status, view.selected_agent, view.attempts) == (TaskStatus.QUEUED, "ann", 0)
        assert (view.priority, view.metadata, view.deadline) == (2, {"who": "Zoë"}, NOW + 60)
        assert view.trace_id == "0af7651916cd43dd8448eb211c80319c"
        assert (view.submitted_at, view.result, view.error) == (NOW, None, None)

    async def test_the_same_key_is_answered_with_the_first_submission(self, ledger: Ledger) -> None:
        first = entry("t-1", body_hash=b"one", idempotency_key="k")
        await ledger.tasks.accept([first])
        again = entry("t-1", body_hash=b"two", idempotency_key="k", request_id="another")
        [known] = await ledger.tasks.accept([entry(), again])
        assert (known.task_id, known.body_hash, known.status) == ("t-1", b"one", TaskStatus.QUEUED)
        assert known.decision == first.decision
        with pytest.raises(NotFound):
            await ledger.decisions.decision("another")

    async def test_accepting_again_changes_nothing(self, ledger: Ledger) -> None:
        one = entry()
        await ledger.tasks.accept([one])
        await ledger.tasks.record([success(one.task.task_id)])
        [known] = await ledger.tasks.accept([one])
        assert known.status is TaskStatus.SUCCESS
        assert known.decision == one.decision
        assert await status(ledger, one.task.task_id) is TaskStatus.SUCCESS

    async def test_the_same_task_twice_in_one_batch_is_accepted_once(self, ledger: Ledger) -> None:
        one, same = entry("t-1", body_hash=b"one"), entry("t-1", body_hash=b"two", request_id="second")
        [known] = await ledger.tasks.accept([one, same])
        assert (known.task_id, known.body_hash) == ("t-1", b"one")
        assert known.decision == one.decision

    async def test_two_tasks_may_share_a_request_id(self, ledger: Ledger) -> None:
        await ledger.tasks.accept([entry("t-1", request_id="mine", agent="ann")])
        await ledger.tasks.accept([entry("t-2", request_id="mine", agent="ben")])
        [known] = await ledger.tasks.accept([entry("t-2", request_id="mine")])
        assert known.decision is not None
        assert known.decision.selected_agent == "ben"
        assert (await ledger.decisions.decision("mine")).task_id == "t-1"

    async def test_nothing_is_accepted_from_an_empty_batch(self, ledger: Ledger) -> None:
        assert await ledger.tasks.accept([]) == []
        assert await ledger.reader.counts() == {}

    async def test_a_withdrawn_task_was_never_there(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.withdraw([task_id, "unknown"])
        with pytest.raises(NotFound):
            await ledger.reader.task(task_id)
        with pytest.raises(NotFound):
            await ledger.decisions.decision(f"r-{task_id}")

    async def test_a_task_that_a_second_caller_was_told_about_cannot_be_withdrawn(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        [known] = await ledger.tasks.accept([entry(task_id)])
        assert known.task_id == task_id
        await ledger.tasks.withdraw([task_id])
        assert await status(ledger, task_id) is TaskStatus.QUEUED

    async def test_a_task_that_ended_cannot_be_withdrawn(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([success(task_id)])
        await ledger.tasks.withdraw([task_id])
        assert await status(ledger, task_id) is TaskStatus.SUCCESS


class TestOutcomes:
    async def test_an_outcome_is_shown_with_all_it_carries(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        outcome = success(task_id, agent="ben", execution_time_ms=12.5, quality=0.75, cost=0.002, attempt=2)
        assert await ledger.tasks.record([outcome]) == [RECORDED]
        view = await ledger.reader.task(task_id)
        assert (view.status, view.selected_agent, view.result) == (TaskStatus.SUCCESS, "ben", {"said": "hi"})
        assert (view.execution_time_ms, view.quality, view.cost, view.attempts) == (12.5, 0.75, 0.002, 2)
        assert (view.started_at, view.completed_at, view.error) == (NOW + 1, NOW + 2, None)

    async def test_a_failure_says_why(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([failure(task_id)])
        assert (await ledger.reader.task(task_id)).error == TaskError("Broken", "it broke", True)

    async def test_the_first_terminal_row_wins_and_never_changes(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        assert await ledger.tasks.record([failure(task_id)]) == [RECORDED]
        before = await ledger.reader.task(task_id)
        assert await ledger.tasks.record([success(task_id, delivery=2)]) == [STALE]
        assert await ledger.reader.task(task_id) == before

    async def test_the_same_outcome_again_is_a_duplicate(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        one = success(task_id)
        assert await ledger.tasks.record([one, one]) == [RECORDED, DUPLICATE]
        assert await ledger.tasks.record([one]) == [DUPLICATE]

    async def test_a_late_success_of_an_older_generation_counts_when_nothing_ended_the_task(
        self, ledger: Ledger
    ) -> None:
        task_id = await accepted(ledger)
        [claimed] = await ledger.tasks.claim_stranded(NOW + 100, 10)
        assert claimed.generation == 2
        assert await ledger.tasks.record([success(task_id, generation=1)]) == [Verdict.LATE]
        assert await ledger.tasks.record([success(task_id, generation=1)]) == [DUPLICATE]
        assert await ledger.tasks.record([success(task_id, generation=2)]) == [STALE]
        assert await status(ledger, task_id) is TaskStatus.SUCCESS

    async def test_what_agents_had_is_taken_by_kind_as_the_next_generation(self, ledger: Ledger) -> None:
        waits, runs = await accepted(ledger), await accepted(ledger)
        await ledger.tasks.record([started(runs)])
        special = {"agent": ["ann"], "memory_gb": {"gte": 1.5}}
        other = await accepted(ledger, requirements=special)
        young, elsewhere = await accepted(ledger, at=NOW + 50), await accepted(ledger, agent="ben")
        ended, retried = await accepted(ledger), await accepted(ledger)
        await ledger.tasks.record([success(ended), retry(retried)])
        kinds = await ledger.tasks.stranded_kinds(NOW + 40, agents=["ann", "zoe"])
        assert sorted(kinds, key=lambda kind: len(kind.requirements)) == [TaskKind("echo"), TaskKind("echo", special)]
        assert await ledger.tasks.stranded_kinds(NOW + 40, agents=["zoe"]) == []
        assert await ledger.tasks.claim_stranded(NOW + 40, 10, kinds=[TaskKind("other")], agents=["ann"]) == []
        taken = await ledger.tasks.claim_stranded(NOW + 40, 10, kinds=[TaskKind("echo")], agents=["ann", "zoe"])
        assert {
            one.task.task_id: (one.status, one.generation, one.attempt, one.last_agent) for one in taken
        } == dict.fromkeys((waits, runs), (TaskStatus.QUEUED, 2, 1, "ann"))
        assert await ledger.tasks.claim_stranded(NOW + 40, 10, kinds=[TaskKind("echo")], agents=["ann"]) == []
        [one] = await ledger.tasks.claim_stranded(NOW + 40, 10, kinds=kinds, agents=["ann"])
        assert (one.task.task_id, one.task.requirements) == (other, special)
        for task_id in (young, elsewhere):
            assert await ledger.tasks.record([failure(task_id)]) == [RECORDED], "still generation 1"

    async def test_of_what_has_no_news_only_the_named_kinds_are_taken_and_what_is_past_its_deadline(
        self, ledger: Ledger
    ) -> None:
        special = {"gpu": True}
        plain, other = await accepted(ledger), await accepted(ledger, requirements=special)
        late = await accepted(ledger, requirements=special, deadline=NOW + 90)
        runs = await accepted(ledger, timeout_seconds=3600.0, requirements={"runs": True})
        await ledger.tasks.record([started(runs)])
        kinds = await ledger.tasks.stranded_kinds(NOW + 100)
        assert sorted(len(kind.requirements) for kind in kinds) == [0, 1], "one that runs has its own time on top"
        taken = await ledger.tasks.claim_stranded(NOW + 100, 10, kinds=[TaskKind("echo")])
        assert {(one.task.task_id, one.generation) for one in taken} == {(plain, 2), (late, 2)}
        assert await ledger.tasks.claim_stranded(NOW + 100, 10, kinds=[]) == []
        [one] = await ledger.tasks.claim_stranded(NOW + 100, 10, kinds=[TaskKind("echo", special)])
        assert (one.task.task_id, one.generation) == (other, 2)

    async def test_an_abandoned_task_whose_cancellation_was_asked_for_is_cancelled(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([started(task_id)])
        await ledger.tasks.cancel(task_id, NOW + 5)
        assert await ledger.tasks.claim_stranded(NOW + 40, 10, kinds=[TaskKind("echo")], agents=["ann"]) == []
        assert await status(ledger, task_id) is TaskStatus.CANCELLED

    async def test_two_claimers_share_what_is_abandoned(self, ledger: Ledger) -> None:
        tasks = {await accepted(ledger) for _ in range(30)}
        kinds = [TaskKind("echo")]
        claims = await asyncio.gather(
            *(ledger.tasks.claim_stranded(NOW + 40, 10, kinds=kinds, agents=["ann"]) for _ in range(4))
        )
        taken = [one.task.task_id for claim in claims for one in claim]
        assert len(taken) == len(set(taken))
        assert set(taken) <= tasks
        assert all(one.generation == 2 for claim in claims for one in claim)

    async def test_retries_over_the_limit_stay_due(self, ledger: Ledger) -> None:
        tasks = [await accepted(ledger) for _ in range(5)]
        await ledger.tasks.record([retry(task_id, at=NOW + 1) for task_id in tasks])
        assert await ledger.tasks.due_retries(NOW) == 0
        assert await ledger.tasks.due_retries(NOW + 10) == 5
        assert await ledger.tasks.claim_due(NOW + 10, 10, retries=0) == []
        assert len(await ledger.tasks.claim_due(NOW + 10, 10, retries=3)) == 3
        assert await ledger.tasks.due_retries(NOW + 10) == 2
        assert len(await ledger.tasks.claim_due(NOW + 10, 1, retries=3)) == 1
        assert len(await ledger.tasks.claim_due(NOW + 10, 10)) == 1

    async def test_what_is_known_can_be_asked_for_and_is_then_promised(self, ledger: Ledger) -> None:
        one, two = entry(max_attempts=7), entry()
        await ledger.tasks.accept([one, two])
        ids = [one.task.task_id, "never heard of"]
        [known] = await ledger.tasks.known(ids)
        assert (known.task_id, known.status, known.max_attempts) == (one.task.task_id, TaskStatus.QUEUED, 7)
        assert known.decision is not None
        assert known.decision.request_id == one.decision.request_id
        await ledger.tasks.withdraw([one.task.task_id, two.task.task_id])
        assert await ledger.tasks.known(ids) == [known]
        assert await ledger.tasks.known([two.task.task_id]) == []

    async def test_the_origin_of_a_task_is_known(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger, origin="client-7")
        assert await ledger.reader.origin(task_id) == "client-7"
        assert await ledger.reader.origin("nothing") == ""

    @pytest.mark.parametrize("late", [failure, retry, started])
    async def test_other_late_news_of_an_older_generation_is_stale(self, ledger: Ledger, late: Any) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.claim_stranded(NOW + 100, 10)
        assert await ledger.tasks.record([late(task_id, generation=1)]) == [STALE]
        assert await status(ledger, task_id) is TaskStatus.QUEUED

    async def test_an_outcome_may_come_before_its_task(self, ledger: Ledger) -> None:
        one = entry()
        assert await ledger.tasks.record([success(one.task.task_id)]) == [RECORDED]
        early = await ledger.reader.task(one.task.task_id)
        assert (early.status, early.task_type, early.request_id) == (TaskStatus.SUCCESS, "echo", one.task.request_id)
        assert await ledger.tasks.accept([one]) == []
        assert await status(ledger, one.task.task_id) is TaskStatus.SUCCESS
        assert await ledger.tasks.claim_stranded(time.time() + 100, 10) == []

    async def test_a_retry_may_come_before_its_task(self, ledger: Ledger) -> None:
        one = entry()
        assert await ledger.tasks.record([retry(one.task.task_id)]) == [RECORDED]
        await ledger.tasks.accept([one])
        assert await status(ledger, one.task.task_id) is TaskStatus.RETRYING
        assert len(await ledger.tasks.claim_due(NOW + 10, 5)) == 1

    async def test_a_start_may_come_before_its_task(self, ledger: Ledger) -> None:
        one = entry()
        assert await ledger.tasks.record([started(one.task.task_id)]) == [RECORDED]
        await ledger.tasks.accept([one])
        view = await ledger.reader.task(one.task.task_id)
        assert (view.status, view.started_at) == (TaskStatus.RUNNING, NOW + 1)

    async def test_a_start_makes_the_task_running(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        assert await ledger.tasks.record([started(task_id, agent="ben")]) == [RECORDED]
        view = await ledger.reader.task(task_id)
        assert (view.status, view.selected_agent, view.started_at) == (TaskStatus.RUNNING, "ben", NOW + 1)
        [attempt] = await ledger.reader.attempts(task_id)
        assert (attempt.agent, attempt.replica, attempt.status) == ("ben", "ann-1", TaskStatus.RUNNING)
        assert await ledger.tasks.record([started(task_id, agent="ben")]) == [DUPLICATE]

    async def test_a_start_that_comes_after_its_own_end_changes_nothing(self, ledger: Ledger) -> None:
        task_id, ended = await accepted(ledger), await accepted(ledger)
        await ledger.tasks.record([retry(task_id), success(ended)])
        assert await ledger.tasks.record([started(task_id), started(ended)]) == [DUPLICATE, STALE]
        assert await status(ledger, task_id) is TaskStatus.RETRYING
        assert await status(ledger, ended) is TaskStatus.SUCCESS

    async def test_an_outcome_ends_the_running_attempt(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([started(task_id), success(task_id)])
        assert await ledger.reader.attempts(task_id) == []

    async def test_one_call_takes_500_mixed_reports_and_answers_in_order(self, ledger: Ledger) -> None:
        entries = [entry(f"t-{number:03}") for number in range(250)]
        await ledger.tasks.accept(entries)
        reports: list[Report] = []
        expected: list[Verdict] = []
        for number in range(250):
            task_id = f"t-{(number * 7) % 250:03}"
            match number % 4:
                case 0:
                    pair, verdicts = [started(task_id), success(task_id)], [RECORDED, RECORDED]
                case 1:
                    pair, verdicts = [success(task_id), success(task_id)], [RECORDED, DUPLICATE]
                case 2:
                    pair, verdicts = [retry(task_id), failure(task_id, generation=2)], [RECORDED, STALE]
                case _:
                    pair, verdicts = [failure(task_id), success(task_id)], [RECORDED, STALE]
            reports += pair
            expected += verdicts
        assert await ledger.tasks.record(reports) == expected
        assert await ledger.reader.counts() == {"success": 126, "retrying": 62, "failed": 62}

    async def test_an_outcome_that_is_not_terminal_ends_nothing(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        assert await ledger.tasks.record([report(task_id, status=TaskStatus.RUNNING)]) == [STALE]
        assert await status(ledger, task_id) is TaskStatus.QUEUED

    async def test_an_agent_nobody_has_heard_of_is_noted(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([success(task_id, agent="stranger")])
        assert [one.name for one in await ledger.agents.agents()] == ["stranger"]


class TestRetries:
    async def test_a_retry_is_due_at_its_time_and_not_before(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger, max_attempts=5, payload=msgspec.Raw(b'{"z": 1,  "a": [1.0]}'))
        assert await ledger.tasks.record([retry(task_id, at=NOW + 10)]) == [RECORDED]
        assert await status(ledger, task_id) is TaskStatus.RETRYING
        assert await ledger.tasks.claim_due(NOW + 9, 10) == []
        [claimed] = await ledger.tasks.claim_due(NOW + 10, 10)
        assert (claimed.generation, claimed.attempt, claimed.max_attempts, claimed.last_agent) == (2, 2, 5, "ann")
        assert (claimed.status, claimed.task.task_id) == (TaskStatus.QUEUED, task_id)
        assert bytes(claimed.task.payload) == b'{"z": 1,  "a": [1.0]}'
        assert await status(ledger, task_id) is TaskStatus.QUEUED

    async def test_what_is_handed_back_is_claimed_again_as_the_same_generation(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([retry(task_id)])
        claimed = await ledger.tasks.claim_due(NOW + 10, 10)
        await ledger.tasks.hand_back(claimed, NOW + 20)
        assert await status(ledger, task_id) is TaskStatus.QUEUED
        assert await ledger.tasks.claim_stranded(NOW + 10**6, 10) == []
        assert await ledger.tasks.claim_due(NOW + 19, 10) == []
        [again] = await ledger.tasks.claim_due(NOW + 20, 10)
        assert (again.task.task_id, again.generation, again.attempt) == (task_id, 2, 2)
        assert await ledger.tasks.claim_due(NOW + 20, 10) == []

    async def test_what_ended_or_was_claimed_by_another_cannot_be_handed_back(self, ledger: Ledger) -> None:
        ended, cancelled, moved = [await accepted(ledger) for _ in range(3)]
        await ledger.tasks.record([retry(task_id) for task_id in (ended, cancelled, moved)])
        claimed = await ledger.tasks.claim_due(NOW + 10, 10)
        await ledger.tasks.record([success(ended, generation=2)])
        await ledger.tasks.cancel(cancelled, NOW + 11)
        [other] = await ledger.tasks.claim_stranded(NOW + 10**6, 10)
        assert (other.task.task_id, other.generation) == (moved, 3)
        await ledger.tasks.hand_back(claimed, NOW + 20)
        assert await ledger.tasks.claim_due(NOW + 10**7, 10) == []
        assert await status(ledger, ended) is TaskStatus.SUCCESS
        assert await status(ledger, cancelled) is TaskStatus.CANCELLED

    async def test_two_claimers_share_what_is_due(self, ledger: Ledger) -> None:
        ids = [await accepted(ledger) for _ in range(20)]
        await ledger.tasks.record([retry(task_id) for task_id in ids])
        claims = await asyncio.gather(*(ledger.tasks.claim_due(NOW + 10, 15) for _ in range(4)))
        claims.append(await ledger.tasks.claim_due(NOW + 10, 15))
        assert sorted(one.task.task_id for claim in claims for one in claim) == sorted(ids)

    async def test_a_repeated_retry_burns_no_attempt(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        assert await ledger.tasks.record([retry(task_id), retry(task_id)]) == [RECORDED, DUPLICATE]
        await ledger.tasks.claim_due(NOW + 10, 1)
        assert await ledger.tasks.record([retry(task_id)]) == [DUPLICATE]
        assert await status(ledger, task_id) is TaskStatus.QUEUED

    async def test_two_executions_of_one_generation_make_one_retry(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        assert await ledger.tasks.record([retry(task_id, delivery=1), retry(task_id, delivery=2)]) == [RECORDED, STALE]

    async def test_failed_attempts_are_remembered(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([started(task_id), retry(task_id)])
        await ledger.tasks.claim_due(NOW + 10, 1)
        await ledger.tasks.record([success(task_id, generation=2, attempt=2)])
        [attempt] = await ledger.reader.attempts(task_id)
        assert (attempt.attempt, attempt.generation, attempt.status) == (1, 1, TaskStatus.RETRYING)
        assert (attempt.error_type, attempt.error_message, attempt.completed_at) == ("Busy", "come back", NOW + 2)

    async def test_claims_are_bounded_and_the_longest_due_go_first(self, ledger: Ledger) -> None:
        ids = [await accepted(ledger) for _ in range(3)]
        await ledger.tasks.record([retry(task_id, at=NOW + 3 - place) for place, task_id in enumerate(ids)])
        assert [one.task.task_id for one in await ledger.tasks.claim_due(NOW + 10, 2)] == [ids[2], ids[1]]

    async def test_a_retry_without_a_time_is_due_when_its_attempt_ended(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([msgspec.structs.replace(retry(task_id), retry_at=None)])
        assert len(await ledger.tasks.claim_due(NOW + 2, 1)) == 1


class TestStranded:
    async def test_a_task_without_news_is_taken_as_the_next_generation_of_the_same_attempt(
        self, ledger: Ledger
    ) -> None:
        task_id = await accepted(ledger, at=NOW)
        assert await ledger.tasks.claim_stranded(NOW, 10) == []
        [claimed] = await ledger.tasks.claim_stranded(NOW + 1, 10)
        assert (claimed.task.task_id, claimed.generation, claimed.attempt) == (task_id, 2, 1)
        assert await ledger.tasks.claim_stranded(NOW + 2, 10) == []

    async def test_a_running_task_is_given_its_own_time_limit_on_top(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger, timeout_seconds=50.0)
        await ledger.tasks.record([started(task_id)])
        assert await ledger.tasks.claim_stranded(NOW + 50, 10) == []
        assert len(await ledger.tasks.claim_stranded(NOW + 52, 10)) == 1

    async def test_a_task_that_waits_for_its_retry_is_not_stranded(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([retry(task_id, at=NOW + 3600)])
        assert await ledger.tasks.claim_stranded(NOW + 100, 10) == []

    async def test_a_dispatch_is_news_and_a_decision_of_its_own(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        [claimed] = await ledger.tasks.claim_stranded(NOW + 100, 10)
        again = decision(claimed.task.request_id, task_id, agent="ben", at=time.time() + 1000)
        await ledger.tasks.redispatched([(task_id, again)])
        await ledger.tasks.redispatched([(task_id, again)])
        assert (await ledger.reader.task(task_id)).selected_agent == "ben"
        assert await ledger.tasks.claim_stranded(time.time() + 500, 10) == []
        await ledger.tasks.record([success(task_id, generation=2, agent="ben")])
        first, second = await ledger.decisions.history(0.0, 10)
        assert (first.decision.selected_agent, first.status) == ("ann", None)
        assert (second.decision.selected_agent, second.status) == ("ben", TaskStatus.SUCCESS)

    async def test_nothing_that_ended_is_claimed(self, ledger: Ledger) -> None:
        await ledger.tasks.record([success(await accepted(ledger))])
        assert await ledger.tasks.claim_stranded(time.time() + 100, 10) == []
        assert await ledger.tasks.claim_due(time.time() + 100, 10) == []


class TestCancellation:
    async def test_a_queued_task_is_cancelled_at_once(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        assert await ledger.tasks.cancel(task_id, NOW + 5) is TaskStatus.CANCELLED
        view = await ledger.reader.task(task_id)
        assert (view.status, view.completed_at, view.attempts) == (TaskStatus.CANCELLED, NOW + 5, 0)
        assert await ledger.tasks.record([success(task_id)]) == [STALE]
        assert await status(ledger, task_id) is TaskStatus.CANCELLED

    async def test_a_task_that_waits_for_its_retry_is_cancelled_at_once(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([retry(task_id)])
        assert await ledger.tasks.cancel(task_id, NOW + 5) is TaskStatus.CANCELLED
        assert await ledger.tasks.claim_due(NOW + 100, 10) == []
        assert (await ledger.reader.task(task_id)).attempts == 1

    async def test_a_running_task_is_marked_and_ends_when_its_agent_says_so(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([started(task_id)])
        assert await ledger.tasks.cancel(task_id, NOW + 5) is TaskStatus.RUNNING
        assert await ledger.tasks.cancel(task_id, NOW + 6) is TaskStatus.RUNNING
        assert await ledger.tasks.record([report(task_id, status=TaskStatus.CANCELLED)]) == [RECORDED]
        assert await status(ledger, task_id) is TaskStatus.CANCELLED

    async def test_a_success_still_counts_after_a_cancellation_was_asked_for(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([started(task_id)])
        await ledger.tasks.cancel(task_id, NOW + 5)
        assert await ledger.tasks.record([success(task_id)]) == [RECORDED]

    async def test_a_marked_task_whose_attempt_failed_is_not_tried_again(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([started(task_id)])
        await ledger.tasks.cancel(task_id, NOW + 5)
        await ledger.tasks.record([retry(task_id, at=NOW + 3600)])
        assert await ledger.tasks.claim_due(NOW + 6, 10) == []
        assert await status(ledger, task_id) is TaskStatus.CANCELLED

    async def test_a_marked_task_whose_agent_fell_silent_is_cancelled_instead_of_dispatched(
        self, ledger: Ledger
    ) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([started(task_id)])
        await ledger.tasks.cancel(task_id, NOW + 5)
        assert await ledger.tasks.claim_stranded(NOW + 100, 10) == []
        view = await ledger.reader.task(task_id)
        assert (view.status, view.attempts) == (TaskStatus.CANCELLED, 1)

    async def test_what_ended_or_was_never_there_cannot_be_cancelled(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([success(task_id), success("early")])
        for ended in (task_id, "early"):
            with pytest.raises(Conflict):
                await ledger.tasks.cancel(ended, NOW)
        with pytest.raises(NotFound):
            await ledger.tasks.cancel("unknown", NOW)


class TestReopening:
    async def test_a_dead_letter_runs_again_as_a_new_generation_with_a_new_budget(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([failure(task_id, TaskStatus.DEAD_LETTER, attempt=3, generation=1)])
        letter = await ledger.reader.dead_letter(task_id)
        assert (letter.reason, letter.attempts, letter.agent, letter.task_type) == ("it broke", 3, "ann", "echo")
        assert letter.redriven_at is None
        opened = await ledger.tasks.reopen(task_id, NOW + 20)
        assert (opened.generation, opened.attempt, opened.status) == (2, 1, TaskStatus.QUEUED)
        assert (await ledger.reader.dead_letter(task_id)).redriven_at == NOW + 20
        view = await ledger.reader.task(task_id)
        assert (view.status, view.error, view.completed_at) == (TaskStatus.QUEUED, None, None)
        assert await ledger.tasks.record([failure(task_id, TaskStatus.DEAD_LETTER, attempt=3)]) == [STALE]
        assert await ledger.tasks.record([success(task_id, generation=2)]) == [RECORDED]

    async def test_what_happened_before_is_kept_as_an_attempt(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([failure(task_id)])
        await ledger.tasks.reopen(task_id, NOW + 20)
        [attempt] = await ledger.reader.attempts(task_id)
        assert (attempt.status, attempt.error_type, attempt.generation) == (TaskStatus.FAILED, "Broken", 1)

    async def test_a_cancelled_task_runs_again_without_its_cancellation(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.cancel(task_id, NOW + 1)
        await ledger.tasks.reopen(task_id, NOW + 2)
        await ledger.tasks.record([retry(task_id, generation=2)])
        assert len(await ledger.tasks.claim_due(NOW + 10, 10)) == 1

    async def test_a_deadline_that_is_over_does_not_end_it_again(self, ledger: Ledger) -> None:
        over = await accepted(ledger, deadline=NOW + 5)
        ahead = await accepted(ledger, deadline=NOW + 500)
        await ledger.tasks.record([failure(over, TaskStatus.EXPIRED), failure(ahead)])
        assert (await ledger.tasks.reopen(over, NOW + 20)).task.deadline is None
        assert (await ledger.tasks.reopen(ahead, NOW + 20)).task.deadline == NOW + 500

    async def test_only_what_ended_without_success_is_reopened(self, ledger: Ledger) -> None:
        queued, done = await accepted(ledger), await accepted(ledger)
        await ledger.tasks.record([success(done), failure("early")])
        for not_ours in (queued, done):
            with pytest.raises(Conflict):
                await ledger.tasks.reopen(not_ours, NOW)
        for unknown in ("early", "unknown"):
            with pytest.raises(NotFound):
                await ledger.tasks.reopen(unknown, NOW)

    async def test_dead_letters_are_listed_newest_first(self, ledger: Ledger) -> None:
        ids = [await accepted(ledger) for _ in range(5)]
        for place, task_id in enumerate(ids):
            await ledger.tasks.record([failure(task_id, TaskStatus.DEAD_LETTER, completed_at=NOW + place)])
        first = await ledger.reader.dead_letters(3, None)
        second = await ledger.reader.dead_letters(3, first.next_cursor)
        assert [letter.task_id for letter in [*first.items, *second.items]] == ids[::-1]
        assert second.next_cursor is None
        with pytest.raises(NotFound):
            await ledger.reader.dead_letter("unknown")


class TestReading:
    async def test_pages_follow_each_other_without_gap_or_repetition(self, ledger: Ledger) -> None:
        entries = [entry(f"t-{number}", at=NOW + number // 3) for number in range(10)]
        await ledger.tasks.accept(entries)
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = await ledger.reader.tasks(TaskFilter(limit=4, cursor=cursor))
            seen += [view.task_id for view in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == [f"t-{number}" for number in reversed(range(10))]

    async def test_several_tasks_are_read_with_one_question_ended_or_not(self, ledger: Ledger) -> None:
        queued, done = await accepted(ledger), await accepted(ledger)
        await ledger.tasks.record([success(done), failure("early")])
        found = await ledger.reader.several([queued, done, "early", done, "unknown", "never\0given"])
        assert sorted(view.task_id for view in found.items) == sorted([queued, done, "early"])
        assert {view.task_id: view for view in found.items} == {
            task_id: await ledger.reader.task(task_id) for task_id in (queued, done, "early")
        }
        assert not found.more

    async def test_several_tasks_with_large_results_come_in_parts(self, ledger: Ledger) -> None:
        ids = [await accepted(ledger) for _ in range(3)]
        noise = random.Random(7).randbytes(ENDED_BYTES * 3 // 8).hex()
        await ledger.tasks.record([success(task_id, result=msgspec.Raw(msgspec.json.encode(noise))) for task_id in ids])
        seen: set[str] = set()
        parts = 0
        more = True
        while more:
            page = await ledger.reader.several([task_id for task_id in ids if task_id not in seen])
            assert page.items
            seen.update(view.task_id for view in page.items)
            parts, more = parts + 1, page.more
        assert seen == set(ids)
        assert parts > 1
        assert len((await ledger.reader.several(ids, 1000)).items) == 1

    async def test_filters_select(self, ledger: Ledger) -> None:
        await ledger.tasks.accept(
            [
                entry("old", at=NOW - 100),
                entry("other", task_type="sum"),
                entry("bens", agent="ben"),
                entry("failed"),
                entry("runs"),
                entry("done"),
            ]
        )
        await ledger.tasks.record([failure("failed"), started("runs"), success("done")])

        async def found(**wanted: Any) -> set[str]:
            return {view.task_id for view in (await ledger.reader.tasks(TaskFilter(**wanted))).items}

        assert await found(status=TaskStatus.FAILED) == {"failed"}
        assert await found(status=TaskStatus.RUNNING) == {"runs"}
        assert await found(status=TaskStatus.SUCCESS) == {"done"}
        assert await found(status=TaskStatus.QUEUED) == {"old", "other", "bens"}
        assert await found(task_type="sum") == {"other"}
        assert await found(agent="ben") == {"bens"}
        assert await found(since=NOW, task_type="echo", status=TaskStatus.QUEUED) == {"bens"}
        assert await ledger.reader.counts() == {"queued": 3, "failed": 1, "running": 1, "success": 1}

    async def test_a_list_shows_no_results(self, ledger: Ledger) -> None:
        task_id = await accepted(ledger)
        await ledger.tasks.record([success(task_id)])
        [view] = (await ledger.reader.tasks(TaskFilter())).items
        assert (view.task_id, view.result, view.completed_at) == (task_id, None, NOW + 2)

    @pytest.mark.parametrize(
        "cursor",
        [
            *("", "x", "bm9wZQ", "WzEsMl0", "é", "W251bGwsIiJd", "A" * 5000),
            *(encode_cursor(Place(*place)) for place in [(-1, "x"), (2**63, "x"), (1, "a\0")]),
        ],
    )
    async def test_a_cursor_we_did_not_give_out_is_refused_by_name(self, ledger: Ledger, cursor: str) -> None:
        for read in (
            ledger.reader.tasks(TaskFilter(cursor=cursor)),
            ledger.reader.dead_letters(10, cursor),
            ledger.decisions.decisions(DecisionFilter(cursor=cursor)),
        ):
            with pytest.raises(InvalidRequest) as caught:
                await read
            assert caught.value.field == "cursor"

    async def test_pages_are_bounded(self, ledger: Ledger) -> None:
        await ledger.tasks.accept([entry() for _ in range(1005)])
        assert len((await ledger.reader.tasks(TaskFilter(limit=1_000_000))).items) == 1000
        assert len((await ledger.reader.tasks(TaskFilter(limit=0))).items) == 1

    async def test_of_many_tasks_those_that_ended_are_read_at_once(self, ledger: Ledger) -> None:
        done, bad, open_ = await accepted(ledger), await accepted(ledger), await accepted(ledger)
        orphan = str(uuid4())
        await ledger.tasks.record([success(done), failure(bad), success(orphan), started(open_)])
        found = await ledger.reader.ended([done, bad, open_, orphan, done, str(uuid4()), "a\0b", "\ud800"])
        assert {view.task_id: view for view in found.items} == {
            task_id: await ledger.reader.task(task_id) for task_id in (done, bad, orphan)
        }
        assert (len(found.items), found.more) == (3, False)
        assert (await ledger.reader.ended([open_])).items == []

    async def test_large_outcomes_are_read_a_few_at_a_time(self, ledger: Ledger) -> None:
        # Random digits, because what is stored is compressed.
        large = msgspec.Raw(msgspec.json.encode(random.Random(1).randbytes(1_100_000).hex()))
        task_ids = [str(uuid4()) for _ in range(5)]
        await ledger.tasks.record([success(task_id, result=large) for task_id in task_ids])
        found = await ledger.reader.ended(task_ids)
        assert found.more
        assert 1 <= len(found.items) < 5
        rest = await ledger.reader.ended([one for one in task_ids if one not in {v.task_id for v in found.items}])
        assert rest.items

    @pytest.mark.parametrize("name", ["unknown", "a\0b"])
    async def test_what_was_never_there_is_not_found(self, ledger: Ledger, name: str) -> None:
        for read in (ledger.reader.task(name), ledger.reader.dead_letter(name), ledger.decisions.decision(name)):
            with pytest.raises(NotFound):
                await read


class TestDecisions:
    async def test_a_decision_is_read_back_as_it_was(self, ledger: Ledger) -> None:
        one = decision("r-1", explored=True)
        bare = decision("r-2", context=None, candidates=(), rejected=())
        await ledger.decisions.log([one, bare])
        assert await ledger.decisions.decision("r-1") == one
        assert await ledger.decisions.decision("r-2") == bare

    async def test_decisions_are_paged_and_filtered(self, ledger: Ledger) -> None:
        await ledger.decisions.log([decision(f"r-{number}", at=NOW + number // 2) for number in range(7)])
        await ledger.decisions.log([decision("other", task_type="sum", agent="ben", at=NOW + 10)])

        async def pages(**wanted: Any) -> list[str]:
            seen: list[str] = []
            cursor: str | None = None
            while True:
                page = await ledger.decisions.decisions(DecisionFilter(limit=3, cursor=cursor, **wanted))
                seen += [one.request_id for one in page.items]
                cursor = page.next_cursor
                if cursor is None:
                    return seen

        assert await pages() == ["other", *(f"r-{number}" for number in reversed(range(7)))]
        assert await pages(task_type="echo") == [f"r-{number}" for number in reversed(range(7))]
        assert await pages(agent="ben") == ["other"]
        assert await pages(since=NOW + 3) == ["other", "r-6"]

    async def test_history_joins_what_was_dispatched_with_what_came_of_it(self, ledger: Ledger) -> None:
        await ledger.tasks.accept([entry("good", at=NOW), entry("bad", at=NOW + 1), entry("open", at=NOW + 2)])
        await ledger.decisions.log([decision("advice", at=NOW + 3)])
        await ledger.tasks.record([success("good", quality=0.5, cost=2.0, execution_time_ms=7.0), retry("bad")])
        good, bad, under_way = await ledger.decisions.history(NOW, 10)
        assert (good.status, good.quality, good.cost, good.execution_time_ms) == (TaskStatus.SUCCESS, 0.5, 2.0, 7.0)
        assert (bad.decision.task_id, bad.status) == ("bad", TaskStatus.RETRYING)
        assert (under_way.decision.task_id, under_way.status) == ("open", None)
        assert [one.decision.task_id for one in await ledger.decisions.history(NOW, 2)] == ["bad", "open"]

    async def test_an_outline_says_of_a_decision_what_judging_it_needs(self, ledger: Ledger) -> None:
        chosen = decision("r-few", "few", at=NOW)
        among = msgspec.structs.replace(decision("r-many", "many", at=NOW + 1), eligible=("ann", "ben", "cleo"))
        entries = [entry("few", at=NOW), entry("many", at=NOW + 1)]
        await ledger.tasks.accept([Entry(one.task, told) for one, told in zip(entries, (chosen, among), strict=True)])
        await ledger.tasks.record([success("few", quality=0.5, cost=2.0), retry("many")])
        whole, outlines = await ledger.decisions.history(NOW, 10), await ledger.decisions.outlines(NOW, 10)
        assert [one.decision.agents for one in outlines] == [chosen.agents, ("ann", "ben", "cleo")]
        for one, outline in zip(whole, outlines, strict=True):
            assert (outline.status, outline.quality, outline.cost) == (one.status, one.quality, one.cost)
            for name in ("request_id", "task_type", "selected_agent", "propensity", "policy_version", "created_at"):
                assert getattr(outline.decision, name) == getattr(one.decision, name)
            assert outline.decision.deterministic == one.decision.deterministic
        await ledger.decisions.log([decision("advice", at=NOW)])
        assert await ledger.decisions.outlines(NOW, 1) == outlines[:1]
        assert await ledger.decisions.outlines_of(["r-many", "advice", "nobody"]) == outlines[1:]
        assert await ledger.decisions.outlines_of([]) == []


class TestAgents:
    async def test_what_an_agent_says_is_replaced_and_what_an_operator_says_stays(self, ledger: Ledger) -> None:
        profile = AgentProfile(name="ann", agent_type="nlp", capabilities=(Capability(task_type="echo"),))
        other = msgspec.structs.replace(profile, name="ben")
        assert await ledger.agents.register([profile, other], NOW) == {}
        await ledger.agents.set_status("ann", "quarantined")
        await ledger.agents.set_status("ben", "a word of another version")
        changed = msgspec.structs.replace(profile, metadata={"model": "small"})
        assert await ledger.agents.register([other, changed], NOW + 10) == {"ann": AgentMode.QUARANTINED}
        await ledger.agents.seen(["ann", "unknown"], NOW + 20)
        await ledger.agents.seen(["ann"], NOW + 5)
        ann, _ = await ledger.agents.agents()
        assert (ann.name, ann.agent_type, ann.status, ann.metadata) == ("ann", "nlp", "quarantined", {"model": "small"})
        assert (ann.created_at, ann.last_seen) == (NOW, NOW + 20)
        assert [one["task_type"] for one in ann.capabilities] == ["echo"]

    async def test_an_operator_may_speak_about_an_agent_that_was_never_heard(self, ledger: Ledger) -> None:
        await ledger.agents.set_status("ghost", "draining")
        [ghost] = await ledger.agents.agents()
        assert (ghost.name, ghost.status, ghost.last_seen) == ("ghost", "draining", None)


class TestRetention:
    async def test_what_ended_long_ago_is_forgotten_and_what_is_open_is_kept(self, ledger: Ledger) -> None:
        open_task, done = await accepted(ledger), await accepted(ledger)
        await ledger.tasks.record([failure(done, TaskStatus.DEAD_LETTER), success("early")])
        await ledger.decisions.log([decision("advice")])
        assert await ledger.retention.purge(time.time() - 3600) == Purged(0, 0, 1)
        assert await ledger.retention.purge(time.time() + 3600) == Purged(1, 2, 1)
        assert await status(ledger, open_task) is TaskStatus.QUEUED
        assert (await ledger.decisions.decision(f"r-{open_task}")).task_id == open_task
        for gone in (ledger.reader.task(done), ledger.reader.dead_letter(done), ledger.decisions.decision(f"r-{done}")):
            with pytest.raises(NotFound):
                await gone


async def test_a_ledger_says_that_it_answers(ledger: Ledger) -> None:
    assert await ledger.check() is True


finals = st.sampled_from([TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.DEAD_LETTER, TaskStatus.EXPIRED])
epochs = st.fixed_dictionaries({"generation": st.integers(1, 3), "delivery": st.integers(1, 2)})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(finals, epochs), max_size=12), st.integers(0, 2), st.lists(st.integers(1, 12), max_size=4))
async def test_any_interleaving_leaves_the_first_acceptable_outcome(
    ledger: Ledger, outcomes: list[tuple[TaskStatus, dict[str, int]]], raised: int, cuts: list[int]
) -> None:
    """However the reports are cut into batches."""
    task_id = await accepted(ledger)
    for generation in range(1, raised + 1):
        await ledger.tasks.record([retry(task_id, generation=generation)])
        assert len(await ledger.tasks.claim_due(NOW + 10, 1)) == 1
    reports = [
        failure(task_id, kind, error=TaskError("E", str(place)), **epoch)
        for place, (kind, epoch) in enumerate(outcomes)
    ]
    verdicts: list[Verdict] = []
    edges = sorted({0, len(reports), *(cut for cut in cuts if cut < len(reports))})
    for start, end in pairwise(edges):
        verdicts += await ledger.tasks.record(reports[start:end])
    acceptable = [one for one in reports if one.status is TaskStatus.SUCCESS or one.generation == raised + 1]
    view = await ledger.reader.task(task_id)
    assert sum(verdict.kept for verdict in verdicts) == (1 if acceptable else 0)
    assert view.status is (acceptable[0].status if acceptable else TaskStatus.QUEUED)
    if acceptable:
        expected = RECORDED if acceptable[0].generation == raised + 1 else Verdict.LATE
        assert verdicts[reports.index(acceptable[0])] is expected
        assert view.error == acceptable[0].error


async def test_a_shared_secret_is_the_same_for_everybody(ledger: Ledger) -> None:
    proposals = [b"%d" % number * 32 for number in range(8)]
    told = await asyncio.gather(*(ledger.secrets.shared("password", proposal) for proposal in proposals))
    assert len(set(told)) == 1
    assert told[0] in proposals
    assert await ledger.secrets.shared("password", b"too late") == told[0]
    assert await ledger.secrets.shared("another", b"word") == b"word"
