"""The tenants' books: limits and spending from the ledger, and what this router has sent and not heard of yet.

Asked for every task of a tenant with limits, so the answer is at hand: the ledger is read every two seconds. With n
routers a budget may be passed by what the others send in between; that is the price of not asking on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent_engines.domain.budgets import (
    HOUR,
    LONGEST_PERIOD,
    NOTHING,
    UNLIMITED,
    Account,
    Allowance,
    Pace,
    Spend,
    TenantLimits,
    pace_of,
)
from agent_engines.domain.errors import InvalidRequest, NotFound
from agent_engines.domain.messages import ReportKind
from agent_engines.domain.terms import MOST_COST, MOST_TOKENS, check_tenant
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Telemetry
from agent_engines.ports.tenants import TenantStore

from .background import Background
from .outcomes import Outcome

REFRESH_SECONDS = 2.0
LONGEST_UNDER_WAY = 600.0
"""What was sent and never heard of again stops counting after so long: its news was lost."""
LIGHTEST, HEAVIEST = 0.01, 100.0

Pricer = Callable[[Pace], float | None]
"""The price of one unit of cost for a tenant at this pace; None: the policy's own price."""


class TenantBooks:
    """Implements ports.tenants.TenantService; from `start` to `stop` it follows the ledger."""

    def __init__(self, store: TenantStore, *, clock: Clock, telemetry: Telemetry, pricer: Pricer | None = None) -> None:
        self._store = store
        self._clock = clock
        self._pricer = pricer
        self._background = Background(telemetry.log("intelligence"))
        self._accounts: Mapping[str, Account] = {}
        self._prices: dict[str, float | None] = {}
        self._under_way: dict[str, tuple[str, Spend, float]] = {}
        self._sums: dict[str, Spend] = {}

    async def start(self) -> None:
        self._background.keep("tenants", self._follow)

    async def stop(self) -> None:
        """May be called twice."""
        await self._background.stop()

    def allowance(self, tenant: str) -> Allowance:
        """What it may still spend now."""
        account = self._accounts.get(tenant)
        if account is None or not account.bounded:
            return UNLIMITED
        return account.allowance(self._sums.get(tenant, NOTHING))

    def wait(self, tenant: str) -> float:
        """Seconds until its next period."""
        account, now = self._accounts.get(tenant), self._clock.now()
        return 1.0 if account is None else max(1.0, account.limits.period(now)[1] - now)

    def weight(self, tenant: str) -> float:
        account = self._accounts.get(tenant)
        return 1.0 if account is None else account.limits.weight

    def price(self, tenant: str) -> float | None:
        """The price of one unit of cost; None: the policy's own."""
        return self._prices.get(tenant)

    def holds(self, task_id: str) -> bool:
        """Whether a dispatch of this task counts as under way."""
        return task_id in self._under_way

    def sent(self, tenant: str, task_id: str, price: Spend) -> None:
        """Count a dispatch until its outcome is known."""
        account = self._accounts.get(tenant)
        if account is None or not account.bounded or price == NOTHING:
            return
        self.settled(task_id)
        self._under_way[task_id] = (tenant, price, self._clock.monotonic())
        self._sums[tenant] = self._sums.get(tenant, NOTHING) + price

    def settled(self, task_id: str) -> None:
        """Its spending is in the ledger, or it was not sent after all."""
        found = self._under_way.pop(task_id, None)
        if found is not None:
            tenant, price, _ = found
            self._sums[tenant] = self._sums[tenant] + Spend(cost=-price.cost, tokens=-price.tokens)

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Take in what the recorder committed: the ledger tells of it at its next reading."""
        if not self._under_way:
            return
        for outcome in outcomes:
            if outcome.kind in (ReportKind.FINAL, ReportKind.RETRY) and outcome.task_id in self._under_way:
                tenant = self._under_way[outcome.task_id][0]
                self.settled(outcome.task_id)
                self._add(tenant, Spend(cost=outcome.cost or 0.0, tokens=outcome.tokens or 0))

    async def refresh(self) -> None:
        """Read the ledger now. Raises Unavailable."""
        now = self._clock.now()
        accounts = await self._store.accounts(now)
        self._accounts = {account.limits.name: account for account in accounts}
        if self._pricer is not None:
            paces = [pace for account in accounts if (pace := pace_of(account, now)) is not None]
            self._prices = {pace.tenant: self._pricer(pace) for pace in paces}
        old = self._clock.monotonic() - LONGEST_UNDER_WAY
        for task_id in [task_id for task_id, (_, _, at) in self._under_way.items() if at < old]:
            self.settled(task_id)

    async def accounts(self) -> list[Account]:
        return await self._store.accounts(self._clock.now())

    async def account(self, name: str) -> Account:
        check_tenant(name)
        now = self._clock.now()
        for account in await self._store.accounts(now):
            if account.limits.name == name:
                return account
        limits = TenantLimits(name=name)
        return Account(limits=limits, spent=await self._store.spent(name, limits.period(now)[0]))

    async def put(self, limits: TenantLimits) -> Account:
        check_limits(limits)
        await self._store.put(limits, self._clock.now())
        await self.refresh()
        return await self.account(limits.name)

    async def remove(self, name: str) -> None:
        check_tenant(name)
        if not await self._store.remove(name):
            raise NotFound(f"tenant {name!r} has no limits")
        await self.refresh()

    def _add(self, tenant: str, spend: Spend) -> None:
        account = self._accounts.get(tenant)
        if account is not None:
            added = Account(limits=account.limits, spent=account.spent + spend)
            self._accounts = {**self._accounts, tenant: added}

    async def _follow(self) -> None:
        while True:
            await self.refresh()
            await self._clock.sleep(REFRESH_SECONDS)


def check_limits(limits: TenantLimits) -> None:
    """Raises InvalidRequest, the field named."""
    check_tenant(limits.name, "name")
    if limits.cost is not None and not _within(limits.cost, 0.0, MOST_COST):
        raise InvalidRequest(f"cost must be from 0 to {MOST_COST:g}", field="cost")
    if limits.tokens is not None and not _within(limits.tokens, 0, MOST_TOKENS):
        raise InvalidRequest(f"tokens must be from 0 to {MOST_TOKENS}", field="tokens")
    hours = limits.period_seconds / HOUR if _within(limits.period_seconds, HOUR, LONGEST_PERIOD) else 0.5
    if hours != int(hours):
        raise InvalidRequest(
            "period_seconds must be whole hours, from 3600 to 2678400 (31 days)", field="period_seconds"
        )
    if not _within(limits.weight, LIGHTEST, HEAVIEST):
        raise InvalidRequest(f"weight must be from {LIGHTEST:g} to {HEAVIEST:g}", field="weight")


def _within(value: Any, low: float, high: float) -> bool:
    return not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
