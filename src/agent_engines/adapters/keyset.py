"""Cursors of paged lists: the place where a page ended, opaque to the outside."""

from __future__ import annotations

import base64
import binascii

import msgspec

from agent_engines.domain.errors import InvalidRequest

MAX_PAGE = 1000
_LAST_MOMENT = 2**53 - 1
"""Microseconds: the year 2255, and the largest integer a double holds exactly."""


class Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last row of a page: its time in microseconds since 1970, and its key among rows of the same time."""

    micros: int
    key: str

    @classmethod
    def of(cls, seconds: float, key: str) -> Place:
        return cls(round(seconds * 1_000_000), key)


NEWEST = Place(_LAST_MOMENT, "")
"""Before the first row, when the newest come first."""


def encode_cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> Place:
    """The place after which to go on; the newest without a cursor. Raises InvalidRequest."""
    if cursor is None:
        return NEWEST
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = msgspec.json.decode(raw, type=Place)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise _unusable(cursor) from error
    if not 0 <= place.micros <= _LAST_MOMENT or "\0" in place.key:
        raise _unusable(cursor)
    return place


def page_size(limit: int) -> int:
    """At least one row and at most MAX_PAGE."""
    return min(max(limit, 1), MAX_PAGE)


def _unusable(cursor: str) -> InvalidRequest:
    return InvalidRequest(f"cursor {cursor[:40]!r} is not one of ours: start again without it", field="cursor")
