"""Short fault runs on a cluster of three brokers: the long ones are in tests/chaos (test_cluster, test_partitions)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

from cluster_house import cluster_system
from fault_house import SEED, Load, Nemesis, during, verdict


async def test_a_killed_leader_of_a_queue_loses_nothing(tmp_path: Path) -> None:
    """kill -9 of the broker that leads the queue of ordinary tasks, under load; it comes back after the election."""
    async with cluster_system(tmp_path, agents=2) as system:
        rng = Random(f"{SEED}-leader")
        load, nemesis = Load(system.url, rng), Nemesis(system, rng)

        async def harm() -> None:
            await asyncio.sleep(1.0)
            node = await system.cluster.leader("TASKS_NORMAL")
            node.kill()
            nemesis.faults[f"SIGKILL {node.name}"] += 1
            await system.cluster.leader("TASKS_NORMAL", besides=node.name)
            node.start()
            await asyncio.sleep(1.0)

        await during(load, harm(), rate=100.0)
        found = await verdict("leader", system, load, nemesis)
        streams = await system.cluster.streams()
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    assert {name: detail["config"]["num_replicas"] for name, detail in streams.items()} == dict.fromkeys(streams, 3)


async def test_agents_cut_off_from_every_broker_lose_nothing(tmp_path: Path) -> None:
    """First what agents say does not arrive, then connections are gone that they believe in, then all are reset."""
    async with cluster_system(tmp_path, agents=2, proxied=True) as system:
        rng = Random(f"{SEED}-cut")
        load, nemesis = Load(system.url, rng), Nemesis(system, rng)
        links = list(system.agents_bus.values())

        async def harm() -> None:
            await asyncio.sleep(1.0)
            for link in links:
                link.up.cut()
            await asyncio.sleep(4.0)
            for link in links:
                link.half_open()
            await asyncio.sleep(1.0)
            for link in links:
                link.heal()
                link.reset()
            nemesis.faults["agents cut off"] += 1
            await asyncio.sleep(2.0)

        await during(load, harm(), rate=100.0)
        found = await verdict("cut", system, load, nemesis)
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
