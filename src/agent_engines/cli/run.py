"""`engines run TARGET`: one engine in this process."""

from __future__ import annotations

from typing import Annotated

import typer

from agent_engines.config import load_config
from agent_engines.domain.errors import ConfigurationError

from .lazy import load

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# By name, so that a process loads only what its engine needs: an agent loads no web framework and no database driver.
BUILT_IN = {
    "intelligence": "agent_engines.bootstrap.intelligence:run_intelligence",
    "performance": "agent_engines.bootstrap.performance:run_performance",
    "optimizing": "agent_engines.bootstrap.optimizing:run_optimizing",
    "echo": "agent_engines.bootstrap.echo:run_echo",
}
CUSTOM = "agent_engines.bootstrap.custom:run_custom"


@app.command()
def run(
    target: Annotated[
        str, typer.Argument(help="intelligence, performance, optimizing, echo, or module:attr", show_default=False)
    ],
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65_535, help="HTTP port; 0 takes any (AGENT_HTTP_PORT).", show_default=False),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run one engine against the configured servers, until SIGTERM or Ctrl-C."""
    if target not in BUILT_IN and ":" not in target:
        raise ConfigurationError(
            [f"{target!r} is not an engine: use {', '.join(BUILT_IN)}, or module:attr such as hello:engine"]
        )
    config = load_config(flags={"AGENT_HTTP_PORT": None if port is None else str(port)})
    code = load(BUILT_IN[target])(config) if target in BUILT_IN else load(CUSTOM)(target, config)
    raise typer.Exit(code)
