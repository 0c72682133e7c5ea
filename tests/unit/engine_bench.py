"""A bench for engines: the memory bus, the system's clock, telemetry that remembers, and reports read back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain import subjects
from agent_engines.domain.messages import CancelOrder, Heartbeat, Report, ReportKind, TaskMessage
from agent_engines.ports.bus import ReportInbox
from agent_engines.ports.connections import Connections
from agent_engines.runtime.engine import AgentConfig, Engine
from agent_engines.runtime.intake import Intake

PATIENCE_SECONDS = 15.0


class Bench:
    """One engine named `worker` on a bus of its own."""

    def __init__(self, *, lease_seconds: float = 30.0, **config: Any) -> None:
        self.bus = MemoryBus(lease_seconds=lease_seconds)
        self.telemetry = NullTelemetry()
        self.clock = SystemClock()
        self.engine = Engine(AgentConfig("worker", **config))
        self.heartbeats: list[Heartbeat] = []
        self.reports: list[Report] = []
        self._inbox: ReportInbox | None = None

    @property
    def connections(self) -> Connections:
        return Connections(bus=self.bus, telemetry=self.telemetry, clock=self.clock)

    async def __aenter__(self) -> Bench:
        self._usual, Intake.listen_seconds = Intake.listen_seconds, 0.1
        await self.bus.signals.listen(subjects.heartbeat("worker"), self._heard)
        self._inbox = await self.bus.reports.open_reports()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.bus.switch(True)
        await self.engine.stop(0.0)
        await self.bus.close()
        Intake.listen_seconds = self._usual

    async def start(self) -> None:
        await self.engine.start(self.connections)

    async def send(self, task_id: str, task_type: str = "work", payload: Any = None, **fields: Any) -> TaskMessage:
        """Publish one task to the engine."""
        message = TaskMessage(
            task_id=task_id,
            request_id=f"request-{task_id}",
            task_type=task_type,
            agent="worker",
            payload=msgspec.Raw(msgspec.json.encode(payload)),
            origin="bench",
            **fields,
        )
        await self.bus.tasks.publish_task(message)
        return message

    async def cancel(self, *task_ids: str, at: float = 0.0) -> None:
        order = CancelOrder(task_ids=task_ids, at=at)
        await self.bus.signals.send(subjects.cancel("worker"), msgspec.json.encode(order))

    async def report(self, task_id: str, kind: ReportKind | None = None) -> Report:
        """The first report about a task (of that kind), as soon as it is there; by default the one that ended its attempt."""

        def found() -> Report | None:
            for report in self.reports:
                ends = report.kind is not ReportKind.STARTED if kind is None else report.kind is kind
                if report.task_id == task_id and ends:
                    return report
            return None

        return await self.until(found)

    async def until(self, look: Callable[[], Any]) -> Any:
        """Wait until `look` finds something, reading reports meanwhile."""
        assert self._inbox is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (found := look()):
                if not self.bus.connected:
                    await asyncio.sleep(0.005)
                    continue
                for delivery in await self._inbox.pull(100, 0.01):
                    self.reports.extend(delivery.reports)
                    await self._inbox.ack([delivery])
        return found

    async def empty(self) -> None:
        """Wait until the engine's queue on the bus is empty: everything acknowledged."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.bus.tasks.backlog("worker"):
                await asyncio.sleep(0.005)

    def status_of(self, task_id: str) -> list[str]:
        return [
            str(one.status) for one in self.reports if one.task_id == task_id and one.kind is not ReportKind.STARTED
        ]

    async def _heard(self, subject: str, data: bytes) -> None:
        self.heartbeats.append(msgspec.json.decode(data, type=Heartbeat))
