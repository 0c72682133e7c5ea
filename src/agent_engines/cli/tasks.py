"""`engines tasks`: look at tasks, stop them, run them again."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from agent_engines.domain.feedback import DEFAULT_SOURCE
from agent_engines.domain.tasks import TaskStatus

from .session import Session, command, group
from .tables import pick, show_details, show_rows

app = group("List, show, cancel, retry and judge tasks.")
COLUMNS = ("task_id", "task_type", "status", "selected_agent", "attempts", "execution_time_ms", "submitted_at")
TaskId = Annotated[str, typer.Argument(help="The task's id.", show_default=False)]


@command(app, "list")
async def list_tasks(
    session: Session,
    status: Annotated[TaskStatus | None, typer.Option(help="Only this status.", show_default=False)] = None,
    task_type: Annotated[str | None, typer.Option(help="Only this task type.", show_default=False)] = None,
    agent: Annotated[str | None, typer.Option(help="Only of this agent.", show_default=False)] = None,
    since: Annotated[str | None, typer.Option(help="Submitted at or after (ISO 8601).", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most rows.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on after this page.", show_default=False)] = None,
) -> None:
    """Tasks, newest first."""
    async with session.client() as client:
        page = await client.tasks(
            status=status and status.value, task_type=task_type, agent=agent, since=since, limit=limit, cursor=cursor
        )
    session.print(page, lambda: show_page(COLUMNS, page, "no tasks"))


@command(app, "show")
async def show(session: Session, task_id: TaskId) -> None:
    """Everything known about one task."""
    await _told(session, "GET", f"tasks/{quote(task_id, safe='')}")


@command(app, "cancel")
async def cancel(session: Session, task_id: TaskId) -> None:
    """Stop a task: at once when it waits, soon when it runs."""
    async with session.client() as client:
        status = await client.transport.cancel(task_id)
    answer = {"task_id": task_id, "status": status.value}
    session.print(answer, lambda: show_details(answer))


@command(app, "retry")
async def retry(session: Session, task_id: TaskId) -> None:
    """Run a task that ended without success again."""
    await _told(session, "POST", f"tasks/{quote(task_id, safe='')}:retry")


@command(app, "feedback")
async def feedback(
    session: Session,
    task_id: TaskId,
    quality: Annotated[float, typer.Option(min=0, max=1, help="0 useless, 1 perfect.", show_default=False)],
    source: Annotated[str, typer.Option(help="Who judges.")] = DEFAULT_SOURCE,
    comment: Annotated[str, typer.Option(help="In words.", show_default=False)] = "",
) -> None:
    """Say how good the work of an ended task was; the routers learn from it."""
    async with session.client() as client:
        answer = await client.feedback(task_id, quality, source=source, comment=comment)
    session.print(answer, lambda: show_details(answer))


async def _told(session: Session, method: str, path: str) -> None:
    async with session.client() as client:
        answer = await (client.transport.read(path) if method == "GET" else client.transport.act(path))
    session.print(answer, lambda: show_details(answer))


def show_page(columns: tuple[str, ...], page: dict[str, Any], empty: str) -> None:
    """A page of a list, and how to get the next one."""
    show_rows(columns, [pick(item, *columns) for item in page["items"]], empty=empty)
    if page.get("next_cursor"):
        typer.echo(f"more: --cursor {page['next_cursor']}", err=True)
