"""`engines diagnose`: everything that helps to understand an incident, in one file, secrets masked."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from agent_engines.adapters.bundle_file import require_free, write_bundle
from agent_engines.bootstrap.diagnosis import Diagnosis, asking
from agent_engines.bootstrap.gathering import ERROR_SUFFIX, Gathered, Part, gathered
from agent_engines.bootstrap.preflight import READ_SECONDS, preflight
from agent_engines.config.known_secrets import known_secrets
from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.masking import Masker

from .check import MonitorOption, profile_of, quiet, told
from .places import places_of
from .session import DataDirOption, Session, command
from .status import gathered as status_of
from .tables import console, show_rows

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
MIB = 1 << 20
LOOK_THROUGH = (
    "Look through it before you send it: passwords, tokens and keys are masked where they are known or look like some, "
    "but error messages, logs, agents' metadata and names are as they are."
)
PAYLOADS = "It holds payloads and results of tasks."


@command(
    app, epilog="Each part has its own time; what could not be had is told in the file in its place. Within 30 seconds."
)
async def diagnose(
    session: Session,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE.tar.gz", help="The file to write; must not be there yet.", show_default=False
        ),
    ],
    with_payloads: Annotated[
        bool, typer.Option("--with-payloads", help="Tasks as they are, not only their outlines.")
    ] = False,
    log_mib: Annotated[float, typer.Option(min=0.0, max=64.0, help="The end of each log, MiB.")] = 1.0,
    monitor: MonitorOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Gather versions, settings, health, the servers' own words and the logs into one file, for its owner only."""
    require_free(out)
    masker = Masker(known_secrets(session.config))
    now = time.time()
    with quiet():
        found = await _found(
            session, now, masker=masker, log_bytes=int(log_mib * MIB), with_payloads=with_payloads, monitors=monitor
        )
    files = {one.name: one.content for one in found}
    summary = _summary(found, now, with_payloads=with_payloads)
    files = {"summary.json": (masker.json(summary) + "\n").encode(), **files}
    folder = f"engines-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
    size = await asyncio.to_thread(write_bundle, out, files, folder=folder, moment=now)
    answer = {"path": str(out), "bytes": size, **summary}
    session.print(answer, lambda: _show(answer))


async def _found(
    session: Session, now: float, *, masker: Masker, log_bytes: int, with_payloads: bool, monitors: list[str] | None
) -> list[Gathered]:
    async with asking(session.config, _http_url(session)) as http:
        diagnosis = Diagnosis(
            config=session.config,
            places=places_of(session.config, monitors=tuple(monitors or ())),
            http=http,
            now=now,
            log_bytes=log_bytes,
            with_payloads=with_payloads,
        )
        return await gathered([*_commands(session, diagnosis), *diagnosis.parts()], masker)


def _http_url(session: Session) -> str:
    """A setting that is wrong is a reason to look at the rest, not to stop: without an address each page says so itself."""
    try:
        return session.http_url
    except InvalidRequest:
        return ""


def _commands(session: Session, diagnosis: Diagnosis) -> list[Part]:
    """What other commands would have said."""

    async def status() -> Any:
        data, well = await status_of(session)
        return {**data, "well": well}

    async def check() -> Any:
        return told(await preflight(diagnosis.config, diagnosis.places, profile_of(diagnosis.config, None)))

    # A second more than the preflight gives each server: then it tells which one did not answer.
    return [Part("status.json", status), Part("check.json", check, READ_SECONDS + 2.0)]


def _summary(found: list[Gathered], now: float, *, with_payloads: bool) -> dict[str, Any]:
    return {
        "moment": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        "with_payloads": with_payloads,
        "files": {one.name: {"bytes": len(one.content), "seconds": one.seconds} for one in found if not one.problem},
        "missing": {one.name.removesuffix(ERROR_SUFFIX): one.problem for one in found if one.problem},
        "note": " ".join([LOOK_THROUGH, *([PAYLOADS] if with_payloads else [])]),
    }


def _show(answer: dict[str, Any]) -> None:
    screen = console()
    files, missing = answer["files"], answer["missing"]
    show_rows(("file", "bytes"), [[name, told["bytes"]] for name, told in files.items()])
    if missing:
        screen.print()
        show_rows(("could not be had", "why"), list(missing.items()))
    screen.print(
        f"\n[bold]{answer['path']}[/bold]: {len(files)} files, {answer['bytes'] / 1024:.0f} KiB, mode 0600", markup=True
    )
    screen.print(answer["note"], markup=False)
