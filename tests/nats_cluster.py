"""Three nats-servers as one JetStream cluster on loopback, each of which a test may kill, freeze, stop or cut off."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import Any

import httpx2

from agent_engines.adapters.embedded.binaries import find_nats_server
from agent_engines.adapters.embedded.free_ports import HIGHEST, LOOPBACK, LOWEST, is_free

READY_SECONDS = 60.0
TASK_STREAMS = ("TASKS_HIGH", "TASKS_NORMAL", "TASKS_LOW")


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, below the range of outgoing connections (see adapters/embedded/free_ports.py)."""
    rng, found = SystemRandom(), set[int]()
    while len(found) < count:
        port = rng.randrange(LOWEST, HIGHEST)
        if is_free(port):
            found.add(port)
    return list(found)


@dataclass
class Node:
    """One server. `routes`: where it finds the others, which may be proxies."""

    name: str
    directory: Path
    client_port: int
    cluster_port: int
    monitor_port: int
    routes: list[int] = field(default_factory=list)
    store_bytes: int = 0
    """What JetStream may store; 0: as much as the server thinks fit."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://{LOOPBACK}:{self.client_port}"

    @property
    def store(self) -> Path:
        return self.directory / "store"

    @property
    def log(self) -> Path:
        return self.directory / "nats.log"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        if self.alive:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "nats.conf"
        config.write_text(self._settings())
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(find_nats_server()), "-c", str(config)], stdout=output, stderr=output, start_new_session=True
            )

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)
        # Until it has really stopped it may still answer.
        os.waitpid(self.pid, os.WUNTRACED)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, and gone when this returns."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def stop(self) -> None:
        """A clean end, by force after ten seconds."""
        self.thaw()
        self.send(signal.SIGTERM)
        if self.process is not None:
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill()

    async def ask(self, path: str) -> dict[str, Any]:
        """What the monitor answers; {} when it does not."""
        try:
            async with httpx2.AsyncClient(timeout=2) as http:
                return (await http.get(f"http://{LOOPBACK}:{self.monitor_port}{path}")).json()
        except (httpx2.HTTPError, ValueError):
            return {}

    def _settings(self) -> str:
        # Nobody is told addresses: clients and routes go where their test's proxies are, or nowhere.
        routes = ", ".join(f'"nats-route://{LOOPBACK}:{port}"' for port in self.routes)
        room = f", max_file_store: {self.store_bytes}" if self.store_bytes else ""
        return f"""
server_name: "{self.name}"
listen: "{LOOPBACK}:{self.client_port}"
http: "{LOOPBACK}:{self.monitor_port}"
max_payload: 8388608
ping_interval: "5s"
jetstream {{ store_dir: {json.dumps(str(self.store))}, max_memory_store: 256MB{room} }}
cluster {{
  name: "ae-test", listen: "{LOOPBACK}:{self.cluster_port}", advertise: "{LOOPBACK}:9"
  no_advertise: true, routes: [{routes}]
}}
"""


class NatsCluster:
    """Nodes n1, n2, n3; `with` starts them and leaves none behind."""

    def __init__(self, directory: Path, *, size: int = 3) -> None:
        ports = iter(free_ports(3 * size))
        self.nodes = {
            name: Node(name, directory / name, next(ports), next(ports), next(ports))
            for name in (f"n{number}" for number in range(1, size + 1))
        }
        for node in self.nodes.values():
            node.routes = [other.cluster_port for other in self.nodes.values() if other is not node]

    def __enter__(self) -> NatsCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self:
            node.thaw()
            node.kill()

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    @property
    def url(self) -> str:
        """For NATS_URL."""
        return ",".join(node.url for node in self)

    @property
    def pids(self) -> dict[str, int]:
        return {f"nats:{node.name}": node.pid for node in self if node.alive}

    def start(self) -> None:
        for node in self:
            node.start()

    def stop(self) -> None:
        for node in self:
            node.stop()

    async def ready(self, seconds: float = READY_SECONDS) -> None:
        """Every node says that all it holds is current. Raises AssertionError with what they say instead."""
        said: dict[str, Any] = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    said = {node.name: await node.ask("/healthz") for node in self}
                    leader = (await next(iter(self)).ask("/jsz")).get("meta_cluster", {}).get("leader")
                    if leader and all(answer.get("status") == "ok" for answer in said.values()):
                        return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"the cluster is not healthy after {seconds:g} s: {said}") from None

    async def streams(self, of: Node | None = None) -> dict[str, dict[str, Any]]:
        """Details by name as one living node sees them: `cluster` (leader, replicas), `state`."""
        for node in [of] if of is not None else list(self):
            if not node.alive:
                continue
            answer = await node.ask("/jsz?streams=true&consumers=true&config=true")
            details = [one for account in answer.get("account_details", []) for one in account.get("stream_detail", [])]
            if details:
                return {detail["name"]: detail for detail in details}
        return {}

    async def leader(self, stream: str, *, besides: str = "") -> Node:
        """Who leads a stream, waiting until somebody other than `besides` does. Raises TimeoutError."""
        async with asyncio.timeout(READY_SECONDS):
            while True:
                name = (await self.streams()).get(stream, {}).get("cluster", {}).get("leader", "")
                if name and name != besides:
                    return self.nodes[name]
                await asyncio.sleep(0.05)

    def hold_of(self, pid: int) -> Node | None:
        """The node a process has its client connection to now, by the kernel's table of connections."""
        ports = {node.client_port: node for node in self}
        with suppress(OSError):
            inodes = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
            for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "01" and f"socket:[{words[9]}]" in inodes:
                    node = ports.get(int(words[2].rpartition(":")[2], 16))
                    if node is not None:
                        return node
        return None
