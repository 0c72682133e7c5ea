"""`engines tenants`: what each tenant may spend, and its share of busy agents."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .session import Session, command, group
from .tables import show_details, show_rows

app = group("Budgets and weights of tenants.")
COLUMNS = ("name", "weight", "cost", "spent_cost", "tokens", "spent_tokens", "period_ends")
Name = Annotated[str, typer.Argument(help="The tenant's name.", show_default=False)]


@command(app, "list")
async def list_tenants(session: Session) -> None:
    """Tenants with limits, by name."""
    async with session.client() as client:
        page = await client.tenants.list()
    rows = [[one.get(column) for column in COLUMNS] for one in map(_flat, page["items"])]
    session.print(page, lambda: show_rows(COLUMNS, rows, empty="no tenant has limits"))


@command(app, "show")
async def show(session: Session, name: Name) -> None:
    """One tenant: limits, spending, weight."""
    async with session.client() as client:
        answer = await client.tenants.show(name)
    session.print(answer, lambda: show_details(_flat(answer)))


@command(app, "set", epilog="Example: engines tenants set acme --cost 100 --hours 24 --weight 2")
async def put(
    session: Session,
    name: Name,
    cost: Annotated[float | None, typer.Option(min=0, help="Most money in a period.", show_default=False)] = None,
    tokens: Annotated[int | None, typer.Option(min=0, help="Most tokens in a period.", show_default=False)] = None,
    hours: Annotated[int, typer.Option(min=1, max=744, help="Length of a period.")] = 24,
    weight: Annotated[float, typer.Option(min=0.01, max=100, help="Share of busy agents.")] = 1.0,
) -> None:
    """Set a tenant's limits whole: what is not named is unlimited."""
    budget = {"cost": cost, "tokens": tokens, "period_seconds": hours * 3600}
    async with session.client() as client:
        answer = await client.tenants.put(name, budget=budget, weight=weight)
    session.print(answer, lambda: show_details(_flat(answer)))


@command(app, "remove")
async def remove(session: Session, name: Name) -> None:
    """Lift a tenant's limits; what it spent stays."""
    async with session.client() as client:
        await client.tenants.remove(name)
    answer = {"name": name, "removed": True}
    session.print(answer, lambda: show_details(answer))


def _flat(tenant: dict[str, Any]) -> dict[str, Any]:
    return {"name": tenant["name"], "weight": tenant["weight"], **tenant["budget"]}
