"""Who may do a task, and why the others may not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.domain.eligibility import Offer, check_requirements, rejection, screen
from agent_engines.domain.errors import InvalidRequest


def offer(name: str = "a", **changes: Any) -> Offer:
    fields: dict[str, Any] = {
        "agent_type": "nlp",
        "capabilities": frozenset({"summarize", "translate"}),
        "metadata": {
            "region": "eu",
            "context_length": 8000,
            "languages": ["en", "de"],
            "gpu": True,
            "model": "small",
        },
    }
    return Offer(name=name, **(fields | changes))


@pytest.mark.parametrize(
    "requirements",
    [
        {},
        {"region": "eu"},
        {"region": ["us", "eu"]},
        {"languages": "de"},
        {"languages": ["fr", "en"]},
        {"gpu": True},
        {"context_length": {">=": 8000}},
        {"context_length": {">": 7999, "<=": 8000}},
        {"context_length": {"in": [4000, 8000]}},
        {"context_length": {"==": 8000, "!=": 4000}},
        {"context_length": 8000.0},
        {"model": {"!=": "big"}},
        {"agent": "a"},
        {"agent": ["b", "a"]},
        {"agent_type": "nlp"},
        {"agent_type": ["vision", "nlp"]},
        {"exclude_agents": ["b"]},
        {"capabilities": ["translate"]},
        {"region": {">=": "ea"}},
        {"languages": {"==": "en", "in": ["de"]}},
        {"context_length": {"in": [4000, 8000], ">": 4000}},
    ],
)
def test_met_requirements(requirements: dict[str, Any]) -> None:
    assert rejection("summarize", requirements, offer()) == ""


@pytest.mark.parametrize(
    ("requirements", "reason"),
    [
        ({"region": "us"}, 'region is "eu", wanted "us"'),
        ({"region": ["us", "asia"]}, 'region is "eu", wanted ["us","asia"]'),
        ({"languages": "fr"}, 'languages is ["en","de"], wanted "fr"'),
        ({"gpu": False}, "gpu is true, wanted false"),
        ({"gpu": 1}, "gpu is true, wanted 1"),
        ({"context_length": {">=": 8001}}, 'context_length is 8000, wanted {">=":8001}'),
        ({"context_length": {">=": 1, "<": 8000}}, 'context_length is 8000, wanted {">=":1,"<":8000}'),
        ({"context_length": {">": "big"}}, 'context_length is 8000, wanted {">":"big"}'),
        ({"context_length": {"in": []}}, 'context_length is 8000, wanted {"in":[]}'),
        ({"context_length": {">=": True}}, 'context_length is 8000, wanted {">=":true}'),
        ({"gpu": {">=": 1}}, 'gpu is true, wanted {">=":1}'),
        ({"region": []}, 'region is "eu", wanted []'),
        ({"colour": "red"}, "offers no colour"),
        ({"colour": None}, "offers no colour"),
        ({"agent": "b"}, 'the task asks for agent "b"'),
        ({"agent_type": "vision"}, "is of type 'nlp', not \"vision\""),
        ({"exclude_agents": ["a"]}, "excluded by the task"),
        ({"capabilities": ["translate", "draw"]}, "does not perform 'draw'"),
    ],
)
def test_unmet_requirements_say_what_was_offered_and_wanted(requirements: dict[str, Any], reason: str) -> None:
    assert rejection("summarize", requirements, offer()) == reason


def test_the_task_type_comes_first() -> None:
    assert rejection("draw", {"region": "us"}, offer()) == "does not perform 'draw'"


def test_a_blocked_agent_is_named_with_its_reason() -> None:
    found = screen("summarize", {}, [offer("a", blocked="quarantined by an operator"), offer("b")])
    assert found.eligible == (1,)
    assert [(fallen.agent, fallen.reason) for fallen in found.rejected] == [("a", "quarantined by an operator")]


def test_a_suspect_agent_is_used_only_when_nobody_else_can() -> None:
    suspect = offer("a", suspect=True)
    assert screen("summarize", {}, [suspect, offer("b")]).eligible == (1,)
    assert screen("summarize", {}, [suspect, offer("b", capabilities=frozenset())]).eligible == (0,)


@pytest.mark.parametrize(
    ("requirements", "field"),
    [
        ({"a": {"~": 1}}, "requirements.a"),
        ({"a": {}}, "requirements.a"),
        ({"a": {"in": 3}}, "requirements.a"),
        ({"agent": 7}, "requirements.agent"),
        ({"agent_type": {"==": "x"}}, "requirements.agent_type"),
        ({"exclude_agents": "a"}, "requirements.exclude_agents"),
        ({"capabilities": [1]}, "requirements.capabilities"),
        ({"a": []}, "requirements.a"),
        ({"a": {"in": []}}, "requirements.a"),
        ({"agent": []}, "requirements.agent"),
        ({"agent_type": []}, "requirements.agent_type"),
        ({"a": {"==": True, "!=": True}}, "requirements.a"),
        ({"a": {"in": ["eu"], "!=": "eu"}}, "requirements.a"),
        ({"a": {"==": 5, ">": 9}}, "requirements.a"),
        ({"a": {"in": [1, 2], ">=": 3}}, "requirements.a"),
    ],
)
def test_requirements_no_rule_can_read_are_refused_by_name(requirements: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        screen("summarize", requirements, [])
    assert caught.value.field == field


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
wanted = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([">=", "in", "<", "!="]), inner),
)
keys = st.sampled_from(["region", "agent", "agent_type", "exclude_agents", "capabilities", "size", "tags"])


@given(st.dictionaries(keys, wanted, max_size=4), st.dictionaries(keys, wanted, max_size=4), st.text(max_size=3))
def test_any_requirement_meets_any_offer_without_surprise(
    requirements: dict[str, Any], metadata: dict[str, Any], name: str
) -> None:
    offers = [offer(name or "a", metadata=metadata), offer("b", blocked="busy")]
    try:
        check_requirements(requirements)
    except InvalidRequest:
        return
    found = screen("summarize", requirements, offers)
    assert len(found.eligible) + len(found.rejected) == len(offers)
    assert all(fallen.reason for fallen in found.rejected)


@given(st.dictionaries(keys, scalars, max_size=4))
def test_one_more_requirement_never_makes_an_agent_eligible(requirements: dict[str, Any]) -> None:
    try:
        check_requirements(requirements)
    except InvalidRequest:
        return
    fewer = dict(list(requirements.items())[:-1])
    if rejection("summarize", fewer, offer()):
        assert rejection("summarize", requirements, offer())


small = st.none() | st.booleans() | st.integers(0, 4) | st.sampled_from(["eu", "us"])
comparisons = st.dictionaries(st.sampled_from([">=", "<=", ">", "<", "==", "!="]), small | st.lists(small, max_size=2))
choices = st.just({}) | st.fixed_dictionaries({"in": st.lists(small, max_size=3)})


@given(comparisons, choices, st.lists(small | st.lists(small, max_size=3), min_size=20, max_size=20))
def test_what_is_refused_as_contradictory_nobody_could_meet(
    compared: dict[str, Any], chosen: dict[str, Any], offered: list[Any]
) -> None:
    requirements = {"size": compared | chosen}
    try:
        check_requirements(requirements)
    except InvalidRequest:
        if compared or chosen:
            assert all(rejection("summarize", requirements, offer(metadata={"size": value})) for value in offered)
