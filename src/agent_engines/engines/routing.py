"""Routing: how an intelligence engine chooses, put together from names, and what all its replicas learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from agent_engines.domain.capability import Capabilities
from agent_engines.domain.errors import ConfigurationError, InvalidRequest
from agent_engines.learning.pacing import paced_price
from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import Ledger
from agent_engines.runtime.active_policy import ActivePolicy
from agent_engines.runtime.adaptive_strategy import AdaptiveStrategy
from agent_engines.runtime.decider import Decider
from agent_engines.runtime.dispatcher import Dispatcher
from agent_engines.runtime.fleet import Fleet
from agent_engines.runtime.hedging import Hedging
from agent_engines.runtime.judgements import Judgements
from agent_engines.runtime.leadership import Leadership
from agent_engines.runtime.learned import Learned
from agent_engines.runtime.lessons import LessonOptions, Lessons
from agent_engines.runtime.outcomes import Outcome
from agent_engines.runtime.policy_board import PolicyBoard
from agent_engines.runtime.promotions import Promotions
from agent_engines.runtime.shipped_strategies import PolicyMaker, makers
from agent_engines.runtime.strategies import Strategies, StrategyChoice
from agent_engines.runtime.task_text import TaskTexts
from agent_engines.runtime.tenants import Pricer

from .replay import asked_for_evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOptions:
    """`choice`: which strategy decides what; `price`: value of one unit of cost in units of quality.

    `texts`: payload fields whose words are learned from, by task type; `policies`: strategies of one's own, by name;
    `hedging`: whether idempotent tasks that take long may run at a second agent too; `pacing`: whether cost becomes dearer
    for tenants that spend ahead of their budget.
    """

    choice: StrategyChoice = field(default_factory=StrategyChoice)
    price: float = 0.1
    texts: Mapping[str, str] = field(default_factory=dict[str, str])
    policies: Mapping[str, PolicyMaker] = field(default_factory=dict[str, PolicyMaker])
    hedging: bool = True
    pacing: bool = True

    @property
    def pricer(self) -> Pricer | None:
        """The price of cost for tenants that spend ahead of their pace; None: the usual one for all."""
        return partial(paced_price, price=self.price) if self.pacing else None


@dataclass(frozen=True, slots=True)
class Routing:
    """Start it before anything decides."""

    fleet: Fleet
    strategies: Strategies
    decider: Decider
    lessons: Lessons
    texts: TaskTexts
    capabilities: Capabilities
    judgements: Judgements
    active: ActivePolicy
    promotions: Promotions
    options: RoutingOptions

    @classmethod
    def join(
        cls,
        connections: Connections,
        ledger: Ledger,
        fleet: Fleet,
        leader: Leadership,
        capabilities: Capabilities,
        *,
        options: RoutingOptions,
        rng: Random,
    ) -> Routing:
        """Raises ConfigurationError when a strategy is named that is not there."""
        clock, telemetry = connections.clock, connections.telemetry
        learned = Learned()
        lessons = Lessons(
            connections.bus,
            ledger.learned,
            learned,
            capabilities,
            clock=clock,
            telemetry=telemetry,
            options=LessonOptions(
                router=fleet.router,
                version=AdaptiveStrategy.version,
                leads=leader.leads,
                older=AdaptiveStrategy.older,
            ),
        )
        try:
            strategies = Strategies(
                makers(rng, learned, price=options.price, policies=options.policies),
                options.choice,
                telemetry=telemetry,
                rng=Random(rng.random()),
                teach=lessons.teach,
            )
        except InvalidRequest as error:
            raise ConfigurationError([f"ROUTING_STRATEGY, ROUTING_STRATEGIES or ROUTING_FALLBACK: {error}"]) from error
        fleet.on_load = strategies.loaded
        decider = Decider(fleet, strategies, clock=clock, telemetry=telemetry)
        log = telemetry.log("intelligence")
        judgements = Judgements(ledger, teach=lessons.teach_once, leads=leader.leads, clock=clock, log=log)
        board = PolicyBoard(connections.bus.settings, clock, log)
        active = ActivePolicy(board, strategies, log, router=fleet.router)
        promotions = Promotions(active, strategies, partial(asked_for_evidence, connections.bus), clock)
        texts = TaskTexts(options.texts)
        heart = (fleet, strategies, decider, lessons, texts, capabilities, judgements)
        return cls(*heart, active, promotions, options)

    def hedging(
        self, connections: Connections, ledger: Ledger, dispatcher: Dispatcher, calm: Callable[[], bool]
    ) -> Hedging:
        """What hedges the dispatcher's tasks from now on, where that is wanted."""
        hedging = Hedging(
            connections,
            ledger,
            self.fleet,
            self.strategies,
            decider=self.decider,
            dispatches=dispatcher.dispatches,
            calm=calm,
        )
        dispatcher.hedging = hedging if self.options.hedging else None
        return hedging

    async def start(self) -> None:
        await self.lessons.start()
        await self.active.start()

    async def stop(self) -> None:
        await self.active.stop()
        await self.judgements.stop()
        await self.lessons.stop()

    def recorded(self, outcomes: Sequence[Outcome], epoch: float, *, sealed: bool) -> None:
        """Tell the strategies, then the fleet: what a strategy counts by itself is corrected by the fleet's numbers.

        What was not sealed by a router did not come through its gate: nobody learns from it.
        """
        if sealed:
            self.strategies.learned(outcomes, epoch, self._usual_seconds)
            self.judgements.recorded(outcomes)
        self.fleet.learned(outcomes)

    def _usual_seconds(self, task_type: str) -> float | None:
        usual = self.fleet.usual(task_type)
        return None if usual is None or usual.service_ms is None else usual.service_ms / 1000.0
