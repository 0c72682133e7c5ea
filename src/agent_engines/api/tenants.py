"""Tenant routes: what each tenant may spend, has spent, and its share of busy agents."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from agent_engines.domain.budgets import DAY, HOUR, LONGEST_PERIOD, Account, TenantLimits
from agent_engines.domain.terms import MOST_COST, MOST_TOKENS
from agent_engines.domain.validation import decode_json
from agent_engines.ports.clock import Clock
from agent_engines.ports.service import IntelligenceService

from .exchange import Call, Reply, json_reply
from .limits import ApiLimits
from .models import Listing
from .routing import Operation
from .tasks import JSON
from .times import iso_always

PATH = "/v1/tenants/{tenant}"


class BudgetSubmission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tenant may spend in each period; null or left out: no bound."""

    cost: Annotated[float, Meta(ge=0, le=MOST_COST, description="in the fleet's currency")] | None = None
    tokens: Annotated[int, Meta(ge=0, le=MOST_TOKENS)] | None = None
    period_seconds: Annotated[
        int, Meta(ge=HOUR, le=LONGEST_PERIOD, multiple_of=HOUR, description="whole hours, at most 31 days")
    ] = DAY


class TenantSubmission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant's limits, whole: what is left out is unlimited."""

    budget: BudgetSubmission = BudgetSubmission()
    weight: Annotated[float, Meta(ge=0.01, le=100, description="its share of agents that have too much to do")] = 1.0


class BudgetBody(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and spending of the present period."""

    cost: float | None
    tokens: int | None
    period_seconds: float
    spent_cost: float
    spent_tokens: int
    period_began: str
    period_ends: str


class TenantBody(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as it stands now."""

    name: str
    weight: float
    budget: BudgetBody

    @classmethod
    def of(cls, account: Account, now: float) -> TenantBody:
        limits = account.limits
        began, ends = limits.period(now)
        budget = BudgetBody(
            cost=limits.cost,
            tokens=limits.tokens,
            period_seconds=limits.period_seconds,
            spent_cost=account.spent.cost,
            spent_tokens=account.spent.tokens,
            period_began=iso_always(began),
            period_ends=iso_always(ends),
        )
        return cls(name=limits.name, weight=limits.weight, budget=budget)


_decode = msgspec.json.Decoder(TenantSubmission).decode


class TenantRoutes:
    """Everything under /v1/tenants."""

    def __init__(self, service: IntelligenceService, limits: ApiLimits, clock: Clock) -> None:
        self._service = service
        self._limits = limits
        self._clock = clock

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/tenants",
                handler=self.list,
                summary="Tenants with limits, by name",
                tag="tenants",
                replies={200: Listing[TenantBody]},
                problems=(406, 503),
            ),
            Operation(
                method="GET",
                path=PATH,
                handler=self.show,
                summary="One tenant: limits, spending, weight",
                tag="tenants",
                replies={200: TenantBody},
                problems=(404, 406, 503),
            ),
            Operation(
                method="PUT",
                path=PATH,
                handler=self.put,
                summary="Set a tenant's limits and weight, whole",
                tag="tenants",
                body=TenantSubmission,
                replies={200: TenantBody},
                problems=(400, 403, 404, 406, 408, 413, 415, 422, 503),
            ),
            Operation(
                method="DELETE",
                path=PATH,
                handler=self.remove,
                summary="Lift a tenant's limits; what it spent stays",
                tag="tenants",
                replies={204: None},
                problems=(403, 404, 406, 503),
            ),
        ]

    async def list(self, call: Call) -> Reply:
        call.accept(JSON)
        now = self._clock.now()
        found = await self._service.tenants.accounts()
        return json_reply(200, Listing([TenantBody.of(account, now) for account in found], None))

    async def show(self, call: Call) -> Reply:
        call.accept(JSON)
        return self._told(await self._service.tenants.account(call.params["tenant"]))

    async def put(self, call: Call) -> Reply:
        call.accept(JSON)
        wanted = decode_json(await call.body(self._limits.body_bytes), _decode)
        limits = TenantLimits(
            name=call.params["tenant"],
            cost=wanted.budget.cost,
            tokens=wanted.budget.tokens,
            period_seconds=wanted.budget.period_seconds,
            weight=wanted.weight,
        )
        return self._told(await self._service.tenants.put(limits))

    async def remove(self, call: Call) -> Reply:
        call.accept(JSON)
        await self._service.tenants.remove(call.params["tenant"])
        return Reply(204)

    def _told(self, account: Account) -> Reply:
        return json_reply(200, TenantBody.of(account, self._clock.now()))
