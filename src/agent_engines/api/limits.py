"""Limits of the HTTP edge: what a caller may send, how long it may take, how much runs at once."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Sizes in bytes, durations in seconds. Beyond each limit the caller gets one clear problem, never a stall."""

    body_bytes: int = MIB
    """One task: 413 beyond."""
    batch_body_bytes: int = 8 * MIB
    """A whole `POST /v1/tasks:batch`; each task in it is still held to `body_bytes`."""
    drain_bytes: int = 16 * MIB
    """How much of a refused body is read away so that the caller gets to read the refusal."""
    buffered_bytes: int = 256 * MIB
    """Bodies held in memory by all requests together: 503 beyond."""
    body_seconds: float = 15.0
    """A body must have arrived by then: 408 beyond (slow senders hold memory)."""
    batch_tasks: int = 1000
    ended_bytes: int = 4 * MIB
    """What one answer of `POST /v1/tasks:wait` may weigh, but for its last task."""
    wait_seconds: float = 300.0
    """The longest `?wait=`."""
    in_flight: int = 4096
    """Requests answered at the same time, event streams not counted: 503 beyond. Probes are never refused."""
    event_streams: int = 1000
    heartbeat_seconds: float = 15.0
    """Pause between comments that keep an idle event stream alive through proxies."""
    write_seconds: float = 30.0
    """A reader of an event stream that takes nothing for so long is cut off."""
