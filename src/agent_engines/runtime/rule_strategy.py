"""Strategies that learn nothing that is shared: balancing rules, the load-aware score, and policies of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from msgspec.structs import force_setattr, replace

from agent_engines.domain.decisions import Candidate, DecisionContext
from agent_engines.domain.routing import LoadAware
from agent_engines.learning.baselines import Baseline
from agent_engines.learning.hedges import Hedges
from agent_engines.learning.lesson import Lesson
from agent_engines.learning.policy import HedgingPolicy, RoutingPolicy, checked_answer, checked_wait

from .field import Field
from .strategy import Moment, Picked

FEW, SHOWN = 8, 4
"""A field of FEW is recorded whole, of a larger one SHOWN candidates."""
LEAST_CONFIDENCE = 1e-3


def rule_version(name: str) -> str:
    return f"{name}-1"


class RuleStrategy:
    """One rule of learning/baselines.py. See strategy.py: Strategy."""

    def __init__(self, name: str, *, seed: int) -> None:
        self.name = name
        self.version = rule_version(name)
        self._rule = Baseline(name, seed=seed)

    def choose(self, context: DecisionContext, field: Field, moment: Moment) -> Picked:
        asked = {"task_id": context.task_id, "now": moment.epoch}
        agent, confidence, propensity = self._rule.choose(asked, field.mappings)
        # An agent that always fails is still a choice: its confidence is small, not none.
        shares = max(confidence, LEAST_CONFIDENCE), propensity
        return _picked(field.agents.index(agent), shares, context, field, moment)

    def learn(self, ticket: Any, outcome: Mapping[str, Any]) -> Lesson | None:
        """Rules hear of outcomes by `observe`, whoever decided."""

    def observe(self, agent: str, outcome: Mapping[str, Any]) -> None:
        self._rule.learn({"agent": agent, "context": {"task_id": outcome.get("task_id")}}, outcome)

    def loaded(self, agent: str, in_flight: int, epoch: float) -> None:
        self._rule.on_report(agent, {"rif": in_flight}, epoch)


class LoadAwareStrategy:
    """The score of domain/routing.py, over everybody's own success rate. See strategy.py: Strategy."""

    def __init__(self, rng: Random, policy: LoadAware | None = None) -> None:
        self._policy = policy or LoadAware()
        self._rng = rng
        self.name = self._policy.name
        self.version = self._policy.version

    def choose(self, context: DecisionContext, field: Field, moment: Moment) -> Picked:
        candidates = tuple(field.candidates(context.task_type, moment.usual, moment.now))
        choice = self._policy.choose(context, candidates, self._rng, moment.epoch)
        for candidate, score, probability in zip(candidates, choice.scores, choice.probabilities, strict=True):
            # Built above for this decision alone; building them a second time would double its cost.
            force_setattr(candidate, "score", score)
            force_setattr(candidate, "probability", probability)
        chosen = candidates[choice.index]
        return Picked(
            agent=chosen.agent,
            confidence=chosen.success,
            propensity=chosen.probability or 0.0,
            explored=choice.explored,
            candidates=candidates,
            place=choice.index,
        )

    def learn(self, ticket: Any, outcome: Mapping[str, Any]) -> Lesson | None:
        """The fleet's tracks are what it knows."""

    def observe(self, agent: str, outcome: Mapping[str, Any]) -> None:
        """The fleet's tracks are what it knows."""

    def loaded(self, agent: str, in_flight: int, epoch: float) -> None:
        """It reads the fleet itself."""


class Remembered(NamedTuple):
    """A decision of a policy of one's own, as it is told again with the outcome."""

    decision: Mapping[str, Any]


