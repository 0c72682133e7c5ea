"""What must exist on the server, and how it is brought there: create, widen, never destroy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from agent_engines.adapters.wire import DUPLICATE_WINDOW_SECONDS
from agent_engines.domain import subjects
from agent_engines.domain.errors import ConfigurationError, Unavailable
from agent_engines.domain.tasks import PriorityClass
from agent_engines.ports.telemetry import Log

from .api import NAME_IN_USE, NANOSECONDS, JetStreamApi
from .requests import ApiError
from .storage import LARGEST_STORE, UNBOUNDED, bounded, lacks_room, share, smaller

HOUR = 3_600.0
MAX_ACK_PENDING = 20_000
"""Unacknowledged deliveries of one durable; the server's default of 1,000 would throttle a large agent."""
UNLIMITED = -1
CLUSTER_REPLICAS = 3
NO_PLACE = frozenset({10005, 10074})
"""The server has not as many peers as copies were asked for: a cluster that is still gathering, or no cluster."""
MAX_CONSUMERS = 100_000
"""Agents of one stream. A positive number, because recent servers take -1 for their own bound of 1,000."""
FIXED = ("retention", "storage", "discard")
"""Changing one of these on a stream with messages would lose some: an operator's decision, not ours."""
WIDER_IS_MORE = ("max_msgs", "max_msgs_per_subject", "max_age", "max_msg_size", "num_replicas")
SWITCHES = ("allow_direct", "allow_msg_ttl", "allow_rollup_hdrs", "subject_delete_marker_ttl")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what the server keeps."""

    max_tasks_per_class: int = 2_000_000
    replicas: int = 0
    """Copies of each stream; 0: three when the server belongs to a cluster, else one."""
    sync_always: bool = False
    """The servers write each message to the disk before they acknowledge it: an operator's word, they tell clients nothing."""
    results_hours: float = 72.0
    store_bytes: int = 0
    """What all streams may take of the server's disk; 0: as much as it has, up to LARGEST_STORE."""
    progress_hours: float = 24.0
    progress_messages: int = 1_000_000

    def settled(self, *, clustered: bool) -> Limits:
        """With the number of copies decided."""
        return self if self.replicas else replace(self, replicas=CLUSTER_REPLICAS if clustered else 1)


def wanted_streams(limits: Limits) -> list[dict[str, Any]]:
    """Stream configurations in the server's own words; durations in nanoseconds."""
    return [*_logs(limits), *(_queue(priority, limits) for priority in PriorityClass), _settings(limits)]


def _queue(priority: PriorityClass, limits: Limits) -> dict[str, Any]:
    return _stream(
        subjects.task_stream(priority),
        subjects.task(priority, "*"),
        limits,
        retention="workqueue",
        max_msgs=limits.max_tasks_per_class,
    )


def _logs(limits: Limits) -> list[dict[str, Any]]:
    results = _stream(
        subjects.RESULTS_STREAM,
        subjects.RESULTS,
        limits,
        max_age=_nanoseconds(limits.results_hours * HOUR),
    )
    journal = _stream(
        subjects.JOURNAL_STREAM, subjects.JOURNAL, limits, max_age=_nanoseconds(limits.results_hours * HOUR)
    )
    progress = _stream(
        subjects.PROGRESS_STREAM,
        subjects.PROGRESS,
        limits,
        discard="old",
        max_msgs=limits.progress_messages,
        max_msgs_per_subject=1_000,
        max_age=_nanoseconds(limits.progress_hours * HOUR),
    )
    lessons = _stream(
        subjects.LESSONS_STREAM,
        subjects.LESSONS,
        limits,
        discard="old",
        max_age=_nanoseconds(limits.results_hours * HOUR),
    )
    return [results, journal, progress, lessons]


def _settings(limits: Limits) -> dict[str, Any]:
    return _stream(
        f"KV_{subjects.SETTINGS_BUCKET}",
        f"$KV.{subjects.SETTINGS_BUCKET}.>",
        limits,
        max_msgs_per_subject=1,
        allow_rollup_hdrs=True,
        deny_delete=True,
        allow_msg_ttl=True,
        # Watchers learn that a key expired from the marker the server leaves for this long.
        subject_delete_marker_ttl=_nanoseconds(HOUR),
    )


def durable_consumer(name: str, lease_seconds: float, filter_subject: str | None) -> dict[str, Any]:
    """A shared pull consumer that delivers until acknowledged, for ever."""
    config: dict[str, Any] = {
        "durable_name": name,
        "ack_policy": "explicit",
        "ack_wait": _nanoseconds(lease_seconds),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "max_deliver": -1,
        "max_ack_pending": MAX_ACK_PENDING,
    }
    if filter_subject is not None:
        config["filter_subject"] = filter_subject
    return config


async def provision(api: JetStreamApi, limits: Limits, lease_seconds: float, log: Log) -> None:
    """Bring every stream and the recorder's durable into being. Raises ConfigurationError, Unavailable.

    Any number of processes may do this at once; each refused difference is named with its stream and field.
    """
    made: set[str] = set()
    problems: list[str] = []
    firm = limits.store_bytes > 0
    store = limits.store_bytes or (UNBOUNDED if limits.replicas > 1 else LARGEST_STORE)
    while True:
        try:
            for wanted in wanted_streams(replace(limits, store_bytes=store)):
                # One after the other: side by side, two may be given the same room, and then not even less is granted.
                problems += await _provide(api, wanted, log, made, firm=firm)
            break
        except ApiError as error:
            if not lacks_room(error):
                raise
            problems.clear()
            store = smaller(store, error)
    if problems:
        raise ConfigurationError(problems)
    recorder = subjects.RECORDER_DURABLE
    await api.ensure_consumer(subjects.RESULTS_STREAM, recorder, durable_consumer(recorder, lease_seconds, None))


