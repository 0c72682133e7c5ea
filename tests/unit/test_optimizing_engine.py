"""The optimizing engine over the in-memory ledger: what it reads, what it estimates, and that it leaves things alone."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain import subjects
from agent_engines.domain.decisions import Candidate, Decision
from agent_engines.domain.errors import ConfigurationError, Conflict, NotFound, Unavailable
from agent_engines.domain.feedback import FeedbackDraft, feedback_report
from agent_engines.domain.guardrail import Earned
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.policy_word import NOTHING_PROMOTED, PolicyChange, changed
from agent_engines.domain.promotion import objections
from agent_engines.domain.tasks import Task, TaskStatus
from agent_engines.engines import optimizing
from agent_engines.engines.optimizing import OptimizingEngine
from agent_engines.engines.outcomes import OutcomeLog
from agent_engines.engines.replay import asked_for_evidence
from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import Entry, LoggedDecision
from agent_engines.runtime.policy_board import PolicyBoard, Standing


def decision(number: int, agent: str, propensity: float, **changes: Any) -> Decision:
    agents = changes.pop("agents", ("cheap", "good"))
    given: dict[str, Any] = {
        "task_id": f"task-{number}",
        "task_type": "read",
        "policy_version": "adaptive-1",
        "created_at": 0.0,
        **changes,
    }
    candidate = {"replicas": 1, "slots": 1, "in_flight": 0, "service_ms": 1.0, "completion_ms": 1.0, "success": 0.5}
    return Decision(
        request_id=f"request-{number}",
        selected_agent=agent,
        confidence=0.5,
        propensity=propensity,
        strategy="adaptive",
        reasoning="",
        candidates=tuple(Candidate(agent=name, cost=0.0, age_seconds=0.0, **candidate) for name in agents),
        **given,
    )


def report(number: int, agent: str, **changes: Any) -> Report:
    given: dict[str, Any] = {"kind": ReportKind.FINAL, "status": TaskStatus.SUCCESS, **changes}
    return Report(task_id=f"task-{number}", request_id=f"request-{number}", task_type="read", agent=agent, **given)


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(clock=self.clock)
        self.ledger = MemoryLedger(self.clock)
        self.telemetry = NullTelemetry()
        self.engine = OptimizingEngine()
        self.connections = Connections(bus=self.bus, telemetry=self.telemetry, clock=self.clock, ledger=self.ledger)

    async def dispatch(self, *decisions: Decision) -> None:
        entries = [
            Entry(
                Task(
                    task_id=d.task_id or "", request_id=d.request_id, task_type=d.task_type, submitted_at=d.created_at
                ),
                d,
            )
            for d in decisions
        ]
        await self.ledger.tasks.accept(entries)

    async def history(self, count: int, *, seed: int = 1, first: int = 0) -> None:
        """`good` succeeds in 9 of 10 at a cost of 2, `cheap` in 5 of 10 at 1; chosen with 0.3 and 0.7."""
        rng = random.Random(seed)
        reports: list[Report] = []
        for number in range(first, first + count):
            agent, propensity = ("good", 0.3) if rng.random() < 0.3 else ("cheap", 0.7)
            await self.dispatch(decision(number, agent, propensity, created_at=self.clock.now()))
            quality = float(rng.random() < (0.9 if agent == "good" else 0.5))
            reports.append(report(number, agent, quality=quality, cost=2.0 if agent == "good" else 1.0))
        await self.ledger.tasks.record(reports)

    async def ask(self, what: str = "policies") -> dict[str, Any]:
        return json.loads(await self.bus.signals.ask(subjects.ask("optimizing", what), b"{}", 10.0))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    found = Bench()
    await found.engine.start(found.connections)
    yield found
    await found.engine.stop(0)


async def settled(bench: Bench) -> None:
    """What was sent has been heard."""
    while not bench.engine._judged:
        await asyncio.sleep(0)


def by_name(found: dict[str, Any], task_type: str | None = None) -> dict[str, dict[str, Any]]:
    return {row["policy"]: row for row in found["policies"] if row["task_type"] == task_type}


async def test_each_simple_policy_gets_what_it_would_have_earned(bench: Bench) -> None:
    await bench.history(2000)
    await bench.engine.refresh()
    found = bench.engine.policies()
    assert (found["active"], found["rows"], found["refused"]) == ("adaptive-1", 2000, 0)
    assert set(by_name(found)) == set(by_name(found, "read")) == {"logged", "uniform", "always:cheap", "always:good"}
    rows = by_name(found)
    for policy, value, cost in (("always:good", 0.9, 2.0), ("always:cheap", 0.5, 1.0), ("uniform", 0.7, 1.5)):
        low, high = rows[policy]["interval"]
        assert low <= value <= high
        assert rows[policy]["value"] == pytest.approx(value, abs=0.05)
        assert rows[policy]["mean_cost"] == pytest.approx(cost, abs=0.05)
        assert rows[policy]["warnings"] == []
    assert rows["logged"]["effective_sample_size"] == 2000
    assert rows["logged"]["value"] == pytest.approx(0.62, abs=0.03)
    assert set(rows["logged"]) == {
        "policy",
        "task_type",
        "method",
        "value",
        "standard_error",
        "interval",
        "effective_sample_size",
        "rows",
        "eligible_share",
        "mean_cost",
        "warnings",
    }


async def test_a_question_is_answered_with_what_the_ledger_has_now(bench: Bench) -> None:
    await bench.history(50)
    await bench.clock.advance(3)
    found = await bench.ask()
    assert found["rows"] == 50
    assert "effective sample size" in by_name(found)["always:good"]["warnings"][0]


async def test_nothing_is_tuned_by_itself_and_that_is_said(bench: Bench) -> None:
    found = await bench.ask("tuning")
    assert found["changes"] == []
    assert "an operator promotes" in found["note"]
    assert (await bench.ask())["promoted"] is None


async def test_what_was_changed_is_told_the_newest_first_and_the_active_policy_with_its_routers(bench: Bench) -> None:
    board = PolicyBoard(bench.bus.settings, bench.clock, bench.telemetry.log("test"))
    word = NOTHING_PROMOTED
    for turn, name in enumerate(("c3", "prequal"), start=1):
        change = PolicyChange(turn=turn, verb="promote", source="x", to=name, version=f"{name}-1", at=float(turn))
        word = changed(word, change)
    await board.write(word, 0)
    await board.tell(Standing(router="router-1", turn=1, policy="c3", version="c3-1", problem="prequal is not here"))
    async with asyncio.timeout(5):
        while not (found := await bench.ask())["routers"]:
            await asyncio.sleep(0)
    assert (found["active"], found["promoted"]) == ("prequal-1", "prequal")
    assert found["routers"] == [
        {"router": "router-1", "turn": 1, "policy": "c3", "version": "c3-1", "problem": "prequal is not here"}
    ]
    told = (await bench.ask("tuning"))["changes"]
    assert [(each["turn"], each["from"], each["to"]) for each in told] == [(2, "x", "prequal"), (1, "x", "c3")]


def guarded(at: float, version: str = "worse-1") -> PolicyChange:
    before = (Earned(task_type="read", rows=2000, mean=0.9),)
    return PolicyChange(
        turn=1, verb="promote", source="adaptive", to="worse", version=version, at=at, guarded=True, baseline=before
    )


async def test_a_promoted_policy_that_earns_measurably_less_is_rolled_back_and_the_numbers_are_kept(
    bench: Bench,
) -> None:
    board = PolicyBoard(bench.bus.settings, bench.clock, bench.telemetry.log("test"))
    await bench.clock.advance(1.0)
    await board.write(changed(NOTHING_PROMOTED, guarded(bench.clock.now(), "adaptive-1")), 0)
    while (await bench.ask())["promoted"] is None:
        await asyncio.sleep(0)
    await bench.history(60)
    await bench.engine.refresh()
    found = bench.engine.policies()["guard"]
    assert (found.rows, found.breach) == (60, False), "a few bad outcomes are no proof"
    assert (await board.read())[0].active == "worse"
    await bench.history(500, first=60)
    await bench.engine.refresh()
    word, _ = await board.read()
    assert (word.active, word.turn) == (None, 2)
    last = word.changes[-1]
    assert (last.verb, last.source, last.to, last.by) == ("rollback", "worse", "adaptive", "the guard")
    assert "560 outcomes earned 0.6" in last.reason
    assert "before it the same work earned 0.9000" in last.reason
    assert "A promoted policy did measurably worse and was rolled back" in bench.telemetry.messages("warning")
    await bench.history(500, first=560)
    await bench.engine.refresh()
    assert (await board.read())[0] == word, "nothing is guarded after a rollback"
    assert (await bench.ask())["active"] == "adaptive-1"


@pytest.mark.parametrize("case", ["before it", "another policy", "not guarded", "an operator was faster"])
async def test_what_says_nothing_about_the_promoted_policy_rolls_nothing_back(bench: Bench, case: str) -> None:
    board = PolicyBoard(bench.bus.settings, bench.clock, bench.telemetry.log("test"))
    await bench.clock.advance(1.0)
    change = guarded(bench.clock.now(), "adaptive-1")
    if case == "before it":
        change = msgspec.structs.replace(change, at=bench.clock.now() + 1.0)
    elif case == "another policy":
        change = msgspec.structs.replace(change, version="worse-1")
    elif case == "not guarded":
        change = msgspec.structs.replace(change, guarded=False)
    word = changed(NOTHING_PROMOTED, change)
    await board.write(word, 0)
    while (await bench.ask())["promoted"] is None:
        await asyncio.sleep(0)
    await bench.history(600)
    if case == "an operator was faster":
        again = PolicyChange(turn=2, verb="promote", source="worse", to="c3", version="c3-1", at=bench.clock.now())
        word = changed(word, again)
        await board.write(word, (await board.read())[1])
    await bench.engine.refresh()
    assert (await board.read())[0] == word


async def test_failures_that_end_before_the_successes_roll_nothing_back(bench: Bench) -> None:
    board = PolicyBoard(bench.bus.settings, bench.clock, bench.telemetry.log("test"))
    await bench.clock.advance(1.0)
    word = changed(NOTHING_PROMOTED, guarded(bench.clock.now(), "adaptive-1"))
    await board.write(word, 0)
    while (await bench.ask())["promoted"] is None:
        await asyncio.sleep(0)
    for number in range(1000):
        await bench.dispatch(decision(number, "good", 0.5, created_at=bench.clock.now()))
    await bench.ledger.tasks.record([report(number, "good", status=TaskStatus.FAILED) for number in range(100)])
    await bench.engine.refresh()
    found = bench.engine.policies()["guard"]
    assert (found.rows, found.mean) == (1000, pytest.approx(0.9))
    assert (await board.read())[0] == word


@pytest.mark.parametrize("error", [Conflict("somebody was faster"), Unavailable("the bus is away")])
async def test_a_rollback_that_could_not_be_written_is_tried_again_in_the_next_round(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    board = PolicyBoard(bench.bus.settings, bench.clock, bench.telemetry.log("test"))
    await bench.clock.advance(1.0)
    await board.write(changed(NOTHING_PROMOTED, guarded(bench.clock.now(), "adaptive-1")), 0)
    while (await bench.ask())["promoted"] is None:
        await asyncio.sleep(0)
    await bench.history(600)
    put = bench.bus.settings.put

    async def refused(*_: Any, **__: Any) -> int:
        raise error

    monkeypatch.setattr(bench.bus.settings, "put", refused)
    await bench.engine.refresh()
    assert (await board.read())[0].active == "worse"
    monkeypatch.setattr(bench.bus.settings, "put", put)
    await bench.engine.refresh()
    assert (await board.read())[0].active is None


class Good:
    """Always the good one. `fault`: what it raises instead."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def choose(self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> tuple[str, float, float]:
        if self.fault:
            raise RuntimeError(self.fault)
        return "good", 0.9, 1.0

    def learn(self, decision: Mapping[str, Any], outcome: Mapping[str, Any]) -> None: ...


