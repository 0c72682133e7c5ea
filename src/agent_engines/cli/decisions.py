"""`engines decisions`: who was chosen, among whom, and why."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from .session import Session, command, group
from .tables import console, pick, show_details, show_rows
from .tasks import show_page

app = group("Who was chosen, among whom, and why.")
COLUMNS = ("request_id", "task_type", "selected_agent", "confidence", "propensity", "strategy", "created_at")
TOLD_BELOW = ("candidates", "rejected", "explanation", "eligible")
CANDIDATE = ("agent", "probability", "score", "success", "quality", "completion_ms", "cost", "in_flight", "slots")


@command(app, "list")
async def list_decisions(
    session: Session,
    task_type: Annotated[str | None, typer.Option(help="Only this task type.", show_default=False)] = None,
    agent: Annotated[str | None, typer.Option(help="Only for this agent.", show_default=False)] = None,
    since: Annotated[str | None, typer.Option(help="Decided at or after (ISO 8601).", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most rows.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on after this page.", show_default=False)] = None,
) -> None:
    """Decisions, newest first."""
    async with session.client() as client:
        page = await client.decisions(task_type=task_type, agent=agent, since=since, limit=limit, cursor=cursor)
    session.print(page, lambda: show_page(COLUMNS, page, "no decisions"))


@command(app, "show")
async def show(
    session: Session, request_id: Annotated[str, typer.Argument(help="The decision's request id.", show_default=False)]
) -> None:
    """The full record of one decision: candidates, numbers, reasons."""
    async with session.client() as client:
        answer = await client.transport.read(f"decisions/{quote(request_id, safe='')}")
    session.print(answer, lambda: _show(answer))


def _show(answer: dict[str, Any]) -> None:
    show_details({name: value for name, value in answer.items() if name not in TOLD_BELOW})
    for sentence in answer.get("explanation", []):
        console().print(f"- {sentence}", markup=False, highlight=False)
    show_rows(CANDIDATE, [pick(one, *CANDIDATE) for one in answer.get("candidates", [])], empty="no candidates")
    rejected = answer.get("rejected", [])
    if rejected:
        show_rows(("not chosen", "reason"), [pick(one, "agent", "reason") for one in rejected])
