"""The picture of the agents: who is there, who may be chosen, how busy and how good they are."""

from __future__ import annotations

import asyncio

import pytest

from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentMode, AgentProfile, AgentState, Load
from agent_engines.domain.errors import NotFound, Unavailable
from agent_engines.domain.messages import ReportKind
from agent_engines.domain.tasks import TaskError, TaskStatus
from agent_engines.runtime.fleet import FORGET_SECONDS
from agent_engines.runtime.outcomes import Outcome
from routing_house import RoutingHouse, settle


def names(house: RoutingHouse, task_type: str = "echo") -> list[str]:
    return [member.name for member in house.fleet.roster(task_type, {}).members]


def reasons(house: RoutingHouse, task_type: str = "echo") -> dict[str, str]:
    return {fallen.agent: fallen.reason for fallen in house.fleet.roster(task_type, {}).rejected}


def outcome(agent: str, status: TaskStatus = TaskStatus.SUCCESS, task_id: str = "t", **changes: object) -> Outcome:
    fields: dict[str, object] = {"kind": ReportKind.FINAL, "execution_time_ms": 20.0, "task_type": "echo"}
    return Outcome(task_id=task_id, agent=agent, status=status, **(fields | changes))  # type: ignore[arg-type]


async def test_a_router_says_hello_and_agents_it_hears_become_choosable() -> None:
    house = RoutingHouse()
    heard: list[str] = []

    async def listen(subject: str, _: bytes) -> None:
        heard.append(subject)

    await house.bus.signals.listen(subjects.HELLO, listen)
    async with house:
        assert heard == [subjects.HELLO]
        assert house.fleet.heard_from == 0
        await house.beat("a", metadata={"region": "eu"})
        assert names(house) == ["a"]
        assert house.fleet.heard_from == 1
        view = house.fleet.agent("a")
        assert (view.status, view.capabilities, view.metadata) == ("healthy", ("echo",), {"region": "eu"})
        assert [record.name for record in await house.ledger.agents.agents()] == ["a"]


async def test_an_agent_is_not_chosen_before_the_ledger_knows_it() -> None:
    house = RoutingHouse()
    gate = asyncio.Event()
    register = house.ledger.agents.register

    async def slow(profiles: list[AgentProfile], now: float) -> dict[str, AgentMode]:
        await gate.wait()
        return await register(profiles, now)

    house.ledger.agents.register = slow  # type: ignore[method-assign, assignment]
    async with house:
        await house.beat("a")
        assert names(house) == []
        assert reasons(house) == {"a": "not registered in the ledger yet"}
        gate.set()
        await settle()
        assert names(house) == ["a"]


async def test_a_light_heartbeat_from_a_stranger_makes_the_router_ask_who_it_is() -> None:
    async with RoutingHouse() as house:
        heard: list[str] = []

        async def listen(subject: str, _: bytes) -> None:
            heard.append(subject)

        await house.bus.signals.listen(subjects.HELLO, listen)
        await house.clock.advance(2.0)
        await house.beat("a", None)
        assert heard == [subjects.HELLO]
        await house.beat("a", None)
        assert heard == [subjects.HELLO]
        assert names(house) == []
        await house.beat("a")
        assert names(house) == ["a"]


async def test_silence_makes_an_agent_suspect_then_lost() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", interval_seconds=4.0)
        await house.beat("b", interval_seconds=4.0)
        await house.clock.advance(5.6)
        await house.beat("b", None)
        assert house.fleet.agent("a").status == "suspect"
        assert names(house) == ["b"]
        assert "suspect" in reasons(house)["a"]
        await house.clock.advance(10.0)
        await house.beat("b", None)
        assert house.fleet.agent("a").status == "lost"
        assert reasons(house)["a"] == "lost: no heartbeat"
        assert house.fleet.heard_from == 1


async def test_the_breaker_of_a_forgotten_agent_leaves_the_metrics() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        assert house.telemetry.breakers == {"a": 0}
        await house.clock.advance(FORGET_SECONDS + 60.0)
        assert house.fleet.agents() == []
        assert house.telemetry.breakers == {}


