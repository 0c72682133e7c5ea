"""The history checker: what clients were told, what the servers did and what is left, against what was promised.

Pure, and the same for simulated and for real runs; evidence a run cannot give is simply not judged.

P1  every task a client was told is accepted reaches exactly one end
P2  an end is written once and never changes
P3  a success was really worked for
and: nobody is told things in the wrong order; an acknowledgement follows what it acknowledges.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, cast

import msgspec

from agent_engines.domain.poison import STARTS_BEFORE_BURIAL
from agent_engines.domain.tasks import TaskStatus

from .evidence import Fact, ReportKey

FROM_THE_CURRENT = frozenset({TaskStatus.FAILED, TaskStatus.DEAD_LETTER, TaskStatus.EXPIRED})
"""Ends that only the current generation may bring."""
POISONED = "Poisoned"
UNDECODABLE = "Undecodable"
"""Nobody can run what nobody can read."""


class Op(StrEnum):
    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    REOPEN = "reopen"
    """Retry or redrive: the only way from an end back to work."""


class Phase(StrEnum):
    OK = "ok"
    FAIL = "fail"
    """Refused for certain: nothing was done."""
    UNKNOWN = "unknown"
    """No answer, or one that leaves open whether it was done."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of one client. Times: seconds of one clock. `body`: what was asked for, as one comparable text."""

    client: str
    op: Op
    began: float
    ended: float
    phase: Phase
    task_id: str | None = None
    request_id: str | None = None
    key: str | None = None
    body: str = ""
    status: TaskStatus | None = None
    """What a read, a cancellation or a reopening was answered."""
    error: str = ""


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a handler; `token` is what its result carries when it succeeds."""

    task_id: str
    generation: int
    attempt: int
    where: str
    at: float
    token: str


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A task as the ledger holds it at the end; None where there is no such row."""

    task_id: str
    request_id: str
    key: str | None = None
    submitted: bool = True
    """False: only its terminal row is there."""
    generation: int = 1
    max_attempts: int = 3
    end: TaskStatus | None = None
    end_generation: int | None = None
    end_delivery: int = 1
    """How often the bus had delivered what ended it."""
    ends: int = 0
    """Terminal rows."""
    result: Any = None
    error: str = ""
    deadline: float | None = None
    legs: tuple[int, ...] = ()
    """Of a hedged task the generations that may end it, those that have fallen left out; empty: the current one alone."""


class History(msgspec.Struct, kw_only=True):
    """Everything about one run. `executions`, `facts` and what remains on the bus: None when the run cannot tell."""

    calls: list[Call]
    rows: list[Row]
    executions: list[Execution] | None = None
    facts: list[Fact] | None = None
    remaining: list[tuple[str, Hashable]] | None = None
    """(kind, key) of messages that are still stored."""


class Violation(msgspec.Struct, frozen=True):
    rule: str
    task_id: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.task_id}: {self.detail}"


def check(history: History, *, all_ended: bool = True) -> list[Violation]:
    """Everything that contradicts the promises. `all_ended`: the run waited until every accepted task should have an end."""
    rows = {row.task_id: row for row in history.rows}
    found = [
        *_accepted(history.calls, rows, all_ended=all_ended),
        *_origins(history.calls, rows),
        *_keys(history.calls, history.rows),
        *_reads(history.calls),
        *_cancelled(history.calls, rows),
        *_ends(history, rows),
    ]
    if history.executions is not None:
        found.extend(_worked(history.executions, rows.values(), history.facts))
    if history.facts is not None:
        found.extend(_written_once(history.facts))
        found.extend(_acknowledged(history.facts))
        found.extend(_hedged(history.facts, rows))
    if history.facts is not None and history.remaining is not None:
        found.extend(_conserved(history.facts, history.remaining))
    return found


def _accepted(calls: Sequence[Call], rows: dict[str, Row], *, all_ended: bool) -> Iterator[Violation]:
    for task_id in dict.fromkeys(call.task_id for call in calls if call.op is Op.SUBMIT and call.phase is Phase.OK):
        row = rows.get(task_id or "")
        if row is None or not row.submitted:
            yield Violation("lost", str(task_id), "a client was told it is accepted, and the ledger does not know it")
        elif all_ended and row.end is None:
            yield Violation("stuck", row.task_id, "accepted, and without an end after everything was well again")
    for row in rows.values():
        if row.ends > 1:
            yield Violation("two ends", row.task_id, f"{row.ends} terminal rows")


