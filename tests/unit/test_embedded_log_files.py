"""Logs of child processes stay small, and their last lines tell why a server did not start."""

from __future__ import annotations

from pathlib import Path

from agent_engines.adapters.embedded.log_files import LogFiles


def test_a_log_over_the_limit_keeps_its_newest_half_aside(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, limit=100)
    path = logs.path("nats")
    with path.open("ab", buffering=0) as writer:
        writer.write(b"o" * 80 + b"n" * 50)
        trimmed = logs.trim()
        # The writer is still there, and goes on at the new end.
        writer.write(b"later")
    assert trimmed == [path]
    assert path.read_bytes() == b"later"
    assert path.with_name("nats.log.1").read_bytes() == b"n" * 50


def test_a_log_within_the_limit_is_left_alone(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, limit=100)
    logs.path("nats").write_bytes(b"x" * 100)
    assert logs.trim() == []
    assert logs.size("nats") == 100


def test_names_of_processes_become_names_of_files(tmp_path: Path) -> None:
    assert LogFiles(tmp_path).path("agent:a/b:0") == tmp_path / "agent-a-b-0.log"


def test_the_first_error_of_this_start_is_told(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path)
    logs.path("postgres").write_text("FATAL: an old one\n")
    offset = logs.size("postgres")
    with logs.path("postgres").open("a") as file:
        file.write("LOG: starting\nFATAL: no space left\nFATAL: in consequence\nLOG: shut down\n")
    assert logs.reason("postgres", offset) == "FATAL: no space left"


def test_without_an_error_the_last_line_is_told(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path)
    logs.path("nats").write_text("starting\nending\n")
    assert logs.reason("nats") == "ending"


def test_without_a_log_there_is_nothing_to_tell(tmp_path: Path) -> None:
    assert LogFiles(tmp_path).reason("redis") == ""