async def test_the_gain_of_a_policy_of_ones_own_is_told_and_one_that_fails_is_named(bench: Bench) -> None:
    await bench.history(2000)
    bench.engine.judges({"mine": lambda seed: Good(), "broken": lambda seed: Good("no model")})
    found = await asked_for_evidence(bench.bus, "mine")
    whole = found.gains[0]
    assert [(one.task_type, one.rows) for one in found.earned] == [("read", 2000)]
    assert found.earned[0].mean == pytest.approx(0.62, abs=0.03)
    assert whole.interval is not None
    assert whole.interval[0] < 0.9 - 0.62 < whole.interval[1]
    assert objections([whole]) == ()
    with pytest.raises(Conflict, match="no model"):
        await asked_for_evidence(bench.bus, "broken")
    with pytest.raises(NotFound, match="mine, broken and always:<agent>"):
        await asked_for_evidence(bench.bus, "magic")


async def test_success_and_failure_count_when_nobody_told_a_quality(bench: Bench) -> None:
    statuses = [TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.DEAD_LETTER, TaskStatus.SUCCESS, TaskStatus.CANCELLED]
    for number, status in enumerate(statuses):
        await bench.dispatch(decision(number, "good", 1.0, agents=("good",), created_at=bench.clock.now()))
        await bench.ledger.tasks.record([report(number, "good", status=status)])
    await bench.engine.refresh()
    row = by_name(bench.engine.policies())["logged"]
    assert (row["rows"], row["value"]) == (4, 0.5)


