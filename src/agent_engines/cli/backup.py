"""`engines backup`: make a whole backup while all goes on; `engines backup verify`: is it still one?"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from agent_engines.adapters.backup.draft import refuse_existing
from agent_engines.adapters.backup.make import make_backup
from agent_engines.adapters.backup.manifest import Bus, Manifest
from agent_engines.adapters.backup.verify import verify_backup
from agent_engines.adapters.clock import SystemClock
from agent_engines.bootstrap.unrecorded import unrecorded
from agent_engines.domain.errors import BackupFailed, InvalidRequest, Unavailable

from .ledger_place import Ledger, ledger_to_read
from .session import DataDirOption, Session, command, group, without_subcommand
from .tables import show_details

app = group("Make a whole backup while all goes on, or verify one.", show_help=False)


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What --json prints; `faults` is empty for a good backup."""

    directory: str
    manifest: Manifest | None
    faults: list[str] = []


@without_subcommand(app)
async def backup(
    session: Session,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="A new directory for it.", show_default=False)
    ] = None,
    data_dir: DataDirOption = None,
    without_journal: Annotated[
        bool, typer.Option("--without-journal", help="Even when accepted tasks are on the bus only.")
    ] = False,
) -> None:
    """Back up the ledger into a new directory, or `verify` one. Nothing has to be stopped."""
    if out is None:
        raise InvalidRequest("--out DIR is missing: where the backup is to be written", field="out")
    refuse_existing(out)
    async with ledger_to_read(session) as ledger:
        bus = await _bus(session, ledger, without_journal=without_journal)
        manifest = await make_backup(
            ledger.url, out, bus=bus, program=version("agent-engines"), now=SystemClock().now()
        )
    made = Made(directory=str(out.absolute()), manifest=manifest)
    session.print(made, lambda: _show(made))


@command(app, "verify")
async def verify(
    session: Session, directory: Annotated[Path, typer.Argument(metavar="DIR", help="What `engines backup` made.")]
) -> None:
    """Check sizes, checksums and contents without a server. Exit 1 with one line for each fault."""
    manifest, faults = await verify_backup(directory)
    for fault in faults:
        _say(fault)
    made = Made(directory=str(directory.absolute()), manifest=manifest, faults=faults)
    session.print(made, lambda: None if faults else _show(made))
    if faults:
        raise typer.Exit(1)


async def _bus(session: Session, ledger: Ledger, *, without_journal: bool) -> Bus | None:
    """What only the bus has, asked before the snapshot: what it has handed over by then is in it. Raises BackupFailed."""
    unasked = "tasks accepted while PostgreSQL was away, if there are any, are not in this backup"
    if ledger.nats_url is None:
        _say(f"the bus was not asked (it does not run, or NATS_URL is not set): {unasked}")
        return None
    try:
        bus = await unrecorded(session.config, ledger.nats_url)
    except Unavailable as error:
        _say(f"the bus does not answer ({error}): {unasked}")
        return None
    if bus.journal and not without_journal:
        raise BackupFailed(
            f"{bus.journal} accepted tasks are in the bus's journal only and would be missing: wait until a router has "
            "brought them into PostgreSQL (is `intelligence` running?), or leave them out with --without-journal"
        )
    if bus.journal:
        _say(f"{bus.journal} accepted tasks are in the bus's journal only: they are not in this backup")
    return bus


def _show(made: Made) -> None:
    manifest = made.manifest
    if manifest is None:
        return
    modes = manifest.modes or {}
    show_details(
        {
            "backup": made.directory,
            "made": manifest.created_at,
            "size": f"{sum(file.size for file in manifest.files):,} bytes",
            "tasks": f"{manifest.tables.get('tasks', 0):,}, {manifest.open_tasks:,} of them still to be done",
            "results": f"{manifest.tables.get('task_results', 0):,}",
            **({"not working": ", ".join(f"{name} ({mode})" for name, mode in sorted(modes.items()))} if modes else {}),
            "schema": manifest.schema,
            "PostgreSQL": f"{manifest.server} (dumped by {manifest.client})",
        }
    )


def _say(line: str) -> None:
    sys.stdout.flush()
    typer.echo(f"engines: {line}", err=True)
