"""What a fault run is pointed at: an installation of its own, one on this machine, or a cluster known by its addresses."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent_engines.adapters.embedded.child import Child, Command
from agent_engines.client.plain_http import HttpFailure, plain_http
from agent_engines.domain.errors import ConfigurationError, EmbeddedServerError, NotFound

from .engine import AGENT, ENGINE

START_SECONDS = 120.0
STOP_SECONDS = 60.0
SHORT_LEASE = 5
"""Seconds, for our own installation: what a killed agent held is delivered again that soon."""


@dataclass(frozen=True)
class Installation:
    """What `engines up` wrote into `data_dir`. `notes`: where its agents write their starts (FAULT_DIR)."""

    folder: Path
    notes: Path

    @property
    def data_dir(self) -> Path:
        return self.notes

    @property
    def endpoints(self) -> dict[str, Any]:
        """Raises NotFound when nothing runs there."""
        try:
            return msgspec.json.decode((self.folder / "endpoints.json").read_bytes(), type=dict[str, Any])
        except FileNotFoundError:
            raise NotFound(f"nothing runs in {self.folder}: endpoints.json is not there") from None

    @property
    def url(self) -> str:
        return self.endpoints["http_url"]


@dataclass(frozen=True)
class Cluster:
    """Known by its addresses only; `pids` are not ours to know."""

    url: str
    postgres_url: str
    nats_url: str | None
    data_dir: Path

    @property
    def endpoints(self) -> dict[str, Any]:
        return {"http_url": self.url, "postgres_url": self.postgres_url, "nats_url": self.nats_url, "pids": {}}


@asynccontextmanager
async def own_installation(*, replicas: int = 3) -> AsyncGenerator[Installation]:
    """`engines up --ephemeral` with chaos agents in a process of its own; everything is gone afterwards.

    Raises EmbeddedServerError with the last words of its log.
    """
    folder = Path(tempfile.mkdtemp(prefix="ae-chaos-"))
    log = folder / "up.log"
    command = (sys.executable, "-m", "agent_engines.cli", "up", "--ephemeral", "--data-dir", str(folder), "--port", "0")
    environment = {**os.environ, "ENGINES_LEASE_SECONDS": str(SHORT_LEASE), "FAULT_DIR": str(folder)}
    loop, ours = asyncio.get_running_loop(), asyncio.current_task()
    terminated = asyncio.Event()

    def end() -> None:
        terminated.set()
        if ours is not None:
            ours.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)
    child = Child.spawn(
        Command(argv=(*command, "--engine", f"{ENGINE}*{replicas}"), env=environment, cwd=folder, log=log)
    )
    installation = Installation(folder, folder)
    try:
        await _until_ready(installation, child, log)
        yield installation
    except asyncio.CancelledError:
        # Told to end, we end as by Ctrl-C: the installation is stopped and its folder removed.
        if terminated.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        await child.stop(STOP_SECONDS)
        loop.remove_signal_handler(signal.SIGTERM)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def require_agent(url: str, *, api_key: str | None = None) -> None:
    """Raises ConfigurationError when no chaos agent is registered there or the address does not answer."""
    try:
        async with plain_http(url, api_key=api_key) as http:
            answer = await http.get("/v1/agents")
            found = {agent["name"] for agent in answer.json()["items"]}
    except (HttpFailure, ValueError, KeyError) as error:
        raise ConfigurationError([f"{url} does not tell its agents: {error!r}"]) from error
    if AGENT not in found:
        raise ConfigurationError([f"no agent {AGENT!r} at {url}: run `engines run {ENGINE}` there, under a supervisor"])


async def _until_ready(installation: Installation, child: Child, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and child.running:
        try:
            async with plain_http(installation.url, seconds=5) as http:
                if (await http.get("/ready")).status_code == 200:
                    return
        except (HttpFailure, NotFound, KeyError):
            # Not there yet; when it never comes, its log says why.
            pass
        await asyncio.sleep(0.1)
    said = (await asyncio.to_thread(log.read_text, errors="replace"))[-500:].strip()
    raise EmbeddedServerError(f"our own installation does not start: {said}")
