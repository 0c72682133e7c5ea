"""What fault runs read past the API: whole tables, as they are, because the API is among the accused."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent_engines.domain.tasks import TaskStatus

from .pool import RECORD_SECONDS, Connection, Pool, Row
from .queries import queries

PAGE_ROWS = 5_000
"""Read at once: a hundred thousand rows with their results take longer than one command may on a busy server."""


class EvidenceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One task and its end. `submitted` False: only the terminal row is there; `status` None: only the task."""

    task_id: str
    nonce: str
    submitted: bool
    key: str | None
    generation: int
    max_attempts: int
    status: TaskStatus | None
    end_generation: int | None
    end_delivery: int | None
    end_attempt: int | None
    result: object
    error_type: str
    deadline: float | None
    legs: tuple[int, ...] = ()


class LedgerEvidence:
    """One connection for reading; survives a server that is killed meanwhile. Every method raises Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @classmethod
    async def connect(cls, dsn: str) -> LedgerEvidence:
        """Raises Unavailable, ConfigurationError."""
        return cls(await Pool.connect(dsn, minimum=1, maximum=1))

    async def rows(self, *, prefix: str | None = None, task_ids: Sequence[str] = ()) -> list[EvidenceRow]:
        """Every task and every end; with `prefix` those of one run: by nonce, and by the ids its clients were given."""
        text = queries()["evidence_rows"]

        async def work(connection: Connection) -> list[EvidenceRow]:
            found: list[EvidenceRow] = []
            cursor = await connection.cursor(text, prefix, list(task_ids))
            while page := await cursor.fetch(PAGE_ROWS):
                found += (_evidence(row) for row in page)
            return found

        return await self._pool.in_transaction(work)

    async def ended(self, task_ids: Sequence[str]) -> tuple[int, int]:
        """Terminal rows among these tasks, and how many of them are second ones."""
        (row,) = await self._pool.fetch("evidence_ended", list(task_ids), wait=RECORD_SECONDS)
        return row["ended"], row["doubles"]

    async def fingerprints(self, task_ids: Sequence[str]) -> dict[str, str]:
        """Version and content of each terminal row."""
        found = await self._pool.fetch("evidence_fingerprints", list(task_ids), wait=RECORD_SECONDS)
        return {row["task_id"]: row["content"] for row in found}

    async def version(self) -> str:
        """Of the server."""
        (row,) = await self._pool.fetch("evidence_version", wait=RECORD_SECONDS)
        return str(row["version"]).split()[0]

    async def durability(self) -> dict[str, str]:
        """The settings of this server that decide whether a commit survives the loss of power, by name."""
        rows = await self._pool.fetch("evidence_durability", wait=RECORD_SECONDS)
        return {row["name"]: row["setting"] for row in rows}

    async def close(self) -> None:
        await self._pool.close()


def _evidence(row: Row) -> EvidenceRow:
    return EvidenceRow(
        task_id=row["task_id"],
        nonce=row["nonce"],
        submitted=row["submitted"],
        key=row["idempotency_key"],
        generation=row["generation"],
        max_attempts=row["max_attempts"],
        status=None if row["status"] is None else TaskStatus(row["status"]),
        end_generation=row["end_generation"],
        end_delivery=row["delivery"],
        end_attempt=row["attempt"],
        result=_decoded(row["result"]),
        error_type=row["error_type"] or "",
        deadline=row["deadline"],
        legs=tuple(row["legs"]),
    )


def _decoded(value: object) -> object:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value
