"""A kind that silently becomes worse is noticed; a kind that is new is given its chance."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from agent_engines.learning.adaptive import Adaptive, Options
from agent_engines.learning.drift import LIMIT, Drift

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
def test_both_directions_raise_the_alarm_and_noise_alone_does_not_for_long(shift: float) -> None:
    rng = Random(3)
    drift = Drift()
    first = next(n for n in range(10_000) if drift.told(float(rng.random() < 0.5 + shift) - 0.5, 0.25))
    assert first < 300
    assert not Drift().told(LIMIT / 8, 0.25)


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
