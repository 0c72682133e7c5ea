"""The bare pipeline: what any system on JetStream and PostgreSQL must do for a durable task with a stored result, and no more.

submitter: task -> work-queue stream (message id) AND row in PostgreSQL (batch, synchronous_commit on), in parallel
worker:    pull -> no-op async handler -> one message of many outcomes -> ack
recorder:  pull -> rows in one commit -> ack -> answer to the submitter over core NATS

Three processes besides the two servers, as ours has (client, agent, router); the client libraries, the codec, the window
of publishes and the batch sizes are those of the product. No routing, validation, identity, retries, leases or telemetry.

    python benchmarks/limits/bare.py worker|recorder NATS_URL POSTGRES_URL
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec
import uvloop

from agent_engines.adapters.jetstream.api import JetStreamApi
from agent_engines.adapters.jetstream.connection import Address, Connection, Security
from agent_engines.adapters.jetstream.lane import Arrival, Lane, answer
from agent_engines.adapters.jetstream.requests import Outgoing, Requests
from agent_engines.adapters.jetstream.streams import durable_consumer
from agent_engines.runtime.batching import Batcher
from agent_engines.runtime.plain_log import PlainLog

TASKS, OUTCOMES = "BARE_TASKS", "BARE_OUTCOMES"
BATCH = 500
LANES = 4
SLOTS = 100
"""Tasks a worker takes at once: our agents' default."""
PULL_SECONDS = 1.0

TABLES = """
DROP SCHEMA IF EXISTS bare CASCADE;
CREATE SCHEMA bare;
CREATE TABLE bare.tasks (task_id text COLLATE "C" PRIMARY KEY, payload json NOT NULL, submitted_at timestamptz DEFAULT now());
CREATE TABLE bare.results (task_id text COLLATE "C" PRIMARY KEY, result json, completed_at timestamptz DEFAULT now());
"""
ADD_TASKS = (
    "INSERT INTO bare.tasks (task_id, payload) SELECT * FROM unnest($1::text[], $2::json[]) ON CONFLICT DO NOTHING"
)
ADD_RESULTS = (
    "INSERT INTO bare.results (task_id, result) SELECT * FROM unnest($1::text[], $2::json[]) ON CONFLICT DO NOTHING"
)


class Task(msgspec.Struct, frozen=True):
    task_id: str
    origin: str
    payload: msgspec.Raw


class Outcome(msgspec.Struct, frozen=True):
    task_id: str
    origin: str
    result: msgspec.Raw


encode = msgspec.json.Encoder().encode
decode_task = msgspec.json.Decoder(Task).decode
decode_outcomes = msgspec.json.Decoder(list[Outcome]).decode
NOTHING = msgspec.Raw(b"null")


class Wire:
    """One connection with its requests."""

    def __init__(self, connection: Connection, requests: Requests) -> None:
        self.connection = connection
        self.requests = requests
        self.api = JetStreamApi(requests)

    @classmethod
    async def open(cls, url: str, name: str) -> Wire:
        connection = Connection(Address.parse(url), name, Security(), PlainLog("bare"))
        await connection.open()
        requests = Requests(connection)
        await requests.open()
        return cls(connection, requests)

    async def lane(self, stream: str, name: str) -> Lane:
        async def ensure() -> str:
            await self.api.ensure_consumer(stream, name, durable_consumer(name, 30.0, None))
            return name

        lane = Lane(self.connection, stream, ensure, PlainLog("bare"))
        await lane.open()
        return lane

    def send(self, subject: bytes, data: bytes) -> None:
        self.connection.write(b"PUB %b %d\r\n%b\r\n" % (subject, len(data), data))

    async def close(self) -> None:
        await self.connection.close()


async def set_up(nats_url: str, postgres_url: str) -> None:
    """Empty streams and tables."""
    wire = await Wire.open(nats_url, "bare-set-up")
    for stream, subject, retention in ((TASKS, "bare.task", "workqueue"), (OUTCOMES, "bare.outcome", "limits")):
        await wire.api.find(f"STREAM.DELETE.{stream}")
        config = {"name": stream, "subjects": [subject], "retention": retention, "storage": "file", "discard": "new"}
        await wire.api.call(f"STREAM.CREATE.{stream}", config)
    await wire.close()
    database = await asyncpg.connect(postgres_url, ssl=False)
    await database.execute(TABLES)
    await database.close()


