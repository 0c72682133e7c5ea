"""The decider: one task, the fleet as it is now, a strategy, and the whole record of the choice.

roster (who may) -> budgets, open breakers, affinity, trials -> strategy (who should) -> Decision
"""

from __future__ import annotations

import msgspec

from agent_engines.domain.breaker import BreakerState
from agent_engines.domain.decisions import Decision, DecisionContext
from agent_engines.domain.errors import NoEligibleAgent
from agent_engines.domain.explanation import Circumstances, reasoning
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Telemetry

from .answers import nobody
from .field import Field
from .fleet import Fleet, Roster
from .narrowing import Narrowed, affordable, by_affinity, tried, unbroken
from .strategies import Chosen, Strategies
from .strategy import Moment
from .tenants import TenantBooks


class Choice(msgspec.Struct, frozen=True, gc=False):
    """Who was chosen for a task and what of: all that its decision will tell."""

    context: DecisionContext
    chosen: Chosen
    kept: Narrowed
    known: int
    """Agents in the fleet."""
    epoch: float
    notes: tuple[str, ...]

    @property
    def agent(self) -> str:
        return self.chosen.picked.agent


class Decider:
    """Decides for one router; dispatches nothing. `books`: what tenants may spend; None: nobody keeps them."""

    def __init__(
        self, fleet: Fleet, strategies: Strategies, *, clock: Clock, telemetry: Telemetry, retry_after: float = 1.0
    ) -> None:
        self._fleet = fleet
        self._strategies = strategies
        self._clock = clock
        self._telemetry = telemetry
        self._retry_after = retry_after
        self.books: TenantBooks | None = None

    def check(self, strategy: str | None) -> None:
        """Raise InvalidRequest for a strategy nobody knows."""
        if strategy is not None:
            self._strategies.check(strategy)

    def decide(self, context: DecisionContext, *, avoid: str | None = None) -> Decision:
        """Choose an agent and say why; see `choose`."""
        return decision_of(self.choose(context, avoid=avoid))

    def choose(self, context: DecisionContext, *, avoid: str | None = None) -> Choice:
        """Choose an agent; `avoid` is taken only when nobody else can.

        Raises NoEligibleAgent, InvalidRequest, BudgetTooSmall, BudgetSpent.
        """
        now = self._clock.monotonic()
        roster = self._fleet.roster(context.task_type, context.requirements)
        if not roster.members:
            self._telemetry.decided(self._strategies.named(context), "no_agent")
            raise nobody(context.task_type, roster, self._retry_after)
        moment = Moment(now, self._clock.now(), self._fleet.usual(context.task_type))
        kept = self._kept(roster, context, moment)
        if roster.shaky and avoid is None and context.task_id is not None:
            # A task that failed once is no trial, and neither is a question.
            kept = tried(kept, roster.shaky, now)
        field = kept.field
        if avoid is not None and len(field.agents) > 1 and avoid in field:
            field = field.without([avoid])
        chosen = self._strategies.choose(context, field, moment)
        self._telemetry.decided(chosen.strategy.name, "success")
        return Choice(context, chosen, kept, roster.known, moment.epoch, field.notes)

    def second(self, context: DecisionContext, first: str) -> Decision:
        """Choose another agent for a task that is under way at `first`: idempotent there too, with a closed breaker.

        Of the same kind if there is one, so that the answer and its price are what was decided. Raises NoEligibleAgent,
        InvalidRequest, BudgetSpent.
        """
        roster = self._fleet.roster(context.task_type, context.requirements)
        moment = Moment(self._clock.monotonic(), self._clock.now(), self._fleet.usual(context.task_type))
        kept = self._kept(roster, context, moment)
        field = _spare(kept.field, context.task_type, first)
        if not field.agents:
            raise NoEligibleAgent(f"nobody but {first} may do this task now", retry_after=self._retry_after)
        chosen = self._strategies.choose(context, field, moment, second=True)
        self._telemetry.decided(chosen.strategy.name, "hedged")
        return decision_of(Choice(context, chosen, kept, roster.known, moment.epoch, field.notes))

    def _kept(self, roster: Roster, context: DecisionContext, moment: Moment) -> Narrowed:
        """Whom the task's terms and the breakers leave."""
        terms = context.terms
        kept = affordable(roster, terms, self.books)
        if roster.shaky:
            kept = unbroken(kept, roster.shaky, moment.now)
        return by_affinity(kept, roster.able, terms, context.task_type, moment, self._retry_after)


def _spare(field: Field, task_type: str, first: str) -> Field:
    """Who may do what `first` is doing already: of its kind, if there is anybody."""
    able = field.part(
        ("spare", task_type),
        lambda member: member.breaker_state is BreakerState.CLOSED and task_type in member.idempotent,
    )
    kind = field.member(first).kind if first in field else ""
    if kind:
        alike = able.part(("kind", kind), lambda member: member.kind == kind).without([first])
        if alike.agents:
            return alike
    return able.without([first])


def decision_of(choice: Choice) -> Decision:
    """The whole record of a choice, its reasoning told."""
    context, chosen, kept, notes = choice.context, choice.chosen, choice.kept, choice.notes
    strategy, picked = chosen.strategy, chosen.picked
    candidates = picked.candidates
    considered = len(picked.eligible) or len(candidates)
    said = Circumstances(strategy.name, picked.explored, kept.rejected, choice.known, considered, picked.terms)
    text = reasoning(candidates, picked.place, said)
    if chosen.fallback:
        text = f"{text} The fallback decided: {chosen.fallback}."
    if kept.note:
        text = f"{text} {kept.note}."
    if notes:
        text = f"{text} {'; '.join(notes)}."
    return Decision(
        context.request_id,
        context.task_id,
        context.task_type,
        picked.agent,
        picked.confidence,
        picked.propensity,
        strategy=strategy.name,
        policy_version=strategy.version,
        reasoning=text,
        candidates=candidates,
        rejected=kept.rejected,
        explored=picked.explored,
        created_at=choice.epoch,
        context=context,
        eligible=picked.eligible,
        terms=picked.terms,
        fallback=chosen.fallback,
        state_sequence=picked.state_sequence,
    )
