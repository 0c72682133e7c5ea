"""Tasks of an agent that is gone run elsewhere, soon, and only if there is an elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent_engines.domain.agents import AgentMode
from agent_engines.domain.messages import TaskMessage
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.ledger import DecisionFilter, TaskKind, Verdict
from agent_engines.runtime.rescue import GONE_SECONDS, LOOK_SECONDS, Rescue
from routing_house import RoutingHouse, settle

LEASE = 30.0
BAR = LEASE + 10.0
"""RELIABILITY: after an agent dies its tasks run elsewhere within this time."""


class Watched(RoutingHouse):
    """A house whose router rescues. `leading` False: another router does."""

    def __init__(self) -> None:
        super().__init__()
        self.leading = True
        self.rescue = Rescue(
            self.bus,
            self.ledger,
            self.redispatcher,
            self.fleet,
            clock=self.clock,
            telemetry=self.telemetry,
            leads=lambda: self.leading,
        )

    async def live(self, seconds: float, *agents: str) -> None:
        """Let time pass while these agents are heard."""
        for _ in range(round(seconds)):
            for agent in agents:
                await self.beat(agent, None)
            await self.clock.advance(1.0)

    @property
    def rescued(self) -> int:
        return self.telemetry.messages("warning").count("Tasks of agents that are gone are sent elsewhere")


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    async with Watched() as house:
        assert house.bus.tasks.lease_seconds == LEASE
        await house.rescue.start()
        try:
            yield house
        finally:
            await house.rescue.stop()


async def left_behind(house: Watched, count: int = 3, **fields: object) -> list[str]:
    """Tasks in the queue of agent a, of which nothing is heard from now on; agent b comes."""
    await house.beat("a")
    await house.live(LEASE, "a")
    tasks = [(await house.submit(**fields)).task_id for _ in range(count)]  # type: ignore[arg-type]
    await house.beat("b")
    return tasks


async def test_what_a_lost_agent_had_runs_elsewhere_within_lease_and_ten_seconds() -> None:
    async with watched() as house:
        tasks = await left_behind(house)
        running: TaskMessage = (await house.queued("a"))[0]
        assert await house.ledger.tasks.record([house.report(running, kind="started", status="running")]) == [
            Verdict.RECORDED
        ]
        await house.live(BAR, "b")
        again = await house.queued("b")
        assert sorted(message.task_id for message in again) == sorted(tasks)
        assert {(message.generation, message.attempt) for message in again} == {(2, 1)}
        for task_id in tasks:
            view = await house.ledger.reader.task(task_id)
            assert (view.status, view.selected_agent) == (TaskStatus.QUEUED, "b")
        assert len((await house.ledger.decisions.decisions(DecisionFilter())).items) == 2 * len(tasks)


async def test_a_late_success_of_the_lost_agent_still_counts() -> None:
    async with watched() as house:
        (task_id,) = await left_behind(house, 1)
        (old,) = await house.queued("a")
        await house.live(BAR, "b")
        (new,) = await house.queued("b")
        assert await house.ledger.tasks.record([house.report(old)]) == [Verdict.LATE]
        assert await house.ledger.tasks.record([house.report(new)]) == [Verdict.STALE]
        assert (await house.ledger.reader.task(task_id)).status is TaskStatus.SUCCESS


async def test_an_agent_that_is_heard_keeps_its_tasks() -> None:
    async with watched() as house:
        await left_behind(house)
        await house.live(5 * LEASE, "a", "b")
        assert (await house.queued("b"), len(await house.queued("a"))) == ([], 3)
        assert house.rescued == 0


async def test_a_silence_shorter_than_the_lease_is_forgiven() -> None:
    async with watched() as house:
        await left_behind(house)
        await house.live(LEASE - 2, "b")
        await house.live(10, "a", "b")
        assert await house.queued("b") == []


async def test_an_agent_that_was_taken_out_by_an_operator_keeps_what_it_has() -> None:
    async with watched() as house:
        await left_behind(house)
        await house.fleet.set_mode("a", AgentMode.DRAINING)
        await house.live(BAR, "a", "b")
        assert await house.queued("b") == []


async def test_nothing_is_taken_while_nobody_else_may_do_it() -> None:
    """Held in a router they would be no better off; the lost agent may come back."""
    async with watched() as house:
        await house.beat("b", ("other",))
        named = await left_behind(house, 1, requirements={"agent": "a"})
        listed = await left_behind(house, 1, requirements={"exclude_agents": ["b"]})
        await house.live(BAR, "b")
        for task_id in [*named, *listed]:
            assert (await house.ledger.reader.task(task_id)).selected_agent == "a"
        assert (house.redispatcher.held, house.rescued) == (0, 0)
        assert {message.generation for message in await house.queued("a")} == {1}


async def test_it_is_taken_when_somebody_comes_who_may() -> None:
    async with watched() as house:
        await house.beat("a")
        await house.beat("c", ("other",))
        await house.live(LEASE, "a", "c")
        await house.submit()
        await house.live(3 * LEASE, "c")
        assert house.rescued == 0
        await house.beat("b")
        await house.live(10, "b", "c")
        assert len(await house.queued("b")) == 1


async def test_only_the_leader_rescues() -> None:
    async with watched() as house:
        await left_behind(house)
        house.leading = False
        await house.live(2 * BAR, "b")
        assert await house.queued("b") == []
        house.leading = True
        await house.live(2, "b")
        assert len(await house.queued("b")) == 3


async def test_a_router_that_was_cut_off_does_not_take_the_silence_for_the_agents() -> None:
    async with watched() as house:
        await left_behind(house)
        await house.live(5, "a", "b")
        house.bus.switch(False)
        await house.clock.advance(2 * LEASE)
        house.bus.switch(True)
        await house.live(LEASE - 5, "b")
        assert house.rescued == 0
        await house.live(LEASE, "a", "b")
        assert house.rescued == 0


async def test_a_router_that_stood_still_listens_anew() -> None:
    async with watched() as house:
        await left_behind(house)
        await house.live(5, "a", "b")
        # As after a minute of SIGSTOP: the last look and the last heartbeat are a minute old.
        house.rescue._looked_at -= 2 * LEASE
        for member in house.fleet._members.values():
            for replica in member.replicas.values():
                replica.heard_at -= 2 * LEASE
        await house.live(LEASE - 5, "b")
        assert house.rescued == 0


async def test_a_router_that_started_later_rescues_what_was_left_before_it() -> None:
    async with watched() as house:
        await left_behind(house)
        del house.fleet._members["a"]
        await house.live(BAR, "b")
        assert len(await house.queued("b")) == 3


async def test_every_task_goes_even_when_there_are_many() -> None:
    async with watched() as house:
        tasks = await left_behind(house, 450)
        await house.live(BAR, "b")
        await settle()
        assert sorted(message.task_id for message in await house.queued("b")) == sorted(tasks)
        assert house.telemetry.counts["tasks_redispatched_total"] == 450


async def test_the_ledger_is_asked_less_and_less_while_there_is_nothing_to_find() -> None:
    async with watched() as house:
        await left_behind(house, 1)
        asked = 0
        stranded_kinds = house.ledger.tasks.stranded_kinds

        async def counted(older_than: float, *, agents: list[str]) -> list[TaskKind]:
            nonlocal asked
            asked += 1
            return await stranded_kinds(older_than, agents=agents)

        house.ledger.tasks.stranded_kinds = counted  # type: ignore[method-assign,assignment]
        await house.live(10 * LEASE, "b")
        assert house.rescued == 1
        assert asked <= 20


async def test_while_everybody_is_there_the_ledger_is_not_asked() -> None:
    async with watched() as house:
        await house.beat("a")

        async def never(older_than: float, *, agents: list[str]) -> list[TaskKind]:
            raise AssertionError("nobody is gone")

        house.ledger.tasks.stranded_kinds = never  # type: ignore[method-assign,assignment]
        await house.live(3 * LEASE, "a")
        assert house.telemetry.messages("warning") == []


def test_the_bar_leaves_room_for_the_looks() -> None:
    assert LEASE + 2 * LOOK_SECONDS < BAR
    assert GONE_SECONDS < 15