async def fewest_copies(api: JetStreamApi) -> int:
    """Replicas of the stream that has the fewest, of those that carry tasks and reports. Raises Unavailable."""
    names = [subjects.RESULTS_STREAM, subjects.JOURNAL_STREAM, *map(subjects.task_stream, PriorityClass)]
    found = await asyncio.gather(*(api.call(f"STREAM.INFO.{name}") for name in names))
    return min(int(answer["config"].get("num_replicas", 1)) for answer in found)


async def _provide(api: JetStreamApi, wanted: dict[str, Any], log: Log, made: set[str], *, firm: bool) -> list[str]:
    """`made`: streams of this call, whose bounds are not settled yet; `firm`: somebody said how many bytes there are."""
    name = wanted["name"]
    answer = await api.find(f"STREAM.INFO.{name}")
    if answer is None:
        try:
            await api.call(f"STREAM.CREATE.{name}", wanted)
            log.info("Stream created", stream=name)
            made.add(name)
            return []
        except ApiError as error:
            if error.code in NO_PLACE and not lacks_room(error):
                raise _no_place(wanted, error) from error
            if error.code != NAME_IN_USE:
                raise
        # Another process was faster, with other settings.
        answer = await api.call(f"STREAM.INFO.{name}")
    existing: dict[str, Any] = answer["config"]
    problems = refused_changes(existing, wanted)
    if not problems:
        merged = bounded(widened(existing, wanted), existing, wanted, firm=firm)
        if name in made:
            merged = {**merged, "max_bytes": wanted["max_bytes"]}
        if merged != existing:
            await _widen(api, existing, merged, log)
    return problems


async def _widen(api: JetStreamApi, existing: dict[str, Any], merged: dict[str, Any], log: Log) -> None:
    name = merged["name"]
    try:
        await api.call(f"STREAM.UPDATE.{name}", merged)
    except ApiError as error:
        bytes_now = existing.get("max_bytes", 0)
        if lacks_room(error) and 0 < bytes_now != merged["max_bytes"]:
            log.warning("A stream keeps its bytes", stream=name, bytes=bytes_now, wanted=merged["max_bytes"])
            merged = {**merged, "max_bytes": bytes_now}
            if merged != existing:
                await _widen(api, existing, merged, log)
            return
        if error.code not in NO_PLACE or lacks_room(error):
            raise
        # It works as it is, with fewer copies; a start while one server is down must not fail for that.
        log.warning("A stream keeps fewer copies than wanted", stream=name, wanted=merged["num_replicas"])
        merged = {**merged, "num_replicas": existing.get("num_replicas", 1)}
        if merged == existing:
            return
        await api.call(f"STREAM.UPDATE.{name}", merged)
    log.info("Stream widened", stream=name)


def _no_place(wanted: dict[str, Any], error: ApiError) -> Unavailable:
    return Unavailable(
        f"stream {wanted['name']}: {wanted['num_replicas']} copies find no place ({error.detail}); "
        f"start more servers of the cluster, or set ENGINES_BUS_REPLICAS",
        retry_after=2.0,
    )


def refused_changes(existing: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """One line for each setting that cannot be changed without losing messages."""
    name = wanted["name"]
    problems = [
        f"stream {name}: {field} is {existing.get(field)!r}, needed is {wanted[field]!r}; "
        f"rename or remove the stream, or use another NATS account"
        for field in FIXED
        if existing.get(field) != wanted[field]
    ]
    missing = [subject for subject in wanted["subjects"] if subject not in existing.get("subjects", [])]
    if missing:
        problems.append(
            f"stream {name}: subjects are {existing.get('subjects')!r}, needed is {wanted['subjects']!r}; "
            f"rename or remove the stream, or use another NATS account"
        )
    return problems


def widened(existing: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The existing configuration with every bound at the wider of both; nothing is ever narrowed."""
    merged = dict(existing)
    for field in WIDER_IS_MORE:
        merged[field] = _wider(existing.get(field, 0), wanted[field])
    for field in SWITCHES:
        if wanted.get(field) and not existing.get(field):
            merged[field] = wanted[field]
    return merged


def _wider(existing: int, wanted: int) -> int:
    # Zero (age) and minus one (counts) both mean: no limit.
    if existing <= 0 or wanted <= 0:
        return existing if existing <= 0 else wanted
    return max(existing, wanted)


def _stream(name: str, subject: str, limits: Limits, **settings: Any) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": [subject],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_msgs": UNLIMITED,
        "max_bytes": share(name, limits.store_bytes or LARGEST_STORE),
        "max_msgs_per_subject": UNLIMITED,
        "max_msg_size": UNLIMITED,
        "max_age": 0,
        "max_consumers": MAX_CONSUMERS,
        "num_replicas": limits.replicas or 1,
        "duplicate_window": _nanoseconds(DUPLICATE_WINDOW_SECONDS),
        "allow_direct": True,
        **settings,
    }


def _nanoseconds(seconds: float) -> int:
    return int(seconds * NANOSECONDS)
