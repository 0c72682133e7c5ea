"""Two tenants on real servers: a flood does not starve the other one, and one router's word about money is every router's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from agent_engines.domain.budgets import TenantLimits
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import BudgetSpent
from agent_engines.domain.messages import SubmitResult
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.domain.terms import Budget, Terms
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.runtime.agent_config import AgentConfig
from agent_engines.runtime.engine import Engine
from site_house import PATIENCE, TwoRouters, holds, two_routers


class Bench:
    """An agent with one slot that writes down whom it serves; it begins when it is told to."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.gate = asyncio.Event()
        self.engine = Engine(
            AgentConfig("bench", max_concurrent_tasks=1, http_port=None), metadata={"cost_per_task": 1.0}
        )

        @self.engine.task("serve")
        async def serve(payload: Any) -> None:
            await self.gate.wait()
            self.order.append(payload)


async def ended(site: TwoRouters, results: Sequence[SubmitResult]) -> None:
    for result in results:
        assert result.accepted is not None
        assert (await site.one.task(result.accepted.task_id, wait=PATIENCE)).status is TaskStatus.SUCCESS


async def test_a_flood_of_one_tenant_lets_the_other_one_through(nats_url: str, postgres_url: str) -> None:
    bench = Bench()
    async with two_routers(nats_url, postgres_url, [bench.engine]) as site:
        await site.hears("serve", 1)
        requests = [TaskRequest(task_type="serve", payload=tenant, tenant=tenant) for tenant in ("loud", "quiet")]
        # One of each first: from then on the agent knows that tenants are mixed, and holds ten turns for a fair order.
        bench.gate.set()
        await ended(site, await site.one.submit(requests))
        bench.gate.clear()
        bench.order.clear()
        flood = await site.one.submit([requests[0]] * 8)
        late = await site.two.submit([requests[1]] * 3)

        async def waits() -> bool:
            return sum(replica.load.queued for replica in site.one.agent("bench").replicas) == 10

        await holds(waits)
        bench.gate.set()
        await ended(site, [*flood, *late])
        # First come, first served would have served all eight of the flood before the first of the late ones.
        assert bench.order[0] == "loud"
        assert bench.order[1:7].count("quiet") == 3, bench.order


async def knows(router: IntelligenceEngine) -> bool:
    context = DecisionContext(request_id="asks", task_type="serve", terms=Terms(tenant="acme"))
    try:
        await router.recommend(context)
    except BudgetSpent:
        return True
    return False


async def test_limits_set_at_one_router_hold_at_the_other_and_spending_is_counted_once(
    nats_url: str, postgres_url: str
) -> None:
    bench = Bench()
    bench.gate.set()
    async with two_routers(nats_url, postgres_url, [bench.engine]) as site:
        await site.hears("serve", 1)
        await site.one.tenants.put(TenantLimits(name="acme", cost=3.5))

        async def refused(router: IntelligenceEngine) -> bool:
            (result,) = await router.submit([TaskRequest(task_type="serve", payload="x", tenant="acme")])
            if result.refused is not None:
                assert result.refused.kind == "BudgetSpent", result.refused
                assert "the cheapest, bench, is expected to take 1" in result.refused.detail
                return True
            assert result.accepted is not None
            await router.task(result.accepted.task_id, wait=PATIENCE)
            return False

        sent = 0
        while not await refused(site.one):
            sent += 1
        assert sent == 3
        # The other router reads the accounts every two seconds.
        await holds(lambda: knows(site.two))
        assert await refused(site.two)
        account = await site.two.tenants.account("acme")
        assert account.spent.cost == 3.0
        assert len(bench.order) == 3
        (small,) = await site.one.submit([TaskRequest(task_type="serve", payload="x", budget=Budget(cost=0.5))])
        assert small.refused is not None
        assert (small.refused.kind, small.refused.field) == ("BudgetTooSmall", "budget.cost")
