"""Explanations: every sentence about what would have changed a choice is true by the very numbers the choice was made with."""

from __future__ import annotations

import math

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from agent_engines.domain.decisions import Candidate, Decision, Rejection
from agent_engines.domain.explanation import Counterfactual, explanation

shares = st.floats(0.0, 1.0)
TERMS = {"price": 0.5, "haste": 0.01, "late": 0.5}
STEP = 1e-6


def utility(candidate: Candidate, terms: dict[str, float]) -> float:
    """What the policy computes, without a deadline."""
    assert candidate.quality is not None
    return candidate.quality - terms["price"] * candidate.cost - terms["haste"] * candidate.completion_ms / 1000.0


@st.composite
def fields(draw: st.DrawFn) -> tuple[list[Candidate], dict[str, float]]:
    terms = {"price": draw(st.floats(0.01, 10.0)), "haste": draw(st.floats(0.001, 0.1)), "late": 0.5}
    made: list[Candidate] = []
    for number in range(draw(st.integers(2, 5))):
        one = Candidate(
            agent=f"a{number}",
            replicas=1,
            slots=1,
            in_flight=0,
            service_ms=1.0,
            completion_ms=draw(st.floats(1.0, 60_000.0)),
            success=0.5,
            cost=draw(shares),
            age_seconds=0.0,
            quality=draw(shares),
        )
        made.append(msgspec.structs.replace(one, score=utility(one, terms)))
    return made, terms


def best_with(candidates: list[Candidate], changed: Candidate, terms: dict[str, float]) -> bool:
    others = [one.score or 0.0 for one in candidates if one.agent != changed.agent]
    return utility(changed, terms) > max(others)


@given(fields())
def test_a_cost_below_the_one_told_makes_it_the_best_and_one_above_does_not(
    field: tuple[list[Candidate], dict[str, float]],
) -> None:
    candidates, terms = field
    asked = Counterfactual(candidates, terms)
    for one in candidates:
        cost = asked.cost_below(one)
        if cost is None:
            if asked.gap(one) > 1e-9:
                assert not best_with(candidates, msgspec.structs.replace(one, cost=0.0), terms)
            continue
        assume(cost > STEP)
        assert cost < one.cost
        assert best_with(candidates, msgspec.structs.replace(one, cost=cost - STEP), terms)
        assert not best_with(candidates, msgspec.structs.replace(one, cost=cost + STEP), terms)


@given(fields())
def test_so_do_a_better_quality_and_a_sooner_end(field: tuple[list[Candidate], dict[str, float]]) -> None:
    candidates, terms = field
    asked = Counterfactual(candidates, terms)
    for one in candidates:
        quality, seconds = asked.quality_above(one), asked.seconds_below(one)
        if quality is not None:
            assert best_with(candidates, msgspec.structs.replace(one, quality=quality + STEP), terms)
            assert not best_with(candidates, msgspec.structs.replace(one, quality=quality - STEP), terms)
        if seconds is not None:
            assume(seconds > 0.01)
            sooner = msgspec.structs.replace(one, completion_ms=1000.0 * (seconds - 0.005))
            later = msgspec.structs.replace(one, completion_ms=1000.0 * (seconds + 0.005))
            assert best_with(candidates, sooner, terms)
            assert not best_with(candidates, later, terms)


@given(fields())
def test_of_the_best_nothing_is_said(field: tuple[list[Candidate], dict[str, float]]) -> None:
    candidates, terms = field
    best = max(candidates, key=lambda one: one.score or -math.inf)
    assert Counterfactual(candidates, terms).sentence(best) == ""


def decision(**changes: object) -> Decision:
    a = Candidate(
        agent="a", replicas=1, slots=4, in_flight=1, service_ms=100.0, completion_ms=100.0, success=0.9, cost=0.1,
        age_seconds=0.0, quality=0.9, score=0.849, probability=0.9,
    )  # fmt: skip
    b = msgspec.structs.replace(a, agent="b", cost=0.2, quality=0.92, score=0.819, probability=0.1)
    fields: dict[str, object] = {
        "request_id": "r", "task_id": "t", "task_type": "ocr", "selected_agent": "a", "confidence": 0.87,
        "propensity": 0.9, "strategy": "adaptive", "policy_version": "adaptive-1", "reasoning": "", "candidates": (a, b),
        "rejected": (Rejection("c", "offers no gpu"),), "terms": TERMS, "state_sequence": 7,
    }  # fmt: skip
    return Decision(**(fields | changes))  # type: ignore[arg-type]


def test_the_whole_story_is_told_in_plain_words() -> None:
    told = explanation(decision())
    assert told[0] == "adaptive (version adaptive-1) kept 2 of 3 agents for 'ocr' and chose a, 87.0 % sure of success."
    assert "c could not be chosen: offers no gpu." in told
    assert any(line.startswith("a (chosen): quality 0.900, expected 100 ms, cost 0.1") for line in told)
    assert "It took the best utility, by a margin of 0.0300." in told
    assert (
        "b would have had the best utility if its cost were below 0.14 or its expected quality were above 0.9500."
        in told
    )
    assert "It had learned from the shared lessons up to number 7." in told


def test_an_exploration_says_who_was_better() -> None:
    told = explanation(decision(selected_agent="b", explored=True, propensity=0.1))
    assert "It explored: a had the best utility, by 0.0300, and what is tried is learned." in told


def test_a_decision_without_chance_says_that_it_judges_nobody() -> None:
    told = explanation(decision(propensity=1.0, terms={}, strategy="c3"))
    assert "No chance took part, so this decision cannot be used to judge other policies." in told
    assert not any("would have had" in line for line in told)
