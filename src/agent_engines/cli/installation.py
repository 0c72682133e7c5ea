"""Everything `engines up` and `engines demo` start on this machine: servers, schema, engines, agents."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from agent_engines.adapters.embedded import EmbeddedServers, Endpoints, NatsOptions, ProcessSupervisor
from agent_engines.client.http_transport import HttpTransport
from agent_engines.config import Config
from agent_engines.domain.errors import AgentEnginesError, ConfigurationError, EmbeddedServerError

from .fleet import Member, child_environment

READY_SECONDS = 120.0
PROBE_PAUSE = 0.1
MAX_RESTARTS = 3
"""A process that dies so often before all is ready will not become ready."""
STOP_MARGIN_SECONDS = 5.0


class Installation:
    """Started by `run`, which leaves nothing behind. `environment` is added to that of engines and agents."""

    def __init__(
        self,
        config: Config,
        fleet: Sequence[Member],
        http_port: int,
        *,
        ephemeral: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = Path(config.engines_data_dir)
        self.http_url = f"http://{_reachable(config.agent_http_host)}:{http_port}"
        self._fleet = fleet
        self._environment = environment or {}
        self._spools = self.directory.absolute() / "spool"
        self._defaults = {"ENGINES_SPOOL_DIR": str(self._spools), "ENGINES_BUS_SYNC": config.engines_bus_sync}
        self._ephemeral = ephemeral
        self._grace = config.agent_shutdown_grace_seconds
        nats = NatsOptions(sync_always=config.bus_sync_always, store_bytes=config.engines_bus_store_bytes)
        self._servers = EmbeddedServers(self.directory, ephemeral=ephemeral, nats=nats)
        self._supervisor = ProcessSupervisor(self.directory, servers=self._servers)

    async def run(self, work: Callable[[Endpoints], Awaitable[None]]) -> bool:
        """Start everything, do `work`, stop everything. False: SIGINT or SIGTERM came first, and `work` was cancelled.

        Raises EmbeddedServerError, and what `work` raises.
        """
        stopped = asyncio.ensure_future(self._supervisor.handle_signals().wait())
        job = asyncio.ensure_future(self._start_and(work))
        try:
            await asyncio.wait((job, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                sys.stderr.write("engines: draining; Ctrl-C again ends everything at once\n")
                return False
            job.result()
            return True
        finally:
            for waiting in (job, stopped):
                waiting.cancel()
            await asyncio.gather(job, stopped, return_exceptions=True)
            await self._supervisor.stop(self._grace + STOP_MARGIN_SECONDS)
            await self._servers.stop()

    async def _start_and(self, work: Callable[[Endpoints], Awaitable[None]]) -> None:
        servers = await self._servers.start()
        if self._ephemeral:
            # Reports about tasks of an installation whose data is gone.
            shutil.rmtree(self._spools, ignore_errors=True)
        # Agents need no schema: they start while it is brought up.
        self._add([member for member in self._fleet if not member.built_in], servers)
        await self._supervisor.start()
        await _migrated(child_environment(servers, None))
        self._add([member for member in self._fleet if member.built_in], servers)
        await self._until_ready()
        endpoints = msgspec.structs.replace(self._servers.endpoints, http_url=self.http_url, pids=self._supervisor.pids)
        self._supervisor.publish(endpoints)
        await work(endpoints)

    def _add(self, members: Sequence[Member], servers: Endpoints) -> None:
        for member in members:
            environment = {**self._defaults, **child_environment(servers, member), **self._environment}
            self._supervisor.add(member.name, member.command, environment)

    async def _until_ready(self) -> None:
        """The router answers and has heard from every agent."""
        expected = {member.name.split(":")[1] for member in self._fleet if member.name.startswith("agent:")}
        transport = HttpTransport(self.http_url)
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await _all_there(transport, expected):
                    self._give_up_on_failures()
                    await asyncio.sleep(PROBE_PAUSE)
        except TimeoutError:
            raise EmbeddedServerError(
                f"not ready after {READY_SECONDS:g} s; the logs in {self.directory / 'logs'} say why"
            ) from None
        finally:
            await transport.close()

    def _give_up_on_failures(self) -> None:
        for name, restarts in self._supervisor.restarts.items():
            if restarts >= MAX_RESTARTS:
                log = self.directory / "logs" / f"{name.replace(':', '-')}.log"
                raise EmbeddedServerError(f"{name} does not start: {last_words(log)} (its log: {log})")


def free_port(config: Config) -> int:
    """The configured port if it is free, any free one for 0. Raises ConfigurationError."""
    family = socket.AF_INET6 if ":" in config.agent_http_host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.agent_http_host, config.agent_http_port))
            return int(probe.getsockname()[1])
        except OSError as error:
            where = f"{config.agent_http_host}:{config.agent_http_port}"
            reason = error.strerror or str(error)
            raise ConfigurationError(
                [f"cannot listen on {where}: {reason}; choose another with --port, or 0 for any"]
            ) from None


def last_words(log: Path) -> str:
    """The reason a process gave in its log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "it left no log"
    said = next((line for line in reversed(lines) if line.startswith("engines:")), lines[-1] if lines else "no reason")
    return said.removeprefix("engines: ")


async def _all_there(transport: HttpTransport, expected: set[str]) -> bool:
    try:
        code, _ = await transport.probe("/ready")
        return code == 200 and expected <= {agent["name"] for agent in (await transport.read("agents"))["items"]}
    except AgentEnginesError:
        # It is starting; what is wrong in earnest shows in the restarts.
        return False


async def _migrated(environment: dict[str, str]) -> None:
    """Bring the schema up in a process of its own, so that this one stays small. Raises EmbeddedServerError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent_engines.bootstrap.bring_schema_up"),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, complaint = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if process.returncode:
        reason = complaint.decode(errors="replace").strip()
        raise EmbeddedServerError(f"the database schema could not be brought up: {reason or 'no reason was given'}")


def _reachable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]" if ":" in host else host
