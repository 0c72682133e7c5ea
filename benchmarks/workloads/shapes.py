"""The shapes of load. Only the standard library: this runs inside each peer's own environment.

A task is submitted with 256 bytes and has ended when its submitter holds the result (for systems that store none: knows
that it has ended). A result that is not what the handler was given is an error, never a number.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

PAYLOAD_BYTES = 256
NOOP = "noop"
PAUSE = "pause"
PAUSE_SECONDS = 0.010
"""What the handler of `PAUSE` sleeps: a small call to something else."""
PROBE_TASKS = 200
WAVE = 100_000
"""A backlog is submitted in waves, so that its submitter need not hold a million payloads."""


class Submitter(Protocol):
    """The part of a peer that a shape of load may use."""

    async def submit(self, kind: str, payload: str) -> Any:
        """A handle, once the system has taken the task."""
        ...

    async def result(self, handle: Any) -> str | None:
        """What the handler returned; None from a system that stores no results."""
        ...

    async def submit_many(self, kind: str, payloads: Sequence[str]) -> list[Any]: ...

    async def results(self, handles: Sequence[Any]) -> list[str | None]:
        """In the order of the handles."""
        ...


@dataclass(slots=True)
class Measured:
    """What one run of one shape gave. `latencies`: microseconds, one for each task or, for a fan-out, for each burst.

    `probed`: tasks that were done before these to find their number; what was spent was spent on them too.
    """

    tasks: int
    seconds: float
    latencies: list[int] = field(default_factory=list)
    submit_seconds: float | None = None
    probed: int = 0


def payloads(count: int, start: int = 0) -> list[str]:
    """`count` different texts of 256 bytes."""
    return [f"{number:012d}".ljust(PAYLOAD_BYTES, "x") for number in range(start, start + count)]


async def closed(peer: Submitter, *, outstanding: int, seconds: float, kind: str = NOOP) -> Measured:
    """`outstanding` callers, each submitting its next task when it holds the last result."""
    latencies: list[int] = []
    numbers = itertools.count()
    begun = time.perf_counter()
    until = begun + seconds

    async def caller() -> None:
        while time.perf_counter() < until:
            (payload,) = payloads(1, next(numbers))
            sent = time.perf_counter_ns()
            _check(payload, await peer.result(await peer.submit(kind, payload)))
            latencies.append((time.perf_counter_ns() - sent) // 1000)

    await _all([caller() for _ in range(outstanding)])
    return Measured(len(latencies), time.perf_counter() - begun, latencies)


async def batch(peer: Submitter, *, seconds: float, most: int, kind: str = NOOP) -> Measured:
    """Everything at once, as fast as the system takes it; about `seconds` long by a probe of its speed."""
    probe = await _through(peer, PROBE_TASKS, kind)
    again = await _through(peer, _fitting(probe, seconds / 4, most), kind)
    measured = await _through(peer, _fitting(again, seconds, most), kind)
    measured.probed = probe.tasks + again.tasks
    return measured


async def fan_out(peer: Submitter, *, width: int, seconds: float, kind: str = NOOP) -> Measured:
    """Bursts of `width` tasks, each handed in at once; a latency is the time until the last result of a burst."""
    latencies: list[int] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        burst = await _through(peer, width, kind)
        latencies.append(round(burst.seconds * 1e6))
    return Measured(len(latencies) * width, time.perf_counter() - begun, latencies)


async def open_loop(peer: Submitter, *, rate: float, seconds: float, kind: str = NOOP) -> Measured:
    """`rate` tasks a second, whatever comes back; latency counts from the moment a task was due, also when we are late."""
    latencies: list[int] = []
    running: set[asyncio.Task[None]] = set()
    failed: list[BaseException] = []
    begun = time.perf_counter()

    async def one(number: int, due: float) -> None:
        (payload,) = payloads(1, number)
        _check(payload, await peer.result(await peer.submit(kind, payload)))
        latencies.append(round((time.perf_counter() - due) * 1e6))

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            failed.append(error)

    for number in range(int(rate * seconds)):
        due = begun + number / rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        task = asyncio.get_running_loop().create_task(one(number, due))
        running.add(task)
        task.add_done_callback(ended)
    while running and not failed:
        await asyncio.wait(set(running), return_when=asyncio.FIRST_EXCEPTION)
    if failed:
        raise failed[0]
    return Measured(len(latencies), time.perf_counter() - begun, latencies)


async def backlog(peer: Submitter, *, tasks: int, kind: str = NOOP) -> Measured:
    """`tasks` handed in without waiting for one; then every result is taken."""
    begun = time.perf_counter()
    handles: list[Any] = []
    for start in range(0, tasks, WAVE):
        handles += await peer.submit_many(kind, payloads(min(WAVE, tasks - start), start))
    submitted = time.perf_counter() - begun
    for start in range(0, tasks, WAVE):
        wave = handles[start : start + WAVE]
        for payload, result in zip(payloads(len(wave), start), await peer.results(wave), strict=True):
            _check(payload, result)
    return Measured(tasks, time.perf_counter() - begun, submit_seconds=submitted)


SHAPES: dict[str, Callable[..., Awaitable[Measured]]] = {
    shape.__name__: shape for shape in (closed, batch, fan_out, open_loop, backlog)
}


async def _through(peer: Submitter, count: int, kind: str) -> Measured:
    texts = payloads(count)
    begun = time.perf_counter()
    handles = await peer.submit_many(kind, texts)
    submitted = time.perf_counter() - begun
    found = await peer.results(handles)
    seconds = time.perf_counter() - begun
    for payload, result in zip(texts, found, strict=True):
        _check(payload, result)
    return Measured(count, seconds, submit_seconds=submitted)


def _fitting(measured: Measured, seconds: float, most: int) -> int:
    """How many tasks take about `seconds` at the speed just measured, in round numbers."""
    wanted = measured.tasks / measured.seconds * seconds
    return max(PROBE_TASKS, min(most, round(wanted / 100) * 100))


def _check(payload: str, result: str | None) -> None:
    if result is not None and result != payload:
        raise AssertionError(f"the result is not the payload: {result[:40]!r} for {payload[:40]!r}")


async def _all(work: Sequence[Awaitable[None]]) -> None:
    """Run together; when one fails, end the others and raise its error."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
