"""Submissions: accepted twice durably or refused with a reason; decided, explained, counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from agent_engines.domain.agents import Load
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import InvalidRequest, NoEligibleAgent, NotFound, Unavailable
from agent_engines.domain.messages import Refusal, SubmitResult, TaskMessage
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.ports.ledger import DecisionFilter, Entry, Known, TaskFilter
from routing_house import RoutingHouse, settle


def key_made_at(moment: float) -> str:
    """A version 7 UUID."""
    stamp = f"{int(moment * 1000):012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7abc-8def-0123456789ab"


def refused(results: Sequence[SubmitResult], place: int = 0) -> Refusal:
    found = results[place].refused
    assert found is not None
    return found


async def test_an_accepted_task_is_in_the_ledger_and_on_the_bus_with_its_decision() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", metadata={"region": "eu"})
        answer = await house.submit(payload={"x": 1}, requirements={"region": "eu"}, priority=1, metadata={"m": "n"})
        assert (answer.status, answer.selected_agent, answer.strategy) == (TaskStatus.QUEUED, "a", "load_aware")
        assert 0 < answer.confidence <= 1
        assert answer.propensity == 1.0
        view = await house.ledger.reader.task(answer.task_id)
        assert (view.status, view.selected_agent, view.priority) == (TaskStatus.QUEUED, "a", 1)
        (message,) = await house.queued("a")
        assert (message.task_id, message.generation, message.attempt) == (answer.task_id, 1, 1)
        assert (bytes(message.payload), message.requirements, message.metadata) == (
            b'{"x":1}',
            {"region": "eu"},
            {"m": "n"},
        )
        assert (message.origin, message.dispatched_at) == ("here", house.clock.now())
        decision = await house.ledger.decisions.decision(answer.request_id)
        assert decision.task_id == answer.task_id
        assert decision.context is not None
        assert decision.context.requirements == {"region": "eu"}
        assert sum(candidate.probability for candidate in decision.candidates) == pytest.approx(1.0)


async def test_the_routing_log_line_has_its_promised_fields() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        answer = await house.submit()
        (line,) = [line for line in house.telemetry.lines if line.message == "Task routed successfully"]
        assert line.level == "info"
        assert set(line.context) == {"task_id", "task_type", "selected_agent", "confidence", "duration_ms"}
        assert line.context["task_id"] == answer.task_id
        assert house.telemetry.decisions["load_aware", "success"] == 1


async def test_attempts_come_from_the_request_then_from_the_handler() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.submit()
        await house.submit(max_attempts=9)
        assert [message.max_attempts for message in await house.queued("a")] == [4, 9]


async def test_the_same_key_and_body_get_the_first_answer_and_run_once() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        first = await house.submit(payload={"x": 1}, idempotency_key="k")
        second = await house.submit(payload={"x": 1}, idempotency_key="k")
        assert second == msgspec.structs.replace(first, existing=True)
        assert not first.existing
        assert len(await house.queued("a")) == 1


async def test_the_same_key_with_another_body_is_a_conflict() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.submit(payload=1, idempotency_key="k")
        results = await house.dispatcher.submit([TaskRequest(task_type="echo", payload=2, idempotency_key="k")])
        assert refused(results).kind == "Conflict"
        assert len(await house.queued("a")) == 1


async def test_one_key_twice_in_one_submission_runs_once() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        request = TaskRequest(task_type="echo", payload=1, idempotency_key="k")
        other = TaskRequest(task_type="echo", payload=2, idempotency_key="k")
        first, second, third = await house.dispatcher.submit([request, request, other])
        assert first.accepted is not None
        assert second.accepted is not None
        assert (first.accepted.existing, second.accepted.existing) == (False, True)
        assert third.refused is not None
        assert third.refused.kind == "Conflict"
        assert len(await house.queued("a")) == 1


async def test_a_key_is_not_published_before_the_ledger_said_that_it_is_new() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        gate = asyncio.Event()
        accept = house.ledger.tasks.accept

        async def slow(entries: Sequence[Entry]) -> list[Known]:
            await gate.wait()
            return await accept(entries)

        house.ledger.tasks.accept = slow  # type: ignore[method-assign]
        keyed = asyncio.ensure_future(house.submit(idempotency_key="k"))
        plain = asyncio.ensure_future(house.submit())
        await settle()
        published = await house.queued("a")
        assert len(published) == 1
        assert not keyed.done()
        assert not plain.done()
        gate.set()
        assert (await plain).task_id == published[0].task_id
        assert (await house.queued("a"))[0].task_id == (await keyed).task_id


async def test_a_key_made_for_this_submission_is_published_while_the_ledger_commits() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        gate = asyncio.Event()
        accept = house.ledger.tasks.accept

        async def slow(entries: Sequence[Entry]) -> list[Known]:
            await gate.wait()
            return await accept(entries)

        house.ledger.tasks.accept = slow  # type: ignore[method-assign]
        request = TaskRequest(task_type="echo", payload=1, idempotency_key=key_made_at(house.clock.now() - 20.0))
        fresh = asyncio.ensure_future(house.dispatcher.submit([request], fresh=True))
        await settle()
        (message,) = await house.queued("a")
        assert not fresh.done(), "no promise before the ledger's commit"
        gate.set()
        accepted = (await fresh)[0].accepted
        assert accepted is not None
        assert accepted.task_id == message.task_id


@pytest.mark.parametrize("age", [None, -60.0, 60.0])
async def test_a_key_is_called_fresh_in_vain_when_its_moment_does_not_say_so(age: float | None) -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        gate = asyncio.Event()
        accept = house.ledger.tasks.accept

        async def slow(entries: Sequence[Entry]) -> list[Known]:
            await gate.wait()
            return await accept(entries)

        house.ledger.tasks.accept = slow  # type: ignore[method-assign]
        key = "k" if age is None else key_made_at(house.clock.now() - age)
        request = TaskRequest(task_type="echo", payload=1, idempotency_key=key)
        submitting = asyncio.ensure_future(house.dispatcher.submit([request], fresh=True))
        await settle()
        assert await house.queued("a") == []
        gate.set()
        assert (await submitting)[0].accepted is not None
        assert len(await house.queued("a")) == 1


async def test_a_fresh_key_the_ledger_could_not_take_is_accepted_once_when_it_is_sent_again() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        accept = house.ledger.tasks.accept

        async def away(entries: Sequence[Entry]) -> list[Known]:
            raise Unavailable("the ledger is away")

        request = TaskRequest(task_type="echo", payload=1, idempotency_key=key_made_at(house.clock.now()))
        house.ledger.tasks.accept = away  # type: ignore[method-assign]
        assert refused(await house.dispatcher.submit([request], fresh=True)).kind == "Unavailable"
        house.ledger.tasks.accept = accept  # type: ignore[method-assign]
        again = (await house.dispatcher.submit([request]))[0].accepted
        assert again is not None
        assert not again.existing
        assert [message.task_id for message in await house.queued("a")] == [again.task_id]


async def test_one_bad_request_does_not_disturb_the_others() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        results = await house.dispatcher.submit(
            [
                TaskRequest(task_type="echo", payload=1),
                TaskRequest(task_type="echo", priority=9),
                TaskRequest(task_type="unknown"),
                TaskRequest(task_type="echo", requirements={"x": {"~": 1}}),
                TaskRequest(task_type="echo", payload=2),
            ]
        )
        assert [result.accepted is not None for result in results] == [True, False, False, False, True]
        assert [refused(results, place).kind for place in (1, 2, 3)] == [
            "InvalidRequest",
            "NoEligibleAgent",
            "InvalidRequest",
        ]
        assert [refused(results, place).field for place in (1, 2, 3)] == ["priority", None, "requirements.x"]
        assert [bytes(message.payload) for message in await house.queued("a")] == [b"1", b"2"]


async def test_nobody_able_says_why_each_agent_fell_and_when_to_come_back() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", metadata={"gpu": False})
        await house.beat("b", ("other",))
        results = await house.dispatcher.submit([TaskRequest(task_type="echo", requirements={"gpu": True})])
        refusal = refused(results)
        assert (refusal.kind, refusal.retry_after) == ("NoEligibleAgent", 1.0)
        assert "a: gpu is false, wanted true" in refusal.detail
        assert "b: does not perform 'echo'" in refusal.detail
        assert house.telemetry.decisions["load_aware", "no_agent"] == 1


async def test_a_full_queue_refuses_and_leaves_nothing_behind() -> None:
    async with RoutingHouse(max_tasks_per_class=1) as house:
        await house.beat("a")
        await house.submit()
        for fields in ({}, {"idempotency_key": "k"}):
            results = await house.dispatcher.submit([TaskRequest(task_type="echo", **fields)])
            assert refused(results).kind == "QueueFull"
        assert len((await house.ledger.reader.tasks(TaskFilter())).items) == 1
        assert len((await house.ledger.decisions.decisions(DecisionFilter())).items) == 1
        assert house.telemetry.decisions["load_aware", "queue_full"] == 2


async def test_a_key_refused_by_a_full_queue_is_new_the_next_time() -> None:
    async with RoutingHouse(max_tasks_per_class=1) as house:
        await house.beat("a")
        await house.submit()
        request = TaskRequest(task_type="echo", idempotency_key="k")
        assert refused(await house.dispatcher.submit([request])).kind == "QueueFull"
        await house.queued("a")
        (again,) = await house.dispatcher.submit([request])
        assert again.accepted is not None
        assert not again.accepted.existing


async def test_a_ledger_that_is_away_accepts_nothing() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")

        async def away(entries: Sequence[Entry]) -> list[Known]:
            raise Unavailable("the ledger is away", retry_after=2.0)

        house.ledger.tasks.accept = away  # type: ignore[method-assign]
        for fields in ({}, {"idempotency_key": "k"}):
            results = await house.dispatcher.submit([TaskRequest(task_type="echo", **fields)])
            assert refused(results).kind == "Unavailable"
            assert refused(results).retry_after == 2.0


async def test_a_bus_that_is_away_accepts_nothing_and_leaves_the_row_to_the_reconciler() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        house.bus.switch(False)
        results = await house.dispatcher.submit([TaskRequest(task_type="echo")])
        assert refused(results).kind == "Unavailable"
        (row,) = (await house.ledger.reader.tasks(TaskFilter())).items
        assert row.status is TaskStatus.QUEUED
        assert house.telemetry.decisions["load_aware", "unavailable"] == 1


async def test_a_task_the_ledger_cannot_store_refuses_only_itself() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        accept = house.ledger.tasks.accept

        async def picky(entries: Sequence[Entry]) -> list[Known]:
            if any(bytes(entry.task.payload) == b'"poison"' for entry in entries):
                raise ValueError("cannot be stored")
            return await accept(entries)

        house.ledger.tasks.accept = picky  # type: ignore[method-assign]
        payloads: list[Any] = [1, "poison", 2]
        results = await house.dispatcher.submit([TaskRequest(task_type="echo", payload=load) for load in payloads])
        assert [result.accepted is not None for result in results] == [True, False, True]
        assert refused(results, 1).kind == "InvalidRequest"


async def test_an_own_write_that_came_through_before_is_no_repetition() -> None:
    """The ledger's adapter repeats a commit whose answer was lost; it then finds its own rows."""
    async with RoutingHouse() as house:
        await house.beat("a")
        accept = house.ledger.tasks.accept

        async def twice(entries: Sequence[Entry]) -> list[Known]:
            await accept(entries)
            return await accept(entries)

        house.ledger.tasks.accept = twice  # type: ignore[method-assign]
        answer = await house.submit(idempotency_key="k")
        assert not answer.existing
        assert [message.task_id for message in await house.queued("a")] == [answer.task_id]


