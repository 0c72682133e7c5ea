"""A budget is met over any run of tasks, and text becomes the same numbers everywhere."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_engines.domain.budgets import Pace
from agent_engines.learning.adaptive import Adaptive, Options
from agent_engines.learning.pacing import Pacer, paced_price
from agent_engines.learning.text import hashed


@pytest.mark.parametrize("scale", [1e-4, 1.0, 500.0])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_budget_between_the_cheapest_and_the_dearest_is_met_and_buys_the_most(scale: float, share: float) -> None:
    rng = Random(4)
    budget = scale * (0.1 + 0.9 * share)
    pacer = Pacer(budget)
    spent = quality = 0.0
    for _ in range(5000):
        better = rng.random() * 0.4
        dear = better > pacer.price * (1.0 - 0.1) * scale
        cost = scale if dear else 0.1 * scale
        quality += better if dear else 0.0
        spent += cost
        pacer.spent(cost)
    assert spent / 5000 == pytest.approx(budget, rel=0.02)
    assert pacer.debt <= 0.02 * 5000 * budget
    # The best that share of tasks can bring: the ones with the largest differences.
    best = 5000 * 0.4 * (1.0 - (1.0 - share) ** 2) / 2.0
    assert quality > 0.93 * best


@given(st.lists(st.floats(0, 100), max_size=100))
def test_a_price_is_never_negative_and_costs_are_added_up(costs: list[float]) -> None:
    pacer = Pacer(2.0)
    for cost in costs:
        pacer.spent(cost)
        assert pacer.price >= 0.0
    assert pacer.debt == pytest.approx(sum(costs) - 2.0 * len(costs), abs=1e-6)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_budget_or_no_cost_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="budget is"):
        Pacer(bad)
    if bad != 0.0:
        with pytest.raises(ValueError, match="cost is"):
            Pacer(1.0).spent(bad)


def a_period(scale: float, share: float, *, paced: bool) -> tuple[float, int, float]:
    """5,000 tasks of a tenant whose budget pays for the dear agent in `share` of them: quality, refusals, spending."""
    rng = Random(4)
    budget = 5000 * scale * (0.1 + 0.9 * share)
    spent = quality = 0.0
    refused = 0
    for number in range(5000):
        pace = Pace(tenant="acme", spent=spent, budget=budget, elapsed=number / 5000)
        price = (paced_price(pace, 0.1) if paced else None) or 0.1
        better = rng.random() * 0.4
        dear = better > price * 0.9 * scale and spent + scale <= budget
        cost = scale if dear else 0.1 * scale
        if spent + cost > budget:
            refused += 1
            continue
        spent += cost
        quality += 0.5 + (better if dear else 0.0)
    return quality, refused, spent / budget


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_tenant_that_is_paced_has_all_its_tasks_done_and_gets_more_for_its_money(scale: float, share: float) -> None:
    quality, refused, spent = a_period(scale, share, paced=True)
    blind = a_period(scale, share, paced=False)
    assert refused <= 0.01 * 5000
    assert blind[1] > 0.1 * 5000 or scale == 1.0
    assert quality > blind[0]
    assert spent > 0.9


@given(
    spent=st.floats(0, 200), budget=st.floats(0, 100), elapsed=st.floats(0, 1), price=st.floats(0, 1e6), more=st.floats(0, 50)
)  # fmt: skip
def test_a_paced_price_is_finite_never_below_the_usual_one_and_rises_with_what_was_spent(
    spent: float, budget: float, elapsed: float, price: float, more: float
) -> None:
    def at(spent: float) -> float:
        found = paced_price(Pace(tenant="acme", spent=spent, budget=budget, elapsed=elapsed), price)
        return price if found is None else found

    assert price <= at(spent) <= at(spent + more) < float("inf")


def test_a_tenant_on_its_pace_pays_the_usual_price() -> None:
    assert paced_price(Pace(tenant="acme", spent=25.0, budget=100.0, elapsed=0.25), 0.1) is None
    assert paced_price(Pace(tenant="acme", spent=50.0, budget=100.0, elapsed=0.25), 0.1) == pytest.approx(0.1 * 1.5**16)
    assert paced_price(Pace(tenant="acme", spent=50.0, budget=100.0, elapsed=0.0), 0.0) == 0.0


def test_the_policy_keeps_to_its_budget() -> None:
    rng = Random(1)
    agents = [{"agent": "cheap", "cost": 0.1}, {"agent": "dear", "cost": 1.0}]
    policy = Adaptive(Options(budget=0.4), seed=1)
    spent = 0.0
    for number in range(3000):
        context = {"task_id": str(number), "task_type": "t", "features": [rng.random()]}
        choice = policy.choose(context, agents)
        cost = float(str(agents[choice.position]["cost"]))
        spent += cost
        quality = float(rng.random() < (0.9 if choice.agent == "dear" else 0.5))
        policy.learn(context, agents[choice.position], {"quality": quality, "cost": cost})
    assert spent / 3000 == pytest.approx(0.4, rel=0.05)


@settings(max_examples=50)
@given(st.text(), st.integers(2, 40))
def test_any_text_becomes_finite_numbers_of_bounded_length(text: str, size: int) -> None:
    made = hashed(text, size)
    assert made.shape == (size,)
    assert np.isfinite(made).all()
    assert float(made[1:] @ made[1:]) <= 1.0 + 1e-9
    assert (made == hashed(text, size)).all()


def test_columns_are_the_same_on_every_machine_and_case_does_not_count() -> None:
    golden = [2.772589, 0.48961, -0.48961, -0.202803, -0.48961, -0.48961]
    assert hashed("add two and two", 6).round(6).tolist() == golden
    assert hashed("ADD two  and Two", 6)[1:].round(6).tolist() == golden[1:]
    with pytest.raises(ValueError, match="text is 1"):
        hashed("add", 1)
