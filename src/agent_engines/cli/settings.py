"""`engines config`: effective settings and where they come from."""

from __future__ import annotations

import typer

from agent_engines.config import explain

from .session import Session, command, group
from .tables import show_rows

app = group("Effective settings and where they come from.")


@app.callback()
def settings() -> None:
    """Effective settings and where they come from."""


@command(app, "show")
def show(session: Session) -> None:
    """Every setting: value (secrets masked), source, default."""
    rows = explain(session.config)
    session.print(
        [row._asdict() for row in rows],
        lambda: show_rows(("name", "value", "source", "default"), [row[:4] for row in rows]),
    )
    for warning in session.config.warnings:
        typer.echo(f"engines: {warning}", err=True)
