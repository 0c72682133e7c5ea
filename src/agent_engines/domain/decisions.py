"""Decisions: who was chosen, among whom, with what probability, and why."""

from __future__ import annotations

from typing import Any

import msgspec

from .terms import NO_TERMS, Terms


class DecisionContext(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the router may look at. `request_id` names the decision; `now` is epoch seconds."""

    request_id: str
    task_type: str
    requirements: dict[str, Any] = {}
    priority: int = 3
    deadline: float | None = None
    payload_bytes: int = 0
    task_id: str | None = None
    strategy: str | None = None
    """By which strategy; None: as the router is configured."""
    features: tuple[float, ...] | None = None
    """What the caller says the task looks like (domain/hints.py)."""
    embedding: tuple[float, ...] | None = None
    terms: Terms = NO_TERMS
    """`budget`: what is left of it for this attempt and later ones."""
    price: float | None = None
    """What one unit of cost is worth to this tenant now, in units of success; None: the policy's own price."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One eligible agent with the numbers the choice was made from."""

    agent: str
    replicas: int
    slots: int
    in_flight: int
    service_ms: float
    """Expected handler time for this task type, milliseconds."""
    completion_ms: float
    """Expected time from now to the outcome, queueing included, milliseconds."""
    success: float
    """Estimated probability of success for this task type, 0..1."""
    cost: float
    age_seconds: float
    """Age of the newest load report the numbers come from."""
    quality: float | None = None
    """Expected quality of a success, 0..1, when its handler or a validator judges it; None: nobody does."""
    doubt: float = 0.0
    """Standard deviation of `success`: large for agents nobody knows yet."""
    kind: str = ""
    """What it is a replica of, when its metadata names a `kind`; empty: it is its own kind."""
    score: float | None = None
    """Its utility: what the strategy compares candidates by; None: it compares none."""
    probability: float | None = None
    """How likely it was to be chosen; None: the strategy tells that of the chosen one only."""


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """An agent that could not be chosen, and the reason."""

    agent: str
    reason: str


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The complete decision record; everything needed to explain it and to learn from it.

    Made once for each task: CPython passes more than fifteen names with a call by way of a dict, five times as dear, so
    whoever makes many of them gives the first fields by position.
    """

    request_id: str
    task_id: str | None
    task_type: str
    selected_agent: str
    confidence: float
    propensity: float
    strategy: str
    policy_version: str
    reasoning: str
    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejection, ...] = ()
    explored: bool = False
    created_at: float = 0.0
    context: DecisionContext | None = None
    eligible: tuple[str, ...] = ()
    """All who could have been chosen, where `candidates` has numbers only for the likeliest; empty: those are all."""
    terms: dict[str, float] = {}
    """What the utility was made with: `price` of one unit of cost, `haste` of one second, in units of quality."""
    fallback: str = ""
    """Why another strategy than the wanted one decided; empty: the wanted one did."""
    state_sequence: int | None = None
    """The last lesson the strategy had learned from; None: it learns nothing that is shared."""
    hedge: str = ""
    """Why its task, under way at another agent, got a second leg; empty: this is no second leg."""

    @property
    def considered(self) -> int:
        """How many could have been chosen."""
        return len(self.eligible) or len(self.candidates)

    @property
    def agents(self) -> tuple[str, ...]:
        """All who could have been chosen."""
        return self.eligible or tuple(candidate.agent for candidate in self.candidates)

    @property
    def deterministic(self) -> bool:
        """No chance took part although there was a choice: such rows cannot judge other policies."""
        return self.propensity >= 1.0 and self.considered > 1


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to "who should do this?": nothing was dispatched."""

    request_id: str
    selected_agent: str
    confidence: float
    propensity: float
    strategy: str
    reasoning: str
    candidates: tuple[Candidate, ...]
    policy_version: str
    task_type: str = ""

    @classmethod
    def of(cls, decision: Decision) -> Recommendation:
        return cls(
            request_id=decision.request_id,
            selected_agent=decision.selected_agent,
            confidence=decision.confidence,
            propensity=decision.propensity,
            strategy=decision.strategy,
            reasoning=decision.reasoning,
            candidates=decision.candidates,
            policy_version=decision.policy_version,
            task_type=decision.task_type,
        )
