"""Reports become rows, are acknowledged after the commit, and are told to whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_engines.domain import subjects
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import Report, ReportBatch, ReportKind, TaskMessage
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.ledger import Verdict
from agent_engines.runtime.broadcasts import batches
from agent_engines.runtime.recorder import UNRECORDABLE
from routing_house import RoutingHouse, settle, until


async def dispatched(house: RoutingHouse, count: int = 1) -> list[TaskMessage]:
    await house.beat("a")
    for _ in range(count):
        await house.submit()
    return await house.queued("a")


class Listener:
    """Everything told on `recorded.<origin>` subjects."""

    def __init__(self) -> None:
        self.told: dict[str, list[Report]] = {}
        self.messages = 0

    async def __call__(self, subject: str, data: bytes) -> None:
        self.messages += 1
        self.told.setdefault(subject, []).extend(msgspec.json.decode(data, type=ReportBatch).reports)


async def listening(house: RoutingHouse) -> Listener:
    listener = Listener()
    await house.bus.signals.listen(subjects.RECORDED, listener)
    return listener


async def test_an_outcome_is_recorded_acknowledged_and_told_to_its_origin() -> None:
    async with RoutingHouse() as house:
        listener = await listening(house)
        (message,) = await dispatched(house)
        await house.recorder.start()
        await house.bus.reports.publish_reports("a", [house.report(message)])
        await until(lambda: listener.messages == 1)
        view = await house.ledger.reader.task(message.task_id)
        assert (view.status, view.result) == (TaskStatus.SUCCESS, "done")
        (told,) = listener.told[subjects.recorded("here")]
        assert (told.task_id, bytes(told.result)) == (message.task_id, b'"done"')
        await house.clock.advance(house.bus.tasks.lease_seconds + 1)
        await settle()
        assert house.recorder.recorded == {Verdict.RECORDED: 1}


async def test_what_ended_is_counted_once_for_its_agent_on_the_router_s_own_page() -> None:
    async with RoutingHouse() as house:
        good, again = await dispatched(house, 2)
        await house.recorder.start()
        await house.bus.reports.publish_reports("a", [house.report(good), house.report(good)])
        retry = house.report(again, TaskStatus.RETRYING, kind=ReportKind.RETRY, retry_at=house.clock.now() + 9)
        await house.bus.reports.publish_reports("a", [retry])
        await until(lambda: house.recorder.recorded.total() == 3)
        await settle()
        assert house.telemetry.done == {("a", "success"): 1}


async def test_only_what_was_recorded_is_told() -> None:
    async with RoutingHouse() as house:
        listener = await listening(house)
        (message,) = await dispatched(house)
        await house.recorder.start()
        await house.bus.reports.publish_reports("a", [house.report(message)])
        await house.bus.reports.publish_reports("a", [house.report(message), house.report(message, replica="r2")])
        await house.bus.reports.publish_reports("a", [house.report(message, TaskStatus.DEAD_LETTER, delivery=2)])
        await until(lambda: house.recorder.recorded.total() == 4)
        assert house.recorder.recorded == {Verdict.RECORDED: 1, Verdict.DUPLICATE: 2, Verdict.STALE: 1}
        await settle()
        assert [len(reports) for reports in listener.told.values()] == [1]


async def test_outcomes_are_grouped_by_origin_and_bad_origins_go_to_nobody() -> None:
    async with RoutingHouse() as house:
        listener = await listening(house)
        one, two, three = await dispatched(house, 3)
        await house.recorder.start()
        reports = [house.report(one), house.report(two, origin="there"), house.report(three, origin="a.b.*")]
        await house.bus.reports.publish_reports("a", reports)
        await until(lambda: listener.messages == 3)
        assert {subject: len(told) for subject, told in listener.told.items()} == {
            subjects.recorded("here"): 1,
            subjects.recorded("there"): 1,
            subjects.recorded("-"): 1,
        }


async def test_a_ledger_that_is_away_is_waited_for_and_nothing_is_acknowledged() -> None:
    async with RoutingHouse() as house:
        (message,) = await dispatched(house)
        record, away = house.ledger.tasks.record, True
        tries = 0

        async def sometimes(reports: Sequence[Report]) -> list[Verdict]:
            nonlocal tries
            tries += 1
            if away:
                raise Unavailable("the ledger is away")
            return await record(reports)

        house.ledger.tasks.record = sometimes  # type: ignore[method-assign]
        await house.recorder.start()
        await house.bus.reports.publish_reports("a", [house.report(message)])
        await until(lambda: tries == 1)
        await house.clock.advance(1.0)
        await until(lambda: tries >= 2)
        assert house.recorder.recorded.total() == 0
        assert "Reports wait for the ledger" in house.telemetry.messages("warning")
        away = False
        await house.clock.advance(10.0)
        await until(lambda: house.recorder.recorded.total() >= 1)
        assert (await house.ledger.reader.task(message.task_id)).status is TaskStatus.SUCCESS


async def test_what_was_committed_without_an_answer_is_told_after_all() -> None:
    async with RoutingHouse() as house:
        (message,) = await dispatched(house)
        record, lost = house.ledger.tasks.record, True

        async def unheard(reports: Sequence[Report]) -> list[Verdict]:
            nonlocal lost
            verdicts = await record(reports)
            if lost:
                lost = False
                raise Unavailable("the connection broke before the answer came")
            return verdicts

        house.ledger.tasks.record = unheard  # type: ignore[method-assign]
        listener = await listening(house)
        await house.recorder.start()
        await house.bus.reports.publish_reports("a", [house.report(message)])
        await until(lambda: not lost)
        await house.clock.advance(10.0)
        await until(lambda: listener.messages == 1)
        assert [told.task_id for told in listener.told[subjects.recorded("here")]] == [message.task_id]
        assert house.recorder.recorded == {Verdict.RECORDED: 1}


async def test_a_stop_while_the_ledger_is_away_hands_the_reports_back() -> None:
    async with RoutingHouse() as house:
        (message,) = await dispatched(house)
        record, tries = house.ledger.tasks.record, 0

        async def away(reports: Sequence[Report]) -> list[Verdict]:
            nonlocal tries
            tries += 1
            raise Unavailable("the ledger is away")

        house.ledger.tasks.record = away  # type: ignore[method-assign]
        await house.recorder.start()
        await house.bus.reports.publish_reports("a", [house.report(message)])
        await until(lambda: tries == 1)
        async with asyncio.timeout(5):
            await house.recorder.stop()
            await house.recorder.stop()
        house.ledger.tasks.record = record  # type: ignore[method-assign]
        inbox = await house.bus.reports.open_reports()
        (delivery,) = await inbox.pull(10, 0.0)
        assert delivery.reports[0].task_id == message.task_id


async def test_a_report_the_ledger_cannot_store_ends_its_task_and_holds_up_nobody() -> None:
    async with RoutingHouse() as house:
        messages = await dispatched(house, 9)
        bad = messages[4].task_id
        record = house.ledger.tasks.record

        async def picky(reports: Sequence[Report]) -> list[Verdict]:
            if any(report.task_id == bad and report.status is TaskStatus.SUCCESS for report in reports):
                raise ValueError("cannot be stored")
            return await record(reports)

        house.ledger.tasks.record = picky  # type: ignore[method-assign]
        await house.recorder.start()
        for at in range(0, 9, 3):
            await house.bus.reports.publish_reports("a", [house.report(one) for one in messages[at : at + 3]])
        await until(lambda: house.recorder.recorded[Verdict.RECORDED] == 9)
        for message in messages:
            view = await house.ledger.reader.task(message.task_id)
            if message.task_id == bad:
                assert view.status is TaskStatus.DEAD_LETTER
                assert view.error is not None
                assert view.error.type == UNRECORDABLE
            else:
                assert view.status is TaskStatus.SUCCESS


async def test_a_report_nobody_can_store_is_logged_and_left_behind() -> None:
    async with RoutingHouse() as house:
        good, bad = await dispatched(house, 2)
        record = house.ledger.tasks.record

        async def picky(reports: Sequence[Report]) -> list[Verdict]:
            if any(report.task_id == bad.task_id for report in reports):
                raise ValueError("cannot be stored")
            return await record(reports)

        house.ledger.tasks.record = picky  # type: ignore[method-assign]
        await house.recorder.start()
        await house.bus.reports.publish_reports("a", [house.report(bad), house.report(good)])
        await until(lambda: house.recorder.recorded[Verdict.RECORDED] == 1)
        assert (await house.ledger.reader.task(good.task_id)).status is TaskStatus.SUCCESS
        assert "A report cannot be recorded" in house.telemetry.messages("error")


async def test_under_load_many_messages_share_one_commit() -> None:
    async with RoutingHouse() as house:
        messages = await dispatched(house, 400)
        sizes: list[int] = []
        record = house.ledger.tasks.record

        async def counted(reports: Sequence[Report]) -> list[Verdict]:
            sizes.append(len(reports))
            return await record(reports)

        house.ledger.tasks.record = counted  # type: ignore[method-assign]
        for at in range(0, 400, 4):
            await house.bus.reports.publish_reports("a", [house.report(one) for one in messages[at : at + 4]])
        await house.recorder.start()
        await settle()
        await house.clock.advance(0.021)
        await until(lambda: house.recorder.recorded.total() == 400)
        assert sizes == [200, 200]


async def test_a_busy_recorder_waits_twenty_milliseconds_for_more_and_an_idle_one_does_not() -> None:
    async with RoutingHouse() as house:
        messages = await dispatched(house, 80)
        await house.recorder.start()
        await house.bus.reports.publish_reports("a", [house.report(one) for one in messages[:40]])
        await until(lambda: house.recorder.recorded.total() == 40)
        await house.bus.reports.publish_reports("a", [house.report(one) for one in messages[40:79]])
        await settle()
        assert house.recorder.recorded.total() == 40
        await house.clock.advance(0.021)
        await until(lambda: house.recorder.recorded.total() == 79)
        await house.clock.advance(0.1)
        await house.bus.reports.publish_reports("a", [house.report(messages[79])])
        await settle()
        await house.clock.advance(0.021)
        await until(lambda: house.recorder.recorded.total() == 80)


async def test_a_retry_arms_the_redispatcher() -> None:
    async with RoutingHouse() as house:
        armed: list[float] = []
        house.recorder._on_retry = armed.append
        one, two = await dispatched(house, 2)
        await house.recorder.start()
        await house.bus.reports.publish_reports("a", [house.retry(one, 9.0), house.retry(two, 5.0)])
        await until(lambda: bool(armed))
        assert armed == [house.clock.now() + 5.0]
        assert (await house.ledger.reader.task(one.task_id)).status is TaskStatus.RETRYING


async def test_a_bus_without_signals_costs_only_the_signal() -> None:
    async with RoutingHouse() as house:
        (message,) = await dispatched(house)

        async def away(subject: str, data: bytes) -> None:
            raise Unavailable("the bus is away")

        house.bus.signals.send = away  # type: ignore[method-assign]
        await house.recorder.start()
        await house.bus.reports.publish_reports("a", [house.report(message)])
        await until(lambda: house.recorder.recorded.total() == 1)
        assert (await house.ledger.reader.task(message.task_id)).status is TaskStatus.SUCCESS


def report_of(size: int, number: int) -> Report:
    result = msgspec.Raw(msgspec.json.encode("x" * size))
    return Report(kind=ReportKind.FINAL, task_id=f"t{number}", request_id="r", task_type="x", agent="a", result=result)


@settings(deadline=None)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=40))
def test_batches_keep_every_report_in_order_and_fit_the_bus(sizes: list[int]) -> None:
    reports = [report_of(size, number) for number, size in enumerate(sizes)]
    messages = batches(reports, 1500)
    found = [report for data in messages for report in msgspec.json.decode(data, type=ReportBatch).reports]
    assert [report.task_id for report in found] == [report.task_id for report in reports]
    assert all(bytes(a.result) == bytes(b.result) for a, b in zip(found, reports, strict=True))
    assert max(len(data) for data in messages) <= 1500


def test_a_report_too_large_for_the_bus_travels_without_its_result() -> None:
    (data,) = batches([report_of(5000, 1)], 1500)
    (found,) = msgspec.json.decode(data, type=ReportBatch).reports
    assert found.task_id == "t1"
    assert bytes(found.result) == b"null"
