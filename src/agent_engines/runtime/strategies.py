"""Strategies by name: which one decides a task, what happens when it cannot, and who hears what came of it.

the request's word > the task type's > the router's; one that raises or answers nonsense is replaced by the fallback, counted
and logged, and the task is routed all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

import msgspec

from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.hedging import MOST_RACES
from agent_engines.domain.messages import ReportKind
from agent_engines.domain.tasks import TaskStatus
from agent_engines.learning.lesson import Lesson
from agent_engines.ports.telemetry import Telemetry

from .field import Field
from .outcomes import Outcome
from .strategy import Hedger, Moment, Picked, Strategy
from .thinning import Thinning

MOST_OPEN = 100_000
"""Decisions whose outcome is waited for; the oldest are forgotten, and teach nothing."""
NO_OUTCOME = frozenset({ReportKind.STARTED, ReportKind.FEEDBACK})
"""Work that has only begun, and judgements of work that ended before (judgements.py)."""
Maker = Callable[[], Strategy]


class StrategyChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which strategy decides what: names only."""

    default: str = "adaptive"
    by_task_type: Mapping[str, str] = {}
    fallback: str = "least_loaded"


class Open(msgspec.Struct, frozen=True):
    """A decision under way since an epoch second. `agent`: an outcome of another one is about another decision."""

    strategy: Strategy
    agent: str
    ticket: Any
    since: float


class Chosen(msgspec.Struct, frozen=True):
    """What was decided, by whom, and why by them."""

    strategy: Strategy
    picked: Picked
    fallback: str


