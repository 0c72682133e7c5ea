"""A report counts only with the capability of the dispatch it is about."""

from __future__ import annotations

from typing import Any

import pytest

from agent_engines.domain import subjects
from agent_engines.domain.capability import Capabilities, Flaw
from agent_engines.domain.messages import Report, ReportKind, TaskMessage
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.bus import ReportDelivery
from agent_engines.ports.ledger import Verdict
from agent_engines.runtime.report_gate import QUIET_SECONDS, ReportGate
from routing_house import RoutingHouse, settle, until

FORGERIES: dict[str, tuple[dict[str, Any], Flaw]] = {
    "without a mark": ({"capability": ""}, Flaw.MISSING),
    "with a made-up mark": ({"capability": "00000000." + "0" * 32}, Flaw.UNKNOWN_KEY),
    "with a mark of another length": ({"capability": "x"}, Flaw.UNKNOWN_KEY),
    "for another generation": ({"generation": 2}, Flaw.FORGED),
    "in another agent's name": ({"agent": "b"}, Flaw.FORGED),
    "in nobody's name": ({"agent": None}, Flaw.FORGED),
}


async def dispatched(house: RoutingHouse, count: int = 1) -> list[TaskMessage]:
    await house.beat("a")
    for _ in range(count):
        await house.submit()
    return await house.queued("a")


async def tell(house: RoutingHouse, *reports: Report) -> None:
    await house.bus.reports.publish_reports("a", list(reports))


@pytest.mark.parametrize(("changes", "flaw"), FORGERIES.values(), ids=FORGERIES)
async def test_a_forged_report_is_not_recorded_but_counted_and_acknowledged(
    changes: dict[str, Any], flaw: Flaw
) -> None:
    async with RoutingHouse() as house:
        (message,) = await dispatched(house)
        await house.recorder.start()
        await tell(house, house.report(message, **changes))
        await until(lambda: house.telemetry.counts["reports_refused_total"] == 1)
        await tell(house, house.report(message))
        await until(lambda: house.recorder.recorded.total() == 1)
        assert house.recorder.recorded == {Verdict.RECORDED: 1}
        warnings = [line for line in house.telemetry.lines if line.message.startswith("Security:")]
        assert [line.context["reason"] for line in warnings] == [str(flaw)]
        await house.clock.advance(house.bus.tasks.lease_seconds + 1)
        await settle()
        assert house.telemetry.counts["reports_refused_total"] == 1, "it does not come again"


async def test_a_mark_does_not_serve_another_task() -> None:
    async with RoutingHouse() as house:
        one, two = await dispatched(house, 2)
        await house.recorder.start()
        await tell(house, house.report(two, capability=one.capability), house.report(one))
        await until(lambda: house.recorder.recorded.total() == 1)
        statuses = [(await house.ledger.reader.task(message.task_id)).status for message in (one, two)]
        assert statuses == [TaskStatus.SUCCESS, TaskStatus.QUEUED]


async def test_every_dispatch_has_a_mark_of_its_own() -> None:
    async with RoutingHouse() as house:
        (first,) = await dispatched(house)
        await house.ledger.tasks.record([house.retry(first, 0.1)])
        await house.redispatcher.start()
        await house.clock.advance(1.1)
        (second,) = await house.queued("a")
        assert second.generation == 2
        assert first.capability
        assert first.capability != second.capability
        await house.recorder.start()
        await tell(house, house.report(second, capability=first.capability))
        await until(lambda: house.telemetry.counts["reports_refused_total"] == 1)
        await tell(house, house.report(second))
        await until(lambda: house.recorder.recorded[Verdict.RECORDED] == 1)


async def test_a_late_success_is_recorded_and_counted_as_late() -> None:
    async with RoutingHouse() as house:
        (first,) = await dispatched(house)
        await house.ledger.tasks.claim_stranded(house.clock.now() + 100, 1)
        await house.recorder.start()
        await tell(house, house.report(first), house.report(first, TaskStatus.FAILED, delivery=2))
        await until(lambda: house.recorder.recorded.total() == 2)
        assert house.recorder.recorded == {Verdict.LATE: 1, Verdict.STALE: 1}
        assert (await house.ledger.reader.task(first.task_id)).status is TaskStatus.SUCCESS


async def test_a_flood_of_forgeries_does_not_flood_the_log() -> None:
    async with RoutingHouse() as house:
        messages = await dispatched(house, 3)
        gate = ReportGate(Capabilities([b"k" * 32]), clock=house.clock, telemetry=house.telemetry)

        def forgeries() -> list[ReportDelivery]:
            return [ReportDelivery(tuple(house.report(message) for message in messages), 7)]

        for _ in range(100):
            assert gate.admitted(forgeries()) == [ReportDelivery((), 7)]
        await house.clock.advance(QUIET_SECONDS)
        gate.admitted(forgeries())
        told = [line.context["unlogged_since_last"] for line in house.telemetry.lines if "Security" in line.message]
        assert told == [0, 299]
        assert gate.refused == {Flaw.UNKNOWN_KEY: 303}


async def test_what_is_told_on_carries_no_mark() -> None:
    """Whoever hears that an attempt has started could otherwise end it."""
    async with RoutingHouse() as house:
        told: list[bytes] = []

        async def hear(_: str, data: bytes) -> None:
            told.append(data)

        await house.bus.signals.listen(subjects.RECORDED, hear)
        (message,) = await dispatched(house)
        await house.recorder.start()
        await tell(house, house.report(message, kind=ReportKind.STARTED, status=TaskStatus.RUNNING))
        await until(lambda: len(told) == 1)
        assert message.task_id.encode() in told[0]
        assert message.capability.encode() not in told[0]
