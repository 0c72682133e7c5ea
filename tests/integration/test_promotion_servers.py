"""Promotion on real servers: routers change over while tasks run, keep the policy over a restart, and refuse by real numbers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.adapters.postgres.ledger import PostgresLedger
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import Conflict
from agent_engines.domain.policy_word import PolicyChange, PolicyOrder
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.engines.intelligence import IntelligenceEngine
from agent_engines.engines.optimizing import OptimizingEngine
from agent_engines.engines.routing import RoutingOptions
from agent_engines.ports.connections import Connections
from agent_engines.runtime.context import TaskContext
from agent_engines.runtime.engine import Engine
from agent_engines.runtime.shipped_strategies import PolicyMaker
from agent_engines.runtime.strategies import StrategyChoice
from site_house import PATIENCE, TwoRouters, holds

PLAIN = PolicyOrder(by="ann")
FORCED = PolicyOrder(by="ann", reason="a drill", force=True)
ENOUGH = 1400
"""Decisions at random between two: each policy would have made half of them."""


class Fixed:
    """One agent, always."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.version = f"{agent}-only-1"

    def choose(self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> tuple[str, float, float]:
        return self.agent, 0.9, 1.0

    def learn(self, decision: Mapping[str, Any], outcome: Mapping[str, Any]) -> None: ...


OWN: dict[str, PolicyMaker] = {"best": lambda seed: Fixed("good"), "worst": lambda seed: Fixed("bad")}


def routing(policies: Mapping[str, PolicyMaker], setting: str = "random") -> RoutingOptions:
    return RoutingOptions(choice=StrategyChoice(default=setting), policies=policies)


def agents() -> list[Engine]:
    found: list[Engine] = []
    for name, quality in (("good", 0.9), ("bad", 0.4)):
        agent = Engine(name)

        @agent.task("read")
        async def read(context: TaskContext, payload: Any, quality: float = quality) -> Any:
            context.quality(quality + 0.1 * (payload % 2))
            return payload

        found.append(agent)
    return found


class Site(TwoRouters):
    """Two routers that choose at random, two agents, and an optimizing engine that knows the policies of one's own."""

    def __init__(self, nats_url: str, postgres_url: str) -> None:
        super().__init__(nats_url, postgres_url, agents(), routing=routing(OWN))
        self.optimizing = OptimizingEngine(policies=OWN)
        self.third = IntelligenceEngine("intelligence", seed=3, routing=routing(OWN, "adaptive"))

    async def start(self, stack: AsyncExitStack) -> None:
        await super().start(stack)
        await self.join(stack, self.optimizing)
        await self.hears("read", 2)

    async def join(self, stack: AsyncExitStack, engine: Engine) -> None:
        bus = await JetStreamBus.connect(self._nats_url, lease_seconds=5)
        stack.push_async_callback(bus.close)
        ledger = await PostgresLedger.connect(self.postgres_url, pool_min=1, pool_max=2)
        stack.push_async_callback(ledger.close)
        await engine.start(Connections(bus=bus, telemetry=NullTelemetry(), clock=SystemClock(), ledger=ledger))
        stack.push_async_callback(engine.stop, 1.0)

    async def worked(self, count: int) -> None:
        """So many tasks, at both routers, to their recorded ends."""
        for router in (self.one, self.two):
            requests = [TaskRequest(task_type="read", payload=n) for n in range(count // 2)]
            for result in await router.submit(requests):
                assert result.accepted is not None, result.refused
                done = await router.task(result.accepted.task_id, wait=PATIENCE)
                assert done.status is TaskStatus.SUCCESS

    async def deciding(self, policy: str, *routers: IntelligenceEngine) -> None:
        """Return when these decide by it, or both do."""
        for router in routers or (self.one, self.two):

            async def so(router: IntelligenceEngine = router) -> bool:
                return await strategy(router) == policy

            await holds(so)


async def strategy(router: IntelligenceEngine) -> str:
    context = DecisionContext(request_id=f"probe-{asyncio.get_running_loop().time()}", task_type="read")
    return (await router.recommend(context)).strategy


@asynccontextmanager
async def opened(nats_url: str, postgres_url: str) -> AsyncIterator[Site]:
    site = Site(nats_url, postgres_url)
    async with AsyncExitStack() as stack:
        await site.start(stack)
        yield site


@pytest.fixture
async def site(nats_url: str, postgres_url: str) -> AsyncIterator[Site]:
    async with opened(nats_url, postgres_url) as site:
        yield site


async def test_routers_change_over_while_tasks_run_and_none_is_lost(site: Site) -> None:
    await site.worked(ENOUGH)
    ended: Counter[TaskStatus] = Counter()
    chosen: list[tuple[str, str, str]] = []
    going = True

    async def keep_working(router: IntelligenceEngine) -> None:
        while going:
            results = await router.submit([TaskRequest(task_type="read", payload=n) for n in range(10)])
            for result in results:
                assert result.accepted is not None, result.refused
                accepted = result.accepted
                chosen.append((accepted.strategy, accepted.policy_version, accepted.selected_agent or ""))
                ended[(await router.task(accepted.task_id, wait=PATIENCE)).status] += 1

    workers = [asyncio.ensure_future(keep_working(router)) for router in (site.one, site.two)]
    try:
        await asyncio.sleep(0)
        change = await site.one.policies.promote("best", PLAIN)
        await site.deciding("best")
        begun = len(chosen)

        async def both_went_on() -> bool:
            return len(chosen) > begun + 60

        await holds(both_went_on)
        left = await site.two.policies.rollback("good-only-1", PLAIN)
        await site.deciding("random")
        begun = len(chosen)
        await holds(both_went_on)
    finally:
        going = False
        await asyncio.gather(*workers)
    assert set(ended) == {TaskStatus.SUCCESS}
    assert ended.total() == len(chosen)
    assert {version for name, version, _ in chosen if name == "best"} == {"good-only-1"}
    assert {agent for name, _, agent in chosen if name == "best"} == {"good"}
    assert {agent for name, _, agent in chosen if name == "random"} == {"good", "bad"}
    assert (change.forced, change.objections, change.version) == (False, (), "good-only-1")
    assert change.evidence[0].effective_sample_size >= 500
    assert (left.source, left.to) == ("best", "random")
    recorded = await site.sql(
        "SELECT count(*) AS n FROM decision_history WHERE policy_version = 'good-only-1' AND task_id IS NOT NULL"
    )
    assert recorded[0]["n"] == sum(name == "best" for name, _, _ in chosen)


async def test_bad_or_thin_evidence_refuses_with_numbers_and_a_force_is_recorded(site: Site) -> None:
    await site.worked(200)
    with pytest.raises(Conflict, match=r"too thin: effective sample size \d+ is under 500"):
        await site.one.policies.promote("best", PLAIN)
    await site.worked(ENOUGH - 200)
    with pytest.raises(Conflict, match=r"not shown to be better than what was logged: gain -0\.2"):
        await site.one.policies.promote("worst", PLAIN)
    assert await strategy(site.one) == "random"
    change = await site.one.policies.promote("worst", FORCED)
    assert (change.forced, change.reason) == (True, "a drill")
    assert len(change.objections) == 1
    await site.deciding("worst")

    async def told() -> bool:
        report = await site.one.report("optimizing", "tuning")
        return bool(report["changes"])

    await holds(told)
    (written,) = msgspec.convert((await site.one.report("optimizing", "tuning"))["changes"], list[PolicyChange])
    assert written == change


async def test_a_restart_and_a_late_router_keep_the_promoted_policy(site: Site) -> None:
    await site.one.policies.promote("best", FORCED)
    await site.deciding("best")
    await site.two.stop(1.0)
    async with AsyncExitStack() as stack:
        await site.join(stack, site.third)
        assert site.third._parts.routing.strategies.default == "best", "before its first decision"
        assert (await site.third.policies.rollback("best", PLAIN)).to == "adaptive"
        await site.deciding("random", site.one)


async def test_a_policy_that_is_not_installed_on_one_router_leaves_it_as_it_was(
    nats_url: str, postgres_url: str
) -> None:
    site = Site(nats_url, postgres_url)
    site.two.routing = routing({})
    async with AsyncExitStack() as stack:
        await site.start(stack)
        await site.one.policies.promote("best", FORCED)
        await site.deciding("best", site.one)

        async def said() -> bool:
            report = await site.one.report("optimizing", "policies")
            return len(report["routers"]) == 2

        await holds(said)
        report = await site.one.report("optimizing", "policies")
        assert (report["active"], report["promoted"]) == ("good-only-1", "best")
        found = {row["policy"]: row["problem"] for row in report["routers"]}
        assert found["best"] == ""
        assert "best cannot be run here" in found["random"]
        assert await strategy(site.two) == "random"
        await site.worked(20)


async def test_a_promoted_policy_that_does_worse_is_rolled_back_by_itself(site: Site) -> None:
    await site.worked(600)
    change = await site.one.policies.promote("worst", FORCED)
    assert change.guarded
    await site.deciding("worst")
    await site.worked(500)

    async def left() -> bool:
        # Who asks makes it look.
        return (await site.one.report("optimizing", "policies"))["promoted"] is None

    await holds(left)
    await site.deciding("random")
    last = (await site.two.report("optimizing", "tuning"))["changes"][0]
    assert (last["verb"], last["from"], last["to"], last["by"]) == ("rollback", "worst", "random", "the guard")
    assert "outcomes earned 0.45" in last["reason"]
    await site.worked(20)


async def test_of_two_promotions_at_once_one_wins_and_the_other_says_which(site: Site) -> None:
    ended = await asyncio.gather(
        site.one.policies.promote("best", FORCED), site.two.policies.promote("c3", FORCED), return_exceptions=True
    )
    (won,) = [each for each in ended if isinstance(each, PolicyChange)]
    (lost,) = [each for each in ended if isinstance(each, Conflict)]
    assert f"random gave way to {won.to} (promote by ann" in str(lost)
    await site.deciding(won.to)


async def test_what_adaptive_has_learned_is_there_when_it_comes_back(site: Site) -> None:
    await site.one.policies.promote("adaptive", FORCED)
    await site.deciding("adaptive")
    await site.worked(40)
    values = site.one._parts.routing.lessons.learned.values

    async def learned() -> bool:
        return values.lessons == 40

    await holds(learned)
    await site.one.policies.promote("best", FORCED)
    await site.deciding("best")
    await site.worked(10)
    await site.one.policies.rollback("best", PLAIN)
    await site.deciding("adaptive")
    assert values.lessons == 40
    decision = await site.one.recommend(DecisionContext(request_id="after", task_type="read"))
    good, bad = sorted(decision.candidates, key=lambda one: one.agent != "good")
    assert (good.quality or 0.0) > (bad.quality or 0.0) + 0.2, "it knows them still"