def _origins(calls: Sequence[Call], rows: dict[str, Row]) -> Iterator[Violation]:
    asked: defaultdict[str | None, set[Phase]] = defaultdict(set)
    for call in calls:
        if call.op is Op.SUBMIT:
            asked[call.request_id].add(call.phase)
    for row in rows.values():
        phases = asked.get(row.request_id)
        if phases is None:
            yield Violation("from nowhere", row.task_id, f"nobody submitted {row.request_id}")
        elif phases == {Phase.FAIL}:
            yield Violation("refused and done", row.task_id, "the client was told for certain that it is refused")


def _keys(calls: Sequence[Call], rows: Sequence[Row]) -> Iterator[Violation]:
    first: dict[str, Call] = {}
    for call in sorted((call for call in calls if _keyed(call)), key=lambda call: call.ended):
        key = call.key or ""
        known = first.setdefault(key, call)
        if call.task_id != known.task_id:
            yield Violation(
                "two tasks for a key", str(call.task_id), f"key {key} was answered with {known.task_id} before"
            )
        elif call.body != known.body:
            yield Violation("two bodies for a key", str(call.task_id), f"key {key} was accepted with another body")
    holders = Counter(row.key for row in rows if row.key is not None)
    for key, count in holders.items():
        if count > 1:
            yield Violation("two tasks for a key", str(key), f"{count} rows")


def _keyed(call: Call) -> bool:
    return call.op is Op.SUBMIT and call.phase is Phase.OK and call.key is not None


def _reads(calls: Sequence[Call]) -> Iterator[Violation]:
    """Once somebody has seen an end, everybody who asks later sees the same one, until it may have been reopened."""
    ends: dict[str, tuple[float, TaskStatus]] = {}
    reopened = {call.task_id: call.began for call in reversed(calls) if call.op is Op.REOPEN}
    seen = [call for call in calls if call.op in (Op.READ, Op.CANCEL) and call.phase is Phase.OK and call.status]
    for call in sorted(seen, key=lambda call: call.ended):
        task_id, status = str(call.task_id), call.status
        if status is None or not status.terminal or call.ended >= reopened.get(task_id, float("inf")):
            continue
        if task_id not in ends:
            ends[task_id] = call.ended, status
    for call in seen:
        task_id = str(call.task_id)
        if task_id not in ends or call.ended >= reopened.get(task_id, float("inf")):
            continue
        at, status = ends[task_id]
        if call.began > at and call.status is not status:
            yield Violation("went back", task_id, f"{call.client} saw {call.status} after somebody had seen {status}")


def _cancelled(calls: Sequence[Call], rows: dict[str, Row]) -> Iterator[Violation]:
    reopened = {call.task_id for call in calls if call.op is Op.REOPEN}
    for call in calls:
        told = call.op is Op.CANCEL and call.phase is Phase.OK and call.status is TaskStatus.CANCELLED
        row = rows.get(call.task_id or "")
        if told and row is not None and call.task_id not in reopened and row.end is not TaskStatus.CANCELLED:
            yield Violation("not cancelled", row.task_id, f"told to be cancelled, ended as {row.end}")


def _ends(history: History, rows: dict[str, Row]) -> Iterator[Violation]:
    wanted = {call.task_id for call in history.calls if call.op is Op.CANCEL}
    for row in rows.values():
        if row.end is TaskStatus.CANCELLED and row.task_id not in wanted:
            yield Violation("unasked", row.task_id, "cancelled, and nobody asked for it")
        if row.end is TaskStatus.EXPIRED and row.submitted and row.deadline is None:
            yield Violation("unasked", row.task_id, "expired without a deadline")
        current = row.legs or (row.generation,)
        late = row.end_generation is not None and row.submitted and row.end_generation not in current
        if row.end in FROM_THE_CURRENT and late:
            yield Violation(
                "stale end",
                row.task_id,
                f"{row.end} came from generation {row.end_generation}, the current one is {row.generation}",
            )


def _worked(executions: Sequence[Execution], rows: Iterable[Row], facts: Sequence[Fact] | None) -> Iterator[Violation]:
    tokens: defaultdict[str, set[str]] = defaultdict(set)
    attempts: defaultdict[str, int] = defaultdict(int)
    for execution in executions:
        tokens[execution.task_id].add(execution.token)
        attempts[execution.task_id] += 1
    reopened = {fact.key for fact in facts or () if fact.what == "removed"}
    for row in rows:
        done = attempts[row.task_id]
        if row.end is TaskStatus.SUCCESS:
            token = cast("dict[str, Any]", row.result).get("token") if isinstance(row.result, dict) else None
            if not done:
                yield Violation("success without work", row.task_id, "no handler ever ran")
            elif token not in tokens[row.task_id]:
                yield Violation("foreign result", row.task_id, f"the result {row.result!r} is from no run of this task")
        if row.end is TaskStatus.FAILED and not done:
            yield Violation("failure without work", row.task_id, "no handler ever ran")
        if row.end is TaskStatus.DEAD_LETTER and row.task_id not in reopened:
            yield from _given_up(row, done)


