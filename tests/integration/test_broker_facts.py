"""Facts about the real broker that our design and the simulation's model of it rely on; one that turns red blocks an upgrade.

tests/simulation/test_broker_model.py holds the model to the same facts.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, NoRespondersError, NoServersError
from nats.errors import TimeoutError as NatsTimeout

SECOND = 1_000_000_000
LEASE = 0.4
STREAM = "FACTS"
FULL, TOO_MANY_CONSUMERS, OVERLAP, NO_SCHEDULES = 10077, 10026, 10100, 10052


class Server:
    """JetStream in its own words."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._inboxes = 0

    async def api(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer, also when it is an error."""
        message = await self.client.request(f"$JS.API.{subject}", json.dumps(body or {}).encode(), timeout=10)
        return json.loads(message.data)

    async def stream(self, **settings: Any) -> dict[str, Any]:
        """A work queue like ours, with changes."""
        config = {
            "name": STREAM,
            "subjects": ["facts.*"],
            "retention": "workqueue",
            "storage": "file",
            "discard": "new",
            "num_replicas": 1,
            "max_msgs": -1,
            "duplicate_window": 120 * SECOND,
            **settings,
        }
        return await self.api(f"STREAM.CREATE.{config['name']}", config)

    async def consumer(self, name: str = "worker", **settings: Any) -> dict[str, Any]:
        config = {
            "name": name,
            "durable_name": name,
            "ack_policy": "explicit",
            "ack_wait": int(LEASE * SECOND),
            "max_deliver": -1,
            "filter_subject": "facts.a",
            **settings,
        }
        subject = f"CONSUMER.CREATE.{STREAM}.{name}.{config['filter_subject']}"
        return await self.api(subject, {"stream_name": STREAM, "config": config})

    async def publish(self, data: str, message_id: str = "", **headers: str) -> dict[str, Any]:
        """The publish acknowledgement, also when it is a refusal."""
        if message_id:
            headers["Nats-Msg-Id"] = message_id
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = await self.client.request("facts.a", data.encode(), timeout=5, headers=named or None)
        return json.loads(reply.data)

    async def pull(self, count: int = 1, wait: float = 0.2, consumer: str = "worker") -> list[Msg]:
        """Up to `count` deliveries within `wait` seconds."""
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        request = {"batch": count, "expires": int(wait * SECOND)}
        await self.client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{consumer}", json.dumps(request).encode(), inbox)
        got: list[Msg] = []
        try:
            while len(got) < count:
                message = await subscription.next_msg(timeout=wait + 2.0)
                if not message.reply.startswith("$JS.ACK"):
                    break
                got.append(message)
        finally:
            await subscription.unsubscribe()
        return got

    async def acked(self, message: Msg, verb: bytes = b"+ACK") -> bytes:
        """Acknowledge and wait for the server's confirmation."""
        return (await self.client.request(message.reply, verb, timeout=2)).data

    async def stored(self) -> int:
        return int((await self.api(f"STREAM.INFO.{STREAM}"))["state"]["messages"])


def count(message: Msg) -> int:
    """Which delivery of it this is."""
    return message.metadata.num_delivered or 0


@pytest.fixture
async def server(nats_url: str) -> AsyncIterator[Server]:
    client = await nats.connect(nats_url)
    yield Server(client)
    await client.close()


async def test_what_is_not_acknowledged_comes_again_with_a_higher_count(server: Server) -> None:
    await server.stream()
    await server.consumer()
    await server.publish("a")
    for expected in (1, 2, 3):
        [message] = await server.pull(wait=5.0)
        assert (message.data, count(message)) == (b"a", expected)


async def test_a_late_ack_of_a_superseded_delivery_deletes_the_message_and_the_second_one_is_confirmed_too(
    server: Server,
) -> None:
    await server.stream()
    await server.consumer()
    await server.publish("a")
    [first] = await server.pull()
    [second] = await server.pull(wait=5.0)
    assert (count(first), count(second)) == (1, 2)
    await server.acked(first)
    assert await server.stored() == 0
    assert await server.acked(second) == b""


async def test_an_ack_twice_changes_nothing(server: Server) -> None:
    await server.stream()
    await server.consumer()
    await server.publish("a")
    await server.publish("b")
    [message] = await server.pull()
    await server.acked(message)
    await server.acked(message)
    assert await server.stored() == 1


async def test_work_in_progress_restarts_the_lease(server: Server) -> None:
    await server.stream()
    await server.consumer(ack_wait=2 * SECOND)
    await server.publish("a")
    [message] = await server.pull()
    for _ in range(3):
        await asyncio.sleep(1.0)
        await server.acked(message, b"+WPI")
    # Four seconds after the delivery, one after the last sign of life.
    assert await server.pull(wait=0.5) == []


async def test_a_nak_brings_it_back_at_once_and_a_delayed_one_after_its_delay(server: Server) -> None:
    await server.stream()
    await server.consumer(ack_wait=60 * SECOND)
    await server.publish("a")
    [first] = await server.pull()
    await server.acked(first, b"-NAK")
    [second] = await server.pull(wait=5.0)
    await server.acked(second, b'-NAK {"delay": 1500000000}')
    assert await server.pull(wait=0.5) == []
    [third] = await server.pull(wait=5.0)
    assert [count(one) for one in (first, second, third)] == [1, 2, 3], "handing back counts as a delivery"


async def test_a_delayed_nak_holds_its_place_among_the_unacknowledged(server: Server) -> None:
    await server.stream()
    await server.consumer(max_ack_pending=2, ack_wait=60 * SECOND)
    for name in "abcd":
        await server.publish(name)
    for message in await server.pull(2):
        await server.acked(message, b'-NAK {"delay": 60000000000}')
    assert await server.pull(2, wait=0.5) == [], "two messages wait, and nobody gets them"
    info = await server.api(f"CONSUMER.INFO.{STREAM}.worker")
    assert (info["num_pending"], info["num_ack_pending"]) == (2, 2)


async def test_a_poisonous_message_stays_for_ever_and_blocks_a_bounded_queue(server: Server) -> None:
    await server.stream(max_msgs=1)
    await server.consumer(max_deliver=2)
    await server.publish("poison")
    for _ in range(2):
        assert len(await server.pull(wait=5.0)) == 1
    await asyncio.sleep(2 * LEASE)
    assert await server.pull(wait=0.5) == [], "given up by the consumer"
    info = await server.api(f"CONSUMER.INFO.{STREAM}.worker")
    assert (info["num_pending"], info["num_ack_pending"]) == (0, 0), "invisible there"
    assert await server.stored() == 1
    assert (await server.publish("next"))["error"]["err_code"] == FULL


async def test_a_full_queue_refuses_and_drops_nothing(server: Server) -> None:
    await server.stream(max_msgs=2)
    await server.publish("a")
    await server.publish("b")
    refused = await server.publish("c")
    assert refused["error"]["err_code"] == FULL
    assert "maximum messages exceeded" in refused["error"]["description"]
    assert await server.stored() == 2


async def test_a_duplicate_publish_to_a_full_queue_is_answered_as_a_duplicate(server: Server) -> None:
    await server.stream(max_msgs=1)
    first = await server.publish("a", "one")
    again = await server.publish("a", "one")
    assert (again["duplicate"], again["seq"]) == (True, first["seq"])


async def test_a_refused_publish_does_not_burn_its_id(server: Server) -> None:
    await server.stream(max_msgs=1)
    await server.consumer()
    await server.publish("a", "one")
    assert "error" in await server.publish("b", "two")
    [message] = await server.pull()
    await server.acked(message)
    stored = await server.publish("b", "two")
    assert "error" not in stored
    assert not stored.get("duplicate")


async def test_an_id_is_known_after_its_message_was_acknowledged_and_forgotten_after_the_window(server: Server) -> None:
    await server.stream(duplicate_window=2 * SECOND)
    await server.consumer()
    await server.publish("a", "one")
    [message] = await server.pull()
    await server.acked(message)
    assert (await server.publish("a", "one"))["duplicate"] is True
    async with asyncio.timeout(20):
        while (await server.publish("a", "one")).get("duplicate"):
            await asyncio.sleep(0.5)
    assert await server.stored() == 1


async def test_discarding_old_loses_what_was_confirmed(server: Server) -> None:
    """Why no stream of tasks may do it."""
    await server.stream(max_msgs=1, discard="old")
    for name in "ab":
        assert "error" not in await server.publish(name)
    assert await server.stored() == 1


async def test_a_subject_of_a_work_queue_belongs_to_one_consumer(server: Server) -> None:
    await server.stream()
    await server.consumer("first")
    assert (await server.consumer("second"))["error"]["err_code"] == OVERLAP


async def test_schedules_exclude_refusing(server: Server) -> None:
    answer = await server.stream(allow_msg_schedules=True)
    assert answer["error"]["err_code"] == NO_SCHEDULES
    assert "error" not in await server.stream(allow_msg_schedules=True, discard="old")


async def create_until_refused(server: Server, most: int) -> tuple[int, int]:
    """(consumers created, error code of the refusal or 0)."""
    for first in range(0, most, 50):
        names = [f"c{number}" for number in range(first, min(first + 50, most))]
        answers = await asyncio.gather(*(server.consumer(name, filter_subject=f"facts.{name}") for name in names))
        for place, answer in enumerate(answers):
            if "error" in answer:
                return first + place, int(answer["error"]["err_code"])
    return most, 0


@pytest.mark.parametrize("settings", [{}, {"max_consumers": -1}])
async def test_a_stream_that_names_no_bound_takes_a_thousand_consumers(
    server: Server, settings: dict[str, int]
) -> None:
    """Minus one does not mean unlimited any more."""
    await server.stream(**settings)
    assert await create_until_refused(server, 1001) == (1000, TOO_MANY_CONSUMERS)


async def test_a_stream_that_names_a_bound_takes_that_many(server: Server) -> None:
    await server.stream(max_consumers=1010)
    assert await create_until_refused(server, 1005) == (1005, 0)


class Own:
    """A nats-server that a test may kill; port and data stay."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    def start(self) -> None:
        config = self._directory / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self._port}"\njetstream {{ store_dir: "{self._directory / "store"}" }}\n'
        )
        binary = Path(sys.executable).parent / "nats-server"
        self._process = subprocess.Popen([binary, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def counts(self) -> bytes:
        """The worker's state as it is on disk."""
        files = list(self._directory.glob("store/jetstream/*/streams/*/obs/worker/o.dat"))
        return files[0].read_bytes() if files else b""

    def kill(self) -> None:
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()


async def written(own: Own, *, unlike: bytes) -> None:
    """Return when the worker's state on disk is another one than before and has stayed the same for half a second."""
    async with asyncio.timeout(10):
        last, now = unlike, own.counts()
        while now in (unlike, b"") or now != last:
            await asyncio.sleep(0.5)
            last, now = now, own.counts()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    one = Own(tmp_path)
    one.start()
    yield one
    one.kill()


async def connected(own: Own) -> Server:
    async with asyncio.timeout(30):
        while True:
            try:
                client = await nats.connect(own.url, allow_reconnect=False, connect_timeout=1)
                server = Server(client)
                await server.api("INFO")
                return server
            except (
                OSError,
                NatsTimeout,
                NoRespondersError,
                NoServersError,
                ConnectionClosedError,
            ):
                await asyncio.sleep(0.1)


async def test_a_killed_server_keeps_messages_acknowledgements_and_ids_and_the_counts_it_had_written(own: Own) -> None:
    """The page cache survives a kill; a power failure is another matter (the ledger heals it).

    Counts of deliveries are written a little later than the deliveries are made: killed in between, a server starts to
    count again. That is why an attempt's number never decides anything by itself.
    """
    server = await connected(own)
    await server.stream()
    await server.consumer(ack_wait=SECOND)
    for number in range(100):
        await server.publish(str(number), f"id-{number}")
    unwritten = own.counts()
    taken = await server.pull(10)
    await written(own, unlike=unwritten)
    for message in taken[:5]:
        await server.acked(message)
    own.kill()
    await server.client.close()
    own.start()
    server = await connected(own)
    assert await server.stored() == 95
    assert (await server.publish("7", "id-7"))["duplicate"] is True
    seen: dict[bytes, int] = {}
    async with asyncio.timeout(30):
        while len(seen) < 95:
            for message in await server.pull(100, wait=1.0):
                seen[message.data] = max(count(message), seen.get(message.data, 0))
                await server.acked(message)
    assert set(seen) == {str(number).encode() for number in range(5, 100)}
    assert all(seen[message.data] >= 2 for message in taken[5:]), "counts go on where they were"
    await server.client.close()
