"""A whole system for end-to-end tests: `engines up` as a user starts it, with engines that behave and misbehave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

HERE = Path(__file__).resolve().parent
START_SECONDS = 120.0
"""As long as `engines up` itself waits: some ten processes start, on machines that may have other work."""


@dataclass
class System:
    """A running `engines up`: its process, its endpoints, and the questions tests ask."""

    process: subprocess.Popen[str]
    data_dir: Path
    log: Path

    @property
    def endpoints(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "endpoints.json").read_text())

    @property
    def url(self) -> str:
        return self.endpoints["http_url"]

    def pid(self, name: str) -> int:
        return self.endpoints["pids"][name]

    def http(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=60)

    def stop(self) -> None:
        """SIGTERM: exit 0, every process gone. Nothing when it is over already."""
        if self.process.poll() is not None:
            return
        pids = self.endpoints["pids"]
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0, self.log.read_text()[-4000:]
        assert [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists() and _state(pid) != "Z"] == []

    async def sql(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.endpoints["postgres_url"])
        try:
            return [dict(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    def engines(
        self, *arguments: str, timeout: float = 90, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line against this system."""
        return subprocess.run(
            [sys.executable, "-m", "agent_engines.cli", *arguments],
            env={**os.environ, "ENGINES_URL": self.url, "ENGINES_DATA_DIR": str(self.data_dir)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            input=stdin,
        )


def wait_until(condition: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> Any:
    """Poll something outside this process until it holds; fail with a sentence when it never does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            value = condition()
        except (OSError, KeyError, ValueError, httpx2.HTTPError):
            value = None
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def finished(http: httpx2.Client, task_id: str, seconds: float = 30) -> dict[str, Any]:
    """The task once it has ended."""
    answer = http.get(f"/v1/tasks/{task_id}", params={"wait": seconds})
    assert answer.status_code == 200, answer.text
    return answer.json()


def beside(directory: Path) -> str:
    """PYTHONPATH with one folder more: what the caller put there is what is tested."""
    return os.pathsep.join(filter(None, (str(directory), os.environ.get("PYTHONPATH"))))


@contextmanager
def system(data_dir: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[System]:
    """`engines up` in a process group of its own, ready when the block starts; a test that ends well also saw it stop well."""
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "up.log"
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent_engines.cli", "up", "--data-dir", str(data_dir), "--port", "0", *options],
            stdout=output,
            stderr=output,
            text=True,
            env={**os.environ, "PYTHONPATH": beside(HERE), **(environment or {})},
        )
    running = System(process, data_dir, log)
    try:
        wait_until(lambda: _ready(running), f"`engines up` is ready; its log ends with {log}")
        yield running
        running.stop()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def _ready(running: System) -> bool:
    if running.process.poll() is not None:
        raise AssertionError(
            f"`engines up` ended with {running.process.returncode}:\n{running.log.read_text()[-4000:]}"
        )
    with running.http() as http:
        return http.get("/ready").status_code == 200
