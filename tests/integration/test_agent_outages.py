"""An agent's own process while its bus stands still, while it stands still itself, and killed in between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from agent_engines.adapters.file_spool import FileSpool
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import Report, ReportKind, TaskMessage
from agent_engines.domain.tasks import PriorityClass, TaskStatus
from agent_engines.ports.bus import ReportInbox

NORMAL = PriorityClass.NORMAL
PATIENCE = 60.0
LEASE = 3
PROGRAM = """
import asyncio, os, pathlib
from agent_engines import Engine, TaskContext

engine = Engine("worker")
place = pathlib.Path(os.environ["OUTAGE_DIR"])


@engine.task("work")
async def work(context: TaskContext, payload: dict) -> str:
    with (place / "begun").open("a") as begun:
        begun.write(context.task_id + "\\n")
    while not (place / "go").exists():
        await asyncio.sleep(0.02)
    if payload.get("fails"):
        raise ValueError("as it was told")
    return "done by " + str(os.getpid())
"""


class Rig:
    """A nats-server, agents' processes, and the folder where they leave traces."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spool = directory / "spool"
        self.log = directory / "agent.log"
        (directory / "outage_engine.py").write_text(PROGRAM)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        config = directory / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{directory / "store"}" }}\n')
        binary = Path(sys.executable).parent / "nats-server"
        self.server = subprocess.Popen([binary, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.agents: list[subprocess.Popen[bytes]] = []

    def agent(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "NATS_URL": f"nats://127.0.0.1:{self.port}",
            "ENGINES_LEASE_SECONDS": str(LEASE),
            "ENGINES_SPOOL_DIR": str(self.spool),
            "AGENT_HTTP_PORT": "0",
            "AGENT_SHUTDOWN_GRACE_SECONDS": "3",
            "PYTHONPATH": str(self.directory),
            "OUTAGE_DIR": str(self.directory),
        }
        command = [sys.executable, "-m", "agent_engines.cli", "run", "outage_engine:engine"]
        with self.log.open("ab") as log:
            self.agents.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.directory))
        return self.agents[-1]

    @property
    def begun(self) -> list[str]:
        path = self.directory / "begun"
        return path.read_text().split() if path.exists() else []

    def stop_server(self) -> None:
        """Returns when every thread of it stands: on a busy machine one may go on for long enough to answer."""
        self.server.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.server.pid, os.WSTOPPED)

    def go(self) -> None:
        (self.directory / "go").touch()

    async def bus(self) -> JetStreamBus:
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(Unavailable):
                    bus = await JetStreamBus.connect(f"nats://127.0.0.1:{self.port}", lease_seconds=LEASE)
                    await bus.provision()
                    return bus
                await asyncio.sleep(0.1)

    async def spooled(self) -> int:
        """How many reports are in spool files, read from a copy: the originals are locked."""
        copy = self.directory / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        if not self.spool.exists():
            return 0
        shutil.copytree(self.spool, copy)
        count = 0
        for orphan in await FileSpool(copy, "worker").orphans():
            while (group := await orphan.read()) is not None:
                count += len(group)
            await orphan.leave()
        return count

    def end(self) -> None:
        for process in (*self.agents, self.server):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.end()


@pytest.fixture
async def bus(rig: Rig) -> AsyncIterator[JetStreamBus]:
    bus = await rig.bus()
    yield bus
    await bus.close()


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not look():
            await asyncio.sleep(0.05)


async def publish(bus: JetStreamBus, *names: str, fails: bool = False) -> None:
    for name in names:
        payload = msgspec.Raw(msgspec.json.encode({"fails": fails}))
        message = TaskMessage(task_id=name, request_id=name, task_type="work", agent="worker", payload=payload)
        await bus.tasks.publish_task(message)


async def ends(reports: ReportInbox, wait: float) -> list[Report]:
    """What was told about ends of attempts within `wait` seconds of silence."""
    found: list[Report] = []
    with contextlib.suppress(Unavailable):
        while batches := await reports.pull(100, wait):
            found += [one for batch in batches for one in batch.reports if one.kind is not ReportKind.STARTED]
            await reports.ack(batches)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_work_finished_while_the_bus_stands_still_survives_its_process(
    rig: Rig, bus: JetStreamBus, number: signal.Signals
) -> None:
    agent = rig.agent()
    names = [f"t{count}" for count in range(5)]
    await publish(bus, *names)
    await until(lambda: len(rig.begun) == 5)
    rig.stop_server()
    rig.go()
    async with asyncio.timeout(PATIENCE):
        while await rig.spooled() < 5:
            await asyncio.sleep(0.1)
    agent.send_signal(number)
    code = await asyncio.to_thread(agent.wait, PATIENCE)
    assert code == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    assert await rig.spooled() == 5
    rig.server.send_signal(signal.SIGCONT)
    rig.agent()
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(Unavailable):
                if await bus.tasks.backlog("worker") == 0:
                    break
            await asyncio.sleep(0.1)
    reports = await bus.reports.open_reports()
    told = await ends(reports, 1.0)
    assert {report.task_id for report in told} == set(names)
    assert {report.status for report in told} == {TaskStatus.SUCCESS}
    assert {bytes(report.result) for report in told} == {f'"done by {agent.pid}"'.encode()}
    assert sorted(rig.begun) == names
    assert list(rig.spool.iterdir()) == []


async def test_a_process_that_stood_still_for_its_lease_does_not_tell_its_failure(rig: Rig, bus: JetStreamBus) -> None:
    agent = rig.agent()
    await publish(bus, "t1", fails=True)
    await until(lambda: rig.begun == ["t1"])
    agent.send_signal(signal.SIGSTOP)
    inbox = await bus.tasks.open_inbox("worker")
    taken = []
    async with asyncio.timeout(PATIENCE):
        while not taken:
            taken = await inbox.pull(NORMAL, 1, 1.0)
    assert taken[0].count == 2
    rig.go()
    agent.send_signal(signal.SIGCONT)
    async with asyncio.timeout(PATIENCE):
        while "A task outlived its lease" not in rig.log.read_text():
            await inbox.extend(taken)
            await asyncio.sleep(0.2)
    reports = await bus.reports.open_reports()
    assert await ends(reports, 1.0) == []
    await inbox.extend(taken)
    # The new owner still has it, and so it has not come back to the one that stood still.
    assert await bus.tasks.backlog("worker") == 1
    assert rig.begun == ["t1"]
