"""When a policy may be promoted, and what the shared word says after any sequence of changes."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.policy_word import (
    MOST_CHANGES,
    MOST_PROMOTED,
    NOTHING_PROMOTED,
    PolicyChange,
    PolicyOrder,
    changed,
    check_order,
    read_policy_word,
)
from agent_engines.domain.promotion import FAMILY_LOSS, FAMILY_ROWS, KEPT_GAINS, LEAST_SAMPLE, Gain, kept, objections

numbers = st.floats(-2.0, 2.0, allow_nan=False)


def convincing(**changes: Any) -> Gain:
    """Everything speaks for it, by a little."""
    given: dict[str, Any] = {
        "rows": 2000,
        "value": 0.02,
        "interval": (0.001, 0.039),
        "effective_sample_size": LEAST_SAMPLE,
        "mean_weight": 1.02,
        "mean_weight_error": 0.01,
        "max_weight_share": 0.05,
        **changes,
    }
    return Gain(**given)


gains = st.builds(
    convincing,
    rows=st.integers(0, 5000),
    value=st.none() | numbers,
    interval=st.none() | st.tuples(numbers, numbers).map(lambda ends: (min(ends), max(ends))),
    effective_sample_size=st.floats(0.0, 5000.0),
    mean_weight=st.floats(0.0, 3.0),
    mean_weight_error=st.floats(0.0, 1.0),
    max_weight_share=st.floats(0.0, 1.0),
)
families = st.lists(
    st.builds(convincing, task_type=st.sampled_from("abc"), rows=st.integers(0, 2000), interval=st.tuples(numbers, numbers)),
    max_size=8,
)  # fmt: skip


def test_what_reaches_every_bound_may_be_promoted() -> None:
    family = convincing(task_type="ocr", interval=(-FAMILY_LOSS + 1e-6, 0.1))
    seldom = convincing(task_type="seldom", rows=FAMILY_ROWS, interval=(-1.0, 1.0))
    assert objections([convincing(), family, seldom]) == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"effective_sample_size": 499.4}, "effective sample size 499 is under 500"),
        ({"effective_sample_size": math.nan}, "too thin"),
        ({"interval": (0.0, 0.04), "value": 0.02}, "gain +0.0200, 95 % interval +0.0000 to +0.0400, 2000 decisions"),
        ({"interval": (-0.3, -0.1), "value": -0.2}, "gain -0.2000, 95 % interval -0.3000 to -0.1000"),
        ({"interval": (math.nan, 0.1)}, "not shown to be better"),
        ({"max_weight_share": 0.06}, "one decision carries 6.0% of the weight"),
        ({"mean_weight": 0.5, "mean_weight_error": 0.01}, "mean weight 0.500 +- 0.010 is not 1"),
        ({"value": None, "interval": None, "rows": 7}, "of 7 decisions that can judge it none"),
    ],
)
def test_each_bound_that_is_missed_is_named_with_its_number(changes: dict[str, Any], said: str) -> None:
    (objection,) = objections([convincing(**changes)])
    assert said in objection


def test_nothing_at_all_speaks_for_nobody() -> None:
    assert "of 0 decisions" in objections([])[0]
    assert objections([convincing(task_type="ocr")]), "a task type alone is not the whole"


def test_a_loss_at_a_frequent_task_type_is_an_objection_that_names_it() -> None:
    worse = convincing(task_type="ocr", rows=FAMILY_ROWS + 1, value=-0.1, interval=(-0.2, -0.05))
    (objection,) = objections([convincing(), worse])
    assert objection.startswith("may be worse at ocr: gain -0.1000")


@given(gains, families)
def test_what_is_promoted_was_shown_to_gain_on_enough_decisions(whole: Gain, types: list[Gain]) -> None:
    if not objections([whole, *types]):
        assert whole.interval is not None
        assert whole.interval[0] > 0.0
        assert whole.effective_sample_size >= LEAST_SAMPLE
        assert all(one.interval is None or one.interval[0] > -FAMILY_LOSS for one in types if one.rows > FAMILY_ROWS)


@given(gains, families, st.floats(0.0, 1.0))
def test_worse_evidence_never_has_fewer_objections(whole: Gain, types: list[Gain], less: float) -> None:
    before = objections([whole, *types])
    low, high = whole.interval or (0.0, 0.0)
    worse = msgspec.structs.replace(
        whole,
        interval=None if whole.interval is None else (low - less, high),
        effective_sample_size=whole.effective_sample_size * (1.0 - less),
        max_weight_share=min(1.0, whole.max_weight_share + less),
    )
    assert len(objections([worse, *types])) >= len(before)
    assert len(objections([whole, *types, convincing(task_type="d", interval=(-1.0, 1.0))])) >= len(before)


@given(gains, families)
def test_what_is_kept_is_bounded_and_begins_with_the_whole(whole: Gain, types: list[Gain]) -> None:
    found = kept([*types, whole])
    assert found[0] is whole
    assert len(found) == min(KEPT_GAINS, 1 + len(types))
    left_out = [one for one in types if not any(one is other for other in found)]
    assert all(one.interval[0] >= found[-1].interval[0] for one in left_out if one.interval and found[-1].interval)


@given(st.lists(st.none() | st.sampled_from(["c3", "prequal", "mine"]), max_size=80))
def test_a_rollback_leads_to_what_was_active_before_whatever_came_in_between(steps: list[str | None]) -> None:
    word, stack = NOTHING_PROMOTED, list[str]()
    for number, name in enumerate(steps, start=1):
        if name is None and not stack:
            continue
        before = word.before
        verb = "rollback" if name is None else "promote"
        change = PolicyChange(turn=number, verb=verb, source="x", to=name or "y", version="v", at=float(number))
        word = changed(word, change)
        if name is None:
            stack.pop()
            assert word.active == before
        else:
            stack = [*stack, name][-MOST_PROMOTED:]
        assert word.promoted == tuple(stack)
        assert (word.turn, word.changes[-1]) == (number, change)
        assert len(word.changes) <= MOST_CHANGES
        assert read_policy_word(msgspec.json.encode(word)) == word


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"[]",
        b'{"turn":-1}',
        b'{"promoted":[""]}',
        b'{"promoted":["' + b"x" * 200 + b'"]}',
        msgspec.json.encode({"promoted": ["c3"] * 21}),
        b'{"turn":1,"changes":[{"turn":1,"verb":"burn","from":"a","to":"b","version":"b","at":0}]}',
    ],
)
def test_what_is_no_word_is_not_read_as_one(stored: bytes) -> None:
    with pytest.raises((ValueError, msgspec.MsgspecError)):
        read_policy_word(stored)


@pytest.mark.parametrize(
    ("order", "field"),
    [
        (PolicyOrder(force=True), "reason"),
        (PolicyOrder(force=True, reason="  "), "reason"),
        (PolicyOrder(reason="x" * 501), "reason"),
        (PolicyOrder(reason="two\nlines"), "reason"),
        (PolicyOrder(by="x" * 65), "by"),
        (PolicyOrder(by="\0"), "by"),
    ],
)
def test_an_order_that_cannot_be_kept_names_its_field(order: PolicyOrder, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_order(order)
    assert refused.value.field == field