async def test_suspects_are_chosen_when_nobody_else_is_left() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.clock.advance(6.0)
        assert house.fleet.agent("a").status == "suspect"
        assert names(house) == ["a"]


async def test_a_long_heartbeat_interval_delays_lost() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", interval_seconds=30.0)
        await house.clock.advance(60.0)
        assert house.fleet.agent("a").status == "suspect"
        await house.clock.advance(31.0)
        assert house.fleet.agent("a").status == "lost"


async def test_an_agent_that_fell_silent_while_it_drained_takes_no_work() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.beat("a", None, state="draining")
        await house.clock.advance(8.0)
        assert reasons(house)["a"].startswith("takes no work")
        await house.beat("a", None)
        assert names(house) == ["a"]


async def test_an_agent_whose_replicas_all_drain_takes_no_work_and_comes_back() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", state=AgentState.DRAINING)
        assert reasons(house)["a"].startswith("takes no work")
        await house.beat("a", None, replica="r2")
        assert names(house) == ["a"]


async def test_a_stopped_replica_leaves_at_once() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.beat("a", None, state=AgentState.STOPPED)
        assert house.fleet.agent("a").replicas == ()
        assert names(house) == []


async def test_an_old_heartbeat_does_not_undo_a_newer_one() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", seq=5)
        await house.beat("a", None, seq=4, state=AgentState.STOPPED)
        assert names(house) == ["a"]


async def test_unreadable_heartbeats_change_nothing() -> None:
    async with RoutingHouse() as house:
        await house.bus.signals.send(subjects.heartbeat("a"), b"\xff not json")
        await settle()
        assert house.fleet.agents() == []
        assert "A heartbeat could not be read" in house.telemetry.messages("warning")


async def test_an_operators_decision_reaches_every_router() -> None:
    async with RoutingHouse() as one:
        other = RoutingHouse()
        other.bus.settings = one.bus.settings
        async with other:
            for house in (one, other):
                await house.beat("a")
            view = await one.fleet.set_mode("a", AgentMode.QUARANTINED)
            await settle()
            assert view.status == "quarantined"
            assert reasons(one)["a"] == reasons(other)["a"] == "quarantined by an operator"
            assert [record.status for record in await one.ledger.agents.agents()] == ["quarantined"]
            await other.fleet.set_mode("a", AgentMode.ACTIVE)
            await settle()
            assert names(one) == names(other) == ["a"]


async def test_a_router_that_starts_later_learns_the_modes() -> None:
    async with RoutingHouse() as house:
        await house.bus.settings.put(subjects.agent_mode("a"), b"draining")
        await house.bus.settings.put(subjects.agent_mode("b"), b"nonsense")
        await settle()
        await house.beat("a")
        await house.beat("b")
        assert names(house) == ["b"]
        assert house.fleet.agent("a").mode is AgentMode.DRAINING


async def test_a_new_bus_is_told_what_the_ledger_noted_before_the_agent_can_be_chosen() -> None:
    """As after a restore; the other routers hear it as if it were said today."""
    async with RoutingHouse() as house, RoutingHouse() as other:
        chosen: list[str] = []
        other.bus.settings = house.bus.settings
        invalidate = house.fleet._invalidate

        def looked() -> None:
            invalidate()
            chosen.extend(names(house))

        house.fleet._invalidate = looked  # type: ignore[method-assign]
        for agent, status in (("a", "quarantined"), ("b", "draining"), ("c", "healthy")):
            await house.ledger.agents.set_status(agent, status)
            await house.beat(agent)
        await settle()
        assert set(chosen) == {"c"}
        assert [house.fleet.agent(agent).mode for agent in "abc"] == ["quarantined", "draining", "active"]
        assert await house.bus.settings.get(subjects.agent_mode("a")) is not None
        assert await house.bus.settings.get(subjects.agent_mode("c")) is None
        await house.fleet.set_mode("a", AgentMode.ACTIVE)
        assert names(house) == ["a", "c"]