async def test_a_task_that_ends_later_is_counted_then(bench: Bench) -> None:
    await bench.dispatch(decision(1, "good", 0.5, created_at=bench.clock.now()))
    await bench.clock.advance(20)
    await bench.history(20, first=10)
    await bench.clock.advance(20)
    await bench.engine.refresh()
    assert len(bench.engine.outcomes) == 20
    await bench.clock.advance(60)
    await bench.ledger.tasks.record([report(1, "good")])
    await bench.engine.refresh()
    assert len(bench.engine.outcomes) == 21


async def test_who_hangs_is_counted_when_its_time_is_over(bench: Bench) -> None:
    """A task that takes its 300 seconds and fails speaks against its agent more than any other."""
    await bench.dispatch(decision(1, "good", 0.5, created_at=bench.clock.now()))
    await bench.clock.advance(20)
    await bench.engine.refresh()
    await bench.clock.advance(320)
    await bench.dispatch(decision(2, "good", 0.5, created_at=bench.clock.now()))
    await bench.ledger.tasks.record([report(2, "good")])
    await bench.clock.advance(10)
    await bench.engine.refresh()
    assert bench.engine.policies()["waiting"] == 1
    await bench.ledger.tasks.record([report(1, "good", status=TaskStatus.FAILED)])
    await bench.engine.refresh()
    assert by_name(bench.engine.policies())["logged"]["value"] == 0.5
    assert (bench.engine.policies()["waiting"], bench.engine.policies()["unended"]) == (0, 0)


