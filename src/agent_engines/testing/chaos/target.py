"""What a fault run is pointed at: an installation of its own, one on this machine, or a cluster known by its addresses."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent_engines.client.plain_http import HttpFailure, plain_http
from agent_engines.domain.errors import ConfigurationError, NotFound
from agent_engines.testing.own_installation import new_folder, own_installation

from .engine import AGENT, ENGINE

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
async def chaos_installation(*, replicas: int = 3) -> AsyncGenerator[Installation]:
    """`engines up --ephemeral` with chaos agents, gone afterwards. Raises EmbeddedServerError."""
    folder = new_folder("chaos")
    environment = {"ENGINES_LEASE_SECONDS": str(SHORT_LEASE), "FAULT_DIR": str(folder)}
    options = ("--ephemeral", "--engine", f"{ENGINE}*{replicas}")
    async with own_installation(folder, *options, environment=environment):
        yield Installation(folder, folder)


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
