"""Schedules as a program sees them: `await client.schedules.add("nightly", "30 2 * * *", "report")`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from .transport import Transport

Answer = dict[str, Any]


class Schedules:
    """Answers are the JSON of the HTTP API (docs/guides/schedules.md); errors are the domain's."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, limit: int = 50, cursor: str | None = None) -> Answer:
        """A page by name: `items`, `next_cursor`."""
        return await self._transport.read("schedules", {"limit": limit, "cursor": cursor})

    async def show(self, name: str) -> Answer:
        """Raises NotFound."""
        return await self._transport.read(f"schedules/{_part(name)}")

    async def add(  # noqa: PLR0913 - the caller's words for one schedule, all but three with defaults
        self,
        name: str,
        cron: str,
        task_type: str,
        payload: Any = None,
        *,
        timezone: str = "UTC",
        enabled: bool = True,
        catch_up: str = "skip",
        replace: bool = False,
        **task: Any,
    ) -> Answer:
        """Make a schedule; `task`: what `Client.submit` takes besides, of its tasks (priority, metadata, strategy, tenant, budget, ...).

        Raises Conflict when the name is taken, unless it shall `replace`; InvalidRequest naming the field.
        """
        body: dict[str, Any] = {
            "cron": cron,
            "timezone": timezone,
            "enabled": enabled,
            "catch_up": catch_up,
            "task": {"task_type": task_type, "payload": payload, **task},
        }
        if replace:
            return await self._transport.change("PUT", f"schedules/{_part(name)}", body)
        return await self._transport.change("POST", "schedules", {"name": name, **body})

    async def remove(self, name: str) -> None:
        """Tasks it has made stay. Raises NotFound."""
        await self._transport.change("DELETE", f"schedules/{_part(name)}")

    async def pause(self, name: str) -> Answer:
        """Raises NotFound."""
        return await self._transport.change("POST", f"schedules/{_part(name)}:pause")

    async def resume(self, name: str) -> Answer:
        """What passed meanwhile is not made up for. Raises NotFound."""
        return await self._transport.change("POST", f"schedules/{_part(name)}:resume")

    async def run(self, name: str) -> Answer:
        """Make one task now; its acceptance. Raises NotFound and what a submission raises."""
        return await self._transport.change("POST", f"schedules/{_part(name)}:run")


class SyncSchedules:
    """The same, blocking."""

    def __init__(self, schedules: Schedules, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._schedules = schedules
        self._run = run

    def list(self, **options: Any) -> Answer:
        return self._run(self._schedules.list(**options))

    def show(self, name: str) -> Answer:
        return self._run(self._schedules.show(name))

    def add(self, name: str, cron: str, task_type: str, payload: Any = None, **options: Any) -> Answer:
        return self._run(self._schedules.add(name, cron, task_type, payload, **options))

    def remove(self, name: str) -> None:
        self._run(self._schedules.remove(name))

    def pause(self, name: str) -> Answer:
        return self._run(self._schedules.pause(name))

    def resume(self, name: str) -> Answer:
        return self._run(self._schedules.resume(name))

    def run(self, name: str) -> Answer:
        return self._run(self._schedules.run(name))


def _part(name: str) -> str:
    return quote(name, safe="")
