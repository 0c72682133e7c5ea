"""The guardrail: what is no worse is hardly ever rolled back however often one looks, what is worse soon is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.guardrail import LEAST_BEFORE, MOST_TYPES, Earned, baseline, compared

earned = st.lists(
    st.builds(
        Earned,
        task_type=st.sampled_from([f"type-{n}" for n in range(30)]),
        rows=st.integers(0, 5000),
        mean=st.floats(0.0, 1.0),
    ),
    max_size=40,
    unique_by=lambda one: one.task_type,
)


def looked(share: float, *, runs: int, before: int = 1000, after: int = 3000, every: int = 25) -> list[int | None]:
    """In each run the outcome at which a policy with this share of successes is rolled back; before it 0.7 succeeded."""
    random = np.random.default_rng(5)
    found: list[int | None] = []
    for _ in range(runs):
        then = Earned(task_type="a", rows=before, mean=float((random.random(before) < 0.7).mean()))
        means = (random.random(after) < share).cumsum() / np.arange(1, after + 1)
        looks = range(every, after + 1, every)
        found.append(next((rows for rows in looks if _breach(then, rows, float(means[rows - 1]))), None))
    return found


def _breach(then: Earned, rows: int, mean: float) -> bool:
    comparison = compared([then], [Earned(task_type="a", rows=rows, mean=mean)])
    return comparison is not None and comparison.breach


def test_a_policy_that_is_no_worse_is_rolled_back_in_at_most_two_of_a_hundred_promotions() -> None:
    runs = 400
    assert sum(at is not None for at in looked(0.7, runs=runs)) <= 0.02 * runs


def test_a_policy_that_is_worse_is_rolled_back_the_sooner_the_worse_it_is() -> None:
    bad, worse = looked(0.5, runs=100), looked(0.3, runs=100)
    assert all(at is not None for at in (*bad, *worse))
    assert np.median([at or 0 for at in bad]) < 1200
    assert np.median([at or 0 for at in worse]) < 300


def test_another_mix_of_work_is_no_fault_of_the_policy() -> None:
    before = [Earned(task_type="easy", rows=9000, mean=0.95), Earned(task_type="hard", rows=1000, mean=0.3)]
    after = [Earned(task_type="easy", rows=500, mean=0.95), Earned(task_type="hard", rows=4500, mean=0.3)]
    found = compared(before, after)
    assert found is not None
    assert found.mean == pytest.approx(found.expected)
    assert not found.breach
    worse = compared(before, [after[0], Earned(task_type="hard", rows=4500, mean=0.1)])
    assert worse is not None
    assert worse.breach


def test_nothing_in_common_is_nothing_to_compare() -> None:
    assert compared([], [Earned(task_type="a", rows=500, mean=0.0)]) is None
    assert compared([Earned(task_type="a", rows=500, mean=1.0)], [Earned(task_type="b", rows=500, mean=0.0)]) is None


@given(earned)
def test_what_is_remembered_is_bounded_and_has_enough_outcomes(found: list[Earned]) -> None:
    kept = baseline(found)
    assert len(kept) <= MOST_TYPES
    assert all(one.rows >= LEAST_BEFORE for one in kept)
    left_out = [one for one in found if one.rows >= LEAST_BEFORE and one not in kept]
    assert all(one.rows <= kept[-1].rows for one in left_out)


@given(earned, earned)
def test_the_bound_leaves_room_and_only_a_mean_below_it_is_a_breach(before: list[Earned], after: list[Earned]) -> None:
    found = compared(baseline(before), after)
    if found is not None:
        assert found.bound < found.expected + 1e-12
        assert found.breach == (found.mean < found.bound)
        assert -1e-9 <= found.mean <= 1.0 + 1e-9
        assert found.rows == sum(
            one.rows for one in after if one.task_type in {known.task_type for known in baseline(before)}
        )
