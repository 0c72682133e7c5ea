"""`engines restore`: bring a backup back into an empty place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent_engines.adapters.backup.manifest import Manifest
from agent_engines.adapters.backup.restore import Restored, checked, restore_backup

from .ledger_place import ledger_to_write
from .session import DataDirOption, Session, command
from .tables import show_details

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command(app)
async def restore(
    session: Session,
    source: Annotated[
        Path, typer.Option("--from", metavar="DIR", help="What `engines backup` made.", show_default=False)
    ],
    data_dir: DataDirOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what the target holds.")] = False,
    bus_kept: Annotated[
        bool, typer.Option("--bus-kept", help="NATS still has its messages: do not send open tasks again at once.")
    ] = False,
) -> None:
    """Restore a backup into an empty database, all or nothing: a new --data-dir, else POSTGRES_URL."""
    manifest = await checked(source)
    async with ledger_to_write(session) as ledger:
        restored = await restore_backup(ledger.url, source, manifest, force=force, bus_kept=bus_kept)
        where = ledger.name
    session.print(restored, lambda: _show(restored, where))
    for line in _about_agents(manifest, bus_kept=bus_kept):
        typer.echo(f"engines: {line}", err=True)


def _about_agents(manifest: Manifest, *, bus_kept: bool) -> list[str]:
    """Agents that get no work after this, which is easily taken for a fault."""
    if manifest.modes is None:
        return ["this backup does not tell which agents were drained or quarantined: see `engines agents list`"]
    unless = " unless the kept bus says otherwise" if bus_kept else ""
    return [
        f"{agent} was {mode} and is so again{unless}: `engines agents resume {agent}` gives it work"
        for agent, mode in sorted(manifest.modes.items())
    ]


def _show(restored: Restored, where: str) -> None:
    manifest = restored.manifest
    show_details(
        {
            "restored": where,
            "backup of": manifest.created_at,
            "tasks": f"{manifest.tables.get('tasks', 0):,}, {manifest.open_tasks:,} of them still to be done",
            "results": f"{manifest.tables.get('task_results', 0):,}",
            "schema": restored.schema,
            "next": "start the engines: what had no outcome is done now, what had one stays as it is",
        }
    )
