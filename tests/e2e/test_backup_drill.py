"""The restore drill: a system is backed up at work, destroyed, restored elsewhere, and ends everything exactly once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_engines.cli import main
from running_system import System, finished, system, wait_until

DIGEST = (
    "SELECT md5(string_agg(r::text, '|' ORDER BY r.task_id)) AS digest FROM task_results r WHERE r.task_id = ANY ($1)"
)
OPEN = (
    "SELECT t.task_id FROM tasks t WHERE NOT EXISTS (SELECT FROM task_results r WHERE r.task_id = t.task_id) ORDER BY 1"
)
PLANNED_SECONDS = 10.0


def submit(http: Any, task_type: str, count: int, **more: Any) -> list[str]:
    answers = [http.post("/v1/tasks", json={"task_type": task_type, "payload": n, **more}) for n in range(count)]
    assert all(answer.status_code == 202 for answer in answers), answers[0].text
    return [answer.json()["task_id"] for answer in answers]


def ask(running: System, query: str, *arguments: object) -> list[dict[str, Any]]:
    return asyncio.run(running.sql(query, *arguments))


def destroy(running: System) -> None:
    """The machine is lost: no process gets to say a word, no file stays."""
    pids = [running.process.pid, *running.endpoints["pids"].values()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    running.process.wait()
    remove(running.data_dir)


def remove(data_dir: Path) -> None:
    """With PostgreSQL's data, which is elsewhere when we are root."""
    home = data_dir / "postgres.home"
    if home.exists():
        shutil.rmtree(home.read_text().strip())
    shutil.rmtree(data_dir, ignore_errors=True)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Path]:
    """Where the two installations are; nothing of them is left."""
    yield tmp_path
    for name in ("first", "second"):
        remove(tmp_path / name)


def test_a_restored_system_ends_every_task_exactly_once(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finished tasks keep their outcomes to the byte and do not run again; running, queued and planned ones end once."""
    diary, out = places / "diary", str(places / "backup")
    engines = ["--engine", "diary:engine", "--engine", "agent_engines.engines.echo:echo_engine"]
    options, environment = engines, {"DIARY_FILE": str(diary)}
    with system(places / "first", *options, environment=environment) as first:
        with first.http() as http:
            assert http.post("/v1/agents/echo:quarantine").status_code == 200
            ended = submit(http, "note", 20) + submit(http, "never", 2) + submit(http, "unlucky", 2)
            # Four run, the others wait on the bus, the last two for their time.
            waiting = submit(http, "held", 6) + submit(http, "held", 2, run_at=time.time() + PLANNED_SECONDS)
            for task_id in ended:
                finished(http, task_id)
        assert main(["backup", "--out", out, "--data-dir", str(first.data_dir), "--json"]) == 0
        manifest = json.loads(capsys.readouterr().out)["manifest"]
        assert manifest["bus"] == {"journal": 0, "reports": 0}
        assert manifest["modes"] == {"echo": "quarantined"}
        before = ask(first, DIGEST, ended)
        assert [row["task_id"] for row in ask(first, OPEN)] == sorted(waiting)
        assert main(["restore", "--from", out, "--data-dir", str(first.data_dir), "--force"]) == 1
        assert "engines are running there" in capsys.readouterr().err
        destroy(first)
    assert main(["restore", "--from", out, "--data-dir", str(places / "second"), "--json"]) == 0
    assert "echo was quarantined and is so again" in capsys.readouterr().err
    Path(f"{diary}.open").touch()
    with system(places / "second", *options, environment=environment) as second:
        wait_until(lambda: not ask(second, OPEN), "every task has ended")
        with second.http() as http:
            assert http.get("/v1/agents/echo").json()["mode"] == "quarantined"
            assert http.post("/v1/decisions", json={"task_type": "echo"}).status_code == 503
            assert http.post("/v1/agents/echo:resume").status_code == 200
            assert http.post("/v1/decisions", json={"task_type": "echo"}).json()["selected_agent"] == "echo"
    # It was stopped by SIGTERM: the next start finds everything.
    with system(places / "second", *options, environment=environment) as second:
        after = ask(second, DIGEST, ended)
        results = ask(second, "SELECT task_id, status FROM task_results")
        letters = ask(second, "SELECT task_id FROM dead_letters")
    assert after == before
    assert Counter(diary.read_text().split()) == dict.fromkeys(ended + waiting, 1)
    assert sorted(row["task_id"] for row in results) == sorted(ended + waiting)
    assert {row["status"] for row in results if row["task_id"] in waiting} == {"success"}
    assert len(letters) == manifest["tables"]["dead_letters"] > 0
