"""Engines that connect by themselves close what they opened, all of it, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_engines import Engine
from agent_engines.adapters.clock import SystemClock
from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.adapters.telemetry.log_line import json_line
from agent_engines.adapters.telemetry.log_sink import LogSink
from agent_engines.adapters.telemetry.logging import Outlet
from agent_engines.adapters.telemetry.telemetry import ProcessTelemetry
from agent_engines.adapters.telemetry.tracing import PassingTracer
from agent_engines.config import Config
from agent_engines.domain.errors import Conflict
from agent_engines.ports.connections import Connections


class KeptTracer(PassingTracer):
    """Says when the last spans would have been sent."""

    def __init__(self) -> None:
        self.shut = 0

    def shutdown(self) -> None:
        self.shut += 1


class ClosableBus(MemoryBus):
    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1
        await super().close()


class Own(Engine):
    """Opens a bus in memory, a new one each time."""

    def __init__(self, folder: Path) -> None:
        super().__init__("own")
        self.buses: list[ClosableBus] = []
        self.tracer = KeptTracer()
        self._sink = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)

    async def connect(self, config: Config) -> Connections:
        self.buses.append(ClosableBus())
        outlet = Outlet(20, json_line, LogSink(self._sink))
        telemetry = ProcessTelemetry(outlet, self.tracer, metrics=None, strict=True)
        return Connections(bus=self.buses[-1], telemetry=telemetry, clock=SystemClock())


async def test_what_was_opened_is_closed_and_the_last_spans_are_sent(tmp_path: Path) -> None:
    engine = Own(tmp_path)
    await engine.start()
    assert (engine.buses[0].closed, engine.tracer.shut) == (0, 0)
    await engine.stop(0.0)
    await engine.stop(0.0)
    assert (engine.buses[0].closed, engine.tracer.shut) == (1, 1)


async def test_a_refused_second_start_closes_its_own_and_the_first_still_closes_everything(tmp_path: Path) -> None:
    engine = Own(tmp_path)
    await engine.start()
    with pytest.raises(Conflict):
        await engine.start()
    assert [bus.closed for bus in engine.buses] == [0, 1]
    assert (await engine.ready()).status == "ready"
    await engine.stop(0.0)
    assert [bus.closed for bus in engine.buses] == [1, 1]


async def test_connections_that_were_given_stay_open(tmp_path: Path) -> None:
    engine, bus = Own(tmp_path), ClosableBus()
    given = Connections(bus=bus, telemetry=NullTelemetry(), clock=SystemClock())
    await engine.start(given)
    await engine.stop(0.0)
    assert (bus.closed, engine.buses) == (0, [])
    await bus.close()