class Submitter:
    """Publishes and commits; `ended` has a future for each task until its recorded outcome is known."""

    def __init__(self, wire: Wire, pool: Any, payload: bytes) -> None:
        self._wire = wire
        self._pool = pool
        self._payload = msgspec.Raw(payload)
        self._text = payload.decode()
        self.origin = f"bare.client.{os.urandom(6).hex()}"
        self.ended: dict[str, asyncio.Future[None]] = {}
        self._batcher: Batcher[str, None] = Batcher(self.flush, max_batch=BATCH, lanes=LANES)

    @classmethod
    async def open(cls, nats_url: str, postgres_url: str, payload: bytes) -> Submitter:
        wire = await Wire.open(nats_url, "bare-client")
        pool = await asyncpg.create_pool(postgres_url, min_size=LANES, max_size=LANES, ssl=False)
        submitter = cls(wire, pool, payload)
        await wire.connection.feed(submitter.origin, submitter._recorded)
        return submitter

    async def submit(self, task_id: str) -> None:
        """Durable twice when this returns."""
        await self._batcher.put(task_id)

    async def submit_many(self, task_ids: Sequence[str]) -> None:
        lanes = asyncio.Semaphore(LANES)

        async def send(chunk: Sequence[str]) -> None:
            async with lanes:
                await self.flush(chunk)

        await asyncio.gather(*(send(task_ids[at : at + BATCH]) for at in range(0, len(task_ids), BATCH)))

    async def flush(self, task_ids: Sequence[str]) -> list[None]:
        loop = asyncio.get_running_loop()
        for task_id in task_ids:
            self.ended[task_id] = loop.create_future()
        outgoing = [
            Outgoing(
                b"bare.task",
                encode(Task(task_id, self.origin, self._payload)),
                b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % task_id.encode(),
            )
            for task_id in task_ids
        ]
        written = self._pool.execute(ADD_TASKS, list(task_ids), [self._text] * len(task_ids))
        published, _ = await asyncio.gather(self._wire.requests.publish_all(outgoing), written)
        for outcome in published:
            if isinstance(outcome, Exception):
                raise outcome
        return [None] * len(task_ids)

    async def close(self) -> None:
        await self._pool.close()
        await self._wire.close()

    def _recorded(self, subject: bytes, reply: bytes, data: bytes, header: bytes | None) -> None:
        for outcome in decode_outcomes(data):
            future = self.ended.pop(outcome.task_id, None)
            if future is not None:
                future.set_result(None)


async def noop(payload: Any) -> None:
    """The handler."""


async def work(nats_url: str) -> None:
    wire = await Wire.open(nats_url, "bare-worker")
    lane = await wire.lane(TASKS, "worker")

    async def report(done: Sequence[tuple[Task, Arrival]]) -> list[None]:
        outcomes = [Outcome(task.task_id, task.origin, NOTHING) for task, _ in done]
        for outcome in await wire.requests.publish_all([Outgoing(b"bare.outcome", encode(outcomes))]):
            if isinstance(outcome, Exception):
                raise outcome
        answer(wire.connection, [arrival.reply for _, arrival in done], b"+ACK")
        return [None] * len(done)

    reports: Batcher[tuple[Task, Arrival], None] = Batcher(report, max_batch=1_000)
    slots = SLOTS
    freed = asyncio.Event()

    async def run(task: Task, arrival: Arrival) -> None:
        nonlocal slots
        await noop(msgspec.json.decode(task.payload))
        slots += 1
        freed.set()
        reports.put((task, arrival))

    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()
    while True:
        while slots <= 0:
            freed.clear()
            await freed.wait()
        for arrival in await lane.pull(slots, PULL_SECONDS):
            slots -= 1
            job = loop.create_task(run(decode_task(arrival.data), arrival))
            running.add(job)
            job.add_done_callback(running.discard)


async def record(nats_url: str, postgres_url: str) -> None:
    wire = await Wire.open(nats_url, "bare-recorder")
    lane = await wire.lane(OUTCOMES, "recorder")
    database = await asyncpg.connect(postgres_url, ssl=False)

    async def commit(arrivals: Sequence[Arrival]) -> None:
        outcomes = [outcome for arrival in arrivals for outcome in decode_outcomes(arrival.data)]
        texts = [bytes(outcome.result).decode() for outcome in outcomes]
        await database.execute(ADD_RESULTS, [outcome.task_id for outcome in outcomes], texts)
        answer(wire.connection, [arrival.reply for arrival in arrivals], b"+ACK")
        homes: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            homes.setdefault(outcome.origin, []).append(outcome)
        for home, told in homes.items():
            wire.send(home.encode(), encode(told))

    committing: asyncio.Task[None] | None = None
    while True:
        arrivals = await lane.pull(50, PULL_SECONDS)
        if committing is not None:
            await committing
            committing = None
        if arrivals:
            committing = asyncio.get_running_loop().create_task(commit(arrivals))


def main() -> None:
    role, nats_url, postgres_url = sys.argv[1:]
    uvloop.run(work(nats_url) if role == "worker" else record(nats_url, postgres_url))


if __name__ == "__main__":
    main()
