"""Routing: policies that choose one of the eligible agents, each with the exact probability it used.

    candidates -> scores -> softmax -> mixed with a uniform floor -> one draw

Every policy samples from the vector it returns; a policy that always takes the best one could never be judged from its
own history (no overlap, so no off-policy estimate).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Protocol

import msgspec

from .decisions import Candidate, DecisionContext


class Choice(msgspec.Struct, frozen=True):
    """Which candidate, and the vectors it was drawn with. `explored`: it was not the best by score."""

    index: int
    probabilities: tuple[float, ...]
    scores: tuple[float, ...]
    explored: bool


class Policy(Protocol):
    """Chooses among at least one candidate; everything it knows is in its arguments and its options."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def choose(self, context: DecisionContext, candidates: Sequence[Candidate], rng: Random, now: float) -> Choice: ...


class LoadAware(msgspec.Struct, frozen=True, kw_only=True):
    """Prefer those who succeed and do it well, finish soon and cost little; stay curious about those nobody knows.

    score = min(1, success + curiosity * doubt) * quality (1 where nobody judges it) - haste * log2(completion / best completion) - price * cost
            - load * busy share - late (when the deadline would be missed)
    """

    temperature: float = 0.05
    """Score difference that makes one candidate e times as likely as another."""
    floor: float = 0.01
    """Share of choices that is spread evenly, so that every candidate keeps being tried."""
    curiosity: float = 1.0
    haste: float = 0.05
    """Success probability one halving of the completion time is worth."""
    price: float = 0.1
    load: float = 0.02
    late: float = 1.0
    grain_ms: float = 50.0
    """Completion times closer than this are nearly alike: nobody waits for tens of milliseconds at the price of a worse answer."""

    @property
    def name(self) -> str:
        return "load_aware"

    @property
    def version(self) -> str:
        return "load_aware-1"

    def choose(self, context: DecisionContext, candidates: Sequence[Candidate], rng: Random, now: float) -> Choice:
        scores = self._scores(context, candidates, now)
        best = max(scores)
        temperature = self.temperature
        weights = [math.exp((score - best) / temperature) for score in scores]
        keep = (1.0 - self.floor) / sum(weights)
        even = self.floor / len(scores)
        probabilities = tuple([weight * keep + even for weight in weights])
        index = drawn(probabilities, rng.random())
        return Choice(index, probabilities, tuple(scores), scores[index] < best)

    def _scores(self, context: DecisionContext, candidates: Sequence[Candidate], now: float) -> list[float]:
        grain, curiosity, haste, price, load = self.grain_ms, self.curiosity, self.haste, self.price, self.load
        price = price if context.price is None else context.price
        soonest = min([candidate.completion_ms for candidate in candidates]) + grain
        slack_ms = math.inf if context.deadline is None else (context.deadline - now) * 1000.0
        log2, scores = math.log2, list[float]()
        for candidate in candidates:
            completion = candidate.completion_ms
            hope = candidate.success + curiosity * candidate.doubt
            busy = candidate.in_flight / candidate.slots
            quality = candidate.quality
            score = (
                (hope if hope < 1.0 else 1.0) * (1.0 if quality is None else quality)
                - haste * log2((completion + grain) / soonest)
                - price * candidate.cost
                - load * (busy if busy < 1.0 else 1.0)
            )
            if completion > slack_ms:
                score -= self.late
            scores.append(score)
        return scores


def drawn(probabilities: Sequence[float], point: float) -> int:
    """Position whose slice of [0, 1) holds `point`; the last one takes what rounding leaves."""
    total = 0.0
    for index, probability in enumerate(probabilities):
        total += probability
        if point < total:
            return index
    return len(probabilities) - 1
