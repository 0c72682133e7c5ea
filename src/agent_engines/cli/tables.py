"""Tables and details for people. Piped output is as wide as its content, so that nothing is cut."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

PIPED_WIDTH = 500
_COLORS = {
    "success": "green",
    "healthy": "green",
    "ready": "green",
    "running": "cyan",
    "queued": "blue",
    "retrying": "yellow",
    "draining": "yellow",
    "suspect": "yellow",
    "failed": "red",
    "dead_letter": "red",
    "lost": "red",
    "dead": "red",
    "quarantined": "magenta",
    "cancelled": "dim",
    "expired": "dim",
}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Ours to answer (session.py); the inherited way ends the process as a failure.
        raise BrokenPipeError


def console() -> Console:
    """For standard output."""
    terminal = sys.stdout.isatty()
    return _Console(width=None if terminal else PIPED_WIDTH, highlight=False, soft_wrap=not terminal)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> Table:
    """Values are text, never markup."""
    made = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*[cell(value) for value in row])
    return made


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str = "nothing") -> None:
    console().print(table(columns, rows) if rows else f"[dim]{escape(empty)}[/dim]")


def show_details(values: Mapping[str, Any]) -> None:
    """Name and value, one a line."""
    made = Table(show_header=False, box=None, pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in values.items():
        made.add_row(escape(name), cell(value))
    console().print(made)


def cell(value: Any) -> str:
    """One value as safe text; known words get a colour."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict | list):
        value = msgspec.json.encode(value).decode()
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value))
    color = _COLORS.get(text)
    return f"[{color}]{text}[/{color}]" if color else escape(text)


def pick(item: Mapping[str, Any], *names: str) -> list[Any]:
    return [item.get(name) for name in names]