async def test_decisions_of_one_submission_see_each_other() -> None:
    async with RoutingHouse() as house:
        for name in "ab":
            await house.beat(name, load=Load(slots=1))
        results = await house.dispatcher.submit([TaskRequest(task_type="echo") for _ in range(60)])
        assert {result.accepted is not None for result in results} == {True}
        in_flight = [member.in_flight() for member in house.fleet.roster("echo", {}).members]
        assert sum(in_flight) == 60
        assert max(in_flight) <= 34


async def test_refused_tasks_are_not_counted_as_load() -> None:
    async with RoutingHouse(max_tasks_per_class=1) as house:
        await house.beat("a")
        await house.submit()
        keyed = TaskRequest(task_type="echo", idempotency_key="k")
        await house.dispatcher.submit([TaskRequest(task_type="echo"), keyed])
        assert house.fleet.roster("echo", {}).members[0].in_flight() == 1


async def test_many_submissions_share_few_commits() -> None:
    async with RoutingHouse(lanes=1) as house:
        await house.beat("a", load=Load(slots=1000))
        sizes: list[int] = []
        accept = house.ledger.tasks.accept

        async def counted(entries: Sequence[Entry]) -> list[Known]:
            sizes.append(len(entries))
            return await accept(entries)

        house.ledger.tasks.accept = counted  # type: ignore[method-assign]
        answers = await asyncio.gather(*(house.submit() for _ in range(300)))
        assert len({answer.task_id for answer in answers}) == 300
        assert sum(sizes) == 300
        assert len(sizes) <= 5


