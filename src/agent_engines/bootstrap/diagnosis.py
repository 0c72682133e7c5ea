"""The parts of an incident bundle: what is running, what the servers say, what was written down."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import httpx2

from agent_engines.adapters.jetstream.inspection import read_nats
from agent_engines.adapters.postgres.inspection import LISTS, read_list
from agent_engines.adapters.process_table import processes
from agent_engines.config import Config, explain
from agent_engines.config.client_url import read_endpoints
from agent_engines.domain.shapes import outlined

from .connect import bus_security
from .gathering import Part
from .preflight import Places

HTTP_SECONDS = 6.0
SERVER_SECONDS = 8.0
LOG_SECONDS = 15.0
MOST_DETAILS = 50
PAGE = 200
PLAIN_PAGES = {
    "http/health.json": "/health",
    "http/ready.json": "/ready",
    "http/livez.json": "/livez",
    "http/overview.json": "/v1/overview",
    "http/agents.json": "/v1/agents",
    "http/performance.json": "/v1/performance",
    "http/scaling.json": "/v1/scaling",
    "http/policies.json": "/v1/policies",
    "http/tuning.json": "/v1/tuning",
}
RECORDS = {
    "records/tasks.json": f"/v1/tasks?limit={PAGE}",
    "records/decisions.json": f"/v1/decisions?limit={PAGE}",
    "records/dead-letters.json": f"/v1/dead-letters?limit={PAGE}",
}
"""What people submitted: in outlines, unless payloads were asked for."""


def asking(config: Config, url: str) -> httpx2.AsyncClient:
    """The one client for all pages: to make one costs more than a page."""
    headers = {"authorization": f"Bearer {config.engines_api_key}"} if config.engines_api_key else {}
    return httpx2.AsyncClient(base_url=url, timeout=HTTP_SECONDS, headers=headers, trust_env=False)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What to gather. `http`: see `asking`; `now`: seconds since 1970; `log_bytes`: the end of each log."""

    config: Config
    places: Places
    http: httpx2.AsyncClient
    now: float
    log_bytes: int
    with_payloads: bool = False

    def parts(self) -> list[Part]:
        """All of them, in the order of the archive."""
        return [
            Part("versions.json", self._versions),
            Part("configuration.json", self._configuration),
            Part("processes.json", self._processes),
            *(Part(name, _bound(self._page, path)) for name, path in PLAIN_PAGES.items()),
            Part("http/metrics.txt", self._metrics),
            *(Part(name, _bound(self._records, path)) for name, path in RECORDS.items()),
            *([Part("records/task-details.json", self._details)] if self.with_payloads else []),
            Part("nats/server.json", self._nats, SERVER_SECONDS),
            *(Part(f"postgres/{name}.json", _bound(self._postgres, name), SERVER_SECONDS) for name in LISTS),
            *(self._log_parts() or [Part("logs", self._no_logs)]),
        ]

    async def _versions(self) -> dict[str, Any]:
        return await asyncio.to_thread(self._machine)

    def _machine(self) -> dict[str, Any]:
        disk = shutil.disk_usage(self.config.engines_data_dir if Path(self.config.engines_data_dir).is_dir() else ".")
        return {
            "moment": datetime.fromtimestamp(self.now, UTC).isoformat(),
            "python": sys.version,
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
            "memory": _head(Path("/proc/meminfo"), 5),
            "user": os.geteuid(),
            "disk_of_data": {"free_bytes": disk.free, "total_bytes": disk.total},
            "packages": {one.metadata["Name"]: one.version for one in distributions()},
        }

    async def _configuration(self) -> dict[str, Any]:
        return {
            # A list: as keys, the names of secret variables would hide whether and where they are set.
            "variables": [{"name": row.name, "value": row.value, "source": row.source} for row in explain(self.config)],
            "warnings": self.config.warnings,
            "places": self.places.urls,
        }

    async def _processes(self) -> list[dict[str, Any]]:
        endpoints = read_endpoints(self.config)
        if not endpoints:
            raise LookupError(f"nothing of `engines up` runs in {self.config.engines_data_dir}")
        return await asyncio.to_thread(processes, endpoints.get("pids", {}), endpoints.get("supervisor_pid"))

    async def _get(self, path: str) -> httpx2.Response:
        return await self.http.get(path)

    async def _page(self, path: str) -> dict[str, Any]:
        """With its status: a 503 says as much as a 200."""
        answer = await self._get(path)
        return {"status": answer.status_code, "body": answer.json()}

    async def _metrics(self) -> str:
        return (await self._get("/metrics")).text

    async def _records(self, path: str) -> dict[str, Any]:
        answer = await self._page(path)
        return answer if self.with_payloads or answer["status"] != 200 else {**answer, "body": outlined(answer["body"])}

    async def _details(self) -> list[Any]:
        listed = (await self._page(f"/v1/tasks?limit={MOST_DETAILS}"))["body"]["items"]
        return [await self._page(f"/v1/tasks/{item['task_id']}") for item in listed]

    async def _nats(self) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        await read_nats(self.places.nats, bus_security(self.config), facts, monitors=self.places.monitors)
        return facts

    async def _postgres(self, name: str) -> list[dict[str, Any]]:
        if not self.places.postgres:
            raise LookupError("POSTGRES_URL is not set")
        return await read_list(self.places.postgres, name)

    def _log_parts(self) -> list[Part]:
        try:
            paths = sorted(path for path in self._log_folder.iterdir() if path.is_file())
        except OSError:
            return []
        return [Part(f"logs/{path.name}", _bound(self._log, path), LOG_SECONDS) for path in paths]

    @property
    def _log_folder(self) -> Path:
        return Path(self.config.engines_data_dir) / "logs"

    async def _no_logs(self) -> None:
        raise LookupError(f"no files in {self._log_folder}: engines that run elsewhere leave their logs there")

    async def _log(self, path: Path) -> str:
        return await asyncio.to_thread(_tail, path, self.log_bytes)


def _bound(work: Callable[[Any], Awaitable[Any]], argument: Any) -> Callable[[], Awaitable[Any]]:
    return lambda: work(argument)


def _tail(path: Path, most: int) -> str:
    """The end of a file, from the beginning of a line: half a line could be half a secret."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        content = file.read(most)
    if size > most:
        content = content.partition(b"\n")[2]
    return content.decode(errors="replace")


def _head(path: Path, lines: int) -> list[str]:
    try:
        return path.read_text().splitlines()[:lines]
    except OSError:
        return []
