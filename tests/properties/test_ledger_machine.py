"""The ledger's rule for epochs against a model written from ports/ledger.py: whatever comes in whatever order, one end each."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from machine_settings import machine

from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.domain.decisions import Decision, DecisionContext
from agent_engines.domain.errors import Conflict, NotFound
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import TERMINAL, Task, TaskStatus
from agent_engines.ports.ledger import Entry, Hedge, StoredTask, Verdict

Answer = TypeVar("Answer")
Epoch = tuple[int, int, int]
NAMES = ("a", "b", "c")
WAITING = (TaskStatus.QUEUED, TaskStatus.RUNNING)
START = 1000.0
PATIENCE = 7.0
"""A running task's own timeout."""
names = st.sampled_from(NAMES)


def said(work: Coroutine[Any, Any, Answer]) -> Answer:
    """What a coroutine that never waits returns."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the in-memory ledger waited for something")


@dataclass
class Known:
    """What must be true of one task, by the rules."""

    accepted: bool = False
    generation: int = 1
    attempt: int = 1
    status: TaskStatus = TaskStatus.QUEUED
    due: float | None = None
    cancel: bool = False
    updated: float = 0.0
    submitted: float = 0.0
    end: tuple[TaskStatus, Epoch] | None = None
    attempts: dict[Epoch, tuple[TaskStatus, float]] = field(default_factory=dict)
    legs: set[int] | None = None

    @property
    def current(self) -> set[int]:
        return {self.generation} if self.legs is None else self.legs

    @property
    def open(self) -> bool:
        return self.accepted and self.end is None

    @property
    def unheard(self) -> bool:
        return not self.accepted and self.end is None

    def takes(self, generation: int) -> bool:
        return self.open and generation in self.current and self.status in WAITING

    def last_leg(self, generation: int) -> bool:
        return self.current == {generation}

    def fall(self, epoch: Epoch, now: float) -> None:
        assert self.legs is not None
        self.legs.discard(epoch[0])
        self.updated = now
        self.attempts[epoch] = (TaskStatus.RETRYING, 0.0)

    def finish(self, status: TaskStatus, epoch: Epoch) -> None:
        self.end, self.due = (status, epoch), None
        if self.accepted:
            self.status = status

    def cancelled(self) -> None:
        begun = 0 if self.status is TaskStatus.QUEUED else 1
        self.finish(TaskStatus.CANCELLED, (self.generation, self.attempt, begun))


class LedgerAgainstTheRules(RuleBasedStateMachine):
    """Three tasks, reports from any epoch, claims, cancellations and redrives in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(START)
        self.ledger = MemoryLedger(self.clock)
        self.tasks = self.ledger.tasks
        self.model = {name: Known() for name in NAMES}
        self.now = START

    def tick(self) -> float:
        """Every event has a moment of its own."""
        self.now += 1.0
        self.clock._elapsed = self.now - START
        return self.now

    # -- accepting

    @rule(name=names)
    def accept(self, name: str) -> None:
        now, known = self.tick(), self.model[name]
        (told,) = said(self.tasks.accept([self.entry(name, now)])) or (None,)
        if known.accepted:
            assert told is not None
            assert (told.task_id, told.status, told.body_hash) == (name, known.status, name.encode())
            self.mention(known)
            return
        assert told is None
        known.accepted, known.submitted, known.updated = True, now, now
        early = {epoch: seen for epoch, seen in known.attempts.items() if epoch[0] == 1 and not seen[0].terminal}
        if early:
            known.status, due = early[max(early)]
            known.due = due if known.status is TaskStatus.RETRYING else None
        if known.end is not None:
            known.status, known.due = known.end[0], None

    @rule(name=names)
    def accept_twice_at_once(self, name: str) -> None:
        if self.model[name].accepted:
            return
        entry = self.entry(name, self.now + 1)
        self.accept(name)
        (told,) = said(self.tasks.accept([entry, entry]))
        assert told.task_id == name
        self.mention(self.model[name])

    @rule(name=names)
    def plan(self, name: str) -> None:
        """Only what nobody has heard of: a task that was not sent has no reports."""
        known = self.model[name]
        if known.accepted or known.end or known.attempts:
            return
        now = self.tick()
        task = Task(**self.fields(name, now), run_at=now + 5)
        assert said(self.tasks.plan([task])) == []
        known.accepted, known.submitted, known.updated, known.due = True, now, now + 5, now + 5
        (told,) = said(self.tasks.plan([task]))
        assert (told.task_id, told.decision) == (name, None)
        self.mention(known)

    @rule(name=names)
    def withdraw(self, name: str) -> None:
        known = self.model[name]
        said(self.tasks.withdraw([name]))
        if known.open and known.updated == known.submitted:
            self.model[name] = Known()

    def mention(self, known: Known) -> None:
        """Somebody else was told: it cannot be withdrawn any more."""
        if known.updated == known.submitted:
            known.updated += 1e-6

    # -- reports

    @rule(name=names, step=st.integers(-1, 1), attempt=st.integers(1, 3), delivery=st.integers(1, 2))
    def start(self, name: str, step: int, attempt: int, delivery: int) -> None:
        known, epoch = self.heard(name, step, attempt, delivery)
        if known is None:
            return
        verdict = self.report(name, epoch, ReportKind.STARTED, TaskStatus.RUNNING)
        if epoch in known.attempts:
            assert verdict is Verdict.DUPLICATE
        elif known.takes(epoch[0]) or known.unheard:
            assert verdict is Verdict.RECORDED
            if known.takes(epoch[0]):
                known.status, known.updated = TaskStatus.RUNNING, self.now
            known.attempts[epoch] = (TaskStatus.RUNNING, 0.0)
        else:
            assert verdict is Verdict.STALE

    @rule(name=names, step=st.integers(-1, 1), attempt=st.integers(1, 3), delivery=st.integers(1, 2))
    def retry(self, name: str, step: int, attempt: int, delivery: int) -> None:
        known, epoch = self.heard(name, step, attempt, delivery)
        if known is None:
            return
        verdict = self.report(name, epoch, ReportKind.RETRY, TaskStatus.RETRYING)
        due = self.now + 3.0
        before = known.attempts.get(epoch)
        if known.takes(epoch[0]) and not known.last_leg(epoch[0]):
            assert verdict is Verdict.FALLEN
            known.fall(epoch, self.now)
            return
        if known.takes(epoch[0]):
            assert verdict is Verdict.RECORDED
            known.status, known.updated, known.legs = TaskStatus.RETRYING, self.now, None
            known.due = 0.0 if known.cancel else due
        elif before is not None and before[0] is not TaskStatus.RUNNING:
            assert verdict is Verdict.DUPLICATE
            return
        elif not known.unheard:
            assert verdict is Verdict.STALE
            return
        assert verdict is Verdict.RECORDED
        known.attempts[epoch] = (TaskStatus.RETRYING, due)

    @rule(
        name=names,
        step=st.integers(-1, 1),
        attempt=st.integers(1, 3),
        delivery=st.integers(1, 2),
        status=st.sampled_from(sorted(TaskStatus)),
    )
    def final(self, name: str, step: int, attempt: int, delivery: int, status: TaskStatus) -> None:
        known, epoch = self.heard(name, step, attempt, delivery)
        if known is None:
            return
        before = known.attempts.get(epoch)
        verdict = self.report(name, epoch, ReportKind.FINAL, status)
        current = not known.accepted or epoch[0] in known.current
        asked = status is TaskStatus.CANCELLED and known.cancel
        if status not in TERMINAL:
            assert verdict is Verdict.STALE
        elif known.end is not None:
            assert verdict is (Verdict.DUPLICATE if known.end == (status, epoch) else Verdict.STALE)
            raced = known.accepted and known.legs is not None and {epoch[0], known.end[1][0]} <= known.legs
            unheard = before is None or before[0] is TaskStatus.RUNNING
            if (
                status is TaskStatus.CANCELLED
                and raced
                and epoch[0] != known.end[1][0]
                and unheard
                and not known.cancel
            ):
                known.attempts[epoch] = (TaskStatus.CANCELLED, 0.0)
        elif known.open and current and not known.last_leg(epoch[0]) and not (status is TaskStatus.SUCCESS or asked):
            assert verdict is Verdict.FALLEN
            known.fall(epoch, self.now)
        elif status is TaskStatus.SUCCESS or current or asked:
            late = status is TaskStatus.SUCCESS and not current
            assert verdict is (Verdict.LATE if late else Verdict.RECORDED)
            known.finish(status, epoch)
        else:
            assert verdict is Verdict.STALE, "a superseded failure must not end a task another attempt is finishing"

    def heard(self, name: str, step: int, attempt: int, delivery: int) -> tuple[Known | None, Epoch]:
        """The model and an epoch near the current one; None for a planned task: nothing of it was sent."""
        known = self.model[name]
        if known.status is TaskStatus.QUEUED and known.due is not None and known.open:
            return None, (1, 1, 1)
        return known, (max(1, known.generation + step), attempt, delivery)

    def report(self, name: str, epoch: Epoch, kind: ReportKind, status: TaskStatus) -> Verdict:
        now = self.tick()
        generation, attempt, delivery = epoch
        report = Report(
            kind=kind,
            task_id=name,
            request_id=f"r-{name}",
            task_type="echo",
            agent="ann",
            replica="ann-1",
            generation=generation,
            attempt=attempt,
            delivery=delivery,
            status=status,
            started_at=now,
            completed_at=None if kind is ReportKind.STARTED else now,
            retry_at=now + 3.0 if kind is ReportKind.RETRY else None,
        )
        (verdict,) = said(self.tasks.record([report]))
        assert verdict.kept == (verdict in (Verdict.RECORDED, Verdict.LATE))
        return verdict

    # -- claims

    @rule(wait=st.sampled_from([0.0, 4.0, 10.0]), limit=st.integers(1, 3))
    def claim_due(self, wait: float, limit: int) -> None:
        self.now += wait
        now = self.tick()
        due = [name for name in self.in_order() if _is_due(self.model[name], now)]
        due.sort(key=lambda name: (self.model[name].status is not TaskStatus.RETRYING, self.model[name].due or 0.0))
        claimed = {one.task.task_id: one for one in said(self.tasks.claim_due(now, limit))}
        expected: set[str] = set()
        for name in due[:limit]:
            known = self.model[name]
            known.updated = now
            if known.status is not TaskStatus.RETRYING:
                known.due = None
                expected.add(name)
            elif known.cancel:
                known.cancelled()
            else:
                known.generation, known.attempt, known.legs = known.generation + 1, known.attempt + 1, None
                known.status, known.due = TaskStatus.QUEUED, None
                expected.add(name)
        assert set(claimed) == expected
        self.same_numbers(claimed)

    @rule(age=st.sampled_from([0.5, 3.0, 8.0, 20.0]), limit=st.integers(1, 3))
    def claim_stranded(self, age: float, limit: int) -> None:
        now = self.tick()
        older_than = now - age
        silent = [name for name in self.in_order() if _is_silent(self.model[name], older_than)]
        silent.sort(key=lambda name: self.model[name].updated)
        claimed = {one.task.task_id: one for one in said(self.tasks.claim_stranded(older_than, limit))}
        expected: set[str] = set()
        for name in silent[:limit]:
            known = self.model[name]
            known.updated = now
            if known.cancel:
                known.cancelled()
                continue
            known.generation += 1
            known.status, known.legs = TaskStatus.QUEUED, None
            expected.add(name)
        assert set(claimed) == expected
        self.same_numbers(claimed)

    def in_order(self) -> list[str]:
        """Open tasks; of two with the same claim the rules prefer none, so the ledger's own order is taken."""
        assert set(self.ledger.tables.open) == {name for name in NAMES if self.model[name].open}
        return list(self.ledger.tables.open)

    def same_numbers(self, claimed: dict[str, StoredTask]) -> None:
        for name, stored in claimed.items():
            known = self.model[name]
            assert (stored.generation, stored.attempt, stored.status) == (
                known.generation,
                known.attempt,
                TaskStatus.QUEUED,
            )

    @rule(name=names)
    def redispatch(self, name: str) -> None:
        now, known = self.tick(), self.model[name]
        said(self.tasks.redispatched([(name, _decision(f"r-{name}", name, now, agent="ben"))]))
        if known.open:
            known.updated = now
            assert self.ledger.tables.open[name].selected_agent == "ben"

    @rule(name=names)
    def hedge(self, name: str) -> None:
        now, known = self.tick(), self.model[name]
        wanted = Hedge("ann", _decision(f"r-{name}:2:{now}", name, now, agent="ben"))
        told = said(self.tasks.hedge([wanted]))
        waits = known.open and known.status in WAITING and known.due is None
        if not waits or known.generation != 1 or known.cancel:
            assert told == []
            return
        (stored,) = told
        assert (stored.generation, stored.attempt, stored.status) == (2, known.attempt, known.status)
        known.generation, known.legs, known.updated = 2, {1, 2}, now

    # -- orders

    @rule(name=names)
    def cancel(self, name: str) -> None:
        now, known = self.tick(), self.model[name]
        if not known.open:
            with pytest.raises(Conflict if known.end is not None else NotFound):
                said(self.tasks.cancel(name, now))
            return
        told = said(self.tasks.cancel(name, now))
        known.updated, known.cancel = now, True
        if known.status is not TaskStatus.RUNNING:
            known.cancelled()
        assert told is known.status

    @rule(name=names)
    def reopen(self, name: str) -> None:
        now, known = self.tick(), self.model[name]
        if not known.accepted:
            with pytest.raises(NotFound):
                said(self.tasks.reopen(name, now))
            return
        if known.end is None or known.end[0] is TaskStatus.SUCCESS:
            with pytest.raises(Conflict):
                said(self.tasks.reopen(name, now))
            return
        stored = said(self.tasks.reopen(name, now))
        status, epoch = known.end
        known.attempts[epoch] = (status, 0.0)
        if status is TaskStatus.DEAD_LETTER:
            assert said(self.ledger.reader.dead_letter(name)).redriven_at == now
        known.end, known.status, known.cancel, known.due = None, TaskStatus.QUEUED, False, None
        known.generation, known.attempt, known.updated, known.legs = known.generation + 1, 1, now, None
        assert (stored.generation, stored.attempt) == (known.generation, 1)

    # -- what holds after every step

    @invariant()
    def the_tables_are_what_the_rules_say(self) -> None:
        tables = self.ledger.tables
        for name, known in self.model.items():
            row, outcome = tables.tasks.get(name), tables.outcomes.get(name)
            assert (row is not None) == known.accepted
            assert (name in tables.open) == known.open
            ended = None
            if outcome is not None:
                report = outcome.report
                ended = report.status, (report.generation, report.attempt, report.delivery)
            assert ended == known.end
            if row is not None:
                assert (row.status, row.generation, row.attempt) == (known.status, known.generation, known.attempt)
            if row is not None and known.open:
                assert (row.next_run_at, row.cancel_requested) == (known.due, known.cancel)
                assert row.updated_at == known.updated
                assert set(row.current) == known.current
                assert row.current, "somebody's word always counts"
            seen = {epoch: attempt.status for epoch, attempt in tables.attempts.get(name, {}).items()}
            assert seen == {epoch: status for epoch, (status, _) in known.attempts.items()}

    @invariant()
    def the_reader_says_the_same(self) -> None:
        for name, known in self.model.items():
            if known.unheard:
                with pytest.raises(NotFound):
                    said(self.ledger.reader.task(name))
                continue
            view = said(self.ledger.reader.task(name))
            assert view.status is (known.status if known.end is None else known.end[0])

    @staticmethod
    def fields(name: str, now: float) -> dict[str, Any]:
        return {
            "task_id": name,
            "request_id": f"r-{name}",
            "task_type": "echo",
            "submitted_at": now,
            "timeout_seconds": PATIENCE,
            "body_hash": name.encode(),
        }

    def entry(self, name: str, now: float) -> Entry:
        return Entry(Task(**self.fields(name, now)), _decision(f"r-{name}", name, now))


def _is_due(known: Known, now: float) -> bool:
    return known.due is not None and known.due <= now


def _is_silent(known: Known, older_than: float) -> bool:
    patience = PATIENCE if known.status is TaskStatus.RUNNING else 0.0
    return known.status in WAITING and known.due is None and known.updated < older_than - patience


def _decision(request_id: str, task_id: str, now: float, *, agent: str = "ann") -> Decision:
    return Decision(
        request_id=request_id,
        task_id=task_id,
        task_type="echo",
        selected_agent=agent,
        confidence=0.8,
        propensity=0.7,
        strategy="sampled",
        policy_version="v1",
        reasoning="",
        candidates=(),
        rejected=(),
        context=DecisionContext(request_id=request_id, task_type="echo"),
        created_at=now,
    )


TestLedgerAgainstTheRules = LedgerAgainstTheRules.TestCase
TestLedgerAgainstTheRules.settings = machine(steps=30)