async def test_a_busy_round_forgets_nobody_who_has_not_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizing, "PAGE", 10)
    monkeypatch.setattr(optimizing, "MOST_PAGES", 3)
    await bench.engine.refresh()
    await bench.clock.advance(1)
    await bench.dispatch(decision(1, "cheap", 0.5, created_at=bench.clock.now()))
    await bench.clock.advance(90)
    for number in range(100, 200):
        await bench.dispatch(decision(number, "good", 0.3, created_at=bench.clock.now() - 80 + 0.5 * (number - 100)))
        await bench.ledger.tasks.record([report(number, "good")])
    await bench.engine.refresh()
    await bench.clock.advance(60)
    await bench.ledger.tasks.record([report(1, "cheap", status=TaskStatus.FAILED)])
    await bench.engine.refresh()
    assert bench.engine.outcomes.knows("request-1")


async def test_what_never_ends_is_given_up_and_counted_once(bench: Bench) -> None:
    await bench.dispatch(decision(1, "good", 0.5, created_at=bench.clock.now()))
    await bench.engine.refresh()
    await bench.clock.advance(optimizing.PENDING_SECONDS + 1)
    for _ in range(3):
        await bench.engine.refresh()
    assert (bench.engine.policies()["waiting"], bench.engine.policies()["unended"]) == (0, 1)


async def test_work_that_is_judged_later_is_estimated_anew(bench: Bench) -> None:
    """The judges need longer than a round; without this only what they said before it would count, until the next restart."""
    for number in range(4):
        await bench.dispatch(decision(number, "good", 0.5, created_at=bench.clock.now()))
        await bench.ledger.tasks.record([report(number, "good")])
        await bench.clock.advance(10)
    await bench.engine.refresh()
    assert by_name(bench.engine.policies())["logged"]["value"] == 1.0
    await bench.clock.advance(3000)
    told = await bench.ledger.feedback.add("task-0", FeedbackDraft(quality=0.2), bench.clock.now())
    judged = msgspec.json.encode([feedback_report(told, "")])
    await bench.bus.signals.send(subjects.feedback("-"), b'{"v":1,"seal":"","reports":%b}' % judged)
    await bench.bus.signals.send(subjects.feedback("-"), b"what cannot be read")
    await settled(bench)
    await bench.engine.refresh()
    row = by_name(bench.engine.policies())["logged"]
    assert (row["rows"], row["value"]) == (4, pytest.approx(0.8))


async def test_nothing_new_means_no_new_estimates(bench: Bench) -> None:
    await bench.history(20)
    await bench.clock.advance(10)
    await bench.engine.refresh()
    before, at = bench.engine.policies()["policies"], bench.engine.policies()["generated_at"]
    await bench.clock.advance(10)
    await bench.engine.refresh()
    assert bench.engine.policies()["policies"] is before
    assert bench.engine.policies()["generated_at"] == at


async def test_rows_leave_after_a_day(bench: Bench) -> None:
    await bench.history(20)
    await bench.engine.refresh()
    assert len(bench.engine.outcomes) == 20
    await bench.clock.advance(optimizing.HISTORY_SECONDS + 1)
    await bench.engine.refresh()
    assert len(bench.engine.outcomes) == 0
    assert bench.engine.policies()["policies"] == []


