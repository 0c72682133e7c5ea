"""Reading what the in-memory ledger holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from agent_engines.adapters.keyset import Place, decode_cursor, encode_cursor, page_size
from agent_engines.adapters.task_view import attempts_made, trace_id
from agent_engines.domain.budgets import NOTHING, Spend
from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import InvalidRequest, NotFound
from agent_engines.domain.messages import Report
from agent_engines.domain.tasks import TaskStatus, TaskView
from agent_engines.domain.terms import NO_TERMS
from agent_engines.ports.ledger import (
    ENDED_BYTES,
    AttemptView,
    DeadLetter,
    DecisionFilter,
    LetterFilter,
    LoggedDecision,
    Page,
    Several,
    TaskFilter,
)

from .ledger_tables import DecisionRow, Tables, TaskRow
from .tenants import spend_of

Item = TypeVar("Item")


class MemoryTaskReader:
    """See ports/ledger.py: TaskReader."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def task(self, task_id: str) -> TaskView:
        return self._view(task_id)

    async def origin(self, task_id: str) -> str:
        row = self._tables.tasks.get(task_id)
        return "" if row is None else row.task.origin

    async def several(self, task_ids: Sequence[str], most_bytes: int = ENDED_BYTES) -> Several:
        known = [one for one in task_ids if one in self._tables.tasks or one in self._tables.outcomes]
        return self._some(known, most_bytes)

    async def ended(self, task_ids: Sequence[str]) -> Several:
        return self._some([one for one in task_ids if one in self._tables.outcomes], ENDED_BYTES)

    def _some(self, known: Sequence[str], most_bytes: int) -> Several:
        items: list[TaskView] = []
        size = 0
        for task_id in dict.fromkeys(known):
            if size >= most_bytes:
                return Several(items, more=True)
            outcome = self._tables.outcomes.get(task_id)
            size += 0 if outcome is None else len(bytes(outcome.report.result))
            items.append(self._view(task_id))
        return Several(items)

    async def tasks(self, wanted: TaskFilter) -> Page:
        place, limit = decode_cursor(wanted.cursor), page_size(wanted.limit)
        found = [
            (Place.of(row.task.submitted_at, task_id), task_id)
            for task_id, row in self._tables.tasks.items()
            if self._matches(row, wanted)
        ]
        page, cursor = _cut(found, place, limit)
        return Page([msgspec.structs.replace(self._view(task_id), result=None, spent=None) for task_id in page], cursor)

    async def attempts(self, task_id: str) -> list[AttemptView]:
        ended = task_id in self._tables.outcomes
        return [
            AttemptView(
                attempt=attempt,
                generation=generation,
                agent=row.agent,
                replica=row.replica,
                status=row.status,
                started_at=row.started_at,
                completed_at=row.completed_at,
                error_type=row.error and row.error.type,
                error_message=row.error and row.error.message,
            )
            for (generation, attempt, _), row in sorted(
                self._tables.attempts.get(task_id, {}).items(), key=lambda item: item[0]
            )
            if not (ended and row.status is TaskStatus.RUNNING)
        ]

    async def dead_letters(self, limit: int, cursor: str | None) -> Page:
        place = decode_cursor(cursor)
        found = [(Place.of(one.created_at, one.task_id), one) for one in self._tables.letters.values()]
        return Page(*_cut(found, place, page_size(limit)))

    async def letters(self, wanted: LetterFilter) -> Page:
        place = decode_cursor(wanted.cursor)
        found = [(Place.of(one.created_at, one.task_id), one) for one in self._letters(wanted)]
        return Page(*_cut(found, place, page_size(wanted.limit)))

    async def count_letters(self, wanted: LetterFilter) -> int:
        return len(self._letters(wanted))

    async def dead_letter(self, task_id: str) -> DeadLetter:
        letter = self._tables.letters.get(task_id)
        if letter is None:
            raise NotFound(f"task {task_id} is no dead letter")
        return letter

    async def counts(self) -> dict[str, int]:
        under_way = Counter(str(row.status) for row in self._tables.open.values())
        return under_way + Counter(str(row.report.status) for row in self._tables.outcomes.values())

    def _letters(self, wanted: LetterFilter) -> list[DeadLetter]:
        return [
            letter
            for letter in self._tables.letters.values()
            if (wanted.task_type is None or letter.task_type == wanted.task_type)
            and (wanted.agent is None or letter.agent == wanted.agent)
            and (wanted.reason is None or wanted.reason.lower() in letter.reason.lower())
            and (wanted.since is None or letter.created_at >= wanted.since)
            and (wanted.until is None or letter.created_at <= wanted.until)
            and not (wanted.waiting and letter.redriven_at is not None)
        ]

    def _matches(self, row: TaskRow, wanted: TaskFilter) -> bool:
        outcome = self._tables.outcomes.get(row.task.task_id)
        agent = (outcome and outcome.report.agent) or row.selected_agent
        return (
            (wanted.status is None or row.status is wanted.status)
            and (wanted.task_type is None or row.task.task_type == wanted.task_type)
            and (wanted.agent is None or agent == wanted.agent)
            and (wanted.since is None or row.task.submitted_at >= wanted.since)
        )

    def _view(self, task_id: str) -> TaskView:
        row, outcome = self._tables.tasks.get(task_id), self._tables.outcomes.get(task_id)
        report = outcome and outcome.report
        source = row.task if row is not None else report
        if source is None:
            raise NotFound(f"no task {task_id}")
        status = report.status if report is not None else row.status if row is not None else TaskStatus.QUEUED
        started = [one for one in (report and report.started_at, row and row.started_at) if one is not None]
        return TaskView(
            task_id=task_id,
            request_id=source.request_id,
            task_type=source.task_type,
            status=status,
            selected_agent=(report and report.agent) or (row and row.selected_agent),
            priority=source.priority,
            attempts=attempts_made(
                status,
                attempt=row and row.attempt,
                last=report and report.attempt,
                delivery=report and report.delivery,
            ),
            submitted_at=source.submitted_at,
            started_at=started[0] if started else None,
            completed_at=report and report.completed_at,
            execution_time_ms=report and report.execution_time_ms,
            result=None if report is None else msgspec.json.decode(report.result),
            error=report and report.error,
            trace_id=None if row is None else trace_id(row.task.traceparent),
            deadline=row and row.task.deadline,
            metadata={} if row is None else row.task.metadata,
            quality=report and report.quality,
            cost=report and report.cost,
            run_at=row and _later(row),
            terms=NO_TERMS if row is None else row.task.terms,
            spent=self._spent(task_id, row, report),
        )

    def _spent(self, task_id: str, row: TaskRow | None, report: Report | None) -> Spend | None:
        """What all attempts used up, for tasks with terms."""
        if row is None or row.task.terms == NO_TERMS:
            return None
        retried = (one for one in self._tables.attempts.get(task_id, {}).values() if one.status is TaskStatus.RETRYING)
        return sum((one.spent for one in retried), NOTHING if report is None else spend_of(report))


