"""Budgets: what a task and its tenant may still spend, and whom that pays for.

A price is what an agent declares for one task (`cost_per_task`, `tokens_per_task`); what was spent is what its attempts
reported, or the declared price where they reported nothing. Nothing is sent that does not fit: a call that was made cannot
be taken back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from .errors import BudgetSpent, BudgetTooSmall
from .terms import Budget

HOUR = 3600
"""Spending is added up by the hour; periods are whole hours."""
LONGEST_PERIOD = 31 * 24 * HOUR
DAY = 24 * HOUR


class Spend(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Money in the fleet's currency, and tokens."""

    cost: float = 0.0
    tokens: int = 0

    def __add__(self, other: Spend) -> Spend:
        return Spend(cost=self.cost + other.cost, tokens=self.tokens + other.tokens)


NOTHING = Spend()


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What may still be spent; infinite where there is no bound."""

    cost: float = math.inf
    tokens: float = math.inf

    def pays(self, price: Spend) -> bool:
        return price.cost <= self.cost and price.tokens <= self.tokens


UNLIMITED = Allowance()


def left_of(budget: Budget | None, spent: Spend) -> Budget | None:
    """The same budget after its first attempts. What is used up is 0, which only free agents fit."""
    if budget is None:
        return None
    return Budget(
        cost=None if budget.cost is None else max(0.0, budget.cost - spent.cost),
        tokens=None if budget.tokens is None else max(0, budget.tokens - spent.tokens),
        attempts=budget.attempts,
    )


def allowance_of(budget: Budget | None) -> Allowance:
    if budget is None:
        return UNLIMITED
    return Allowance(
        cost=math.inf if budget.cost is None else budget.cost,
        tokens=math.inf if budget.tokens is None else budget.tokens,
    )


def capped_attempts(attempts: int, budget: Budget | None) -> int:
    """Attempts a task may take: its own number, or the budget's when that is smaller."""
    return attempts if budget is None or budget.attempts is None else min(attempts, budget.attempts)


def too_dear(price: Spend, allowance: Allowance) -> str:
    """Why a price does not fit; empty when it does."""
    if price.cost > allowance.cost:
        return f"costs {price.cost:g}, {allowance.cost:g} is left"
    if price.tokens > allowance.tokens:
        return f"takes {price.tokens} tokens, {allowance.tokens:g} are left"
    return ""


def budget_too_small(prices: Sequence[tuple[str, Spend]], allowance: Allowance) -> BudgetTooSmall:
    """The refusal of a task whose own budget pays for none of these agents."""
    field, name, price = _cheapest(prices, allowance)
    left = allowance.cost if field == "cost" else allowance.tokens
    return BudgetTooSmall(
        f"budget.{field} is {left:g} and pays for no agent: the cheapest, {name}, is expected to take {price:g}",
        field=f"budget.{field}",
    )


def budget_spent(tenant: str, prices: Sequence[tuple[str, Spend]], allowance: Allowance, wait: float) -> BudgetSpent:
    """The refusal of a task whose tenant has spent what it may. `wait`: seconds until its next period."""
    field, name, price = _cheapest(prices, allowance)
    left = allowance.cost if field == "cost" else allowance.tokens
    return BudgetSpent(
        f"the {field} budget of tenant {tenant!r} has {left:g} left and pays for no agent: "
        f"the cheapest, {name}, is expected to take {price:g}; a new period begins in {wait:.0f} seconds",
        retry_after=wait,
    )


def _cheapest(prices: Sequence[tuple[str, Spend]], allowance: Allowance) -> tuple[str, str, float]:
    """Which bound nobody meets, and who comes nearest to it. A bound that some meet is named when another one is met by none of them."""
    name, price = min(prices, key=lambda one: (one[1].cost, one[1].tokens))
    if price.cost > allowance.cost:
        return "cost", name, price.cost
    name, price = min(prices, key=lambda one: (one[1].tokens, one[1].cost))
    return "tokens", name, float(price.tokens)


class TenantLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant may spend in each period, and its share when agents are busy. Periods begin at whole multiples since 1970."""

    name: str
    cost: float | None = None
    tokens: int | None = None
    period_seconds: float = DAY
    weight: float = 1.0

    def period(self, now: float) -> tuple[float, float]:
        """Beginning and end of the period that `now` (epoch seconds) lies in."""
        begin = math.floor(now / self.period_seconds) * self.period_seconds
        return begin, begin + self.period_seconds


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's limits and what it has spent in the present period, as the ledger knows it."""

    limits: TenantLimits
    spent: Spend = NOTHING

    def allowance(self, under_way: Spend = NOTHING) -> Allowance:
        """What is left; `under_way`: expected for what was sent and has not ended."""
        limits = self.limits
        return Allowance(
            cost=math.inf if limits.cost is None else max(0.0, limits.cost - self.spent.cost - under_way.cost),
            tokens=math.inf
            if limits.tokens is None
            else max(0.0, limits.tokens - self.spent.tokens - under_way.tokens),
        )

    @property
    def bounded(self) -> bool:
        return self.limits.cost is not None or self.limits.tokens is not None


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How a tenant's spending stands to its budget: what a pacer sets the price of cost by.

    `spent` and `budget`: of the present period, currency; `elapsed`: the part of the period that is over, 0..1.
    """

    tenant: str
    spent: float
    budget: float
    elapsed: float


def pace_of(account: Account, now: float) -> Pace | None:
    """None when there is no cost to pace."""
    limits = account.limits
    if limits.cost is None:
        return None
    begin, end = limits.period(now)
    elapsed = (now - begin) / (end - begin)
    return Pace(tenant=limits.name, spent=account.spent.cost, budget=limits.cost, elapsed=elapsed)
