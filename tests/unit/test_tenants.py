"""The tenants' books: what is under way counts, what is recorded is the ledger's, a pacer sets the price of cost."""

from __future__ import annotations

import pytest

from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.budgets import HOUR, UNLIMITED, Pace, Spend, TenantLimits
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import InvalidRequest, NotFound
from agent_engines.domain.messages import ReportKind
from agent_engines.domain.routing import LoadAware
from agent_engines.domain.tasks import TaskRequest
from agent_engines.domain.terms import Terms
from agent_engines.runtime.outcomes import Outcome
from agent_engines.runtime.tenants import LONGEST_UNDER_WAY, REFRESH_SECONDS, Pricer, TenantBooks
from routing_house import RoutingHouse, settle

PRICE = Spend(cost=1.0, tokens=10)


def books(clock: ManualClock, pricer: Pricer | None = None) -> TenantBooks:
    return TenantBooks(MemoryLedger(clock).tenants, clock=clock, telemetry=NullTelemetry(), pricer=pricer)


def outcome(task_id: str, kind: ReportKind = ReportKind.FINAL, cost: float | None = 1.0) -> Outcome:
    return Outcome(kind=kind, task_id=task_id, task_type="echo", cost=cost)


async def test_what_was_sent_counts_until_its_outcome_is_known() -> None:
    kept = books(ManualClock())
    await kept.put(TenantLimits(name="acme", cost=3.0, tokens=100))
    kept.sent("acme", "t1", PRICE)
    kept.sent("acme", "t2", PRICE)
    assert kept.allowance("acme").cost == 1.0
    kept.settled("t2")
    kept.settled("t2")
    assert kept.allowance("acme").cost == 2.0
    kept.recorded([outcome("t1", ReportKind.STARTED), outcome("unknown")])
    assert kept.allowance("acme").cost == 2.0
    kept.recorded([outcome("t1", cost=2.5)])
    assert kept.allowance("acme").cost == 0.5


async def test_the_ledgers_word_replaces_the_routers_own() -> None:
    kept = books(ManualClock())
    await kept.put(TenantLimits(name="acme", cost=3.0))
    kept.sent("acme", "t1", PRICE)
    kept.recorded([outcome("t1")])
    await kept.refresh()
    assert kept.allowance("acme").cost == 3.0, "this ledger was told of nothing"


async def test_news_that_was_lost_does_not_hold_money_for_ever() -> None:
    clock = ManualClock()
    kept = books(clock)
    await kept.put(TenantLimits(name="acme", cost=3.0))
    kept.sent("acme", "t1", PRICE)
    await clock.advance(LONGEST_UNDER_WAY + 1)
    await kept.refresh()
    assert kept.allowance("acme").cost == 3.0


async def test_tenants_without_limits_cost_nothing_to_look_after() -> None:
    kept = books(ManualClock())
    kept.sent("anybody", "t1", PRICE)
    assert kept.allowance("anybody") is UNLIMITED
    assert kept.weight("anybody") == 1.0
    assert (await kept.account("anybody")).spent == Spend()
    with pytest.raises(NotFound):
        await kept.remove("anybody")
    with pytest.raises(InvalidRequest):
        await kept.account("no name")


async def test_another_routers_change_is_seen_within_two_seconds() -> None:
    clock = ManualClock()
    ledger = MemoryLedger(clock)
    one, two = (TenantBooks(ledger.tenants, clock=clock, telemetry=NullTelemetry()) for _ in range(2))
    await two.start()
    await settle()
    await one.put(TenantLimits(name="acme", weight=3.0))
    await clock.advance(REFRESH_SECONDS + 0.1)
    assert two.weight("acme") == 3.0
    await two.stop()


async def test_a_repeated_submission_does_not_free_what_the_first_one_holds() -> None:
    async with RoutingHouse() as house:
        kept = TenantBooks(house.ledger.tenants, clock=house.clock, telemetry=NullTelemetry())
        house.dispatcher.keep_books(kept)
        await kept.put(TenantLimits(name="acme", cost=2.0))
        await house.beat("a", metadata={"cost_per_task": 1.0})
        first = await house.submit(tenant="acme", idempotency_key="k1")
        again = await house.submit(tenant="acme", idempotency_key="k1")
        assert (again.task_id, again.existing) == (first.task_id, True)
        assert kept.allowance("acme").cost == 1.0
        await house.submit(tenant="acme", idempotency_key="k2")
        wanted = TaskRequest(task_type="echo", tenant="acme", idempotency_key="k3")
        [answer] = await house.dispatcher.submit([wanted])
        assert answer.refused is not None
        assert answer.refused.kind == "BudgetSpent"


async def test_a_repeat_of_what_another_router_sent_holds_nothing_here() -> None:
    async with RoutingHouse() as house:
        kept = TenantBooks(house.ledger.tenants, clock=house.clock, telemetry=NullTelemetry())
        await house.beat("a", metadata={"cost_per_task": 1.0})
        await house.submit(tenant="acme", idempotency_key="k1")
        house.dispatcher.keep_books(kept)
        await kept.put(TenantLimits(name="acme", cost=2.0))
        assert (await house.submit(tenant="acme", idempotency_key="k1")).existing
        assert kept.allowance("acme").cost == 2.0


async def test_a_pacer_sets_the_price_of_cost_that_the_policy_chooses_by() -> None:
    heard: list[Pace] = []

    def pricer(pace: Pace) -> float | None:
        heard.append(pace)
        return 10.0 if pace.spent > pace.budget * pace.elapsed else None

    async with RoutingHouse() as house:
        begin = TenantLimits(name="acme").period(house.clock.now())[0]
        await house.clock.advance(begin + HOUR * 30 - house.clock.now())
        await house.beat("good", metadata={"cost_per_task": 0.3})
        await house.beat("free")
        kept = TenantBooks(house.ledger.tenants, clock=house.clock, telemetry=NullTelemetry(), pricer=pricer)
        house.dispatcher.books = kept
        await kept.put(TenantLimits(name="acme", cost=100.0))
        assert (heard[-1].tenant, heard[-1].budget, heard[-1].elapsed) == ("acme", 100.0, 0.25)
        assert kept.price("acme") is None
        house.ledger.tables.spend["acme", begin + HOUR * 25] = Spend(cost=60.0)
        await kept.refresh()
        assert kept.price("acme") == 10.0
        message = await house.submit(tenant="acme")
        recorded = await house.ledger.decisions.decision(message.request_id)
        assert recorded.context is not None
        assert (recorded.context.price, recorded.context.terms.tenant) == (10.0, "acme")
        assert message.selected_agent == "free"
        [dear] = [one for one in recorded.candidates if one.agent == "good"]
        assert dear.probability < 0.01, "only the floor is left"


def test_the_policys_own_price_counts_where_nobody_paces() -> None:
    context = DecisionContext(request_id="r", task_type="echo", terms=Terms(tenant="acme"))
    assert context.price is None
    assert LoadAware().price == 0.1
