"""Signals in memory: subjects, wildcards, queue groups, request and reply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent_engines.domain.errors import Unavailable
from agent_engines.ports.telemetry import Log

from .queues import Power

Handler = Callable[[str, bytes], Awaitable[bytes | None]]


@dataclass(slots=True, eq=False)
class Listener:
    """One subscription; `close` ends it."""

    tokens: list[str]
    handler: Handler
    queue: str
    registry: list[Listener]

    async def close(self) -> None:
        if self in self.registry:
            self.registry.remove(self)


class MemorySignals:
    """Implements ports.bus.Signals; handlers run as tasks, started in the order of the messages."""

    def __init__(self, power: Power, log: Log) -> None:
        self._power = power
        self._log = log
        self._listeners: list[Listener] = []
        self._running: set[asyncio.Task[None]] = set()
        self._turn = 0

    async def send(self, subject: str, data: bytes) -> None:
        self._power.check()
        self._deliver(subject, data, None)

    async def listen(self, subject: str, handler: Handler, *, queue: str = "") -> Listener:
        self._power.check()
        listener = Listener(subject.split("."), handler, queue, self._listeners)
        self._listeners.append(listener)
        return listener

    async def ask(self, subject: str, data: bytes, timeout: float) -> bytes:
        self._power.check()
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if not self._deliver(subject, data, reply):
            raise Unavailable(f"nobody listens on {subject}")
        try:
            return await asyncio.wait_for(reply, timeout)
        except TimeoutError:
            raise Unavailable(f"nobody answered on {subject} within {timeout:g} s") from None

    async def close(self) -> None:
        self._listeners.clear()
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _deliver(self, subject: str, data: bytes, reply: asyncio.Future[bytes] | None) -> int:
        chosen = self._chosen(subject.split("."))
        for listener in chosen:
            task = asyncio.get_running_loop().create_task(self._handle(listener, subject, data, reply))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return len(chosen)

    def _chosen(self, tokens: list[str]) -> list[Listener]:
        groups: dict[str, list[Listener]] = {}
        chosen: list[Listener] = []
        for listener in self._listeners:
            if not matches(listener.tokens, tokens):
                continue
            if listener.queue:
                groups.setdefault(listener.queue, []).append(listener)
            else:
                chosen.append(listener)
        self._turn += 1
        chosen.extend(members[self._turn % len(members)] for members in groups.values())
        return chosen

    async def _handle(self, listener: Listener, subject: str, data: bytes, reply: asyncio.Future[bytes] | None) -> None:
        try:
            answer = await listener.handler(subject, data)
        except Exception as error:
            self._log.error("A signal handler failed", subject=subject, error=repr(error))
            return
        if answer is not None and reply is not None and not reply.done():
            reply.set_result(answer)


def matches(pattern: list[str], tokens: list[str]) -> bool:
    """True when the subject's tokens fit; `*` is one token, a last `>` at least one."""
    if pattern and pattern[-1] == ">":
        head = pattern[:-1]
        return len(tokens) > len(head) and matches(head, tokens[: len(head)])
    return len(pattern) == len(tokens) and all(p in ("*", t) for p, t in zip(pattern, tokens, strict=True))