class MemoryDecisionLog:
    """See ports/ledger.py: DecisionLog."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def log(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            logged = msgspec.structs.replace(decision, task_id=None)
            self._tables.add_decision(decision.request_id, logged, None)

    async def decision(self, request_id: str) -> Decision:
        found = self._tables.decisions.get(request_id)
        if found is None:
            raise NotFound(f"no decision {request_id}")
        return found.decision

    async def decisions(self, wanted: DecisionFilter) -> Page:
        place, limit = decode_cursor(wanted.cursor), page_size(wanted.limit)
        if wanted.cursor is not None and not place.key.isdigit():
            raise InvalidRequest("cursor is not one of this list: start again without it", field="cursor")
        found = [
            # Numbers of one width sort as text.
            (Place.of(row.decision.created_at, f"{row.number:018}"), row.decision)
            for row in self._tables.decisions.values()
            if (wanted.task_type is None or row.decision.task_type == wanted.task_type)
            and (wanted.agent is None or row.decision.selected_agent == wanted.agent)
            and (wanted.since is None or row.decision.created_at >= wanted.since)
        ]
        return Page(*_cut(found, place, limit))

    async def history(self, since: float, limit: int) -> list[LoggedDecision]:
        dispatched = [
            row
            for row in self._tables.decisions.values()
            if row.generation is not None and row.decision.created_at >= since
        ]
        dispatched.sort(key=lambda row: (row.decision.created_at, row.number))
        return [self._logged(row) for row in dispatched[-limit:]]

    async def outlines(self, since: float, limit: int) -> list[LoggedDecision]:
        whole = await self.history(since, len(self._tables.decisions) + 1)
        return [_outlined(logged) for logged in whole[:limit]]

    async def outlines_of(self, request_ids: Sequence[str]) -> list[LoggedDecision]:
        found = (self._tables.decisions.get(request_id) for request_id in request_ids)
        return [_outlined(self._logged(row)) for row in found if row is not None and row.generation is not None]

    def _logged(self, row: DecisionRow) -> LoggedDecision:
        task_id = row.decision.task_id or ""
        outcome = self._tables.outcomes.get(task_id)
        report = outcome.report if outcome is not None and outcome.report.generation == row.generation else None
        failed = [
            (epoch, attempt.status)
            for epoch, attempt in self._tables.attempts.get(task_id, {}).items()
            if epoch[0] == row.generation and attempt.status is not TaskStatus.RUNNING
        ]
        return LoggedDecision(
            decision=row.decision,
            status=report.status if report is not None else max(failed)[1] if failed else None,
            quality=report and self._quality(report),
            cost=report and report.cost,
            execution_time_ms=report and report.execution_time_ms,
        )

    def _quality(self, report: Report) -> float | None:
        """What others say about the work counts before what its handler said."""
        epoch = (report.task_id, report.generation)
        judged = [one.quality for key, one in self._tables.feedback.items() if key[:2] == epoch]
        return sum(judged) / len(judged) if judged else report.quality


def _outlined(logged: LoggedDecision) -> LoggedDecision:
    return msgspec.structs.replace(logged, decision=_outline(logged.decision))


def _outline(decision: Decision) -> Decision:
    return msgspec.structs.replace(
        decision,
        reasoning="",
        candidates=(),
        rejected=(),
        context=None,
        eligible=decision.agents,
        terms={},
        fallback="",
    )


def _later(row: TaskRow) -> float | None:
    """The moment a planned task was to wait for."""
    run_at = row.task.run_at
    return run_at if run_at is not None and run_at > row.task.submitted_at else None


def _cut(found: list[tuple[Place, Item]], after: Place, limit: int) -> tuple[list[Item], str | None]:
    """The newest `limit` items past a place, and where the next page begins."""
    after_key = (after.micros, after.key)
    rest = [(place, item) for place, item in found if (place.micros, place.key) < after_key]
    rest.sort(key=lambda pair: (pair[0].micros, pair[0].key), reverse=True)
    page = rest[:limit]
    return [item for _, item in page], encode_cursor(page[-1][0]) if len(rest) > limit else None
