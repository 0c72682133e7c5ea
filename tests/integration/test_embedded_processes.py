"""The supervisor of engine processes: what dies comes back, what is told to stop may finish."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent_engines.adapters.embedded import EmbeddedServers, Endpoints, ProcessSupervisor
from agent_engines.adapters.embedded.leftovers import Remembered
from agent_engines.adapters.embedded.process_identity import identity
from agent_engines.domain.errors import EmbeddedServerError, NotFound

# Says by a file that it runs; on SIGTERM writes its name into the common list and ends.
POLITE = """
import os, signal, sys
name, directory = sys.argv[1], sys.argv[2]
def end(*_):
    with open(f"{directory}/ended", "a") as file:
        print(name, file=file)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
open(f"{directory}/{name}.running", "w").close()
while True:
    signal.pause()
"""
STUBBORN = POLITE.replace("os._exit(0)", "return")
URLS = {"nats_url": "nats://n", "postgres_url": "postgresql://p", "redis_url": "redis://r"}


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def program(code: str, name: str, directory: Path) -> list[str]:
    return [sys.executable, "-S", "-c", code, name, str(directory)]


async def start(directory: Path, *names: str, code: str = POLITE) -> ProcessSupervisor:
    """Supervise one process for each name; return when all of them run."""
    processes = ProcessSupervisor(directory / "data")
    for name in names:
        processes.add(name, program(code, name, directory), {})
    await processes.start()
    await until(lambda: all((directory / f"{name}.running").exists() for name in names))
    return processes


def read_pids(directory: Path) -> dict[str, int]:
    return Endpoints.read(directory / "data" / "endpoints.json").pids


async def test_a_process_that_dies_comes_back(tmp_path: Path) -> None:
    processes = await start(tmp_path, "performance", "optimizing")
    before = processes.pids
    os.kill(before["performance"], signal.SIGKILL)
    await until(lambda: processes.restarts["performance"] == 1)
    after = processes.pids
    await processes.stop()
    assert before["performance"] != after["performance"]
    assert before["optimizing"] == after["optimizing"]


async def test_a_program_that_cannot_run_is_tried_again_and_again(tmp_path: Path) -> None:
    processes = ProcessSupervisor(tmp_path / "data")
    processes.add("agent:broken:0", [sys.executable, "-c", "raise SystemExit('no such engine')"], {})
    await processes.start()
    await until(lambda: processes.restarts["agent:broken:0"] >= 2)
    await processes.stop()
    assert "no such engine" in (tmp_path / "data" / "logs" / "agent-broken-0.log").read_text()


async def test_a_program_that_is_not_there_is_refused_and_takes_the_others_with_it(tmp_path: Path) -> None:
    processes = ProcessSupervisor(tmp_path / "data")
    processes.add("performance", program(POLITE, "performance", tmp_path), {})
    processes.add("agent:absent:0", [str(tmp_path / "absent")], {})
    with pytest.raises(EmbeddedServerError, match=r"cannot start .*absent"):
        await processes.start()
    assert processes.pids == {}


async def test_endpoints_follow_every_change_and_go_with_the_stop(tmp_path: Path) -> None:
    processes = await start(tmp_path, "intelligence")
    with pytest.raises(NotFound):
        read_pids(tmp_path)
    processes.publish(Endpoints(http_url="http://h", **URLS))
    first = read_pids(tmp_path)
    os.kill(first["intelligence"], signal.SIGKILL)
    await until(lambda: processes.restarts["intelligence"] == 1)
    second = read_pids(tmp_path)
    path = tmp_path / "data" / "endpoints.json"
    written, mode = msgspec.json.decode(path.read_bytes()), path.stat().st_mode & 0o777
    await processes.stop()
    assert first["intelligence"] != second["intelligence"] == written["pids"]["intelligence"]
    assert (written["http_url"], written["supervisor_pid"], mode) == ("http://h", os.getpid(), 0o600)
    assert not path.exists()


async def test_endpoints_that_cannot_be_written_do_not_keep_a_process_down(tmp_path: Path) -> None:
    processes = await start(tmp_path, "performance")
    processes.publish(Endpoints(**URLS))
    before, path = processes.pids, tmp_path / "data" / "endpoints.json"
    path.unlink()
    path.mkdir()
    os.kill(before["performance"], signal.SIGKILL)
    await until(lambda: processes.restarts["performance"] == 1)
    after = processes.pids
    path.rmdir()
    await processes.stop()
    assert set(after) == {"performance"}
    assert before != after


async def test_endpoints_name_the_servers_too_and_follow_their_restarts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with EmbeddedServers(data, ephemeral=True) as servers:
        processes = ProcessSupervisor(data, servers=servers)
        processes.add("performance", program(POLITE, "performance", tmp_path), {})
        await processes.start()
        processes.publish(msgspec.structs.replace(servers.endpoints, http_url="http://h"))
        before = read_pids(tmp_path)
        os.kill(before["redis"], signal.SIGKILL)
        await until(lambda: read_pids(tmp_path).get("redis", before["redis"]) != before["redis"])
        after = read_pids(tmp_path)
        await processes.stop()
    assert set(before) == set(after) == {"nats", "postgres", "redis", "performance"}
    assert {name for name in before if before[name] != after[name]} == {"redis"}


async def test_agents_and_intelligence_end_before_the_engines_that_listen_to_them(tmp_path: Path) -> None:
    processes = await start(tmp_path, "optimizing", "performance", "intelligence", "agent:a:0")
    await processes.stop()
    ended = (tmp_path / "ended").read_text().split()
    assert set(ended[:2]) == {"agent:a:0", "intelligence"}
    assert set(ended[2:]) == {"optimizing", "performance"}


async def test_who_does_not_end_in_the_grace_is_killed(tmp_path: Path) -> None:
    processes = await start(tmp_path, "intelligence", code=STUBBORN)
    pid = processes.pids["intelligence"]
    await processes.stop(grace=0.2)
    assert (tmp_path / "ended").read_text() == "intelligence\n"
    assert identity(pid) is None


async def test_stop_may_be_called_twice_and_before_start(tmp_path: Path) -> None:
    processes = ProcessSupervisor(tmp_path / "data")
    await processes.stop()
    await processes.start()
    await processes.stop()
    await processes.stop()
    assert processes.pids == {}


async def test_the_first_signal_asks_and_the_second_kills(tmp_path: Path) -> None:
    processes = await start(tmp_path, "intelligence", code=STUBBORN)
    stopping = processes.handle_signals()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(20):
        await stopping.wait()
        stop = asyncio.create_task(processes.stop(grace=1000))
        await until((tmp_path / "ended").exists)
        os.kill(os.getpid(), signal.SIGTERM)
        await stop
    assert processes.pids == {}


async def test_a_process_added_later_starts_at_once(tmp_path: Path) -> None:
    processes = await start(tmp_path, "performance")
    processes.add("agent:late:0", program(POLITE, "late", tmp_path), {})
    await until((tmp_path / "late.running").exists)
    pids = processes.pids
    await processes.stop()
    assert set(pids) == {"performance", "agent:late:0"}


async def test_a_second_supervisor_of_one_directory_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    processes = await start(tmp_path, "performance")
    processes.publish(Endpoints(**URLS))
    with pytest.raises(EmbeddedServerError, match=f"in use by process {os.getpid()}"):
        await ProcessSupervisor(tmp_path / "data").start()
    pids = read_pids(tmp_path)
    await processes.stop()
    assert set(pids) == {"performance"}


async def test_leftovers_are_stopped_and_a_reused_number_is_not_touched(tmp_path: Path) -> None:
    left, stranger = (subprocess.Popen(["/bin/sleep", "600"]) for _ in range(2))
    book = {
        "agent:left:0": Remembered(left.pid, identity(left.pid) or "", signal.SIGTERM),
        "agent:reused:0": Remembered(stranger.pid, "another boot:1", signal.SIGTERM),
    }
    (tmp_path / "processes.pids.json").write_bytes(msgspec.json.encode(book))
    processes = ProcessSupervisor(tmp_path)
    try:
        await processes.start()
        await processes.stop()
        assert (left.wait(timeout=20), stranger.poll()) == (-signal.SIGTERM, None)
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


async def test_output_may_go_where_ours_goes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    processes = ProcessSupervisor(tmp_path, inherit_output=True)
    heard: list[str] = []

    def listen() -> bool:
        heard.append(capfd.readouterr().out)
        return "spoken" in "".join(heard)

    processes.add("agent:a:0", [sys.executable, "-c", "import time; print('spoken', flush=True); time.sleep(600)"], {})
    await processes.start()
    await until(listen)
    await processes.stop()
    assert not (tmp_path / "logs").exists()
