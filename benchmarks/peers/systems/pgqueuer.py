"""PgQueuer: jobs in PostgreSQL; it stores no results, the submitter learns that a job has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.core.completion import CompletionWatcher
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers.peer import Facts, Workers, address
from benchmarks.workloads.shapes import PAUSE_SECONDS

PULL = 100
POOL = 10
DEBOUNCE_SECONDS = 0.010


async def work() -> None:
    async with asyncpg.create_pool(address("postgres"), min_size=2, max_size=POOL) as pool:
        queuer = PgQueuer(AsyncpgPoolDriver(pool))

        @queuer.entrypoint("noop")
        async def noop(job: Job) -> None:
            """Nothing: it has nowhere to put a result."""

        @queuer.entrypoint("pause")
        async def pause(job: Job) -> None:
            await asyncio.sleep(PAUSE_SECONDS)

        await queuer.run(batch_size=PULL)


class System:
    facts = Facts(
        label="PgQueuer (PostgreSQL)",
        servers=("postgres",),
        durability="job and log: PostgreSQL, synchronous_commit on, all tables logged; status only, no stored result; a worker's "
        "kill -9 is found by its heartbeat",
        settings=f"batches of {PULL}, pool of {POOL} connections, lists for bulk, uvloop; the submitter waits with its "
        f"CompletionWatcher, debounce {DEBOUNCE_SECONDS * 1000:g} ms (default 50)",
        packages=("pgqueuer", "asyncpg"),
    )

    def __init__(self) -> None:
        self._workers = Workers()
        self._exits = AsyncExitStack()
        self._queries: Any = None
        self._watcher: Any = None

    async def start(self, workers: int) -> None:
        pool = await self._exits.enter_async_context(
            asyncpg.create_pool(address("postgres"), min_size=2, max_size=POOL)
        )
        self._queries = Queries(AsyncpgPoolDriver(pool))
        await self._queries.install()
        listener = await asyncpg.connect(address("postgres"))
        self._exits.push_async_callback(listener.close)
        self._watcher = await self._exits.enter_async_context(
            CompletionWatcher(
                AsyncpgDriver(listener), queries=self._queries, debounce=timedelta(seconds=DEBOUNCE_SECONDS)
            )
        )
        self._workers.start(workers, ("python", "-m", "benchmarks.peers.systems.pgqueuer"))

    def worker_pids(self) -> Sequence[int]:
        return self._workers.pids

    async def submit(self, kind: str, payload: str) -> Any:
        (job,) = await self._queries.enqueue(kind, payload.encode())
        return job

    async def submit_many(self, kind: str, payloads: Sequence[str]) -> list[Any]:
        handles: list[Any] = []
        for start in range(0, len(payloads), 1000):
            some = [payload.encode() for payload in payloads[start : start + 1000]]
            handles += await self._queries.enqueue([kind] * len(some), some, [0] * len(some))
        return handles

    async def result(self, handle: Any) -> str | None:
        status = await self._watcher.wait_for(handle)
        assert status == "successful", status
        return None

    async def results(self, handles: Sequence[Any]) -> list[str | None]:
        return await asyncio.gather(*(self.result(handle) for handle in handles))

    async def stop(self) -> None:
        await self._workers.stop()
        await self._exits.aclose()


if __name__ == "__main__":
    uvloop.run(work())
