"""Whatever the fleet looks like, the choice is a fair draw from the probabilities it states."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.decisions import Candidate, DecisionContext, Rejection
from agent_engines.domain.estimates import completion_ms
from agent_engines.domain.explanation import Circumstances, reasoning
from agent_engines.domain.routing import LoadAware, drawn

NOW = 1_700_000_000.0
POLICY = LoadAware()


def made(agent: str = "a", **changes: float) -> Candidate:
    numbers = {"slots": 10, "in_flight": 0, "service_ms": 100.0, "success": 0.9, "cost": 0.0, "doubt": 0.0} | changes
    return Candidate(
        agent=agent,
        replicas=1,
        slots=int(numbers["slots"]),
        in_flight=int(numbers["in_flight"]),
        service_ms=numbers["service_ms"],
        completion_ms=completion_ms(numbers["service_ms"], int(numbers["in_flight"]), int(numbers["slots"])),
        success=numbers["success"],
        cost=numbers["cost"],
        age_seconds=0.1,
        doubt=numbers["doubt"],
    )


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    return made(
        draw(st.sampled_from("abcdef")),
        slots=draw(st.integers(1, 200)),
        in_flight=draw(st.integers(0, 10_000)),
        service_ms=draw(st.floats(0.01, 1e6)),
        success=draw(st.floats(0.001, 0.999)),
        cost=draw(st.floats(0, 10)),
        doubt=draw(st.floats(0, 0.36)),
    )


fleets = st.lists(candidates(), min_size=1, max_size=12)
contexts = st.builds(
    DecisionContext,
    request_id=st.just("r"),
    task_type=st.just("t"),
    deadline=st.none() | st.floats(NOW - 10, NOW + 100),
)


@given(contexts, fleets, st.integers(0, 2**32))
def test_probabilities_add_up_and_nobody_falls_under_the_floor(
    context: DecisionContext, fleet: list[Candidate], seed: int
) -> None:
    choice = POLICY.choose(context, fleet, Random(seed), NOW)
    assert sum(choice.probabilities) == pytest.approx(1.0, abs=1e-9)
    assert min(choice.probabilities) >= POLICY.floor / len(fleet)
    assert 0 <= choice.index < len(fleet)
    assert len(choice.scores) == len(choice.probabilities) == len(fleet)
    assert choice.explored == (choice.scores[choice.index] < max(choice.scores))


@given(contexts, fleets, st.integers(0, 2**32))
def test_the_same_seed_makes_the_same_choice(context: DecisionContext, fleet: list[Candidate], seed: int) -> None:
    assert POLICY.choose(context, fleet, Random(seed), NOW) == POLICY.choose(context, fleet, Random(seed), NOW)


def probability(context: DecisionContext, fleet: list[Candidate], index: int) -> float:
    return POLICY.choose(context, fleet, Random(0), NOW).probabilities[index]


@given(contexts, fleets, st.data(), st.floats(0, 0.5))
def test_more_success_never_lowers_the_probability(
    context: DecisionContext, fleet: list[Candidate], data: st.DataObject, gain: float
) -> None:
    index = data.draw(st.integers(0, len(fleet) - 1))
    better = list(fleet)
    better[index] = msgspec.structs.replace(fleet[index], success=min(0.999, fleet[index].success + gain))
    assert probability(context, better, index) >= probability(context, fleet, index) - 1e-12


@given(contexts, fleets, st.data(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_better_judged_work_never_lowers_the_probability(
    context: DecisionContext, fleet: list[Candidate], data: st.DataObject, one: float, other: float
) -> None:
    index = data.draw(st.integers(0, len(fleet) - 1))
    worse, better = list(fleet), list(fleet)
    worse[index] = msgspec.structs.replace(fleet[index], quality=min(one, other))
    better[index] = msgspec.structs.replace(fleet[index], quality=max(one, other))
    assert probability(context, better, index) >= probability(context, worse, index) - 1e-12


@given(contexts, fleets, st.data())
def test_less_load_never_lowers_the_probability(
    context: DecisionContext, fleet: list[Candidate], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(fleet) - 1))
    old = fleet[index]
    idle = list(fleet)
    fewer = data.draw(st.integers(0, old.in_flight))
    idle[index] = msgspec.structs.replace(
        old, in_flight=fewer, completion_ms=completion_ms(old.service_ms, fewer, old.slots)
    )
    assert probability(context, idle, index) >= probability(context, fleet, index) - 1e-12


def test_the_draw_follows_the_stated_probabilities() -> None:
    fleet = [made("a"), made("b", success=0.86), made("c", success=0.5)]
    context = DecisionContext(request_id="r", task_type="t")
    rng = Random(7)
    choices = [POLICY.choose(context, fleet, rng, NOW) for _ in range(20_000)]
    stated = choices[0].probabilities
    for index, share in enumerate(stated):
        found = sum(choice.index == index for choice in choices) / len(choices)
        assert found == pytest.approx(share, abs=0.012)


def test_whoever_would_miss_the_deadline_is_left_to_the_floor() -> None:
    fleet = [made("slow", service_ms=1500.0, success=0.99), made("fast", service_ms=900.0, success=0.3)]
    patient = DecisionContext(request_id="r", task_type="t", deadline=NOW + 2)
    assert probability(patient, fleet, 0) > 0.98
    context = DecisionContext(request_id="r", task_type="t", deadline=NOW + 1)
    assert probability(context, fleet, 0) == pytest.approx(POLICY.floor / 2, abs=1e-3)


def test_nobody_knows_the_new_agent_so_it_is_tried() -> None:
    context = DecisionContext(request_id="r", task_type="t")
    known = made("known", success=0.9, doubt=0.05)
    assert probability(context, [known, made("new", success=0.5, doubt=0.35)], 1) > 0.1
    assert probability(context, [known, made("poor", success=0.5, doubt=0.05)], 1) < 0.01


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_a_draw_lands_in_the_slice_that_holds_the_point(weights: list[float], point: float) -> None:
    shares = [weight / sum(weights) for weight in weights]
    index = drawn(shares, point)
    assert sum(shares[:index]) <= point + 1e-9
    assert point < sum(shares[: index + 1]) + 1e-9


def test_the_reasoning_tells_the_numbers() -> None:
    fleet = [
        msgspec.structs.replace(made("a", in_flight=3, cost=0.002), score=0.91, probability=0.8),
        msgspec.structs.replace(made("b", success=0.7), score=0.7, probability=0.2),
    ]
    said = Circumstances("mine", False, [Rejection("c", "offers no gpu")], 3, 2, {})
    assert reasoning(fleet, 0, said) == (
        "Kept 2 of 3 agents; mine chose a (by its rule, probability 0.800): success 0.90, expected 100 ms, cost 0.002, "
        "3 in flight on 10 slots. "
        "Next was b (success 0.70, expected 100 ms, cost 0), margin +0.2100; not eligible: c offers no gpu."
    )


def test_the_reasoning_of_an_only_candidate_has_no_rival() -> None:
    text = reasoning([made("a")], 0, Circumstances("mine", False, [], 1, 1, {}))
    assert text.startswith("Kept 1 of 1 agents; mine chose a (the only one)")
    assert "Next" not in text
