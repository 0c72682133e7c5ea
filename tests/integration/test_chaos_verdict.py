"""The verdict of a fault run must not believe the API: a server that accepts and forgets is found out in the ledger."""

from __future__ import annotations

import gzip
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from test_postgres_ledger import entry, final

from agent_engines.adapters.postgres.evidence import LedgerEvidence
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.adapters.postgres.migrate import migrate
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import TaskStatus
from agent_engines.testing.chaos import Load, Nemesis, verdict
from agent_engines.testing.chaos.engine import STARTS
from agent_engines.testing.chaos.run import Options, Run
from agent_engines.testing.chaos.runner import SKIPPED, abilities, chosen, reports
from agent_engines.testing.chaos.scenarios import Needs


class Liar(BaseHTTPRequestHandler):
    """Says "accepted" to everything and does nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.answer({"results": [{"task_id": f"id-{task['metadata']['nonce']}"} for task in body["tasks"]]})

    def do_GET(self) -> None:
        self.answer({"status": "queued"})

    def answer(self, data: dict[str, Any]) -> None:
        text = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@dataclass
class Place:
    data_dir: Path
    url: str
    endpoints: dict[str, Any]


@pytest.fixture
async def place(tmp_path: Path, postgres_url: str, nats_url: str) -> Any:
    await migrate(postgres_url)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    yield Place(tmp_path, url, {"postgres_url": postgres_url, "nats_url": nats_url, "pids": {}})
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("agent_engines.testing.chaos.judgement.HISTORIES", tmp_path / "kept")
    return tmp_path / "kept"


async def test_tasks_that_were_accepted_and_forgotten_are_lost_and_the_history_is_kept(place: Place) -> None:
    load = Load(place.url, Random(1), prefix="run")
    await load.amount(30)
    found = await verdict("lies", place, load, Nemesis(place, Random(1)), settle=0.5, seed=1, alone=False)
    assert (found.accepted, found.recorded, found.lost) == (30, 0, 30)
    assert not found.passed
    assert {one.rule for one in found.violations} == {"lost"}
    line = json.loads(found.line())
    assert line["verdict"] == "FAIL"
    assert set(line["versions"]) == {"agent-engines", "python", "nats", "postgres"}
    assert "unknown" not in line["versions"].values()
    assert found.history is not None
    kept = json.loads(gzip.decompress(Path(found.history).read_bytes()))
    assert len(kept["calls"]) == 30


async def test_an_end_without_its_task_does_not_count(place: Place) -> None:
    load = Load(place.url, Random(1), prefix="run")
    await load.amount(1)
    (task_id,) = load.accepted.values()
    await record(place, [task_id])
    found = await verdict("half", place, load, Nemesis(place, Random(1)), settle=0.5, alone=False)
    assert (found.recorded, found.lost) == (1, 1)


async def test_what_ran_although_its_acceptance_was_never_heard_of_has_its_start(place: Place) -> None:
    """The commit was done and the router killed before it could answer: the row is ours, and so is the handler's note."""
    load = Load(place.url, Random(1), prefix="run")
    ledger = await PostgresLedger.connect(place.endpoints["postgres_url"], pool_min=1, pool_max=1)
    try:
        await ledger.tasks.accept([entry("t-1", metadata={"nonce": "run-7"})])
        end = msgspec.structs.replace(final("t-1"), result=msgspec.Raw(b'{"token":"once"}'))
        await ledger.tasks.record([end])
    finally:
        await ledger.close()
    start = {"task_id": "t-1", "attempt": 1, "where": "1", "at": 1.0, "token": "once"}
    (place.data_dir / STARTS).write_text(json.dumps(start) + "\n")
    found = await verdict("unheard", place, load, Nemesis(place, Random(1)), settle=0.5, alone=False)
    assert [one.rule for one in found.violations] == ["from nowhere"], "this load never asked for it"
    (place.data_dir / STARTS).write_text("")
    found = await verdict("unheard", place, load, Nemesis(place, Random(1)), settle=0.5, alone=False)
    assert {one.rule for one in found.violations} == {"from nowhere", "success without work"}


async def test_all_rows_are_read_however_many_there_are(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_engines.adapters.postgres.evidence.PAGE_ROWS", 2)
    names = [f"task-{number}" for number in range(5)]
    await record(place, names)
    evidence = await LedgerEvidence.connect(place.endpoints["postgres_url"])
    try:
        assert sorted(row.task_id for row in await evidence.rows()) == names
        assert [row.task_id for row in await evidence.rows(prefix="other-", task_ids=names[:1])] == names[:1]
    finally:
        await evidence.close()


async def test_rows_of_others_are_not_looked_at_unless_the_system_is_ours_alone(place: Place) -> None:
    evidence = await LedgerEvidence.connect(place.endpoints["postgres_url"])
    try:
        assert await evidence.rows() == []
        assert await evidence.ended(["nothing"]) == (0, 0)
    finally:
        await evidence.close()


async def test_harm_that_cannot_be_done_is_skipped(place: Place) -> None:
    assert abilities(place, Options()) is Needs.NOTHING
    assert abilities(place, Options(kill="true")) is Needs.KILL
    found = [one async for one in reports(place, chosen(["agents", "pause"]), Options(), begun=lambda _: None)]
    assert [(one.scenario, one.verdict) for one in found] == [("agents", SKIPPED), ("pause", SKIPPED)]


async def test_the_owners_command_does_the_killing(place: Place, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    options = Options(kill=f"echo {{name}} >> {killed}", faults=2, tasks=5, lease_seconds=0.0)
    run = Run("bus", place, options, chosen(["bus"])[0].make)
    await run.kill_some(run.nemesis.named("nats"), (0.0, 0.01))
    assert killed.read_text().split() == ["nats", "nats"]
    assert run.nemesis.faults == {"command nats": 2}


async def record(place: Place, task_ids: list[str]) -> None:
    """Ends without their tasks, as only a fault can leave them."""
    ledger = await PostgresLedger.connect(place.endpoints["postgres_url"], pool_min=1, pool_max=1)
    try:
        ends = [
            Report(
                kind=ReportKind.FINAL,
                task_id=task_id,
                request_id=f"request of {task_id}",
                task_type="work",
                agent="chaos",
                status=TaskStatus.SUCCESS,
                completed_at=1_700_000_000.0,
            )
            for task_id in task_ids
        ]
        await ledger.tasks.record(ends)
    finally:
        await ledger.close()
