"""How the bus's disk is divided: each stream is bounded, so that no full queue can stop what empties it.

Measured on nats-server 2.15: one stream without a bound fills the whole store, and then every stream refuses (10023);
agents could not report any more, so nothing would ever become free. A bound is a reservation: the server refuses to
create what does not fit (10047).
"""

from __future__ import annotations

from typing import Any

from agent_engines.domain import subjects
from agent_engines.domain.errors import ConfigurationError
from agent_engines.domain.tasks import PriorityClass

from .requests import ApiError

LARGEST_STORE = 64 << 30
"""What is tried first when nobody said how much there is, bytes; halved until the server has room."""
SMALLEST_STORE = 16 << 20
SHARES = {
    subjects.task_stream(PriorityClass.HIGH): 0.12,
    subjects.task_stream(PriorityClass.NORMAL): 0.20,
    subjects.task_stream(PriorityClass.LOW): 0.12,
    subjects.RESULTS_STREAM: 0.30,
    subjects.JOURNAL_STREAM: 0.12,
    subjects.PROGRESS_STREAM: 0.04,
    subjects.LESSONS_STREAM: 0.03,
    f"KV_{subjects.SETTINGS_BUCKET}": 0.02,
}
"""The rest is the server's own, and room for an operator's streams."""
UNBOUNDED = -1
"""For a cluster, unless somebody says how many bytes there are: a server works out its size anew at each start, from what
is free, and one that comes back with less than its streams reserve stays out (test_broker_facts.py)."""
NO_ROOM = frozenset({10002, 10028, 10047})
NO_SUITABLE_PEERS = 10005


def share(stream: str, store_bytes: int) -> int:
    """Most bytes of one stream; -1 with UNBOUNDED."""
    return -1 if store_bytes == UNBOUNDED else int(SHARES[stream] * store_bytes)


def lacks_room(error: ApiError) -> bool:
    """Whether the server refused because its store, or the account's share of it, is given away."""
    return error.code in NO_ROOM or (error.code == NO_SUITABLE_PEERS and "storage" in error.detail)


def bounded(merged: dict[str, Any], existing: dict[str, Any], wanted: dict[str, Any], *, firm: bool) -> dict[str, Any]:
    """With the bytes an existing stream is to have: a bound where there is none; another one only if that is `firm`."""
    now = existing.get("max_bytes", 0)
    if now <= 0:
        return {**merged, "max_bytes": wanted["max_bytes"]}
    return {**merged, "max_bytes": max(now, wanted["max_bytes"]) if firm else now}


def smaller(store_bytes: int, error: ApiError) -> int:
    """What to try next. Raises ConfigurationError when there is next to nothing."""
    if store_bytes <= SMALLEST_STORE:
        raise ConfigurationError([f"NATS_URL: the server has no room for the streams ({error.detail})"])
    return max(SMALLEST_STORE, store_bytes // 2)
