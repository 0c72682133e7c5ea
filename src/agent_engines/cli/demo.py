"""`engines demo`: the main job on real servers, then a table of what came of it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from agent_engines.adapters.embedded import Endpoints
from agent_engines.client.client import Client
from agent_engines.client.http_transport import HttpTransport
from agent_engines.config import load_config
from agent_engines.demo.driver import DriveOptions, drive, listed
from agent_engines.demo.results import summarize
from agent_engines.demo.table import end_table
from agent_engines.domain.errors import ConfigurationError

from .fleet import members
from .installation import Installation, free_port
from .lazy import load
from .session import Session, command
from .tables import console
from .up import announce

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
DIGITS = "agent_engines.demo.digits"
REPLAY = "agent_engines.demo.table_replay"
READ_TABLE = "agent_engines.demo.table_file:read_table"
TWICE = frozenset({"svm"})
"""The best and slowest reader has two replicas, so that there is something to share out."""
DIGIT_TASKS = 1197
"""Every digit that no agent has learned from, once."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is done: engines as `module:attr`, tasks, and what it is compared with (slow: it asks every model)."""

    targets: list[str]
    requests: list[Any]
    references: Callable[[], Any]
    environment: Mapping[str, str]


@command(app)
async def demo(
    session: Session,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards and print the dashboard's URL.")] = False,
    tasks: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="How many tasks.", show_default=False)] = None,
    rate: Annotated[float, typer.Option(min=0, help="Tasks a second on average; 0: as fast as can be.")] = 100.0,
    table: Annotated[
        Path | None,
        typer.Option(
            help="Replay a table of prompts, qualities and costs instead (CSV or JSON lines).", show_default=False
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="HTTP port; 0 takes any.")] = 0,
) -> None:
    """Start everything, do real work with a progress bar, print what came of it. Exit 1 if anything was lost."""
    base = load_config()
    config = load_config(
        flags={"AGENT_HTTP_PORT": str(port), "ENGINES_DATA_DIR": str(Path(base.engines_data_dir) / "demo")}
    )
    told = Console(stderr=True)
    told.print("[bold]starting[/bold] servers, engines and agents ...")
    job = _replay(table, tasks) if table is not None else _digits(tasks)
    http_port = free_port(config)
    fleet = members(job.targets, http_port, lambda target: target.rpartition(":")[2])
    installation = Installation(config, fleet, http_port, ephemeral=True, environment=job.environment)
    summary: dict[str, Any] = {}

    async def work(endpoints: Endpoints) -> None:
        summary.update(await _done(installation.http_url, job, rate, told))
        session.print(summary, lambda: console().print(end_table(summary)))
        sys.stdout.flush()
        if keep:
            announce(installation, endpoints, None)
            await asyncio.Event().wait()

    finished = await installation.run(work)
    if not summary and not finished:
        raise KeyboardInterrupt
    if summary["lost"] or summary["refused"]:
        raise typer.Exit(1)


async def _done(url: str, job: Job, rate: float, told: Console) -> dict[str, Any]:
    """Send the tasks, wait for them, compare."""
    since = time.time()
    async with Client(transport=HttpTransport(url)) as client:
        run = await drive(
            client,
            job.requests,
            count_terminal=listed(client, since=since - 1),
            options=DriveOptions(rate=rate),
            console=told,
        )
    told.print("[bold]comparing[/bold] with every agent alone ...")
    return summarize(run, await asyncio.to_thread(job.references))


def _digits(count: int | None) -> Job:
    wanted = count or DIGIT_TASKS
    try:
        targets: dict[str, str] = load(f"{DIGITS}:TARGETS")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            [f"the demo needs {error.name}: install the extra with `pip install 'agent-engines[demo]'`"]
        ) from error
    return Job(
        targets=[f"{target}*2" if name in TWICE else target for name, target in targets.items()],
        requests=list(load(f"{DIGITS}:requests")(wanted)),
        references=lambda: load(f"{DIGITS}:references")(wanted),
        # A thousandth of a unit of money is worth four points of quality. At 10 the dear and right reader and the cheap and
        # nearly right one are worth the same, and nothing could be earned by choosing between them.
        environment={"ROUTING_PRICE": "40"},
    )


def _replay(path: Path, count: int | None) -> Job:
    found = load(READ_TABLE)(path)
    return Job(
        targets=list(load(f"{REPLAY}:targets")(found).values()),
        requests=list(load(f"{REPLAY}:requests")(found, count)),
        references=lambda: load(f"{REPLAY}:references")(found, count),
        environment=load(f"{REPLAY}:environment")(path),
    )
