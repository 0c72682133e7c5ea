"""A task that takes longer than 99 of 100 runs at a second agent too, where its type allows it, and never otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentMode, Load
from agent_engines.domain.breaker import BreakerState
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import NoEligibleAgent, Unavailable
from agent_engines.domain.explanation import explanation
from agent_engines.domain.legs import LOST
from agent_engines.domain.messages import CancelOrder, Report, ReportKind, TaskMessage
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.domain.terms import Affinity, Budget
from agent_engines.learning.hedges import BURST
from agent_engines.ports.ledger import DecisionFilter
from agent_engines.runtime.outcome_feed import TOGETHER_SECONDS
from agent_engines.runtime.outcomes import Outcome
from agent_engines.runtime.shipped_strategies import PolicyMaker
from agent_engines.runtime.strategies import StrategyChoice
from routing_house import RoutingHouse, settle, until

WAIT = 3.1
"""Nothing is known yet: 1 s is predicted, and the wait is three times that. Agents that are silent for so long are still well."""


class House(RoutingHouse):
    """Agents that say they are idempotent; what they report is recorded; who was told to stop is remembered."""

    def __init__(self, strategy: str = "adaptive", **policies: PolicyMaker) -> None:
        super().__init__(choice=StrategyChoice(default=strategy), policies=policies)
        self.stopped: list[tuple[str, str]] = []

    async def live(self, *agents: str, **changes: Any) -> None:
        for agent in agents:
            await self.beat(agent, **{"idempotent": True} | changes)

    async def told(self, report: Report) -> None:
        """An agent reports, the recorder records it, the routers hear of it."""
        before = self.recorder.recorded.total()
        assert report.agent is not None
        await self.bus.reports.publish_reports(report.agent, [report])
        await until(lambda: self.recorder.recorded.total() > before)
        await settle()

    async def first(self, **fields: Any) -> TaskMessage:
        """The first leg of a task, where it has begun."""
        accepted = await self.submit(**fields)
        assert accepted.selected_agent is not None
        (message,) = await self.queued(accepted.selected_agent)
        return message

    async def hedged(self, **fields: Any) -> tuple[TaskMessage, TaskMessage]:
        """Both legs of a task."""
        first = await self.first(**fields)
        await self.clock.advance(WAIT)
        (second,) = await self.queued("b" if first.agent == "a" else "a")
        return first, second

    async def raced(self, request_id: str) -> tuple[TaskMessage, TaskMessage] | None:
        """Both legs of one more task, taken from their queues; None: it was not hedged."""
        await self.live("a", "b")
        accepted = await self.submit(request_id=request_id)
        await self.clock.advance(WAIT * 4)
        found = [one for agent in "ab" for one in await self.queued(agent) if one.task_id == accepted.task_id]
        if len(found) < 2:
            return None
        first, second = sorted(found, key=lambda one: one.generation)
        return first, second

    async def sent(self) -> int:
        """Messages that wait at any agent."""
        return sum([len(await self.queued(agent)) for agent in "abc"])

    async def listen_for_orders(self) -> None:
        async def hear(subject: str, data: bytes) -> None:
            agent = subject.rpartition(".")[2]
            order = msgspec.json.decode(data, type=CancelOrder)
            self.stopped.extend((agent, task_id) for task_id in order.task_ids)

        for agent in "abc":
            await self.bus.signals.listen(subjects.cancel(agent), hear)


@asynccontextmanager
async def hedging(
    strategy: str = "adaptive", agents: str = "ab", policy: PolicyMaker | None = None, **changes: Any
) -> AsyncIterator[House]:
    async with House(strategy, **({} if policy is None else {strategy: policy})) as house:
        await house.listen_for_orders()
        await house.recorder.start()
        await house.hedging.start()
        await house.live(*agents, **changes)
        yield house


async def test_a_late_task_is_sent_to_another_agent_as_the_next_generation_of_the_same_attempt() -> None:
    async with hedging() as house:
        first, second = await house.hedged()
        assert (first.generation, first.attempt, first.hedge) == (1, 1, False)
        assert (second.task_id, second.generation, second.attempt, second.hedge) == (first.task_id, 2, 1, True)
        assert second.agent != first.agent
        assert (second.max_attempts, second.payload) == (first.max_attempts, first.payload)
        assert house.telemetry.decisions["adaptive", "hedged"] == 1


async def test_a_task_that_is_back_in_time_is_not_hedged() -> None:
    async with hedging() as house:
        first = await house.first()
        await house.told(house.report(first))
        assert house.hedging.watching == 0
        await house.clock.advance(60.0)
        assert await house.sent() == 0


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_first_success_ends_the_task_and_the_other_agent_is_told_to_stop(winner: int) -> None:
    async with hedging() as house:
        legs = await house.hedged()
        await house.told(house.report(legs[winner]))
        loser = legs[1 - winner]
        assert house.stopped == [(loser.agent, loser.task_id)], "the winner is left alone"
        assert (house.hedging.racing, house.hedging.watching) == (0, 0)
        view = await house.ledger.reader.task(loser.task_id)
        assert (view.status, view.selected_agent) == (TaskStatus.SUCCESS, legs[winner].agent)
        await house.told(house.report(loser, TaskStatus.CANCELLED))
        (attempt,) = await house.ledger.reader.attempts(loser.task_id)
        assert (attempt.agent, attempt.status, attempt.error_type) == (loser.agent, TaskStatus.CANCELLED, LOST)


async def test_both_legs_are_decisions_and_the_second_one_says_why() -> None:
    async with hedging() as house:
        first, second = await house.hedged(request_id="req")
        decisions = {one.request_id: one for one in (await house.ledger.decisions.decisions(DecisionFilter())).items}
        assert {name: one.selected_agent for name, one in decisions.items()} == {
            "req": first.agent,
            "req:2": second.agent,
        }
        hedge = decisions["req:2"]
        assert hedge.task_id == first.task_id
        assert hedge.reasoning.startswith(f"Hedged after 3.00 s: {first.agent} has not answered")
        assert "99th percentile of latency / prediction" in hedge.reasoning
        assert any("Hedged after" in sentence for sentence in explanation(hedge))


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_loser_teaches_nothing_and_the_winner_does(winner: int) -> None:
    async with hedging() as house:
        legs = await house.hedged()
        await house.told(house.report(legs[winner]))
        assert [(lesson.kind, lesson.quality) for lesson in house.lessons] == [(legs[winner].agent, 1.0)]
        assert house.strategies._open == {}
        assert house.strategies._first == {}


async def test_a_leg_that_fails_is_learned_and_starts_nothing() -> None:
    async with hedging() as house:
        first, second = await house.hedged()
        await house.told(house.retry(first, 0.0))
        await house.redispatcher.start()
        await house.clock.advance(30.0)
        assert await house.sent() == 0, "no retry while the other leg runs"
        assert [(lesson.kind, lesson.quality) for lesson in house.lessons] == [(first.agent, 0.0)]
        await house.told(house.report(second))
        assert house.stopped == [], "nobody is left to stop"
        assert (await house.ledger.reader.task(first.task_id)).status is TaskStatus.SUCCESS


async def test_when_both_legs_fail_the_task_is_retried_once() -> None:
    async with hedging() as house:
        first, second = await house.hedged()
        await house.redispatcher.start()
        await house.told(house.retry(second, 0.1))
        await house.told(house.retry(first, 0.1))
        assert house.hedging.racing == 0
        await house.clock.advance(1.1)
        again = [message for agent in "ab" for message in await house.queued(agent)]
        assert [(one.generation, one.attempt, one.hedge) for one in again] == [(3, 2, False)]
        await house.clock.advance(30.0)
        assert await house.sent() == 0


async def test_a_leg_that_fails_for_good_is_told_to_those_who_learn_and_not_to_whoever_waits() -> None:
    async with hedging() as house:
        ends: list[tuple[str, ReportKind]] = []

        async def hear(subject: str, data: bytes) -> None:
            reports = msgspec.json.decode(data)["reports"]
            ends.extend((subject.split(".")[2], ReportKind(one["kind"])) for one in reports)

        await house.bus.signals.listen(subjects.RECORDED, hear)
        await house.bus.signals.listen(subjects.OUTCOMES, hear)
        first, second = await house.hedged()
        await house.told(house.report(first, TaskStatus.FAILED))
        await house.told(house.report(second))
        await house.clock.advance(TOGETHER_SECONDS)
        await settle()
        assert ends == [("recorded", ReportKind.FINAL), ("outcomes", ReportKind.RETRY), ("outcomes", ReportKind.FINAL)]


async def test_a_cancellation_reaches_both_legs() -> None:
    async with hedging() as house:
        first, second = await house.hedged()
        await house.desk.cancel(first.task_id)
        await settle()
        assert sorted(house.stopped) == sorted((leg.agent, leg.task_id) for leg in (first, second))


# -- never


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        pytest.param({"idempotent": False}, {}, id="the type is not idempotent"),
        pytest.param({}, {"max_attempts": 1}, id="it is the last attempt"),
        pytest.param({}, {"budget": Budget(cost=10.0)}, id="a budget bounds it"),
        pytest.param({}, {"affinity": Affinity(key="k")}, id="it has an affinity"),
        pytest.param({}, {"requirements": {"agent": "a"}}, id="only one may do it"),
        pytest.param({}, {"strategy": "least_loaded"}, id="its strategy does not hedge"),
    ],
)
async def test_no_second_leg(changes: dict[str, Any], fields: dict[str, Any]) -> None:
    async with hedging(**changes) as house:
        await house.first(**fields)
        assert house.hedging.watching == 0, "not even watched"
        await house.clock.advance(60.0)
        assert await house.sent() == 0


async def test_the_second_agent_must_say_that_it_is_idempotent_too() -> None:
    async with hedging(agents="a") as house:
        first = await house.first(requirements={"agent": ["a", "b"]})
        assert first.agent == "a"
        await house.told(house.report(first))
        await house.beat("b", idempotent=False)
        while not house.hedging.watching:
            await house.first()
        await house.clock.advance(WAIT)
        assert house.hedging.watching == 0
        assert await house.sent() == 0


@pytest.mark.parametrize("why", ["drained", "broken", "gone"])
async def test_without_another_agent_that_is_well_there_is_none(why: str) -> None:
    async with hedging() as house:
        first = await house.first()
        other = "b" if first.agent == "a" else "a"
        match why:
            case "drained":
                await house.fleet.set_mode(other, AgentMode.DRAINING)
            case "gone":
                await house.beat(other, None, state="draining")
            case _:
                for n in range(3):
                    broken = house.report(first, TaskStatus.FAILED, agent=other, task_id=f"x-{n}")
                    house.fleet.learned(house.hedging.recorded(heard(broken)))
                assert house.fleet.agent(other).breaker == "open"
        await house.clock.advance(WAIT)
        assert house.hedging.watching == 0
        assert await house.sent() == 0
        assert house.hedging.racing == 0


async def test_an_agent_whose_breaker_is_only_being_tried_gets_no_second_legs() -> None:
    async with hedging() as house:
        context = DecisionContext(request_id="r:2", task_type="echo", task_id="t")
        decider = house.dispatcher._decider
        assert decider.second(context, "a").selected_agent == "b"
        member = house.fleet._members["b"]
        member.breaker_state = BreakerState.HALF_OPEN
        house.fleet._breaker_changed(member)
        with pytest.raises(NoEligibleAgent, match="nobody but a may do this task now"):
            decider.second(context, "a")


async def test_the_second_leg_goes_to_the_same_kind_while_there_is_one() -> None:
    async with hedging(agents="") as house:
        await house.live("a", "b", metadata={"kind": "small"})
        await house.live("c", metadata={"kind": "large"})
        context = DecisionContext(request_id="r:2", task_type="echo", task_id="t")
        second = house.dispatcher._decider.second
        assert {second(context, "a").selected_agent for _ in range(40)} == {"b"}
        assert {second(context, "c").selected_agent for _ in range(40)} == {"a", "b"}, "nobody is like it"


@pytest.mark.parametrize("trouble", ["ledger", "queues", "bus"])
async def test_nothing_is_hedged_while_something_is_degraded(trouble: str) -> None:
    async with hedging() as house:
        await house.first()
        match trouble:
            case "ledger":
                house.ledger.refusal = lambda: Unavailable("the ledger is away")  # type: ignore[method-assign]
            case "queues":
                house.calm = False
            case _:
                house.hedging._bus = _Disconnected(house.bus)  # type: ignore[assignment]
        await house.clock.advance(WAIT)
        assert house.hedging.watching == 0
        assert await house.sent() == 0


async def test_a_fleet_that_is_nearly_full_is_not_hedged_on() -> None:
    """Nothing is hedged meanwhile, so the budget is not what keeps it."""
    async with hedging() as house:

        async def a_minute(running: int) -> None:
            for _ in range(60):
                await house.live("a", "b", load=Load(slots=10, running=running), idempotent=False)
                await house.submit()
                await house.clock.advance(1.0)

        await a_minute(10)
        hedger = house.strategies.hedger("adaptive")
        assert hedger is not None
        assert hedger.hedge_after(1.0, None) is None
        await a_minute(1)
        assert hedger.hedge_after(1.0, None) is not None


@pytest.mark.parametrize("winner", [0, 1])
async def test_races_tell_whether_hedging_pays(winner: int) -> None:
    async with hedging() as house:
        for n in range(5):
            legs = await house.raced(f"r-{n}")
            assert legs is not None
            await house.told(house.report(legs[winner]))
        for n in range(40):
            # The budget grows again.
            accepted = await house.submit(request_id=f"quick-{n}")
            [message] = [
                one for one in await house.queued(accepted.selected_agent or "") if one.task_id == accepted.task_id
            ]
            await house.told(house.report(message))
        again = await house.raced("r-5")
        assert (again is not None) == (winner == 1), "first legs that always win end it"


async def test_hedges_stay_within_their_share_of_decisions() -> None:
    async with hedging() as house:
        for n in range(100):
            await house.submit(request_id=f"r-{n}")
        await house.clock.advance(5.0)
        hedges = house.telemetry.decisions["adaptive", "hedged"]
        assert 0 < hedges <= BURST + 0.05 * (100 + hedges)


async def test_a_task_that_ended_in_the_last_moment_is_left_alone() -> None:
    """The ledger knows of the end, this router does not yet."""
    async with hedging() as house:
        first = await house.first()
        await house.ledger.tasks.record([house.report(first)])
        await house.clock.advance(WAIT)
        assert house.telemetry.decisions["adaptive", "hedged"] == 1, "it was about to be"
        assert await house.sent() == 0
        assert house.hedging.racing == 0
        assert set(house.strategies._open) <= {first.task_id}, "the decision that was not carried out is forgotten"


async def test_the_end_of_the_first_leg_while_the_second_is_on_its_way_stops_it() -> None:
    async with hedging() as house:
        first = await house.first()
        hedge = house.ledger.tasks.hedge

        async def slow(hedges: Any) -> Any:
            stored = await hedge(hedges)
            await house.told(house.report(first))
            return stored

        house.ledger.tasks.hedge = slow  # type: ignore[method-assign]
        await house.clock.advance(WAIT)
        await settle(200)
        assert await house.sent() == 0, "it was not sent at all"
        assert house.hedging.racing == 0


async def test_a_second_leg_that_the_bus_refuses_leaves_the_first_one_alone() -> None:
    async with hedging() as house:
        first = await house.first()
        other = "b" if first.agent == "a" else "a"
        house.bus.tasks._limit = 0  # type: ignore[attr-defined]
        await house.clock.advance(WAIT)
        assert await house.ledger.tasks.legs(first.task_id) == [first.agent]
        assert house.hedging.racing == 0
        assert await house.queued(other) == []
        await house.told(house.retry(first, 5.0))
        view = await house.ledger.reader.task(first.task_id)
        assert view.status is TaskStatus.RETRYING, "its failure decides again"


async def test_a_submission_that_is_refused_is_not_hedged() -> None:
    async with hedging() as house:
        house.bus.tasks._limit = 0  # type: ignore[attr-defined]
        (result,) = await house.dispatcher.submit([TaskRequest(task_type="echo")])
        assert result.refused is not None
        house.bus.tasks._limit = 1000  # type: ignore[attr-defined]
        await house.clock.advance(WAIT)
        assert house.hedging.watching == 0
        assert house.telemetry.decisions["adaptive", "hedged"] == 0, "nobody was even asked"
        assert await house.sent() == 0


async def test_the_heap_does_not_keep_what_has_ended() -> None:
    async with hedging() as house:
        for _ in range(30):
            for message in [await house.first() for _ in range(100)]:
                house.hedging.recorded(heard(house.report(message)))
        assert house.hedging.watching == 0
        assert len(house.hedging._heap) < 1200


class _Disconnected:
    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self.connected = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


def heard(report: Report) -> list[Outcome]:
    """A report as routers hear it."""
    return [msgspec.json.decode(msgspec.json.encode(report), type=Outcome)]


class Impatient:
    """A policy of one's own: the first candidate by name, and another one after `wait`."""

    def __init__(self, wait: Any) -> None:
        self._wait = wait
        self.asked: list[Mapping[str, Any]] = []
        self.hedges = 0

    def choose(self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> tuple[str, float, float]:
        return min(one["agent"] for one in candidates), 0.5, 1.0

    def learn(self, decision: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """It never does."""

    def hedge_after(self, decision: Mapping[str, Any]) -> Any:
        self.asked.append(decision)
        if isinstance(self._wait, Exception):
            raise self._wait
        return self._wait

    def hedged(self) -> None:
        self.hedges += 1


async def test_a_policy_of_ones_own_says_when_a_task_is_late() -> None:
    impatient = Impatient(0.5)
    async with hedging("mine", policy=lambda seed: impatient) as house:
        first = await house.first()
        await house.clock.advance(0.4)
        assert await house.queued("b") == []
        await house.clock.advance(0.2)
        (second,) = await house.queued("b")
        assert (first.agent, second.generation, impatient.hedges) == ("a", 2, 1)
        assert {asked["agent"] for asked in impatient.asked} == {"a"}
        decision = await house.ledger.decisions.decision(f"{first.request_id}:2")
        assert "past what mine waits for" in decision.hedge


@pytest.mark.parametrize("wait", [None, 0.0, -1.0, float("nan"), float("inf"), "soon", RuntimeError("no idea")])
async def test_an_answer_that_is_no_time_hedges_nothing_and_loses_nothing(wait: Any) -> None:
    async with hedging("mine", policy=lambda seed: Impatient(wait)) as house:
        await house.first()
        await house.clock.advance(60.0)
        assert await house.queued("b") == []


async def test_the_budget_of_hedges_is_the_routers_whatever_a_policy_says() -> None:
    impatient = Impatient(0.5)
    async with hedging("mine", policy=lambda seed: impatient) as house:
        for n in range(100):
            await house.submit(request_id=f"r-{n}")
        await house.clock.advance(1.0)
        assert 0 < impatient.hedges <= BURST + 0.05 * (100 + impatient.hedges)
