"""A kind that silently becomes worse is noticed; a kind that is new is given its chance."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_engines.learning.adaptive import Adaptive, Options
from agent_engines.learning.drift import LIMIT, QUIET, Drift

BEFORE = {"best": 0.85, "next": 0.75, "poor": 0.4}


def rewards(seed: int, rounds: int, drop_at: int, *, features: bool) -> tuple[list[float], Adaptive]:
    """Expected quality of each choice; `best` loses 0.2 at `drop_at`."""
    rng = Random(seed)
    policy = Adaptive(Options(), seed=seed)
    candidates = [{"agent": name, "cost": 0.0} for name in BEFORE]
    made: list[float] = []
    for number in range(rounds):
        context: dict[str, Any] = {"task_id": str(number), "task_type": "t"}
        if features:
            context["features"] = [rng.gauss(0.0, 1.0), rng.gauss(0.0, 1.0)]
        choice = policy.choose(context, candidates)
        skill = BEFORE[choice.kind] - (0.2 if choice.kind == "best" and number >= drop_at else 0.0)
        made.append(skill)
        policy.learn(context, candidates[choice.position], {"quality": float(rng.random() < skill)})
    return made, policy


@pytest.mark.parametrize("features", [False, True])
def test_about_half_of_what_a_silent_drop_costs_is_regained_within_three_hundred_decisions(features: bool) -> None:
    late = [np.mean(rewards(seed, 1350, 1000, features=features)[0][1250:]) for seed in range(8)]
    # Without noticing it earns 0.65, with perfect knowledge 0.75; measured: 0.697 with features, 0.701 without.
    assert np.mean(late) > (0.69 if features else 0.70)


def test_alarms_are_rare_where_nothing_changes_and_sure_where_something_does() -> None:
    quiet = sum(rewards(seed, 1000, 9999, features=False)[1].values.alarms for seed in range(8))
    loud = [rewards(seed, 1400, 1000, features=False)[1].values.alarms for seed in range(8)]
    assert quiet <= 4
    assert sum(alarms > 0 for alarms in loud) >= 6


def test_an_alarm_opens_the_floor_for_a_while() -> None:
    policy = rewards(1, 1200, 1000, features=False)[1]
    if policy.values.alarms == 0:
        policy = rewards(2, 1200, 1000, features=False)[1]
    assert policy.values.alarms > 0
    assert policy.values.floor == 0.02
    candidates = [{"agent": name, "cost": 0.0} for name in BEFORE]
    choice = policy.choose({"task_id": "x", "task_type": "t"}, candidates)
    assert choice.weighed.probabilities.min() >= 0.02 / 3 - 1e-12


@pytest.mark.parametrize("shift", [-0.2, 0.2])
def test_both_directions_raise_the_alarm_once_a_kind_is_known(shift: float) -> None:
    rng = Random(3)
    drift = Drift()
    first = next(n for n in range(10_000) if drift.told(float(rng.random() < 0.5 + shift), 0.5))
    assert QUIET < first < QUIET + 200


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=20), st.integers(0, 2**32))
@settings(max_examples=40)
def test_alarms_are_rare_where_what_is_told_is_right_however_different_the_tasks_are(
    told: list[float], seed: int
) -> None:
    rng = Random(seed)
    drift = Drift()
    chances = [rng.choice(told) for _ in range(4000)]
    alarms = sum(drift.told(float(rng.random() < chance), chance) for chance in chances)
    # Both directions together at most twice in LIMIT lessons on average: 8 here; 25 has less than one chance in a million.
    assert alarms <= 25 <= 4 * 4000 * 2 / LIMIT


def test_a_hard_task_before_an_easy_one_is_no_news() -> None:
    """Sure of one task and unsure of the next: what the unsure ones leave must not be judged as if all were sure."""
    rng = Random(5)
    drift = Drift()
    chances = [0.5 if number % 2 else 0.995 for number in range(20_000)]
    assert sum(drift.told(float(rng.random() < chance), chance) for chance in chances) <= 20


def test_fractional_outcomes_and_certain_predictions_are_taken() -> None:
    drift = Drift(QUIET)
    for expected in (0.0, 1.0):
        for _ in range(200):
            assert not drift.told(expected, expected)
    assert [drift.told(0.4, 0.9) for _ in range(60)].count(True) >= 1


def test_a_new_kind_that_is_better_is_adopted_within_two_hundred_decisions() -> None:
    adopted: list[float] = []
    for seed in range(5):
        rng = Random(seed)
        policy = Adaptive(Options(), seed=seed)
        old = [{"agent": "old", "cost": 0.0}, {"agent": "other", "cost": 0.0}]
        skills = {"old": 0.7, "other": 0.5, "new": 0.9}
        chosen: list[str] = []
        for number in range(1000):
            candidates = old if number < 700 else [*old, {"agent": "new", "cost": 0.0}]
            context = {"task_id": str(number), "task_type": "t", "features": [rng.random(), rng.random()]}
            choice = policy.choose(context, candidates)
            chosen.append(choice.kind)
            quality = float(rng.random() < skills[choice.kind])
            policy.learn(context, candidates[choice.position], {"quality": quality})
        adopted.append(chosen[900:].count("new") / 100)
    assert np.mean(adopted) > 0.9
