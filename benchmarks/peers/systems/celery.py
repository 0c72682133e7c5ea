"""Celery on Redis: late acknowledgements, results stored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.result import ResultSet

from benchmarks.peers.peer import Blocking, Facts, Workers, address
from benchmarks.workloads.shapes import PAUSE_SECONDS

OPTIONS = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=warning")

app = Celery("bench", broker=address("redis"), backend=address("redis"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # The guide's advice for many short tasks; the default of 4 makes a round trip for every few.
    worker_prefetch_multiplier=64,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    result_expires=3600,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop(payload: str) -> str:
    return payload


@app.task(name="pause")
def pause(payload: str) -> str:
    time.sleep(PAUSE_SECONDS)
    return payload


TASKS = {"noop": noop, "pause": pause}


class System(Blocking):
    label = "Celery + Redis, prefork"
    pool = ("--pool=prefork", "--concurrency=2")
    pool_words = "prefork pool of 2 processes a worker, its default"

    def __init__(self) -> None:
        super().__init__()
        self._workers = Workers()
        self.facts = Facts(
            label=self.label,
            servers=("redis",),
            durability="append-only file flushed every second: a server's kill -9 loses up to 1 s; acks_late, so a worker's "
            "kill -9 redelivers after the visibility timeout (1 h)",
            settings="acks_late, prefetch multiplier 64, JSON, no events, gossip, mingle or heartbeat; "
            f"{self.pool_words}; handlers are plain functions (it has no async ones)",
            packages=("celery", "kombu", "redis"),
        )

    async def start(self, workers: int) -> None:
        for number in range(workers):
            command = ("celery", "-A", "benchmarks.peers.systems.celery", "worker", "-n", f"w{number}@bench")
            self._workers.start(1, (*command, *self.pool, *OPTIONS))

    def worker_pids(self) -> Sequence[int]:
        return self._workers.pids

    def call(self, kind: str, payload: str) -> str | None:
        return TASKS[kind].delay(payload).get(timeout=60)

    def send(self, kind: str, payloads: Sequence[str]) -> list[Any]:
        task = TASKS[kind]
        with app.producer_pool.acquire(block=True) as producer:
            return [task.apply_async((payload,), producer=producer) for payload in payloads]

    def collect(self, handles: Sequence[Any]) -> list[str | None]:
        return ResultSet(list(handles)).join_native()

    async def stop(self) -> None:
        await self._workers.stop()
