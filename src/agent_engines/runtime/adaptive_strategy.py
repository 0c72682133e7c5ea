"""The adaptive strategy: learning/adaptive.py, the policy that evaluators drive, on the fleet of this router."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import force_setattr

from agent_engines.domain.decisions import Candidate, DecisionContext
from agent_engines.domain.routing import drawn
from agent_engines.learning.adaptive import Adaptive, Options, Weighed
from agent_engines.learning.arrays import Floats
from agent_engines.learning.lesson import Lesson
from agent_engines.learning.task_features import task_vector

from .field import Field
from .learned import Learned
from .strategy import Moment, Picked

MOST_KNOWN = 1024
REDRAWN = 7
"""So many more tasks of a type are drawn from the same probabilities while all have free slots: a burst costs an eighth."""
FEW = 8
"""A field of so many kinds is recorded whole; of a larger one ..."""
SHOWN = 4
"""... the numbers of those with the best utility are kept, and of the chosen one."""


class Ticket(msgspec.Struct, frozen=True):
    """What a decision is learned from by. `raw`, `confidence`: what was predicted, where the policy itself was not asked."""

    task_id: str | None
    task_type: str
    features: Floats | None
    candidate: Mapping[str, Any]
    raw: float | None = None
    confidence: float | None = None


class Known(msgspec.Struct, frozen=True, gc=False):
    """What is believed of a kind for a task type, as long as no lesson comes: so many were learned then."""

    lessons: int
    quality: float
    width: float
    raw: float
    confidence: float


class Spread:
    """Probabilities that may be drawn from again: nothing has changed that would make others worth computing."""

    def __init__(self, field: Field, context: DecisionContext, lessons: int, weighed: Weighed) -> None:
        self.field = field
        self.task_type = context.task_type
        self.price = context.price
        self.lessons = lessons
        self.weighed = weighed
        self.places: list[int] = weighed.best.tolist()
        self.probabilities: list[float] = weighed.probabilities.tolist()
        self.best = int(weighed.utility.argmax())
        self.left = REDRAWN

    @classmethod
    def of(cls, field: Field, context: DecisionContext, lessons: int, weighed: Weighed) -> Spread | None:
        """None where somebody is full: drawn again it would keep tasks from him when he is not any more."""
        made = cls(field, context, lessons, weighed)
        return made if made.free() else None

    def fits(self, context: DecisionContext, field: Field, lessons: int) -> bool:
        """Whether it holds for one more task: same field, type and price, nothing learned, and everybody has a free slot."""
        if self.left <= 0 or self.field is not field or self.task_type != context.task_type:
            return False
        if self.lessons != lessons or self.price != context.price or context.deadline is not None:
            return False
        return self.free()

    def free(self) -> bool:
        """Whether everybody in it has a free slot."""
        members = self.field.members
        for place in self.places:
            member = members[place]
            if member.in_flight() >= member.slots:
                return False
        return True


class AdaptiveStrategy:
    """See strategy.py: Strategy. `price`: value of one unit of cost in units of quality."""

    name = "adaptive"
    version = "adaptive-3"
    older = ("adaptive-2", "adaptive-1")
    """Versions whose snapshots of what was learned can be read."""

    def __init__(self, *, seed: int, price: float, learned: Learned) -> None:
        options = Options(price=price)
        self._adaptive = Adaptive(options, seed=seed, values=learned.values)
        self._learned = learned
        self._options = options
        self._known: dict[tuple[str, str], Known] = {}
        self._spread: Spread | None = None
        self._rng = Random(seed)
        self._terms = {"price": options.price, "haste": options.haste, "late": options.late}

    def choose(self, context: DecisionContext, field: Field, moment: Moment) -> Picked:
        plain = context.features is None and context.embedding is None
        if plain and len(field.members) == 1:
            self._adaptive.decided()
            return self._only(context, field, moment)
        spread = self._spread
        if spread is not None and plain and spread.fits(context, field, self._learned.values.lessons):
            return self._drawn_again(spread, context, moment)
        usual = moment.usual
        work = None if usual is None or usual.service_ms is None else usual.service_ms / 1000.0
        asked: dict[str, Any] = {
            "task_id": context.task_id,
            "task_type": context.task_type,
            "features": task_vector(
                context.features,
                context.embedding,
                payload_bytes=context.payload_bytes,
                requirements=context.requirements,
            ),
            "priority": context.priority,
            "deadline_s": context.deadline,
            "now": moment.epoch,
            "work_hint": work,
            "lam": context.price,
        }
        choice = self._adaptive.choose(asked, field.mappings)
        if plain and len(field.members) <= FEW:
            self._spread = Spread.of(field, context, self._learned.values.lessons, choice.weighed)
        candidates, place = _recorded(choice.weighed, choice.position, context, field, moment)
        return Picked(
            agent=choice.agent,
            confidence=choice.confidence,
            propensity=choice.probability,
            explored=choice.explored,
            candidates=candidates,
            place=place,
            eligible=field.agents if len(candidates) < len(field.agents) else (),
            terms=self._worth(context),
            ticket=Ticket(context.task_id, context.task_type, asked["features"], field.mappings[choice.position]),
            state_sequence=self._learned.sequence,
        )

    def learn(self, ticket: Ticket, outcome: Mapping[str, Any]) -> Lesson | None:
        asked = {"task_id": ticket.task_id, "task_type": ticket.task_type, "features": ticket.features}
        lesson = self._adaptive.lesson(asked, ticket.candidate, outcome)
        if lesson is not None and ticket.raw is not None:
            # Made for this outcome, nobody else has it yet.
            force_setattr(lesson, "raw", ticket.raw)
            force_setattr(lesson, "confidence", ticket.confidence)
        return lesson

    def observe(self, agent: str, outcome: Mapping[str, Any]) -> None:
        self._adaptive.lesson({}, {"agent": agent}, outcome)

    def hedge_after(self, predicted: float, ticket: Any) -> float | None:
        """See strategy.py: Hedger."""
        return self._adaptive.patience(predicted)

    def hedged(self) -> None:
        """See strategy.py: Hedger."""
        self._adaptive.hedged()
        self._adaptive.outlasted()

    def raced(self, *, won: bool) -> None:
        """See strategy.py: Hedger."""
        self._adaptive.raced(won=won)

    def _only(self, context: DecisionContext, field: Field, moment: Moment) -> Picked:
        """Nobody else to choose: what is believed of the one is looked up, nothing is drawn and nothing weighed."""
        mapping, member = field.mappings[0], field.members[0]
        known = self._believed(str(mapping["cls"]), context.task_type)
        candidate = member.candidate(context.task_type, moment.usual, moment.now)
        options = self._options
        seconds = candidate.completion_ms / 1000.0
        force_setattr(candidate, "quality", known.quality)
        force_setattr(candidate, "doubt", known.width)
        price = options.price if context.price is None else context.price
        force_setattr(candidate, "score", known.quality - price * candidate.cost - options.haste * seconds)
        force_setattr(candidate, "probability", 1.0)
        return Picked(
            agent=member.name,
            confidence=known.confidence,
            propensity=1.0,
            explored=False,
            candidates=(candidate,),
            place=0,
            terms=self._worth(context),
            ticket=Ticket(context.task_id, context.task_type, None, mapping, known.raw, known.confidence),
            state_sequence=self._learned.sequence,
        )

    def _drawn_again(self, spread: Spread, context: DecisionContext, moment: Moment) -> Picked:
        """One more draw from the same probabilities: as exact as the first."""
        spread.left -= 1
        self._adaptive.decided()
        kind = drawn(spread.probabilities, self._rng.random())
        place, weighed = spread.places[kind], spread.weighed
        raw = min(max(float(weighed.quality[kind]), 0.0), 1.0)
        confidence = self._learned.values.confidence(raw, context.task_type, 0)
        candidates, at = _recorded(weighed, place, context, spread.field, moment)
        return Picked(
            agent=spread.field.agents[place],
            confidence=confidence,
            propensity=spread.probabilities[kind],
            explored=kind != spread.best,
            candidates=candidates,
            place=at,
            eligible=spread.field.agents if len(candidates) < len(spread.field.agents) else (),
            terms=self._worth(context),
            ticket=Ticket(context.task_id, context.task_type, None, spread.field.mappings[place], raw, confidence),
            state_sequence=self._learned.sequence,
        )

    def _worth(self, context: DecisionContext) -> dict[str, float]:
        """What the utilities were made with: a tenant that is paced has a price of its own."""
        return self._terms if context.price is None else {**self._terms, "price": context.price}

    def _believed(self, kind: str, task_type: str) -> Known:
        values = self._learned.values
        known = self._known.get((kind, task_type))
        if known is None or known.lessons != values.lessons:
            means, widths = values.predict(np.array([values.number(kind)]), task_type, None)
            raw = min(max(float(means[0]), 0.0), 1.0)
            confidence = values.confidence(raw, task_type, 0)
            known = Known(values.lessons, float(means[0]), float(widths[0]), raw, confidence)
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[kind, task_type] = known
        return known

    def loaded(self, agent: str, in_flight: int, epoch: float) -> None:
        self._adaptive.report(agent, float(in_flight), epoch)


def _recorded(
    weighed: Weighed, position: int, context: DecisionContext, field: Field, moment: Moment
) -> tuple[tuple[Candidate, ...], int]:
    """(candidates with their numbers, where the one at `position` of the field is among them)."""
    places: list[int] = weighed.best.tolist()
    quality, width, found = weighed.quality, weighed.width, weighed.found
    if len(places) > FEW:
        shown = _shown(weighed, places.index(position))
        places = [places[kind] for kind in shown]
        kinds = np.array(shown)
        quality, width, found = quality.take(kinds), width.take(kinds), found.take(kinds, axis=1)
    numbers = zip(places, quality.tolist(), width.tolist(), *found.tolist(), strict=True)
    members, task_type, usual, now, timed = field.members, context.task_type, moment.usual, moment.now, weighed.timed
    candidates: list[Candidate] = []
    for place, expected, doubt, seconds, score, probability in numbers:
        candidate = members[place].candidate(task_type, usual, now)
        # Made for this decision alone: the policy's numbers take the place of the fleet's.
        force_setattr(candidate, "quality", expected)
        force_setattr(candidate, "doubt", doubt)
        force_setattr(candidate, "score", score)
        force_setattr(candidate, "probability", probability)
        if timed:
            force_setattr(candidate, "completion_ms", 1000.0 * seconds)
        candidates.append(candidate)
    return tuple(candidates), places.index(position)


def _shown(weighed: Weighed, chosen: int) -> list[int]:
    """Kinds of a large field whose numbers are kept: those with the best utility and the chosen one, in the fleet's order."""
    best: list[int] = weighed.utility.argpartition(-SHOWN)[-SHOWN:].tolist()
    if chosen not in best:
        best[0] = chosen
    return sorted(best)
