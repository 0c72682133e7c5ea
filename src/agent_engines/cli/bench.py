"""`engines bench`: throughput and latency of a running system, or of an installation of its own."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import uvloop

from agent_engines.adapters.embedded.endpoints import Endpoints
from agent_engines.bootstrap.connect import bus_security
from agent_engines.client.http_transport import HttpTransport
from agent_engines.client.options import ClientOptions
from agent_engines.config import Config
from agent_engines.config.client_url import ENDPOINTS_FILE, client_url
from agent_engines.domain.errors import AgentEnginesError, InvalidRequest, NotFound, Unreachable
from agent_engines.domain.tasks import TaskRequest
from agent_engines.public.client import Client
from agent_engines.testing.bench.durability import durability
from agent_engines.testing.bench.load import Load
from agent_engines.testing.bench.measurement import Measurement
from agent_engines.testing.bench.plan import MOST_OUTSTANDING, MOST_RATE, SMALLEST_PAYLOAD, Plan, payload
from agent_engines.testing.bench.tally import exit_code
from agent_engines.testing.bench.target import Target, at, local, require_performer
from agent_engines.testing.own_installation import new_folder, own_installation

from .bench_view import report, show, watched
from .session import DataDirOption, Session, command
from .submit import payload_given

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
INTERRUPTED = 130
"""As the whole command line (entry.py)."""
SOURCE = "engines bench"
ECHO = "echo"
CONNECT_SECONDS = 2.0
MOST_BYTES = 4 * 1024 * 1024
EPILOG = (
    "Without --url, --data-dir and a system that runs here it starts an installation of its own and removes it. Of a system "
    "that is yours nothing is changed, but it does the tasks: they stay in its ledger until retention removes them, "
    'have {"source": "engines bench"} as metadata, and the router learns from them. '
    "Exit codes: 0 done, 1 tasks failed, were lost or have not ended, 2 wrong usage, 3 unreachable."
)


class Way(StrEnum):
    """How an installation on this machine is spoken to."""

    HTTP = "http"
    NATS = "nats"


@dataclass(frozen=True, slots=True)
class Work:
    """What every task is: of one type, with a payload of so many bytes, or always the same `given` one."""

    task_type: str
    bytes: int
    given: Any = None

    def request(self, number: int) -> TaskRequest:
        content = payload(number, self.bytes) if self.given is None else self.given
        return TaskRequest(task_type=self.task_type, payload=content, metadata={"source": SOURCE})


@command(app, epilog=EPILOG)
def bench(
    session: Session,
    *,
    task_type: Annotated[str, typer.Option(help="What every task is.")] = ECHO,
    outstanding: Annotated[int, typer.Option(min=1, max=MOST_OUTSTANDING, help="Callers of the crowd.")] = 32,
    tasks: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Tasks of the burst. Default: what fits.", show_default=False),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.1, max=MOST_RATE, help="An open loop too: so many tasks a second.", show_default=False),
    ] = None,
    size: Annotated[int, typer.Option("--bytes", min=SMALLEST_PAYLOAD, max=MOST_BYTES, help="Of a payload.")] = 256,
    given: Annotated[
        str | None,
        typer.Option("--payload", help="This one instead: JSON, @file, or -.", metavar="JSON", show_default=False),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="For sending, all loads together.")] = 15.0,
    over: Annotated[
        Way | None, typer.Option(help="How to speak to what runs on this machine.", show_default=False)
    ] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Throughput and latency: one task at a time, a crowd of callers, a burst, and with --rate an open loop."""
    if session.url is not None and (over is not None or data_dir is not None):
        raise InvalidRequest("--url names system and way: it goes without --over and --data-dir", field="url")
    work = Work(task_type, size, None if given is None else payload_given(given))
    plan = Plan(seconds=seconds, outstanding=outstanding, tasks=tasks, rate=rate)
    with _silent_bus():
        code = uvloop.run(_bench(session, work, plan, over))
    if code:
        raise typer.Exit(code)


