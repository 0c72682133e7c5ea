"""Tenants in memory."""

from __future__ import annotations

import math

from agent_engines.domain.budgets import HOUR, NOTHING, Account, Spend, TenantLimits
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import TaskStatus

from .ledger_tables import Tables


class MemoryTenants:
    """See ports/tenants.py: TenantStore."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def put(self, limits: TenantLimits, now: float) -> None:
        self._tables.limits[limits.name] = limits

    async def remove(self, name: str) -> bool:
        return self._tables.limits.pop(name, None) is not None

    async def accounts(self, now: float) -> list[Account]:
        return [
            Account(limits=limits, spent=self._spent(name, limits.period(now)[0]))
            for name, limits in sorted(self._tables.limits.items())
        ]

    async def spent(self, name: str, since: float) -> Spend:
        return self._spent(name, since)

    async def task_spent(self, task_id: str) -> Spend:
        attempts = self._tables.attempts.get(task_id, {})
        begun = max((epoch[0] for epoch, row in attempts.items() if row.status.terminal), default=0)
        rows = [row for epoch, row in attempts.items() if epoch[0] > begun and row.status is TaskStatus.RETRYING]
        return sum((row.spent for row in rows), NOTHING)

    def _spent(self, name: str, since: float) -> Spend:
        first = math.floor(since / HOUR) * HOUR
        return sum(
            (spend for (tenant, hour), spend in self._tables.spend.items() if tenant == name and hour >= first), NOTHING
        )


def note_spending(tables: Tables, report: Report) -> None:
    """Add what a kept report says its attempt used up to its tenant's account."""
    if report.kind not in (ReportKind.FINAL, ReportKind.RETRY) or (report.cost is None and report.tokens is None):
        return
    at = tables.clock.now() if report.completed_at is None else report.completed_at
    key = (report.tenant, math.floor(at / HOUR) * HOUR)
    tables.spend[key] = tables.spend.get(key, NOTHING) + spend_of(report)


def spend_of(report: Report) -> Spend:
    return Spend(cost=report.cost or 0.0, tokens=report.tokens or 0)