async def test_more_decisions_of_one_moment_than_a_page_holds_are_all_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizing, "PAGE", 10)
    await bench.history(95)
    await bench.engine.refresh()
    assert len(bench.engine.outcomes) == 95


async def test_a_busy_system_is_sampled_up_to_the_last_minute(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizing, "PAGE", 10)
    monkeypatch.setattr(optimizing, "MOST_PAGES", 3)
    await bench.history(5)
    await bench.engine.refresh()
    await bench.clock.advance(400)
    for number in range(100, 300):
        made = bench.clock.now() - 400 + 2 * (number - 99.5)
        await bench.dispatch(decision(number, "good", 0.3, created_at=made))
        await bench.ledger.tasks.record([report(number, "good")])
    await bench.engine.refresh()
    assert 20 < len(bench.engine.outcomes) < 40
    await bench.engine.refresh()
    await bench.engine.refresh()
    assert bench.engine.outcomes.knows("request-299")
    assert not bench.engine.outcomes.knows("request-200")


async def test_the_first_round_goes_back_only_as_far_as_it_can_read_all(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizing, "PAGE", 10)
    monkeypatch.setattr(optimizing, "MOST_PAGES", 4)
    for hour in range(10):
        await bench.history(10, first=hour * 10)
        await bench.clock.advance(3000)
    engine = OptimizingEngine()
    await engine.start(bench.connections)
    await engine.refresh()
    # 10 rows every 50 minutes: the last hour fits into four pages, the last six hours do not.
    assert {row.request_id for row in engine.outcomes.rows} == {f"request-{n}" for n in range(90, 100)}
    await engine.stop(0)


async def test_where_an_agent_was_no_candidate_the_logged_choice_stands(bench: Bench) -> None:
    for number in range(200):
        agents = ("a", "b") if number % 2 else ("a",)
        await bench.dispatch(decision(number, "a", 1 / len(agents), agents=agents, created_at=bench.clock.now()))
        await bench.ledger.tasks.record([report(number, "a", quality=0.25)])
    await bench.engine.refresh()
    rows = by_name(bench.engine.policies())
    assert (rows["always:b"]["eligible_share"], rows["always:a"]["eligible_share"]) == (0.5, 1.0)
    assert any("mean weight 0.50 is not 1" in warning for warning in rows["always:b"]["warnings"])


async def test_decisions_without_a_usable_propensity_are_refused_and_counted(bench: Bench) -> None:
    await bench.dispatch(decision(1, "good", 0.0, created_at=bench.clock.now()))
    await bench.ledger.tasks.record([report(1, "good")])
    await bench.engine.refresh()
    assert (bench.engine.policies()["rows"], bench.engine.policies()["refused"]) == (0, 1)
    await bench.clock.advance(3)
    await bench.engine.refresh()
    assert bench.engine.policies()["refused"] == 1


def test_the_log_keeps_the_newest_rows_only() -> None:
    log = OutcomeLog(most=10)
    for number in range(25):
        log.add(
            LoggedDecision(
                decision=decision(number, "good", 0.5, created_at=float(number)),
                status=TaskStatus.SUCCESS,
                quality=None,
                cost=None,
                execution_time_ms=None,
            )
        )
    assert [row.request_id for row in log.rows] == [f"request-{n}" for n in range(15, 25)]
    assert not log.knows("request-3")


async def test_a_ledger_that_is_away_keeps_the_estimates_and_is_told_of(bench: Bench) -> None:
    await bench.history(20)
    await bench.engine.refresh()

    async def away(since: float, limit: int) -> list[LoggedDecision]:
        raise Unavailable("the database is away")

    bench.ledger.decisions.outlines = away  # type: ignore[method-assign]
    await bench.clock.advance(5)
    found = await bench.ask()
    assert found["rows"] == 20
    assert "Decisions could not be read; estimates stay as they are" in bench.telemetry.messages("warning")


async def test_without_a_ledger_it_does_not_start() -> None:
    bench = Bench()
    connections = Connections(bus=bench.bus, telemetry=bench.telemetry, clock=bench.clock)
    with pytest.raises(ConfigurationError, match="POSTGRES_URL"):
        await bench.engine.start(connections)
    await bench.engine.stop(0)


async def test_a_stopped_engine_answers_nothing_and_leaves_nothing_running(bench: Bench) -> None:
    await bench.engine.stop(0)
    with pytest.raises(Unavailable):
        await bench.ask()
    assert [task.get_name() for task in asyncio.all_tasks() if "optimizing" in task.get_name()] == []
