"""Tenants on PostgreSQL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agent_engines.domain.budgets import HOUR, NOTHING, Account, Spend, TenantLimits
from agent_engines.domain.messages import Report, ReportKind

from .pool import Pool, Row

SPENDING = frozenset({ReportKind.FINAL, ReportKind.RETRY})


class PostgresTenants:
    """See ports/tenants.py: TenantStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def put(self, limits: TenantLimits, now: float) -> None:
        await self._pool.fetch(
            "tenant_put", limits.name, limits.cost, limits.tokens, limits.period_seconds, limits.weight, now
        )

    async def remove(self, name: str) -> bool:
        return bool(await self._pool.fetch("tenant_remove", name))

    async def accounts(self, now: float) -> list[Account]:
        return [Account(limits=_limits(row), spent=_spent(row)) for row in await self._pool.fetch("tenants", now)]

    async def spent(self, name: str, since: float) -> Spend:
        return _spent((await self._pool.fetch("tenant_spent", name, math.floor(since / HOUR) * HOUR))[0])

    async def task_spent(self, task_id: str) -> Spend:
        return _spent((await self._pool.fetch("task_spent", task_id))[0])


def spending_columns(reports: Sequence[Report]) -> list[list[Any]]:
    """Arguments of `spending_add`, one row for each tenant and hour in a fixed order; [] when nothing was spent."""
    sums: dict[tuple[str, float], Spend] = {}
    for report in reports:
        if report.kind not in SPENDING or (report.cost is None and report.tokens is None):
            continue
        # What has no end of its own is spent now; the hour 0 stands for that.
        hour = 0.0 if report.completed_at is None else math.floor(report.completed_at / HOUR) * HOUR
        key = (report.tenant, hour)
        sums[key] = sums.get(key, NOTHING) + Spend(cost=report.cost or 0.0, tokens=report.tokens or 0)
    if not sums:
        return []
    # The same order everywhere, so that two recorders wait for each other instead of dead-locking.
    rows = sorted(sums.items())
    return [
        [tenant for (tenant, _), _ in rows],
        [hour for (_, hour), _ in rows],
        [spend.cost for _, spend in rows],
        [spend.tokens for _, spend in rows],
    ]


def _limits(row: Row) -> TenantLimits:
    return TenantLimits(
        name=row["name"],
        cost=row["cost"],
        tokens=row["tokens"],
        period_seconds=row["period_seconds"],
        weight=row["weight"],
    )


def _spent(row: Row) -> Spend:
    return Spend(cost=row["spent_cost"], tokens=row["spent_tokens"])
