"""`engines check` on real servers with one broken setting each: it is read from the server and named."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import nats
import pytest
from nats.js.api import StorageType

from agent_engines.adapters.embedded import Endpoints
from agent_engines.adapters.embedded.binaries import find_nats_server
from agent_engines.adapters.postgres.migrate import migrate
from agent_engines.bootstrap.preflight import Places, preflight
from agent_engines.cli import main
from agent_engines.config import load_config
from agent_engines.domain.preflight.finding import Finding, Severity
from agent_engines.domain.preflight.report import Profile, Report
from consul_house import StandIn
from nats_cluster import Node, free_ports

PASSWORD = "long-enough-for-a-test"


@pytest.fixture
async def plain_role(postgres_url: str) -> AsyncIterator[str]:
    """A migrated database and a role without any right but to read it."""
    await migrate(postgres_url)
    admin = await asyncpg.connect(postgres_url, ssl=False)
    try:
        await admin.execute(f"CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'")
        await admin.execute("GRANT SELECT ON alembic_version TO plain")
        yield f"postgresql://plain:{PASSWORD}@{postgres_url.rpartition('@')[2]}"
        await admin.execute("DROP OWNED BY plain; DROP ROLE plain")
    finally:
        await admin.close()


@pytest.fixture
def open_nats(tmp_path: Path) -> Iterator[Node]:
    """A server that asks nobody for a login and has no monitoring."""
    client, cluster, monitor = free_ports(3)
    node = Node("open", tmp_path, client, cluster, monitor)
    configuration = tmp_path / "open.conf"
    configuration.write_text(f'listen: "127.0.0.1:{client}"\njetstream {{ store_dir: "{tmp_path}/js" }}\n')
    process = subprocess.Popen([str(find_nats_server()), "-c", str(configuration)], stderr=subprocess.DEVNULL)
    yield node
    process.terminate()
    process.wait()


async def checked(places: Places, only: Sequence[str]) -> Report:
    return await preflight(load_config({}), places, Profile.PRODUCTION, only=only)


def named(report: Report, name: str) -> list[Finding]:
    return [one for one in report.findings if one.id == name]


async def test_a_role_whose_commits_are_not_on_disk_is_named_and_what_it_may_not_see_is_said(
    plain_role: str, postgres_url: str
) -> None:
    before = await checked(Places(postgres=plain_role), ["postgres"])
    assert [one.severity for one in named(before, "postgres.synchronous_commit")] == [Severity.FINE]
    admin = await asyncpg.connect(postgres_url, ssl=False)
    await admin.execute("ALTER ROLE plain SET synchronous_commit = off")
    await admin.close()
    report = await checked(Places(postgres=plain_role), ["postgres"])
    (said,) = named(report, "postgres.synchronous_commit")
    assert (said.severity, said.read["synchronous_commit.source"]) == (Severity.UNSAFE, "user")
    (override,) = named(report, "postgres.overrides")
    assert (override.severity, override.read["role"]) == (Severity.UNSAFE, "plain")
    unread = {one.id for one in report.findings if one.severity is Severity.UNREAD}
    assert unread == {"postgres.hba", "postgres.archive", "postgres.oldest_transaction", "postgres.disk"}
    assert [one.severity for one in named(report, "postgres.role")] == [Severity.FINE]
    assert (report.exit_code, report.unreachable) == (1, {})


async def test_a_queue_in_memory_is_named_by_its_stream(nats_url: str, servers: Endpoints) -> None:
    client = await nats.connect(nats_url)
    await client.jetstream().add_stream(name="RESULTS", subjects=["ae.v1.result.*"], storage=StorageType.MEMORY)
    await client.close()
    report = await checked(Places(nats=nats_url, monitors=(str(servers.nats_monitor_url),)), ["nats"])
    (said,) = named(report, "nats.storage")
    assert (said.severity, said.of, said.read["storage"]) == (Severity.UNSAFE, "RESULTS", "memory")
    # The embedded server asks for a login and flushes every second; both are its own words.
    assert [one.severity for one in named(report, "nats.login")] == [Severity.FINE]
    assert named(report, "nats.sync_interval")[0].read == {"sync_interval": "1 s"}


async def test_a_bus_that_lets_anybody_in_is_found_out_by_going_in(open_nats: Node) -> None:
    for _ in range(100):
        report = await checked(Places(nats=open_nats.url), ["nats"])
        if not report.unreachable:
            break
        await asyncio.sleep(0.05)
    (said,) = named(report, "nats.login")
    assert (said.severity, said.read["login without credentials"]) == (Severity.UNSAFE, "accepted")
    # Without a monitoring port nobody knows when it writes to the disk.
    assert [one.severity for one in named(report, "nats.sync_interval")] == [Severity.UNREAD]


async def test_the_cache_and_consul_are_read_too(redis_url: str) -> None:
    consul = StandIn()
    await consul.start()
    try:
        report = await checked(Places(redis=redis_url, consul=f"http://127.0.0.1:{consul.port}"), ["redis", "consul"])
    finally:
        await consul.stop()
    assert report.unreachable == {}
    assert {one.severity for one in report.findings if one.part == "redis"} == {Severity.FINE}
    assert [one.severity for one in named(report, "consul.leader")] == [Severity.FINE]


def test_the_command_ends_by_profile_and_by_reach(
    servers: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The embedded PostgreSQL is used as its superuser: unsafe in production, only named in development."""
    monkeypatch.setenv("POSTGRES_URL", servers.postgres_url)
    monkeypatch.setenv("NATS_URL", f"nats://127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setenv("ENGINES_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ENGINES_PROFILE", "production")

    def engines(*arguments: str) -> tuple[int, dict[str, Any]]:
        return main(["check", "--json", *arguments]), json.loads(capsys.readouterr().out)

    code, told = engines("--only", "postgres")
    assert (code, told["exit_code"], told["profile"]) == (1, 1, "production")
    code, told = engines("--only", "postgres", "--profile", "development")
    assert (code, told["counts"]["unsafe"] > 0) == (0, True)
    code, told = engines()
    assert (code, list(told["unreachable"]), told["counts"]["fine"] > 5) == (3, ["nats"], True)
    assert servers.postgres_url.split(":")[2].partition("@")[0] not in json.dumps(told)
    assert main(["check", "--accept", "local.htpp"]) == 2
