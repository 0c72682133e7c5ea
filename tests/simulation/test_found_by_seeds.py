"""What seeds found, as the shortest story that shows it."""

from __future__ import annotations

import asyncio

import pytest

from agent_engines.domain.messages import SubmitResult
from agent_engines.domain.tasks import PriorityClass, TaskRequest, TaskStatus
from agent_engines.testing.simulation.hosts import TASK_TYPE
from agent_engines.testing.simulation.virtual_loop import VirtualLoop
from agent_engines.testing.simulation.world import SOUND, Mode, World

REQUEST = TaskRequest(task_type=TASK_TYPE, payload={"n": 1, "seconds": 0.1}, idempotency_key="once")


@pytest.mark.parametrize("gap", [0.0, 0.004, 0.009, 0.015])
def test_a_second_caller_who_was_told_accepted_is_not_forgotten_when_the_first_is_refused(gap: float) -> None:
    """The queue is full: the first submission is withdrawn, while the second was answered with the first one's task."""
    loop = VirtualLoop()

    async def story() -> None:
        world = World(1, Mode.LIVENESS, loop, SOUND, keep_trace=False)
        [router, *_], agents = world.routers, world.agents
        for host in (router, *agents):
            host.start()
        await asyncio.sleep(2.0)
        queues = [world.broker.queue(priority, f"agent-{n}") for priority in PriorityClass for n in range(3)]
        for queue in queues:
            queue.limit = 0

        async def submit(after: float) -> SubmitResult:
            await asyncio.sleep(after)
            return (await router.ask(lambda parts: parts.dispatcher.submit([REQUEST]), 5.0))[0]

        told = await asyncio.gather(submit(0.0), submit(gap))
        for queue in queues:
            queue.limit = 1_000
        await asyncio.sleep(120.0)
        tables = world.ledger.ledger.tables
        for answer in told:
            if answer.accepted is not None:
                assert tables.outcomes[answer.accepted.task_id].report.status is TaskStatus.SUCCESS
        for host in (router, *agents):
            host.crash()
            await host.ended()

    loop.run_until_complete(story())


def test_two_submissions_of_one_key_in_one_commit_are_both_true_to_their_word() -> None:
    loop = VirtualLoop()
    kinds: list[str] = []

    async def story() -> None:
        world = World(1, Mode.LIVENESS, loop, SOUND, keep_trace=False)
        router = world.routers[0]
        for host in (router, *world.agents):
            host.start()
        await asyncio.sleep(2.0)
        for priority in PriorityClass:
            for n in range(3):
                world.broker.queue(priority, f"agent-{n}").limit = 0
        told = await router.ask(lambda parts: parts.dispatcher.submit([REQUEST, REQUEST]), 5.0)
        kinds.extend("accepted" if answer.refused is None else answer.refused.kind for answer in told)
        # The task stays: the second one was not told that it is not there.
        assert len(world.ledger.ledger.tables.tasks) == 1
        for host in (router, *world.agents):
            host.crash()
            await host.ended()

    loop.run_until_complete(story())
    assert kinds == ["QueueFull", "Unavailable"], (
        "for certain not sent, and perhaps: nobody holds a promise that is not kept"
    )


def test_a_poisonous_task_with_a_large_budget_is_found_out() -> None:
    """The reconciler must not send it again, counted from one, before that: leases and patience are production's."""
    loop = VirtualLoop()

    async def story() -> None:
        world = World(1, Mode.LIVENESS, loop, SOUND, keep_trace=False)
        world.broker.lease, world.surroundings.longest_timeout = 30.0, 300.0
        hosts = [world.routers[0], world.agents[0]]

        async def restart() -> None:
            while True:
                for host in hosts:
                    host.start()
                await asyncio.sleep(0.5)

        restarting = asyncio.ensure_future(restart())
        await asyncio.sleep(2.0)
        request = TaskRequest(task_type=TASK_TYPE, payload={"n": 1, "seconds": 0.01, "kills": 1.0}, max_attempts=50)
        [told] = await world.routers[0].ask(lambda parts: parts.dispatcher.submit([request]), 5.0)
        assert told.accepted is not None
        await asyncio.sleep(400.0)
        outcome = world.ledger.ledger.tables.outcomes[told.accepted.task_id].report
        assert (outcome.status, outcome.generation) == (TaskStatus.DEAD_LETTER, 1)
        assert outcome.error is not None
        assert outcome.error.type == "Poisoned"
        restarting.cancel()
        for host in hosts:
            host.crash()
            await host.ended()

    loop.run_until_complete(story())
