"""Restate: a single node of its server (from npm) and a Python service; the submitter calls through its ingress."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Sequence
from typing import Any

import aiohttp
import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config

from benchmarks.peers.peer import Facts, OneByOne, Workers
from benchmarks.workloads.shapes import PAUSE_SECONDS

CONNECTIONS = 256

service = restate.Service("bench")


@service.handler()
async def noop(context: restate.Context, payload: str) -> str:
    return payload


@service.handler()
async def pause(context: restate.Context, payload: str) -> str:
    # Not a journaled sleep: the handler of every other system sleeps in memory too.
    await asyncio.sleep(PAUSE_SECONDS)
    return payload


app = restate.app([service])


async def work() -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{os.environ['BENCH_PORT']}"]
    config.errorlog = config.accesslog = None
    await serve(app, config)


class System(OneByOne):
    facts = Facts(
        label="Restate (single node)",
        servers=(),
        durability="invocation, journal and result: replicated log of one node on RocksDB, on disk; survives kill -9",
        settings=f"server from npm with one node and defaults, the service on hypercorn with HTTP/2, {CONNECTIONS} connections to "
        "the ingress, calls that wait for the result; one endpoint, so no second worker",
        other_parts=("restate-server 1.7.12",),
        packages=("restate-sdk", "hypercorn", "aiohttp"),
        most_workers=1,
    )

    def __init__(self) -> None:
        self._server = Workers()
        self._workers = Workers()
        self._folder = tempfile.TemporaryDirectory(prefix="bench-restate-", ignore_cleanup_errors=True)
        self._session: aiohttp.ClientSession | None = None
        self._ingress = ""

    async def start(self, workers: int) -> None:
        ingress, admin, node, port = _free_ports(4)
        self._ingress = f"http://127.0.0.1:{ingress}"
        settings = {
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
            "RESTATE_BASE_DIR": self._folder.name,
            "RESTATE_LOG_FILTER": "warn",
            "RESTATE_DISABLE_TELEMETRY": "true",
            # It would ask for newer releases of itself.
            "RESTATE_ADMIN__DISABLE_WEB_UI": "true",
            "DO_NOT_TRACK": "1",
        }
        self._server.start(1, (f"{os.environ['BENCH_NODE_BIN']}/restate-server",), settings)
        self._workers.start(1, ("python", "-m", "benchmarks.peers.systems.restate"), {"BENCH_PORT": str(port)})
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        self._session = aiohttp.ClientSession(connector=connector)
        await self._register(f"http://127.0.0.1:{admin}", f"http://127.0.0.1:{port}")

    def worker_pids(self) -> Sequence[int]:
        return self._workers.pids

    async def submit(self, kind: str, payload: str) -> Any:
        return asyncio.ensure_future(self._call(kind, payload))

    async def result(self, handle: Any) -> str | None:
        return await handle

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
        await self._workers.stop()
        await self._server.stop()
        self._folder.cleanup()

    async def _call(self, kind: str, payload: str) -> str:
        assert self._session is not None
        async with self._session.post(f"{self._ingress}/bench/{kind}", json=payload) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def _register(self, admin: str, endpoint: str) -> None:
        assert self._session is not None
        while True:
            try:
                async with self._session.post(f"{admin}/deployments", json={"uri": endpoint}) as answer:
                    if answer.status < 300:
                        return
            except aiohttp.ClientError:
                pass
            self._server.check()
            await asyncio.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


if __name__ == "__main__":
    asyncio.run(work())
