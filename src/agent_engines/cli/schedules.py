"""`engines schedules`: tasks that are made again and again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.schedules import CatchUp
from agent_engines.domain.terms import DEFAULT_TENANT, Affinity

from .session import Session, command, group, parsed_json
from .submit import budget_given, payload_given
from .tables import show_details
from .tasks import show_page

app = group("Tasks made again and again, by cron expressions.")
COLUMNS = ("name", "cron", "timezone", "enabled", "next_run_at", "last_run_at", "last_task_id", "last_error")
Name = Annotated[str, typer.Argument(help="The schedule's name.", show_default=False)]


@command(app, "list")
async def list_schedules(
    session: Session,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most rows.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on after this page.", show_default=False)] = None,
) -> None:
    """Schedules by name, with their next times."""
    async with session.client() as client:
        page = await client.schedules.list(limit=limit, cursor=cursor)
    session.print(page, lambda: show_page(COLUMNS, page, "no schedules"))


@command(app, "show")
async def show(session: Session, name: Name) -> None:
    """One schedule and what its tasks ask for."""
    async with session.client() as client:
        answer = await client.schedules.show(name)
    session.print(answer, lambda: show_details(answer))


@command(app, "add", epilog="Example: engines schedules add nightly '30 2 * * *' report --timezone Europe/Berlin")
async def add(  # noqa: PLR0917 - options of a command
    session: Session,
    name: Name,
    cron: Annotated[
        str, typer.Argument(help="'minute hour day month weekday', or @hourly, @daily...", show_default=False)
    ],
    task_type: Annotated[str, typer.Argument(help="What kind of work.", show_default=False)],
    payload: Annotated[
        str | None, typer.Option(help="JSON, @file, or - for standard input.", metavar="JSON", show_default=False)
    ] = None,
    timezone: Annotated[str, typer.Option(help="IANA name.")] = "UTC",
    priority: Annotated[int, typer.Option(min=1, max=5, help="1 is first, 5 last.")] = 3,
    requirements: Annotated[
        str | None, typer.Option(help="What the agent must be or have.", metavar="JSON", show_default=False)
    ] = None,
    timeout_seconds: Annotated[
        float | None, typer.Option(min=0.001, help="Longest run of one attempt.", show_default=False)
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, max=100, show_default=False)] = None,
    strategy: Annotated[
        str | None, typer.Option(help="How the agent is chosen: adaptive, random, c3, ...", show_default=False)
    ] = None,
    tenant: Annotated[str, typer.Option(help="On whose account.")] = DEFAULT_TENANT,
    budget: Annotated[
        str | None,
        typer.Option(
            help='What all attempts of one task may use up: {"cost": 0.1}.', metavar="JSON", show_default=False
        ),
    ] = None,
    affinity: Annotated[
        str | None, typer.Option(help="Tasks with the same key meet the same agent.", metavar="KEY", show_default=False)
    ] = None,
    catch_up: Annotated[CatchUp, typer.Option(help="After downtime: the latest missed time, or all.")] = CatchUp.SKIP,
    paused: Annotated[bool, typer.Option("--paused", help="Make no tasks until it is resumed.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="In place of the one of this name.")] = False,
) -> None:
    """Make tasks by a cron expression."""
    needs = parsed_json(requirements, "--requirements") if requirements else {}
    if not isinstance(needs, dict):
        raise InvalidRequest("--requirements must be a JSON object", field="requirements")
    async with session.client() as client:
        answer = await client.schedules.add(
            name,
            cron,
            task_type,
            None if payload is None else payload_given(payload),
            timezone=timezone,
            enabled=not paused,
            catch_up=catch_up.value,
            replace=replace,
            priority=priority,
            requirements=needs,
            timeout_seconds=timeout_seconds,
            max_attempts=max_attempts,
            strategy=strategy,
            tenant=tenant,
            budget=budget_given(budget),
            affinity=None if affinity is None else Affinity(key=affinity),
        )
    session.print(answer, lambda: show_details(_short(answer)))


@command(app, "remove")
async def remove(session: Session, name: Name) -> None:
    """Forget a schedule; the tasks it has made stay."""
    async with session.client() as client:
        await client.schedules.remove(name)
    answer = {"name": name, "removed": True}
    session.print(answer, lambda: show_details(answer))


@command(app, "pause")
async def pause(session: Session, name: Name) -> None:
    """Make no more tasks until it is resumed."""
    async with session.client() as client:
        answer = await client.schedules.pause(name)
    session.print(answer, lambda: show_details(_short(answer)))


@command(app, "resume")
async def resume(session: Session, name: Name) -> None:
    """Go on; what passed meanwhile is not made up for."""
    async with session.client() as client:
        answer = await client.schedules.resume(name)
    session.print(answer, lambda: show_details(_short(answer)))


@command(app, "run")
async def run(session: Session, name: Name) -> None:
    """Make one task now, beside its times."""
    async with session.client() as client:
        answer = await client.schedules.run(name)
    session.print(answer, lambda: show_details(answer))


def _short(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: answer.get(name) for name in ("name", "cron", "timezone", "enabled", "next_run_at")}
