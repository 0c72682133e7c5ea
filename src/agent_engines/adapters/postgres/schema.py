"""The least schema this program works with."""

from __future__ import annotations

from agent_engines.domain.errors import ConfigurationError

from .pool import Pool

MINIMUM = "0006"
"""Revisions are numbers with leading zeros: they compare as text. A newer one is fine (docs/reference/migrations.md)."""


async def schema_revision(pool: Pool) -> str | None:
    """The revision the database is at; None when nothing was ever migrated. Raises Unavailable."""
    if not (await pool.fetch("schema_version"))[0]["migrated"]:
        return None
    rows = await pool.fetch("schema_revision")
    return rows[0]["version_num"] if rows else None


async def require_schema(pool: Pool) -> None:
    """Raises ConfigurationError when the database is older than this program needs, Unavailable."""
    current = await schema_revision(pool)
    if current is None or current < MINIMUM:
        have = "has no tables yet" if current is None else f"is at revision {current}"
        raise ConfigurationError(
            [f"POSTGRES_URL: the database {have}, revision {MINIMUM} or newer is needed: run 'engines db migrate'"]
        )
