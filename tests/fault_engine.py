"""An agent for fault runs: every start of a handler leaves a line behind, every result says which start it comes from."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from agent_engines import AgentConfig, Engine, TaskContext

DIRECTORY = Path(os.environ.get("FAULT_DIR", "."))
STARTS = "starts.jsonl"
FIXED = "fixed"
"""A file of this name in FAULT_DIR stops poison from killing."""

engine = Engine(AgentConfig(agent_id="worker", max_concurrent_tasks=20, task_timeout_seconds=20), agent_type="test")


def _begin(context: TaskContext) -> str:
    """Note the start before anything else happens; one write, so that a killed process leaves whole lines."""
    token = uuid4().hex
    start = {
        "task_id": context.task_id,
        "attempt": context.attempt,
        "where": str(os.getpid()),
        "at": time.time(),
        "token": token,
    }
    descriptor = os.open(DIRECTORY / STARTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(start).encode() + b"\n")
    finally:
        os.close(descriptor)
    return token


@engine.task("work", max_attempts=3)
async def work(context: TaskContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Takes `pause` seconds."""
    token = _begin(context)
    await asyncio.sleep(payload["pause"])
    return {"token": token, "n": payload["n"]}


@engine.task("flaky", max_attempts=3)
async def flaky(context: TaskContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Fails on its first `failures` attempts."""
    token = _begin(context)
    await asyncio.sleep(payload["pause"])
    if context.attempt <= payload["failures"]:
        raise RuntimeError(f"attempt {context.attempt} was to fail")
    return {"token": token, "n": payload["n"]}


@engine.task("poison", max_attempts=3)
async def poison(context: TaskContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Kills its process until somebody fixed it."""
    token = _begin(context)
    if not (DIRECTORY / FIXED).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return {"token": token, "n": payload["n"]}
