"""Leases over a socket of their own: while handlers block the loop, over restarts, with TLS, with credentials."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import nkeys
import pytest

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.jetstream.connection import Address, Connection, Security
from agent_engines.adapters.jetstream.lease_line import SocketLine
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.tasks import PriorityClass
from agent_engines.ports.bus import Delivery, TaskInbox
from agent_engines.ports.connections import Connections
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.engine import Engine
from agent_engines.runtime.plain_log import PlainLog

NORMAL = PriorityClass.NORMAL
LEASE = 1.5
PATIENCE = 45.0


class Server:
    """A nats-server that a test may kill; its port and its data stay."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        config = self._directory / "nats.conf"
        lines = [
            f'listen: "127.0.0.1:{self.port}"',
            f'jetstream {{ store_dir: "{self._directory / "store"}" }}',
            *more,
        ]
        config.write_text("\n".join(lines))
        binary = Path(sys.executable).parent / "nats-server"
        self._process = subprocess.Popen([binary, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def bus(self, scheme: str = "nats", user: str = "", **security: object) -> JetStreamBus:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    bus = await JetStreamBus.connect(
                        f"{scheme}://{user}127.0.0.1:{self.port}",
                        lease_seconds=LEASE,
                        security=Security(**security),  # type: ignore[arg-type]
                    )
                except Unavailable:
                    await asyncio.sleep(0.1)
                    continue
                with contextlib.suppress(Unavailable):
                    await bus.provision()
                    return bus
                await bus.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
async def closing() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


def task(name: str) -> TaskMessage:
    return TaskMessage(
        task_id=name, request_id=name, task_type="work", agent="worker", payload=msgspec.Raw(b"{}"), max_attempts=5
    )


async def one(inbox: TaskInbox) -> list[Delivery]:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(Unavailable):
                if found := await inbox.pull(NORMAL, 1, 1.0):
                    return found


async def held_for_leases(bus: JetStreamBus) -> None:
    """A task kept by renewals alone is not delivered again."""
    inbox = await bus.tasks.open_inbox("worker")
    line = inbox.line()
    await bus.tasks.publish_task(task("t1"))
    held = await one(inbox)
    for _ in range(6):
        await asyncio.to_thread(line.renew, held)
        assert await inbox.pull(NORMAL, 1, LEASE / 3) == []
    line.close()
    assert [found.count for found in await one(inbox)] == [2]


async def test_a_password_and_a_token_are_enough(server: Server, closing: contextlib.AsyncExitStack) -> None:
    server.start('authorization { user: ae, password: "s3cret" }')
    bus = await server.bus(user="ae:s3cret@")
    closing.push_async_callback(bus.close)
    await held_for_leases(bus)


async def test_a_nonce_is_signed_with_the_key(
    server: Server, closing: contextlib.AsyncExitStack, tmp_path: Path
) -> None:
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    public = bytes(nkeys.from_seed(bytearray(seed)).public_key).decode()
    (tmp_path / "agent.nk").write_bytes(bytes(seed))
    server.start(f"authorization {{ users: [ {{ nkey: {public} }} ] }}")
    bus = await server.bus(nkey_seed_file=str(tmp_path / "agent.nk"))
    closing.push_async_callback(bus.close)
    await held_for_leases(bus)


async def test_a_restarted_server_is_found_again(server: Server, closing: contextlib.AsyncExitStack) -> None:
    server.start()
    bus = await server.bus()
    closing.push_async_callback(bus.close)
    inbox = await bus.tasks.open_inbox("worker")
    line = inbox.line()
    await bus.tasks.publish_task(task("t1"))
    held = await one(inbox)
    await asyncio.to_thread(line.renew, held)
    server.kill()
    with pytest.raises(Unavailable):
        await asyncio.to_thread(line.renew, held)
    server.start()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await asyncio.to_thread(line.renew, held)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
    line.close()


async def test_closing_wakes_a_renewal_that_waits_for_a_silent_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.listen()
        log = PlainLog("bus")
        address = Address.parse(f"nats://127.0.0.1:{silent.getsockname()[1]}")
        line = SocketLine(Connection(address, "test", Security(), log), log)
        failures: list[Exception] = []

        def renew() -> None:
            try:
                line.renew([Delivery(None, 1, b"$JS.ACK.x")])
            except Unavailable as error:
                failures.append(error)

        thread = threading.Thread(target=renew)
        thread.start()
        peer, _ = await asyncio.to_thread(silent.accept)
        line.close()
        await asyncio.to_thread(thread.join, PATIENCE)
        peer.close()
    assert not thread.is_alive()
    assert len(failures) == 1


async def test_a_handler_that_blocks_the_loop_for_leases_runs_once(
    server: Server, closing: contextlib.AsyncExitStack
) -> None:
    """Another replica, with a loop of its own, asks all the time: it would get the task as soon as its lease ended."""
    server.start()
    bus = await server.bus()
    closing.push_async_callback(bus.close)
    engine = Engine(AgentConfig("worker"))
    begun, over = threading.Event(), threading.Event()
    ran: list[str] = []

    @engine.task("work")
    async def work(context: TaskContext) -> None:
        ran.append(context.task_id)
        begun.set()
        time.sleep(3 * LEASE)

    async def other_replica() -> list[Delivery]:
        other = await server.bus()
        inbox = await other.tasks.open_inbox("worker")
        await asyncio.to_thread(begun.wait, PATIENCE)
        taken: list[Delivery] = []
        while not over.is_set():
            taken += await inbox.pull(NORMAL, 1, 0.2)
        await other.close()
        return taken

    elsewhere = asyncio.create_task(asyncio.to_thread(asyncio.run, other_replica()))
    await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(task("t1"))
    reports = await bus.reports.open_reports()
    await engine.start(Connections(bus=bus, telemetry=NullTelemetry(), clock=SystemClock()))
    async with asyncio.timeout(PATIENCE):
        while not begun.is_set() or await bus.tasks.backlog("worker"):
            await asyncio.sleep(0.05)
        over.set()
        found = [report for batch in await reports.pull(10, 5.0) for report in batch.reports]
    assert await elsewhere == []
    await engine.stop(1.0)
    assert ran == ["t1"]
    assert {report.delivery for report in found} == {1}
    assert "leases-worker" not in [thread.name for thread in threading.enumerate()]
