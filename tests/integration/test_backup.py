"""Backup and restore on real servers: what is in it, what is refused, and what a kill or a fault leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import nats
import pytest

from agent_engines.adapters.backup import make as make_module
from agent_engines.adapters.backup.make import described, make_backup
from agent_engines.adapters.backup.manifest import DUMP, MANIFEST, Bus, Manifest
from agent_engines.adapters.backup.restore import checked, restore_backup
from agent_engines.adapters.backup.verify import verify_backup
from agent_engines.adapters.embedded import Endpoints
from agent_engines.adapters.embedded.process_identity import command_lines
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.jetstream.streams import Limits
from agent_engines.adapters.postgres.migrate import migrate
from agent_engines.adapters.postgres.pool import Pool
from agent_engines.bootstrap.unrecorded import unrecorded
from agent_engines.cli import main
from agent_engines.config import load_config
from agent_engines.domain import subjects
from agent_engines.domain.errors import BackupFailed

HEAD = "0006"
TASKS = """
INSERT INTO agents (name, status) VALUES ('a', 'quarantined'), ('b', 'healthy');
INSERT INTO tasks (task_id, request_id, task_type, payload, requirements, metadata, priority, body_hash, submitted_at,
    origin, status, generation, attempt, updated_at)
SELECT 't' || n, 'r' || n, 'echo', '{"text": "söme"}', '{}', '{}', 3, '\\x00', now(), 'o', 'queued', 1, 1, now()
FROM generate_series(1, 5) n;
INSERT INTO task_results (task_id, agent_id, status, result, request_id, task_type, priority, replica, generation,
    attempt, delivery, submitted_at, completed_at)
SELECT 't' || n, 'a', 'success', '{"n": 1}', 'r' || n, 'echo', 3, '', 1, 1, 1, now(), now() FROM generate_series(1, 3) n;
INSERT INTO shared_secrets (name, value) VALUES ('capability', '\\x0102');
"""


async def run(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn, ssl=False)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def ask(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn, ssl=False)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def make(dsn: str, out: Path) -> Manifest:
    return await make_backup(dsn, out, bus=Bus(journal=0, reports=0), program="0.1.0", now=time.time())


@pytest.fixture
async def ledger_url(postgres_url: str) -> str:
    """A ledger with five tasks, three of which have ended."""
    await migrate(postgres_url)
    await run(postgres_url, TASKS)
    return postgres_url


@pytest.fixture
async def other_url(servers: Endpoints) -> AsyncIterator[str]:
    """A second, empty database."""
    name = f"other_{secrets.token_hex(6)}"
    await run(servers.postgres_url, f"CREATE DATABASE {name}")
    yield f"{servers.postgres_url.rpartition('/')[0]}/{name}"
    await run(servers.postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


async def restore(dsn: str, directory: Path, *, force: bool = False) -> str | None:
    return (await restore_backup(dsn, directory, await checked(directory), force=force)).schema


def edit(directory: Path, **changes: object) -> None:
    path = directory / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


async def test_what_is_backed_up_comes_back(ledger_url: str, other_url: str, tmp_path: Path) -> None:
    """Every row and the trigger that guards outcomes; files for their owner only; no password in any of them."""
    out = tmp_path / "backup"
    manifest = await make(ledger_url, out)
    assert (manifest.tables["tasks"], manifest.tables["task_results"], manifest.open_tasks) == (5, 3, 2)
    assert (manifest.schema, manifest.modes) == (HEAD, {"a": "quarantined"})
    assert await verify_backup(out) == (manifest, [])
    assert [oct(path.stat().st_mode & 0o777) for path in (out, out / DUMP, out / MANIFEST)] == [
        "0o700",
        "0o600",
        "0o600",
    ]
    password = ledger_url.split(":")[2].split("@", maxsplit=1)[0].encode()
    assert all(password not in path.read_bytes() for path in out.iterdir())
    assert await restore(other_url, out) == HEAD
    digest = "SELECT md5(string_agg(r::text, '|' ORDER BY task_id)) FROM task_results r"
    assert await ask(other_url, digest) == await ask(ledger_url, digest)
    with pytest.raises(asyncpg.RestrictViolationError):
        await run(other_url, "UPDATE task_results SET status = 'failed'")


async def test_rows_that_arrive_during_the_dump_are_in_neither_count_nor_dump(
    ledger_url: str, other_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts and dump are of one moment: a row is committed after the counting and before pg_dump starts."""
    dump = make_module._dump

    async def after_one_more(*arguments: Any) -> None:
        await run(ledger_url, "INSERT INTO agents (name) VALUES ('late')")
        await dump(*arguments)

    monkeypatch.setattr(make_module, "_dump", after_one_more)
    manifest = await make(ledger_url, tmp_path / "backup")
    assert manifest.tables["agents"] == 2
    await restore(other_url, tmp_path / "backup")
    assert await ask(other_url, "SELECT count(*) FROM agents") == 2


