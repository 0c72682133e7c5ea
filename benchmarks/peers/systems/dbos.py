"""DBOS Transact: durable workflows in PostgreSQL, started through a queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from dbos import DBOS, DBOSClient, DBOSConfig

from benchmarks.peers.peer import SLOTS, Facts, OneByOne, Workers, address, windowed
from benchmarks.workloads.shapes import PAUSE_SECONDS

QUEUE = "bench"
POLL_SECONDS = 0.010
POOL = 20


@DBOS.workflow(name="noop")
async def noop(payload: str) -> str:
    return payload


@DBOS.workflow(name="pause")
async def pause(payload: str) -> str:
    await asyncio.sleep(PAUSE_SECONDS)
    return payload


def work() -> None:
    """A worker process: until it is told to end."""
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": address("postgres"),
        "sys_db_pool_size": POOL,
        "run_admin_server": False,
        "log_level": "WARNING",
        "application_version": "1",
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=SLOTS, polling_interval_sec=POLL_SECONDS)
    threading.Event().wait()


class System(OneByOne):
    facts = Facts(
        label="DBOS (PostgreSQL)",
        servers=("postgres",),
        durability="input, status and result: PostgreSQL, synchronous_commit on; a workflow is resumed after kill -9",
        settings=f"queue with {SLOTS} at a time in a worker, asked every {POLL_SECONDS * 1000:g} ms (default 1 s), pool of {POOL} "
        f"connections; the submitter asks for a result every {POLL_SECONDS * 1000:g} ms (its own way of waiting)",
        packages=("dbos", "psycopg", "sqlalchemy"),
    )

    def __init__(self) -> None:
        self._workers = Workers()
        self._client: DBOSClient | None = None

    async def start(self, workers: int) -> None:
        self._workers.start(1, ("python", "-m", "benchmarks.peers.systems.dbos"))
        # The first worker makes the tables; two at once get in each other's way.
        self._client = await self._connected()
        self._workers.start(workers - 1, ("python", "-m", "benchmarks.peers.systems.dbos"))

    def worker_pids(self) -> Sequence[int]:
        return self._workers.pids

    async def submit(self, kind: str, payload: str) -> Any:
        assert self._client is not None
        return await self._client.enqueue_async({"queue_name": QUEUE, "workflow_name": kind}, payload)

    async def result(self, handle: Any) -> str | None:
        return await handle.get_result(polling_interval_sec=POLL_SECONDS)

    async def submit_many(self, kind: str, payloads: Sequence[str]) -> list[Any]:
        return await windowed(lambda payload: self.submit(kind, payload), payloads, 32)

    async def results(self, handles: Sequence[Any]) -> list[str | None]:
        # Few ask at a time: most results are there when asked for, and the rest would only ask in vain.
        return await windowed(self.result, handles, 4)

    async def stop(self) -> None:
        await self._workers.stop()
        if self._client is not None:
            self._client.destroy()

    async def _connected(self) -> DBOSClient:
        """Once the worker has made the tables, and the queue last of all."""
        while True:
            try:
                client = DBOSClient(system_database_url=address("postgres"), system_database_pool_size=POOL)
                if await client.retrieve_queue_async(QUEUE) is not None:
                    return client
            except Exception:
                # No tables yet.
                self._workers.check()
            await asyncio.sleep(0.5)


if __name__ == "__main__":
    work()
