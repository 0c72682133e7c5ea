"""Estimates from logged decisions: closed forms, coverage on synthetic logs, and honest refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.off_policy import (
    Estimate,
    Floats,
    doubly_robust,
    effective_sample_size,
    gain,
    ips,
    snips,
    weights,
)

AGENTS = 3
QUALITY = np.array([0.3, 0.6, 0.8])


def logged(seed: int, rows: int) -> tuple[Floats, Floats, Floats]:
    """(chosen, propensity, reward) under a logging policy that depends on a hidden context."""
    rng = np.random.default_rng(seed)
    hard = rng.random(rows) < 0.5
    policy = np.where(hard[:, None], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5])
    chosen = (rng.random(rows)[:, None] > policy.cumsum(axis=1)).sum(axis=1)
    chance = QUALITY[chosen] - 0.2 * hard
    reward = (rng.random(rows) < chance).astype(np.float64)
    return chosen.astype(np.float64), policy[np.arange(rows), chosen], reward


def always(agent: int, seed: int, rows: int = 2000) -> tuple[Estimate, Estimate, Estimate]:
    chosen, propensity, reward = logged(seed, rows)
    weight = weights((chosen == agent).astype(np.float64), propensity)
    guess_logged = QUALITY[chosen.astype(int)]
    guess_target = np.full(rows, QUALITY[agent])
    return ips(weight, reward), snips(weight, reward), doubly_robust(weight, reward, guess_logged, guess_target)


@pytest.mark.parametrize("agent", range(AGENTS))
def test_the_interval_covers_the_truth_about_as_often_as_it_says(agent: int) -> None:
    truth = QUALITY[agent] - 0.1
    covered = np.zeros(3)
    errors: list[list[float]] = []
    for seed in range(300):
        estimates = always(agent, seed)
        for i, estimate in enumerate(estimates):
            assert estimate.value is not None
            assert estimate.low is not None
            assert estimate.high is not None
            covered[i] += estimate.low <= truth <= estimate.high
        errors.append([(e.value or 0.0) - truth for e in estimates])
    # 95 % +- 4 standard errors of 300 trials
    assert ((covered / 300 > 0.90) & (covered / 300 < 0.995)).all()
    bias = np.mean(errors, axis=0)
    assert (np.abs(bias) < 4 * np.std(errors, axis=0) / np.sqrt(300)).all()


def test_normalising_and_a_reward_model_both_reduce_the_error() -> None:
    spread = np.std([[e.value or 0.0 for e in always(2, seed)] for seed in range(200)], axis=0)
    assert spread[1] < spread[0]
    assert spread[2] < spread[0]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=50))
def test_the_logged_policy_itself_is_estimated_by_the_plain_mean(rewards: list[float]) -> None:
    propensity = np.full(len(rewards), 0.25)
    weight = weights(propensity, propensity)
    reward = np.array(rewards)
    plain = reward.mean()
    assert ips(weight, reward).value == pytest.approx(plain)
    assert snips(weight, reward).value == pytest.approx(plain)
    assert snips(weight, reward).effective_sample_size == pytest.approx(len(rewards))
    error = reward.std() / np.sqrt(len(rewards))
    assert snips(weight, reward).standard_error == pytest.approx(error, abs=1e-12)


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60).filter(
        lambda rows: sum(t for _, t, _ in rows) > 0
    )
)
def test_the_normalised_value_never_leaves_the_range_of_the_rewards(rows: list[tuple[float, float, float]]) -> None:
    propensity, target, reward = (np.array(column) for column in zip(*rows, strict=True))
    weight = weights(target, propensity)
    estimate = snips(weight, reward)
    assert estimate.value is not None
    assert reward.min() - 1e-9 <= estimate.value <= reward.max() + 1e-9
    assert 1.0 - 1e-9 <= estimate.effective_sample_size <= len(rows) + 1e-6


def test_known_numbers() -> None:
    weight = weights([1.0, 0.0, 1.0], [0.5, 0.5, 0.25])
    reward = np.array([1.0, 1.0, 0.0])
    assert weight.tolist() == [2.0, 0.0, 4.0]
    assert ips(weight, reward).value == pytest.approx(2 / 3)
    assert snips(weight, reward).value == pytest.approx(1 / 3)
    assert effective_sample_size(weight) == pytest.approx(36 / 20)
    perfect_model = doubly_robust(weight, reward, reward, np.array([0.5, 0.5, 0.5]))
    assert perfect_model.value == pytest.approx(0.5)
    assert perfect_model.standard_error == pytest.approx(0.0)


def test_rewards_that_are_all_equal_do_not_make_a_certainty_of_a_few_rows() -> None:
    estimate = snips(np.ones(20), np.ones(20))
    assert estimate.value == 1.0
    assert estimate.low == pytest.approx(0.839, abs=1e-3)
    assert estimate.high == 1.0


def test_neither_does_the_plain_mean_nor_a_model_that_fits_them() -> None:
    for estimate in (ips(np.ones(5), np.ones(5)), doubly_robust(np.ones(5), np.ones(5), np.ones(5), np.ones(5))):
        assert estimate.low == pytest.approx(0.566, abs=1e-3)
        assert estimate.high == 1.0


def modelled(weight: Floats, reward: Floats) -> Estimate:
    return doubly_robust(weight, reward, np.full(len(reward), 0.5), np.full(len(reward), 0.5))


def test_no_overlap_gives_no_number() -> None:
    for method in (ips, snips, modelled):
        estimate = method(np.zeros(5), np.ones(5))
        assert estimate.value is None
        assert "no overlap" in estimate.warnings[0]
    assert snips(np.zeros(0), np.zeros(0)).warnings == ("no rows",)


@pytest.mark.parametrize("target", [5e-324, 1e-200, 1e-160])
def test_target_probabilities_next_to_nothing_do_not_break_the_arithmetic(target: float) -> None:
    weight = weights([target, 0.0, target], [0.5, 0.5, 0.5])
    estimate = snips(weight, np.array([1.0, 1.0, 0.0]))
    assert estimate.value == pytest.approx(0.5)
    assert estimate.effective_sample_size == pytest.approx(2.0)
    assert effective_sample_size(np.zeros(3)) == 0.0


def test_few_rows_and_heavy_rows_are_warned_of() -> None:
    weight = np.ones(1000)
    assert snips(weight, np.ones(1000)).warnings == ()
    assert "effective sample size 50 is under 100" in snips(np.ones(50), np.ones(50)).warnings
    weight[0] = 100.0
    assert "one row carries 9% of the weight" in snips(weight, np.ones(1000)).warnings


def test_wrong_propensities_show_in_the_mean_weight() -> None:
    chosen, propensity, reward = logged(1, 5000)
    target = (chosen == 1).astype(np.float64)
    assert not any("mean weight" in w for w in snips(weights(target, propensity), reward).warnings)
    assert any("mean weight" in w for w in snips(weights(target, propensity * 0.5), reward).warnings)


@pytest.mark.parametrize("bad", [None, 0.0, -0.1, 1.5, float("nan")])
def test_a_row_without_a_usable_propensity_is_refused_by_number(bad: float | None) -> None:
    with pytest.raises(InvalidRequest, match="row 1") as refusal:
        weights([1.0, 1.0], [0.5, bad])
    assert refusal.value.field == "propensity"


def test_other_columns_are_checked_too() -> None:
    with pytest.raises(InvalidRequest, match="row 0"):
        weights([1.2], [0.5])
    with pytest.raises(InvalidRequest, match="one number for each row"):
        weights([1.0, 1.0], [0.5])
    with pytest.raises(InvalidRequest, match="row 1"):
        snips(np.ones(2), np.array([1.0, np.nan]))
    with pytest.raises(InvalidRequest, match="one number for each row"):
        snips(np.ones(2), np.ones(3))


@pytest.mark.parametrize(
    ("arms", "taken", "rate", "rows"), [(46, 46, 0.005, 5000), (46, 2, 0.02, 5000), (4, 1, 0.95, 300)]
)
def test_rare_rewards_and_heavy_weights_are_covered_too(arms: int, taken: int, rate: float, rows: int) -> None:
    rng = np.random.default_rng(5)
    covered = above = 0
    for _ in range(600):
        weight = (rng.random(rows) < taken / arms) * (arms / taken)
        found = ips(weight, (rng.random(rows) < rate).astype(np.float64))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= rate <= found.high
        above += found.low > rate
    # 0.93 to 0.98 and at most 2.5 % are the bars; 600 trials have a standard error of 0.009 and 0.006.
    assert 0.91 < covered / 600 < 0.995
    assert above / 600 < 0.045


def test_a_gain_is_the_difference_to_what_was_logged_and_is_tighter_than_both() -> None:
    chosen, propensity, reward = logged(3, 4000)
    weight = weights(np.where(chosen == 2, 0.6, 0.2), propensity)
    guess, mean = QUALITY[chosen.astype(int)], np.full(4000, float(QUALITY @ [0.2, 0.2, 0.6]))
    found = gain(weight, reward, guess, mean)
    value = doubly_robust(weight, reward, guess, mean)
    assert found.value == pytest.approx((value.value or 0.0) - reward.mean())
    same = gain(np.ones(4000), reward, guess, guess)
    assert same.value == pytest.approx(0.0)
    assert same.standard_error == pytest.approx(0.0)
