"""arq: asyncio jobs in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import uvloop
from arq import create_pool, run_worker
from arq.connections import ArqRedis, RedisSettings

from benchmarks.peers.peer import SLOTS, Facts, OneByOne, Workers, address, windowed
from benchmarks.workloads.shapes import PAUSE_SECONDS

POLL_SECONDS = 0.005


async def noop(context: dict[str, Any], payload: str) -> str:
    return payload


async def pause(context: dict[str, Any], payload: str) -> str:
    await asyncio.sleep(PAUSE_SECONDS)
    return payload


class WorkerSettings:
    functions = (noop, pause)
    redis_settings = RedisSettings.from_dsn(address("redis"))
    max_jobs = SLOTS
    poll_delay = POLL_SECONDS
    queue_read_limit = SLOTS * 5
    log_results = False


class System(OneByOne):
    facts = Facts(
        label="arq",
        servers=("redis",),
        durability="append-only file flushed every second: a server's kill -9 loses up to 1 s; a job leaves the queue when it has "
        "ended, a worker's kill -9 runs it again after its timeout",
        settings=f"max_jobs {SLOTS}, worker and submitter ask every {POLL_SECONDS * 1000:g} ms (default 500), uvloop",
        packages=("arq", "redis"),
    )

    def __init__(self) -> None:
        self._workers = Workers()
        self._redis: ArqRedis | None = None

    async def start(self, workers: int) -> None:
        self._redis = await create_pool(WorkerSettings.redis_settings)
        self._workers.start(workers, ("python", "-m", "benchmarks.peers.systems.arq"))

    def worker_pids(self) -> Sequence[int]:
        return self._workers.pids

    async def submit(self, kind: str, payload: str) -> Any:
        assert self._redis is not None
        return await self._redis.enqueue_job(kind, payload)

    async def result(self, handle: Any) -> str | None:
        return await handle.result(timeout=60, poll_delay=POLL_SECONDS)

    async def results(self, handles: Sequence[Any]) -> list[str | None]:
        # Few ask at a time: most results are there when asked for, and the rest would only ask in vain.
        return await windowed(self.result, handles, 32)

    async def stop(self) -> None:
        await self._workers.stop()


if __name__ == "__main__":
    uvloop.install()
    run_worker(WorkerSettings)
