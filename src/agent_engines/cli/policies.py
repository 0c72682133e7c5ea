"""`engines policies`: by what tasks are routed, what other policies would have earned, and changing it."""

from __future__ import annotations

import getpass
from typing import Annotated, Any
from urllib.parse import quote

import typer

from agent_engines.domain.errors import NotFound
from agent_engines.domain.policy_word import BY_LENGTH

from .session import Session, command, group
from .tables import pick, show_details, show_rows

app = group("Routing policies and what they would have earned.")
COLUMNS = ("policy", "task_type", "value", "interval", "effective_sample_size", "rows", "mean_cost")
ROUTERS = ("router", "policy", "version", "turn", "problem")
GAINS = ("task_type", "value", "interval", "effective_sample_size", "rows")
Policy = Annotated[str, typer.Argument(help="Name or version of the policy.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why; kept with the change.", show_default=False)]
By = Annotated[str | None, typer.Option(help="Who says so; else the login name.", show_default=False)]
Guard = Annotated[
    bool, typer.Option("--guard/--no-guard", help="Roll it back by itself when it does measurably worse.")
]
Force = Annotated[bool, typer.Option("--force", help="Also against the evidence; needs --reason.")]


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


@command(app, "promote", epilog="Example: engines policies promote prequal --reason 'better on last week'")
async def promote(
    session: Session, policy: Policy, reason: Reason = "", by: By = None, force: Force = False, guard: Guard = True
) -> None:
    """Route by this policy from now on, if the recorded decisions speak for it."""
    said = {"by": _somebody(by), "reason": reason, "force": force, "guard": guard}
    await _do(session, policy, "promote", said)


@command(app, "rollback")
async def rollback(session: Session, policy: Policy, reason: Reason = "", by: By = None) -> None:
    """Leave this active policy for what was active before."""
    await _do(session, policy, "rollback", {"by": _somebody(by), "reason": reason})


async def _do(session: Session, policy: str, verb: str, said: dict[str, Any]) -> None:
    async with session.client() as client:
        answer = await client.transport.change("POST", f"policies/{quote(policy, safe='')}:{verb}", said)
    session.print(answer, lambda: _changed(answer))


def _somebody(by: str | None) -> str:
    """The login name, as far as the system knows one."""
    if by is not None:
        return by
    try:
        return getpass.getuser()[:BY_LENGTH]
    except (KeyError, OSError):
        return ""


def _changed(answer: dict[str, Any]) -> None:
    show_details({name: value for name, value in answer.items() if name not in ("evidence", "baseline")})
    rows = [pick(gain, *GAINS) for gain in answer["evidence"]]
    if rows:
        show_rows(GAINS, rows)


def _details(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        show_details(row)


def _show(report: dict[str, Any]) -> None:
    rows: list[dict[str, Any]] = report.get("policies", [])
    show_rows(
        COLUMNS, [pick(row, *COLUMNS) for row in rows], empty="no policies yet: nothing with an outcome was decided"
    )
    show_details({"active": report.get("active"), "promoted": report.get("promoted"), "guard": report.get("guard")})
    routers: list[dict[str, Any]] = report.get("routers", [])
    if routers:
        show_rows(ROUTERS, [pick(row, *ROUTERS) for row in routers])
