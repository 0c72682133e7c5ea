"""FastStream on NATS JetStream: tasks and results are messages in two streams."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Sequence
from typing import Any

import nats
import uvloop
from faststream import FastStream
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from nats.aio.msg import Msg

from benchmarks.peers.peer import SLOTS, Facts, OneByOne, Workers, address
from benchmarks.workloads.shapes import PAUSE_SECONDS

PULL = 100
ANSWER_SECONDS = 30.0
TASKS = JStream(name="TASKS", subjects=["tasks.*"])
RESULTS = JStream(name="RESULTS", subjects=["results.>"])

broker = NatsBroker(address("nats"), log_level=40)
app = FastStream(broker)


@broker.subscriber("tasks.noop", stream=TASKS, durable="noop", pull_sub=PullSub(batch_size=PULL), max_workers=SLOTS)
async def noop(payload: str, message: NatsMessage) -> None:
    await broker.publish(payload, message.headers["answer-to"], stream=RESULTS.name, timeout=ANSWER_SECONDS)


@broker.subscriber("tasks.pause", stream=TASKS, durable="pause", pull_sub=PullSub(batch_size=PULL), max_workers=SLOTS)
async def pause(payload: str, message: NatsMessage) -> None:
    await asyncio.sleep(PAUSE_SECONDS)
    await broker.publish(payload, message.headers["answer-to"], stream=RESULTS.name, timeout=ANSWER_SECONDS)


class System(OneByOne):
    facts = Facts(
        label="FastStream + JetStream",
        servers=("nats",),
        durability="task and result: JetStream files, flushed every second; ack after the result is stored, a worker's kill -9 "
        "redelivers; no record beyond the streams",
        settings=f"pull subscribers, {PULL} messages a request, {SLOTS} workers in a process, uvloop; results in a stream that "
        "the submitter follows",
        packages=("faststream", "nats-py"),
    )

    def __init__(self) -> None:
        self._workers = Workers()
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._numbers = itertools.count()
        self._origin = f"results.{os.getpid()}"
        self._connection: Any = None

    async def start(self, workers: int) -> None:
        await broker.connect()
        self._connection = await nats.connect(address("nats"))
        streams = self._connection.jetstream()
        for stream in (TASKS, RESULTS):
            await streams.add_stream(name=stream.name, subjects=list(stream.subjects))
        self._workers.start(workers, ("python", "-m", "benchmarks.peers.systems.faststream"))
        await streams.subscribe(f"{self._origin}.*", cb=self._ended, ordered_consumer=True)

    def worker_pids(self) -> Sequence[int]:
        return self._workers.pids

    async def submit(self, kind: str, payload: str) -> Any:
        subject = f"{self._origin}.{next(self._numbers)}"
        handle = self._waiting[subject] = asyncio.get_running_loop().create_future()
        await broker.publish(
            payload, f"tasks.{kind}", headers={"answer-to": subject}, stream=TASKS.name, timeout=ANSWER_SECONDS
        )
        return handle

    async def result(self, handle: Any) -> str | None:
        return await handle

    async def stop(self) -> None:
        await self._workers.stop()
        await self._connection.close()

    async def _ended(self, message: Msg) -> None:
        waiting = self._waiting.pop(message.subject, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message.data.decode())


if __name__ == "__main__":
    uvloop.run(app.run())
