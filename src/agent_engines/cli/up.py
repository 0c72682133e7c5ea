"""`engines up`: embedded servers, the built-in engines and agents, kept running until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
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
    task_types: list[str] = []

    def agent_id_of(target: str) -> str:
        agent_id, performed = described(target)
        task_types.extend(performed)
        return agent_id

    fleet = members(engine or [], http_port, agent_id_of)
    installation = Installation(config, fleet, http_port, ephemeral=ephemeral)

    async def stay(endpoints: Endpoints) -> None:
        if session.json:
            print_json(endpoints)
            sys.stdout.flush()
        else:
            announce(installation, endpoints, trial(task_types))
        await asyncio.Event().wait()

    await installation.run(stay)


def announce(installation: Installation, endpoints: Endpoints, tried: str | None) -> None:
    """Where everything is, for a person; `tried`: arguments of `engines submit` that do something here."""
    url = installation.http_url
    show_details(
        {
            "ready": url,
            "dashboard": f"{url}/",
            "API": f"{url}/docs",
            "data": str(installation.directory),
            "processes": ", ".join(endpoints.pids),
            **({"try": f"engines submit {tried} --wait --url {url}"} if tried else {}),
        }
    )
    sys.stdout.flush()


def trial(task_types: Sequence[str]) -> str | None:
    """A task somebody here performs; what its payload has to be only its author knows."""
    if ECHO in task_types:
        return f"{ECHO} --payload '{{\"hello\": 1}}'"
    return f"{task_types[0]} --payload '{{...}}'" if task_types else None


def described(target: str) -> tuple[str, list[str]]:
    """Agent id and task types, asked of a child process. Raises ConfigurationError with what it says."""
    if target == ECHO:
        return ECHO, [ECHO]
    asked = subprocess.run(
        [sys.executable, "-m", "agent_engines.bootstrap.describe", target], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise ConfigurationError([asked.stderr.strip().splitlines()[-1] if asked.stderr.strip() else f"{target} ended"])
    answer = json.loads(asked.stdout.strip().splitlines()[-1])
    return answer["agent_id"], answer["task_types"]
