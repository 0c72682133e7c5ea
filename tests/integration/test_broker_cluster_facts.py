"""Facts about a cluster of three brokers that our adapter relies on; one that turns red blocks an upgrade."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from test_broker_facts import SECOND, STREAM, Server, count

from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.jetstream.streams import Limits
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.tasks import PriorityClass
from nats_cluster import NatsCluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    with NatsCluster(tmp_path) as cluster:
        await cluster.ready()
        yield cluster


async def consumer_leader(cluster: NatsCluster, besides: str = "") -> str:
    async with asyncio.timeout(60):
        while True:
            detail = (await cluster.streams()).get(STREAM, {}).get("consumer_detail") or [{}]
            name = detail[0].get("cluster", {}).get("leader", "")
            if name and name != besides:
                return name
            await asyncio.sleep(0.05)


async def until_answered(server: Server, name: str, message_id: str) -> tuple[dict[str, object], int]:
    """The acknowledgement of a publish, and how often nobody answered before."""
    unanswered = 0
    async with asyncio.timeout(60):
        while True:
            try:
                return await server.publish(name, message_id), unanswered
            except (NoRespondersError, NatsTimeout):
                unanswered += 1
                await asyncio.sleep(0.1)


async def test_what_was_delivered_before_a_leader_died_can_be_acknowledged_after_it(cluster: NatsCluster) -> None:
    """Until another one is elected nobody answers; then ids are still known, and the count of deliveries goes on."""
    async with asyncio.timeout(60):
        client = await nats.connect(cluster.url.split(","))
        server = Server(client)
        assert "error" not in await server.stream(num_replicas=3)
        assert "error" not in await server.consumer(ack_wait=3 * SECOND)
        await server.publish("a", "one")
        await server.publish("b", "two")
        first, second = await server.pull(2, wait=5.0)
        dead = await cluster.leader(STREAM)
        dead.kill()
        again, unanswered = await until_answered(server, "a", "one")
        assert unanswered > 0
        assert again["duplicate"] is True
        await consumer_leader(cluster, besides=dead.name)
        await server.acked(first)
        # The consumer's leader confirms; that of the stream takes the message out a moment later.
        while await server.stored() != 1:
            await asyncio.sleep(0.05)
        [third] = await server.pull(1, wait=10.0)
        assert third.data == second.data
        assert count(third) >= 2
        await client.close()


async def test_the_end_of_a_batch_may_overtake_the_batch(cluster: NatsCluster) -> None:
    """A delivery waits until a majority knows of it, "Batch Completed" does not: it is no reason to hang up."""
    client = await nats.connect(cluster.url.split(","))
    server = Server(client)
    await server.stream(num_replicas=3)
    await server.consumer(ack_wait=60 * SECOND)
    overtook = 0
    for number in range(200):
        await server.publish(str(number))
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        body = json.dumps({"batch": 1, "max_bytes": 1_000_000, "no_wait": True, "expires": 5 * SECOND})
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.worker", body.encode(), inbox)
        two = [await subscription.next_msg(timeout=10) for _ in range(2)]
        said = [(message.headers or {}).get("Description", "") for message in two]
        assert sorted(said) == ["", "Batch Completed"]
        overtook += said[0] == "Batch Completed"
        await subscription.unsubscribe()
        if overtook:
            break
    assert overtook
    await client.close()


async def test_our_streams_have_three_copies_in_a_cluster_and_reserve_nothing(cluster: NatsCluster) -> None:
    bus = await JetStreamBus.connect(cluster.url)
    await bus.provision()
    inbox = await bus.tasks.open_inbox("worker")
    for number in range(50):
        await bus.tasks.publish_task(
            TaskMessage(task_id=f"t{number}", request_id=f"r{number}", task_type="echo", agent="worker")
        )
        # One at a time: each ends with a "Batch Completed" that may come first.
        [delivery] = await inbox.pull(PriorityClass.NORMAL, 1, 20.0)
        assert delivery.count == 1
        await inbox.ack([delivery])
    for name, detail in (await cluster.streams()).items():
        assert (name, detail["config"]["num_replicas"], detail["config"]["max_bytes"]) == (name, 3, -1)
    await bus.close()


async def test_more_copies_than_brokers_are_refused_with_the_variable_to_change(cluster: NatsCluster) -> None:
    bus = await JetStreamBus.connect(cluster.url, limits=Limits(replicas=5))
    with pytest.raises(Unavailable, match="ENGINES_BUS_REPLICAS"):
        await bus._provision(Limits(replicas=5))
    await bus.close()
