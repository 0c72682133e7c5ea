"""Baselines: the well-known balancing rules, on the same numbers and with the same ejection as the adaptive policy.

random, round_robin, least_loaded, power_of_two (Mitzenmacher 2001), prequal (NSDI 2024: hot above a quantile of requests in
flight, else the fastest of some probed), c3 (NSDI 2015: cubic queue), cost_aware (cheapest, then least loaded).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import comb
from typing import Any

import numpy as np

from .arrays import NDArrayInt
from .features import Floats
from .given import agent_of, cost_of, number, slots_of
from .load import Loads, Sent

PROBED = 3
TIE = 1e-9
HOT = 0.84


class Baseline:
    """One replica rule. Probabilities are exact where the rule draws uniformly, else 1 for what it must take."""

    def __init__(self, name: str, *, seed: int = 0, routers: int = 1) -> None:
        if name not in RULES:
            raise ValueError(f"there is no strategy {name!r}; there are {', '.join(sorted(RULES))}")
        self.name = name
        self._rule = RULES[name]
        self._generator = np.random.default_rng(seed)
        self._loads = Loads(routers)
        self._turn = 0

    def choose(self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> tuple[str, float, float]:
        """(agent, confidence, propensity). Raises ValueError (nobody, or the field that cannot be used)."""
        if not candidates:
            raise ValueError("candidates is empty: there is nobody to choose from")
        now = number("now", context.get("now")) or 0.0
        costs = np.array([cost_of(one) for one in candidates])
        rows = np.array([self._loads.row(agent_of(one)) for one in candidates])
        for one, row in zip(candidates, rows, strict=True):
            slots = slots_of(one)
            if slots is not None:
                self._loads.slots(int(row), slots)
        allowed = np.arange(len(rows))
        out = self._loads.ejected(rows, now)
        if out is not None and not out.all():
            allowed = np.flatnonzero(~out)
        at, probability = self._rule(self, rows[allowed], costs[allowed])
        place = int(allowed[at])
        row = int(rows[place])
        self._loads.sent(str(context.get("task_id")), Sent(row, 0.0, 0.0, now))
        return str(candidates[place]["agent"]), 1.0 - self._loads.error_share(row), probability

    def learn(self, decision: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """Take in what came of one decision. Raises ValueError naming what cannot be used; then nothing was taken in."""
        agent = str(decision["agent"])
        if "candidates" in decision and all(agent != str(one["agent"]) for one in decision["candidates"]):
            raise ValueError(f"agent {agent!r} is not among the candidates of this decision")
        now = number("now", outcome.get("now")) or 0.0
        service, work = number("service", outcome.get("service")), number("work", outcome.get("work"))
        row = self._loads.row(agent)
        self._loads.back(str(decision["context"].get("task_id")), row)
        if outcome.get("cancelled"):
            return
        if outcome.get("error"):
            self._loads.failed(row, now)
        else:
            self._loads.succeeded(row, service, work, now)

    def on_report(self, agent: str, report: Mapping[str, Any], now: float) -> None:
        """A replica's load report. Raises ValueError naming what cannot be used."""
        in_flight, at = number("rif", report.get("rif")) or 0.0, number("now", now) or 0.0
        self._loads.reported(self._loads.row(agent), in_flight, at)

    def on_probe(self, agent: str, report: Mapping[str, Any], now: float) -> None:
        """The answer to a probe."""
        self.on_report(agent, report, now)

    def uniform(self, size: int) -> int:
        return int(self._generator.integers(size))

    def some(self, size: int, count: int) -> NDArrayInt:
        return self._generator.choice(size, size=min(count, size), replace=False)

    def next_turn(self, size: int) -> int:
        self._turn += 1
        return self._turn % size

    def flight(self, rows: NDArrayInt) -> Floats:
        return self._loads.flight(rows)

    def slowness(self, rows: NDArrayInt) -> Floats:
        return self._loads.slowness(rows)

    def tied(self, scores: Floats) -> int:
        """The smallest; among equals any."""
        best = np.flatnonzero(scores <= scores.min() + TIE)
        return int(best[self.uniform(len(best))])


def _random(policy: Baseline, rows: NDArrayInt, costs: Floats) -> tuple[int, float]:
    return policy.uniform(len(rows)), 1.0 / len(rows)


def _round_robin(policy: Baseline, rows: NDArrayInt, costs: Floats) -> tuple[int, float]:
    return policy.next_turn(len(rows)), 1.0


def _smallest(policy: Baseline, scores: Floats) -> tuple[int, float]:
    """Any of the smallest, each as likely as the others."""
    return policy.tied(scores), 1.0 / int((scores <= scores.min() + TIE).sum())


def _least_loaded(policy: Baseline, rows: NDArrayInt, costs: Floats) -> tuple[int, float]:
    return _smallest(policy, policy.flight(rows))


def _best_of(policy: Baseline, scores: Floats, count: int) -> tuple[int, float]:
    """The smallest score among `count` drawn without replacement, ties by chance; and exactly how likely that one was."""
    size = len(scores)
    some = policy.some(size, count)
    at = int(some[policy.tied(scores[some])])
    worse = int((scores > scores[at] + TIE).sum())
    equal = size - 1 - worse - int((scores < scores[at] - TIE).sum())
    others = min(count, size) - 1
    ways = sum(comb(equal, tied) * comb(worse, others - tied) / (tied + 1.0) for tied in range(others + 1))
    return at, ways / comb(size, others + 1)


def _power_of_two(policy: Baseline, rows: NDArrayInt, costs: Floats) -> tuple[int, float]:
    return _best_of(policy, policy.flight(rows), 2)


def _prequal(policy: Baseline, rows: NDArrayInt, costs: Floats) -> tuple[int, float]:
    """Cold ones before hot ones; the cold by speed, the hot by requests in flight: an order that does not depend on who is drawn."""
    flight = policy.flight(rows)
    hot = flight > np.quantile(flight, HOT)
    return _best_of(policy, np.where(hot, 1e6 + flight, policy.slowness(rows) * (1.0 + flight)), PROBED)


def _c3(policy: Baseline, rows: NDArrayInt, costs: Floats) -> tuple[int, float]:
    slow = policy.slowness(rows)
    return _smallest(policy, slow * (1.0 + policy.flight(rows)) ** 3)


def _cost_aware(policy: Baseline, rows: NDArrayInt, costs: Floats) -> tuple[int, float]:
    return _smallest(policy, costs * 1e6 + policy.flight(rows))


Rule = Callable[[Baseline, NDArrayInt, Floats], tuple[int, float]]
RULES: Mapping[str, Rule] = {
    "random": _random,
    "round_robin": _round_robin,
    "least_loaded": _least_loaded,
    "power_of_two": _power_of_two,
    "prequal": _prequal,
    "c3": _c3,
    "cost_aware": _cost_aware,
}
