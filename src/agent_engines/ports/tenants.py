"""Tenants: what each may spend and has spent, and what the front doors may do with that."""

from __future__ import annotations

from typing import Protocol

from agent_engines.domain.budgets import Account, Spend, TenantLimits


class TenantStore(Protocol):
    """Part of the ledger. Every call may be repeated and raises Unavailable past its deadline.

    Spending is added by `TaskLedger.record`, in the transaction that keeps the report, so no copy is counted twice.
    """

    async def put(self, limits: TenantLimits, now: float) -> None:
        """Make or replace a tenant's limits."""
        ...

    async def remove(self, name: str) -> bool:
        """Forget its limits; what it spent stays. False when it had none."""
        ...

    async def accounts(self, now: float) -> list[Account]:
        """All tenants with limits, by name, with what they spent in the period of `now`."""
        ...

    async def spent(self, name: str, since: float) -> Spend:
        """What a tenant spent since the hour of `since`."""
        ...

    async def task_spent(self, task_id: str) -> Spend:
        """What the attempts of a task used up so far, since it was driven again if it was."""
        ...


class TenantService(Protocol):
    """What the front doors may do. Every method raises Unavailable."""

    async def accounts(self) -> list[Account]: ...

    async def account(self, name: str) -> Account:
        """A tenant without limits has an account all the same. Raises InvalidRequest."""
        ...

    async def put(self, limits: TenantLimits) -> Account:
        """Raises InvalidRequest (the field named)."""
        ...

    async def remove(self, name: str) -> None:
        """Raises NotFound."""
        ...
