"""What the reporter and a starting worker do with a spool."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from engine_bench import Bench

from agent_engines.adapters.memory.spool import MemoryOrphan, MemorySpool, Shelf
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain.errors import TooLarge, Unavailable
from agent_engines.domain.messages import Report, ReportKind, TaskMessage
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.bus import Delivery
from agent_engines.ports.spool import Spooled
from agent_engines.runtime.attempt import Attempt, Key
from agent_engines.runtime.reporter import Reporter
from agent_engines.runtime.spooling import Adoption

MESSAGE = TaskMessage(task_id="t", request_id="r", task_type="work", agent="a")


def final(task_id: str) -> Report:
    return Report(
        kind=ReportKind.FINAL,
        task_id=task_id,
        request_id="r",
        task_type="work",
        agent="a",
        status=TaskStatus.SUCCESS,
        result=msgspec.Raw(b"null"),
    )


class Line:
    """A report bus that is away or not, and an inbox that remembers what was acknowledged."""

    def __init__(self) -> None:
        self.away = True
        self.mute = False
        self.refused = asyncio.Event()
        self.messages: list[list[str]] = []
        self.acked: list[object] = []
        self.too_large: set[str] = set()

    async def publish_reports(self, agent: str, reports: Sequence[Report]) -> None:
        if self.mute:
            self.refused.set()
            await asyncio.Event().wait()
        if self.away:
            self.refused.set()
            raise Unavailable("away")
        if any(report.task_id in self.too_large for report in reports):
            raise TooLarge("too much")
        self.messages.append([report.task_id for report in reports])

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.acked.extend(delivery.token for delivery in deliveries)


class Desk:
    def __init__(self, *, max_reports: int = 100, shelf: Shelf | None = None) -> None:
        self.line = Line()
        self.shelf = shelf or Shelf()
        self.settled: list[str] = []
        self.reporter = Reporter(
            self.line,  # type: ignore[arg-type]
            "a",
            settle=self._settle,
            telemetry=NullTelemetry(),
            rng=random.Random(1),
            spool=MemorySpool(self.shelf, max_reports=max_reports),
        )

    def put(self, task_id: str) -> None:
        message = msgspec.structs.replace(MESSAGE, task_id=task_id)
        self.reporter.put(final(task_id), Attempt(message, Delivery(message, 1, b"ack." + task_id.encode())))

    async def until(self, look: object) -> None:
        async with asyncio.timeout(30):
            while not look():  # type: ignore[operator]
                await asyncio.sleep(0.005)

    @property
    def kept(self) -> list[list[str]]:
        return [[one.report.task_id for one in group] for box in self.shelf.boxes for group in box.groups]

    async def _settle(self, attempts: list[Attempt]) -> None:
        self.settled.extend(attempt.message.task_id for attempt in attempts)


async def test_nothing_is_kept_while_the_bus_answers() -> None:
    desk = Desk()
    desk.line.away = False
    for number in range(50):
        desk.put(f"t{number}")
    assert await desk.reporter.close(1.0) == 0
    assert desk.shelf.boxes == []
    assert len(desk.settled) == 50


async def test_what_the_bus_does_not_take_is_kept_until_it_does_and_acknowledged_only_then() -> None:
    desk = Desk()
    desk.put("t1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    desk.put("t2")
    await desk.line.refused.wait()
    desk.put("t3")
    desk.reporter.put(final("announced"), None)
    await desk.until(lambda: sum(map(len, desk.kept)) == 3)
    # What was under way is a group of its own: sent again, by whomever, it is the same message.
    assert desk.kept[0] == ["t1"]
    assert sorted(name for group in desk.kept for name in group) == ["t1", "t2", "t3"]
    assert desk.settled == []
    assert desk.reporter.refused_seconds > 0
    desk.line.away = False
    await desk.until(lambda: desk.shelf.boxes == [])
    assert desk.line.messages == [["t1"], ["t2", "t3", "announced"]]
    assert desk.settled == ["t1", "t2", "t3"]
    assert desk.reporter.refused_seconds == 0
    assert await desk.reporter.close(1.0) == 0


async def test_what_was_given_up_at_the_end_stays_in_the_spool_with_what_waited_behind_it() -> None:
    desk = Desk()
    desk.put("t1")
    await desk.line.refused.wait()
    for number in range(2, 6):
        desk.put(f"t{number}")
    assert await desk.reporter.close(0.2) == 5
    assert sorted(name for group in desk.kept for name in group) == ["t1", "t2", "t3", "t4", "t5"]
    assert desk.settled == []


async def test_a_bus_that_never_answers_is_not_waited_for_at_the_end_and_what_it_was_offered_is_kept() -> None:
    desk = Desk()
    desk.line.mute = True
    desk.put("t1")
    await desk.line.refused.wait()
    desk.put("t2")
    async with asyncio.timeout(30):
        assert await desk.reporter.close(0.1) == 2
    assert desk.kept == [["t1"], ["t2"]]
    assert desk.settled == []


async def test_a_full_spool_stops_intake_until_there_is_room_again() -> None:
    desk = Desk(max_reports=2)
    relieved = asyncio.Event()
    desk.reporter.on_relief = relieved.set
    for number in range(3):
        desk.put(f"t{number}")
    await desk.until(lambda: desk.reporter.congested)
    desk.line.away = False
    await asyncio.wait_for(relieved.wait(), 30)
    assert not desk.reporter.congested
    assert desk.settled == ["t0", "t1", "t2"]
    await desk.reporter.close(1.0)


async def test_a_disk_that_refuses_stops_intake_too() -> None:
    desk = Desk(shelf=Shelf(writable=False))
    desk.put("t1")
    await desk.until(lambda: desk.reporter.congested)
    desk.line.away = False
    await desk.until(lambda: not desk.reporter.congested)
    assert desk.settled == ["t1"]
    await desk.reporter.close(1.0)


async def test_a_second_outage_keeps_again_what_is_still_needed() -> None:
    desk = Desk()
    desk.put("t1")
    await desk.until(lambda: desk.kept == [["t1"]])
    desk.line.away = False
    await desk.until(lambda: desk.shelf.boxes == [])
    desk.line.away = True
    desk.put("t2")
    await desk.until(lambda: desk.kept == [["t2"]])
    assert await desk.reporter.close(0.1) == 1
    assert desk.kept == [["t2"]]
    assert not desk.shelf.boxes[0].owned


async def left_behind(*groups: list[str]) -> Shelf:
    """What a dead replica kept."""
    spool = MemorySpool(Shelf())
    for group in groups:
        await spool.keep([Spooled(final(name), b"ack." + name.encode()) for name in group])
    await spool.close()
    return spool.shelf


def adoption(shelf: Shelf, line: Line, told: list[Key]) -> Adoption:
    return Adoption(
        MemorySpool(shelf),
        line,  # type: ignore[arg-type]
        line,  # type: ignore[arg-type]
        agent="a",
        log=NullTelemetry().log("a"),
        told=told.extend,
    )


async def test_what_a_dead_replica_kept_is_told_in_its_groups_then_acknowledged_then_forgotten() -> None:
    shelf, line, told = await left_behind(["t1", "t2"], ["t3"]), Line(), list[Key]()
    line.away = False
    await adoption(shelf, line, told).start()
    assert line.messages == [["t1", "t2"], ["t3"]]
    assert line.acked == [b"ack.t1", b"ack.t2", b"ack.t3"]
    assert told == [("t1", 1), ("t2", 1), ("t3", 1)]
    assert shelf.boxes == []


async def test_what_the_bus_does_not_take_stays_for_the_next_try() -> None:
    shelf, line, told = await left_behind(["t1"]), Line(), list[Key]()
    one = adoption(shelf, line, told)
    one.look()
    await line.refused.wait()
    await one.stop()
    assert [len(kept.groups) for kept in shelf.boxes] == [1]
    assert told == []
    line.away = False
    await adoption(shelf, line, told).start()
    assert line.messages == [["t1"]]
    assert shelf.boxes == []


async def test_a_spool_that_cannot_be_read_keeps_no_other_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, line, told = Shelf(), Line(), list[Key]()
    line.away = False
    for name in ("newer", "t1"):
        shelf.boxes.extend((await left_behind([name])).boxes)
    newer, read = shelf.boxes[0], MemoryOrphan.read

    async def sometimes(orphan: MemoryOrphan) -> tuple[Spooled, ...] | None:
        if orphan._box is newer:
            raise Unavailable("written by a newer release")
        return await read(orphan)

    monkeypatch.setattr(MemoryOrphan, "read", sometimes)
    one = adoption(shelf, line, told)
    one.look()
    async with asyncio.timeout(5):
        while len(shelf.boxes) > 1 or newer.owned:
            await asyncio.sleep(0)
    await one.stop()
    assert line.messages == [["t1"]]
    assert shelf.boxes == [newer]


async def test_a_report_the_bus_refuses_is_not_acknowledged_and_holds_up_no_other() -> None:
    shelf, line, told = await left_behind(["t1", "huge", "t2"]), Line(), list[Key]()
    line.away, line.too_large = False, {"huge"}
    await adoption(shelf, line, told).start()
    assert line.messages == [["t1"], ["t2"]]
    assert line.acked == [b"ack.t1", b"ack.t2"]
    assert [key[0] for key in told] == ["t1", "t2"]
    assert shelf.boxes == []


async def test_work_finished_during_an_outage_is_told_by_the_next_start_and_not_run_again() -> None:
    shelf, ran = Shelf(), list[str]()

    def bench(lease_seconds: float) -> Bench:
        made = Bench(lease_seconds=lease_seconds)

        @made.engine.task("work")
        async def work() -> str:
            ran.append("run")
            made.bus.switch(False)
            return "done"

        return made

    async with bench(1.0) as first, bench(1.0) as second:
        await first.engine.start(replace(first.connections, spool=MemorySpool(shelf)))
        await first.send("t1")
        async with asyncio.timeout(30):
            while not shelf.boxes:
                await asyncio.sleep(0.01)
        await first.engine.stop(0.0)
        assert len(shelf.boxes) == 1
        first.bus.switch(True)
        await second.engine.start(replace(first.connections, spool=MemorySpool(shelf)))
        report = await first.report("t1")
        # It comes again when the dead replica's lease ends, and is recognised.
        await first.empty()
        await second.engine.stop(1.0)
    assert ran == ["run"]
    assert first.status_of("t1") == ["success"]
    assert bytes(report.result) == b'"done"'
    assert shelf.boxes == []
