"""Rules of learning that hold for every input: probabilities sum to one, widths shrink, order of outcomes does not matter."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_engines.learning.adaptive import Adaptive, Options
from agent_engines.learning.calibration import EDGE, Calibration
from agent_engines.learning.exploration import shares, taken, winners
from agent_engines.learning.intercepts import Intercepts
from agent_engines.learning.ridge import Ridge

finite = st.floats(-10, 10)


@given(st.lists(finite, min_size=2, max_size=8), st.floats(0.001, 0.999), st.integers(0, 1000))
def test_shares_of_wins_are_a_distribution_with_a_floor_and_exactly_what_is_taken(
    means: list[float], floor: float, seed: int
) -> None:
    kinds = len(means)
    draws = np.random.default_rng(seed).standard_normal((32, kinds))
    won = winners(np.array(means), np.ones(kinds), draws)
    found = shares(won, kinds, floor)
    assert found.sum() == pytest.approx(1.0)
    assert (found >= floor / kinds - 1e-12).all()
    points = 20_000
    counts = Counter(taken(won, kinds, floor, (n + 0.5) / points) for n in range(points))
    for kind in range(kinds):
        assert counts[kind] / points == pytest.approx(found[kind], abs=1e-2)


@given(st.lists(st.tuples(st.lists(finite, min_size=3, max_size=3), st.floats(0, 1)), min_size=1, max_size=30))
def test_ridge_is_the_least_squares_solution_and_more_outcomes_never_widen_it(
    rows: list[tuple[list[float], float]],
) -> None:
    model = Ridge(3)
    model.grow(2)
    kinds = np.array([1])
    point = np.array([1.0, -1.0, 0.5])
    width = float("inf")
    for row, quality in rows:
        model.learn(1, np.array(row), quality)
        _, now = model.predict(kinds, point)
        assert now[0] <= width + 1e-9
        width = float(now[0])
    matrix = np.array([row for row, _ in rows])
    target = np.array([quality for _, quality in rows])
    expected = np.linalg.solve(matrix.T @ matrix + np.eye(3), matrix.T @ target) @ point
    assert model.predict(kinds, point)[0][0] == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.floats(0, 1)), max_size=40), st.randoms())
def test_the_order_of_outcomes_does_not_matter_to_the_table(
    outcomes: list[tuple[int, str, float]], rng: object
) -> None:
    first, second = Intercepts(), Intercepts()
    for table in (first, second):
        table.grow(4)
    shuffled = list(outcomes)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    for kind, task_type, quality in outcomes:
        first.learn(kind + 1, task_type, quality)
    for kind, task_type, quality in shuffled:
        second.learn(kind + 1, task_type, quality)
    kinds = np.arange(4)
    for task_type in "abc":
        for one, other in zip(first.predict(kinds, task_type), second.predict(kinds, task_type), strict=True):
            assert one == pytest.approx(other)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=200), st.floats(0, 1))
def test_a_calibrated_probability_is_one_whatever_came(outcomes: list[tuple[float, float]], raw: float) -> None:
    calibration = Calibration()
    assert calibration(raw) == pytest.approx(min(max(raw, EDGE), 1.0 - EDGE))
    for predicted, came in outcomes:
        calibration.learn(predicted, came)
    assert EDGE <= calibration(raw) <= 1.0 - EDGE


@pytest.mark.parametrize("bias", [-0.2, 0.0, 0.15])
def test_predictions_that_are_off_by_a_constant_are_put_right(bias: float) -> None:
    rng = np.random.default_rng(1)
    calibration = Calibration()
    for raw in rng.uniform(0.3, 0.7, 3000):
        calibration.learn(float(raw), float(rng.random() < raw + bias))
    for raw in (0.35, 0.5, 0.65):
        assert calibration(raw) == pytest.approx(raw + bias, abs=0.08)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_the_logged_propensity_is_the_share_of_times_it_is_chosen(seed: int) -> None:
    """The mean of 1 / propensity over choices is the number of kinds when every propensity is exact."""
    candidates = [{"agent": name, "cost": 0.0} for name in "abc"]
    policy = Adaptive(Options(floor=0.3), seed=seed)
    inverse = [policy.choose({"task_id": str(n), "features": None}, candidates).probability ** -1 for n in range(300)]
    error = np.std(inverse) / np.sqrt(len(inverse))
    assert abs(np.mean(inverse) - 3.0) < 5.0 * error + 0.05
