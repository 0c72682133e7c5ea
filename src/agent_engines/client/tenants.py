"""Tenants as a program sees them: `await client.tenants.put("acme", budget={"cost": 100.0}, weight=2)`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from .transport import Transport

Answer = dict[str, Any]


class Tenants:
    """Answers are the JSON of the HTTP API (docs/guides/budgets.md); errors are the domain's."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self) -> Answer:
        """Tenants with limits: `items`."""
        return await self._transport.read("tenants")

    async def show(self, name: str) -> Answer:
        """Limits, spending and weight; a tenant without limits has spending all the same."""
        return await self._transport.read(f"tenants/{_part(name)}")

    async def put(self, name: str, *, budget: Answer | None = None, weight: float = 1.0) -> Answer:
        """Set its limits whole: `budget` has cost, tokens, period_seconds. Raises InvalidRequest naming the field."""
        body = {"budget": budget or {}, "weight": weight}
        return await self._transport.change("PUT", f"tenants/{_part(name)}", body)

    async def remove(self, name: str) -> None:
        """Lift its limits. Raises NotFound."""
        await self._transport.change("DELETE", f"tenants/{_part(name)}")


class SyncTenants:
    """The same methods, blocking."""

    def __init__(self, tenants: Tenants, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._tenants = tenants
        self._run = run

    def list(self) -> Answer:
        return self._run(self._tenants.list())

    def show(self, name: str) -> Answer:
        return self._run(self._tenants.show(name))

    def put(self, name: str, *, budget: Answer | None = None, weight: float = 1.0) -> Answer:
        """See Tenants.put."""
        return self._run(self._tenants.put(name, budget=budget, weight=weight))

    def remove(self, name: str) -> None:
        self._run(self._tenants.remove(name))


def _part(name: str) -> str:
    return quote(name, safe="")