class PolicyStrategy:
    """A policy of one's own behind the seam; what it answers is checked. See strategy.py: Strategy."""

    def __init__(self, name: str, policy: RoutingPolicy) -> None:
        self.name = name
        self.version = str(getattr(policy, "version", name))
        self._policy = policy

    def choose(self, context: DecisionContext, field: Field, moment: Moment) -> Picked:
        usual = moment.usual
        asked: dict[str, Any] = {
            "task_id": context.task_id,
            "task_type": context.task_type,
            "requirements": context.requirements,
            "priority": context.priority,
            "deadline_s": context.deadline,
            "now": moment.epoch,
            "features": context.features,
            "embedding": context.embedding,
            "payload_bytes": context.payload_bytes,
            "work_hint": None if usual is None or usual.service_ms is None else usual.service_ms / 1000.0,
        }
        known = field.candidates(context.task_type, usual, moment.now)
        offered = [_offered(mapping, one) for mapping, one in zip(field.mappings, known, strict=True)]
        place, confidence, propensity = checked_answer(self._policy.choose(asked, offered), field.agents)
        decision = {
            "context": asked,
            "candidates": offered,
            "agent": field.agents[place],
            "confidence": confidence,
            "propensity": propensity,
        }
        picked = _picked(place, (confidence, propensity), context, field, moment)
        return replace(picked, ticket=Remembered(decision))

    def learn(self, ticket: Remembered, outcome: Mapping[str, Any]) -> Lesson | None:
        self._policy.learn(ticket.decision, outcome)

    def observe(self, agent: str, outcome: Mapping[str, Any]) -> None:
        """It hears of its own decisions."""

    def loaded(self, agent: str, in_flight: int, epoch: float) -> None:
        """It is told with each decision."""


class HedgingPolicyStrategy(PolicyStrategy):
    """A policy of one's own that also says when a task is late. See strategy.py: Strategy, Hedger.

    The router keeps the budget, whatever the policy says: one hedge for twenty decisions.
    """

    def __init__(self, name: str, policy: HedgingPolicy) -> None:
        super().__init__(name, policy)
        self._hedging = policy
        self._budget = Hedges()

    def choose(self, context: DecisionContext, field: Field, moment: Moment) -> Picked:
        picked = super().choose(context, field, moment)
        self._budget.decided()
        return picked

    def hedge_after(self, predicted: float, ticket: Any) -> float | None:
        """See strategy.py: Hedger. Raises what the policy raises, and ValueError for an answer that is no time."""
        if self._budget.credit < 1.0 or not isinstance(ticket, Remembered):
            return None
        return checked_wait(self._hedging.hedge_after(ticket.decision))

    def hedged(self) -> None:
        """See strategy.py: Hedger. Raises what the policy raises."""
        self._budget.spent()
        self._hedging.hedged()

    def raced(self, *, won: bool) -> None:
        """The policy hears of outcomes by `learn`; whether hedges pay is for it to say."""


def of_policy(name: str, policy: RoutingPolicy) -> PolicyStrategy:
    """A policy behind the seam, with all it offers."""
    return HedgingPolicyStrategy(name, policy) if isinstance(policy, HedgingPolicy) else PolicyStrategy(name, policy)


def _offered(mapping: Mapping[str, Any], known: Candidate) -> dict[str, Any]:
    return {
        **mapping,
        "in_flight": known.in_flight,
        "completion": known.completion_ms / 1000.0,
        "success": known.success,
        "quality": known.quality,
    }


def _picked(place: int, shares: tuple[float, float], context: DecisionContext, field: Field, moment: Moment) -> Picked:
    """With the fleet's numbers; of a large field only the first few, and the chosen one."""
    confidence, propensity = shares
    places: Sequence[int] = range(len(field.members))
    if len(places) > FEW:
        places = sorted({place, *range(SHOWN - 1 if place >= SHOWN else SHOWN)})
    known = [field.members[at].candidate(context.task_type, moment.usual, moment.now) for at in places]
    at = list(places).index(place)
    for position, candidate in enumerate(known):
        # Of the others' chances a rule says nothing.
        force_setattr(candidate, "probability", propensity if position == at else None)
        force_setattr(candidate, "score", None)
    return Picked(
        agent=field.agents[place],
        confidence=confidence,
        propensity=propensity,
        explored=False,
        candidates=tuple(known),
        place=at,
        eligible=field.agents if len(known) < len(field.agents) else (),
    )
