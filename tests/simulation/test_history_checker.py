"""Each rule of the history checker, by a history that breaks it and the nearest one that does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent_engines.domain.tasks import TaskStatus
from agent_engines.testing.evidence import Fact
from agent_engines.testing.history import Call, Execution, History, Op, Phase, Row, check

SUCCESS, CANCELLED = TaskStatus.SUCCESS, TaskStatus.CANCELLED


def call(op: Op = Op.SUBMIT, began: float = 1.0, **changes: Any) -> Call:
    fields: dict[str, Any] = {
        "client": "ann",
        "op": op,
        "began": began,
        "ended": began + 0.5,
        "phase": Phase.OK,
        "task_id": "t",
        "request_id": "r" if op is Op.SUBMIT else None,
        **changes,
    }
    return Call(**fields)


def row(**changes: Any) -> Row:
    fields: dict[str, Any] = {
        "task_id": "t",
        "request_id": "r",
        "end": SUCCESS,
        "end_generation": 1,
        "ends": 1,
        "result": {"token": "a"},
        **changes,
    }
    return Row(**fields)


def ran(token: str = "a", *, task_id: str = "t", attempt: int = 1) -> Execution:
    return Execution(task_id=task_id, generation=1, attempt=attempt, where="w", at=2.0, token=token)


def sound(**changes: Any) -> History:
    fields: dict[str, Any] = {"calls": [call()], "rows": [row()], "executions": [ran()], **changes}
    return History(**fields)


def rules(history: History, *, all_ended: bool = True) -> set[str]:
    return {violation.rule for violation in check(history, all_ended=all_ended)}


def test_a_history_without_fault_has_no_violations() -> None:
    assert check(sound()) == []


def test_an_accepted_task_without_a_row_is_lost() -> None:
    assert rules(sound(rows=[])) == {"lost"}
    assert rules(sound(rows=[row(submitted=False)])) == {"lost"}
    assert rules(sound(calls=[call(phase=Phase.UNKNOWN, task_id=None)], rows=[])) == set()


def test_an_accepted_task_without_an_end_is_stuck_once_it_had_its_time() -> None:
    open_row = row(end=None, end_generation=None, ends=0)
    assert rules(sound(rows=[open_row])) == {"stuck"}
    assert rules(sound(rows=[open_row]), all_ended=False) == set()


def test_two_terminal_rows_are_one_too_many() -> None:
    assert rules(sound(rows=[row(ends=2)])) == {"two ends"}


def test_a_row_needs_a_submission() -> None:
    assert rules(sound(calls=[])) == {"from nowhere"}
    assert rules(sound(calls=[call(phase=Phase.UNKNOWN, task_id=None)])) == set()


def test_what_was_refused_for_certain_must_not_be_done() -> None:
    refused = call(phase=Phase.FAIL, task_id=None)
    assert rules(sound(calls=[refused])) == {"refused and done"}
    assert rules(sound(calls=[refused, call(began=3.0)])) == set()


def test_a_key_means_one_task_and_one_body() -> None:
    first = call(key="k", body="x")
    assert rules(sound(calls=[first, call(began=2.0, key="k", body="x")])) == set()
    assert "two bodies for a key" in rules(sound(calls=[first, call(began=2.0, key="k", body="y")]))
    other = call(began=2.0, key="k", body="x", task_id="u")
    rows = [row(key="k"), row(task_id="u", key="k")]
    executions = [ran(), ran(task_id="u")]
    assert rules(sound(calls=[first, other], rows=rows, executions=executions)) == {"two tasks for a key"}


def test_nobody_sees_an_end_undone() -> None:
    saw = call(Op.READ, 2.0, status=SUCCESS)
    assert rules(sound(calls=[call(), saw, call(Op.READ, 3.0, client="ben", status=TaskStatus.RUNNING)])) == {
        "went back"
    }
    assert rules(sound(calls=[call(), saw, call(Op.READ, 2.2, client="ben", status=TaskStatus.RUNNING)])) == set()
    assert rules(sound(calls=[call(), saw, call(Op.READ, 3.0, client="ben", status=SUCCESS)])) == set()


def test_a_reopened_task_may_go_back() -> None:
    calls = [
        call(),
        call(Op.READ, 2.0, status=TaskStatus.FAILED),
        call(Op.REOPEN, 3.0, status=TaskStatus.QUEUED),
        call(Op.READ, 4.0, status=TaskStatus.RUNNING),
    ]
    assert rules(sound(calls=calls)) == set()


def test_what_was_told_to_be_cancelled_stays_cancelled() -> None:
    cancel = call(Op.CANCEL, 2.0, status=CANCELLED)
    assert rules(sound(calls=[call(), cancel])) == {"not cancelled"}
    assert rules(sound(calls=[call(), cancel], rows=[row(end=CANCELLED, result=None)])) == set()
    marked = call(Op.CANCEL, 2.0, status=TaskStatus.RUNNING)
    assert rules(sound(calls=[call(), marked])) == set()


@pytest.mark.parametrize("end", [CANCELLED, TaskStatus.EXPIRED])
def test_nothing_is_cancelled_or_expires_unasked(end: TaskStatus) -> None:
    assert rules(sound(rows=[row(end=end, result=None)])) == {"unasked"}
    assert rules(sound(rows=[row(end=TaskStatus.EXPIRED, result=None, deadline=9.0)])) == set()


@pytest.mark.parametrize("end", [TaskStatus.FAILED, TaskStatus.DEAD_LETTER])
def test_only_the_current_generation_may_fail_a_task(end: TaskStatus) -> None:
    assert "stale end" in rules(sound(rows=[row(end=end, generation=2, max_attempts=1, result=None)]))
    assert rules(sound(rows=[row(end=end, max_attempts=1, result=None)])) == set()
    assert rules(sound(rows=[row(generation=2)])) == set(), "a late success counts"


def test_a_success_was_really_worked_for() -> None:
    assert rules(sound(executions=[])) == {"success without work"}
    assert rules(sound(executions=[ran("b")])) == {"foreign result"}
    assert rules(sound(executions=None)) == set(), "a run that cannot tell is not judged"


def test_a_dead_letter_had_all_the_attempts_it_was_owed() -> None:
    dead = row(end=TaskStatus.DEAD_LETTER, result=None, max_attempts=2, error="RuntimeError")
    assert rules(sound(rows=[dead])) == {"given up early"}
    assert rules(sound(rows=[dead], executions=[ran(), ran("b", attempt=2)])) == set()
    poisoned = msgspec.structs.replace(dead, error="Poisoned")
    assert rules(sound(rows=[poisoned], executions=[ran(str(n)) for n in range(4)])) == set()
    assert rules(sound(rows=[poisoned], executions=[ran(str(n)) for n in range(3)])) == {"given up early"}


def stored(kind: str, key: object) -> Fact:
    return Fact("stored", kind, key)  # type: ignore[arg-type]


REPORT = ("t", 1, 1, 1, "final")
WORLD = [
    stored("task", ("t", 1)),
    stored("report", REPORT),
    Fact("acked", "task", ("t", 1)),
    Fact("committed", "report", REPORT, SUCCESS),
    Fact("written", "row", "t", SUCCESS),
    Fact("acked", "report", REPORT),
]


def without(*places: int) -> list[Fact]:
    return [fact for place, fact in enumerate(WORLD) if place not in places]


def test_the_servers_own_story_is_believed_when_it_is_in_order() -> None:
    assert rules(sound(facts=WORLD, remaining=[])) == set()


def test_an_acknowledgement_follows_what_it_acknowledges() -> None:
    assert rules(sound(facts=without(1, 3, 5))) == {"acknowledged before report"}
    assert rules(sound(facts=without(3))) == {"acknowledged before commit"}
    late = [WORLD[0], WORLD[2], WORLD[1], *WORLD[3:]]
    assert rules(sound(facts=late)) == {"acknowledged before report"}


def test_an_announcement_is_no_report() -> None:
    announced = ("t", 1, 1, 1, "started")
    facts = [WORLD[0], stored("report", announced), WORLD[2]]
    assert rules(sound(facts=facts)) == {"acknowledged before report"}


def test_what_was_stored_does_not_vanish() -> None:
    assert rules(sound(facts=[*WORLD, stored("task", ("t", 2))], remaining=[])) == {"dropped"}
    assert rules(sound(facts=[*WORLD, stored("task", ("t", 2))], remaining=[("task", ("t", 2))])) == set()
    lost = [*WORLD, stored("task", ("t", 2)), Fact("lost", "task", ("t", 2))]
    assert rules(sound(facts=lost, remaining=[])) == set(), "a power failure that was part of the plan"


def test_a_terminal_row_is_written_once() -> None:
    assert rules(sound(facts=[*WORLD, Fact("changed", "row", "t", CANCELLED)])) == {"end changed"}
    assert rules(sound(facts=[*WORLD, WORLD[4]])) == {"two ends"}
    assert rules(sound(facts=[*WORLD, Fact("removed", "row", "t", SUCCESS), WORLD[4]])) == set(), "reopened in between"


def committed(generation: int, status: TaskStatus, kind: str) -> Fact:
    return Fact("committed", "report", ("t", generation, 1, 1, kind), status)


HEDGED, RETRIED = Fact("hedged", "task", ("t", 2)), Fact("retried", "task", ("t", 3))
LEFT, RIGHT = committed(1, TaskStatus.RETRYING, "retry"), committed(2, TaskStatus.FAILED, "final")


@pytest.mark.parametrize("facts", [[LEFT, RIGHT, RETRIED], [RIGHT, LEFT, RETRIED]])
def test_the_next_attempt_waits_for_both_legs_of_a_hedge(facts: list[Fact]) -> None:
    rows = [row(end_generation=3, generation=3)]
    assert rules(sound(rows=rows, facts=[HEDGED, *facts])) == set()
    for missing in (LEFT, RIGHT):
        early = [fact for fact in facts if fact is not missing]
        assert rules(sound(rows=rows, facts=[HEDGED, *early, missing])) == {"retried beside a leg"}
    started = committed(2, TaskStatus.RUNNING, "started")
    assert rules(sound(rows=rows, facts=[HEDGED, LEFT, started, RETRIED])) == {"retried beside a leg"}


def test_a_task_is_hedged_once_and_never_in_its_last_attempt() -> None:
    assert rules(sound(facts=[HEDGED])) == set()
    assert rules(sound(facts=[HEDGED, Fact("hedged", "task", ("t", 3))])) == {"hedged again"}
    assert rules(sound(rows=[row(max_attempts=1)], facts=[HEDGED])) == {"hedged the last attempt"}


def test_either_leg_of_a_hedge_may_end_its_task_and_nobody_else() -> None:
    failed = {"end": TaskStatus.FAILED, "result": None, "generation": 2}
    for generation in (1, 2):
        assert rules(sound(rows=[row(**failed, end_generation=generation, legs=(generation,))])) == set()
    assert rules(sound(rows=[row(**failed, end_generation=1)])) == {"stale end"}
    assert rules(sound(rows=[row(**failed, end_generation=1, legs=(2,))])) == {"stale end"}
