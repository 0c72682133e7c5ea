"""A policy of one's own on recorded decisions: shown what the router would have shown it, the choice it makes counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_engines.domain.decisions import Decision, DecisionContext
from agent_engines.learning.policy import RoutingPolicy, checked_answer
from agent_engines.ports.ledger import LoggedDecision
from agent_engines.runtime.shipped_strategies import PolicyMaker

Candidates = list[dict[str, Any]]
UNSEEN: dict[str, Any] = {"slots": 1, "in_flight": 0, "completion": 0.0, "success": 0.5, "quality": None}
"""Of a large field the record keeps the numbers of some candidates only."""


class PolicyFailed(Exception):
    """A policy of one's own raised, or answered nonsense, about recorded decisions."""


class OwnTarget:
    """See replay.py: Target. Everything raises PolicyFailed for whatever the policy raises."""

    def __init__(self, name: str, make: PolicyMaker) -> None:
        self._name = name
        try:
            self._policy: RoutingPolicy = make(0)
        except Exception as error:
            raise PolicyFailed(f"{name} could not be made: {error!r}") from error
        self._decision: dict[str, Any] = {}

    def shares(self, context: Mapping[str, Any], candidates: Candidates) -> Sequence[float]:
        names = [one["agent"] for one in candidates]
        try:
            place, confidence, propensity = checked_answer(self._policy.choose(context, candidates), names)
        except Exception as error:
            raise PolicyFailed(f"{self._name} failed on a recorded decision: {error!r}") from error
        self._decision = {
            "context": context,
            "candidates": candidates,
            "agent": names[place],
            "confidence": confidence,
            "propensity": propensity,
        }
        return [float(at == place) for at in range(len(names))]

    def learn(self, context: Mapping[str, Any], candidate: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """It hears what it would have heard: of its own choices only."""
        if self._decision.get("agent") != candidate["agent"]:
            return
        try:
            self._policy.learn(self._decision, outcome)
        except Exception as error:
            raise PolicyFailed(f"{self._name} did not take a recorded outcome: {error!r}") from error


def offered(
    one: LoggedDecision, plain: Candidates, outcome: dict[str, Any]
) -> tuple[dict[str, Any], Candidates, dict[str, Any]]:
    """(context, candidates, outcome) of learning/policy.py: RoutingPolicy, as far as they were recorded.

    `plain`: agent, cls and cost of each candidate.
    """
    service = None if one.execution_time_ms is None else one.execution_time_ms / 1000.0
    told = {**outcome, "service": service, "latency": service, "cancelled": False}
    return _context(one.decision), _candidates(one.decision, plain), told


def _context(decision: Decision) -> dict[str, Any]:
    context = decision.context or DecisionContext(request_id=decision.request_id, task_type=decision.task_type)
    return {
        "task_id": decision.request_id,
        "task_type": decision.task_type,
        "requirements": context.requirements,
        "priority": context.priority,
        "deadline_s": context.deadline,
        "now": decision.created_at,
        "features": context.features,
        "embedding": context.embedding,
        "payload_bytes": context.payload_bytes,
        "work_hint": None,
    }


def _candidates(decision: Decision, plain: Candidates) -> Candidates:
    known = {one.agent: one for one in decision.candidates}
    found: Candidates = []
    for mapping in plain:
        one = known.get(mapping["agent"])
        numbers = UNSEEN
        if one is not None:
            numbers = {
                "slots": one.slots,
                "in_flight": one.in_flight,
                "completion": one.completion_ms / 1000.0,
                "success": one.success,
                "quality": one.quality,
            }
        found.append({**mapping, "parent": None, "metadata": {}, **numbers})
    return found
