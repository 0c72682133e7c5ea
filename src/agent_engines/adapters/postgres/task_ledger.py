"""Writing a task's life: acceptance, claims, cancellation, another chance."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import Conflict, InvalidRequest, NotFound, Unavailable
from agent_engines.domain.messages import Report
from agent_engines.domain.tasks import Task, TaskStatus
from agent_engines.ports.ledger import Entry, Hedge, Known, StoredTask, TaskKind, Verdict
from agent_engines.ports.telemetry import Log

from . import rows
from .pool import UNSTORABLE, Pool, Row
from .recording import Recording

HEAL_BATCH = 5_000
KINDS = 1_000
"""Kinds of stranded tasks one look tells; the next look goes on where it ended."""


class PostgresTaskLedger:
    """See ports/ledger.py: TaskLedger."""

    def __init__(self, pool: Pool, *, log: Log | None = None) -> None:
        self._pool = pool
        self._recording = Recording(pool, log=log)
        self._kinds_until: dict[bool, tuple[str, str] | None] = {}

    async def accept(self, entries: Sequence[Entry]) -> list[Known]:
        """One round trip; a second one only when something was there before."""
        first: dict[str, Entry] = {}
        for entry in entries:
            first.setdefault(entry.task.task_id, entry)
        if not first:
            return []
        try:
            # The same order everywhere, so that two routers wait for each other instead of dead-locking.
            first = dict(sorted(first.items()))
            tasks = [entry.task for entry in first.values()]
            names, *columns = rows.decision_columns([entry.decision for entry in first.values()])
            odd = await self._pool.fetch(
                "accept",
                *rows.task_columns(tasks),
                _once_each(names),
                *columns,
                rows.hints_column(tasks),
                rows.terms_column(tasks),
            )
        except UNSTORABLE as error:
            raise InvalidRequest(f"the task cannot be stored: {error}") from error
        known = {row["task_id"] for row in odd if not row["accepted"]}
        namesakes = [first[row["task_id"]] for row in odd if row["accepted"]]
        if namesakes:
            await self._keep_namesakes(namesakes)
        if len(first) < len(entries):
            known |= _repeated(entries)
        return await self._known(known) if known else []

    async def plan(self, tasks: Sequence[Task]) -> list[Known]:
        if not tasks:
            return []
        first: dict[str, Task] = {}
        again: set[str] = set()
        for task in tasks:
            if task.task_id in first:
                again.add(task.task_id)
            first.setdefault(task.task_id, task)
        planned = list(first.values())
        try:
            later = [[task.run_at for task in planned], rows.hints_column(planned), rows.terms_column(planned)]
            odd = await self._pool.fetch("plan", *rows.task_columns(planned), *later)
        except UNSTORABLE as error:
            raise InvalidRequest(f"the task cannot be stored: {error}") from error
        known = again | {row["task_id"] for row in odd}
        return await self._known(known) if known else []

    async def renew(self, task_ids: Sequence[str], now: float) -> None:
        await self._pool.fetch("renew", list(task_ids), now)

    async def known(self, task_ids: Collection[str]) -> list[Known]:
        await self._pool.fetch("promise", list(task_ids))
        return await self._known(set(task_ids))

    async def withdraw(self, task_ids: Sequence[str]) -> None:
        await self._pool.fetch("withdraw", list(task_ids))

    async def record(self, reports: Sequence[Report]) -> list[Verdict]:
        return await self._recording.record(reports)

    async def due_retries(self, now: float) -> int:
        return (await self._pool.fetch("due_retries", now))[0]["due"]

    async def claim_due(self, now: float, limit: int, *, retries: int | None = None) -> list[StoredTask]:
        await self._recording.look_again(now)
        most = limit if retries is None else min(limit, retries)
        due = await self._pool.fetch("claim_due", now, most, repeat=False) if most > 0 else []
        if len(due) < limit:
            try:
                due += await self._pool.fetch("claim_planned", now, limit - len(due), repeat=False)
            except Unavailable:
                # What was claimed is the caller's already: not told of it, he would leave it until it counts as stranded.
                if not due:
                    raise
        return [rows.read_task(row) for row in due]

    async def stranded_kinds(self, older_than: float, *, agents: Sequence[str] | None = None) -> list[TaskKind]:
        """At most KINDS, others at each call: kinds nobody may do stay for long, and must not hide those somebody may."""
        by_agent, names = agents is not None, _names(agents)
        after = self._kinds_until.get(by_agent)
        found = await self._kinds(older_than, names, after, KINDS)
        if after is not None and len(found) < KINDS:
            # The end was reached: the rest is told from the beginning.
            found += await self._kinds(older_than, names, None, KINDS - len(found))
        self._kinds_until[by_agent] = found[-1] if len(found) == KINDS else None
        return [TaskKind(name, msgspec.json.decode(requirements)) for name, requirements in dict.fromkeys(found)]

    async def hand_back(self, tasks: Sequence[StoredTask], now: float) -> None:
        if tasks:
            ids, generations = [stored.task.task_id for stored in tasks], [stored.generation for stored in tasks]
            await self._pool.fetch("hand_back", ids, generations, now)

    async def _kinds(
        self, older_than: float, names: list[str] | None, after: tuple[str, str] | None, limit: int
    ) -> list[tuple[str, str]]:
        """Type and requirements of stranded tasks, in order."""
        found = await self._pool.fetch("stranded_kinds", older_than, names, *(after or (None, None)), limit)
        return [(row["task_type"], row["requirements"]) for row in found]

    async def claim_stranded(
        self,
        older_than: float,
        limit: int,
        *,
        kinds: Sequence[TaskKind] | None = None,
        agents: Sequence[str] | None = None,
    ) -> list[StoredTask]:
        if agents is None:
            while len(await self._pool.fetch("heal_old", older_than, HEAL_BATCH)) == HEAL_BATCH:
                pass
        types = None if kinds is None else [kind.task_type for kind in kinds]
        wanted = None if kinds is None else [msgspec.json.encode(kind.requirements).decode() for kind in kinds]
        found = await self._pool.fetch("claim_stranded", older_than, limit, _names(agents), types, wanted, repeat=False)
        return [rows.read_task(row) for row in found]

    async def redispatched(self, entries: Sequence[tuple[str, Decision]]) -> None:
        if not entries:
            return
        decisions = [decision for _, decision in entries]
        await self._pool.fetch(
            "redispatched",
            *rows.decision_columns(decisions),
            [decision.task_type for decision in decisions],
            [task_id for task_id, _ in entries],
        )

    async def hedge(self, hedges: Sequence[Hedge]) -> list[StoredTask]:
        if not hedges:
            return []
        decisions = [hedge.decision for hedge in hedges]
        found = await self._pool.fetch(
            "hedge",
            *rows.decision_columns(decisions),
            [decision.task_type for decision in decisions],
            [decision.task_id for decision in decisions],
            [hedge.first for hedge in hedges],
            repeat=False,
        )
        return [rows.read_task(row) for row in found]

    async def legs(self, task_id: str) -> list[str]:
        return [row["agent"] for row in await self._pool.fetch("legs", task_id)]

    async def cancel(self, task_id: str, now: float) -> TaskStatus:
        marked = await self._change("cancel", task_id, now)
        if marked is None:
            standing = await self._standing(task_id)
            raise Conflict(f"task {task_id} ended as {standing['status']}: there is nothing to cancel")
        return TaskStatus(marked["status"])

    async def reopen(self, task_id: str, now: float) -> StoredTask:
        opened = await self._change("reopen", task_id, now)
        if opened is None:
            standing = await self._standing(task_id)
            if not standing["has_task"]:
                raise NotFound(f"what task {task_id} was to do is not known any more")
            raise Conflict(f"task {task_id} is {standing['status']}: only a task that ended without success runs again")
        return rows.read_task(opened)

    async def _change(self, name: str, task_id: str, now: float) -> Row | None:
        try:
            found = await self._pool.fetch(name, task_id, now, repeat=False)
        except UNSTORABLE as error:
            raise NotFound(f"no task {task_id!r}") from error
        return found[0] if found else None

    async def _standing(self, task_id: str) -> Row:
        found = await self._pool.fetch("standing", task_id)
        if not found:
            raise NotFound(f"no task {task_id}")
        return found[0]

    async def _known(self, task_ids: set[str]) -> list[Known]:
        return [
            Known(
                row["known_id"],
                row["body_hash"],
                TaskStatus(row["status"]),
                None if row["id"] is None else rows.read_decision(row),
                row["max_attempts"],
            )
            for row in await self._pool.fetch("known", list(task_ids))
        ]

    async def _keep_namesakes(self, entries: Sequence[Entry]) -> None:
        columns = rows.decision_columns([entry.decision for entry in entries])
        columns[0] = [f"{entry.decision.request_id}/{entry.task.task_id}" for entry in entries]
        await self._pool.fetch(
            "add_decision",
            *columns,
            [entry.decision.task_type for entry in entries],
            [entry.task.task_id for entry in entries],
            [1] * len(entries),
        )


def _repeated(entries: Sequence[Entry]) -> set[str]:
    seen: set[str] = set()
    return {entry.task.task_id for entry in entries if entry.task.task_id in seen or seen.add(entry.task.task_id)}


def _once_each(names: list[str]) -> list[str | None]:
    """None in the place of a name that came before."""
    if len(set(names)) == len(names):
        return [*names]
    seen: set[str] = set()
    return [None if name in seen or seen.add(name) else name for name in names]


def _names(agents: Sequence[str] | None) -> list[str] | None:
    return None if agents is None else list(agents)