async def test_origins_that_cannot_be_a_subject_are_refused() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        for origin in ("", "a.b", "*", ">", "x" * 65, "a b"):
            with pytest.raises(InvalidRequest):
                await house.dispatcher.submit([TaskRequest(task_type="echo")], origin=origin)


async def test_a_recommendation_is_recorded_and_dispatches_nothing() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        decision = await house.dispatcher.recommend(DecisionContext(request_id="r1", task_type="echo"))
        again = await house.dispatcher.recommend(DecisionContext(request_id="r2", task_type="echo"))
        assert (decision.selected_agent, decision.task_id, again.request_id) == ("a", None, "r2")
        assert (await house.ledger.decisions.decision("r1")).reasoning == decision.reasoning
        assert await house.queued("a") == []
        with pytest.raises(NotFound):
            await house.ledger.decisions.decision("r3")


async def test_a_recommendation_for_nobody_or_nonsense_is_refused() -> None:
    async with RoutingHouse() as house:
        with pytest.raises(NoEligibleAgent, match="no agent has been heard from"):
            await house.dispatcher.recommend(DecisionContext(request_id="r", task_type="echo"))
        with pytest.raises(InvalidRequest):
            await house.dispatcher.recommend(DecisionContext(request_id="", task_type="echo"))
        with pytest.raises(InvalidRequest):
            await house.dispatcher.recommend(DecisionContext(request_id="r", task_type="a\nb"))


