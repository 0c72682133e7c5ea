"""Procrastinate: jobs in PostgreSQL; it stores no results, the submitter learns that a job has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import uvloop
from procrastinate import App, PsycopgConnector

from benchmarks.peers.peer import SLOTS, Facts, Workers, address
from benchmarks.workloads.shapes import PAUSE_SECONDS

POLL_SECONDS = 0.005
POOL = 20
ENDED = "SELECT id FROM procrastinate_jobs WHERE id = ANY(%(ids)s) AND status NOT IN ('todo', 'doing')"

app = App(connector=PsycopgConnector(conninfo=address("postgres"), max_size=POOL))


@app.task(name="noop")
async def noop(payload: str) -> str:
    return payload


@app.task(name="pause")
async def pause(payload: str) -> str:
    await asyncio.sleep(PAUSE_SECONDS)
    return payload


TASKS = {"noop": noop, "pause": pause}


async def work() -> None:
    async with app.open_async():
        await app.run_worker_async(concurrency=SLOTS, install_signal_handlers=True)


class System:
    facts = Facts(
        label="Procrastinate (PostgreSQL)",
        servers=("postgres",),
        durability="job: PostgreSQL, synchronous_commit on, survives a server's kill -9; status only, no stored result; a worker's "
        "kill -9 leaves the job to a retry of stalled jobs",
        settings=f"concurrency {SLOTS}, LISTEN/NOTIFY, pool of {POOL} connections, batch_defer for bulk, uvloop; the submitter asks "
        f"for all waiting jobs every {POLL_SECONDS * 1000:g} ms",
        packages=("procrastinate", "psycopg"),
    )

    def __init__(self) -> None:
        self._workers = Workers()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._poller: asyncio.Task[None] | None = None

    async def start(self, workers: int) -> None:
        await app.open_async()
        await app.schema_manager.apply_schema_async()
        self._workers.start(workers, ("python", "-m", "benchmarks.peers.systems.procrastinate"))
        self._poller = asyncio.get_running_loop().create_task(self._poll())

    def worker_pids(self) -> Sequence[int]:
        return self._workers.pids

    async def submit(self, kind: str, payload: str) -> Any:
        return await TASKS[kind].defer_async(payload=payload)

    async def submit_many(self, kind: str, payloads: Sequence[str]) -> list[Any]:
        handles: list[Any] = []
        for start in range(0, len(payloads), 1000):
            handles += await TASKS[kind].batch_defer_async(
                *({"payload": one} for one in payloads[start : start + 1000])
            )
        return handles

    async def result(self, handle: Any) -> str | None:
        waiting = self._waiting[handle] = asyncio.get_running_loop().create_future()
        return await waiting

    async def results(self, handles: Sequence[Any]) -> list[str | None]:
        return await asyncio.gather(*(self.result(handle) for handle in handles))

    async def stop(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
        await self._workers.stop()
        await app.close_async()

    async def _poll(self) -> None:
        while True:
            # The oldest first: of a long queue only its head can have ended.
            ids = list(self._waiting)[:500]
            rows = await app.connector.execute_query_all_async(ENDED, ids=ids) if ids else []
            for row in rows:
                waiting = self._waiting.pop(row["id"])
                if not waiting.done():
                    waiting.set_result(None)
            await asyncio.sleep(0 if rows else POLL_SECONDS)


if __name__ == "__main__":
    uvloop.run(work())
