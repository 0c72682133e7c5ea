"""`engines diagnose`: all that can be had within its time, and no secret in any file of it."""

from __future__ import annotations

import json
import os
import signal
import stat
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from agent_engines.adapters.embedded import Endpoints
from agent_engines.cli import main
from agent_engines.testing.servers import BackgroundServers

API_KEY = "canary-api/key+with=signs"
CAPABILITY = "canary-capability-" + "k" * 20
CONSUL = "canary-consul-token"
HEADER = "canary-otel-header"
CLOUD = "canary-cloud-secret"
IN_DOTENV = "canary-dotenv-password"
SEED = "SU" + "A" * 4 + "CANARYSEED" + "B" * 42
JWT = "eyJ0eXAiOiJKV1QifQ.eyJjYW5hcnkiOiJqd3QifQ.c2lnbmF0dXJl"
KNOWN = [API_KEY, CAPABILITY, CONSUL, HEADER, CLOUD, IN_DOTENV, SEED, JWT]
STRANGE = ["canary-unknown-url", "canary-unknown-json", "canary-unknown-bearer", "CanaryPrivateKeyBody"]
"""Secrets nothing here was told of: found by their shape."""
DATA = ["canary-payload-of-a-customer", "canary-result-of-a-customer"]
LOG = f"""engines: connected to nats://someone:{STRANGE[0]}@elsewhere:4222/x after 3 s
harmless line that must stay
{{"timestamp": "t", "message": "logged in", "context": {{"password": "{STRANGE[1]}", "user": "u"}}}}
sent Authorization: Bearer {STRANGE[2]}
-----BEGIN PRIVATE KEY-----
{STRANGE[3]}
-----END PRIVATE KEY-----
"""


class Answers(BaseHTTPRequestHandler):
    """A router that repeats every secret it can think of."""

    def do_GET(self) -> None:
        said: dict[str, Any] = {"status": "healthy", "note": " ".join(KNOWN), "token": STRANGE[1]}
        if self.path.startswith(("/v1/tasks", "/v1/decisions", "/v1/dead-letters")):
            task = {
                "task_id": "t1",
                "status": "failed",
                "payload": {"name": DATA[0]},
                "result": [DATA[1]],
                "metadata": DATA[0],
            }
            said = {"items": [{**task, "error": {"type": "E", "message": "told to fail", "details": DATA[1]}}]}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture
def site(servers: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation with real servers, a talkative router, and secrets wherever they may be."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    data = tmp_path / "data"
    (data / "logs").mkdir(parents=True)
    passwords = [url.rpartition("@")[0].rpartition(":")[2] for url in addresses(servers)]
    spoken = "".join(f"somebody wrote {one} and {quote(one, safe='')} into the log\n" for one in [*KNOWN, *passwords])
    (data / "logs" / "agent-echo-1.log").write_text(LOG + spoken)
    told = {"nats_url": servers.nats_url, "postgres_url": servers.postgres_url, "redis_url": servers.redis_url}
    told |= {"nats_monitor_url": servers.nats_monitor_url, "http_url": f"http://127.0.0.1:{server.server_port}"}
    (data / "endpoints.json").write_text(json.dumps({**told, "pids": {"postgres": servers.pids["postgres"]}}))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"SOME_PASSWORD={IN_DOTENV}\n")
    (tmp_path / "consul").write_text(CONSUL + "\n")
    (tmp_path / "user.creds").write_text(
        f"-----BEGIN NATS USER JWT-----\n{JWT}\n------END NATS USER JWT------\n{SEED}\n"
    )
    environment = {
        "ENGINES_API_KEY": API_KEY,
        "ENGINES_CAPABILITY_KEY": CAPABILITY,
        "CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "consul"),
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={HEADER}",
        "CLOUD_SECRET_KEY": CLOUD,
        "ENGINES_DATA_DIR": str(data),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    server.shutdown()
    server.server_close()


def addresses(servers: Endpoints) -> list[str]:
    return [servers.nats_url, servers.postgres_url, servers.redis_url]


def opened(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        members = {one.name.partition("/")[2]: archive.extractfile(one) for one in archive.getmembers()}
        return {name: file.read().decode() for name, file in members.items() if file is not None}


def leaks(files: dict[str, str], secrets: list[str]) -> list[tuple[str, str]]:
    forms = {form for one in secrets for form in (one, quote(one, safe=""), json.dumps(one)[1:-1])}
    return [(name, form) for name, text in files.items() for form in forms if form in text or form in name]


def test_a_bundle_tells_much_and_no_secret(site: Path, servers: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    out = site / "b.tar.gz"
    assert main(["diagnose", "--out", str(out)]) == 0
    files = opened(out)
    passwords = [url.rpartition("@")[0].rpartition(":")[2] for url in addresses(servers)]
    assert leaks(files, [*KNOWN, *STRANGE, *DATA, *passwords]) == []
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [path.name for path in site.glob(".b.tar.gz*")] == []
    summary = json.loads(files["summary.json"])
    assert summary["missing"] == {}
    assert set(summary["files"]) | {"summary.json"} == set(files)
    assert "harmless line that must stay" in files["logs/agent-echo-1.log"]
    assert json.loads(files["records/tasks.json"])["body"]["items"][0] == {
        "task_id": "t1",
        "status": "failed",
        "payload": {"name": "text of 28"},
        "result": ["list of 1", "text of 27"],
        "metadata": "text of 28",
        "error": {"type": "E", "message": "told to fail", "details": "text of 27"},
    }
    assert json.loads(files["check.json"])["unreachable"] == {}
    variables = json.loads(files["configuration.json"])["variables"]
    assert {"name": "ENGINES_API_KEY", "value": "***", "source": "environment"} in variables
    assert any(row["name"] == "postgres" and row["state"] != "gone" for row in json.loads(files["processes.json"]))
    # Payloads only when they are asked for; a file that is there is left alone.
    before = out.read_bytes()
    assert main(["diagnose", "--out", str(out)]) == 2
    assert out.read_bytes() == before
    monkeypatch.setenv("NATS_CREDS", str(site / "user.creds"))
    assert main(["diagnose", "--out", str(site / "whole.tar.gz"), "--with-payloads"]) == 0
    whole = opened(site / "whole.tar.gz")
    assert DATA[0] in whole["records/tasks.json"]
    assert leaks(whole, [*KNOWN, *STRANGE, *passwords]) == []


def test_a_server_that_stands_still_costs_its_parts_and_not_the_bundle(
    site: Path, background_servers: BackgroundServers
) -> None:
    stopped = [background_servers.endpoints.pids[name] for name in ("postgres", "nats")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    try:
        assert main(["diagnose", "--out", str(site / "b.tar.gz")]) == 0
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - start < 30
    files = opened(site / "b.tar.gz")
    missing = json.loads(files["summary.json"])["missing"]
    assert set(missing) == {
        "nats/server.json",
        *(f"postgres/{name}.json" for name in ("activity", "locks", "tables", "settings")),
    }
    assert "does not answer" in files["postgres/activity.json.error.txt"]
    assert set(json.loads(files["check.json"])["unreachable"]) == {"nats", "postgres"}
    assert "harmless line that must stay" in files["logs/agent-echo-1.log"]
