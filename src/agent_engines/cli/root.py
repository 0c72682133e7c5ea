"""The root command: help and version."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from .lazy import LazyGroup

app = typer.Typer(
    name="engines",
    cls=LazyGroup,
    help="Agent Engines: routes every task to the agent most likely to finish it well, and says why.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a server is unreachable. Settings: `engines config show`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"engines {version('agent-engines')}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Only carries the options of the root."""
