"""The adaptive policy: which kind of agent is worth most for this task, and which of its replicas finishes first.

    context -> expected quality of each kind -> utility (quality - price * cost - haste * completion - lateness)
            -> exploration over kinds with exact probabilities -> best replica of that kind

What is known of kinds (`Values`) is shared between routers and changes by lessons only; what is known of replicas (`Loads`) is
this router's own. No clock and no global chance: the same calls with the same seed give the same answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import force_setattr

from .arrays import Floats, NDArrayInt
from .candidates import Candidates, arranged, kind_of, parent_of
from .exploration import Draws
from .features import checked
from .given import agent_of, number, slots_of
from .hedges import MOST_BUSY, Hedges
from .kernel import weigh
from .lesson import Lesson
from .load import Loads, Sent
from .pacing import Pacer
from .text import hashed
from .values import Settings, Values

COST = itemgetter("cost")
MOST_TUPLES = 16
"""Tuples of candidates that are known again by identity."""
TIMES = ("latency", "service", "work")
NO_TIMES = (None, None, None)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What may be tuned. `price`: value of one unit of cost; `haste`: of one second, in units of quality."""

    price: float = 0.1
    haste: float = 0.01
    late: float = 0.5
    floor: float = 0.002
    floor_half_life: float = 2000.0
    ridge_width: float = 0.2
    table_width: float = 1.0
    optimism: float = 1.0
    jitter: float = 0.25
    forgetting: float = 1.0
    budget: float | None = None
    """Mean cost a task may have: the price then follows what is spent, whatever `price` says."""
    text: int = 0
    """Features made of `text` in the context, by hashing its words; 0: none."""


class Weighed(msgspec.Struct, frozen=True, eq=False):
    """What a decision was made of: one entry for each kind, in the same order everywhere. Read only: nothing is copied.

    `numbers` are the kinds' in `Values` (0: new), `quality` and `width` the expectation and its standard deviation, `found` three
    lines: seconds until its best replica would be done (to be read where something is known of time, `timed`), utility,
    probability; `at` and `places` say which replica that is.
    """

    kinds: tuple[str, ...]
    numbers: NDArrayInt
    quality: Floats
    width: Floats
    cost: Floats
    found: Floats
    timed: bool
    at: NDArrayInt
    places: NDArrayInt

    @property
    def utility(self) -> Floats:
        return self.found[1]

    @property
    def probabilities(self) -> Floats:
        return self.found[2]

    @property
    def best(self) -> NDArrayInt:
        """Position of each kind's best replica among the candidates."""
        return self.places[self.at]


class Choice(msgspec.Struct, frozen=True, eq=False):
    """`probability` belongs to the kind; `position` is the chosen candidate's; `confidence` is P(success) of the choice."""

    position: int
    agent: str
    kind: str
    probability: float
    confidence: float
    raw: float
    explored: bool
    weighed: Weighed


class _Arranged(msgspec.Struct, frozen=True, eq=False):
    """Candidates as they came last time: the very tuple or the mappings, their costs, and what was made of them."""

    whole: tuple[Mapping[str, Any], ...] | None
    given: list[Mapping[str, Any]]
    costs: list[Any]
    kinds: int
    fleet: Candidates


