"""Our own system as one of the peers: `engines up` with an agent of the benchmark's two handlers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent_engines import AgentConfig, Client, Engine, TaskRequest
from agent_engines.adapters.embedded.endpoints import Endpoints
from benchmarks.peers.peer import SLOTS, Facts
from benchmarks.workloads.shapes import NOOP, PAUSE, PAUSE_SECONDS

AGENT = "bench"
READY_SECONDS = 180.0

engine = Engine(AgentConfig(agent_id=AGENT, max_concurrent_tasks=SLOTS, http_port=0))
"""What the agents' processes host."""


@engine.task(NOOP, idempotent=True)
async def noop(payload: str) -> str:
    return payload


@engine.task(PAUSE, idempotent=True)
async def pause(payload: str) -> str:
    await asyncio.sleep(PAUSE_SECONDS)
    return payload


class EnginesUp:
    """`way`: the field of the endpoints whose URL the client uses."""

    def __init__(self, label: str, way: str) -> None:
        self.facts = Facts(
            label=label,
            servers=(),
            durability="task and result: PostgreSQL, synchronous_commit on, committed before the submitter hears of either; "
            "a worker's kill -9 redelivers",
            settings=f"`engines up` as it is: router, recorder, performance and optimizing engines, {SLOTS} slots a worker, "
            "NATS, PostgreSQL and Valkey of its own with data on disk",
            packages=("agent-engines",),
        )
        self._way = way
        self._folder = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._endpoints: Endpoints | None = None
        self._client: Client | None = None

    async def start(self, workers: int) -> None:
        folder = Path(self._folder.name)
        # PostgreSQL runs as another account when we are root.
        folder.chmod(0o711)
        target = f"benchmarks.peers.engines_up:engine*{workers}"
        command = ("up", "--data-dir", str(folder), "--port", "0", "--engine", target)
        self._process = subprocess.Popen([sys.executable, "-m", "agent_engines.cli", *command], stdout=2)
        async with asyncio.timeout(READY_SECONDS):
            while not (folder / "endpoints.json").exists():
                if self._process.poll() is not None:
                    raise RuntimeError(f"`engines up` ended with {self._process.returncode}")
                await asyncio.sleep(0.05)
        self._endpoints = Endpoints.read(folder / "endpoints.json")
        self._client = Client(getattr(self._endpoints, self._way))
        await self._client.open()

    def worker_pids(self) -> Sequence[int]:
        assert self._endpoints is not None
        return [pid for name, pid in self._endpoints.pids.items() if name.startswith("agent:")]

    async def submit(self, kind: str, payload: str) -> Any:
        assert self._client is not None
        return await self._client.submit(kind, payload)

    async def result(self, handle: Any) -> str | None:
        return await handle.result()

    async def submit_many(self, kind: str, payloads: Sequence[str]) -> list[Any]:
        assert self._client is not None
        return await self._client.submit_many([TaskRequest(task_type=kind, payload=payload) for payload in payloads])

    async def results(self, handles: Sequence[Any]) -> list[str | None]:
        if self._way == "nats_url":
            return [await handle.result() for handle in handles]
        # Over HTTP each wait is a request; the client bounds how many run at a time.
        return await asyncio.gather(*(handle.result() for handle in handles))

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._process is not None:
            self._process.terminate()
            while self._process.poll() is None:
                await asyncio.sleep(0.05)
        self._folder.cleanup()
