"""`engines submit`: one task, or many from a file of JSON lines."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent_engines.client.client import Client
from agent_engines.client.handle import TaskHandle
from agent_engines.domain.errors import InvalidRequest, TaskFailed
from agent_engines.domain.tasks import TaskRequest, TaskStatus, TaskView
from agent_engines.domain.terms import DEFAULT_TENANT, Affinity, Budget

from .moments import moment_given
from .session import Session, command, parsed_json
from .tables import show_details

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
SUBMIT_PATIENCE_SECONDS = 30.0
SHOWN_REFUSALS = 5


@dataclass(frozen=True, slots=True)
class Options:
    """What applies to every task of one call."""

    task_type: str | None
    priority: int
    requirements: dict[str, Any]
    timeout_seconds: float | None
    max_attempts: int | None
    run_at: float | None
    strategy: str | None
    tenant: str
    budget: Budget | None
    affinity: Affinity | None


@command(app)
async def submit(  # noqa: PLR0917 - options of a command
    session: Session,
    task_type: Annotated[str | None, typer.Argument(help="What kind of work.", show_default=False)] = None,
    payload: Annotated[
        str | None, typer.Option(help="JSON, @file, or - for standard input.", metavar="JSON", show_default=False)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="One JSON task or payload a line; - for standard input.", metavar="JSONL", show_default=False
        ),
    ] = None,
    priority: Annotated[int, typer.Option(min=1, max=5, help="1 is first, 5 last.")] = 3,
    requirements: Annotated[
        str | None, typer.Option(help="What the agent must be or have.", metavar="JSON", show_default=False)
    ] = None,
    timeout_seconds: Annotated[
        float | None, typer.Option(min=0.001, help="Longest run of one attempt.", show_default=False)
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, max=100, show_default=False)] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key is the same task.", metavar="KEY", show_default=False)
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="How the agent is chosen: adaptive, random, c3, ...", show_default=False)
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", help="Not before: ISO 8601 with an offset.", metavar="TIME", show_default=False),
    ] = None,
    delay: Annotated[
        str | None, typer.Option("--in", help="Not before so long from now: 90s, 15m, 2h, 1d.", show_default=False)
    ] = None,
    tenant: Annotated[str, typer.Option(help="On whose account.")] = DEFAULT_TENANT,
    budget: Annotated[
        str | None,
        typer.Option(help='What all attempts may use up: {"cost": 0.1}.', metavar="JSON", show_default=False),
    ] = None,
    affinity: Annotated[
        str | None, typer.Option(help="Tasks with the same key meet the same agent.", metavar="KEY", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the outcome; exit 1 unless it is success.")] = False,
    wait_seconds: Annotated[
        float | None, typer.Option(min=0.001, help="Wait at most so long.", show_default=False)
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to try again while nobody can take it; 0: know at once.")
    ] = SUBMIT_PATIENCE_SECONDS,
) -> None:
    """Submit one task, or many from a file. Durable when it says so."""
    needs = parsed_json(requirements, "--requirements") if requirements else {}
    if not isinstance(needs, dict):
        raise InvalidRequest("--requirements must be a JSON object", field="requirements")
    run_at = moment_given(at, delay, time.time())
    terms = (tenant, budget_given(budget), Affinity(key=affinity) if affinity is not None else None)
    options = Options(task_type, priority, needs, timeout_seconds, max_attempts, run_at, strategy, *terms)
    session.retry_seconds = patience
    if file is not None:
        if payload is not None or idempotency_key is not None:
            raise InvalidRequest("--file goes without --payload and --idempotency-key: each line has its own")
        await _many(session, _requests(file, options), wait, wait_seconds)
        return
    if task_type is None:
        raise InvalidRequest("name a TASK_TYPE, or give --file; see `engines submit --help`", field="task_type")
    request = msgspec.structs.replace(
        _request(options, payload_given(payload) if payload is not None else None), idempotency_key=idempotency_key
    )
    await _one(session, request, wait, wait_seconds)


async def _one(session: Session, request: TaskRequest, wait: bool, wait_seconds: float | None) -> None:
    async with session.client() as client:
        handle = await client.submit_request(request)
        if not wait:
            answer = msgspec.to_builtins(handle.acceptance)
            session.print(answer, lambda: show_details(answer))
            return
        view = await handle.outcome(wait_seconds)
    answer = {**msgspec.to_builtins(handle.acceptance), **msgspec.to_builtins(view)}
    shown = {name: answer[name] for name in ("task_id", "status", "selected_agent", "attempts", "result", "error")}
    session.print(answer, lambda: show_details(shown))
    if view.status is not TaskStatus.SUCCESS:
        raise _failed(view)


async def _many(session: Session, requests: list[TaskRequest], wait: bool, wait_seconds: float | None) -> None:
    started = time.monotonic()
    async with session.client() as client:
        with progress_bar("submitted", len(requests)) as advance:
            answers = await client.submit_many(requests, return_exceptions=True, on_progress=advance)
        handles = [answer for answer in answers if isinstance(answer, TaskHandle)]
        refused = [(index, answer) for index, answer in enumerate(answers, start=1) if isinstance(answer, Exception)]
        outcomes = await _outcomes(client, handles, wait_seconds) if wait else {}
    summary: dict[str, Any] = {
        "tasks": len(requests),
        "accepted": len(handles),
        "refused": len(refused),
        **({"outcomes": outcomes} if wait else {}),
        "seconds": round(time.monotonic() - started, 3),
    }
    data = {**summary, "task_ids": [handle.task_id for handle in handles]}
    session.print(data, lambda: show_details(summary))
    for index, error in refused[:SHOWN_REFUSALS]:
        typer.echo(f"engines: line {index} was refused: {error}", err=True)
    if refused or outcomes.get("success", len(handles)) != len(handles):
        raise typer.Exit(1)


async def _outcomes(client: Client, handles: list[TaskHandle], wait_seconds: float | None) -> dict[str, int]:
    """How many ended in which status; `unknown` for those that did not end in time."""
    counts: Counter[str] = Counter()
    with progress_bar("ended", len(handles)) as advance:

        async def follow(handle: TaskHandle) -> None:
            try:
                counts[(await handle.outcome(wait_seconds)).status.value] += 1
            except TimeoutError:
                counts["unknown"] += 1
            advance(1)

        await asyncio.gather(*(follow(handle) for handle in handles))
    return dict(counts)


def _requests(path: Path, options: Options) -> list[TaskRequest]:
    """One request a line: an object with `task_type` is a whole task, anything else a payload for TASK_TYPE."""
    requests: list[TaskRequest] = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        value = parsed_json(line, f"{path} line {number}")
        if isinstance(value, dict) and "task_type" in value:
            requests.append(_whole(value, f"{path} line {number}"))
        elif options.task_type is None:
            raise InvalidRequest(f"{path} line {number} has no task_type: name one as TASK_TYPE", field="task_type")
        else:
            requests.append(_request(options, value))
    if not requests:
        raise InvalidRequest(f"{path} holds no tasks: it must have one JSON value a line", field="file")
    return requests


def _whole(value: dict[str, Any], place: str) -> TaskRequest:
    unknown = sorted(set(value) - set(TaskRequest.__struct_fields__))
    if unknown:
        raise InvalidRequest(f"{place}: unknown field {unknown[0]!r}", field=unknown[0])
    try:
        return msgspec.convert(value, TaskRequest)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{place}: {error}", field="file") from None


def _request(options: Options, payload: Any) -> TaskRequest:
    return TaskRequest(
        task_type=options.task_type or "",
        payload=payload,
        priority=options.priority,
        requirements=options.requirements,
        timeout_seconds=options.timeout_seconds,
        max_attempts=options.max_attempts,
        run_at=options.run_at,
        strategy=options.strategy,
        tenant=options.tenant,
        budget=options.budget,
        affinity=options.affinity,
    )


def budget_given(text: str | None) -> Budget | None:
    """Raises InvalidRequest."""
    if text is None:
        return None
    try:
        return msgspec.convert(parsed_json(text, "--budget"), Budget)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"--budget: {error}", field="budget") from None


def payload_given(text: str) -> Any:
    """JSON text, `@file`, or `-` for standard input. Raises InvalidRequest."""
    if text == "-" or text.startswith("@"):
        return parsed_json(_text(Path(text.removeprefix("@"))), "--payload")
    return parsed_json(text, "--payload")


def _text(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror or error}", field="file") from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path} is not UTF-8 text", field="file") from None


def _failed(view: TaskView) -> TaskFailed:
    detail = f"{view.error.type}: {view.error.message}" if view.error else "no reason was recorded"
    return TaskFailed(view.task_id, view.status.value, detail)


@contextmanager
def progress_bar(what: str, total: int) -> Generator[Any]:
    """A bar on stderr when a person looks; yields the function that moves it on by n."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda count: progress.advance(bar, count)
