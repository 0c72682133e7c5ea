"""Cron times: always later, independent of where one looks from, right when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_engines.domain.errors import InvalidRequest
from agent_engines.runtime.cron import NAMED, Cron, cron_of

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # clocks move by half an hour
    "Africa/Cairo",  # clocks move at midnight
    "America/Santiago",
    "Asia/Kathmandu",
    "Pacific/Apia",  # once skipped a whole day
    "Antarctica/Troll",  # clocks move by two hours
)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.integers(1, 30).map(lambda step: f"*/{step}")
    few = st.lists(number, min_size=1, max_size=3).map(lambda found: ",".join(map(str, found)))
    return st.one_of(st.just("*"), number.map(str), span, steps, few)


EXPRESSIONS = st.one_of(
    st.sampled_from(sorted(NAMED)),
    st.tuples(field(0, 59), field(0, 23), st.just("*"), field(1, 12), st.just("*")).map(" ".join),
    st.tuples(field(0, 59), field(0, 23), field(1, 28), st.just("*"), field(0, 7)).map(" ".join),
)
MOMENTS = st.floats(1_300_000_000, 2_200_000_000)


def following(cron: Cron, moment: float, count: int) -> list[float]:
    found: list[float] = []
    for _ in range(count):
        comes = cron.after(moment)
        assert comes is not None
        found.append(comes)
        moment = comes
    return found


@given(EXPRESSIONS, st.sampled_from(ZONES), MOMENTS)
# The second 01:30 of the night in which 01:00 to 02:00 comes twice: 01:45 has been.
@example("45 1 * * *", "America/New_York", datetime(2026, 11, 1, 6, 30, tzinfo=UTC).timestamp())
def test_the_next_occurrence_is_always_later_and_a_whole_minute(expression: str, zone: str, moment: float) -> None:
    found = following(cron_of(expression, zone), moment, 4)
    assert all(later > earlier for earlier, later in pairwise([moment, *found]))
    assert all(one % 60 == 0 for one in found)


@given(EXPRESSIONS, st.sampled_from(ZONES), MOMENTS, st.floats(0, 0.999))
def test_whoever_looks_later_but_before_it_sees_the_same_occurrence(
    expression: str, zone: str, moment: float, share: float
) -> None:
    cron = cron_of(expression, zone)
    [comes] = following(cron, moment, 1)
    assert following(cron, moment + (comes - moment) * share, 1) == [comes]


@given(EXPRESSIONS, st.sampled_from(ZONES), MOMENTS, st.integers(0, 6), st.floats(0, 0.999))
def test_the_latest_is_the_last_that_has_come(
    expression: str, zone: str, moment: float, passed: int, share: float
) -> None:
    cron = cron_of(expression, zone)
    found = following(cron, moment, passed + 2)
    now = found[passed] + (found[passed + 1] - found[passed]) * share
    assert cron.latest(found[0], now) == found[passed]


def test_after_a_year_of_absence_the_latest_minute_is_found_at_once() -> None:
    cron = cron_of("* * * * *", "Europe/Berlin")
    assert cron.latest(1_700_000_040.0, 1_732_000_030.0) == 1_732_000_020.0


def local(cron: Cron, start: datetime, count: int) -> list[str]:
    return [
        datetime.fromtimestamp(one, cron.zone).strftime("%d %H:%M %z")
        for one in following(cron, start.timestamp(), count)
    ]


BERLIN = ZoneInfo("Europe/Berlin")


def test_what_falls_into_the_missing_hour_comes_right_after_it() -> None:
    found = local(cron_of("30 2 * * *", "Europe/Berlin"), datetime(2026, 3, 28, 12, tzinfo=BERLIN), 2)
    assert found == ["29 03:00 +0200", "30 02:30 +0200"]


def test_what_names_its_hour_comes_once_when_that_hour_comes_twice() -> None:
    found = local(cron_of("30 2 * * *", "Europe/Berlin"), datetime(2026, 10, 24, 12, tzinfo=BERLIN), 2)
    assert found == ["25 02:30 +0200", "26 02:30 +0100"]


def test_what_comes_every_half_hour_does_so_through_both_changes() -> None:
    cron = cron_of("*/30 * * * *", "Europe/Berlin")
    for month, day in ((3, 29), (10, 25)):
        found = following(cron, datetime(2026, month, day, 0, 45, tzinfo=BERLIN).timestamp(), 8)
        assert {later - earlier for earlier, later in pairwise(found)} == {1800.0}


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "a b c d e",
        "@reboot",
        "@",
        "0 0 31 2 *",
        "0 0 */31 2 MON#5",
        "*" * 300,
    ],
)
def test_what_is_no_cron_expression_or_never_comes_is_refused(expression: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        cron_of(expression, "UTC")
    assert refused.value.field == "cron"


@pytest.mark.parametrize("zone", ["", "Mars/Base", "../../etc/passwd", "Europe", "a\0b", "+02:00"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        cron_of("@daily", zone)
    assert refused.value.field == "timezone"


@given(st.text(max_size=60), st.sampled_from(ZONES))
def test_any_text_is_taken_or_refused_and_nothing_else_happens(expression: str, zone: str) -> None:
    try:
        cron = cron_of(expression, zone)
    except InvalidRequest:
        return
    assert cron.after(0.0) is not None


@given(st.text(alphabet="*/,-#LW0123456789 MON", max_size=30))
def test_what_nearly_is_a_cron_expression_is_taken_or_refused(expression: str) -> None:
    try:
        cron = cron_of(expression, "UTC")
    except InvalidRequest:
        return
    assert cron.after(0.0) is not None
