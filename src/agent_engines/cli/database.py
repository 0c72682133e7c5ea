"""`engines db`: the schema of the ledger."""

from __future__ import annotations

from agent_engines.adapters.postgres.migrate import MigrationStatus, migrate, status

from .session import Session, command, group
from .tables import show_details

app = group("Bring the database schema up, or show where it is.")


@command(app, "migrate")
async def migrate_schema(session: Session) -> None:
    """Run what is pending, all or nothing. Safe to repeat."""
    session.config.require("POSTGRES_URL")
    _show(session, await migrate(session.config.postgres_url))


@command(app, "status")
async def show_status(session: Session) -> None:
    """Where the schema is, and what is pending."""
    session.config.require("POSTGRES_URL")
    _show(session, await status(session.config.postgres_url))


def _show(session: Session, found: MigrationStatus) -> None:
    values = {"current": found.current, "head": found.head, "pending": ", ".join(found.pending)}
    session.print(found, lambda: show_details(values))
