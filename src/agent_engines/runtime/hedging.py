"""Hedging: a first dispatch that takes longer than 99 of 100 gets a second leg at another agent; the first success counts.

watch (when decided, on one heap) -> arm (when accepted) -> due -> another agent -> ledger (second leg) -> bus
                                     recorded: the watch ends, or the race: the loser is cancelled and told of as censored

Only task types that both handlers declare idempotent; every other task costs one look at a set. What must hold of the two legs
is the ledger's rule (domain/legs.py): when this router dies, the legs race on, and only the loser's cancellation is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count

import msgspec
from msgspec.structs import replace

from agent_engines.domain import subjects
from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import AgentEnginesError, QueueFull, Unavailable
from agent_engines.domain.hedging import MOST_RACES, hedge_reason, hedgeable, wait_of
from agent_engines.domain.legs import FIRST
from agent_engines.domain.messages import CancelOrder, Report, ReportKind, TaskMessage
from agent_engines.domain.tasks import Task, TaskError, TaskStatus
from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import Hedge, Ledger, StoredTask

from .background import Background
from .decider import Decider
from .dispatches import Dispatches
from .fleet import Fleet
from .naps import nap
from .outcomes import Outcome
from .strategies import Strategies

IDLE_SECONDS = 60.0
AT_ONCE = 8
"""Hedges under way at once: more are due only when everything is slow, and then they help nobody."""
MOST_WATCHED = 50_000
SPARSE = 1_000
"""A heap longer than this is made anew when most of its tasks have ended."""
NOT_SENT = "HedgeNotSent"
"""Error type of a second leg the bus refused for certain."""

_encode = msgspec.json.Encoder().encode


class Watched:
    """A first dispatch that may be hedged. `predicted`: seconds; `since`: monotonic seconds."""

    __slots__ = ("armed", "decision", "max_attempts", "predicted", "since", "task_id")

    def __init__(self, task_id: str, decision: Decision, max_attempts: int, predicted: float, since: float) -> None:
        self.task_id = task_id
        self.decision = decision
        self.max_attempts = max_attempts
        self.predicted, self.since = predicted, since
        self.armed = False
        """Accepted and sent. What is due before that is not hedged."""


@dataclass(slots=True)
class Race:
    """Two legs under way: generation to agent, those that have fallen left out."""

    task_type: str
    strategy: str
    legs: dict[int, str]


class Hedging:
    """Start it once per router; without `start` nothing is hedged. `calm`: whether queues behind the router are short."""

    def __init__(
        self,
        connections: Connections,
        ledger: Ledger,
        fleet: Fleet,
        strategies: Strategies,
        *,
        decider: Decider,
        dispatches: Dispatches,
        calm: Callable[[], bool] = lambda: True,
    ) -> None:
        self._bus = connections.bus
        self._clock = connections.clock
        self._telemetry = connections.telemetry
        self._ledger = ledger
        self._fleet = fleet
        self._strategies = strategies
        self._decider = decider
        self._message = dispatches.message
        self._calm = calm
        self._log = connections.telemetry.log("intelligence")
        self._background = Background(self._log)
        self._watched: dict[str, Watched] = {}
        self._heap: list[tuple[float, int, Watched]] = []
        self._order = count()
        self._earlier = asyncio.Event()
        self._wakes_at = 0.0
        self._races: dict[str, Race] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def start(self) -> None:
        self._background.keep("hedging", self._follow)

    async def stop(self) -> None:
        """Races go on without it. May be called twice."""
        await self._background.stop()

    @property
    def watching(self) -> int:
        """First dispatches that may be hedged yet."""
        return len(self._watched)

    @property
    def racing(self) -> int:
        """Hedged tasks whose end is not known yet."""
        return len(self._races)

    def watch(self, task: Task, decision: Decision, max_attempts: int) -> Watched | None:
        """Take note of a first dispatch before it is sent; None: it will not be hedged. Set `armed` once it is accepted."""
        if not self._fleet.idempotent(decision.selected_agent, task.task_type):
            return None
        may = hedgeable(
            idempotent=self._strategies.hedger(decision.strategy) is not None,
            generation=FIRST,
            attempt=1,
            max_attempts=max_attempts,
            others=decision.considered - 1,
            terms=task.terms,
        )
        if not may or task.task_id in self._watched or len(self._watched) >= MOST_WATCHED:
            return None
        predicted = _predicted(decision)
        after = self._strategies.hedge_after(decision.strategy, task.task_id, predicted)
        if after is None:
            return None
        now = self._clock.monotonic()
        watched = self._watched[task.task_id] = Watched(task.task_id, decision, max_attempts, predicted, now)
        self._push(now + wait_of(after), watched)
        return watched

    def recorded(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Hear what the ledger has recorded; what is known of losers is added, as cancelled."""
        if not self._watched and not self._races:
            return outcomes
        losers: list[Outcome] = []
        for outcome in outcomes:
            if outcome.kind in (ReportKind.FINAL, ReportKind.RETRY):
                self._watched.pop(outcome.task_id, None)
                race = self._races.get(outcome.task_id)
                if race is not None:
                    losers.extend(self._heard(race, outcome))
        return [*outcomes, *losers] if losers else outcomes

    def _push(self, due: float, watched: Watched) -> None:
        heap = self._heap
        if len(heap) > SPARSE and len(heap) > 2 * len(self._watched):
            heap[:] = [entry for entry in heap if self._watched.get(entry[2].task_id) is entry[2]]
            heapify(heap)
        heappush(heap, (due, next(self._order), watched))
        if due < self._wakes_at:
            self._earlier.set()

    def _heard(self, race: Race, outcome: Outcome) -> Iterable[Outcome]:
        """One leg has come back, or the task has ended otherwise."""
        agent = race.legs.pop(outcome.generation, None)
        if outcome.kind is ReportKind.RETRY and race.legs:
            self._telemetry.count("routing_hedges_total", outcome="fallen")
            return
        del self._races[outcome.task_id]
        if outcome.status is TaskStatus.SUCCESS:
            won = agent is not None and outcome.generation != FIRST
            self._telemetry.count("routing_hedges_total", outcome="won" if won else "lost")
            self._strategies.raced(race.strategy, won=won)
        for loser in race.legs.values():
            if loser == outcome.agent:
                continue
            self._background.spawn("hedge-cancel", self._cancel(outcome.task_id, loser))
            yield _censored(outcome.task_id, race.task_type, loser)

    async def _cancel(self, task_id: str, agent: str) -> None:
        order = CancelOrder(task_ids=(task_id,), at=self._clock.now())
        try:
            await self._bus.signals.send(subjects.cancel(agent), _encode(order))
        except Unavailable as error:
            # It runs to its end, which changes nothing.
            self._log.info("The loser of a hedge was not told to stop", task_id=task_id, agent=agent, error=str(error))

    async def _follow(self) -> None:
        while True:
            await self._wait()
            now = self._clock.monotonic()
            while self._heap and self._heap[0][0] <= now:
                watched = heappop(self._heap)[2]
                if self._watched.get(watched.task_id) is watched:
                    del self._watched[watched.task_id]
                    if watched.armed:
                        await self._turns.acquire()
                        self._background.spawn("hedge", self._in_turn(watched))

    async def _wait(self) -> None:
        """Until the first one is due; an earlier one that is armed meanwhile ends the wait."""
        now = self._clock.monotonic()
        self._earlier.clear()
        self._wakes_at = self._heap[0][0] if self._heap else now + IDLE_SECONDS
        if self._wakes_at > now:
            await nap(self._clock, self._wakes_at - now, self._earlier)

    async def _in_turn(self, watched: Watched) -> None:
        try:
            await self._hedge(watched)
        except AgentEnginesError as error:
            self._telemetry.count("routing_hedges_total", outcome="refused")
            self._log.debug("A task was not hedged", task_id=watched.task_id, error=str(error))
        finally:
            self._turns.release()

    async def _hedge(self, watched: Watched) -> None:
        """Raises NoEligibleAgent, BudgetSpent, InvalidRequest, Unavailable: then there is no second leg."""
        first = watched.decision
        well = self._ledger.refusal() is None and self._bus.connected and self._calm()
        if not well or self._strategies.hedge_after(first.strategy, watched.task_id, watched.predicted) is None:
            self._telemetry.count("routing_hedges_total", outcome="suspended")
            return
        # Spent before anything is waited for: two that are due at once must not share the last credit.
        self._strategies.hedged(first.strategy)
        decision = self._decide(watched)
        # Before the ledger knows: the first leg may end, and be told of, before its answer comes.
        legs = {FIRST: first.selected_agent, FIRST + 1: decision.selected_agent}
        self._races[watched.task_id] = Race(first.task_type, first.strategy, legs)
        if len(self._races) > MOST_RACES:
            del self._races[next(iter(self._races))]
        try:
            stored = await self._ledger.tasks.hedge([Hedge(first.selected_agent, decision)])
        except Unavailable:
            self._call_off(watched.task_id, decision)
            raise
        if stored and watched.task_id in self._races:
            await self._send(watched, decision, stored[0])
        else:
            self._call_off(watched.task_id, decision)
            self._telemetry.count("routing_hedges_total", outcome="late")

    def _decide(self, watched: Watched) -> Decision:
        first = watched.decision
        assert first.context is not None
        context = replace(first.context, request_id=f"{first.request_id}:{FIRST + 1}")
        decision = self._decider.second(context, first.selected_agent)
        waited = self._clock.monotonic() - watched.since
        why = hedge_reason(first.selected_agent, waited, watched.predicted, first.strategy)
        return replace(decision, hedge=why, reasoning=f"{why} {decision.reasoning}")

    async def _send(self, watched: Watched, decision: Decision, stored: StoredTask) -> None:
        task, agent = stored.task, decision.selected_agent
        # Its order to stop, should the first leg end from now on, is younger than this message.
        message = self._message(
            task,
            decision,
            watched.max_attempts,
            self._clock.now(),
            generation=stored.generation,
            attempt=stored.attempt,
        )
        self._fleet.sent(agent, task.task_id)
        try:
            await self._bus.tasks.publish_task(replace(message, hedge=True))
        except QueueFull as error:
            self._call_off(task.task_id, decision)
            self._fleet.unsent(agent, task.task_id)
            await self._withdraw(message, str(error))
            raise
        self._telemetry.count("routing_hedges_total", outcome="sent")
        self._log.info(
            "Task hedged",
            task_id=task.task_id,
            task_type=task.task_type,
            selected_agent=agent,
            first_agent=watched.decision.selected_agent,
        )

    async def _withdraw(self, message: TaskMessage, why: str) -> None:
        """The second leg was refused for certain: it falls at once, and the first one decides alone again.

        While the ledger cannot be told, the first leg's failure waits for the reconciler.
        """
        now = self._clock.now()
        fallen = Report(
            kind=ReportKind.RETRY,
            task_id=message.task_id,
            request_id=message.request_id,
            task_type=message.task_type,
            agent=message.agent,
            generation=message.generation,
            attempt=message.attempt,
            delivery=0,
            status=TaskStatus.RETRYING,
            error=TaskError(NOT_SENT, why, retryable=True),
            completed_at=now,
            retry_at=now,
        )
        await self._ledger.tasks.record([fallen])

    def _call_off(self, task_id: str, decision: Decision) -> None:
        """There is no second leg: its strategy is told, so that it does not wait for it."""
        self._races.pop(task_id, None)
        loser = _censored(task_id, decision.task_type, decision.selected_agent)
        self._strategies.learned([loser], self._clock.now(), lambda task_type: None)


def _censored(task_id: str, task_type: str, agent: str) -> Outcome:
    """A leg whose outcome nobody will know: it says nothing of its agent."""
    return Outcome(
        kind=ReportKind.FINAL, task_id=task_id, task_type=task_type, agent=agent, status=TaskStatus.CANCELLED
    )


def _predicted(decision: Decision) -> float:
    """Seconds in which the chosen agent was expected to be done."""
    chosen = next(one for one in decision.candidates if one.agent == decision.selected_agent)
    return chosen.completion_ms / 1000.0
