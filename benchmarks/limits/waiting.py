"""Backlogs: what a waiting million costs. Tasks are put where the router would put them, at the speed of the servers.

A feeder keeps the number of waiting tasks at one level and counts recorded outcomes for some seconds: the agent and the
recorder, with few and with many waiting. The agent is the product's, with the settings of every agent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import uvloop
from bare import BATCH, Wire
from machine import memory_mib

from agent_engines.adapters import wire as codec
from agent_engines.adapters.jetstream.requests import Outgoing
from agent_engines.domain import subjects
from agent_engines.domain.capability import Capabilities
from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.tasks import PriorityClass

AGENT = "noop"
FEW = 1_000
SECONDS = 10.0
SETTLING_SECONDS = 3.0
PAYLOAD = msgspec.Raw(b'{"pad":"' + b"x" * 246 + b'"}')
QUEUES = tuple(subjects.task_stream(priority) for priority in PriorityClass)
COLUMNS = (
    *(
        "task_id",
        "request_id",
        "task_type",
        "payload",
        "requirements",
        "metadata",
        "priority",
        "body_hash",
        "max_attempts",
    ),
    *("submitted_at", "origin", "status", "generation", "attempt", "selected_agent", "updated_at"),
)
_reports = msgspec.json.Decoder(dict[str, Any]).decode


async def until_empty(nats_url: str) -> None:
    """Return when nothing waits in the queues any more."""
    wire = await Wire.open(nats_url, "waiting")
    while await waiting(wire):
        await asyncio.sleep(0.1)
    await wire.close()


async def waiting(wire: Wire) -> int:
    """Messages in all queues."""
    return sum([int((await wire.api.call(f"STREAM.INFO.{name}"))["state"]["messages"]) for name in QUEUES])


class Feeder:
    """Writes rows and messages as the router does; `recorded` counts what came back."""

    def __init__(self, wire: Wire, database: Any, key: str) -> None:
        self._wire = wire
        self._database = database
        self._capabilities = Capabilities([key.encode()])
        self._subject = subjects.task(PriorityClass.NORMAL, AGENT).encode()
        self.origin = f"feeder-{os.urandom(4).hex()}"
        self.recorded = 0
        self.fed = 0
        self._running = True

    async def feed(self, count: int) -> None:
        """Put `count` tasks more into the queue."""
        for at in range(0, count, 10 * BATCH):
            await self._some(min(10 * BATCH, count - at))

    async def keep(self, level: int) -> None:
        """Top up whatever is recorded until `stop`."""
        while self._running:
            missing = level - (self.fed - self.recorded)
            if missing > 0:
                await self._some(min(missing, 10 * BATCH))
            await asyncio.sleep(0.005)

    def stop(self) -> None:
        self._running = False

    def on_recorded(self, subject: bytes, reply: bytes, data: bytes, header: bytes | None) -> None:
        self.recorded += len(_reports(data)["reports"])

    async def _some(self, count: int) -> None:
        now = time.time()
        moment = datetime.fromtimestamp(now, UTC)
        # In the order of time, as the product's are.
        stamp = f"{int(now * 1000):012x}"
        ids = [
            f"{stamp[:8]}-{stamp[8:]}-7{os.urandom(2).hex()[:3]}-8{number:03x}-{os.urandom(6).hex()}"
            for number in range(count)
        ]
        text = bytes(PAYLOAD).decode()
        rows = [
            (*(name, name, AGENT, text, "{}", "{}", 3, b"", 3, moment, self.origin), "queued", 1, 1, AGENT, moment)
            for name in ids
        ]
        await self._database.copy_records_to_table("tasks", records=rows, columns=COLUMNS)
        messages = [self._message(name, now) for name in ids]
        for outcome in await self._wire.requests.publish_all(messages):
            if isinstance(outcome, Exception):
                raise outcome
        self.fed += count

    def _message(self, task_id: str, now: float) -> Outgoing:
        message = TaskMessage(
            task_id=task_id,
            request_id=task_id,
            task_type=AGENT,
            agent=AGENT,
            payload=PAYLOAD,
            submitted_at=now,
            origin=self.origin,
            capability=self._capabilities.sign(task_id, 1, AGENT),
            dispatched_at=now,
        )
        header = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % codec.task_id(message).encode()
        return Outgoing(self._subject, codec.encode(message), header)


def measure(system: Any, backlog: int) -> dict[str, dict[str, float]]:
    """`system`: run.System. Few waiting, then many."""
    return {
        "waiting-few": uvloop.run(_level(system, FEW)),
        "waiting-many": uvloop.run(_level(system, backlog)),
    }


async def _level(system: Any, level: int) -> dict[str, float]:
    wire = await Wire.open(system.nats, "feeder")
    database = await asyncpg.connect(system.postgres, ssl=False)
    feeder = Feeder(wire, database, system.key)
    await wire.connection.feed(subjects.recorded(feeder.origin), feeder.on_recorded)
    os.kill(system.agent, signal.SIGSTOP)
    try:
        begun = time.perf_counter()
        await feeder.feed(level)
        filling = time.perf_counter() - begun
    finally:
        os.kill(system.agent, signal.SIGCONT)
    keeping = asyncio.ensure_future(feeder.keep(level))
    await asyncio.sleep(SETTLING_SECONDS)
    before, begun, memory = feeder.recorded, time.perf_counter(), 0.0
    while time.perf_counter() - begun < SECONDS:
        await asyncio.sleep(0.2)
        memory = max(memory, memory_mib(system.agent))
    rate = (feeder.recorded - before) / (time.perf_counter() - begun)
    feeder.stop()
    await keeping
    left = await waiting(wire)
    for name in QUEUES:
        # What still waits would take minutes to finish and says nothing more.
        await wire.api.call(f"STREAM.PURGE.{name}")
    await _clear(database, feeder.origin)
    await database.close()
    await wire.close()
    return {"per_s": rate, "worker_mib": memory, "level": float(left), "filling_s": filling}


async def _clear(database: Any, origin: str) -> None:
    """Take the rows away whose messages are gone; what the recorder is just writing is waited for."""
    rest = "SELECT task_id FROM tasks WHERE origin = $1 AND status = 'queued' FOR UPDATE SKIP LOCKED"
    while await database.fetchval("SELECT count(*) FROM tasks WHERE origin = $1 AND status = 'queued'", origin):
        await database.execute(f"DELETE FROM tasks WHERE task_id IN ({rest})", origin)
        await asyncio.sleep(0.2)
