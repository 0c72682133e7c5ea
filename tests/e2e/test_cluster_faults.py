"""Short fault runs on a cluster of three brokers, one for both: the long ones are in tests/chaos (test_cluster, test_partitions)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest
import pytest_asyncio

from cluster_house import ClusterSystem, cluster_system
from fault_house import SEED, Faulty, Nemesis, during

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def faulty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Faulty[ClusterSystem]]:
    async with cluster_system(tmp_path_factory.mktemp("cluster"), agents=2, proxied=True) as system:
        shared = Faulty(system)
        yield shared
        found = await shared.whole()
        assert found.passed, found.line()


async def test_a_killed_leader_of_a_queue_loses_nothing(faulty: Faulty[ClusterSystem]) -> None:
    """kill -9 of the broker that leads the queue of ordinary tasks, under load; it comes back after the election."""
    rng, cluster = Random(f"{SEED}-leader"), faulty.system.cluster
    load, nemesis = faulty.load(rng), Nemesis(faulty.system, rng)

    async def harm() -> None:
        await asyncio.sleep(1.0)
        node = await cluster.leader("TASKS_NORMAL")
        node.kill()
        nemesis.faults[f"SIGKILL {node.name}"] += 1
        await cluster.leader("TASKS_NORMAL", besides=node.name)
        node.start()
        await asyncio.sleep(1.0)

    await during(load, harm(), rate=100.0)
    found = await faulty.verdict("leader", load, nemesis)
    streams = await cluster.streams()
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
    assert {name: detail["config"]["num_replicas"] for name, detail in streams.items()} == dict.fromkeys(streams, 3)


async def test_agents_cut_off_from_every_broker_lose_nothing(faulty: Faulty[ClusterSystem]) -> None:
    """First what agents say does not arrive, then connections are gone that they believe in, then all are reset."""
    rng = Random(f"{SEED}-cut")
    load, nemesis = faulty.load(rng), Nemesis(faulty.system, rng)
    links = list(faulty.system.agents_bus.values())

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
    found = await faulty.verdict("cut", load, nemesis)
    assert found.passed, found.line()
    assert set(found.statuses) == {"success"}
