"""Behaviour checks for users' engines: `await check_engine(make_engine, samples)` in one of your tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from agent_engines.domain.agents import AgentState
from agent_engines.domain.errors import ContractViolation
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.runtime.engine import Engine

from .stack import in_process

TASK_SECONDS = 30.0


async def check_engine(make: Callable[[], Engine], samples: Mapping[str, Any]) -> None:
    """Check what the runtime relies on. `samples` has one payload that must succeed for each task type.

    The engine starts, performs every sample through the whole system, stops twice, leaves nothing running, and gives the
    same kind of answer when called locally. Raises ContractViolation naming what does not hold.
    """
    declared = {capability.task_type for capability in make().profile.capabilities}
    if missing := sorted(declared - set(samples)):
        raise ContractViolation(f"there is no sample payload for {', '.join(missing)}")
    await _check_locally(make(), samples)
    before = asyncio.all_tasks()
    engine = make()
    async with in_process(engine) as stack:
        for task_type, payload in samples.items():
            handle = await stack.client.submit(task_type, payload)
            view = await handle.outcome(TASK_SECONDS)
            if view.status is not TaskStatus.SUCCESS:
                raise ContractViolation(f"{task_type!r} ended as {view.status}: {view.error}")
    await engine.stop()
    if engine.state is not AgentState.STOPPED:
        raise ContractViolation(f"after stop() the engine is {engine.state}")
    if left := [task.get_name() for task in asyncio.all_tasks() - before if not task.done()]:
        raise ContractViolation(f"after stop() these tasks still run: {', '.join(sorted(left))}")


async def _check_locally(engine: Engine, samples: Mapping[str, Any]) -> None:
    for task_type, payload in samples.items():
        answer = await engine.handle_task(TaskRequest(task_type=task_type, payload=payload))
        if answer["status"] != "success":
            raise ContractViolation(f"{task_type!r} called locally: {answer['error']}")
    await engine.stop()
