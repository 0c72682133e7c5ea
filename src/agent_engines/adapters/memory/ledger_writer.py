"""Writing a task's life in memory, by the rules of ports/ledger.py."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import Conflict, NotFound
from agent_engines.domain.legs import Word, word
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import Task, TaskStatus
from agent_engines.ports.ledger import Entry, Hedge, Known, StoredTask, TaskKind, Verdict

from . import ledger_legs
from .feedback import record_feedback
from .ledger_tables import AttemptRow, Epoch, Tables, TaskRow
from .tenants import note_spending, spend_of

TOUCH_SECONDS = 1e-6
_WAITING = frozenset({TaskStatus.QUEUED, TaskStatus.RUNNING})


class MemoryTaskLedger:
    """See ports/ledger.py: TaskLedger."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def accept(self, entries: Sequence[Entry]) -> list[Known]:
        known = {entry.task.task_id: None for entry in entries if not self._accept(entry)}
        return [self._known(task_id) for task_id in known]

    async def plan(self, tasks: Sequence[Task]) -> list[Known]:
        known: dict[str, None] = {}
        for task in tasks:
            if task.task_id in self._tables.tasks:
                known[task.task_id] = None
                continue
            row = TaskRow(task, TaskStatus.QUEUED, None, task.run_at or task.submitted_at, next_run_at=task.run_at)
            self._tables.tasks[task.task_id] = self._tables.open[task.task_id] = row
        return [self._known(task_id) for task_id in known]

    async def renew(self, task_ids: Sequence[str], now: float) -> None:
        for task_id in task_ids:
            row = self._tables.open.get(task_id)
            if row is not None:
                row.updated_at = max(row.updated_at, now)

    async def known(self, task_ids: Collection[str]) -> list[Known]:
        return [self._known(task_id) for task_id in task_ids if task_id in self._tables.tasks]

    async def withdraw(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            row = self._tables.open.get(task_id)
            if row is None or row.updated_at != row.task.submitted_at:
                continue
            del self._tables.open[task_id]
            del self._tables.tasks[task_id]
            self._tables.attempts.pop(task_id, None)
            self._tables.letters.pop(task_id, None)
            for name in _decision_names(row):
                found = self._tables.decisions.get(name)
                if found is not None and found.decision.task_id == task_id:
                    del self._tables.decisions[name]

    async def record(self, reports: Sequence[Report]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        for report in reports:
            verdicts.append(self._record(report))
            if verdicts[-1].spent:
                note_spending(self._tables, report)
        return verdicts

    async def due_retries(self, now: float) -> int:
        return sum(_due_retry(row, now) for row in self._tables.open.values())

    async def claim_due(self, now: float, limit: int, *, retries: int | None = None) -> list[StoredTask]:
        due = [row for row in self._tables.open.values() if row.next_run_at is not None and row.next_run_at <= now]
        # Retries first: the work on them has begun.
        due.sort(key=lambda row: (row.status is not TaskStatus.RETRYING, row.next_run_at or 0.0))
        first = [row for row in due if row.status is TaskStatus.RETRYING][:retries]
        due = first + [row for row in due if row.status is not TaskStatus.RETRYING]
        return [stored for row in due[:limit] if (stored := self._claim_due(row, now)) is not None]

    async def hand_back(self, tasks: Sequence[StoredTask], now: float) -> None:
        for stored in tasks:
            row = self._tables.open.get(stored.task.task_id)
            if row is None or row.status is not TaskStatus.QUEUED or row.generation != stored.generation:
                continue
            if row.next_run_at is None:
                row.next_run_at, row.updated_at = now, max(row.updated_at, now)

    async def stranded_kinds(self, older_than: float, *, agents: Sequence[str] | None = None) -> list[TaskKind]:
        kinds: list[TaskKind] = []
        for row in self._tables.open.values():
            if _stranded(row, older_than, agents) and (kind := _kind(row)) not in kinds:
                kinds.append(kind)
        return kinds

    async def claim_stranded(
        self,
        older_than: float,
        limit: int,
        *,
        kinds: Sequence[TaskKind] | None = None,
        agents: Sequence[str] | None = None,
    ) -> list[StoredTask]:
        now = max(self._tables.clock.now(), older_than)
        rows = [
            row
            for row in self._tables.open.values()
            if _stranded(row, older_than, agents) and (kinds is None or _kind(row) in kinds or _over(row, now))
        ]
        rows.sort(key=lambda row: row.updated_at)
        return [stored for row in rows[:limit] if (stored := self._claim(row, now, retry=False)) is not None]

    async def redispatched(self, entries: Sequence[tuple[str, Decision]]) -> None:
        for task_id, decision in entries:
            row = self._tables.tasks.get(task_id)
            if row is None:
                continue
            if task_id in self._tables.open:
                row.selected_agent = decision.selected_agent
                row.updated_at = decision.created_at
            name = decision.request_id
            if name == row.task.request_id:
                if row.generation > 1:
                    name = f"{name}/{row.generation}"
                elif name in self._tables.decisions and self._tables.decisions[name].decision.task_id != task_id:
                    name = f"{name}/{task_id}"
            named = msgspec.structs.replace(decision, request_id=name, task_id=task_id)
            self._tables.add_decision(name, named, row.generation)

    async def hedge(self, hedges: Sequence[Hedge]) -> list[StoredTask]:
        return [stored for wanted in hedges if (stored := ledger_legs.hedge(self._tables, wanted)) is not None]

    async def legs(self, task_id: str) -> list[str]:
        row = self._tables.tasks.get(task_id)
        return [] if row is None or row.legs is None else list(row.legs.values())

    async def cancel(self, task_id: str, now: float) -> TaskStatus:
        row = self._tables.open.get(task_id)
        if row is None:
            status = self._ended_status(task_id)
            raise Conflict(f"task {task_id} ended as {status}: there is nothing to cancel")
        row.updated_at = now
        row.cancel_requested = True
        if row.status is not TaskStatus.RUNNING:
            self._cancel(row, now)
        return row.status

    async def reopen(self, task_id: str, now: float) -> StoredTask:
        tables = self._tables
        row = tables.tasks.get(task_id)
        if row is None:
            self._ended_status(task_id)
            raise NotFound(f"what task {task_id} was to do is not known any more")
        if task_id in tables.open or row.status is TaskStatus.SUCCESS:
            raise Conflict(f"task {task_id} is {row.status}: only a task that ended without success runs again")
        past = tables.outcomes.pop(task_id).report
        attempt = AttemptRow(past.agent or "", past.replica, past.status, past.started_at, past.completed_at)
        attempt.error = past.error
        tables.attempts.setdefault(task_id, {})[_epoch(past)] = attempt
        if past.status is TaskStatus.DEAD_LETTER:
            tables.letters[task_id] = msgspec.structs.replace(tables.letters[task_id], redriven_at=now)
        if row.task.deadline is not None and row.task.deadline <= now:
            row.task = msgspec.structs.replace(row.task, deadline=None)
        row.status, row.attempt, row.started_at, row.cancel_requested = TaskStatus.QUEUED, 1, None, False
        row.generation += 1
        row.legs = None
        row.updated_at = now
        tables.open[task_id] = row
        return row.stored()

    def _accept(self, entry: Entry) -> bool:
        tables, task = self._tables, entry.task
        if task.task_id in tables.tasks:
            return False
        row = TaskRow(task, TaskStatus.QUEUED, entry.decision.selected_agent, task.submitted_at)
        tables.tasks[task.task_id] = row
        outcome = tables.outcomes.get(task.task_id)
        early = {
            epoch: attempt
            for epoch, attempt in tables.attempts.get(task.task_id, {}).items()
            if epoch[0] == 1 and not attempt.status.terminal
        }
        if early:
            attempt = early[max(early)]
            row.status, row.next_run_at = attempt.status, attempt.retry_at
            row.started_at = attempt.started_at
        if outcome is None:
            tables.open[task.task_id] = row
        else:
            row.status, row.next_run_at = outcome.report.status, None
        decision = msgspec.structs.replace(entry.decision, task_id=task.task_id)
        if not tables.add_decision(decision.request_id, decision, 1):
            name = f"{decision.request_id}/{task.task_id}"
            tables.add_decision(name, msgspec.structs.replace(decision, request_id=name), 1)
        return True

    def _known(self, task_id: str) -> Known:
        row = self._tables.tasks[task_id]
        if row.updated_at == row.task.submitted_at:
            # Somebody else is told about this task: from now on it cannot be withdrawn.
            row.updated_at += TOUCH_SECONDS
        found = [self._tables.decisions.get(name) for name in _decision_names(row)]
        own = [one.decision for one in found if one is not None and one.decision.task_id == task_id]
        return Known(task_id, row.task.body_hash, row.status, own[0] if own else None, row.task.max_attempts)

    def _ended_status(self, task_id: str) -> TaskStatus:
        """Raises NotFound."""
        outcome = self._tables.outcomes.get(task_id)
        if outcome is None:
            raise NotFound(f"no task {task_id}")
        return outcome.report.status

    def _record(self, report: Report) -> Verdict:
        match report.kind:
            case ReportKind.FINAL:
                return self._record_final(report)
            case ReportKind.RETRY:
                return self._record_retry(report)
            case ReportKind.STARTED:
                return self._record_start(report)
            case ReportKind.FEEDBACK:
                return record_feedback(self._tables, report)

    def _record_final(self, report: Report) -> Verdict:
        if not report.status.terminal:
            return Verdict.STALE
        outcome = self._tables.outcomes.get(report.task_id)
        if outcome is not None:
            ledger_legs.lose(self._tables, report)
            same = outcome.report.status is report.status and _epoch(outcome.report) == _epoch(report)
            return Verdict.DUPLICATE if same else Verdict.STALE
        row = self._tables.tasks.get(report.task_id)
        if row is None:
            self._tables.end(report)
            return Verdict.RECORDED
        wanted = row.cancel_requested and report.status is TaskStatus.CANCELLED
        said = word(row.current, report.generation)
        if report.status is not TaskStatus.SUCCESS and not wanted:
            if said is Word.STALE:
                return Verdict.STALE
            if said is Word.FALLS:
                ledger_legs.fall(self._tables, row, report)
                return Verdict.FALLEN
        self._tables.end(report)
        return Verdict.LATE if report.status is TaskStatus.SUCCESS and said is Word.STALE else Verdict.RECORDED

    def _record_retry(self, report: Report) -> Verdict:
        known = self._tables.attempts.get(report.task_id, {}).get(_epoch(report))
        row = self._tables.open.get(report.task_id)
        due = next((at for at in (report.retry_at, report.completed_at) if at is not None), 0.0)
        said = Word.STALE if row is None or row.status not in _WAITING else word(row.current, report.generation)
        if row is not None and said is Word.FALLS:
            ledger_legs.fall(self._tables, row, report)
            return Verdict.FALLEN
        if row is not None and said is Word.DECIDES:
            row.status, row.legs = TaskStatus.RETRYING, None
            row.next_run_at = 0.0 if row.cancel_requested else due
            row.updated_at = self._tables.clock.now() if report.completed_at is None else report.completed_at
            self._take_place(row, report)
        elif known is not None and known.status is not TaskStatus.RUNNING:
            return Verdict.DUPLICATE
        elif not self._unheard_of(report.task_id):
            return Verdict.STALE
        attempt = AttemptRow(
            report.agent or "", report.replica, TaskStatus.RETRYING, report.started_at, report.completed_at, due
        )
        attempt.error, attempt.spent = report.error, spend_of(report)
        self._tables.attempts.setdefault(report.task_id, {})[_epoch(report)] = attempt
        return Verdict.RECORDED

    def _record_start(self, report: Report) -> Verdict:
        attempts = self._tables.attempts.get(report.task_id, {})
        if _epoch(report) in attempts:
            return Verdict.DUPLICATE
        row = self._tables.open.get(report.task_id)
        if row is not None and report.generation in row.current and row.status in _WAITING:
            row.status = TaskStatus.RUNNING
            row.updated_at = self._tables.clock.now() if report.started_at is None else report.started_at
            self._take_place(row, report)
        elif not self._unheard_of(report.task_id):
            return Verdict.STALE
        attempt = AttemptRow(report.agent or "", report.replica, TaskStatus.RUNNING, report.started_at)
        self._tables.attempts.setdefault(report.task_id, {})[_epoch(report)] = attempt
        return Verdict.RECORDED

    def _unheard_of(self, task_id: str) -> bool:
        """Neither accepted (yet) nor ended: a report may overtake the acceptance it belongs to."""
        return task_id not in self._tables.tasks and task_id not in self._tables.outcomes

    def _take_place(self, row: TaskRow, report: Report) -> None:
        if row.legs is None:
            row.selected_agent = report.agent or row.selected_agent
        row.started_at = row.started_at if report.started_at is None else report.started_at

    def _claim_due(self, row: TaskRow, now: float) -> StoredTask | None:
        if row.status is TaskStatus.RETRYING:
            return self._claim(row, now, retry=True)
        # A planned task, or one that was handed back: nobody has sent this generation.
        row.updated_at, row.next_run_at = now, None
        return row.stored()

    def _claim(self, row: TaskRow, now: float, *, retry: bool) -> StoredTask | None:
        row.updated_at = now
        if row.cancel_requested:
            self._cancel(row, now)
            return None
        row.generation += 1
        row.legs = None
        row.attempt += 1 if retry else 0
        row.status, row.next_run_at = TaskStatus.QUEUED, None
        return row.stored()

    def _cancel(self, row: TaskRow, now: float) -> None:
        task = row.task
        self._tables.end(
            Report(
                kind=ReportKind.FINAL,
                task_id=task.task_id,
                request_id=task.request_id,
                task_type=task.task_type,
                agent=None,
                generation=row.generation,
                attempt=row.attempt,
                # Delivery 0 says that the attempt was never begun.
                delivery=0 if row.status is TaskStatus.QUEUED else 1,
                status=TaskStatus.CANCELLED,
                started_at=row.started_at,
                completed_at=now,
                priority=task.priority,
                submitted_at=task.submitted_at,
            )
        )


def _decision_names(row: TaskRow) -> tuple[str, str]:
    return row.task.request_id, f"{row.task.request_id}/{row.task.task_id}"


def _due_retry(row: TaskRow, now: float) -> bool:
    return row.status is TaskStatus.RETRYING and row.next_run_at is not None and row.next_run_at <= now


def _stranded(row: TaskRow, older_than: float, agents: Sequence[str] | None) -> bool:
    if row.status not in _WAITING or row.next_run_at is not None:
        return False
    if agents is not None:
        return row.updated_at < older_than and row.selected_agent in agents
    patience = (row.task.timeout_seconds or 0.0) if row.status is TaskStatus.RUNNING else 0.0
    return row.updated_at < older_than - patience


def _kind(row: TaskRow) -> TaskKind:
    return TaskKind(row.task.task_type, row.task.requirements)


def _over(row: TaskRow, now: float) -> bool:
    """Whether it only has to be ended."""
    return row.cancel_requested or (row.task.deadline is not None and row.task.deadline <= now)


def _epoch(report: Report) -> Epoch:
    return report.generation, report.attempt, report.delivery
