"""Backups: the parts that need no server."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec
import pytest

from agent_engines.adapters.backup.draft import draft_of
from agent_engines.adapters.backup.login import login
from agent_engines.adapters.backup.manifest import FORMAT, Manifest
from agent_engines.adapters.backup.programs import major_of, reason
from agent_engines.domain.errors import BackupFailed


def test_a_password_goes_into_the_environment_and_nowhere_else() -> None:
    address, environment = login("postgresql://ae:p%40ss%2Fw@db:5433/ledger?sslmode=require")
    assert address == "postgresql://ae@db:5433/ledger?sslmode=require"
    assert environment["PGPASSWORD"] == "p@ss/w"


def test_a_password_among_the_options_is_found_too() -> None:
    address, environment = login("postgresql://ae@one:1,two:2/ledger?password=hidden&target_session_attrs=read-write")
    assert address == "postgresql://ae@one:1,two:2/ledger?target_session_attrs=read-write"
    assert environment["PGPASSWORD"] == "hidden"


def test_without_a_password_the_users_own_file_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", "/secrets/pgpass")
    monkeypatch.setenv("ENGINES_CAPABILITY_KEY", "not for pg_dump")
    address, environment = login("postgresql:///ledger?host=/run/postgresql&options=-c%20jit%3Doff")
    assert address == "postgresql:///ledger?host=%2Frun%2Fpostgresql&options=-c%20jit%3Doff"
    assert environment["PGPASSFILE"] == "/secrets/pgpass"
    assert "PGPASSWORD" not in environment
    assert "ENGINES_CAPABILITY_KEY" not in environment


@pytest.mark.parametrize(("version", "major"), [("18.4", 18), ("15.18 (Debian)", 15), ("17beta1", 17), ("", 0)])
def test_the_major_version_is_the_leading_number(version: str, major: int) -> None:
    assert major_of(version) == major


def test_the_first_error_of_a_program_is_its_reason() -> None:
    complaint = b"pg_dump: detail\npg_dump: error: connection failed\npg_dump: error: later\n"
    assert reason(complaint, 1) == "connection failed"
    assert reason(b"", -9) == "it ended with code -9"


def test_a_directory_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "backup"
    with draft_of(target) as draft:
        (draft / "file").write_text("x")
        assert not target.exists()
        assert draft.stat().st_mode & 0o777 == 0o700
    assert (target / "file").read_text() == "x"
    assert [path.name for path in target.parent.iterdir()] == ["backup"]


def test_nothing_is_left_of_a_draft_that_failed(tmp_path: Path) -> None:
    def fail() -> None:
        with draft_of(tmp_path / "backup") as draft:
            (draft / "file").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_directory_is_taken_and_a_full_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with draft_of(tmp_path / "empty") as draft:
        (draft / "file").write_text("x")
    assert (tmp_path / "empty" / "file").exists()
    for taken in ("empty", "empty/file"):
        with pytest.raises(BackupFailed, match="never overwritten"), draft_of(tmp_path / taken):
            raise AssertionError("not reached")
    assert (tmp_path / "empty" / "file").read_text() == "x"


def test_only_drafts_of_the_dead_are_removed(tmp_path: Path) -> None:
    dead, living = tmp_path / ".backup.partial-1", tmp_path / ".backup.partial-2"
    for left in (dead, living):
        left.mkdir()
    descriptor = os.open(living, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with draft_of(tmp_path / "backup"):
            assert not dead.exists()
            assert living.exists()
    finally:
        os.close(descriptor)


def test_a_manifest_with_more_than_we_know_is_read_and_a_newer_format_is_refused(tmp_path: Path) -> None:
    made = {
        "format": FORMAT,
        "created_at": "2026-01-01T00:00:00.000Z",
        "program": "0.1.0",
        "schema": "0006",
        "server": "18.4",
        "client": "18.4",
        "tables": {"agents": 1},
        "open_tasks": 0,
        "files": [],
        "later": "unknown",
    }
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(made))
    assert Manifest.read(tmp_path).tables == {"agents": 1}
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode({"format": FORMAT + 1, "all": "different"}))
    with pytest.raises(BackupFailed, match=f"format {FORMAT + 1}.*or a newer one"):
        Manifest.read(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b'{"format": 1')
    with pytest.raises(BackupFailed, match="is damaged"):
        Manifest.read(tmp_path)
