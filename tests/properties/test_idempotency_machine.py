"""Idempotency keys against a model: one key is one task and one body, whoever repeats it and whatever was refused between."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from machine_settings import machine
from test_ledger_machine import said

from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.domain.decisions import Decision, DecisionContext
from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.tasks import NO_PAYLOAD, Task, TaskRequest, TaskStatus
from agent_engines.domain.validation import body_hash, to_task
from agent_engines.ports.ledger import Entry, Known
from agent_engines.runtime.answers import accepted, first_answer

START = 1000.0
KEYS = st.sampled_from(["k1", "k2"])
BODIES: list[dict[str, Any]] = [
    {"payload": {"a": 1, "b": [1, 2]}},
    {"payload": {"a": 2, "b": [1, 2]}},
    {"payload": {"a": 1, "b": [2, 1]}},
    {"payload": None},
    {"payload": {"a": 1, "b": [1, 2]}, "priority": 1},
    {"payload": {"a": 1, "b": [1, 2]}, "timeout_seconds": 5.0},
    {"payload": {"a": 1, "b": [1, 2]}, "max_attempts": 2},
    {"payload": {"a": 1, "b": [1, 2]}, "deadline": 9_000_000_000.0},
    {"payload": {"a": 1, "b": [1, 2]}, "metadata": {"x": 1}},
    {"payload": {"a": 1, "b": [1, 2]}, "requirements": {"model": "small"}},
    {"payload": {"a": 1, "b": [1, 2]}, "task_type": "other"},
]
bodies = st.integers(0, len(BODIES) - 1)


def task_of(body: int, key: str | None, *, now: float = START, new_id: Any = lambda: "fresh", **more: Any) -> Task:
    request = TaskRequest(**{"task_type": "echo", "idempotency_key": key, **BODIES[body], **more})
    return to_task(request, now=now, origin="here", new_id=new_id)


def decision_of(task: Task) -> Decision:
    return Decision(
        request_id=task.request_id,
        task_id=task.task_id,
        task_type=task.task_type,
        selected_agent="ann",
        confidence=0.8,
        propensity=0.7,
        strategy="sampled",
        policy_version="v1",
        reasoning="first",
        candidates=(),
        rejected=(),
        context=DecisionContext(request_id=task.request_id, task_type=task.task_type),
        created_at=task.submitted_at,
    )


@dataclass
class First:
    """The submission that a key stands for."""

    body: int
    task_id: str
    request_id: str
    told_others: bool = False


class OneKeyOneTask(RuleBasedStateMachine):
    """Submissions with and without keys; some are refused by the bus and withdrawn, as the dispatcher does it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(START)
        self.ledger = MemoryLedger(self.clock)
        self.ids = count()
        self.first: dict[str, First] = {}
        self.plain: set[str] = set()
        self.now = START

    def submit(self, body: int, key: str | None) -> tuple[Task, Known | None]:
        self.now += 1.0
        task = task_of(body, key, now=self.now, new_id=lambda: f"id-{next(self.ids)}")
        known = said(self.ledger.tasks.accept([Entry(task, decision_of(task))]))
        assert len(known) <= 1
        return task, known[0] if known else None

    @rule(body=bodies, key=KEYS)
    def send(self, body: int, key: str) -> None:
        task, known = self.submit(body, key)
        first = self.first.get(key)
        if first is None:
            assert known is None, "a key nobody used was known"
            self.first[key] = First(body, task.task_id, task.request_id)
            return
        assert known is not None, "a known key was accepted twice"
        first.told_others = True
        answer = first_answer(task, known)
        if body != first.body:
            assert answer.accepted is None
            assert answer.refused is not None
            assert answer.refused.kind == "Conflict"
            return
        assert answer.refused is None
        assert answer.accepted is not None
        assert answer.accepted.existing
        assert answer.accepted.task_id == first.task_id == task.task_id
        assert answer.accepted.request_id == first.request_id
        assert (answer.accepted.selected_agent, answer.accepted.reasoning) == ("ann", "first")

    @rule(body=bodies)
    def send_without_key(self, body: int) -> None:
        task, known = self.submit(body, None)
        assert known is None
        assert task.task_id not in self.plain
        assert task.task_id == task.request_id
        self.plain.add(task.task_id)

    @rule(key=KEYS)
    def the_bus_refuses_the_first(self, key: str) -> None:
        """A refused task is withdrawn; not when a second caller was told about it."""
        first = self.first.get(key)
        if first is None:
            return
        said(self.ledger.tasks.withdraw([first.task_id]))
        if not first.told_others:
            del self.first[key]

    @invariant()
    def one_row_for_each_key(self) -> None:
        held = {row.task.idempotency_key: name for name, row in self.ledger.tables.tasks.items()}
        held.pop(None, None)
        assert held == {key: first.task_id for key, first in self.first.items()}
        assert len(self.ledger.tables.tasks) == len(self.first) + len(self.plain)


