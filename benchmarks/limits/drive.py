"""One measurement in a process of its own; `run.py` starts it and reads the JSON line it prints.

    python benchmarks/limits/drive.py WHAT --nats URL --postgres URL [--http URL] [--pids 1,2] [--count N]

WHAT: bare|ours and many (throughput, CPU), one (a lone task at a time), crowd (32 at a time), submit (acceptance only),
or raw-publish, raw-pull, raw-request, raw-insert.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import uvloop
from bare import ADD_RESULTS, BATCH, LANES, PULL_SECONDS, Submitter, Wire
from machine import cpu_seconds, percentile, tell

from agent_engines import Client, TaskRequest
from agent_engines.adapters.jetstream.lane import answer
from agent_engines.adapters.jetstream.requests import Outgoing

PAYLOAD = b'{"pad":"' + b"x" * (256 - 10) + b'"}'
CROWD = 32


def names(count: int) -> list[str]:
    prefix = os.urandom(8).hex()
    return [f"{prefix}-{number:08x}" for number in range(count)]


async def bare_many(options: argparse.Namespace) -> None:
    submitter = await Submitter.open(options.nats, options.postgres, PAYLOAD)
    await _warm(lambda ids: _bare_all(submitter, ids))
    task_ids = names(options.count)
    cpu, begun = cpu_seconds(options.pids), time.perf_counter()
    await _bare_all(submitter, task_ids)
    _told(options, cpu, begun)
    await submitter.close()


async def ours_many(options: argparse.Namespace) -> None:
    async with Client(options.nats) as client:
        await _warm(lambda ids: _ours_all(client, len(ids)))
        cpu, begun = cpu_seconds(options.pids), time.perf_counter()
        await _ours_all(client, options.count)
        _told(options, cpu, begun)


async def bare_submit(options: argparse.Namespace) -> None:
    submitter = await Submitter.open(options.nats, options.postgres, PAYLOAD)
    task_ids = names(options.count)
    cpu, begun = cpu_seconds(options.pids), time.perf_counter()
    await submitter.submit_many(task_ids)
    _told(options, cpu, begun)
    await submitter.close()


async def ours_submit(options: argparse.Namespace) -> None:
    async with Client(options.nats) as client:
        requests = _requests(options.count)
        cpu, begun = cpu_seconds(options.pids), time.perf_counter()
        await client.submit_many(requests)
        _told(options, cpu, begun)


async def bare_turns(options: argparse.Namespace, callers: int) -> None:
    submitter = await Submitter.open(options.nats, options.postgres, PAYLOAD)
    waiting = iter(names(options.count))

    async def one() -> bool:
        task_id = next(waiting, None)
        if task_id is None:
            return False
        await submitter.submit(task_id)
        ended = submitter.ended.get(task_id)
        if ended is not None:
            await ended
        return True

    await _turns(options, one, callers)
    await submitter.close()


async def ours_turns(options: argparse.Namespace, callers: int) -> None:
    async with Client(options.nats) as client:
        waiting = iter(_requests(options.count))

        async def one() -> bool:
            request = next(waiting, None)
            if request is None:
                return False
            handle = await client.submit_request(request)
            await handle.result(timeout=60)
            return True

        await _turns(options, one, callers)


async def raw_publish(options: argparse.Namespace) -> None:
    """Pipelined publishes with message ids, as many under way as ours has."""
    wire = await Wire.open(options.nats, "raw")
    await _stream(wire, "RAW_PUBLISH", "limits")
    outgoing = _outgoing(options.count)
    lanes = asyncio.Semaphore(LANES)

    async def send(chunk: Sequence[Outgoing]) -> None:
        async with lanes:
            await wire.requests.publish_all(chunk)

    cpu, begun = cpu_seconds(options.pids), time.perf_counter()
    await asyncio.gather(*(send(outgoing[at : at + BATCH]) for at in range(0, len(outgoing), BATCH)))
    _told(options, cpu, begun)
    await wire.api.call("STREAM.DELETE.RAW_PUBLISH")
    await wire.close()


async def raw_pull(options: argparse.Namespace) -> None:
    """A work queue is emptied: pull 500, acknowledge 500."""
    wire = await Wire.open(options.nats, "raw")
    await _stream(wire, "RAW_PULL", "workqueue")
    await wire.requests.publish_all(_outgoing(options.count))
    lane = await wire.lane("RAW_PULL", "worker")
    left = options.count
    cpu, begun = cpu_seconds(options.pids), time.perf_counter()
    while left > 0:
        arrivals = await lane.pull(BATCH, PULL_SECONDS)
        answer(wire.connection, [arrival.reply for arrival in arrivals], b"+ACK")
        left -= len(arrivals)
    await wire.connection.ping(5.0)
    _told(options, cpu, begun)
    await wire.api.call("STREAM.DELETE.RAW_PULL")
    await wire.close()


async def raw_request(options: argparse.Namespace) -> None:
    """One request at a time to another connection of this process: p50 is the floor under every answer over the bus."""
    wire = await Wire.open(options.nats, "raw")
    other = await Wire.open(options.nats, "raw-answers")
    await other.connection.feed("raw.ask", lambda subject, reply, data, header: other.send(reply, data))
    waiting = iter(range(min(options.count, 2_000)))

    async def one() -> bool:
        if next(waiting, None) is None:
            return False
        await wire.requests.request("raw.ask", PAYLOAD, 5.0)
        return True

    await _turns(options, one, 1)
    await other.close()
    await wire.close()


async def raw_insert(options: argparse.Namespace) -> None:
    """Rows of 256 bytes by unnest of 500 in one commit each, two connections side by side."""
    pool = await asyncpg.create_pool(options.postgres, min_size=2, max_size=2, ssl=False)
    text = PAYLOAD.decode()
    batches = iter([(ids := names(BATCH), [text] * len(ids)) for _ in range(options.count // BATCH)])

    async def write() -> None:
        for task_ids, texts in batches:
            await pool.execute(ADD_RESULTS, task_ids, texts)

    cpu, begun = cpu_seconds(options.pids), time.perf_counter()
    await asyncio.gather(write(), write())
    _told(options, cpu, begun)
    await pool.close()


async def _bare_all(submitter: Submitter, task_ids: Sequence[str]) -> None:
    await submitter.submit_many(task_ids)
    for task_id in task_ids:
        ended = submitter.ended.get(task_id)
        if ended is not None:
            await ended


async def _ours_all(client: Client, count: int) -> None:
    for handle in await client.submit_many(_requests(count)):
        await handle.result(timeout=120)


async def _warm(work: Callable[[Sequence[str]], Awaitable[None]]) -> None:
    await work(names(1_000))
    gc.collect()


async def _turns(options: argparse.Namespace, one: Callable[[], Awaitable[bool]], callers: int) -> None:
    times: list[float] = []
    cpu = cpu_seconds(options.pids)

    async def call() -> None:
        while True:
            begun = time.perf_counter()
            if not await one():
                return
            times.append(time.perf_counter() - begun)

    await asyncio.gather(*(call() for _ in range(callers)))
    # The first ones open connections and fill caches.
    steady = times[len(times) // 10 :]
    tell(
        p50_ms=percentile(steady, 0.5) * 1e3,
        p99_ms=percentile(steady, 0.99) * 1e3,
        cpu_per_1000=1000.0 * (cpu_seconds(options.pids) - cpu) / len(times),
    )


def _requests(count: int) -> list[TaskRequest]:
    payload = {"pad": "x" * (256 - 10)}
    return [TaskRequest(task_type="noop", payload=payload) for _ in range(count)]


def _outgoing(count: int) -> list[Outgoing]:
    return [
        Outgoing(b"raw.task", PAYLOAD, b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % name.encode()) for name in names(count)
    ]


async def _stream(wire: Wire, name: str, retention: str) -> None:
    await wire.api.find(f"STREAM.DELETE.{name}")
    config = {"name": name, "subjects": ["raw.task"], "retention": retention, "storage": "file", "discard": "new"}
    await wire.api.call(f"STREAM.CREATE.{name}", config)


def _told(options: argparse.Namespace, cpu: float, begun: float) -> None:
    seconds = time.perf_counter() - begun
    spent = cpu_seconds(options.pids) - cpu
    tell(per_s=options.count / seconds, cpu_per_1000=1000.0 * spent / options.count, seconds=seconds)


WORK: dict[str, Callable[[argparse.Namespace], Any]] = {
    "bare-many": bare_many,
    "ours-many": ours_many,
    "bare-submit": bare_submit,
    "ours-submit": ours_submit,
    "bare-one": lambda options: bare_turns(options, 1),
    "ours-one": lambda options: ours_turns(options, 1),
    "bare-crowd": lambda options: bare_turns(options, CROWD),
    "ours-crowd": lambda options: ours_turns(options, CROWD),
    "raw-publish": raw_publish,
    "raw-pull": raw_pull,
    "raw-request": raw_request,
    "raw-insert": raw_insert,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=sorted(WORK))
    parser.add_argument("--nats", required=True)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--pids", type=lambda text: [int(pid) for pid in text.split(",") if pid], default=[])
    parser.add_argument("--count", type=int, default=20_000)
    options = parser.parse_args()
    options.pids.append(os.getpid())
    uvloop.run(WORK[options.what](options))


if __name__ == "__main__":
    main()
