"""What the bus does while its server is killed, frozen, restarted or refuses: on a server of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import nats
import pytest

from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import Progress, Report, ReportKind, TaskMessage
from agent_engines.domain.tasks import PriorityClass, TaskStatus
from agent_engines.ports.bus import TaskInbox

NORMAL = PriorityClass.NORMAL
PATIENCE = 25.0
LEASE = 1.0


class Server:
    """A nats-server that a test may mistreat; its port and its data stay."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, password: str = "right-secret") -> str:
        return f"nats://ae:{password}@127.0.0.1:{self.port}"

    def start(self, password: str = "right-secret") -> None:
        config = self._directory / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\nauthorization {{ user: ae, password: "{password}" }}\n'
            f'jetstream {{ store_dir: "{self._directory / "store"}" }}\n'
        )
        binary = Path(sys.executable).parent / "nats-server"
        self._process = subprocess.Popen([binary, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # Until it has really stopped it may still answer.
        os.waitpid(self._process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def bus(server: Server) -> AsyncIterator[JetStreamBus]:
    bus = await JetStreamBus.connect(server.url(), lease_seconds=LEASE)
    await until(bus.provision)
    yield bus
    await bus.close()


async def until(action):  # type: ignore[no-untyped-def]
    """Repeat what may be refused while the server comes up."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await action()
            except Unavailable:
                await asyncio.sleep(0.05)


async def names(inbox: TaskInbox, count: int) -> set[str]:
    """Task ids of the next arrivals, acknowledged, until there are `count` different ones."""
    seen: set[str] = set()
    async with asyncio.timeout(PATIENCE):
        while len(seen) < count:
            with contextlib.suppress(Unavailable):
                deliveries = await inbox.pull(NORMAL, 100, 2.0)
                seen |= {delivery.message.task_id for delivery in deliveries if delivery.message}
                await inbox.ack(deliveries)
    return seen


def task(name: str) -> TaskMessage:
    return TaskMessage(task_id=name, request_id=f"r-{name}", task_type="echo", agent="worker")


def report(name: str) -> Report:
    return Report(
        kind=ReportKind.FINAL,
        task_id=name,
        request_id=name,
        task_type="echo",
        agent="worker",
        status=TaskStatus.SUCCESS,
    )


async def test_a_waiting_pull_survives_a_killed_and_restarted_server(server: Server, bus: JetStreamBus) -> None:
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(task("before"))
    deliveries = await inbox.pull(NORMAL, 1, PATIENCE)
    waiting = asyncio.create_task(names(inbox, 2))
    await asyncio.sleep(0.1)
    server.kill()
    server.start()
    await until(lambda: bus.tasks.publish_task(task("after")))
    # "before" was taken and never acknowledged, so it comes again too.
    assert deliveries[0].message == task("before")
    assert await waiting == {"before", "after"}


async def test_acknowledgements_given_while_the_connection_is_away_reach_the_server_later(bus: JetStreamBus) -> None:
    inbox = await bus.tasks.open_inbox("worker")
    await bus.tasks.publish_task(task("t1"))
    deliveries = await inbox.pull(NORMAL, 1, PATIENCE)
    bus._connection._client.cut()
    async with asyncio.timeout(PATIENCE):
        while bus.connected:
            await asyncio.sleep(0)
        await inbox.ack(deliveries)
        while await until(lambda: bus.tasks.backlog("worker")) > 0:
            await asyncio.sleep(0.05)
    assert await bus.tasks.backlog("worker") == 0


async def test_everything_confirmed_during_a_restart_is_there_exactly_once(server: Server, bus: JetStreamBus) -> None:
    sent = [f"t{number}" for number in range(600)]

    async def publish(name: str) -> None:
        await until(lambda: bus.tasks.publish_task(task(name)))

    publishing = asyncio.gather(*(publish(name) for name in sent))
    await asyncio.sleep(0.02)
    server.kill()
    server.start()
    async with asyncio.timeout(PATIENCE):
        await publishing
    assert await until(lambda: bus.tasks.backlog("worker")) == len(sent)
    assert await names(await bus.tasks.open_inbox("worker"), len(sent)) == set(sent)


async def test_a_cut_connection_is_not_the_publishers_trouble(bus: JetStreamBus) -> None:
    sent = [task(f"t{number}") for number in range(400)]
    publishing = asyncio.gather(
        bus.tasks.publish_tasks(sent[:200]), *(bus.tasks.publish_task(message) for message in sent[200:])
    )
    await asyncio.sleep(0)
    bus._connection._client.cut()
    outcomes = await publishing
    assert not any(outcomes[0])
    assert not any(outcomes[1:])
    assert await bus.tasks.backlog("worker") == len(sent)


async def test_a_frozen_server_is_noticed_and_everything_works_again_when_it_thaws(
    server: Server, bus: JetStreamBus
) -> None:
    inbox = await bus.tasks.open_inbox("worker")
    server.freeze()
    async with asyncio.timeout(6.0):
        attempts = await asyncio.gather(
            bus.check(),
            bus.tasks.publish_task(task("frozen")),
            bus.tasks.backlog("worker"),
            bus.signals.ask("anything", b"", 0.5),
            bus.settings.put("k", b"v"),
            bus.reports.publish_reports("worker", [report("r1")]),
            return_exceptions=True,
        )
    assert attempts[0] is False
    assert all(isinstance(attempt, Unavailable) for attempt in attempts[1:])
    server.thaw()
    await until(lambda: bus.tasks.publish_task(task("thawed")))
    # "frozen" may be there or not: its publisher was told that nothing is known.
    seen: set[str] = set()
    while "thawed" not in seen:
        seen |= await names(inbox, 1)
    assert seen <= {"frozen", "thawed"}
    assert await bus.check()


async def test_a_late_pong_does_not_kill_the_connection(server: Server, bus: JetStreamBus) -> None:
    server.freeze()
    assert not await bus.check()
    server.thaw()
    async with asyncio.timeout(4.0):
        while not await bus.check():
            await asyncio.sleep(0.05)
    await bus.tasks.publish_task(task("t1"))
    assert await bus.tasks.backlog("worker") == 1


async def test_a_server_frozen_for_long_is_left_and_found_again(server: Server, bus: JetStreamBus) -> None:
    inbox = await bus.tasks.open_inbox("worker")
    server.freeze()
    async with asyncio.timeout(PATIENCE):
        while bus.connected:
            await asyncio.sleep(0.1)
    server.thaw()
    await until(lambda: bus.tasks.publish_task(task("t1")))
    assert await names(inbox, 1) == {"t1"}


async def test_watchers_readers_and_listeners_survive_a_restart(server: Server, bus: JetStreamBus) -> None:
    async def answer(_subject: str, data: bytes) -> bytes:
        return data

    await bus.signals.listen("echo", answer, queue="engines")
    reports = await bus.reports.open_reports()
    async with (
        asyncio.timeout(PATIENCE),
        aclosing(bus.settings.watch("agent.")) as changes,
        aclosing(bus.reports.follow_progress("t1")) as news,
    ):
        await bus.settings.put("agent.a.mode", b"1")
        await bus.reports.publish_progress(Progress(task_id="t1", fraction=0.1))
        assert await anext(changes) == ("agent.a.mode", b"1")
        assert (await anext(news))[1].fraction == 0.1
        server.kill()
        server.start()
        await until(lambda: bus.settings.put("agent.b.mode", b"2"))
        await until(lambda: bus.reports.publish_progress(Progress(task_id="t1", fraction=0.2)))
        while (change := await anext(changes)) == ("agent.a.mode", b"1"):
            pass
        assert change == ("agent.b.mode", b"2")
        assert (await anext(news))[1].fraction == 0.2
        assert await bus.signals.ask("echo", b"hello", 2.0) == b"hello"
        await bus.reports.publish_reports("worker", [report("r1")])
        assert [delivery.reports for delivery in await until(lambda: reports.pull(10, 5.0))] == [(report("r1"),)]


async def test_a_deleted_consumer_is_made_again(server: Server, bus: JetStreamBus) -> None:
    inbox = await bus.tasks.open_inbox("worker")
    waiting = asyncio.create_task(names(inbox, 1))
    client = await nats.connect(server.url())
    await asyncio.sleep(0.1)
    await client.jetstream().delete_consumer("TASKS_NORMAL", "agent-worker")
    await client.close()
    await bus.tasks.publish_task(task("t1"))
    assert await waiting == {"t1"}


async def test_a_client_that_the_server_threw_out_is_replaced(
    bus: JetStreamBus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def answer(_subject: str, data: bytes) -> bytes:
        return data

    await bus.signals.listen("echo", answer)
    inbox = await bus.tasks.open_inbox("worker")
    # An error of the protocol makes nats-py close its client for good.
    bus._connection.write(b"NONSENSE\r\n")
    async with asyncio.timeout(PATIENCE):
        while "The bus connection was rebuilt" not in caplog.text:
            await asyncio.sleep(0.01)
    await until(lambda: bus.tasks.publish_task(task("t1")))
    assert await names(inbox, 1) == {"t1"}
    assert await bus.signals.ask("echo", b"again", 2.0) == b"again"


async def test_a_server_that_refused_us_for_a_while_gets_us_back(server: Server, bus: JetStreamBus) -> None:
    server.kill()
    server.start(password="another-secret")
    await asyncio.sleep(1.0)
    with pytest.raises(Unavailable):
        await bus.tasks.publish_task(task("t1"))
    server.kill()
    server.start()
    await until(lambda: bus.tasks.publish_task(task("t1")))
    assert await names(await bus.tasks.open_inbox("worker"), 1) == {"t1"}


async def test_closing_while_the_server_is_down_returns(server: Server, bus: JetStreamBus) -> None:
    await bus.tasks.open_inbox("worker")
    server.kill()
    async with asyncio.timeout(5.0):
        await bus.close()
    assert not bus.connected


async def test_closing_while_the_server_is_frozen_returns(server: Server, bus: JetStreamBus) -> None:
    inbox = await bus.tasks.open_inbox("worker")
    server.freeze()
    async with asyncio.timeout(6.0):
        await inbox.close()
        await bus.close()
    assert not bus.connected


async def test_what_was_published_just_before_closing_is_not_lost(server: Server, bus: JetStreamBus) -> None:
    heard = asyncio.Event()

    async def hear(_subject: str, _data: bytes) -> None:
        heard.set()

    await bus.signals.listen("goodbye", hear)
    leaving = await JetStreamBus.connect(server.url())
    await leaving.signals.send("goodbye", b"x" * 500_000)
    await leaving.close()
    async with asyncio.timeout(PATIENCE):
        await heard.wait()
    assert heard.is_set()


async def test_an_unreachable_server_is_one_readable_line_without_the_secret(server: Server) -> None:
    server.kill()
    with pytest.raises(Unavailable) as refusal:
        async with asyncio.timeout(4.5):
            await JetStreamBus.connect(server.url("top-secret"))
    line = str(refusal.value)
    assert f"127.0.0.1:{server.port}" in line
    assert "top-secret" not in line
    assert "\n" not in line


async def test_a_wrong_password_is_one_readable_line_without_the_secret(
    server: Server, bus: JetStreamBus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Unavailable, match="refused the credentials") as refusal:
        await JetStreamBus.connect(server.url("wrong-secret"))
    assert "wrong-secret" not in str(refusal.value) + caplog.text
    assert "right-secret" not in str(refusal.value) + caplog.text
    assert await bus.check()


async def test_no_credentials_leave_without_the_tls_that_was_asked_for(server: Server, bus: JetStreamBus) -> None:
    assert await bus.check()
    with pytest.raises(Unavailable, match="TLS"):
        await JetStreamBus.connect(server.url().replace("nats://", "tls://"))
