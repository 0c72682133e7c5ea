"""The policy by itself: plain mappings in, (agent, confidence, propensity) out, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from agent_engines.testing.evaluation import STRATEGIES, AdaptivePolicy, Policy, estimate, policy
from agent_engines.testing.fleet import Arrival, Fault, FleetRun, FleetShape, OmniscientRun

AGENTS = [{"agent": name, "cost": 0.0} for name in ("good", "fair", "poor")]
SKILL = {"good": 0.9, "fair": 0.6, "poor": 0.2}


def context(number: int, **more: Any) -> dict[str, Any]:
    return {"task_id": str(number), "task_type": "sum", "features": None, "priority": 3, "deadline_s": None, **more}


def played(chooser: Policy, rounds: int, seed: int = 1) -> list[tuple[str, float, float]]:
    rng = Random(seed)
    made: list[tuple[str, float, float]] = []
    for number in range(rounds):
        asked = context(number)
        agent, confidence, propensity = chooser.choose(asked, AGENTS)
        made.append((agent, confidence, propensity))
        decision = {
            "context": asked,
            "candidates": AGENTS,
            "agent": agent,
            "confidence": confidence,
            "propensity": propensity,
        }
        quality = float(rng.random() < SKILL[agent])
        chooser.learn(decision, {"quality": quality, "success": True, "error": False, "cost": 0.0})
    return made


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_deterministic_for_a_seed_and_tells_a_probability(name: str) -> None:
    first, second = played(policy(name, seed=5), 200), played(policy(name, seed=5), 200)
    assert first == second
    assert {agent for agent, _, _ in first} <= set(SKILL)
    assert all(0.0 < confidence <= 1.0 and 0.0 < propensity <= 1.0 for _, confidence, propensity in first)


def test_the_best_agent_gets_nearly_all_the_work_once_it_is_known() -> None:
    late = Counter(agent for agent, _, _ in played(AdaptivePolicy(seed=2), 600)[300:])
    assert late["good"] > 280
    assert sum(late.values()) == 300


def test_confidence_comes_to_mean_what_it_says() -> None:
    late = [confidence for agent, confidence, _ in played(AdaptivePolicy(seed=3), 2000)[1000:] if agent == "good"]
    assert abs(sum(late) / len(late) - SKILL["good"]) < 0.05


def test_a_price_moves_the_choice_to_the_cheaper_agent() -> None:
    dear = [{"agent": "good", "cost": 1.0}, {"agent": "fair", "cost": 0.0}]
    chooser = AdaptivePolicy(seed=1, lam=1.0)
    agents = Counter(chooser.choose(context(n), dear)[0] for n in range(200))
    assert agents["fair"] > 190
    free = AdaptivePolicy(seed=1, lam=1.0)
    assert Counter(free.choose(context(n, lam=0.0), dear)[0] for n in range(200))["good"] > 40


def test_features_tell_which_agent_a_task_needs() -> None:
    rng = Random(4)
    chooser = AdaptivePolicy(seed=4)
    right = 0
    for number in range(1500):
        left = rng.random() < 0.5
        features = [rng.gauss(100.0 if left else -100.0, 30.0), rng.gauss(0.0, 0.01)]
        asked = context(number, features=features)
        agent, confidence, propensity = chooser.choose(asked, AGENTS[:2])
        hit = agent == ("good" if left else "fair")
        right += hit and number >= 1000
        decision = {
            "context": asked,
            "candidates": AGENTS[:2],
            "agent": agent,
            "confidence": confidence,
            "propensity": propensity,
        }
        chooser.learn(decision, {"quality": float(hit), "success": True, "error": False, "cost": 0.0})
    assert right > 475


def test_what_cannot_be_used_is_named() -> None:
    chooser = AdaptivePolicy()
    with pytest.raises(ValueError, match="candidates is empty"):
        chooser.choose(context(0), [])
    with pytest.raises(ValueError, match=r"features\[1\] is not a finite number"):
        chooser.choose(context(0, features=[0.0, float("nan")]), AGENTS)
    with pytest.raises(ValueError, match="cost of 'a' is -1"):
        chooser.choose(context(0), [{"agent": "a", "cost": -1.0}])
    agent, confidence, propensity = chooser.choose(context(0), AGENTS)
    decision = {
        "context": context(0),
        "candidates": AGENTS,
        "agent": agent,
        "confidence": confidence,
        "propensity": propensity,
    }
    with pytest.raises(ValueError, match="quality is 2"):
        chooser.learn(decision, {"quality": 2.0, "success": True, "error": False})
    with pytest.raises(ValueError, match="not among the candidates"):
        chooser.learn({**decision, "agent": "stranger"}, {"quality": 1.0})
    with pytest.raises(ValueError, match="there is no strategy 'best'"):
        policy("best")


NONE = [float("nan"), float("inf"), "many", [1.0]]


@pytest.mark.parametrize("value", NONE)
@pytest.mark.parametrize("name", STRATEGIES)
def test_numbers_that_are_none_are_refused_by_every_strategy_with_their_field(name: str, value: Any) -> None:
    chooser = policy(name, seed=1)
    for field in ("cost", "slots"):
        with pytest.raises(ValueError, match=f"{field} of 'a' is"):
            chooser.choose(context(0), [{"agent": "a", "cost": 0.0, field: value}, {"agent": "b", "cost": 0.0}])
    with pytest.raises(ValueError, match="now is"):
        chooser.choose(context(0, now=value), AGENTS)
    with pytest.raises(ValueError, match="a candidate has no agent"):
        chooser.choose(context(0), [{"cost": 0.0}])
    with pytest.raises(ValueError, match="rif is"):
        chooser.on_report("good", {"rif": value}, 1.0)
    agent, _, _ = chooser.choose(context(0), AGENTS)
    decision = {"context": context(0), "candidates": AGENTS, "agent": agent}
    for field in ("service", "work", "now"):
        with pytest.raises(ValueError, match=f"{field} is"):
            chooser.learn(decision, {"success": True, field: value})
    with pytest.raises(ValueError, match="not among the candidates"):
        chooser.learn({**decision, "agent": "stranger"}, {"success": True})


@pytest.mark.parametrize("value", NONE)
def test_the_adaptive_policy_names_what_it_cannot_learn_from_and_takes_nothing_in(value: Any) -> None:
    chooser, untouched = AdaptivePolicy(seed=1), AdaptivePolicy(seed=1)
    for one in (chooser, untouched):
        one.choose(context(0), AGENTS)
    decision = {"context": context(0), "candidates": AGENTS, "agent": "good"}
    for field in ("quality", "cost", "latency", "service", "work", "now"):
        with pytest.raises(ValueError, match=f"{field} is"):
            chooser.learn(decision, {"success": True, field: value})
    for field in ("work_hint", "lam", "deadline_s"):
        if field != "deadline_s" or value != float("inf"):
            with pytest.raises(ValueError, match=f"{field} is"):
                chooser.choose(context(1, **{field: value}), AGENTS)
    with pytest.raises(ValueError, match="features"):
        chooser.choose(context(1, features=[value]), AGENTS)
    assert chooser.choose(context(1), AGENTS)[1] == untouched.choose(context(1), AGENTS)[1]


def test_a_name_that_is_no_strategys_is_refused_with_all_there_are() -> None:
    with pytest.raises(ValueError, match="there are adaptive, c3, cost_aware"):
        policy("best")


@pytest.mark.parametrize(
    ("field", "value"),
    [("reward", float("nan")), ("reward", None), ("reward", "x"), ("propensity", 0.0), ("propensity", None)],
)
def test_a_row_without_a_reward_or_a_probability_is_named(field: str, value: Any) -> None:
    logs = logged(5, 1)
    with pytest.raises(ValueError, match=f"row 3: {field}"):
        estimate([*logs[:3], {**logs[3], field: value}], lambda *_: [1.0, 0.0, 0.0], "dr")


def logged(rows: int, seed: int) -> list[dict[str, Any]]:
    """A log whose target ("always good") is worth 0.9, the logging policy prefers the poor one."""
    rng = Random(seed)
    shares = {"good": 0.2, "fair": 0.3, "poor": 0.5}
    logs: list[dict[str, Any]] = []
    for number in range(rows):
        agent = rng.choices(list(shares), list(shares.values()))[0]
        logs.append(
            {
                "context": context(number),
                "candidates": AGENTS,
                "agent": agent,
                "propensity": shares[agent],
                "reward": float(rng.random() < SKILL[agent]),
            }
        )
    return logs


@pytest.mark.parametrize("method", ["ips", "snips", "dr"])
def test_another_policy_is_judged_from_the_log_of_this_one(method: str) -> None:
    covered = 0
    for seed in range(8):
        found = estimate(logged(1000, seed), lambda _, candidates: [1.0, 0.0, 0.0][: len(candidates)], method)
        low, high = found.interval
        assert low is not None
        assert high is not None
        covered += low <= SKILL["good"] <= high
        assert 0 < found.effective_sample_size <= 1000
    assert covered >= 6


def test_a_log_that_cannot_judge_says_which_row_is_wrong() -> None:
    logs = logged(5, 1)
    with pytest.raises(ValueError, match="logs is empty"):
        estimate([], lambda *_: [1.0], "dr")
    with pytest.raises(ValueError, match="no method 'best'"):
        estimate(logs, lambda *_: [1.0, 0.0, 0.0], "best")
    with pytest.raises(ValueError, match="row 0: the target's probabilities sum to 2"):
        estimate(logs, lambda *_: [1.0, 1.0, 0.0], "ips")
    with pytest.raises(ValueError, match="row 3: agent 'stranger'"):
        estimate([*logs[:3], {**logs[3], "agent": "stranger"}], lambda *_: [1.0, 0.0, 0.0], "ips")


def a_trace(seed: int, tasks: int = 2000) -> tuple[list[Arrival], FleetShape]:
    rng = Random(seed)
    works = [rng.expovariate(1.0) + 0.2 for _ in range(tasks)]
    speeds = [rng.choice([0.7, 1.0, 1.5]) for _ in range(12)]
    slots = [rng.choice([2, 4, 8]) for _ in range(12)]
    period = sum(works) / tasks / (0.55 * sum(n / s / (1 + 0.03 * n) for n, s in zip(slots, speeds, strict=True)))
    at = 0.0
    arrivals: list[Arrival] = []
    for one in works:
        at += rng.expovariate(1.0 / period)
        arrivals.append(Arrival(at, 1.2, one))
    faults = [
        Fault(1, at * 0.1, at * 0.3, "failing"),
        Fault(2, at * 0.3, at * 0.5, "slow"),
        Fault(3, at * 0.6, at * 0.65, "stopped"),
    ]
    return arrivals, FleetShape(speeds=speeds, slots=slots, faults=faults, routers=2)


def test_in_a_fleet_with_faults_the_adaptive_policy_is_quicker_than_chance_and_avoids_what_fails() -> None:
    arrivals, shape = a_trace(11)
    adaptive = FleetRun(shape, lambda n: AdaptivePolicy(seed=n, routers=2)).run(arrivals)
    blind = FleetRun(shape, lambda n: policy("random", seed=n, routers=2)).run(arrivals)
    assert adaptive.tasks == blind.tasks == 2000
    assert adaptive.percentile(50) < blind.percentile(50)
    assert adaptive.percentile(99) < blind.percentile(99) / 2
    # Without ejection one replica in twelve that fails at once for a fifth of the time costs more than 1.6 %.
    assert adaptive.errors < 0.01


def test_a_fleet_run_is_the_same_twice() -> None:
    arrivals, shape = a_trace(12, tasks=500)
    first, second = (FleetRun(shape, lambda n: AdaptivePolicy(seed=n)).run(arrivals).row() for _ in range(2))
    assert first == second


def test_the_omniscient_one_knows_faults_queues_and_how_long_each_task_is() -> None:
    shape = FleetShape(
        speeds=[1.0, 2.0, 0.5, 0.5],
        slots=[1] * 4,
        faults=[Fault(2, 0.0, 9.0, "failing"), Fault(3, 0.0, 90.0, "stopped")],
    )
    # 10 s go to the first replica; 2 s beside them are done sooner on the slow one, 40 s once the first is free again.
    arrivals = [Arrival(0.0, 9.0, 10.0), Arrival(0.1, 9.0, 2.0), Arrival(0.2, 9.0, 40.0)]
    report = OmniscientRun(shape).run(arrivals)
    assert report.latencies.tolist() == pytest.approx([2 * 2 * 1.03, 10 * 1.03, 10 * 1.03 - 0.2 + 40 * 1.03])
    assert report.errors == 0.0


def test_no_policy_does_better_than_the_omniscient_one() -> None:
    arrivals, shape = a_trace(4)
    most = OmniscientRun(shape).run(arrivals).row()
    assert most["errors"] == 0.0
    for name in ("adaptive", "least_loaded", "c3"):
        found = FleetRun(shape, lambda router, name=name: policy(name, seed=router, routers=2)).run(arrivals).row()
        assert most["p50"] < found["p50"]
        assert most["p99"] < found["p99"]


def hanging(seed: int, *, calls: bool) -> float:
    """The share of tasks that are hedged where one in thirty takes a hundred times as long: the call that hangs, or the task itself."""
    rng = Random(seed)
    policy_ = AdaptivePolicy(seed=seed)
    candidates = [{"agent": name, "cost": 0.0, "slots": 100, "cls": "kind"} for name in "abcd"]
    hedged, tasks = 0, 3000
    for number in range(tasks):
        now = float(number)
        context = {"task_id": str(number), "task_type": "t", "priority": 3, "now": now, "work_hint": 0.1}
        agent, confidence, propensity = policy_.choose(context, candidates)
        decision = {"context": context, "candidates": candidates, "agent": agent, "confidence": confidence}
        decision["propensity"] = propensity
        odd = rng.random() < 1 / 30
        seconds = 10.0 if odd else 0.1
        legs = [(seconds, decision)]
        after = policy_.hedge_after(decision)
        if after is not None and after < seconds:
            hedged += 1
            policy_.hedged()
            others = [one for one in candidates if one["agent"] != agent]
            second, confidence, propensity = policy_.choose(context, others)
            asked = {**decision, "agent": second, "confidence": confidence, "propensity": propensity}
            legs.append((after + (0.1 if calls else seconds), asked))
        legs.sort(key=lambda leg: leg[0])
        took, first = legs[0]
        policy_.learn(first, {"success": True, "now": now + took, "latency": took, "service": took, "work": 0.1})
        for _, loser in legs[1:]:
            policy_.learn(loser, {"cancelled": True, "now": now + took})
    return hedged / tasks


def test_hedges_go_where_they_pay_calls_that_hang_and_not_tasks_that_are_long() -> None:
    assert hanging(1, calls=True) > 0.02
    assert hanging(1, calls=False) < 0.006
