"""Consul for tests: a real agent where the binary is installed, and a small server that keeps to what was seen of one.

The stand-in knows registration with a TTL check, renewal, deregistration, the list of passing instances with blocking
queries, and the leader; what it answers was recorded from Consul 1.8.7. `kind` "real" needs `consul` on the PATH:
`scripts/get_consul.sh` unpacks Debian's. Tests that ask for `consul` run against every kind there is, and say which.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

KINDS = ["stand-in", *(["real"] if shutil.which("consul") else [])]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class StandIn:
    """One agent's API in this process. `stop` and `start` keep the port; a new start has forgotten everything."""

    def __init__(self) -> None:
        self.port = free_port()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """(method, path, headers) of everything that was asked."""
        self.garbage: bytes | None = None
        """In the place of every answer, when set."""
        self._services: dict[str, dict[str, Any]] = {}
        self._due: dict[str, float] = {}
        self._index = 10
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._services.clear()
        self._due.clear()
        self._index = 10
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while line := await reader.readline():
                method, target, _ = line.decode().split(" ", 2)
                headers: dict[str, str] = {}
                while (header := (await reader.readline()).decode().strip()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append((method, target, headers))
                code, answer = await self._answer(method, target, body)
                if self.garbage is not None:
                    writer.write(self.garbage)
                else:
                    writer.write(
                        f"HTTP/1.1 {code} .\r\nContent-Type: application/json\r\nX-Consul-Index: {self._index}\r\n"
                        f"Content-Length: {len(answer)}\r\n\r\n".encode()
                        + answer
                    )
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match method, parts.path.split("/")[2:]:
            case "PUT", ["agent", "service", "register"]:
                service = json.loads(body)
                self._services[service["ID"]] = service
                self._due[service["ID"]] = time.monotonic() + float(service["Check"]["TTL"].rstrip("s"))
                self._moved()
            case "PUT", ["agent", "check", "pass", check]:
                replica = check.removeprefix("service:")
                if replica not in self._services:
                    return 500, f'CheckID "{check}" does not have associated TTL'.encode()
                ttl = float(self._services[replica]["Check"]["TTL"].rstrip("s"))
                if replica not in self._passing():
                    self._moved()
                self._due[replica] = time.monotonic() + ttl
            case "PUT", ["agent", "service", "deregister", replica]:
                if self._services.pop(replica, None) is not None:
                    self._moved()
            case "GET", ["health", "service", name]:
                if int(query.get("index", "0")) >= self._index:
                    await self._another(float(query.get("wait", "60s").rstrip("s")))
                listed = [self._entry(one) for one in self._passing().values() if one["Name"] == name]
                return 200, json.dumps(listed).encode()
            case "GET", ["status", "leader"]:
                return 200, b'"127.0.0.1:8300"'
            case _:
                return 404, b""
        return 200, b""

    async def _another(self, seconds: float) -> None:
        """Wait for the next index, which also comes when a TTL runs out."""
        before, index, end = set(self._passing()), self._index, time.monotonic() + seconds
        while self._index == index and time.monotonic() < end:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.05)
            if self._index == index and set(self._passing()) != before:
                self._moved()

    def _passing(self) -> dict[str, dict[str, Any]]:
        now = time.monotonic()
        return {name: one for name, one in self._services.items() if self._due[name] > now}

    @staticmethod
    def _entry(service: dict[str, Any]) -> dict[str, Any]:
        shown = {key: service.get(key) for key in ("ID", "Tags", "Meta", "Address", "Port")}
        return {
            "Node": {"Node": "here", "Address": "127.0.0.1", "Datacenter": "dc1"},
            "Service": {"Service": service["Name"], **shown},
            "Checks": [{"CheckID": f"service:{service['ID']}", "Status": "passing"}],
        }

    def _moved(self) -> None:
        self._index += 1
        self._changed.set()
        self._changed = asyncio.Event()


class RealConsul:
    """`consul agent -dev` on free ports of the loopback address; nothing is kept between starts."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._ports = [free_port() for _ in range(2)]
        self._log = directory / "consul.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        serf, server = self._ports
        options = f"ports {{ http={self.port} serf_lan={serf} server={server} serf_wan=-1 grpc=-1 dns=-1 }}"
        command = ["consul", "agent", "-dev", "-bind", "127.0.0.1", "-client", "127.0.0.1", "-hcl", options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        async with asyncio.timeout(60), httpx2.AsyncClient(base_url=self.url, trust_env=False) as http:
            while True:
                with suppress(httpx2.HTTPError):
                    answer = await http.get("/v1/status/leader")
                    # The node itself is listed only once the agent has joined its own cluster.
                    nodes = await http.get("/v1/catalog/nodes")
                    if answer.status_code == 200 and answer.text != '""' and nodes.status_code == 200 and nodes.json():
                        return
                assert self._process.poll() is None, self._log.read_text()
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None


@asynccontextmanager
async def running(kind: str, directory: Path) -> AsyncIterator[StandIn | RealConsul]:
    """A Consul of this kind, stopped afterwards."""
    server = RealConsul(directory) if kind == "real" else StandIn()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
