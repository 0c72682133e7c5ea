"""One breaker for each server a process depends on: opens after failures in a row, one probe at a time, recovery."""

from __future__ import annotations

from random import Random

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.adapters.telemetry.guarded_exporter import RULE as EXPORT_RULE
from agent_engines.adapters.telemetry.guarded_exporter import GuardedExporter
from agent_engines.domain.breaker import BreakerRule
from agent_engines.runtime.dependency import METRIC, RULE, Dependency


class Place:
    def __init__(self, rule: BreakerRule = RULE) -> None:
        self.clock = ManualClock()
        self.telemetry = NullTelemetry()
        self.dependency = Dependency("postgres", clock=self.clock, telemetry=self.telemetry, rng=Random(3), rule=rule)

    @property
    def gauge(self) -> float:
        return self.telemetry.gauges[METRIC, (("dependency", "postgres"),)]

    def break_it(self) -> None:
        for _ in range(RULE.threshold):
            self.dependency.failed("ConnectionRefusedError")


def test_it_answers_until_it_has_failed_several_times_in_a_row() -> None:
    place = Place()
    for _ in range(RULE.threshold - 1):
        place.dependency.failed("TimeoutError")
    place.dependency.worked()
    for _ in range(RULE.threshold - 1):
        place.dependency.failed("TimeoutError")
    assert place.dependency.refusal() is None
    assert place.gauge == 0.0
    place.dependency.failed("TimeoutError")
    refusal = place.dependency.refusal()
    assert refusal is not None
    assert refusal.detail == "postgres does not answer (5 failures of TimeoutError)"
    assert refusal.retry_after >= 1.0
    assert place.gauge == 2.0
    assert place.telemetry.messages("warning") == ["A dependency is away and not waited for"]


async def test_time_alone_brings_nobody_back_and_one_probe_is_out_at_a_time() -> None:
    place = Place()
    place.break_it()
    assert place.dependency.probe() is None
    await place.clock.advance(RULE.open_seconds * (1 + RULE.jitter))
    assert place.dependency.refusal() is not None
    permit = place.dependency.probe()
    assert permit is not None
    assert place.gauge == 1.0
    assert place.dependency.probe() is None
    assert place.dependency.refusal() is not None
    place.dependency.probed(permit, False, "TimeoutError")
    assert place.gauge == 2.0
    await place.clock.advance(RULE.open_seconds * (1 + RULE.jitter))
    permit = place.dependency.probe()
    assert permit is not None
    place.dependency.probed(permit, True)
    assert place.dependency.refusal() is None
    assert place.gauge == 0.0
    assert place.telemetry.messages("info") == ["A dependency is back"]


async def test_an_unused_probe_may_be_sent_by_another() -> None:
    place = Place()
    place.break_it()
    await place.clock.advance(5.0)
    permit = place.dependency.probe()
    assert permit is not None
    place.dependency.unused(permit)
    assert place.dependency.probe() is not None


def test_the_answer_of_one_who_insisted_ends_the_absence_his_failure_does_not_prolong_it() -> None:
    place = Place()
    place.break_it()
    before = place.dependency.refusal()
    place.dependency.failed("TimeoutError")
    after = place.dependency.refusal()
    assert before is not None
    assert after is not None
    assert before.retry_after == after.retry_after
    place.dependency.worked()
    assert place.dependency.refusal() is None


def test_a_probe_into_silence_opens_at_once() -> None:
    place = Place()
    place.dependency.silent("TimeoutError")
    assert place.dependency.away
    assert place.gauge == 2.0


class Collector(SpanExporter):
    def __init__(self) -> None:
        self.up = False
        self.asked = 0

    def export(self, spans: object) -> SpanExportResult:
        self.asked += 1
        return SpanExportResult.SUCCESS if self.up else SpanExportResult.FAILURE


async def test_spans_are_dropped_without_waiting_while_the_collector_is_away() -> None:
    place, collector = Place(EXPORT_RULE), Collector()
    exporter = GuardedExporter(collector)
    exporter.dependency = place.dependency
    for _ in range(EXPORT_RULE.threshold + 20):
        assert exporter.export([]) is SpanExportResult.FAILURE
    assert collector.asked == EXPORT_RULE.threshold
    collector.up = True
    await place.clock.advance(EXPORT_RULE.open_seconds * (1 + EXPORT_RULE.jitter))
    assert exporter.export([]) is SpanExportResult.SUCCESS
    assert exporter.export([]) is SpanExportResult.SUCCESS
    assert not place.dependency.away
