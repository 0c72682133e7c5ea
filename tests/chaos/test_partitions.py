"""R10: links that are cut, one-sided, half-open or slow; what was accepted ends once, and work goes on soon after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from agent_engines.testing.history import Op, Phase
from cluster_house import ClusterSystem, cluster_system
from fault_house import SEED, TIMEOUT, Load, Nemesis, during, scaled, verdict
from fault_proxy import FaultProxy
from nats_cluster import TASK_STREAMS

pytestmark = pytest.mark.timeout(max(600, TIMEOUT))

RECOVERY_SECONDS = 30.0
"""The bar, from the healing of a link to the next accepted submission, and until all has ended afterwards."""

Harm = Callable[[ClusterSystem, Nemesis, Random], Awaitable[None]]


async def run(test: str, tmp_path: Path, harm: Harm, *, times: int = 3, full: int = 10, rate: float = 150.0) -> None:
    """Load, `harm` again and again with pauses in between, and the verdict."""
    async with cluster_system(tmp_path, proxied=True) as system:
        rng = Random(f"{SEED}-{test}")
        load, nemesis = Load(system.url, rng), Nemesis(system, rng)
        healed: list[float] = []

        async def all_harm() -> None:
            await asyncio.sleep(2.0)
            for _ in range(scaled(times, full=full)):
                await harm(system, nemesis, rng)
                healed.append(time.monotonic())
                await asyncio.sleep(rng.uniform(5.0, 8.0))

        await during(load, all_harm(), rate=rate)
        found = await verdict(test, system, load, nemesis)
        waits = [wait_after(load, at) for at in healed]
        found.more["recovery_max_s"] = round(max(waits), 2)
        found.say()
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    assert max(waits) <= RECOVERY_SECONDS, waits
    assert found.settled_seconds <= RECOVERY_SECONDS, found.line()


def wait_after(load: Load, at: float) -> float:
    """Seconds from `at` to the next accepted submission."""
    accepted = (call.ended for call in load.calls if call.op is Op.SUBMIT and call.phase is Phase.OK)
    return min((ended - at for ended in accepted if ended > at), default=float("inf"))


async def cut_for(links: Sequence[FaultProxy], seconds: float, way: str = "both") -> None:
    """A partition of these links; `way`: both, up or down (the direction in which nothing passes)."""
    for link in links:
        if way in ("both", "up"):
            link.up.cut()
        if way in ("both", "down"):
            link.down.cut()
    try:
        await asyncio.sleep(seconds)
    finally:
        for link in links:
            link.heal()


@pytest.mark.parametrize("way", ["both", "up", "down"])
async def test_r10_agents_cut_off_from_the_brokers(tmp_path: Path, way: str) -> None:
    async def harm(system: ClusterSystem, nemesis: Nemesis, rng: Random) -> None:
        nemesis.faults[f"agents cut off from the brokers, {way}"] += 1
        await cut_for(list(system.agents_bus.values()), rng.uniform(5.0, 15.0), way)

    await run(f"R10-agents-{way}", tmp_path, harm)


@pytest.mark.parametrize("way", ["both", "up", "down"])
async def test_r10_the_router_cut_off_from_its_database(tmp_path: Path, way: str) -> None:
    async def harm(system: ClusterSystem, nemesis: Nemesis, rng: Random) -> None:
        nemesis.faults[f"router cut off from the database, {way}"] += 1
        await cut_for([system.database], rng.uniform(5.0, 15.0), way)

    await run(f"R10-database-{way}", tmp_path, harm)


@pytest.mark.parametrize("way", ["both", "up", "down"])
async def test_r10_a_broker_cut_off_from_the_others(tmp_path: Path, way: str) -> None:
    """The minority keeps its clients; it is the leader of a queue when it happens."""

    async def harm(system: ClusterSystem, nemesis: Nemesis, rng: Random) -> None:
        node = await system.cluster.leader(rng.choice(TASK_STREAMS))
        nemesis.faults[f"broker {node.name} cut off from the others, {way}"] += 1
        await cut_for(system.cut_off(node.name), rng.uniform(10.0, 20.0), way)

    await run(f"R10-broker-{way}", tmp_path, harm)


async def test_r10_connections_that_only_one_side_knows_to_be_gone(tmp_path: Path) -> None:
    async def harm(system: ClusterSystem, nemesis: Nemesis, rng: Random) -> None:
        links = [*system.agents_bus.values(), system.database]
        nemesis.faults["half-open connections"] += 1
        for link in links:
            link.half_open()
        await asyncio.sleep(rng.uniform(3.0, 8.0))
        for link in links:
            link.heal()

    await run("R10-half-open", tmp_path, harm)


async def test_r10_connections_reset_again_and_again(tmp_path: Path) -> None:
    async def harm(system: ClusterSystem, nemesis: Nemesis, rng: Random) -> None:
        for _ in range(10):
            link = rng.choice([*system.agents_bus.values(), system.database, *system.routes.values()])
            link.reset()
            nemesis.faults["connections reset"] += 1
            await asyncio.sleep(rng.uniform(0.0, 1.0))

    await run("R10-resets", tmp_path, harm)


@pytest.mark.parametrize("where", ["agents", "database", "brokers"])
async def test_r10_a_link_half_a_second_long_that_loses_packets(tmp_path: Path, where: str) -> None:
    """500 ms there and back; a twentieth of the chunks comes late, as a lost packet does, and holds up the rest."""

    async def harm(system: ClusterSystem, nemesis: Nemesis, rng: Random) -> None:
        links = {
            "agents": list(system.agents_bus.values()),
            "database": [system.database],
            "brokers": list(system.routes.values()),
        }[where]
        nemesis.faults[f"slow link, {where}"] += 1
        for link in links:
            link.slow(delay=0.25, stalls=0.05)
        await asyncio.sleep(15.0)
        for link in links:
            link.heal()

    await run(f"R10-slow-{where}", tmp_path, harm, times=1, full=5, rate=60.0)
