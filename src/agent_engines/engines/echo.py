"""The built-in echo agent: something that answers on a fresh installation, and misbehaves on request."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec

from agent_engines.domain.errors import PermanentFailure
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.engine import Engine

MAX_SLEEP_SECONDS = 3600.0
PROGRESS_STEPS = 10
CRASH_EXIT_CODE = 1


class Sleep(msgspec.Struct):
    """How long to do nothing, at most an hour."""

    seconds: float = 1.0


class Fail(msgspec.Struct):
    """How to fail: always, `permanent`ly, the first `times` attempts only, or by ending the whole process (`exit`)."""

    permanent: bool = False
    times: int | None = None
    exit: bool = False
    message: str = "told to fail"


def echo_engine(agent_id: str | AgentConfig = "echo") -> Engine:
    """An agent with the task types test, echo, sleep and fail."""
    engine = Engine(agent_id, agent_type="echo", metadata={"built_in": True})
    engine.task("test", idempotent=True)(answer)
    engine.task("echo", idempotent=True)(echo)
    engine.task("sleep", idempotent=True, timeout_seconds=MAX_SLEEP_SECONDS + 1)(sleep)
    engine.task("fail", idempotent=True)(fail)
    return engine


async def answer(payload: Any) -> dict[str, Any]:
    """{"ok": true, "echo": payload}"""
    return {"ok": True, "echo": payload}


async def echo(payload: Any) -> Any:
    """The payload."""
    return payload


async def sleep(context: TaskContext, payload: Sleep | None) -> dict[str, float]:
    """{"slept": seconds}; tells its progress in tenths."""
    wanted = 1.0 if payload is None else payload.seconds
    seconds = min(max(wanted, 0.0), MAX_SLEEP_SECONDS)
    for step in range(PROGRESS_STEPS):
        await asyncio.sleep(seconds / PROGRESS_STEPS)
        await context.progress(
            (step + 1) / PROGRESS_STEPS, f"{(step + 1) * seconds / PROGRESS_STEPS:.3g} s of {seconds:g} s"
        )
    return {"slept": seconds}


async def fail(context: TaskContext, payload: Fail | None) -> dict[str, int]:
    """{"attempt": n} when it was told to fail only a few times."""
    told = payload or Fail()
    if told.times is not None and context.attempt > told.times:
        return {"attempt": context.attempt}
    if told.exit:
        # A rehearsal of a crash: no cleanup, no report, exactly like a killed process.
        os._exit(CRASH_EXIT_CODE)
    if told.permanent:
        raise PermanentFailure(told.message)
    raise RuntimeError(told.message)