async def test_what_the_bus_says_of_an_agent_counts_more_than_an_old_note() -> None:
    """The ledger was away when the agent was resumed: the note is put right."""
    async with RoutingHouse() as house:
        await house.bus.settings.put(subjects.agent_mode("a"), b"active")
        await house.bus.settings.put(subjects.agent_mode("b"), b"draining")
        for agent in "ab":
            await house.ledger.agents.set_status(agent, "quarantined")
            await house.beat(agent)
        await settle()
        assert names(house) == ["a"]
        assert [record.status for record in await house.ledger.agents.agents()] == ["healthy", "draining"]


async def test_unknown_agents_are_not_found() -> None:
    async with RoutingHouse() as house:
        with pytest.raises(NotFound):
            house.fleet.agent("nobody")
        with pytest.raises(NotFound):
            await house.fleet.set_mode("nobody", AgentMode.ACTIVE)


async def test_load_is_the_report_plus_what_was_sent_since_minus_what_came_back() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", load=Load(slots=10, running=3, queued=1))
        member = house.fleet.roster("echo", {}).members[0]
        assert member.in_flight() == 4
        for task in "xyz":
            house.fleet.sent("a", task)
        assert member.in_flight() == 7
        house.fleet.learned([outcome("a")])
        assert member.in_flight() == 6
        await house.beat("a", None, load=Load(slots=10, running=2))
        assert member.in_flight() == 2


async def test_a_saturated_agents_queue_is_taken_from_our_own_books() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", load=Load(slots=2))
        for task in range(50):
            house.fleet.sent("a", str(task))
        await house.beat("a", None, load=Load(slots=2, running=2))
        member = house.fleet.roster("echo", {}).members[0]
        assert member.in_flight() == 50
        await house.beat("a", None, load=Load(slots=2, running=1))
        assert member.in_flight() == 1
        # Free slots proved the queue empty: the news about the others was lost, and they do not count again.
        await house.beat("a", None, load=Load(slots=2, running=2))
        assert member.in_flight() == 2


async def test_what_other_routers_sent_to_a_saturated_agent_is_asked_from_the_bus() -> None:
    async with RoutingHouse() as house, RoutingHouse() as other:
        other.dispatcher._bus = house.bus
        await house.beat("a", load=Load(slots=1, running=1))
        await other.beat("a")
        for _ in range(7):
            await other.submit()
        await house.clock.advance(2.1)
        assert house.fleet.roster("echo", {}).members[0].in_flight() == 7
        assert house.fleet.longest_drain_seconds > 0


async def test_replicas_add_up() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", load=Load(slots=10, running=3, service_ms=10.0))
        await house.beat("a", None, replica="r2", load=Load(slots=5, running=1, service_ms=30.0, loop_lag_ms=50.0))
        candidate = house.fleet.roster("echo", {}).members[0].candidate("echo", None, house.clock.monotonic())
        assert (candidate.replicas, candidate.slots, candidate.in_flight) == (2, 15, 4)
        assert candidate.service_ms == 20.0
        assert candidate.completion_ms == 30.0


async def test_outcomes_teach_success_and_service_time() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.beat("b")
        house.fleet.learned([outcome("a", quality=0.9)] * 20)
        a, b = house.fleet.roster("echo", {}).members
        usual, now = house.fleet.usual("echo"), house.clock.monotonic()
        assert a.candidate("echo", usual, now).success > 0.95
        assert a.candidate("echo", usual, now).service_ms == pytest.approx(20.0)
        assert b.candidate("echo", usual, now).success == 0.5
        # A newcomer is taken for as fast as the fleet usually is.
        assert b.candidate("echo", usual, now).service_ms == pytest.approx(20.0)


async def test_retries_and_failures_count_against_cancelled_and_expired_do_not() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        member = house.fleet.roster("echo", {}).members[0]
        house.fleet.learned([outcome("a", TaskStatus.CANCELLED), outcome("a", TaskStatus.EXPIRED)])
        assert "echo" not in member.tracks
        house.fleet.learned([outcome("a", TaskStatus.RETRYING, kind=ReportKind.RETRY)])
        assert member.tracks["echo"].failures == 1.0
        house.fleet.learned([outcome("a", TaskStatus.RUNNING, kind=ReportKind.STARTED)])
        assert member.tracks["echo"].outcomes == 1


