"""HTTP: the bare echo on the server class of the product, and the load for it and for ours.

python benchmarks/limits/web.py echo PORT
python benchmarks/limits/web.py load URL PATH [--tasks N] [--seconds S] [--pids ..]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from urllib.parse import urlsplit

import uvloop
from machine import cpu_seconds, percentile, tell

from agent_engines.adapters.http_server import HttpServer

CONNECTIONS = 32
ANSWER = json.dumps({"pad": "x" * 560}).encode()
"""As long as the answer of /route-task."""


async def echo(port: int) -> None:
    """A trivial handler: reads the body and answers with as many bytes as ours does."""

    async def app(scope: object, receive: object, send: object) -> None:
        await receive()  # type: ignore[operator]
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": ANSWER})  # type: ignore[operator]

    server = HttpServer(app, host="127.0.0.1", port=port)  # type: ignore[arg-type]
    await server.start()
    print(server.url, flush=True)
    await asyncio.Event().wait()


class Caller(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, request: bytes, times: list[float], refused: list[bytes]) -> None:
        self._request = request
        self._times = times
        self._refused = refused
        self._left = -1
        self._head = b""
        self._asked = 0.0
        self.running = True
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._head[:end].lower()
            if b" 20" not in head[:13]:
                self._refused.append(self._head)
            at = head.index(b"content-length: ") + 16
            self._left = int(head[at : at + 12].split(b"\r", 1)[0]) - (len(self._head) - end - 4)
            self._head = b""
        else:
            self._left -= len(data)
        if self._left == 0:
            self._left = -1
            self._times.append(time.perf_counter() - self._asked)
            if self.running:
                self._ask()
            elif not self.done.done():
                self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server hung up"))

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]


async def load(options: argparse.Namespace) -> None:
    parts = urlsplit(options.url)
    task = {"task_type": "noop", "payload": {"pad": "x" * 246}}
    body = json.dumps(task if options.tasks == 0 else {"tasks": [task] * options.tasks}).encode()
    head = f"POST {options.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    times: list[float] = []
    refused: list[bytes] = []
    loop = asyncio.get_running_loop()
    connections = CONNECTIONS if options.tasks == 0 else 4
    callers = [
        (await loop.create_connection(lambda: Caller(request, times, refused), parts.hostname, parts.port))[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(0.3)
    times.clear()
    cpu, begun = cpu_seconds(options.pids), time.perf_counter()
    await asyncio.sleep(options.seconds)
    requests, seconds = len(times), time.perf_counter() - begun
    spent = cpu_seconds(options.pids) - cpu
    for caller in callers:
        caller.running = False
    await asyncio.gather(*(caller.done for caller in callers))
    if refused:
        sys.exit(f"{len(refused)} of {len(times)} requests were refused: {refused[0][:400]!r}")
    tasks = requests * max(1, options.tasks)
    tell(
        per_s=tasks / seconds,
        p50_ms=percentile(times, 0.5) * 1e3,
        p99_ms=percentile(times, 0.99) * 1e3,
        cpu_per_1000=1000 * spent / tasks,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("echo").add_argument("port", type=int)
    loading = commands.add_parser("load")
    loading.add_argument("url")
    loading.add_argument("path")
    loading.add_argument("--tasks", type=int, default=0, help="tasks in one request; 0: a single task, not a batch")
    loading.add_argument("--seconds", type=float, default=5.0)
    loading.add_argument("--pids", type=lambda text: [int(pid) for pid in text.split(",") if pid], default=[])
    options = parser.parse_args()
    if options.what == "echo":
        uvloop.run(echo(options.port))
    else:
        options.pids.append(os.getpid())
        uvloop.run(load(options))


if __name__ == "__main__":
    main()