async def waiting_dump(connection: asyncpg.Connection) -> None:
    """Return when pg_dump waits for the lock this connection holds."""
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'engines-backup' AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(30):
        while not await connection.fetchval(waits):
            # Within a transaction the server shows the activity of its first look.
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(0.02)


def processes_with(text: str) -> list[int]:
    """Those whose arguments, which everybody can read, contain it."""
    return [pid for pid, arguments in command_lines().items() if any(text in argument for argument in arguments)]


async def test_an_interrupted_backup_leaves_nothing(ledger_url: str, tmp_path: Path) -> None:
    """Ctrl-C cancels: pg_dump is ended and the draft removed."""
    await run(ledger_url, "CREATE SCHEMA aside; CREATE TABLE aside.slow (n int)")
    blocker = await asyncpg.connect(ledger_url, ssl=False)
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE aside.slow")
            making = asyncio.create_task(make(ledger_url, tmp_path / "backup"))
            await waiting_dump(blocker)
            making.cancel()
            with pytest.raises(asyncio.CancelledError):
                await making
            assert list(tmp_path.iterdir()) == []
            assert not processes_with(str(tmp_path))
    finally:
        await blocker.close()


async def test_a_killed_backup_is_no_backup_and_the_next_one_cleans_up(ledger_url: str, tmp_path: Path) -> None:
    """kill -9 while pg_dump works: no directory of that name, a draft that verify refuses, no pg_dump left running."""
    out = tmp_path / "backup"
    await run(ledger_url, "CREATE SCHEMA aside; CREATE TABLE aside.slow (n int)")
    blocker = await asyncpg.connect(ledger_url, ssl=False)
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE aside.slow")
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent_engines.cli", "backup", "--out", str(out)),
                env={**os.environ, "POSTGRES_URL": ledger_url},
                stderr=asyncio.subprocess.DEVNULL,
            )
            await waiting_dump(blocker)
            [draft] = tmp_path.iterdir()
            password = ledger_url.split(":")[2].split("@", maxsplit=1)[0]
            assert processes_with(str(draft))
            assert not processes_with(password)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            assert draft.name.startswith(".backup.partial-")
            manifest, faults = await verify_backup(draft)
            assert manifest is None
            assert len(faults) == 1
            async with asyncio.timeout(20):
                while processes_with(str(draft)):
                    await asyncio.sleep(0.02)
    finally:
        await blocker.close()
    await make(ledger_url, out)
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]


async def test_every_fault_of_a_backup_is_told(ledger_url: str, other_url: str, tmp_path: Path) -> None:
    """Damage, cuts, absences and a table that is not in the dump; none of them is restored."""
    out = tmp_path / "backup"
    manifest = await make(ledger_url, out)
    content = (out / DUMP).read_bytes()

    async def faults() -> list[str]:
        found = (await verify_backup(out))[1]
        with pytest.raises(BackupFailed):
            await restore(other_url, out)
        return found

    (out / DUMP).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert await faults() == [f"{DUMP} is not what was written: its SHA-256 is another"]
    (out / DUMP).write_bytes(content[:-1])
    assert await faults() == [f"{DUMP} has {len(content) - 1} bytes, the manifest says {len(content)}"]
    (out / DUMP).unlink()
    assert await faults() == [f"{DUMP} is missing"]
    (out / DUMP).write_bytes(content)
    edit(out, tables={**manifest.tables, "gone": 1})
    assert await faults() == [f"{DUMP} has no data of the table gone"]
    edit(out, tables={"agents": 2})
    assert await faults() == [
        "the manifest names no table task_results",
        "the manifest names no table decision_history",
    ]
    edit(out, format=99)
    assert "format 99" in (await faults())[0]
    (out / MANIFEST).unlink()
    assert "no backup, or not a whole one" in (await faults())[0]
    assert await ask(other_url, "SELECT to_regclass('tasks')") is None


async def test_what_a_target_holds_is_replaced_only_with_force(ledger_url: str, other_url: str, tmp_path: Path) -> None:
    """An empty schema counts as empty; a restore that fails at its end leaves the target as it was."""
    out = tmp_path / "backup"
    manifest = await make(ledger_url, out)
    await migrate(other_url)
    assert await restore(other_url, out) == HEAD
    await run(other_url, "INSERT INTO agents (name) VALUES ('newer')")
    with pytest.raises(BackupFailed, match=r"holds tasks, results; .*--force"):
        await restore(other_url, out)
    edit(out, tables={**manifest.tables, "task_results": 4})
    with pytest.raises(
        BackupFailed, match=r"nothing was restored: .*task_results has 3 rows where the manifest says 4"
    ):
        await restore(other_url, out, force=True)
    assert await ask(other_url, "SELECT count(*) FROM agents") == 3
    edit(out, tables=manifest.tables, modes={"a": "draining"})
    with pytest.raises(BackupFailed, match=r"nothing was restored: .*said .*quarantined.* manifest says .*draining"):
        await restore(other_url, out, force=True)
    edit(out, modes=manifest.modes)
    assert await restore(other_url, out, force=True) == HEAD
    assert await ask(other_url, "SELECT count(*) FROM agents") == 2