@contextmanager
def _silent_bus() -> Generator[None]:
    """A connection that breaks shows in the figures; the bus's own lines would be on the screen between ours."""
    bus = logging.getLogger("agent")
    before = bus.level
    bus.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        bus.setLevel(before)


async def _bench(session: Session, work: Work, plan: Plan, over: Way | None) -> int:
    options = ClientOptions(api_key=session.config.engines_api_key, retry_seconds=0.0)
    async with _system(session, over) as target, Client(target.url, options=options) as client:
        require_performer((await client.transport.read("agents"))["items"], work.task_type)
        durable = await durability(target, bus_security(session.config))
        load = Load(client, work.request, echoes=work.task_type == ECHO)
        measurement = Measurement(client, load, plan, target.pids)
        await measurement.prove(work.request(0))
        interrupted = await _interrupted(measurement, plan)
        data = report(target, measurement, durable, interrupted=interrupted)
        data |= {"task_type": work.task_type, "bytes": len(msgspec.json.encode(work.request(0).payload))}
        session.print(data, lambda: show(data))
        sys.stdout.flush()
    return INTERRUPTED if interrupted else exit_code(measurement.all)


async def _interrupted(measurement: Measurement, plan: Plan) -> bool:
    """Measure to the end, or until Ctrl-C: then nothing more is sent, and what was measured is told."""
    ours = asyncio.current_task()
    try:
        async with watched(measurement, plan):
            await measurement.run()
    except asyncio.CancelledError:
        if ours is not None:
            ours.uncancel()
        return True
    return False


@asynccontextmanager
async def _system(session: Session, over: Way | None) -> AsyncGenerator[Target]:
    """What is named, else what runs here, else our own. Raises Unreachable, EmbeddedServerError."""
    found = _named(session, over) or await _running_here(session.config, over)
    if found is not None:
        yield found
        return
    _say("nothing runs here: starting an installation of our own ...")
    folder = new_folder("bench")
    async with own_installation(folder) as endpoints:
        yield local(endpoints, folder, over=over, own=True)


def _named(session: Session, over: Way | None) -> Target | None:
    config, folder = session.config, Path(session.config.engines_data_dir)
    if session.data_dir is not None:
        try:
            return local(Endpoints.read(folder / ENDPOINTS_FILE), folder, over=over)
        except NotFound as error:
            raise Unreachable(str(error)) from None
    if config.engines_url or (config.explicit("NATS_URL") and over is not Way.HTTP):
        return _at(client_url(config), config, over)
    return None


async def _running_here(config: Config, over: Way | None) -> Target | None:
    """What `engines up` started in the usual folder, or listens on the usual port; None when nothing answers there."""
    url = client_url(config, http_only=True)
    transport = HttpTransport(url, ClientOptions(api_key=config.engines_api_key, connect_timeout=CONNECT_SECONDS))
    try:
        code, health = await transport.probe("/health")
    except AgentEnginesError:
        return None
    finally:
        await transport.close()
    engine = code != 404 and isinstance(health, dict) and "status" in health
    return _at(url, config, over) if engine else None


def _at(url: str, config: Config, over: Way | None) -> Target:
    """Raises InvalidRequest when the way that was asked for is not known."""
    folder = Path(config.engines_data_dir)
    try:
        endpoints = Endpoints.read(folder / ENDPOINTS_FILE)
    except AgentEnginesError:
        # Somewhere else, then: we see it by its address only.
        endpoints = None
    nats_url = config.nats_url if config.explicit("NATS_URL") else None
    target = at(url, endpoints, folder, config.postgres_url or None, nats_url)
    if over is Way.NATS and target.nats_url is not None:
        return replace(target, url=target.nats_url)
    if over is not None and over.value != target.way:
        raise InvalidRequest(f"the way over {over} is not known here: give its address with --url", field="over")
    return target


def _say(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"engines: {text}\n")
