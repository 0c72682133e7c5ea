"""The seam between the router and whoever chooses: what a strategy is asked, what it answers, what it hears later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from agent_engines.domain.decisions import Candidate, DecisionContext
from agent_engines.domain.estimates import Track
from agent_engines.learning.lesson import Lesson

from .field import Field

NO_TERMS: dict[str, float] = {}


class Moment(msgspec.Struct, frozen=True, gc=False):
    """When a decision is made and what is known of the task type. `now`: monotonic seconds, `epoch`: epoch seconds."""

    now: float
    epoch: float
    usual: Track | None


class Picked(msgspec.Struct, frozen=True):
    """A choice from a field. `candidates`: the record's, the chosen one among them at `place`.

    `eligible`: everybody, where `candidates` are only some. `ticket`: what the strategy wants back with the outcome; None: nothing.
    """

    agent: str
    confidence: float
    propensity: float
    explored: bool
    candidates: tuple[Candidate, ...]
    place: int
    eligible: tuple[str, ...] = ()
    terms: dict[str, float] = NO_TERMS
    ticket: Any = None
    state_sequence: int | None = None


@runtime_checkable
class Hedger(Protocol):
    """A strategy that says when a task of its own is so late that another agent should be asked too."""

    def hedge_after(self, predicted: float, ticket: Any) -> float | None:
        """Seconds to wait for a task predicted to take `predicted`; None: not now (budget, utilisation).

        `ticket`: the one of its decision.
        """
        ...

    def hedged(self) -> None:
        """Another agent was asked."""
        ...

    def raced(self, *, won: bool) -> None:
        """A hedged task has succeeded; `won`: at the second agent."""
        ...


class Strategy(Protocol):
    """Chooses among at least one member. Anything it raises is caught at the seam (strategies.py)."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def choose(self, context: DecisionContext, field: Field, moment: Moment) -> Picked: ...

    def learn(self, ticket: Any, outcome: Mapping[str, Any]) -> Lesson | None:
        """What came of a decision of its own; what it teaches every router is returned."""
        ...

    def observe(self, agent: str, outcome: Mapping[str, Any]) -> None:
        """What came of a decision that was somebody else's."""
        ...

    def loaded(self, agent: str, in_flight: int, epoch: float) -> None:
        """An agent has so many tasks now."""
        ...
