"""`engines dead-letters`: tasks that were given up, and sending them on their way again."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from urllib.parse import quote

import typer

from agent_engines.client.client import Client
from agent_engines.domain.errors import AgentEnginesError, InvalidRequest
from agent_engines.domain.redrives import DEFAULT_RATE, MAX_RATE

from .session import Session, command, group, query
from .submit import progress_bar
from .tables import show_details, show_rows
from .tasks import show_page

app = group("Tasks that were given up.")
COLUMNS = ("task_id", "task_type", "agent", "reason", "attempts", "created_at", "redriven_at")
TaskType = Annotated[str | None, typer.Option(help="Only this task type.", show_default=False)]
Agent = Annotated[str | None, typer.Option(help="Only of this agent.", show_default=False)]
Reason = Annotated[str | None, typer.Option(help="Only with this in the reason.", show_default=False)]
Since = Annotated[str | None, typer.Option(help="Given up at or after (ISO 8601).", show_default=False)]
LOOK_SECONDS = 0.5
TaskId = Annotated[str, typer.Argument(help="The task's id.", show_default=False)]


@command(app, "list")
async def list_letters(  # noqa: PLR0917 - options of a command
    session: Session,
    task_type: TaskType = None,
    agent: Agent = None,
    reason: Reason = None,
    since: Since = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those not redriven yet.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most rows.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on after this page.", show_default=False)] = None,
) -> None:
    """Dead letters, newest first."""
    async with session.client() as client:
        page = await client.dead_letters(
            task_type=task_type,
            agent=agent,
            reason=reason,
            since=since,
            waiting="true" if waiting else None,
            limit=limit,
            cursor=cursor,
        )
    session.print(page, lambda: show_page(COLUMNS, page, "no dead letters"))


@command(app, "show")
async def show(session: Session, task_id: TaskId) -> None:
    """The task behind a dead letter, with its last error."""
    async with session.client() as client:
        answer = await client.transport.read(f"tasks/{quote(task_id, safe='')}")
    session.print(answer, lambda: show_details(answer))


@command(app, "redrive", epilog="With --all it goes on in the background when you leave; see --status and --stop.")
async def redrive(  # noqa: PLR0917 - options of a command
    session: Session,
    task_ids: Annotated[list[str] | None, typer.Argument(help="Ids of tasks.", show_default=False)] = None,
    all_letters: Annotated[bool, typer.Option("--all", help="Every dead letter not redriven yet.")] = False,
    task_type: TaskType = None,
    agent: Agent = None,
    reason: Reason = None,
    since: Since = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.", show_default=False)] = None,
    rate: Annotated[float, typer.Option(min=0.001, max=MAX_RATE, help="How many a second.")] = DEFAULT_RATE,
    status: Annotated[bool, typer.Option("--status", help="Only tell how far the last --all got.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the --all that runs.")] = False,
) -> None:
    """Send given-up tasks on their way again, with a fresh attempt budget."""
    if [bool(task_ids), all_letters, status, stop].count(True) != 1:
        raise InvalidRequest("name the tasks to redrive, or use --all, --status or --stop")
    filters = query(("task_type", "agent", "reason", "since", "limit"), (task_type, agent, reason, since, limit))
    if filters and not all_letters:
        raise InvalidRequest("--task-type, --agent, --reason, --since and --limit go with --all")
    async with session.client() as client:
        if task_ids:
            await _redrive_named(session, client, task_ids)
            return
        if stop:
            told = await client.stop_redrive()
        elif status:
            told = await client.redrive_progress()
        else:
            told = await _followed(client, await client.redrive_dead_letters(**filters, rate=rate))
    session.print(told, lambda: show_details(pick_known(told)))


async def _followed(client: Client, told: dict[str, Any]) -> dict[str, Any]:
    """Show a bar until it ended; the order belongs to the routers and goes on when the person leaves."""
    order = told["id"]
    with progress_bar("redriven", told["matched"]) as advance:
        seen = 0
        while told["state"] == "running" and told["id"] == order:
            await asyncio.sleep(LOOK_SECONDS)
            told = await client.redrive_progress()
            advance(told["redriven"] + told["skipped"] - seen)
            seen = told["redriven"] + told["skipped"]
    return told


async def _redrive_named(session: Session, client: Client, task_ids: list[str]) -> None:
    answers = [await _redriven(client, task_id) for task_id in task_ids]
    session.print(
        {"items": answers},
        lambda: show_rows(
            ("task_id", "status", "problem"),
            [[one["task_id"], one.get("status"), one.get("problem")] for one in answers],
            empty="no dead letters",
        ),
    )
    if any("problem" in one for one in answers):
        raise typer.Exit(1)


async def _redriven(client: Client, task_id: str) -> dict[str, Any]:
    try:
        answer = await client.transport.act(f"dead-letters/{quote(task_id, safe='')}:redrive")
    except AgentEnginesError as error:
        return {"task_id": task_id, "problem": str(error)}
    return {"task_id": task_id, "status": answer.get("status") if isinstance(answer, dict) else None}


def pick_known(told: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to know of a redrive: filters only where they were given."""
    return {name: value for name, value in told.items() if value is not None}
