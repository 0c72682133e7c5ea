"""Ray: calls of an async actor. Nothing is stored; it is here as the field's reference for calls between processes."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import ray

from benchmarks.peers.peer import SLOTS, Facts
from benchmarks.workloads.shapes import PAUSE_SECONDS

STORE_BYTES = 256 * 1024 * 1024


@ray.remote(max_concurrency=SLOTS, num_cpus=0)
class Worker:
    async def pid(self) -> int:
        return os.getpid()

    async def noop(self, payload: str) -> str:
        return payload

    async def pause(self, payload: str) -> str:
        await asyncio.sleep(PAUSE_SECONDS)
        return payload


class System:
    facts = Facts(
        label="Ray async actor",
        servers=(),
        durability="none: calls and results are in memory and are lost with their process",
        settings=f"one actor a worker, max_concurrency {SLOTS}, no dashboard, calls spread in turn",
        packages=("ray",),
    )

    def __init__(self) -> None:
        self._workers: list[Any] = []
        self._pids: list[int] = []
        self._turn = itertools.count()
        # A short name: paths of sockets are limited to about 107 bytes.
        self._folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)

    async def start(self, workers: int) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray.init(
            _temp_dir=self._folder.name,
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=STORE_BYTES,
            _node_ip_address="127.0.0.1",
        )
        self._workers = [Worker.remote() for _ in range(workers)]
        self._pids = [await worker.pid.remote() for worker in self._workers]

    def worker_pids(self) -> Sequence[int]:
        return self._pids

    async def submit(self, kind: str, payload: str) -> Any:
        worker = self._workers[next(self._turn) % len(self._workers)]
        return getattr(worker, kind).remote(payload)

    async def result(self, handle: Any) -> str | None:
        return await handle

    async def submit_many(self, kind: str, payloads: Sequence[str]) -> list[Any]:
        return [await self.submit(kind, payload) for payload in payloads]

    async def results(self, handles: Sequence[Any]) -> list[str | None]:
        return await asyncio.to_thread(ray.get, list(handles))

    async def stop(self) -> None:
        ray.shutdown()
        self._folder.cleanup()
