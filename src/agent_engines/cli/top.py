"""`engines top`: agents, queues, rates and the last decisions, again and again."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from agent_engines.domain.errors import Unavailable

from . import agents as agents_command
from .session import Session, command
from .tables import console, pick, table

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
AGENTS = (
    "agent",
    "status",
    "breaker",
    "replicas",
    "running",
    "queued",
    "rate/s",
    "errors",
    "p50 ms",
    "p95 ms",
    "p99 ms",
)
DECISIONS = ("request_id", "task_type", "selected_agent", "confidence", "strategy", "created_at")
SHOWN_DECISIONS = 8


@command(app)
async def top(
    session: Session,
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="One look, then stop.")] = False,
) -> None:
    """Live view; Ctrl-C leaves. One look when the output is no terminal."""
    async with session.client() as client:
        overview = await client.transport.read("overview")
        if session.json or once or not sys.stdout.isatty():
            session.print(overview, lambda: console().print(frame(overview)))
            return
        with Live(frame(overview), console=console(), screen=True, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(interval)
                try:
                    live.update(frame(await client.transport.read("overview")), refresh=True)
                except Unavailable as error:
                    live.update(Group(Text(f"{error}; trying again", style="red")), refresh=True)


def frame(overview: dict[str, Any]) -> Group:
    """One picture of the system."""
    performance: dict[str, Any] = overview.get("performance") or {}
    figures = {row["agent"]: row for row in performance.get("agents", []) if row.get("task_type") is None}
    rows: list[list[Any]] = []
    for agent in overview.get("agents", []):
        name, status, _, breaker, replicas, running, queued, *_ = agents_command.row(agent)
        figure = figures.get(name, {})
        measured = pick(figure, "rate_per_s", "error_rate", "p50_ms", "p95_ms", "p99_ms")
        rows.append([name, status, breaker, replicas, running, figure.get("queue", queued), *measured])
    problem = overview.get("problem")
    counts = "  ".join(f"{status} {count}" for status, count in (overview.get("counts") or {}).items())
    decisions = [pick(one, *DECISIONS) for one in (overview.get("decisions") or [])[:SHOWN_DECISIONS]]
    fleet = performance.get("fleet", {})
    known = counts or ("counts unknown" if problem else "no tasks yet")
    head = f"{overview.get('server_time', '')}   {fleet.get('rate_per_s') or 0:.1f} tasks/s   {known}"
    parts = [Text(head, style="bold"), Text(), table(AGENTS, rows), Text(), table(DECISIONS, decisions)]
    if problem:
        parts[1:1] = [Text(f"{problem}: counts and decisions cannot be read", style="red")]
    if not performance:
        parts.append(Text("the performance engine does not run: no rates", style="yellow"))
    return Group(*parts)
