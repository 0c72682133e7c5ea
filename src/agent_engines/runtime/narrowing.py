"""Narrowing: of those who may do a task, whom budgets, open breakers, affinity and trials leave, in this order."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from agent_engines.domain.affinity import home, ranked, unfit
from agent_engines.domain.budgets import UNLIMITED, Allowance, allowance_of, budget_spent, budget_too_small, too_dear
from agent_engines.domain.decisions import Rejection
from agent_engines.domain.errors import NoEligibleAgent
from agent_engines.domain.terms import Affinity, AffinityMode, Terms

from .field import Field
from .fleet import Roster
from .fleet_member import Member
from .strategy import Moment
from .tenants import TenantBooks

MAX_EJECTED = 0.25
"""Breakers take at most this share of those who may do a task out of it, and at least one (ADR 0012)."""


class Narrowed(msgspec.Struct, frozen=True):
    """`note`: what the reasoning says about it besides."""

    field: Field
    rejected: tuple[Rejection, ...]
    note: str = ""

    @property
    def members(self) -> tuple[Member, ...]:
        return self.field.members


def affordable(roster: Roster, terms: Terms, books: TenantBooks | None) -> Narrowed:
    """Whom the task's budget and its tenant's pay for. Raises BudgetTooSmall, BudgetSpent."""
    own = allowance_of(terms.budget)
    tenants = UNLIMITED if books is None else books.allowance(terms.tenant)
    if own is UNLIMITED and tenants is UNLIMITED:
        return Narrowed(roster.field, roster.rejected)
    both = Allowance(cost=min(own.cost, tenants.cost), tokens=min(own.tokens, tenants.tokens))
    if both.pays(roster.field.dearest):
        return Narrowed(roster.field, roster.rejected)
    prices = [(member.name, member.price) for member in roster.members]
    if not any(own.pays(price) for _, price in prices):
        raise budget_too_small(prices, own)
    dear = [
        Rejection(member.name, f"over budget: {too_dear(member.price, both)}")
        for member in roster.members
        if not both.pays(member.price)
    ]
    if len(dear) == len(roster.members):
        assert books is not None
        raise budget_spent(terms.tenant, prices, tenants, books.wait(terms.tenant))
    return Narrowed(_left(roster.field, dear), (*roster.rejected, *dear))


def unbroken(kept: Narrowed, shaky: Sequence[Member], now: float) -> Narrowed:
    """Those whose breakers let a task through."""
    shut = shut_out([member for member in shaky if member.name in kept.field], len(kept.members), now)
    out = [Rejection(member.name, member.breaker.shut(now)) for member in shut]
    return replace(kept, field=_left(kept.field, out), rejected=(*kept.rejected, *out))


def bound(kept: Narrowed, able: Sequence[str], affinity: Affinity, retry_after: float) -> Narrowed:
    """A hard affinity: only the key's agent. `able`: all that could do it. Raises NoEligibleAgent when it cannot now."""
    owner = ranked(affinity.key, able)[0]
    if owner in kept.field:
        return _only(kept, [owner], f"affinity: the key {affinity.key!r} belongs to {owner}")
    why = next((fallen.reason for fallen in kept.rejected if fallen.agent == owner), "it cannot take work now")
    raise NoEligibleAgent(
        f"affinity.key {affinity.key!r} belongs to agent {owner}, which cannot take the task: {why}",
        retry_after=retry_after,
    )


def met_again(kept: Narrowed, able: Sequence[str], affinity: Affinity, task_type: str, moment: Moment) -> Narrowed:
    """A soft affinity: the key's agent alone unless it is much worse or overloaded, then whoever the strategy chooses.

    Certain rather than likely: so the probability of the choice stays exact whatever the strategy tells of its own.
    """
    owner = home(affinity.key, able, set(kept.field.agents))
    if owner is None or len(kept.members) == 1:
        return kept
    candidates = [member.candidate(task_type, moment.usual, moment.now) for member in kept.members]
    why_not = unfit(next(one for one in candidates if one.agent == owner), candidates)
    if why_not:
        return replace(kept, note=f"Affinity: {owner} is the key's agent and was not preferred: {why_not}")
    preferred = _only(kept, [owner], f"affinity: the key {affinity.key!r} prefers {owner}")
    return replace(preferred, note=f"Affinity: {owner} is the key's agent and was preferred")


def by_affinity(
    kept: Narrowed, able: Sequence[str], terms: Terms, task_type: str, moment: Moment, retry_after: float
) -> Narrowed:
    """Whom the key leaves. Raises NoEligibleAgent (a hard one whose agent cannot take it)."""
    affinity = terms.affinity
    if affinity is None:
        return kept
    if affinity.mode is AffinityMode.HARD:
        return bound(kept, able, affinity, retry_after)
    return met_again(kept, able, affinity, task_type, moment)


def tried(kept: Narrowed, shaky: Sequence[Member], now: float) -> Narrowed:
    """Whoever's breaker lets a trial through gets this task.

    Nobody would choose it after its failures, and without a task it could never show that it works again. Certain rather
    than likely, as with affinity: the probability of the choice stays exact.
    """
    due = [member for member in shaky if member.name in kept.field and member.breaker.tries(now)]
    if not due or len(due) == len(kept.members):
        return kept
    names = [member.name for member in due]
    note = f"This task is a trial: {'; '.join(f'{member.name} {member.breaker.shut(now)}' for member in due)}"
    narrowed = _only(kept, names, f"this task tries {', '.join(names)} again")
    return replace(narrowed, note=f"{kept.note}. {note}" if kept.note else note)


def _only(kept: Narrowed, agents: Sequence[str], reason: str) -> Narrowed:
    others = tuple(Rejection(name, reason) for name in kept.field.agents if name not in agents)
    return Narrowed(kept.field.only(agents), (*kept.rejected, *others))


def _left(field: Field, rejected: Sequence[Rejection]) -> Field:
    return field.without(fallen.agent for fallen in rejected) if rejected else field


def shut_out(shaky: Sequence[Member], of: int, now: float) -> list[Member]:
    """Of `shaky`, whose breakers are not closed, those a task is kept from; nobody when that would leave none of all `of`.

    The rule is Envoy's: a panic threshold, so that ejection does not empty the set, and a largest share of it
    (MAX_EJECTED). Beyond that those come back first who would be tried again first.
    """
    shut = [member for member in shaky if not member.breaker.admits(now)]
    if len(shut) == of:
        return []
    limit = max(1, int(of * MAX_EJECTED))
    if len(shut) > limit:
        shut = sorted(shut, key=lambda member: member.breaker.open_until)[-limit:]
    return shut