TestOneKeyOneTask = OneKeyOneTask.TestCase
TestOneKeyOneTask.settings = machine(steps=25)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40), bodies, bodies)
def test_a_key_gives_the_same_task_on_every_router(key: str, body: int, other: int) -> None:
    one = task_of(body, key, new_id=lambda: "one")
    two = task_of(other, key, new_id=lambda: "two", now=START + 50)
    assert one.task_id == two.task_id
    assert (one.request_id, two.request_id) == ("one", "two"), "each submission's decision has its own name"
    assert (one.body_hash == two.body_hash) == (body == other)
    assert len(one.body_hash) == 16


def test_different_keys_are_different_tasks() -> None:
    assert task_of(0, "k1").task_id != task_of(0, "k2").task_id


def test_without_a_key_every_submission_is_a_task_of_its_own_and_has_no_hash() -> None:
    task = task_of(0, None, new_id=lambda: "mine")
    assert (task.task_id, task.request_id, task.body_hash) == ("mine", "mine", b"")


def test_a_request_id_of_the_callers_own_is_kept() -> None:
    assert task_of(0, "k1", request_id="theirs").request_id == "theirs"


def test_the_order_of_a_mapping_is_no_difference() -> None:
    assert task_of(0, "k1").body_hash == task_of(0, "k1", payload={"b": [1, 2], "a": 1}).body_hash


def test_what_is_not_asked_for_does_not_change_the_hash() -> None:
    one, two = task_of(0, "k1", now=START), task_of(0, "k1", now=START + 9, request_id="other")
    assert body_hash(one) == body_hash(two) == one.body_hash


def test_everything_asked_for_arrives_in_the_task() -> None:
    asked = {"priority": 1, "timeout_seconds": 5.0, "max_attempts": 2, "deadline": 9e9, "metadata": {"x": 1}}
    task = task_of(0, "k1", **asked, requirements={"model": "small"}, request_id="mine")
    assert {name: getattr(task, name) for name in asked} == asked
    assert (task.requirements, task.origin, task.submitted_at) == ({"model": "small"}, "here", START)
    assert (task.idempotency_key, task.request_id, task.task_type) == ("k1", "mine", "echo")
    assert task.payload != NO_PAYLOAD


def test_a_decision_that_is_not_kept_any_more_does_not_undo_the_acceptance() -> None:
    task = task_of(0, "k1")
    answer = first_answer(task, Known(task.task_id, task.body_hash, TaskStatus.QUEUED, None)).accepted
    assert answer is not None
    assert (answer.task_id, answer.request_id, answer.status) == (task.task_id, task.request_id, TaskStatus.QUEUED)
    assert (answer.existing, answer.selected_agent, answer.confidence, answer.propensity) == (True, None, 0.0, 0.0)
    assert (answer.strategy, answer.policy_version) == ("", "")
    assert answer.reasoning


def test_an_acceptance_tells_the_decision_it_was_made_by() -> None:
    task = task_of(0, None)
    told = accepted(task.task_id, decision_of(task))
    assert (told.task_id, told.status, told.selected_agent) == ("fresh", TaskStatus.QUEUED, "ann")
    assert (told.confidence, told.propensity, told.strategy, told.policy_version) == (0.8, 0.7, "sampled", "v1")
    assert not told.existing


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb"])
def test_a_key_that_is_no_name_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest, match="idempotency_key"):
        task_of(0, key)


def test_another_time_to_begin_is_another_request() -> None:
    asked = [task_of(0, "k1", run_at=at).body_hash for at in (None, START + 100, START + 200)]
    assert len(set(asked)) == 3


def test_hashes_of_earlier_releases_still_match() -> None:
    """They are in ledgers: a change of the form would turn every repetition into a conflict."""
    assert task_of(0, "k1").body_hash.hex() == "7169d9f6e88b0a51ce9475cb9f7b40b8"


@pytest.mark.parametrize("field", ["metadata", "requirements"])
def test_what_cannot_be_stored_is_refused_with_the_name_of_its_field(field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        task_of(0, None, **{field: {"x": float("nan")}})
    assert (refused.value.field or "").startswith(field)
