"""`engines up`: embedded servers, the built-in engines and agents, kept running until Ctrl-C."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Collection
from typing import Annotated

import typer

from agent_engines.adapters.embedded import Endpoints
from agent_engines.config import load_config
from agent_engines.domain.errors import ConfigurationError

from .fleet import ECHO, members
from .installation import Installation, free_port
from .session import DataDirOption, Session, command, print_json
from .tables import show_details

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command(app)
async def up(
    session: Session,
    data_dir: DataDirOption = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="HTTP port; 0 takes any (AGENT_HTTP_PORT).", show_default=False),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            metavar="MODULE:ATTR",
            help="An engine instead of the echo agent; *N for N replicas. May be repeated.",
            show_default=False,
        ),
    ] = None,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Forget all data at the end.")] = False,
) -> None:
    """Start servers, engines and agents here, and keep them running. Ctrl-C drains and stops; a second one kills."""
    config = load_config(
        flags={
            "AGENT_HTTP_PORT": None if port is None else str(port),
            "ENGINES_DATA_DIR": None if data_dir is None else str(data_dir),
        }
    )
    for warning in config.warnings:
        typer.echo(f"engines: {warning}", err=True)
    http_port = free_port(config)
    fleet = members(engine or [], http_port, _agent_id_of)
    installation = Installation(config, fleet, http_port, ephemeral=ephemeral)

    async def stay(endpoints: Endpoints) -> None:
        if session.json:
            print_json(endpoints)
            sys.stdout.flush()
        else:
            announce(installation, endpoints)
        await asyncio.Event().wait()

    await installation.run(stay)


def announce(installation: Installation, endpoints: Endpoints) -> None:
    """Where everything is, for a person."""
    url = installation.http_url
    show_details(
        {
            "ready": url,
            "dashboard": f"{url}/",
            "API": f"{url}/docs",
            "data": str(installation.directory),
            "processes": ", ".join(endpoints.pids),
            "try": _first_step(endpoints.pids, url),
        }
    )
    sys.stdout.flush()


def _first_step(processes: Collection[str], url: str) -> str:
    """A command that works here: nobody performs `echo` where the built-in agent was replaced."""
    if any(name.startswith(f"agent:{ECHO}:") for name in processes):
        return f"engines submit {ECHO} --payload '{{\"hello\": 1}}' --wait --url {url}"
    return f"engines agents list --url {url}"


def _agent_id_of(target: str) -> str:
    """Asked of a child process. Raises ConfigurationError with what it says."""
    if target == ECHO:
        return ECHO
    asked = subprocess.run(
        [sys.executable, "-m", "agent_engines.bootstrap.describe", target], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise ConfigurationError([asked.stderr.strip().splitlines()[-1] if asked.stderr.strip() else f"{target} ended"])
    return asked.stdout.strip().splitlines()[-1]
