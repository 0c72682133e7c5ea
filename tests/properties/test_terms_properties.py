"""Terms: bounded names and numbers; budgets never let through what they cannot pay; keys keep their agents."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.affinity import home, ranked, unfit
from agent_engines.domain.budgets import (
    HOUR,
    NOTHING,
    Account,
    Allowance,
    Spend,
    TenantLimits,
    allowance_of,
    budget_spent,
    budget_too_small,
    capped_attempts,
    left_of,
    pace_of,
    too_dear,
)
from agent_engines.domain.decisions import Candidate
from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.terms import NO_TERMS, Affinity, Budget, terms_of

costs = st.floats(0, 1e6)
tokens = st.integers(0, 10**9)
spends = st.builds(lambda cost, used: Spend(cost=cost, tokens=used), costs, tokens)
budgets = st.builds(
    lambda cost, used: Budget(cost=cost, tokens=used),
    st.none() | st.floats(1e-9, 1e6),
    st.none() | st.integers(1, 10**9),
)
names = st.sets(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=12)
keys = st.text(min_size=1, max_size=20)


def candidate(agent: str, success: float = 0.9, completion_ms: float = 100.0) -> Candidate:
    return Candidate(
        agent=agent,
        replicas=1,
        slots=4,
        in_flight=0,
        service_ms=100.0,
        completion_ms=completion_ms,
        success=success,
        cost=0.0,
        age_seconds=0.0,
    )


def test_nothing_said_is_no_terms() -> None:
    assert terms_of(None, None, None) is NO_TERMS
    assert terms_of("default", None, None) is NO_TERMS


@pytest.mark.parametrize(
    ("tenant", "budget", "affinity", "field"),
    [
        ("", None, None, "tenant"),
        ("a b", None, None, "tenant"),
        ("a" * 65, None, None, "tenant"),
        (".hidden", None, None, "tenant"),
        ("a", Budget(cost=0.0), None, "budget.cost"),
        ("a", Budget(cost=math.nan), None, "budget.cost"),
        ("a", Budget(cost=math.inf), None, "budget.cost"),
        ("a", Budget(tokens=0), None, "budget.tokens"),
        ("a", Budget(tokens=True), None, "budget.tokens"),
        ("a", Budget(attempts=101), None, "budget.attempts"),
        ("a", None, Affinity(key=""), "affinity.key"),
        ("a", None, Affinity(key="a\nb"), "affinity.key"),
        ("a", None, Affinity(key="k", mode="firm"), "affinity.mode"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_meant_names_its_field(
    tenant: str, budget: Budget | None, affinity: Affinity | None, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        terms_of(tenant, budget, affinity)
    assert caught.value.field == field


@given(budgets, spends, spends)
def test_what_fits_after_spending_never_passes_the_budget(budget: Budget, spent: Spend, price: Spend) -> None:
    left = allowance_of(left_of(budget, spent))
    if left.pays(price):
        assert too_dear(price, left) == ""
        # A free agent always fits; anything else keeps the sum within the budget, up to rounding.
        assert budget.cost is None or price.cost == 0 or spent.cost + price.cost <= budget.cost * (1 + 1e-9) + 1e-9
        assert budget.tokens is None or price.tokens == 0 or spent.tokens + price.tokens <= budget.tokens
    else:
        assert too_dear(price, left) != ""


@given(st.lists(spends, min_size=1, max_size=6), st.builds(Allowance, cost=costs, tokens=tokens))
def test_a_refusal_names_a_bound_that_is_really_in_the_way(prices: list[Spend], allowance: Allowance) -> None:
    named = [(f"a{place}", price) for place, price in enumerate(prices)]
    if any(allowance.pays(price) for price in prices):
        return
    small, spent = budget_too_small(named, allowance), budget_spent("acme", named, allowance, 60.0)
    assert small.field in ("budget.cost", "budget.tokens")
    cheapest = min(price.cost for price in prices)
    if cheapest > allowance.cost:
        assert small.field == "budget.cost"
        assert f"{cheapest:g}" in small.detail
    assert "acme" in spent.detail
    assert spent.retry_after == 60.0


@given(st.integers(1, 100), st.none() | st.integers(1, 100))
def test_the_smaller_number_of_attempts_counts(attempts: int, most: int | None) -> None:
    capped = capped_attempts(attempts, Budget(attempts=most))
    assert capped <= attempts
    assert capped == attempts if most is None else capped <= most


@given(st.floats(1, 4e9), st.integers(1, 744))
def test_now_lies_in_its_period_and_periods_do_not_depend_on_when_one_asks(now: float, hours: int) -> None:
    limits = TenantLimits(name="a", cost=1.0, period_seconds=hours * HOUR)
    begin, end = limits.period(now)
    assert begin <= now < end
    assert limits.period(begin) == (begin, end)
    pace = pace_of(Account(limits=limits, spent=Spend(cost=0.5)), now)
    assert pace is not None
    assert 0 <= pace.elapsed < 1


@given(spends, spends)
def test_what_is_under_way_counts_as_spent(spent: Spend, under_way: Spend) -> None:
    account = Account(limits=TenantLimits(name="a", cost=1e6, tokens=10**9), spent=spent)
    assert account.allowance(under_way).cost <= account.allowance().cost
    assert account.allowance(under_way).tokens <= account.allowance().tokens
    assert Account(limits=TenantLimits(name="a")).allowance(under_way).pays(Spend(cost=1e12, tokens=10**15))
    assert NOTHING + spent == spent


@given(keys, names)
def test_a_key_has_one_order_whoever_asks(key: str, agents: set[str]) -> None:
    assert ranked(key, agents) == ranked(key, sorted(agents, reverse=True))
    assert set(ranked(key, agents)) == agents


@given(keys, names, st.data())
def test_when_an_agent_goes_only_its_own_keys_move(key: str, agents: set[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(agents)))
    before = home(key, agents, agents)
    after = home(key, agents, agents - {gone})
    if before != gone:
        assert after == before
    # It makes no difference whether one is out for a while or was never there.
    assert after == home(key, agents - {gone}, agents - {gone})


def test_keys_are_spread_evenly() -> None:
    agents = [f"agent-{number}" for number in range(5)]
    found = Counter(home(f"session-{number}", agents, agents) for number in range(5_000))
    assert min(found.values()) > 850
    assert max(found.values()) < 1_150


def test_a_much_worse_or_overloaded_agent_is_not_preferred() -> None:
    good, poor, late = candidate("a"), candidate("b", success=0.6), candidate("c", completion_ms=500.0)
    assert unfit(good, [good, poor, late]) == ""
    assert "worth" in unfit(poor, [good, poor, late])
    assert "expected" in unfit(late, [good, poor, late])
    assert unfit(candidate("d", success=0.8, completion_ms=300.0), [good]) == ""
