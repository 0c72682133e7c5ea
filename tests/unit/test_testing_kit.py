"""The kit users test their engines with: it must pass good engines and name what is wrong with bad ones."""

from __future__ import annotations

import asyncio

import pytest

from agent_engines import DecisionContext, Engine, TaskFailed
from agent_engines.domain.errors import ContractViolation
from agent_engines.testing import check_engine, in_process, local_stack


def greeter() -> Engine:
    engine = Engine("greeter")

    @engine.task("greet")
    async def greet(payload: dict[str, str]) -> dict[str, str]:
        return {"text": f"Hello, {payload['name']}!"}

    return engine


async def test_a_task_runs_through_the_whole_system_in_process() -> None:
    """Submit, route, run, record, without any server; the decision can be read back."""
    async with in_process(greeter()) as stack:
        handle = await stack.client.submit("greet", {"name": "Ada"})
        assert await handle.result(timeout=10) == {"text": "Hello, Ada!"}
        view = await handle.status()
    assert view.selected_agent == "greeter"


async def test_the_first_question_after_the_start_finds_the_engines() -> None:
    """`client.submit` is patient, a decision is not: who asks at once must not be told that nobody is there."""
    async with in_process(greeter()) as stack:
        choice = await stack.intelligence.route_task(DecisionContext(request_id="first", task_type="greet"))
    assert choice.selected_agent == "greeter"


async def test_a_task_runs_through_the_whole_system_on_real_servers() -> None:
    """The same on NATS, PostgreSQL and Valkey; a failure arrives as an exception with its reason."""
    engine = greeter()

    @engine.task("refuse", max_attempts=1)
    async def refuse(payload: None) -> None:
        raise ValueError("not today")

    async with local_stack(engine) as stack:
        choice = await stack.intelligence.route_task(DecisionContext(request_id="first", task_type="greet"))
        done = await stack.client.submit("greet", {"name": "Ada"})
        failing = await stack.client.submit("refuse")
        assert await done.result(timeout=20) == {"text": "Hello, Ada!"}
        with pytest.raises(TaskFailed, match="not today"):
            await failing.result(timeout=20)
        health = await stack.intelligence.health()
    assert choice.selected_agent == "greeter"
    assert health.checks == {"nats": True, "postgres": True, "redis": True}


async def test_a_good_engine_passes_the_checks() -> None:
    """Nothing to complain about."""
    await check_engine(greeter, {"greet": {"name": "Ada"}})


async def test_a_failing_sample_is_named() -> None:
    """The check says which task type failed and why."""
    with pytest.raises(ContractViolation, match="greet"):
        await check_engine(greeter, {"greet": {"wrong": "field"}})


async def test_a_task_type_without_a_sample_is_named() -> None:
    """A check that checks nothing must not pass."""
    with pytest.raises(ContractViolation, match="no sample payload for greet"):
        await check_engine(greeter, {})


async def test_work_left_behind_is_named() -> None:
    """An engine that starts background work of its own and forgets it does not pass."""
    forgotten: list[asyncio.Task[bool]] = []

    def leaky() -> Engine:
        engine = Engine("leaky")

        @engine.task("leak")
        async def leak(payload: None) -> None:
            forgotten.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))

        return engine

    try:
        with pytest.raises(ContractViolation, match="forgotten"):
            await check_engine(leaky, {"leak": None})
    finally:
        for task in forgotten:
            task.cancel()
