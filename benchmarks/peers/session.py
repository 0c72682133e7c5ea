"""One system under test while it runs: its servers, its driver, and what they all cost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio

from agent_engines.adapters.embedded import EmbeddedServers, Endpoints
from benchmarks.processes import birth, cpu_of, family, proportional

from .environments import ROOT, Environment
from .plan import Scenario

START_SECONDS = 240.0
STOP_SECONDS = 30.0
SAMPLE_SECONDS = 1.0
LINE_LIMIT = 256 * 1024 * 1024
QUEUE_SETTINGS = {"maxmemory": "0", "maxmemory-policy": "noeviction", "hz": "10"}
"""Ours is a cache that may forget; a peer's queue in the same server may not."""


class SystemFailed(Exception):
    """The system under test did not start, answered with an error, or took too long."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one scenario. `cpu`: seconds of all processes; memory: greatest MiB seen, shared pages divided."""

    cpu: float
    workers_mib: float
    total_mib: float


async def facts(name: str, environment: Environment, log: Path) -> dict[str, Any]:
    """What the system says about itself. Raises SystemFailed."""
    process = await _driver(name, environment, log, {}, "facts")
    answer, _ = await process.communicate()
    if process.returncode:
        raise SystemFailed(f"its module cannot be loaded: {_last_line(log)}")
    return json.loads(answer)


@asynccontextmanager
async def session(
    name: str, environment: Environment, log: Path, *, servers: Sequence[str], workers: int
) -> AsyncGenerator[Session]:
    """The system, started and warm on fresh servers; everything is gone afterwards. Raises SystemFailed."""
    async with AsyncExitStack() as exits:
        variables: dict[str, str] = {}
        pids: list[int] = []
        if servers:
            endpoints, pids = await _servers(exits, servers)
            urls = {"nats": endpoints.nats_url, "postgres": endpoints.postgres_url, "redis": endpoints.redis_url}
            variables = {f"BENCH_{server.upper()}_URL": urls[server] for server in servers}
        process = await _driver(name, environment, log, variables, "serve", str(workers))
        running = Session(process, pids, log)
        exits.push_async_callback(running.close)
        await running.started()
        yield running


class Session:
    def __init__(self, process: asyncio.subprocess.Process, server_pids: Sequence[int], log: Path) -> None:
        self._process = process
        self._server_pids = server_pids
        self._log = log
        self._worker_pids: list[int] = []

    async def started(self) -> None:
        answer = await self._answer(START_SECONDS)
        self._worker_pids = answer["worker_pids"]

    async def run(self, scenario: Scenario) -> tuple[dict[str, Any], Cost]:
        """What the driver measured, and its cost. Raises SystemFailed; the session is then good for nothing more."""
        order = {"shape": scenario.shape, "arguments": dict(scenario.arguments), "limit": scenario.limit}
        assert self._process.stdin is not None
        before = cpu_of(self._everybody())
        peaks = [0.0, 0.0]
        sampler = asyncio.get_running_loop().create_task(self._sample(peaks))
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            answer = await self._answer(scenario.limit + 10)
            cost = Cost(cpu_of(self._everybody()) - before, *peaks)
        finally:
            sampler.cancel()
        if "error" in answer:
            raise SystemFailed(answer["error"])
        return answer, cost

    async def close(self) -> None:
        """Ask the driver to end its system; what is left after 30 s is killed."""
        whole = {pid: birth(pid) for pid in family(self._process.pid)}
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        for pid, born in whole.items():
            if born is not None and birth(pid) == born:
                os.kill(pid, signal.SIGKILL)

    def _everybody(self) -> list[int]:
        return family(self._process.pid, *self._server_pids)

    async def _sample(self, peaks: list[float]) -> None:
        while True:
            # Reading /proc takes milliseconds of a core whatever the system under test: the same for all.
            peaks[0] = max(peaks[0], proportional(family(*self._worker_pids)))
            peaks[1] = max(peaks[1], proportional(self._everybody()))
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise SystemFailed(f"no answer in {seconds:g} s") from None
        if not line:
            raise SystemFailed(f"its driver ended: {_last_line(self._log)}")
        return json.loads(line)


async def _servers(exits: AsyncExitStack, used: Sequence[str]) -> tuple[Endpoints, list[int]]:
    """The servers our package brings, with data on disk: (where they are, process ids of the `used` ones)."""
    folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True))
    # PostgreSQL runs as another account when we are root.
    Path(folder).chmod(0o711)
    started = await exits.enter_async_context(EmbeddedServers(Path(folder)))
    client = redis.asyncio.from_url(started.endpoints.redis_url)
    for setting, value in QUEUE_SETTINGS.items():
        await client.config_set(setting, value)
    await client.aclose()
    return started.endpoints, [pid for server, pid in started.pids.items() if server in used]


async def _driver(
    name: str, environment: Environment, log: Path, variables: dict[str, str], *arguments: str
) -> asyncio.subprocess.Process:
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *(str(environment.python), "-m", "benchmarks.peers.driver", name, *arguments),
            cwd=ROOT,
            env={**environment.run_variables(), **variables},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            limit=LINE_LIMIT,
        )


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