class Adaptive:
    """One decider. `choose`, then `learn` with what came of it, in any order and any number of them open.

    Where several routers share what they learn, `lesson` takes the outcome's local part and gives what is to be published;
    `values.learn` takes it in when it comes back in the shared order. `learn` does both at once.
    """

    def __init__(self, options: Options, *, seed: int = 0, routers: int = 1, values: Values | None = None) -> None:
        self._options = options
        self._generator = np.random.default_rng(seed)
        self._draws = Draws(self._generator, optimism=options.optimism, jitter=options.jitter)
        self._loads = Loads(routers)
        settings = Settings(
            ridge_width=options.ridge_width, table_width=options.table_width, forgetting=options.forgetting
        )
        self.values = values or Values(settings)
        self._timed = False
        self._last: _Arranged | None = None
        self._tuples: dict[int, _Arranged] = {}
        """By identity: a router chooses from the same few tuples again and again."""
        self._hedges = Hedges()
        self._pacer = None if options.budget is None else Pacer(options.budget)
        self.decisions = 0

    def choose(self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> Choice:
        """Choose among at least one candidate. Raises ValueError naming a field that cannot be used.

        A tuple that comes again is taken for unchanged, its mappings too; a list is compared.
        """
        if not candidates:
            raise ValueError("candidates is empty: there is nobody to choose from")
        now = number("now", context.get("now")) or 0.0
        features = self._features(context)
        task_type = str(context.get("task_type") or "")
        fleet = self._arranged(candidates)
        means, widths = self.values.predict(fleet.known, task_type, features)
        kinds = len(fleet.names)
        room = np.empty((3, kinds))
        work = number("work_hint", context.get("work_hint"))
        timed = work is not None or self._timed
        numbers = self._loads.at(now) if timed else None
        best = self._places(fleet, timed=timed)
        terms = (*self._loads.terms(work), *self._worth(context, now), self._floor(), self._generator.random())
        kind, first, quality, seconds, probability = weigh(
            (means, widths), fleet.whole, numbers, terms, self._draws.take(kinds), best, room
        )
        at = int(best[kind])
        raw = min(max(quality, 0.0), 1.0)
        confidence = self.values.confidence(raw, task_type, 0 if features is None else len(features))
        sent = Sent(int(fleet.rows[at]), raw, confidence, now, seconds)
        self._loads.sent(str(context.get("task_id")), sent)
        self.decisions += 1
        self._hedges.decided()
        place = int(fleet.places[at])
        return Choice(
            place,
            str(candidates[place]["agent"]),
            fleet.names[kind],
            probability,
            confidence,
            raw,
            kind != first,
            Weighed(fleet.names, fleet.numbers, means, widths, fleet.costs, room, timed, best, fleet.places),
        )

    def learn(self, context: Mapping[str, Any], candidate: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """Take in what came of one decision: quality 0..1, success, error, latency, service, work, cancelled."""
        lesson = self.lesson(context, candidate, outcome)
        if lesson is not None:
            self.values.take(lesson)

    def lesson(
        self, context: Mapping[str, Any], candidate: Mapping[str, Any], outcome: Mapping[str, Any]
    ) -> Lesson | None:
        """Take in what the outcome says of the replica; what it teaches about its kind is returned, None when nothing.

        Raises ValueError naming a field that cannot be used; then nothing was taken in.
        """
        made = None if outcome.get("cancelled") else _lesson(context, candidate, outcome, self._features(context))
        fine = made is not None and not outcome.get("error")
        latency, service, work = map(number, TIMES, map(outcome.get, TIMES)) if fine else NO_TIMES
        now = number("now", outcome.get("now") or context.get("now")) or 0.0
        row = self._loads.row(str(candidate["agent"]))
        sent = self._loads.back(str(context.get("task_id")), row, refresh=not fine)
        if made is None:
            return None
        if self._pacer is not None and made.cost is not None:
            self._pacer.spent(made.cost)
        if not fine:
            self._loads.failed(row, now)
        else:
            if sent is not None and latency is not None:
                self._hedges.told(latency, sent.seconds)
            self._loads.succeeded(row, service, work, now, sent_at=math.inf if sent is None else sent.at)
        if sent is not None:
            # Made above, nobody else has it yet.
            force_setattr(made, "raw", sent.raw)
            force_setattr(made, "confidence", sent.confidence)
        return made

    def report(self, agent: str, in_flight: float, now: float) -> None:
        """A replica's own word on how many requests it has."""
        self._loads.reported(self._loads.row(agent), in_flight, now)
        self._timed = True

    def hedge_after(self, task_id: str, agent: str) -> float | None:
        """Seconds after which a task under way at `agent` should be sent to a second replica too; None: not at all.

        Only for tasks that may run twice. Whoever does it calls `hedged`, and `learn` with `cancelled` for the loser.
        """
        seconds = self._loads.predicted(task_id, self._loads.row(agent))
        return None if seconds is None else self.patience(seconds)

    def patience(self, predicted: float) -> float | None:
        """Seconds to wait for a task that was predicted to take `predicted`; None: the budget is spent, or the fleet too busy."""
        return None if self._loads.utilisation() > MOST_BUSY else self._hedges.after(predicted)

    def outlasted(self) -> None:
        """A task was still away when its wait was over."""
        self._hedges.outlasted()

    def decided(self) -> None:
        """One more decision was made from what this one knows, without asking it: the budget of hedges grows with them."""
        self._hedges.decided()

    def hedged(self) -> None:
        """A second replica was asked."""
        self._hedges.spent()

    def raced(self, *, won: bool) -> None:
        """A hedged task has succeeded; `won`: at the second replica."""
        self._hedges.raced(won=won)

    def under_way(self, task_id: str) -> bool:
        """Whether it was sent to somebody and has not come back."""
        return self._loads.under_way(task_id)

    def _worth(self, context: Mapping[str, Any], now: float) -> tuple[float, float, float, float]:
        """Price, haste, what being late costs, and the seconds left."""
        haste, deadline = self._options.haste, context.get("deadline_s")
        if deadline is None or deadline == math.inf:
            return self._price(context), haste, 0.0, 0.0
        return self._price(context), haste, self._options.late, (number("deadline_s", deadline) or 0.0) - now

    def _floor(self) -> float:
        """Share of decisions that belongs to all kinds alike."""
        options = self._options
        return max(options.floor / (1.0 + self.decisions / options.floor_half_life), self.values.floor)

    def _price(self, context: Mapping[str, Any]) -> float:
        price = number("lam", context.get("lam"))
        if price is None:
            return self._options.price if self._pacer is None else self._pacer.price
        return price

    def _features(self, context: Mapping[str, Any]) -> Floats | None:
        """The caller's numbers, with those of the text behind them where that is asked for."""
        features = checked(context.get("features"))
        if not self._options.text:
            return features
        words = hashed(str(context.get("text") or ""), self._options.text)
        return words if features is None else np.concatenate([features, words])

    def _places(self, fleet: Candidates, *, timed: bool) -> NDArrayInt:
        """Of each kind the place of the replica that is taken; yet to be found out where several are known by their times."""
        if len(fleet.rows) == len(fleet.names):
            return fleet.starts
        return np.empty_like(fleet.starts) if timed else fleet.any_of(self._generator.random())

    def _arranged(self, candidates: Sequence[Mapping[str, Any]]) -> Candidates:
        """The candidates as arrays; kept while the same mappings come again at the same cost."""
        known = self.values.kinds
        met = self._tuples.get(id(candidates))
        if met is not None and met.whole is candidates and met.kinds == known:
            return met.fleet
        given = candidates if isinstance(candidates, list) else list(candidates)
        try:
            costs = list(map(COST, given))
        except KeyError:
            costs = [one.get("cost") for one in given]
        last = self._last
        if last is not None and last.kinds == known and last.costs == costs and last.given == given:
            return last.fleet
        loads = self._loads
        rows = [loads.row(agent_of(one)) for one in given]
        fleet = arranged(given, rows, self.values.number)
        for one, row in zip(given, rows, strict=True):
            slots = slots_of(one)
            if slots is not None:
                loads.slots(row, slots)
        whole = candidates if isinstance(candidates, tuple) else None
        self._last = _Arranged(whole, list(given), costs, known, fleet)
        if whole is not None:
            if len(self._tuples) >= MOST_TUPLES:
                self._tuples.clear()
            self._tuples[id(whole)] = self._last
        return fleet


def _lesson(
    context: Mapping[str, Any], candidate: Mapping[str, Any], outcome: Mapping[str, Any], features: Floats | None
) -> Lesson:
    failed = bool(outcome.get("error")) or outcome.get("success") is False
    quality = None if outcome.get("error") else number("quality", outcome.get("quality"))
    value = 0.0 if failed and quality is None else 1.0 if quality is None else quality
    made = Lesson(
        id=str(context.get("task_id") or ""),
        kind=kind_of(candidate),
        task_type=str(context.get("task_type") or ""),
        features=None if features is None else tuple(features.tolist()),
        quality=value,
        cost=number("cost", outcome.get("cost")),
        seconds=number("service", outcome.get("service")),
        parent=parent_of(candidate),
    )
    made.check()
    return made
