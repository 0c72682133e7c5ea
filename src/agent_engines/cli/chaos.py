"""`engines chaos`: faults under load against an installation of its own, or against yours."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from agent_engines.domain.errors import ConfigurationError
from agent_engines.testing.chaos.nemesis import Running
from agent_engines.testing.chaos.run import Options
from agent_engines.testing.chaos.runner import FAIL, Report, chosen, reports, watched
from agent_engines.testing.chaos.scenarios import Scenario
from agent_engines.testing.chaos.target import SHORT_LEASE, Cluster, Installation, chaos_installation, require_agent

from .session import DataDirOption, Session, command
from .tables import show_rows

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
COLUMNS = ("scenario", "accepted", "recorded", "lost", "duplicated", "stale", "late", "faults", "seconds", "verdict")


@command(app)
async def chaos(
    session: Session,
    *,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            help="agents, router, bus, database, cache, pause, duplicates, cancel, storm or poison; repeatable. Default: all.",
            show_default=False,
        ),
    ] = None,
    tasks: Annotated[int, typer.Option(min=1, max=10_000_000, help="Tasks of each scenario.")] = 2000,
    faults: Annotated[int, typer.Option(min=1, max=100_000, help="Kills of each scenario that kills.")] = 5,
    seed: Annotated[int, typer.Option(help="Decides payloads, victims and pauses.")] = 1,
    duration: Annotated[
        float | None,
        typer.Option(
            min=1, help="Seconds of load and harm altogether; waiting for the ends is extra.", show_default=False
        ),
    ] = None,
    kill: Annotated[
        str | None,
        typer.Option(
            help="Shell command that kills {name}: agent:chaos, intelligence, nats, postgres or redis.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(min=1, help="Only load for so many seconds, and judge: you do the harm.", show_default=False),
    ] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Harm a system under load and prove in the ledger that nothing was lost or done twice. Exit 1 if anything was.

    Without --url and --data-dir it starts an installation of its own and harms only that.
    """
    if watch is not None and (scenario or kill):
        raise ConfigurationError(["--watch does no harm: it goes without --scenario and --kill"])
    scenarios = chosen(scenario or [])
    own = session.url is None and data_dir is None
    options = Options(
        tasks=tasks,
        faults=faults,
        seed=seed,
        scenario_seconds=None if duration is None else duration / (1 if watch is not None else len(scenarios)),
        lease_seconds=SHORT_LEASE if own else session.config.engines_lease_seconds,
        kill=kill,
        api_key=session.config.engines_api_key,
    )
    found: list[Report] = []
    async with _system(session, data_dir, own=own) as system:
        if watch is not None:
            found.append(_told(session, await watched(system, watch, options)))
        else:
            found.extend([_told(session, report) async for report in reports(system, scenarios, options, begun=_begun)])
    if not session.json:
        show_rows(COLUMNS, [_cells(report) for report in found])
    if any(report.verdict == FAIL for report in found) or all(report.found is None for report in found):
        raise typer.Exit(1)


@asynccontextmanager
async def _system(session: Session, data_dir: Path | None, *, own: bool) -> AsyncGenerator[Running]:
    """What is harmed. Raises ConfigurationError when it is not complete."""
    if own:
        sys.stderr.write("engines: starting an installation of our own ...\n")
        async with chaos_installation() as installation:
            yield installation
        return
    notes = Path(os.environ.get("FAULT_DIR") or data_dir or ".")
    system: Running = (
        _cluster(session, notes) if session.url is not None else Installation(Path(data_dir or "."), notes)
    )
    await require_agent(system.url, api_key=session.config.engines_api_key)
    yield system


def _cluster(session: Session, notes: Path) -> Cluster:
    config = session.config
    if not config.postgres_url:
        raise ConfigurationError(["POSTGRES_URL: what happened is counted in the ledger, tell where it is"])
    return Cluster(
        session.http_url, config.postgres_url, config.nats_url if config.explicit("NATS_URL") else None, notes
    )


def _begun(scenario: Scenario) -> None:
    sys.stderr.write(f"engines: {scenario.name}: {scenario.tells} ...\n")


def _told(session: Session, report: Report) -> Report:
    """One JSON line at once, or for people what went wrong."""
    if session.json:
        sys.stdout.write(msgspec.json.encode(report.data).decode() + "\n")
        sys.stdout.flush()
    else:
        for problem in (*report.problems, *([] if report.found is None else map(str, report.found.violations[:5]))):
            sys.stderr.write(f"engines: {report.scenario}: {problem}\n")
        if report.found is not None and report.found.history is not None:
            sys.stderr.write(f"engines: {report.scenario}: the history is kept in {report.found.history}\n")
    return report


def _cells(report: Report) -> list[object]:
    data = report.data
    if report.found is not None:
        data["faults"] = sum(report.found.faults.values())
    return [data.get(column) for column in COLUMNS]
