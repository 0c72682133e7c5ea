"""Batches of reports as bytes: none too large, nothing twice, named by what they say."""

from __future__ import annotations

import msgspec

from agent_engines.adapters import wire
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import TaskStatus


def final(number: int, *, result: bytes = b"null", capability: str = "mac") -> Report:
    return Report(
        kind=ReportKind.FINAL,
        task_id=f"t{number}",
        request_id=f"r{number}",
        task_type="work",
        agent="worker",
        status=TaskStatus.SUCCESS,
        result=msgspec.Raw(result),
        capability=capability,
    )


def test_a_batch_over_the_limit_goes_in_parts_that_are_under_it_and_each_report_goes_once() -> None:
    reports = [final(number, result=b'"%b"' % (b"x" * number)) for number in range(300)]
    messages = list(wire.report_messages(reports, 10_000))
    assert all(len(raw) <= 10_000 for _, raw in messages)
    told = [report for _, raw in messages for report in wire.decode_reports(raw)]
    assert msgspec.json.encode(told) == msgspec.json.encode(reports)
    assert len({message_id for message_id, _ in messages}) == len(messages)


def test_one_report_over_the_limit_travels_alone() -> None:
    large = final(1, result=b'"%b"' % (b"x" * 20_000))
    sizes = [len(wire.decode_reports(raw)) for _, raw in wire.report_messages([final(0), large, final(2)], 10_000)]
    assert sizes == [1, 1, 1]
    assert list(wire.report_messages([], 10_000)) == []


def test_the_same_batch_has_the_same_name_and_a_forged_one_another() -> None:
    (name, _), (again, _), (forged, _) = (
        next(wire.report_messages([final(1), final(2, capability=mark)], 10_000)) for mark in ("mac", "mac", "forged")
    )
    assert name == again != forged
