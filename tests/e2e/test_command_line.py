"""The command line as an operator uses it, against a running system."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_engines.cli import main
from running_system import System


def test_submit_and_wait_prints_the_result(fleet: System) -> None:
    """One task, its result on standard output, exit code 0."""
    done = fleet.engines("submit", "echo", "--payload", '{"name": "Ada"}', "--wait", "--json")
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout)
    assert task["status"] == "success"
    assert task["result"] == {"name": "Ada"}


def test_a_file_of_tasks_is_submitted_as_a_whole(fleet: System, tmp_path: Path) -> None:
    """One JSON object a line; all of them end well."""
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(json.dumps({"task_type": "echo", "payload": n}) + "\n" for n in range(50)))
    done = fleet.engines("submit", "--file", str(file), "--wait", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"success"') >= 50 or '"success":50' in done.stdout.replace(" ", "")


def test_tasks_agents_and_decisions_can_be_listed_and_shown(
    fleet: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every list prints data; --json prints JSON. In this process: a dozen more would show nothing but their start."""
    monkeypatch.setenv("ENGINES_URL", fleet.url)
    monkeypatch.setenv("ENGINES_DATA_DIR", str(fleet.data_dir))

    def engines(*words: str) -> str:
        assert main([*words]) == 0, (words, capsys.readouterr().err)
        return capsys.readouterr().out

    task = json.loads(engines("submit", "test", "--wait", "--json"))
    for words in (["tasks", "list"], ["agents", "list"], ["decisions", "list"], ["dead-letters", "list"], ["status"]):
        assert engines(*words).strip()
        json.loads(engines(*words, "--json"))
    shown = json.loads(engines("tasks", "show", task["task_id"], "--json"))
    assert shown["task_id"] == task["task_id"]
    assert "echo" in engines("decisions", "show", task["request_id"])


def test_an_agent_can_be_drained_and_resumed(fleet: System) -> None:
    """A drained agent is not chosen; a resumed one is."""
    try:
        assert fleet.engines("agents", "drain", "misbehaving").returncode == 0
        refused = fleet.engines("submit", "plain", "--payload", '{"a": 1, "b": 2}', "--wait", "--patience", "0")
        assert refused.returncode != 0
        assert "drain" in refused.stderr
    finally:
        assert fleet.engines("agents", "resume", "misbehaving").returncode == 0
    done = fleet.engines("submit", "plain", "--payload", '{"a": 1, "b": 2}', "--wait", "--json")
    assert done.returncode == 0, done.stderr


def test_errors_are_one_readable_line_and_have_the_right_exit_code(fleet: System) -> None:
    """No traceback; what to do next; 1 failed, 2 wrong usage, 3 unreachable."""
    missing = fleet.engines("tasks", "show", "01890000-0000-7000-8000-000000000000")
    assert missing.returncode == 1
    broken = fleet.engines("submit", "echo", "--payload", "{not json")
    assert broken.returncode == 2
    unreachable = fleet.engines("tasks", "list", "--url", "http://127.0.0.1:9")
    assert unreachable.returncode == 3
    unknown = fleet.engines("run", "no_such_module:engine")
    assert unknown.returncode == 2
    for failed in (missing, broken, unreachable, unknown):
        assert "Traceback" not in failed.stderr
        assert failed.stderr.strip()
        assert failed.stdout == ""


def test_a_system_without_its_agent_cannot_be_harmed_and_what_is_missing_is_told(fleet: System) -> None:
    done = fleet.engines("chaos", "--data-dir", str(fleet.data_dir), "--scenario", "storm")
    assert done.returncode == 2
    assert "agent_engines.testing.chaos.engine:engine" in done.stderr


def test_settings_are_shown_without_secrets(fleet: System) -> None:
    """`config show` names the source of each value and hides passwords."""
    shown = fleet.engines("config", "show")
    assert shown.returncode == 0, shown.stderr
    assert "AGENT_MAX_CONCURRENT_TASKS" in shown.stdout
    assert "environment" in shown.stdout
    password = fleet.endpoints["postgres_url"].split(":")[2].split("@")[0]
    assert password not in shown.stdout
