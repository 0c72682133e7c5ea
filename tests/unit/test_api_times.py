"""Times at the edge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.api.times import parsed_time
from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.iso_times import LAST, iso, with_iso_times

IN_2200 = 7_258_118_400.0


def test_a_moment_is_written_with_milliseconds_and_z() -> None:
    assert iso(0.0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"


def test_an_unknown_moment_stays_unknown() -> None:
    assert iso(None) is None


@given(st.floats(min_value=0, max_value=IN_2200))
def test_what_is_written_is_the_moment_or_less_than_a_millisecond_before(seconds: float) -> None:
    """`since` with a time we wrote must find what happened then."""
    written = iso(seconds)
    assert written is not None
    assert len(written) == len("1970-01-01T00:00:00.000Z")
    assert seconds - 0.001_01 < parsed_time(written, field="since") <= seconds + 0.000_002


@given(st.integers(min_value=0, max_value=int(IN_2200) * 1000))
def test_writing_and_reading_again_does_not_drift(milliseconds: int) -> None:
    written = iso(milliseconds / 1000)
    assert written is not None
    assert iso(parsed_time(written, field="since")) == written


@given(st.floats(allow_nan=False))
def test_no_number_is_too_odd_to_be_written(seconds: float) -> None:
    written = iso(seconds)
    assert written is not None
    assert "1970-01-01T00:00:00.000Z" <= written <= "9999-12-31T00:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000.0),
        ("2023-11-14T23:13:20 01:00", 1_700_000_000.0),
        ("2023-11-14T22:13:20", 1_700_000_000.0),
        ("1700000000.5", 1_700_000_000.5),
        ("2023-11-14", 1_699_920_000.0),
    ],
)
def test_iso_and_epoch_seconds_are_both_read(text: str, seconds: float) -> None:
    """A blank before the offset is a '+' the caller forgot to encode."""
    assert parsed_time(text, field="since") == seconds


@given(st.text())
def test_any_text_is_a_time_or_a_named_refusal(text: str) -> None:
    seconds, field = None, None
    try:
        seconds = parsed_time(text, field="since")
    except InvalidRequest as error:
        field = error.field
    assert field == "since" if seconds is None else 0 <= seconds <= LAST


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e300", "0001-01-01T00:00:00Z", "yesterday", ""])
def test_moments_out_of_this_world_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="since"):
        parsed_time(text, field="since")


def test_documents_of_the_bus_get_readable_moments() -> None:
    given_document = {"generated_at": 0.0, "at": 1, "deadline": None, "window_seconds": 60.0, "created_at": "soon"}
    assert with_iso_times(given_document) == {
        "generated_at": "1970-01-01T00:00:00.000Z",
        "at": "1970-01-01T00:00:01.000Z",
        "deadline": None,
        "window_seconds": 60.0,
        "created_at": "soon",
    }