async def test_the_same_seed_and_fleet_make_the_same_choices() -> None:
    async def choices(seed: int) -> list[str | None]:
        async with RoutingHouse(seed=seed) as house:
            for name in "abcd":
                await house.beat(name)
            return [(await house.submit()).selected_agent for _ in range(30)]

    assert await choices(5) == await choices(5)
    assert await choices(5) != await choices(6)


async def test_avoided_agents_are_taken_only_when_nobody_else_can() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        context = DecisionContext(request_id="r", task_type="echo")
        assert house.dispatcher.decide(context, avoid="a").selected_agent == "a"
        await house.beat("b")
        assert {house.dispatcher.decide(context, avoid="a").selected_agent for _ in range(50)} == {"b"}


async def test_a_closed_dispatcher_refuses() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.dispatcher.close()
        results = await house.dispatcher.submit([TaskRequest(task_type="echo")])
        assert refused(results).kind == "Unavailable"


async def test_an_unexpected_error_of_the_bus_is_logged_and_refuses() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")

        async def broken(messages: Sequence[TaskMessage]) -> list[Exception | None]:
            return [RuntimeError("a bug") for _ in messages]

        house.bus.tasks.publish_tasks = broken  # type: ignore[method-assign]
        results = await house.dispatcher.submit([TaskRequest(task_type="echo")])
        assert refused(results).kind == "Unavailable"
        assert "A task could not be published" in house.telemetry.messages("error")
