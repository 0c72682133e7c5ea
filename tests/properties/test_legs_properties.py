"""The two legs of a hedged attempt: whatever comes in whatever order, it fails at most once, and only when both have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.hedging import LEAST_WAIT_SECONDS, hedge_reason, hedgeable, wait_of
from agent_engines.domain.legs import FIRST, Word, word
from agent_engines.domain.terms import NO_TERMS, Affinity, Budget, Terms

generations = st.integers(1, 4)


@given(failures=st.lists(generations, max_size=20))
def test_an_attempt_fails_once_and_only_after_all_its_legs_have(failures: list[int]) -> None:
    legs, decided = {1, 2}, 0
    for place, generation in enumerate(failures):
        match word(legs, generation):
            case Word.DECIDES:
                decided += 1
                assert {1, 2} <= set(failures[: place + 1])
                legs = set()
            case Word.FALLS:
                assert generation in legs
                legs.discard(generation)
            case Word.STALE:
                assert generation not in legs
    assert decided == ({1, 2} <= set(failures))


@given(current=generations, generation=generations)
def test_a_task_that_was_not_hedged_is_decided_by_its_newest_dispatch(current: int, generation: int) -> None:
    assert word((current,), generation) is (Word.DECIDES if current == generation else Word.STALE)


terms = st.sampled_from(
    [NO_TERMS, Terms(tenant="t"), Terms(budget=Budget(cost=1.0)), Terms(affinity=Affinity(key="k"))]
)


@given(
    idempotent=st.booleans(),
    generation=generations,
    attempt=st.integers(1, 5),
    max_attempts=st.integers(1, 5),
    others=st.integers(0, 3),
    terms=terms,
)
def test_only_first_dispatches_of_unbounded_idempotent_tasks_with_attempts_left_are_hedged(
    idempotent: bool, generation: int, attempt: int, max_attempts: int, others: int, terms: Terms
) -> None:
    free = terms.budget is None and terms.affinity is None
    wanted = idempotent and generation == FIRST and attempt < max_attempts and others > 0 and free
    found = hedgeable(
        idempotent=idempotent,
        generation=generation,
        attempt=attempt,
        max_attempts=max_attempts,
        others=others,
        terms=terms,
    )
    assert found == wanted


@given(after=st.floats(0.0, 1e6))
def test_nobody_is_hedged_at_once(after: float) -> None:
    assert wait_of(after) >= max(after, LEAST_WAIT_SECONDS)


def test_the_reason_has_the_numbers() -> None:
    said = hedge_reason("ann", 1.234, 0.4, "adaptive")
    assert said.startswith("Hedged after 1.23 s: ann has not answered, was expected to take 0.40 s")
    assert "99th percentile" in said