class Strategies:
    """`makers` are called when their strategy is first wanted; `teach` takes lessons for all routers."""

    def __init__(
        self,
        makers: Mapping[str, Maker],
        choice: StrategyChoice,
        *,
        telemetry: Telemetry,
        rng: Random,
        teach: Callable[[Lesson], None] = lambda lesson: None,
    ) -> None:
        """Raises InvalidRequest when `choice` names a strategy that is not there."""
        self._makers = dict(makers)
        self._choice = choice
        self._telemetry = telemetry
        self._log = telemetry.log("intelligence")
        self._made: dict[str, Strategy] = {}
        self._loads: dict[str, tuple[int, float]] = {}
        self._moved: dict[str, None] = {}
        """Whose load strategies have yet to hear of, in order: a set's would be another one in each process."""
        self._thinning = Thinning(rng)
        self._open: dict[str, Open] = {}
        self._first: dict[str, Open] = {}
        """Of hedged tasks the first leg; the second one is in `_open`."""
        self._hedgers: dict[str, Hedger] = {}
        self.teach = teach
        for name in (choice.default, choice.fallback, *choice.by_task_type.values()):
            self.check(name)

    @property
    def names(self) -> list[str]:
        return sorted(self._makers)

    @property
    def default(self) -> str:
        """Who decides where neither the request nor its task type says."""
        return self._choice.default

    def named_by(self, word: str) -> str | None:
        """The strategy with this name, or this version as far as it has been made; None: there is none."""
        if word in self._makers:
            return word
        return next((name for name, made in self._made.items() if made.version == word), None)

    async def make(self, name: str) -> Strategy:
        """The strategy of that name, made beside the event loop if it has to be: a policy of one's own may load a model.

        Raises LookupError when it is not there, and whatever its maker raises.
        """
        made = self._made.get(name)
        if made is None:
            maker = self._maker(name)
            made = await asyncio.to_thread(maker)
            # A request may have named it meanwhile.
            made = self._made.get(name) or self._keep(name, made)
        return made

    def turn_to(self, strategy: Strategy) -> None:
        """From now on this one decides by default. Decisions under way stay with whoever made them, and teach that one."""
        self._choice = msgspec.structs.replace(self._choice, default=strategy.name)

    def check(self, name: str | None) -> None:
        """Raise InvalidRequest for a name that is not there; None means the router's own choice."""
        if name is not None and name not in self._makers:
            raise InvalidRequest(f"there is no strategy {name!r}; there are {', '.join(self.names)}", field="strategy")

    def named(self, context: DecisionContext) -> str:
        """Who is to decide this."""
        return context.strategy or self._choice.by_task_type.get(context.task_type) or self._choice.default

    def hedger(self, name: str) -> Hedger | None:
        """The strategy of that name, if it has decided something and hedges."""
        return self._hedgers.get(name)

    def hedge_after(self, name: str, task_id: str, predicted: float) -> float | None:
        """Seconds to wait for the first agent of a task; None: its strategy does not hedge it."""
        hedger = self._hedgers.get(name)
        if hedger is None:
            return None
        opened = self._open.get(task_id)
        try:
            return hedger.hedge_after(predicted, None if opened is None else opened.ticket)
        except Exception as error:
            self._log.warning("A strategy did not say when a task is late", strategy=name, error=repr(error))
            return None

    def hedged(self, name: str) -> None:
        """Another agent is asked too."""
        try:
            self._hedgers[name].hedged()
        except Exception as error:
            self._log.warning("A strategy did not take a hedge", strategy=name, error=repr(error))

    def raced(self, name: str, *, won: bool) -> None:
        """A hedged task has succeeded; `won`: at the second agent."""
        hedger = self._hedgers.get(name)
        if hedger is not None:
            hedger.raced(won=won)

    def choose(self, context: DecisionContext, field: Field, moment: Moment, *, second: bool = False) -> Chosen:
        """Decide; a strategy that is not there (any more) or fails is replaced by the fallback.

        `second`: the decision about the first leg stays open beside this one.
        """
        wanted = self.named(context)
        try:
            strategy = self._strategy(wanted)
            if self._moved and len(field.agents) > 1:
                self._tell_loads()
            picked = strategy.choose(context, field, moment)
            chosen = Chosen(strategy, picked, "")
        except Exception as error:
            chosen = self._fallen(wanted, error, context, field, moment)
        if chosen.picked.ticket is not None and context.task_id is not None:
            picked = chosen.picked
            opened = Open(chosen.strategy, picked.agent, picked.ticket, moment.epoch)
            self._remember(context.task_id, opened, second=second)
        return chosen

    def loaded(self, agent: str, in_flight: int, epoch: float) -> None:
        """An agent has so many tasks now. Strategies are told before the next choice between several."""
        self._loads[agent] = (in_flight, epoch)
        self._moved[agent] = None

    def learned(self, outcomes: Iterable[Outcome], epoch: float, usual: Callable[[str], float | None]) -> None:
        """Tell the strategies what was recorded. `usual`: seconds a task of a type takes, as the whole fleet knows it."""
        for outcome in outcomes:
            if outcome.kind in NO_OUTCOME or outcome.agent is None:
                continue
            opened = self._opened(outcome)
            # What went wrong is always heard of by those who keep others away from it.
            taken = self._thinning.takes(epoch)
            if not taken and outcome.status is TaskStatus.SUCCESS:
                continue
            told = told_of(outcome, epoch, usual(outcome.task_type))
            own = opened.strategy if taken and opened is not None and opened.agent == outcome.agent else None
            if own is not None and opened is not None:
                self._teach(own, opened.ticket, {**told, "latency": max(0.0, epoch - opened.since)})
            for strategy in self._made.values():
                if strategy is not own:
                    strategy.observe(outcome.agent, told)

    def _tell_loads(self) -> None:
        for agent in self._moved:
            in_flight, epoch = self._loads[agent]
            for strategy in self._made.values():
                strategy.loaded(agent, in_flight, epoch)
        self._moved.clear()

    def _teach(self, strategy: Strategy, ticket: Any, told: Mapping[str, Any]) -> None:
        try:
            lesson = strategy.learn(ticket, told)
        except Exception as error:
            self._telemetry.count("routing_lessons_refused_total", strategy=strategy.name)
            self._log.warning("A strategy did not take an outcome", strategy=strategy.name, error=repr(error))
            return
        if lesson is not None:
            self.teach(lesson)

    def _strategy(self, name: str) -> Strategy:
        return self._made.get(name) or self._keep(name, self._maker(name)())

    def _maker(self, name: str) -> Maker:
        maker = self._makers.get(name)
        if maker is None:
            raise LookupError(f"there is no strategy {name!r}")
        return maker

    def _keep(self, name: str, made: Strategy) -> Strategy:
        """Told of everything from now on, beginning with the loads of all agents."""
        self._made[name] = made
        if isinstance(made, Hedger):
            self._hedgers[name] = made
        for agent, (in_flight, epoch) in self._loads.items():
            made.loaded(agent, in_flight, epoch)
        return made

    def _fallen(self, wanted: str, error: Exception, context: DecisionContext, field: Field, moment: Moment) -> Chosen:
        self._telemetry.decided(wanted, "refused")
        self._log.error("A strategy failed, the fallback decides", strategy=wanted, error=repr(error))
        strategy = self._strategy(self._choice.fallback)
        return Chosen(strategy, strategy.choose(context, field, moment), f"{wanted} failed: {_shown(error)}")

    def _opened(self, outcome: Outcome) -> Open | None:
        """The decision this outcome ends; of a hedged task the other one stays until its leg is told of."""
        opened = self._open.pop(outcome.task_id, None)
        first = self._first.pop(outcome.task_id, None) if self._first else None
        if first is None or opened is None:
            return opened or first
        told, other = (first, opened) if first.agent == outcome.agent else (opened, first)
        self._open[outcome.task_id] = other
        return told

    def _remember(self, task_id: str, opened: Open, *, second: bool) -> None:
        before = self._open.pop(task_id, None)
        if second and before is not None:
            self._first[task_id] = before
            if len(self._first) > MOST_RACES:
                del self._first[next(iter(self._first))]
        self._open[task_id] = opened
        if len(self._open) > MOST_OPEN:
            del self._open[next(iter(self._open))]


def told_of(outcome: Outcome, epoch: float, work: float | None) -> dict[str, Any]:
    """An outcome as strategies hear it: see learning/policy.py. An expired or cancelled task says nothing of its agent."""
    ended = outcome.status is TaskStatus.SUCCESS
    silent = outcome.status in (TaskStatus.CANCELLED, TaskStatus.EXPIRED)
    # A task that can never work speaks against the task: no success, but no reason to keep others from its agent.
    hopeless = outcome.status is TaskStatus.FAILED and not (outcome.error and outcome.error.retryable)
    service = outcome.execution_time_ms
    return {
        "task_id": outcome.task_id,
        "success": ended,
        "error": None if ended or silent or hopeless else (outcome.error.type if outcome.error else "error"),
        "quality": outcome.quality,
        "cost": outcome.cost,
        "service": None if service is None else service / 1000.0,
        "work": work,
        "cancelled": silent,
        "now": epoch,
    }


def _shown(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= 200 else text[:197] + "..."
