"""An engine that does everything a handler should not."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from agent_engines import AgentConfig, Engine, PermanentFailure, RetryLater, TaskContext

engine = Engine(
    AgentConfig(agent_id="misbehaving", max_concurrent_tasks=20), agent_type="test", metadata={"region": "eu"}
)


@engine.task("raises", max_attempts=2)
async def raises(payload: dict[str, Any]) -> None:
    raise ValueError("the handler does not like it")


@engine.task("raises-for-good", max_attempts=5)
async def raises_for_good(payload: dict[str, Any]) -> None:
    raise PermanentFailure("never again")


@engine.task("comes-good", max_attempts=5)
async def comes_good(context: TaskContext, payload: dict[str, Any]) -> dict[str, Any]:
    if context.attempt < 3:
        raise RetryLater("not yet", after_seconds=0.1)
    return {"attempt": context.attempt}


@engine.task("unserialisable")
async def unserialisable(payload: Any) -> Any:
    return object()


@engine.task("not-a-number")
async def not_a_number(payload: Any) -> Any:
    return {"value": float("nan")}


@engine.task("nul-in-result")
async def nul_in_result(payload: Any) -> Any:
    return {"text": "a\x00b"}


@engine.task("blocks")
async def blocks(payload: dict[str, Any]) -> str:
    time.sleep(payload.get("seconds", 2.0))
    return "unblocked"


@engine.task("exits")
async def exits(payload: Any) -> None:
    sys.exit(3)


@engine.task("dies", max_attempts=3)
async def dies(payload: Any) -> None:
    os._exit(9)


@engine.task("slow", timeout_seconds=120)
async def slow(context: TaskContext, payload: dict[str, Any]) -> str:
    for step in range(int(payload.get("steps", 10))):
        await context.progress(step / 10, f"step {step}")
        await asyncio.sleep(payload.get("pause", 0.1))
    return "done"


@engine.task("too-slow", max_attempts=1, timeout_seconds=0.2)
async def too_slow(payload: Any) -> None:
    await asyncio.sleep(30)


@engine.task("plain")
def plain(payload: dict[str, int]) -> int:
    time.sleep(0.01)
    return payload["a"] + payload["b"]
