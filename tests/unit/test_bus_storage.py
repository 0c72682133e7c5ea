"""How the bus's disk is divided among its streams."""

from __future__ import annotations

from typing import Any

import pytest

from agent_engines.adapters.jetstream.requests import ApiError, QueueFull, Reply, acknowledged
from agent_engines.adapters.jetstream.storage import (
    LARGEST_STORE,
    SHARES,
    SMALLEST_STORE,
    bounded,
    lacks_room,
    smaller,
)
from agent_engines.adapters.jetstream.streams import Limits, wanted_streams
from agent_engines.domain.errors import ConfigurationError, Unavailable

NO_ROOM = ApiError("insufficient storage resources available", 10047)


def test_every_stream_has_its_part_and_together_they_fit() -> None:
    streams = wanted_streams(Limits(store_bytes=1_000_000))
    assert {stream["name"] for stream in streams} == set(SHARES)
    assert all(stream["max_bytes"] > 0 for stream in streams)
    assert sum(stream["max_bytes"] for stream in streams) < 1_000_000


@pytest.mark.parametrize(
    ("existing", "firm", "expected"),
    [(-1, False, 100), (0, False, 100), (50, False, 50), (50, True, 100), (500, True, 500)],
    ids=["no-bound", "zero", "kept", "raised-by-an-operator", "never-narrowed"],
)
def test_a_bound_is_given_and_never_taken_back(existing: int, firm: bool, expected: int) -> None:
    now: dict[str, Any] = {"max_bytes": existing}
    assert bounded(dict(now), now, {"max_bytes": 100}, firm=firm)["max_bytes"] == expected


def test_a_small_server_is_asked_for_less_until_there_is_next_to_nothing() -> None:
    store, tries = LARGEST_STORE, 0
    while store > SMALLEST_STORE:
        less = smaller(store, NO_ROOM)
        assert SMALLEST_STORE <= less < store
        store, tries = less, tries + 1
    assert tries < 20
    with pytest.raises(ConfigurationError, match="no room"):
        smaller(store, NO_ROOM)


@pytest.mark.parametrize(
    ("code", "detail", "expected"),
    [
        (10047, "insufficient storage resources available", True),
        (10005, "no suitable peers for placement, insufficient storage", True),
        (10005, "no suitable peers for placement, peer offline", False),
        (10058, "stream name already in use", False),
    ],
)
def test_a_lack_of_room_is_told_from_other_refusals(code: int, detail: str, expected: bool) -> None:
    assert lacks_room(ApiError(detail, code)) is expected


@pytest.mark.parametrize(
    ("description", "full"),
    [("maximum messages exceeded", True), ("maximum bytes exceeded", True), ("no space left on device", False)],
)
def test_a_full_queue_is_told_from_a_full_disk(description: str, full: bool) -> None:
    """Both are 10077: one is the caller's 429, the other our 503."""
    body = b'{"error":{"code":503,"err_code":10077,"description":"%b"}}' % description.encode()
    outcome = acknowledged(Reply(body, None))
    assert isinstance(outcome, Unavailable)
    assert isinstance(outcome, QueueFull) is full
