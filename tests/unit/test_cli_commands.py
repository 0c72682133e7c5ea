"""The command line: exit codes, one readable line for each error, JSON for programs, tables for people."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent_engines.cli import main
from agent_engines.cli.lazy import COMMANDS, ROOM, load

AGENT = {
    "name": "echo",
    "agent_type": "echo",
    "status": "healthy",
    "mode": "active",
    "breaker": "closed",
    "capabilities": ["echo", "test"],
    "metadata": {},
    "replicas": [{"replica": "r", "state": "running", "load": {"running": 2, "queued": 3}, "age_seconds": 0.1}],
    "last_seen": "2026-01-01T00:00:00.000Z",
}
ACCEPTED = {
    "task_id": "t1",
    "request_id": "t1",
    "status": "queued",
    "selected_agent": "echo",
    "confidence": 0.9,
    "propensity": 0.5,
    "strategy": "adaptive",
    "reasoning": "because",
    "policy_version": "v1",
    "durability": "committed",
}
TASK = {
    "task_id": "t1",
    "request_id": "t1",
    "task_type": "echo",
    "status": "success",
    "selected_agent": "echo",
    "priority": 3,
    "attempts": 1,
    "result": {"n": 1},
    "error": None,
    "execution_time_ms": 1.5,
    "submitted_at": "2026-01-02T03:04:05.678Z",
    "started_at": None,
    "completed_at": None,
    "trace_id": None,
}
SWIFT = {"poll_interval": 0.01}
"""Seconds after which a server notices that it is told to stop; every test waits for that."""
Reply = tuple[int, Any]


class Server:
    """A real HTTP server in a thread; the test says what it answers."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Callable[[Any], Reply] | Reply] = {}
        self.requests: list[tuple[str, str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                content = json.loads(self.rfile.read(length)) if length else None
                outer.requests.append((self.command, self.path, content))
                found = outer.answers.get((self.command, self.path.partition("?")[0]), outer.nothing(self.path))
                status, value = found(content) if callable(found) else found
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs=SWIFT, daemon=True).start()

    @staticmethod
    def nothing(path: str) -> Reply:
        return 404, {"type": "/docs#problem-not-found", "status": 404, "detail": f"nothing at {path}"}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of this machine leaks in, and no `.env` of the checkout."""
    for name in list(os.environ):
        if name.startswith(("ENGINES_", "AGENT_", "NATS_", "POSTGRES_", "REDIS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def engines(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line against the server: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("ENGINES_URL", server.url)
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


Run = Callable[..., tuple[int, str, str]]


def one_line(text: str) -> str:
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text.removeprefix("engines: ").rstrip()


@pytest.mark.parametrize(
    "arguments",
    [
        ["tasks", "list"],
        ["tasks", "show", "x"],
        ["agents", "list"],
        ["decisions", "list"],
        ["dead-letters", "list"],
        ["policies", "list"],
        ["status"],
        ["top", "--once"],
    ],
)
def test_an_unreachable_server_is_exit_3_and_one_line_with_what_to_do(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--url", "http://user:hunter2@127.0.0.1:1"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    line = one_line(captured.err)
    assert "127.0.0.1:1 does not answer" in line
    assert "engines up" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["taks"], "Did you mean 'tasks'"),
        (["tasks", "list", "--limit", "900"], "--limit"),
        (["tasks", "list", "--status", "great"], "--status"),
        (["tasks", "show"], "Missing argument"),
        (["submit", "echo", "--payload", "{bad"], "--payload is not JSON"),
        (["submit", "echo", "--payload", "@/nonexistent"], "cannot read /nonexistent"),
        (["submit", "echo", "--requirements", "[1]"], "--requirements must be a JSON object"),
        (["submit", "echo", "--priority", "9"], "--priority"),
        (["submit"], "name a TASK_TYPE"),
        (["submit", "--file", "/nonexistent"], "cannot read /nonexistent"),
        (["run", "nonsense"], "'nonsense' is not an engine"),
        (["run", "no.such.module:engine"], "no module 'no.such.module'"),
        (["up", "--engine", "a:b*0"], "--engine 'a:b*0' is not usable"),
        (["tasks", "list", "--url", "nats://x:4222"], "the command line speaks HTTP"),
        (["dead-letters", "redrive"], "name the tasks to redrive"),
        (["dead-letters", "redrive", "a", "--all"], "name the tasks to redrive"),
        (["dead-letters", "redrive", "a", "--agent", "b"], "go with --all"),
        (["submit", "echo", "--in", "soon"], "no time span"),
        (["submit", "echo", "--in", "5m", "--at", "2030-01-01T00:00:00Z"], "give one of them"),
        (["submit", "echo", "--at", "2030-01-01"], "needs an offset"),
        (["schedules", "add", "a", "@daily"], "Missing argument"),
        (["db", "status"], "POSTGRES_URL is not set"),
    ],
)
def test_wrong_usage_is_exit_2_and_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in one_line(captured.err)


@pytest.mark.parametrize("name", ["tasks", "agents", "db", "policies"])
def test_a_group_without_a_command_shows_its_help_and_says_what_is_missing(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 2
    captured = capsys.readouterr()
    assert f"Usage: engines {name}" in captured.out
    assert one_line(captured.err) == f"name a command; see `engines {name} --help`"


def test_a_server_that_is_away_is_not_taken_for_the_system_s_own_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTGRES_URL", "postgresql://u:hunter2@127.0.0.1:1/db")
    assert main(["db", "status"]) == 3
    line = one_line(capsys.readouterr().err)
    assert "PostgreSQL at 127.0.0.1:1/db does not answer" in line
    assert "engines config show" in line
    assert "ENGINES_URL" not in line


def test_a_wrong_setting_is_exit_2_and_one_line_for_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENT_QUEUE_SIZE", "many")
    monkeypatch.setenv("POSTGRES_URL", "postgresql://u:hunter2@h:x/db")
    assert main(["config", "show"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert "AGENT_QUEUE_SIZE='many'" in err
    assert "hunter2" not in err


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "list", "--debug", "--url", "http://127.0.0.1:1"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_version_and_help_say_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("engines 0.")
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


def test_every_command_of_the_table_can_be_loaded_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name, (target, _) in COMMANDS.items():
        load(f"{ROOM}.{target}")
        assert main([name, "--help"]) == 0
        assert "--debug" in capsys.readouterr().out or name not in ("up", "run", "submit", "status", "top")


def test_lists_are_tables_for_people_and_json_for_programs(server: Server, engines: Run) -> None:
    server.answers["GET", "/v1/agents"] = (200, {"items": [AGENT], "next_cursor": None})
    code, out, _ = engines("agents", "list")
    assert code == 0
    assert out.splitlines()[0].split()[:3] == ["agent", "status", "type"]
    assert "healthy" in out
    code, out, _ = engines("agents", "list", "--json")
    assert json.loads(out) == {"items": [AGENT]}


def test_filters_reach_the_server_and_the_next_page_is_named(server: Server, engines: Run) -> None:
    server.answers["GET", "/v1/tasks"] = (200, {"items": [TASK], "next_cursor": "abc"})
    code, out, err = engines("tasks", "list", "--status", "success", "--limit", "1")
    assert code == 0
    assert "t1" in out
    assert "more: --cursor abc" in err
    assert server.requests[-1][1] == "/v1/tasks?status=success&limit=1"


def test_text_of_others_is_printed_as_text(server: Server, engines: Run) -> None:
    nasty = "[red]x[/red] \x1b[31m\n[/]"
    server.answers["GET", "/v1/tasks"] = (200, {"items": [{**TASK, "task_type": nasty}], "next_cursor": None})
    code, out, _ = engines("tasks", "list")
    assert code == 0
    assert "[red]x[/red] \\x1b[31m\\n[/]" in out
    assert "\x1b" not in out


def test_what_is_not_there_or_not_possible_is_exit_1(server: Server, engines: Run) -> None:
    server.answers["DELETE", "/v1/tasks/t1"] = (
        409,
        {"type": "/docs#problem-conflict", "status": 409, "detail": "it has ended"},
    )
    assert engines("tasks", "show", "nope")[0] == 1
    code, _, err = engines("tasks", "cancel", "t1")
    assert (code, one_line(err)) == (1, "it has ended")


def test_no_agent_is_a_failure_and_not_an_unreachable_server(server: Server, engines: Run) -> None:
    refused = {"type": "/docs#problem-no-eligible-agent", "status": 503, "detail": "nobody can do this"}
    server.answers["POST", "/v1/tasks:batch"] = (503, refused)
    code, _, err = engines("submit", "echo", "--patience", "0")
    assert code == 1
    assert "nobody can do this" in one_line(err)
    assert len(server.requests) == 1


def test_a_refused_submission_is_tried_again_while_its_patience_lasts(server: Server, engines: Run) -> None:
    refused = {"type": "/docs#problem-no-eligible-agent", "status": 503, "detail": "nobody can do this"}
    answers = iter([(503, refused), (202, {"results": [ACCEPTED]})])
    server.answers["POST", "/v1/tasks:batch"] = lambda _: next(answers)
    assert engines("submit", "echo", "--patience", "2")[0] == 0
    assert len(server.requests) == 2


def test_a_system_that_lacks_a_part_is_not_to_be_started_again(server: Server, engines: Run) -> None:
    down = {"type": "/docs#problem-unavailable", "status": 503, "detail": "postgres does not answer"}
    server.answers["GET", "/v1/tasks"] = (503, down)
    code, _, err = engines("tasks", "list")
    assert code == 3
    assert "postgres does not answer" in one_line(err)
    assert "`engines status` shows what is down" in err
    assert "engines up" not in err


def test_submit_sends_payload_and_options(server: Server, engines: Run, tmp_path: Path) -> None:
    server.answers["POST", "/v1/tasks:batch"] = (202, {"results": [ACCEPTED]})
    (tmp_path / "p.json").write_text('{"from": "file"}')
    code, out, _ = engines(
        "submit", "echo", "--payload", "@p.json", "--priority", "1", "--requirements", '{"gpu":true}', "--json"
    )
    assert code == 0
    assert json.loads(out)["task_id"] == "t1"
    (sent,) = server.requests[-1][2]["tasks"]
    assert sent.pop("idempotency_key")
    assert sent == {"task_type": "echo", "payload": {"from": "file"}, "priority": 1, "requirements": {"gpu": True}}


def test_submit_and_wait_prints_the_outcome_and_exits_by_it(server: Server, engines: Run) -> None:
    server.answers["POST", "/v1/tasks:batch"] = (202, {"results": [ACCEPTED]})
    server.answers["GET", "/v1/tasks/t1"] = (200, TASK)
    code, out, _ = engines("submit", "echo", "--wait", "--json")
    assert (code, json.loads(out)["result"]) == (0, {"n": 1})
    error = {"type": "ValueError", "message": "no", "retryable": False}
    server.answers["GET", "/v1/tasks/t1"] = (200, {**TASK, "status": "dead_letter", "error": error})
    code, out, err = engines("submit", "echo", "--wait")
    assert code == 1
    assert "dead_letter" in out
    assert one_line(err) == "task t1 ended as dead_letter: ValueError: no"


def test_submit_a_file_of_tasks_and_payloads(server: Server, engines: Run, tmp_path: Path) -> None:
    def answer(content: Any) -> Reply:
        return 202, {"results": [{**ACCEPTED, "task_id": f"t{n}"} for n, _ in enumerate(content["tasks"])]}

    server.answers["POST", "/v1/tasks:batch"] = answer
    (tmp_path / "tasks.jsonl").write_text('{"n": 1}\n\n{"task_type": "test", "payload": 2, "priority": 5}\n')
    code, out, _ = engines("submit", "echo", "--file", "tasks.jsonl", "--json")
    summary = json.loads(out)
    assert code == 0
    assert (summary["tasks"], summary["accepted"], summary["refused"]) == (2, 2, 0)
    assert summary["task_ids"] == ["t0", "t1"]
    sent = server.requests[-1][2]["tasks"]
    assert [(one["task_type"], one["payload"]) for one in sent] == [("echo", {"n": 1}), ("test", 2)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"n": 1}\n{bad\n', "line 2 is not JSON"),
        ('{"task_type": "a", "priorty": 1}\n', "unknown field 'priorty'"),
        ('{"n": 1}\n', "has no task_type"),
        ("\n", "holds no tasks"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_sent(
    server: Server, engines: Run, tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "tasks.jsonl").write_text(content)
    code, _, err = (
        engines("submit", "--file", "tasks.jsonl")
        if said != "line 2 is not JSON"
        else engines("submit", "echo", "--file", "tasks.jsonl")
    )
    assert code == 2
    assert said in one_line(err)
    assert server.requests == []


def test_refused_lines_of_a_file_are_named_and_exit_1(server: Server, engines: Run, tmp_path: Path) -> None:
    problem = {"error": {"type": "/docs#problem-invalid-request", "status": 422, "detail": "priority must be 1 to 5"}}
    server.answers["POST", "/v1/tasks:batch"] = (202, {"results": [ACCEPTED, problem]})
    (tmp_path / "tasks.jsonl").write_text("1\n2\n")
    code, _, err = engines("submit", "echo", "--file", "tasks.jsonl")
    assert code == 1
    assert one_line(err) == "line 2 was refused: priority must be 1 to 5"


def test_operators_decide_about_agents(server: Server, engines: Run) -> None:
    server.answers["POST", "/v1/agents/echo:drain"] = (200, {**AGENT, "status": "draining"})
    code, out, _ = engines("agents", "drain", "echo")
    assert code == 0
    assert "draining" in out


def test_redrive_goes_on_after_one_that_fails(server: Server, engines: Run) -> None:
    server.answers["POST", "/v1/dead-letters/b:redrive"] = (202, TASK)
    code, out, _ = engines("dead-letters", "redrive", "a", "b", "--json")
    items = json.loads(out)["items"]
    assert code == 1
    assert [item["task_id"] for item in items] == ["a", "b"]
    assert "problem" in items[0]
    assert items[1]["status"] == "success"


def test_redrive_all_is_ordered_once_and_followed_to_its_end(server: Server, engines: Run) -> None:
    order = {"id": "r1", "state": "running", "matched": 3, "redriven": 0, "skipped": 0, "agent": None}
    looks = iter([{**order, "redriven": 2}, {**order, "redriven": 2, "skipped": 1, "state": "done"}])
    server.answers["POST", "/v1/dead-letters:redrive"] = (202, order)
    server.answers["GET", "/v1/dead-letters:redrive"] = lambda _: (200, next(looks))
    code, out, _ = engines("dead-letters", "redrive", "--all", "--task-type", "scan", "--rate", "20", "--json")
    assert code == 0
    assert json.loads(out)["state"] == "done"
    [(_, _, body)] = [request for request in server.requests if request[0] == "POST"]
    assert body == {"task_type": "scan", "rate": 20.0}


def test_a_decision_is_shown_with_candidates_and_those_not_chosen(server: Server, engines: Run) -> None:
    record = {
        "request_id": "r1",
        "selected_agent": "a",
        "reasoning": "fast enough",
        "candidates": [{"agent": "a", "probability": 0.75}],
        "rejected": [{"agent": "b", "reason": "lost"}],
    }
    server.answers["GET", "/v1/decisions/r1"] = (200, record)
    code, out, _ = engines("decisions", "show", "r1")
    assert code == 0
    assert all(word in out for word in ("fast enough", "0.75", "lost"))
    assert json.loads(engines("decisions", "show", "r1", "--json")[1]) == record


def test_policies_are_listed_and_shown(server: Server, engines: Run) -> None:
    row = {
        "policy": "uniform",
        "task_type": None,
        "value": 0.5,
        "interval": [0.4, 0.6],
        "rows": 10,
        "warnings": ["few"],
    }
    router = {"router": "router-1", "policy": "c3", "version": "c3-1", "turn": 2, "problem": "mine cannot be run here"}
    told = {"policies": [row], "active": "mine", "promoted": "mine", "routers": [router]}
    server.answers["GET", "/v1/policies"] = (200, told)
    code, out, err = engines("policies", "list")
    assert (code, err) == (0, "")
    assert "[0.4,0.6]" in out
    assert "mine cannot be run here" in out
    assert json.loads(engines("policies", "show", "uniform", "--json")[1]) == {"items": [row]}
    code, _, err = engines("policies", "show", "other")
    assert (code, one_line(err)) == (1, "there is no policy 'other'; known: uniform")


CHANGE = {
    "turn": 2,
    "verb": "promote",
    "from": "adaptive",
    "to": "c3",
    "version": "c3-1",
    "at": "2026-01-02T03:04:05.678Z",
    "by": "ann",
    "reason": "a try",
    "forced": True,
    "objections": ["too thin: effective sample size 12 is under 500"],
    "evidence": [
        {"task_type": None, "value": 0.125, "interval": [0.0625, 0.25], "effective_sample_size": 12.0, "rows": 40}
    ],
}


def test_a_policy_is_promoted_and_rolled_back(server: Server, engines: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "carl")
    server.answers["POST", "/v1/policies/c3:promote"] = (200, CHANGE)
    server.answers["POST", "/v1/policies/c3:rollback"] = (200, {**CHANGE, "verb": "rollback", "evidence": []})
    code, out, err = engines("policies", "promote", "c3", "--reason", "a try", "--by", "ann", "--force")
    assert (code, err) == (0, "")
    assert all(word in out for word in ("adaptive", "c3-1", "too thin", "[0.0625,0.25]"))
    assert server.requests[-1][2] == {"by": "ann", "reason": "a try", "force": True, "guard": True}
    assert json.loads(engines("policies", "rollback", "c3", "--json")[1])["verb"] == "rollback"
    assert server.requests[-1][2] == {"by": "carl", "reason": ""}
    assert engines("policies", "rollback", "c3")[0] == 0
    detail = "the recorded decisions do not speak for c3: too thin"
    server.answers["POST", "/v1/policies/c3:promote"] = (
        409,
        {"type": "/docs#problem-conflict", "status": 409, "detail": detail},
    )
    code, _, err = engines("policies", "promote", "c3", "--no-guard")
    assert (code, one_line(err)) == (1, detail)
    assert server.requests[-1][2] == {"by": "carl", "reason": "", "force": False, "guard": False}


def test_status_tells_health_and_dead_processes(server: Server, engines: Run, tmp_path: Path) -> None:
    server.answers["GET", "/health"] = (200, {"status": "healthy", "checks": {"nats": True}})
    server.answers["GET", "/ready"] = (200, {"status": "ready"})
    assert engines("status")[0] == 0
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / ".engines").mkdir()
    endpoints = {
        "http_url": server.url,
        "postgres_url": "postgresql://u:hunter2@h/db",
        "pids": {"nats": os.getpid(), "redis": gone.pid},
    }
    (tmp_path / ".engines" / "endpoints.json").write_text(json.dumps(endpoints))
    code, out, _ = engines("status")
    assert code == 1
    assert "hunter2" not in out
    code, out, _ = engines("status", "--json")
    found = json.loads(out)
    assert {one["name"]: one["state"] for one in found["processes"]} == {"nats": "running", "redis": "dead"}
    assert found["postgres_url"] == "postgresql://u:hunter2@h/db"


def test_status_of_an_ill_system_is_exit_1(server: Server, engines: Run) -> None:
    server.answers["GET", "/health"] = (503, {"status": "unhealthy", "checks": {"nats": False}})
    server.answers["GET", "/ready"] = (503, {"status": "not_ready", "detail": "no agent was heard from"})
    code, out, _ = engines("status")
    assert code == 1
    assert all(word in out for word in ("unhealthy", "down", "no agent was heard from"))


def test_top_shows_one_picture_when_nobody_looks(server: Server, engines: Run) -> None:
    figures = {"agent": "echo", "task_type": None, "queue": 5, "rate_per_s": 12.5, "error_rate": 0.0, "p50_ms": 1.0}
    overview = {
        "agents": [AGENT],
        "performance": {"agents": [figures], "fleet": {"rate_per_s": 12.5}},
        "counts": {"success": 7},
        "decisions": [],
        "server_time": "2026-01-01T00:00:00.000Z",
    }
    server.answers["GET", "/v1/overview"] = (200, overview)
    code, out, _ = engines("top")
    assert code == 0
    assert all(word in out for word in ("12.5 tasks/s", "success 7", "echo"))
    server.answers["GET", "/v1/overview"] = (200, {**overview, "performance": None})
    assert "the performance engine does not run" in engines("top", "--once")[1]
    away = {"counts": None, "decisions": None, "problem": "postgres does not answer"}
    server.answers["GET", "/v1/overview"] = (200, {**overview, **away})
    code, out, _ = engines("top")
    assert code == 0
    assert all(word in out for word in ("postgres does not answer", "echo", "counts unknown"))
    assert "no tasks yet" not in out


def test_config_show_masks_secrets_and_names_sources(
    engines: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("AGENT_QUEUE_SIZE=7\n")
    monkeypatch.setenv("POSTGRES_URL", "postgresql://u:hunter2@h/db")
    monkeypatch.setenv("AGENT_QUEU_SIZE", "8")
    code, out, err = engines("config", "show", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert (rows["AGENT_QUEUE_SIZE"]["value"], rows["AGENT_QUEUE_SIZE"]["source"]) == ("7", ".env")
    assert rows["POSTGRES_URL"]["value"] == "postgresql://u:***@h/db"
    assert "did you mean AGENT_QUEUE_SIZE?" in one_line(err)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_has_left_is_no_error(server: Server, tmp_path: Path, form: list[str]) -> None:
    left = threading.Event()

    def answer(_: Any) -> Reply:
        left.wait(30)
        return 200, {"items": [TASK] * 500, "next_cursor": None}

    server.answers["GET", "/v1/tasks"] = answer
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_engines.cli", "tasks", "list", *form, "--url", server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    process.stdout.close()
    left.set()
    process.stdout = None
    _, complaint = process.communicate(timeout=60)
    assert complaint == b""
    assert process.returncode == 0


def test_running_an_engine_loads_nothing_it_does_not_need(tmp_path: Path) -> None:
    code = "import sys, agent_engines.cli.entry, agent_engines.cli.run; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    heavy = {
        "httpx2",
        "rich",
        "fastapi",
        "pydantic",
        "asyncpg",
        "sqlalchemy",
        "redis",
        "nats",
        "numpy",
        "opentelemetry",
    }
    assert not heavy & set(loaded.stdout.split())


def test_bench_says_who_can_be_measured_when_nobody_performs_the_task_type(engines: Run, server: Server) -> None:
    server.answers[("GET", "/v1/agents")] = (200, {"items": [AGENT], "next_cursor": None})
    code, out, error = engines("bench", "--task-type", "sing")
    assert (code, out) == (2, "")
    assert "nobody performs 'sing' (there are: echo, test; choose one with --task-type" in one_line(error)
    assert {method for method, _, _ in server.requests} == {"GET"}, "nothing was submitted"
    assert logging.getLogger("agent").level == logging.NOTSET, "what it silences it gives its voice back"


def test_bench_is_of_what_was_named_and_of_nothing_else(engines: Run, tmp_path: Path) -> None:
    code, out, error = engines("bench", "--data-dir", str(tmp_path))
    assert (code, out) == (3, "")
    assert "nothing runs in" in one_line(error)
    code, out, error = engines("bench", "--url", "http://127.0.0.1:9")
    assert (code, out) == (3, "")
    assert "does not answer" in one_line(error)
    code, out, error = engines("bench", "--over", "nats")
    assert (code, out) == (2, "")
    assert "--url" in one_line(error)
