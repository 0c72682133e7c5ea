"""Behaviour checks for policies of one's own: `check_policy(make_policy)` in one of your tests. Needs no server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from agent_engines.domain.errors import ContractViolation
from agent_engines.learning.policy import HedgingPolicy, RoutingPolicy, checked_answer, checked_wait

DECISIONS = 200


def check_policy(make: Callable[[int], RoutingPolicy], *, seed: int = 0) -> None:
    """Check what the router relies on. Raises ContractViolation naming what does not hold.

    It is asked about fleets of one to twenty agents with and without features, deadlines and known times, hears successes,
    failures and cancellations of those and of agents that are gone, answers with a candidate and two shares in (0, 1],
    changes nothing it is given, answers alike when made again from the same seed, and never claims to be certain of a
    choice that it did not always make. One that hedges answers with seconds or None.
    """
    first, second = _answers(_made(make, seed), seed), _answers(_made(make, seed), seed)
    if first != second:
        at = next(at for at, (one, other) in enumerate(zip(first, second, strict=True)) if one != other)
        raise ContractViolation(
            f"made twice from one seed it chose {first[at]} and then {second[at]}: take chance from the seed"
        )
    _check_certainty(_made(make, seed), seed)


def _made(make: Callable[[int], RoutingPolicy], seed: int) -> RoutingPolicy:
    try:
        return make(seed)
    except Exception as error:
        raise ContractViolation(f"it could not be made from seed {seed}, as the router makes it: {error!r}") from error


def _answers(policy: RoutingPolicy, seed: int) -> list[tuple[str, float, float]]:
    rng = Random(seed)
    found: list[tuple[str, float, float]] = []
    for number in range(DECISIONS):
        context, candidates = _context(number, rng), _candidates(rng)
        decision = _decided(policy, context, candidates)
        if isinstance(policy, HedgingPolicy):
            _check_hedging(policy, decision)
        found.append((decision["agent"], decision["confidence"], decision["propensity"]))
        try:
            policy.learn(decision, _outcome(number, rng))
        except Exception as error:
            raise ContractViolation(f"learn raised {error!r}") from error
    return found


def _decided(policy: RoutingPolicy, context: dict[str, Any], candidates: list[dict[str, Any]]) -> dict[str, Any]:
    before = repr(context), repr(candidates)
    try:
        answer = policy.choose(context, candidates)
        place, confidence, propensity = checked_answer(answer, [one["agent"] for one in candidates])
    except Exception as error:
        raise ContractViolation(f"choose among {len(candidates)} candidates: {error!r}") from error
    if before != (repr(context), repr(candidates)):
        raise ContractViolation("choose changed what it was given")
    return {
        "context": context,
        "candidates": candidates,
        "agent": candidates[place]["agent"],
        "confidence": confidence,
        "propensity": propensity,
    }


def _check_hedging(policy: HedgingPolicy, decision: dict[str, Any]) -> None:
    try:
        if checked_wait(policy.hedge_after(decision)) is not None:
            policy.hedged()
    except Exception as error:
        raise ContractViolation(f"hedging a task of {decision['agent']}: {error!r}") from error


def _check_certainty(policy: RoutingPolicy, seed: int) -> None:
    rng = Random(seed + 1)
    candidates = [_candidate(f"agent-{number}", rng) for number in range(3)]
    context = _context(0, rng)
    made = [_decided(policy, {**context, "task_id": f"same-{number}"}, candidates) for number in range(DECISIONS)]
    sure = {one["agent"] for one in made if one["propensity"] == 1.0}
    rotating = {one["agent"] for one in made} - sure
    if sure and rotating:
        raise ContractViolation(
            f"it told propensity 1 for {min(sure)} but also chose {min(rotating)} for the very same task: tell the chance"
        )


def _context(number: int, rng: Random) -> dict[str, Any]:
    return {
        "task_id": f"task-{number}",
        "task_type": rng.choice(["summarize", "ocr"]),
        "requirements": {},
        "priority": rng.randint(1, 5),
        "deadline_s": rng.choice([None, 1_000_000.0 + number + rng.random()]),
        "now": 1_000_000.0 + number,
        "features": rng.choice([None, (0.5, -1.0, rng.random())]),
        "embedding": None,
        "payload_bytes": rng.randint(0, 10_000),
        "work_hint": rng.choice([None, 0.1]),
    }


def _candidates(rng: Random) -> list[dict[str, Any]]:
    return [_candidate(f"agent-{number}", rng) for number in rng.sample(range(25), rng.randint(1, 20))]


def _candidate(agent: str, rng: Random) -> dict[str, Any]:
    slots = rng.randint(1, 100)
    return {
        "agent": agent,
        "cls": agent,
        "parent": rng.choice([None, "older"]),
        "cost": rng.choice([0.0, rng.random()]),
        "slots": slots,
        "in_flight": rng.randint(0, 2 * slots),
        "completion": rng.random(),
        "success": rng.random(),
        "quality": rng.choice([None, rng.random()]),
        "metadata": {},
    }


def _outcome(number: int, rng: Random) -> Mapping[str, Any]:
    success = rng.random() < 0.7
    return {
        "task_id": f"task-{number}",
        "success": success,
        "error": None if success else "ValueError",
        "quality": rng.random() if success and rng.random() < 0.5 else None,
        "cost": rng.random(),
        "service": rng.random(),
        "work": rng.choice([None, 0.1]),
        "cancelled": rng.random() < 0.1,
        "now": 1_000_000.0 + number + 1.0,
    }
