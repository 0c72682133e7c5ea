"""An engine that writes down each task it finishes, in a file that outlives the installation."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from agent_engines import AgentConfig, Engine, PermanentFailure, TaskContext

DIARY = "DIARY_FILE"
"""The environment variable that names the file; tasks of the type `held` wait for a file of the same name with `.open`."""

engine = Engine(AgentConfig(agent_id="diary", max_concurrent_tasks=4), agent_type="test")


@engine.task("note")
async def note(context: TaskContext, payload: int) -> dict[str, int]:
    _write(context)
    return {"n": payload}


@engine.task("held", timeout_seconds=3600)
async def held(context: TaskContext, payload: int) -> dict[str, int]:
    while not Path(f"{os.environ[DIARY]}.open").exists():
        await asyncio.sleep(0.05)
    _write(context)
    return {"n": payload}


@engine.task("never")
async def never(context: TaskContext, payload: int) -> None:
    _write(context)
    raise PermanentFailure("this can never work")


@engine.task("unlucky", max_attempts=1)
async def unlucky(context: TaskContext, payload: int) -> None:
    _write(context)
    raise RuntimeError("no attempts are left")


def _write(context: TaskContext) -> None:
    with Path(os.environ[DIARY]).open("a") as file:
        file.write(f"{context.task_id}\n")
