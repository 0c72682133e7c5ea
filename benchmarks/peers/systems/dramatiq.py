"""Dramatiq on Redis with its Redis result backend."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.peer import Blocking, Facts, Workers, address
from benchmarks.workloads.shapes import PAUSE_SECONDS

THREADS = 64
WAIT_MS = 60_000

# Its calls block on the server for longer than the client's own limit for an answer (5 s since redis-py 8).
broker = RedisBroker(url=address("redis"), socket_timeout=None)
broker.add_middleware(Results(backend=RedisBackend(client=redis.Redis.from_url(address("redis"), socket_timeout=None))))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def noop(payload: str) -> str:
    return payload


@dramatiq.actor(store_results=True)
def pause(payload: str) -> str:
    time.sleep(PAUSE_SECONDS)
    return payload


ACTORS = {"noop": noop, "pause": pause}


class System(Blocking):
    facts = Facts(
        label="Dramatiq + Redis",
        servers=("redis",),
        durability="append-only file flushed every second: a server's kill -9 loses up to 1 s; acks after the run, a worker's "
        "kill -9 requeues after its heartbeat (60 s)",
        settings=f"1 process of {THREADS} threads a worker, default middleware and prefetch, Redis results; plain functions",
        packages=("dramatiq", "redis"),
    )

    def __init__(self) -> None:
        super().__init__()
        self._workers = Workers()

    async def start(self, workers: int) -> None:
        options = ("--processes", "1", "--threads", str(THREADS))
        self._workers.start(workers, ("dramatiq", *options, "benchmarks.peers.systems.dramatiq"))

    def worker_pids(self) -> Sequence[int]:
        return self._workers.pids

    def call(self, kind: str, payload: str) -> str | None:
        return ACTORS[kind].send(payload).get_result(block=True, timeout=WAIT_MS)

    def send(self, kind: str, payloads: Sequence[str]) -> list[Any]:
        actor = ACTORS[kind]
        return [actor.send(payload) for payload in payloads]

    def collect(self, handles: Sequence[Any]) -> list[str | None]:
        return [handle.get_result(block=True, timeout=WAIT_MS) for handle in handles]

    async def stop(self) -> None:
        await self._workers.stop()