def _given_up(row: Row, done: int) -> Iterator[Violation]:
    """A dead letter had all its attempts, or was started so often without an end that it must be what kills its processes."""
    if row.error == POISONED:
        if done < STARTS_BEFORE_BURIAL:
            yield Violation("given up early", row.task_id, f"poisoned after {done} runs")
    elif row.submitted and row.error != UNDECODABLE and done < row.max_attempts:
        yield Violation(
            "given up early", row.task_id, f"{row.error} after {done} runs of {row.max_attempts} it was owed"
        )


def _written_once(facts: Sequence[Fact]) -> Iterator[Violation]:
    written: set[Hashable] = set()
    for fact in facts:
        if fact.what == "changed":
            yield Violation("end changed", str(fact.key), f"a terminal row was overwritten with {fact.status}")
        elif fact.what == "written" and fact.key in written:
            yield Violation("two ends", str(fact.key), f"a second terminal row: {fact.status}")
        elif fact.what == "written":
            written.add(fact.key)
        elif fact.what == "removed":
            written.discard(fact.key)


def _acknowledged(facts: Sequence[Fact]) -> Iterator[Violation]:
    """A report leaves the bus after its commit, a task after its report is stored."""
    committed: set[Hashable] = set()
    reported: set[Hashable] = set()
    for fact in facts:
        if fact.what == "committed":
            committed.add(fact.key)
        elif fact.what == "stored" and fact.kind == "report":
            task_id, generation, _, _, kind = cast("ReportKey", fact.key)
            if kind != "started":
                reported.add((task_id, generation))
        elif fact.what == "acked" and fact.kind == "report" and fact.key not in committed:
            yield Violation("acknowledged before commit", cast("ReportKey", fact.key)[0], f"report {fact.key}")
        elif fact.what == "acked" and fact.kind == "task" and fact.key not in reported:
            yield Violation("acknowledged before report", str(cast("tuple[str, int]", fact.key)[0]), f"task {fact.key}")


def _hedged(facts: Sequence[Fact], rows: dict[str, Row]) -> Iterator[Violation]:
    """One second leg for a task, never for its last attempt; the next attempt begins when both legs have failed."""
    failed: set[tuple[str, int]] = set()
    legs: dict[str, tuple[int, int]] = {}
    for fact in facts:
        if fact.what == "committed":
            task_id, generation, _, _, kind = cast("ReportKey", fact.key)
            if kind != "started" and fact.status is not TaskStatus.SUCCESS:
                failed.add((task_id, generation))
        elif fact.what in ("hedged", "retried"):
            task_id, generation = cast("tuple[str, int]", fact.key)
            if fact.what == "hedged":
                if task_id in legs:
                    yield Violation("hedged again", task_id, f"generations {legs[task_id][1]} and {generation}")
                legs[task_id] = generation - 1, generation
                row = rows.get(task_id)
                if row is not None and row.max_attempts <= 1:
                    yield Violation("hedged the last attempt", task_id, "it has one attempt")
            elif task_id in legs and generation == legs[task_id][1] + 1:
                running = [leg for leg in legs[task_id] if (task_id, leg) not in failed]
                if running:
                    yield Violation("retried beside a leg", task_id, f"generation {running[0]} has not failed yet")


def _conserved(facts: Sequence[Fact], remaining: Sequence[tuple[str, Hashable]]) -> Iterator[Violation]:
    """What was stored is acknowledged, lost by a stated fault, or still there."""
    balance: Counter[tuple[str, Hashable]] = Counter()
    weight = {"stored": 1, "returned": 1, "acked": -1, "lost": -1}
    for fact in facts:
        if fact.what in weight:
            balance[fact.kind, fact.key] += weight[fact.what]
    balance.subtract(remaining)
    for (kind, key), count in balance.items():
        if count > 0:
            yield Violation(
                "dropped", str(cast("tuple[str, int]", key)[0]), f"a stored {kind} {key} left without acknowledgement"
            )
