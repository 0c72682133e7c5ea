"""What every ledger promises about terms, tenants and spending."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from agent_engines.domain.budgets import HOUR, NOTHING, Account, Spend, TenantLimits
from agent_engines.domain.decisions import Decision
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import Task, TaskStatus
from agent_engines.domain.terms import NO_TERMS, Affinity, AffinityMode, Budget, Terms
from agent_engines.ports.ledger import Entry, Ledger, TaskFilter, Verdict

NOW = 1_700_000_000.0
TERMS = Terms(
    tenant="acme",
    budget=Budget(cost=1.5, tokens=100, attempts=2),
    affinity=Affinity(key="session-42", mode=AffinityMode.HARD),
)


def decision(task_id: str) -> Decision:
    return Decision(
        request_id=task_id,
        task_id=task_id,
        task_type="echo",
        selected_agent="ann",
        confidence=0.9,
        propensity=1.0,
        strategy="sampled",
        policy_version="v1",
        reasoning="",
        candidates=(),
        created_at=NOW,
    )


async def accepted(ledger: Ledger, terms: Terms = TERMS) -> str:
    task_id = str(uuid4())
    task = Task(task_id=task_id, request_id=task_id, task_type="echo", submitted_at=NOW, terms=terms)
    await ledger.tasks.accept([Entry(task, decision(task_id))])
    return task_id


def told(task_id: str, kind: ReportKind, **changes: Any) -> Report:
    status = TaskStatus.SUCCESS if kind is ReportKind.FINAL else TaskStatus.RETRYING
    fields: dict[str, Any] = {"status": status, "tenant": "acme", "completed_at": NOW + 1, "submitted_at": NOW}
    fields |= {"retry_at": NOW + 2} if kind is ReportKind.RETRY else {}
    return Report(kind=kind, task_id=task_id, request_id=task_id, task_type="echo", agent="ann", **(fields | changes))


async def test_terms_come_back_wherever_a_task_does(ledger: Ledger) -> None:
    stranded, plain = await accepted(ledger), await accepted(ledger, NO_TERMS)
    views = {view.task_id: view.terms for view in (await ledger.reader.tasks(TaskFilter())).items}
    assert views == {stranded: TERMS, plain: NO_TERMS}
    assert (await ledger.reader.task(stranded)).terms == TERMS
    claimed = {one.task.task_id: one.task.terms for one in await ledger.tasks.claim_stranded(4e9, 10)}
    assert claimed == {stranded: TERMS, plain: NO_TERMS}
    await ledger.tasks.record([told(stranded, ReportKind.RETRY, generation=2)])
    [due] = await ledger.tasks.claim_due(NOW + 5, 10)
    assert due.task.terms == TERMS
    await ledger.tasks.record([told(stranded, ReportKind.FINAL, generation=3, status=TaskStatus.FAILED)])
    assert (await ledger.reader.ended([stranded])).items[0].terms == TERMS
    assert (await ledger.tasks.reopen(stranded, NOW + 9)).task.terms == TERMS
    planned = Task(task_id="planned", request_id="p", task_type="echo", submitted_at=NOW, run_at=NOW + 100, terms=TERMS)
    await ledger.tasks.plan([planned])
    assert (await ledger.tasks.claim_due(NOW + 100, 10))[-1].task.terms == TERMS


async def test_a_task_knows_what_its_attempts_used_up(ledger: Ledger) -> None:
    task_id = await accepted(ledger)
    assert await ledger.tenants.task_spent(task_id) == NOTHING
    await ledger.tasks.record([told(task_id, ReportKind.RETRY, cost=0.5, tokens=30)])
    assert await ledger.tenants.task_spent(task_id) == Spend(cost=0.5, tokens=30)
    await ledger.tasks.claim_due(NOW + 5, 10)
    await ledger.tasks.record([told(task_id, ReportKind.FINAL, generation=2, attempt=2, cost=0.25, tokens=3)])
    assert (await ledger.reader.task(task_id)).spent == Spend(cost=0.75, tokens=33)
    plain = await accepted(ledger, NO_TERMS)
    assert (await ledger.reader.task(plain)).spent is None


async def test_a_task_driven_again_begins_with_its_whole_budget(ledger: Ledger) -> None:
    task_id = await accepted(ledger)
    await ledger.tasks.record([told(task_id, ReportKind.RETRY, cost=1.0)])
    await ledger.tasks.claim_due(NOW + 5, 10)
    await ledger.tasks.record([told(task_id, ReportKind.FINAL, generation=2, attempt=2, status=TaskStatus.DEAD_LETTER)])
    await ledger.tasks.reopen(task_id, NOW + 9)
    assert await ledger.tenants.task_spent(task_id) == NOTHING
    await ledger.tasks.record([told(task_id, ReportKind.RETRY, generation=3, cost=0.125)])
    assert await ledger.tenants.task_spent(task_id) == Spend(cost=0.125)


async def test_limits_are_kept_whole_and_lifted(ledger: Ledger) -> None:
    assert await ledger.tenants.accounts(NOW) == []
    first = TenantLimits(name="acme", cost=10.0, tokens=5, period_seconds=2 * HOUR, weight=3.0)
    await ledger.tenants.put(first, NOW)
    await ledger.tenants.put(TenantLimits(name="zoo"), NOW)
    assert [account.limits for account in await ledger.tenants.accounts(NOW)] == [first, TenantLimits(name="zoo")]
    second = TenantLimits(name="acme", weight=1.0)
    await ledger.tenants.put(second, NOW)
    assert (await ledger.tenants.accounts(NOW))[0] == Account(limits=second)
    assert await ledger.tenants.remove("acme")
    assert not await ledger.tenants.remove("acme")


async def test_spending_is_counted_once_by_tenant_and_period(ledger: Ledger) -> None:
    await ledger.tenants.put(TenantLimits(name="acme", cost=10.0, period_seconds=HOUR), NOW)
    one, two, other = await accepted(ledger), await accepted(ledger), await accepted(ledger)
    reports = [
        told(one, ReportKind.RETRY, cost=0.5, tokens=7),
        told(two, ReportKind.FINAL, cost=0.25),
        told(other, ReportKind.FINAL, cost=8.0, tenant="other"),
    ]
    assert await ledger.tasks.record(reports) == [Verdict.RECORDED] * 3
    assert await ledger.tasks.record(reports) == [Verdict.DUPLICATE] * 3
    late = told(two, ReportKind.FINAL, cost=4.0, delivery=2)
    assert await ledger.tasks.record([late]) == [Verdict.STALE]
    assert (await ledger.tenants.accounts(NOW))[0].spent == Spend(cost=0.75, tokens=7)
    assert await ledger.tenants.spent("other", NOW) == Spend(cost=8.0)
    assert await ledger.tenants.spent("nobody", NOW) == NOTHING
    assert (await ledger.tenants.accounts(NOW + HOUR))[0].spent == NOTHING
    assert await ledger.tenants.spent("acme", NOW + HOUR) == NOTHING


async def test_starts_and_judgements_cost_nothing(ledger: Ledger) -> None:
    task_id = await accepted(ledger)
    await ledger.tasks.record([told(task_id, ReportKind.STARTED, cost=9.0, started_at=NOW, status=TaskStatus.RUNNING)])
    assert await ledger.tenants.spent("acme", NOW) == NOTHING
