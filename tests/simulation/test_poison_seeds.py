"""Poison among innocents: who ends its process is given up after a few deaths, and nobody else is."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.testing.simulation.hosts import TASK_TYPE, AgentHost, Host
from agent_engines.testing.simulation.virtual_loop import VirtualLoop
from agent_engines.testing.simulation.world import SOUND, Mode, World

MOST_DEATHS = 6
"""The first delivery, four noted starts, and one more when a start could not be noted or the news of it was lost."""


class Story:
    """Two replicas that die and come back, one router, and a mix of tasks."""

    def __init__(self, seed: int, loop: VirtualLoop, *, lease: float, slots: int, longest: float) -> None:
        self.rng = Random(seed)
        self.world = World(seed, Mode.LIVENESS, loop, SOUND, keep_trace=False)
        self.world.broker.lease, self.world.surroundings.longest_timeout = lease, longest
        for queue in self.world.broker.queues:
            queue.lease = lease
        self.world.broker.limit = 1_000_000
        self.router = self.world.routers[0]
        self.world.routers = [self.router]
        self.world.agents = [AgentHost("agent-0", n, self.world.surroundings, slots=slots) for n in range(2)]
        self.poison: set[str] = set()
        self.accepted: set[str] = set()

    @property
    def hosts(self) -> list[Host]:
        return [self.router, *self.world.agents]

    async def restart(self) -> None:
        while True:
            for host in self.hosts:
                host.start()
            await asyncio.sleep(0.5)

    async def submit(self, count: int, *, poison: int, seconds: float) -> None:
        places = set(self.rng.sample(range(count), poison))
        requests = [
            TaskRequest(
                task_type=TASK_TYPE,
                payload={
                    "n": n,
                    "seconds": 0.01 if n in places else self.rng.random() * seconds,
                    "kills": float(n in places),
                },
                max_attempts=1,
            )
            for n in range(count)
        ]
        told = await self.router.ask(lambda parts: parts.dispatcher.submit(requests), 5.0)
        for n, one in enumerate(told):
            assert one.accepted is not None
            self.accepted.add(one.accepted.task_id)
            if n in places:
                self.poison.add(one.accepted.task_id)

    async def ended(self, within: float) -> dict[str, TaskStatus]:
        outcomes = self.world.ledger.ledger.tables.outcomes
        end = self.world.clock.monotonic() + within
        while not self.accepted <= set(outcomes) and self.world.clock.monotonic() < end:
            await asyncio.sleep(1.0)
        return {task_id: outcomes[task_id].report.status for task_id in self.accepted if task_id in outcomes}

    def deaths(self) -> Counter[str]:
        return Counter(one.task_id for one in self.world.surroundings.executions if one.task_id in self.poison)

    async def close(self) -> None:
        for host in self.hosts:
            host.crash()
            await host.ended()


@pytest.mark.parametrize(
    ("seed", "lease", "slots", "seconds", "longest"),
    [(1, 6.0, 8, 1.0, 300.0), (2, 30.0, 20, 2.0, 300.0), (3, 4.0, 1, 0.2, 300.0), (4, 10.0, 20, 4.9, 10.0)],
    ids=["short-lease", "production", "one-slot", "long-neighbours-and-a-hasty-reconciler"],
)
def test_poison_is_given_up_after_a_few_deaths_and_no_innocent_is(
    seed: int, lease: float, slots: int, seconds: float, longest: float
) -> None:
    loop = VirtualLoop()

    async def told() -> None:
        story = Story(seed, loop, lease=lease, slots=slots, longest=longest)
        restarting = asyncio.ensure_future(story.restart())
        await asyncio.sleep(2.0)
        await story.submit(80, poison=3, seconds=seconds)
        ends = await story.ended(1_800.0)
        outcomes = story.world.ledger.ledger.tables.outcomes
        assert set(ends) == story.accepted
        buried = {task_id for task_id, status in ends.items() if status is TaskStatus.DEAD_LETTER}
        assert buried == story.poison, "nobody else, although each had one attempt only"
        for task_id in buried:
            error = outcomes[task_id].report.error
            assert error is not None
            assert (error.type, error.message[:17]) == ("Poisoned", "its process ended")
        assert set(ends.values()) == {TaskStatus.DEAD_LETTER, TaskStatus.SUCCESS}
        assert max(story.deaths().values()) <= MOST_DEATHS
        restarting.cancel()
        await story.close()

    loop.run_until_complete(told())


def test_an_agent_that_kills_all_its_tasks_pauses_before_it_has_emptied_its_queue() -> None:
    """A bad deploy ends its process with every task. What it remembers is in the settings, not in the dead processes."""
    loop = VirtualLoop()

    async def told() -> None:
        story = Story(5, loop, lease=4.0, slots=4, longest=300.0)
        restarting = asyncio.ensure_future(story.restart())
        await asyncio.sleep(2.0)
        await story.submit(60, poison=60, seconds=0.1)
        await asyncio.sleep(600.0)
        buried = len(await story.ended(0.0))
        executions = len(story.world.surroundings.executions)
        assert 10 < buried < 20
        await asyncio.sleep(300.0)
        assert len(await story.ended(0.0)) - buried <= 2, "a probe now and then"
        assert len(story.world.surroundings.executions) - executions < 30
        restarting.cancel()
        await story.close()

    loop.run_until_complete(told())
