"""SAQ on Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import uvloop
from saq import Queue, Worker

from benchmarks.peers.peer import SLOTS, Facts, OneByOne, Workers, address, windowed
from benchmarks.workloads.shapes import PAUSE_SECONDS

OPERATIONS = 64
LOOK_AGAIN_SECONDS = 0.1


async def noop(context: dict[str, Any], *, payload: str) -> str:
    return payload


async def pause(context: dict[str, Any], *, payload: str) -> str:
    await asyncio.sleep(PAUSE_SECONDS)
    return payload


def _queue() -> Queue:
    return Queue.from_url(address("redis"), max_concurrent_ops=OPERATIONS)


async def work() -> None:
    await Worker(_queue(), functions=[noop, pause], concurrency=SLOTS).start()


class System(OneByOne):
    facts = Facts(
        label="SAQ (Redis)",
        servers=("redis",),
        durability="append-only file flushed every second: a server's kill -9 loses up to 1 s; a running job stays in an active "
        "list, a worker's kill -9 is swept and run again",
        settings=f"concurrency {SLOTS}, {OPERATIONS} Redis operations at a time, uvloop; results awaited by publish-subscribe, "
        f"looked at again every {LOOK_AGAIN_SECONDS * 1000:g} ms",
        packages=("saq", "redis"),
    )

    def __init__(self) -> None:
        self._workers = Workers()
        self._queue: Queue | None = None

    async def start(self, workers: int) -> None:
        self._queue = _queue()
        await self._queue.connect()
        self._workers.start(workers, ("python", "-m", "benchmarks.peers.systems.saq"))

    def worker_pids(self) -> Sequence[int]:
        return self._workers.pids

    async def submit(self, kind: str, payload: str) -> Any:
        assert self._queue is not None
        return await self._queue.enqueue(kind, payload=payload, ttl=3600)

    async def result(self, handle: Any) -> str | None:
        # A job that ends between its look and its listening is not told of: it looks again.
        while not handle.completed:
            try:
                await handle.refresh(until_complete=LOOK_AGAIN_SECONDS)
            except TimeoutError:
                continue
        return handle.result

    async def results(self, handles: Sequence[Any]) -> list[str | None]:
        return await windowed(self.result, handles, 32)

    async def stop(self) -> None:
        await self._workers.stop()
        if self._queue is not None:
            await self._queue.disconnect()


if __name__ == "__main__":
    uvloop.run(work())