async def test_statistics_are_kept_only_for_what_an_agent_performs() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        house.fleet.learned([outcome("a", task_type="made-up"), outcome("nobody")])
        assert house.fleet.roster("echo", {}).members[0].tracks == {}
        assert house.fleet.usual("made-up") is None


async def test_failures_open_the_breaker_one_trial_closes_it() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        await house.beat("b")
        broken = outcome("a", TaskStatus.DEAD_LETTER)
        house.fleet.learned([broken] * 3)
        assert house.fleet.agent("a").breaker == "open"
        assert house.telemetry.breakers["a"] == 2
        assert await _chosen(house, 20) == {"b"}
        await house.clock.advance(61.0)
        for name in "ab":
            await house.beat(name, None)
        assert house.fleet.agent("a").breaker == "half-open"
        house.fleet.sent("a", "trial")
        assert await _chosen(house, 20) == {"b"}
        house.fleet.learned([outcome("a", TaskStatus.SUCCESS, task_id="trial")])
        assert house.fleet.agent("a").breaker == "closed"
        assert house.telemetry.breakers["a"] == 0


async def test_tasks_that_can_never_work_do_not_open_the_breaker() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        hopeless = outcome("a", TaskStatus.FAILED, error=TaskError("PermanentFailure", "bad input", retryable=False))
        house.fleet.learned([hopeless] * 50)
        assert house.fleet.agent("a").breaker == "closed"
        assert house.fleet.roster("echo", {}).members[0].tracks["echo"].success < 0.1


async def test_a_fleet_of_open_breakers_still_works() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        house.fleet.learned([outcome("a", TaskStatus.DEAD_LETTER)] * 3)
        assert (await house.submit()).selected_agent == "a"


async def _chosen(house: RoutingHouse, times: int) -> set[str | None]:
    return {(await house.submit()).selected_agent for _ in range(times)}


async def test_last_seen_is_told_to_the_ledger_in_batches() -> None:
    async with RoutingHouse() as house:
        calls: list[list[str]] = []
        seen = house.ledger.agents.seen

        async def counted(names_: list[str], now: float) -> None:
            calls.append(list(names_))
            await seen(names_, now)

        house.ledger.agents.seen = counted  # type: ignore[method-assign, assignment]
        for name in "abc":
            await house.beat(name)
            await house.beat(name, None)
        await house.clock.advance(10.0)
        assert calls == [["a", "b", "c"]]
        await house.clock.advance(10.0)
        assert len(calls) == 1


async def test_a_ledger_that_is_away_is_tried_again_until_it_knows_the_agent() -> None:
    house = RoutingHouse()
    register = house.ledger.agents.register
    failures = iter([True, False])

    async def sometimes(profiles: list[AgentProfile], now: float) -> dict[str, AgentMode]:
        if next(failures, False):
            raise Unavailable("the ledger is away")
        return await register(profiles, now)

    house.ledger.agents.register = sometimes  # type: ignore[method-assign, assignment]
    async with house:
        await house.beat("a")
        assert names(house) == []
        async with asyncio.timeout(10):
            await house.fleet.wait_for_change()
        assert names(house) == ["a"]


async def test_requirement_sets_are_remembered_in_bounds() -> None:
    async with RoutingHouse() as house:
        await house.beat("a")
        for number in range(1500):
            house.fleet.roster("echo", {"exclude_agents": [str(number)]})
        assert len(house.fleet._rosters) <= 1024


async def test_an_agent_says_what_it_is_a_replica_of_and_whose_experience_it_starts_from() -> None:
    async with RoutingHouse() as house:
        await house.beat("a", metadata={"kind": "small-v4", "follows": "small-v3"})
        await house.beat("b", metadata={"follows": 5})
        told = {member.name: member.mapping() for member in house.fleet.roster("echo", {}).members}
        assert (told["a"]["cls"], told["a"]["parent"]) == ("small-v4", "small-v3")
        assert (told["b"]["cls"], told["b"]["parent"]) == ("b", None)
        assert house.fleet.agent("b").notes == ("b declares follows 5, which is no short text and is ignored",)
