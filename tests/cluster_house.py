"""A whole system on a cluster of brokers: engines as `engines run` starts them, kept running, behind proxies where asked."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx2

from agent_engines.adapters.embedded import EmbeddedServers, Endpoints, ProcessSupervisor
from agent_engines.adapters.postgres.migrate import migrate
from fault_house import AGENT, environment
from fault_proxy import LOOPBACK, FaultProxy
from nats_cluster import NatsCluster, free_ports

READY_SECONDS = 60.0
STOP_SECONDS = 15.0


@dataclass
class ClusterSystem:
    """What fault_house's `Running` asks for, with the brokers and the proxies of this system."""

    data_dir: Path
    cluster: NatsCluster
    supervisor: ProcessSupervisor
    servers: Endpoints
    url: str
    agents_bus: dict[str, FaultProxy]
    """By node: the only way agents have to it."""
    database: FaultProxy
    """The only way the router has to PostgreSQL."""
    routes: dict[tuple[str, str], FaultProxy]
    """By (from, to): what one broker tells another, over the connection that `from` opened."""

    @property
    def endpoints(self) -> dict[str, Any]:
        return {
            "http_url": self.url,
            "nats_url": self.cluster.url,
            "postgres_url": self.servers.postgres_url,
            "redis_url": self.servers.redis_url,
            "pids": {**self.supervisor.pids, **self.cluster.pids},
        }

    def pid(self, name: str) -> int:
        return self.endpoints["pids"][name]

    async def sql(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.servers.postgres_url)
        try:
            return [dict(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    def cut_off(self, name: str) -> list[FaultProxy]:
        """Every link between this broker and the others; to be cut and healed."""
        return [proxy for pair, proxy in self.routes.items() if name in pair]


@asynccontextmanager
async def cluster_system(
    data_dir: Path, *, agents: int = 3, proxied: bool = False, variables: Mapping[str, str] | None = None
) -> AsyncIterator[ClusterSystem]:
    """Three brokers, PostgreSQL, the router and `agents` replicas of the fault engine, ready when the block starts."""
    async with AsyncExitStack() as exits:
        cluster = NatsCluster(data_dir / "brokers")
        routes = await _route_proxies(exits, cluster) if proxied else {}
        exits.enter_context(cluster)
        servers = await exits.enter_async_context(EmbeddedServers(data_dir / "servers", ephemeral=True))
        await cluster.ready()
        postgres_url = servers.endpoints.postgres_url
        await migrate(postgres_url)
        agents_bus = {
            node.name: await exits.enter_async_context(FaultProxy(lambda port=node.client_port: port))
            for node in cluster
        }
        database = await exits.enter_async_context(FaultProxy(lambda: urlsplit(postgres_url).port or 0))
        port = free_ports(1)[0]
        common = {**os.environ, **environment(data_dir, **(variables or {})), "REDIS_URL": servers.endpoints.redis_url}
        supervisor = ProcessSupervisor(data_dir)
        router = {
            "NATS_URL": cluster.url,
            "POSTGRES_URL": _through(postgres_url, database) if proxied else postgres_url,
            "AGENT_HTTP_PORT": str(port),
        }
        supervisor.add("intelligence", _run("intelligence"), {**common, **router})
        through = ",".join(f"nats://{LOOPBACK}:{proxy.port}" for proxy in agents_bus.values())
        agent = {"NATS_URL": through if proxied else cluster.url, "AGENT_HTTP_PORT": "0"}
        for number in range(1, agents + 1):
            supervisor.add(f"agent:worker:{number}", _run(AGENT), {**common, **agent})
        await supervisor.start()
        exits.push_async_callback(supervisor.stop, STOP_SECONDS)
        url = f"http://{LOOPBACK}:{port}"
        system = ClusterSystem(data_dir, cluster, supervisor, servers.endpoints, url, agents_bus, database, routes)
        await _until_ready(url, agents)
        await cluster.ready()
        yield system


async def _route_proxies(exits: AsyncExitStack, cluster: NatsCluster) -> dict[tuple[str, str], FaultProxy]:
    routes: dict[tuple[str, str], FaultProxy] = {}
    for node in cluster:
        node.routes = []
        for other in cluster:
            if other is not node:
                proxy = FaultProxy(lambda port=other.cluster_port: port)
                routes[node.name, other.name] = await exits.enter_async_context(proxy)
                node.routes.append(proxy.port)
    return routes


def _run(target: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "agent_engines.cli", "run", target)


def _through(url: str, proxy: FaultProxy) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{proxy.port}"))


async def _until_ready(url: str, agents: int) -> None:
    """The router answers and has heard from every replica."""
    async with asyncio.timeout(READY_SECONDS), httpx2.AsyncClient(base_url=url, timeout=5) as http:
        while True:
            try:
                ready = (await http.get("/ready")).status_code == 200
                items = (await http.get("/v1/agents")).json()["items"] if ready else []
                if sum(len(item["replicas"]) for item in items) >= agents:
                    return
            except (httpx2.HTTPError, ValueError, KeyError):
                pass
            await asyncio.sleep(0.1)
