"""Taskiq on NATS JetStream (taskiq-nats, pull consumer), results in Redis (taskiq-redis)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from nats.js.api import ConsumerConfig
from taskiq.serializers import ORJSONSerializer
from taskiq_nats import PullBasedJetStreamBroker
from taskiq_redis import RedisAsyncResultBackend

from benchmarks.peers.peer import SLOTS, Facts, OneByOne, Workers, address
from benchmarks.workloads.shapes import PAUSE_SECONDS

PULL = 100
CHECK_SECONDS = 0.002
DURABLE = "bench"

broker = PullBasedJetStreamBroker(
    [address("nats")],
    durable=DURABLE,
    pull_consume_batch=PULL,
    pull_consume_timeout=1.0,
    consumer_config=ConsumerConfig(durable_name=DURABLE, max_ack_pending=10_000),
).with_result_backend(
    RedisAsyncResultBackend(
        address("redis"), result_ex_time=3600, max_connection_pool_size=50, serializer=ORJSONSerializer()
    )
)


@broker.task(task_name="noop")
async def noop(payload: str) -> str:
    return payload


@broker.task(task_name="pause")
async def pause(payload: str) -> str:
    await asyncio.sleep(PAUSE_SECONDS)
    return payload


TASKS = {"noop": noop, "pause": pause}


class System(OneByOne):
    facts = Facts(
        label="Taskiq + JetStream",
        servers=("nats", "redis"),
        durability="task: JetStream file, flushed every second; result: append-only file flushed every second; ack after the run, "
        "a worker's kill -9 redelivers",
        settings=f"pull consumer, {PULL} messages a request, 1 worker process with {SLOTS} async tasks, uvloop, ORJSON results, "
        f"the submitter asks every {CHECK_SECONDS * 1000:g} ms (its own way of waiting)",
        packages=("taskiq", "taskiq-nats", "taskiq-redis", "nats-py"),
    )

    def __init__(self) -> None:
        self._workers = Workers()

    async def start(self, workers: int) -> None:
        await broker.startup()
        options = ("--workers", "1", "--max-async-tasks", str(SLOTS), "--max-prefetch", str(PULL))
        quiet = ("--ack-type", "when_executed", "--log-level", "WARNING")
        self._workers.start(workers, ("taskiq", "worker", "benchmarks.peers.systems.taskiq:broker", *options, *quiet))

    def worker_pids(self) -> Sequence[int]:
        return self._workers.pids

    async def submit(self, kind: str, payload: str) -> Any:
        return await TASKS[kind].kiq(payload)

    async def result(self, handle: Any) -> str | None:
        return (await handle.wait_result(check_interval=CHECK_SECONDS, timeout=60)).return_value

    async def results(self, handles: Sequence[Any]) -> list[str | None]:
        # Few ask at a time: most results are there when asked for, and the rest would only ask in vain.
        found: list[str | None] = []
        for start in range(0, len(handles), 32):
            found += await asyncio.gather(*(self.result(handle) for handle in handles[start : start + 32]))
        return found

    async def stop(self) -> None:
        await self._workers.stop()
        await broker.shutdown()
