"""Replay: a policy that would have done better is seen to have, from what another one logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import msgspec
import pytest

from agent_engines.domain.decisions import Candidate, Decision, DecisionContext
from agent_engines.domain.errors import NotFound
from agent_engines.domain.tasks import TaskStatus
from agent_engines.engines.outcomes import OutcomeLog, judge_policies
from agent_engines.engines.own_target import PolicyFailed
from agent_engines.engines.replay import replay
from agent_engines.ports.ledger import LoggedDecision


def candidate(agent: str, cost: float) -> Candidate:
    return Candidate(
        agent=agent, replicas=1, slots=1, in_flight=0, service_ms=1.0, completion_ms=1.0, success=0.5, cost=cost,
        age_seconds=0.0,
    )  # fmt: skip


def history(count: int, *, propensity: float | None = None) -> list[LoggedDecision]:
    """A uniform router between `even` and `odd`, each right about its own numbers; the feature tells which."""
    rng = Random(7)
    rows: list[LoggedDecision] = []
    for number in range(count):
        chosen = rng.choice(["even", "odd"])
        right = chosen == ("odd" if number % 2 else "even")
        rows.append(
            LoggedDecision(
                decision=Decision(
                    request_id=f"r{number}",
                    task_id=f"t{number}",
                    task_type="parity",
                    selected_agent=chosen,
                    confidence=0.5,
                    propensity=propensity or 0.5,
                    strategy="random",
                    policy_version="random-1",
                    reasoning="",
                    candidates=(candidate("even", 0.1), candidate("odd", 0.2)),
                    created_at=float(number),
                    context=DecisionContext(
                        request_id=f"r{number}", task_type="parity", features=(float(number % 2), 1.0)
                    ),
                ),
                status=TaskStatus.SUCCESS,
                quality=0.9 if right else 0.1,
                cost=0.1,
                execution_time_ms=1.0,
            )
        )
    return rows


def test_the_adaptive_policy_is_seen_to_be_better_than_the_one_that_logged() -> None:
    found = replay(history(1500), "adaptive")
    assert found["rows"] == 1500
    assert found["logged"] == pytest.approx(0.5, abs=0.05)
    for estimate in found["estimates"]:
        assert estimate["value"] > 0.75
        assert estimate["interval"][0] > 0.7
        assert estimate["effective_sample_size"] > 300


@pytest.mark.parametrize(("policy", "value"), [("uniform", 0.5), ("always:even", 0.5), ("cost_aware", 0.5)])
def test_policies_that_cannot_know_better_are_not_made_better(policy: str, value: float) -> None:
    found = replay(history(1500), policy)
    for estimate in found["estimates"]:
        low, high = estimate["interval"]
        assert low <= value <= high


def test_what_no_chance_decided_and_what_has_not_ended_is_left_out_and_counted() -> None:
    open_one = LoggedDecision(
        decision=history(1)[0].decision, status=None, quality=None, cost=None, execution_time_ms=None
    )
    found = replay([*history(20, propensity=1.0), *history(30), open_one], "uniform")
    assert (found["rows"], found["left_out"]) == (30, {"deterministic": 20, "not_ended": 1})
    assert replay([], "uniform")["estimates"] == []


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_intervals_of_a_few_rows_stay_where_rewards_can_be(rows: int) -> None:
    for policy in ("uniform", "adaptive", "always:even", "c3"):
        for estimate in replay(history(rows), policy)["estimates"]:
            low, high = estimate["interval"] or (0.0, 1.0)
            assert 0.0 <= low <= high <= 1.0


def test_an_unknown_policy_is_refused_with_those_there_are() -> None:
    with pytest.raises(NotFound, match="always:<agent>"):
        replay(history(3), "magic")


def test_an_agent_nobody_could_choose_is_no_policy() -> None:
    with pytest.raises(NotFound, match="evne"):
        replay(history(50), "always:evne")
    assert replay([], "always:evne")["rows"] == 0


def test_estimates_flag_rows_that_no_chance_decided_and_do_not_use_them_for_others() -> None:
    log = OutcomeLog()
    for one in history(200):
        log.add(one)
    clean = {row["policy"]: row for row in judge_policies(log.rows) if row["task_type"] is None}
    mixed = OutcomeLog()
    for place, one in enumerate([*history(200), *history(50, propensity=1.0)]):
        decision = one.decision
        mixed.add(
            LoggedDecision(
                decision=Decision(
                    **{name: getattr(decision, name) for name in Decision.__struct_fields__ if name != "request_id"},
                    request_id=f"x{place}",
                ),
                status=one.status,
                quality=one.quality,
                cost=one.cost,
                execution_time_ms=1.0,
            )
        )
    assert mixed.deterministic == 50
    found = {row["policy"]: row for row in judge_policies(mixed.rows) if row["task_type"] is None}
    assert found["uniform"]["value"] == clean["uniform"]["value"]
    assert found["uniform"]["rows"] == 200
    assert any("50 rows left out" in warning for warning in found["uniform"]["warnings"])
    assert found["logged"]["rows"] == 250


def test_estimates_of_a_strategy_without_chance_say_so_instead_of_inventing_values() -> None:
    log = OutcomeLog()
    for one in history(50, propensity=1.0):
        log.add(one)
    found = judge_policies(log.rows)
    assert {row["policy"] for row in found} == {"logged"}
    assert all(any("no chance" in warning for warning in row["warnings"]) for row in found)


class Parity:
    """Looks at the feature as a router would show it, and keeps what it was told."""

    def __init__(self, seed: int) -> None:
        self.told: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []

    def choose(self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> tuple[str, float, float]:
        odd = context["features"] is not None and context["features"][0] == 1.0
        assert {"slots", "in_flight", "completion", "success", "quality", "metadata", "parent"} <= set(candidates[0])
        return ("odd" if odd else "even"), 0.9, 1.0

    def learn(self, decision: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        self.told.append((decision, outcome))


def test_a_policy_of_ones_own_is_judged_by_its_choices_and_hears_of_those_only() -> None:
    made: list[Parity] = []

    def make(seed: int) -> Parity:
        made.append(Parity(seed))
        return made[-1]

    logged = history(1500)
    found = replay(logged, "mine", own={"mine": make})
    for estimate in found["estimates"]:
        low, high = estimate["interval"]
        assert low <= 0.9 <= high
    (gain,) = found["gains"]
    assert gain.interval[0] < 0.4 < gain.interval[1]
    assert gain.effective_sample_size == pytest.approx(len(made[0].told), abs=0.1)
    assert all(decision["agent"] in {"even", "odd"} and outcome["quality"] == 0.9 for decision, outcome in made[0].told)


@pytest.mark.parametrize("answer", ["nobody", None, RuntimeError("no model")])
def test_a_policy_of_ones_own_that_fails_is_told_so(answer: Any) -> None:
    class Failing(Parity):
        def choose(self, context: Any, candidates: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

    with pytest.raises(PolicyFailed, match="mine failed on a recorded decision"):
        replay(history(3), "mine", own={"mine": Failing})


def test_a_gain_is_told_for_each_task_type_that_is_seen_often() -> None:
    rows = [
        msgspec.structs.replace(
            one, decision=msgspec.structs.replace(one.decision, task_type="rare" if place % 4 == 0 else "often")
        )
        for place, one in enumerate(history(1500))
    ]
    whole, often = replay(rows, "always:even")["gains"]
    assert (whole.task_type, whole.rows, often.task_type, often.rows) == (None, 1500, "often", 1125)
    assert replay([], "always:even")["gains"] == []
