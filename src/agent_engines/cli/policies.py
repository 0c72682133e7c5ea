"""`engines policies`: routing policies and what they would have earned."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from agent_engines.domain.errors import NotFound

from .session import Session, command, group
from .tables import pick, show_details, show_rows

app = group("Routing policies and what they would have earned.")
COLUMNS = ("policy", "task_type", "value", "interval", "effective_sample_size", "rows", "mean_cost")
Policy = Annotated[str, typer.Argument(help="Name of the policy.", show_default=False)]


@command(app, "list")
async def list_policies(session: Session) -> None:
    """Every policy with its estimated value."""
    async with session.client() as client:
        report = await client.transport.read("policies")
    session.print(report, lambda: _show(report))


@command(app, "show")
async def show(session: Session, policy: Policy) -> None:
    """One policy, over all task types and for each: estimate, interval, effective sample size, warnings."""
    async with session.client() as client:
        rows: list[dict[str, Any]] = (await client.transport.read("policies")).get("policies", [])
    found = [row for row in rows if row.get("policy") == policy]
    if not found:
        known = ", ".join(dict.fromkeys(str(row.get("policy")) for row in rows)) or "none yet"
        raise NotFound(f"there is no policy {policy!r}; known: {known}")
    session.print({"items": found}, lambda: _details(found))


@command(app, "promote")
async def promote(session: Session, policy: Policy) -> None:
    """Route by this policy from now on."""
    await _do(session, policy, "promote")


@command(app, "rollback")
async def rollback(session: Session, policy: Policy) -> None:
    """Go back to this policy."""
    await _do(session, policy, "rollback")


async def _do(session: Session, policy: str, verb: str) -> None:
    async with session.client() as client:
        answer = await client.transport.act(f"policies/{quote(policy, safe='')}:{verb}")
    session.print(answer, lambda: show_details(answer))


def _details(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        show_details(row)


def _show(report: dict[str, Any]) -> None:
    rows: list[dict[str, Any]] = report.get("policies", [])
    show_rows(
        COLUMNS, [pick(row, *COLUMNS) for row in rows], empty="no policies yet: nothing with an outcome was decided"
    )
