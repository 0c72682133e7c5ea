"""A budget is met over any run of tasks, and text becomes the same numbers everywhere."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_engines.learning.adaptive import Adaptive, Options
from agent_engines.learning.pacing import Pacer
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