async def test_a_dump_that_breaks_off_is_not_committed(ledger_url: str, other_url: str, tmp_path: Path) -> None:
    """Its list is whole and its checksum is right: pg_restore finds the end when half of it is in the database."""
    out = tmp_path / "backup"
    await run(ledger_url, "CREATE TABLE zzz AS SELECT md5(n::text) FROM generate_series(1, 20000) n")
    manifest = await make(ledger_url, out)
    content = (out / DUMP).read_bytes()
    (out / DUMP).write_bytes(content[: -len(content) // 2])
    edit(out, files=[msgspec.to_builtins(described(out / DUMP))], tables={**manifest.tables})
    assert (await verify_backup(out))[1] == []
    with pytest.raises(BackupFailed, match="nothing was restored: could not read from input file"):
        await restore(other_url, out)
    assert await ask(other_url, "SELECT to_regclass('tasks')") is None


async def test_open_tasks_are_sent_again_at_once_unless_the_bus_is_kept(
    ledger_url: str, other_url: str, tmp_path: Path
) -> None:
    """With an hour as somebody's timeout they would wait for an hour, and the bus they were on is gone."""
    open_news = "SELECT count(*) FROM tasks WHERE updated_at < now() - interval '1 year'"
    manifest = await make(ledger_url, tmp_path / "backup")
    await restore_backup(other_url, tmp_path / "backup", manifest)
    assert await ask(other_url, open_news) == manifest.open_tasks == 2
    await restore_backup(other_url, tmp_path / "backup", manifest, force=True, bus_kept=True)
    assert await ask(other_url, open_news) == 0


async def test_engines_and_strangers_are_not_run_over(ledger_url: str, other_url: str, tmp_path: Path) -> None:
    """A database that engines use, and one with other people's tables."""
    await make(ledger_url, tmp_path / "backup")
    await run(other_url, "CREATE TABLE tasks (mine int)")
    with pytest.raises(BackupFailed, match="tables tasks that are not ours"):
        await restore(other_url, tmp_path / "backup", force=True)
    pool = await Pool.connect(ledger_url, maximum=1)
    try:
        with pytest.raises(BackupFailed, match=r"engines are running on this database \(1 connections\): stop them"):
            await restore(ledger_url, tmp_path / "backup", force=True)
    finally:
        await pool.close()


def test_a_backup_that_does_not_tell_what_operators_said_is_restored_and_says_so(
    ledger_url: str, other_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest has no `modes`, as those of another program; what the ledger noted comes back all the same."""
    out = tmp_path / "backup"
    asyncio.run(make(ledger_url, out))
    content = json.loads((out / MANIFEST).read_text())
    assert content.pop("modes") == {"a": "quarantined"}
    (out / MANIFEST).write_text(json.dumps(content))
    monkeypatch.setenv("POSTGRES_URL", other_url)
    assert main(["restore", "--from", str(out)]) == 0
    assert "does not tell which agents were drained or quarantined" in capsys.readouterr().err
    assert asyncio.run(ask(other_url, "SELECT status FROM agents WHERE name = 'a'")) == "quarantined"


async def test_an_older_backup_is_brought_up_and_a_newer_one_refused(
    postgres_url: str, other_url: str, tmp_path: Path
) -> None:
    await migrate(postgres_url, to="0004")
    manifest = await make(postgres_url, tmp_path / "backup")
    assert manifest.schema == "0004"
    assert await restore(other_url, tmp_path / "backup") == HEAD
    edit(tmp_path / "backup", schema="9999", program="9.0.0")
    with pytest.raises(BackupFailed, match=f"revision 9999, this program knows up to {HEAD}.*9.0.0"):
        await restore(other_url, tmp_path / "backup", force=True)


def test_tasks_that_only_the_journal_has_are_never_left_out_in_silence(
    ledger_url: str, nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No router runs, so nobody brings the entry into the ledger: refused, or said and noted when that is wanted."""
    asyncio.run(journal_one_task(nats_url))
    monkeypatch.setenv("POSTGRES_URL", ledger_url)
    monkeypatch.setenv("NATS_URL", nats_url)
    monkeypatch.setattr(unrecorded, "__kwdefaults__", {"patience": 0.0})
    assert main(["backup", "--out", str(tmp_path / "refused")]) == 1
    assert "1 accepted tasks are in the bus's journal only and would be missing" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
    assert main(["backup", "--out", str(tmp_path / "made"), "--without-journal", "--json"]) == 0
    told = capsys.readouterr()
    assert "they are not in this backup" in told.err
    assert json.loads(told.out)["manifest"]["bus"] == {"journal": 1, "reports": 0}


async def journal_one_task(nats_url: str) -> None:
    bus = await JetStreamBus.connect(nats_url, limits=Limits(sync_always=True))
    try:
        await bus.provision()
        config = load_config({})
        assert await unrecorded(config, nats_url) == Bus(journal=0, reports=0)
    finally:
        await bus.close()
    client = await nats.connect(nats_url)
    try:
        await client.jetstream().publish(subjects.journal("t1"), b"what it says does not matter here")
    finally:
        await client.close()
