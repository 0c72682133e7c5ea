"""Hedged tasks in the in-memory ledger: the second leg, the leg that falls, the leg that loses."""

from __future__ import annotations

from agent_engines.domain.budgets import NOTHING
from agent_engines.domain.legs import FIRST, LOST
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import TaskError, TaskStatus
from agent_engines.ports.ledger import Hedge, StoredTask

from .ledger_tables import AttemptRow, Epoch, Tables, TaskRow
from .tenants import spend_of

UNDER_WAY = frozenset({TaskStatus.QUEUED, TaskStatus.RUNNING})
SECOND = FIRST + 1


def hedge(tables: Tables, wanted: Hedge) -> StoredTask | None:
    """The task with its second leg; None when it is too late for one."""
    decision = wanted.decision
    row = tables.open.get(decision.task_id or "")
    if row is None or row.generation != FIRST or row.legs is not None or row.cancel_requested:
        return None
    if row.status not in UNDER_WAY or row.next_run_at is not None:
        return None
    row.generation = SECOND
    row.legs = {FIRST: wanted.first, SECOND: decision.selected_agent}
    row.selected_agent = decision.selected_agent
    row.updated_at = max(row.updated_at, decision.created_at)
    tables.add_decision(decision.request_id, decision, SECOND)
    return row.stored()


def fall(tables: Tables, row: TaskRow, report: Report) -> None:
    """One leg has failed: it is noted as an attempt, and the other one goes on."""
    assert row.legs is not None
    del row.legs[report.generation]
    row.selected_agent = next(iter(row.legs.values()))
    row.updated_at = tables.clock.now() if report.completed_at is None else report.completed_at
    _note(tables, report, TaskStatus.RETRYING, report.error)


def lose(tables: Tables, report: Report) -> None:
    """A leg that was cancelled because the other one had ended the task says so."""
    row, outcome = tables.tasks.get(report.task_id), tables.outcomes.get(report.task_id)
    if row is None or outcome is None or row.legs is None or row.cancel_requested:
        return
    raced = report.generation in row.legs and outcome.report.generation in row.legs
    if report.status is TaskStatus.CANCELLED and raced and outcome.report.generation != report.generation:
        known = tables.attempts.get(report.task_id, {}).get(_epoch(report))
        if known is None or known.status is TaskStatus.RUNNING:
            winner = row.legs[outcome.report.generation]
            _note(tables, report, TaskStatus.CANCELLED, TaskError(LOST, f"{winner} was faster"))


def _note(tables: Tables, report: Report, status: TaskStatus, error: TaskError | None) -> None:
    attempt = AttemptRow(report.agent or "", report.replica, status, report.started_at, report.completed_at)
    attempt.error = error
    attempt.spent = spend_of(report) if report.kind is not ReportKind.STARTED else NOTHING
    tables.attempts.setdefault(report.task_id, {})[_epoch(report)] = attempt


def _epoch(report: Report) -> Epoch:
    return report.generation, report.attempt, report.delivery
