"""The network between processes and servers: every request may be slow, lost, or executed and never answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from hashlib import blake2b
from random import Random
from typing import Any, TypeVar

from agent_engines.domain.errors import AgentEnginesError, Unavailable

from .faults import CLEAR, Fate, Weather
from .process import Process
from .virtual_loop import VirtualLoop, empty_context

Result = TypeVar("Result")
Reply = Callable[[Any, BaseException | None], None]

DEADLINE_SECONDS = 2.0
"""How long a caller waits for a server."""
FAST_SECONDS, SPREAD_SECONDS = 0.0002, 0.004
"""A round trip on a good day takes 0.4 to 8 milliseconds."""


class Network:
    """Carries requests; `digest` covers all that any server ever did, in order."""

    def __init__(self, loop: VirtualLoop, rng: Random, *, keep_trace: bool = False) -> None:
        self.loop = loop
        self.weather: Weather = CLEAR
        self.down: set[str] = set()
        """Servers that do not answer."""
        self.cut: set[tuple[str, str]] = set()
        """(process, server) pairs that cannot reach each other."""
        self.trace: list[str] | None = [] if keep_trace else None
        self._rng = rng
        self._hash = blake2b(digest_size=16)
        self._server_context: Context = empty_context()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def note(self, line: str) -> None:
        """Add one line to the log of everything that happened."""
        line = f"{self.loop.time():.6f} {line}"
        self._hash.update(line.encode())
        if self.trace is not None:
            self.trace.append(line)

    def latency(self) -> float:
        return FAST_SECONDS + SPREAD_SECONDS * self._rng.random()

    def lost_signal(self) -> bool:
        return self._rng.random() < self.weather.lost_signals

    def lost_ack(self) -> bool:
        return self._rng.random() < self.weather.lost_acks

    def reachable(self, caller: Process, server: str) -> bool:
        return server not in self.down and (caller.name, server) not in self.cut

    def later(self, seconds: float, callback: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        """Let a server do something; it belongs to no process."""
        return self.loop.call_later(seconds, callback, *arguments, context=self._server_context)

    async def call(self, caller: Process, server: str, what: str, work: Callable[[], Result]) -> Result:
        """Run `work` on the server. Raises what it raises, or Unavailable: then it may have run, or may still run."""

        def serve(reply: Reply) -> None:
            try:
                value = work()
            except AgentEnginesError as error:
                self.note(f"{caller.name} {what} ! {type(error).__name__}")
                reply(None, error)
            else:
                self.note(f"{caller.name} {what}")
                reply(value, None)

        return await self.request(caller, server, serve, DEADLINE_SECONDS)

    async def request(
        self, caller: Process, server: str, serve: Callable[[Reply], None], deadline: float, *, calm: bool = False
    ) -> Any:
        """Let the server `serve` and call `reply(value, error)` whenever it likes. Raises Unavailable past `deadline` seconds.

        `calm`: for long polls, which are repeated all the time: only outages and cuts hit them.
        """
        check_alive(caller)
        fate = Fate.SERVED if calm else self.weather.fate(self._rng)
        answer: asyncio.Future[Any] = self.loop.create_future()
        there = self.latency()
        if fate is Fate.LATE:
            there += DEADLINE_SECONDS + self._rng.random() * self.weather.late_seconds
        if fate is not Fate.REQUEST_LOST and (caller.name, server) not in self.cut:
            self.later(there, self._serve, caller, server, serve, self._answering(caller, server, answer, fate))
        timer = self.loop.call_later(deadline, _give_up, answer, server)
        try:
            return await answer
        finally:
            timer.cancel()
            check_alive(caller)

    def post(self, caller: Process, server: str, what: str, work: Callable[[], object]) -> None:
        """Fire and forget: an acknowledgement, a signal."""
        check_alive(caller)
        self.later(self.latency(), self._serve_post, caller, server, what, work)

    def _serve(self, caller: Process, server: str, serve: Callable[[Reply], None], reply: Reply) -> None:
        if server in self.down:
            reply(None, Unavailable(f"the {server} does not answer"))
        else:
            serve(reply)

    def _serve_post(self, caller: Process, server: str, what: str, work: Callable[[], object]) -> None:
        if self.reachable(caller, server):
            self.note(f"{caller.name} {what}")
            work()

    def _answering(self, caller: Process, server: str, answer: asyncio.Future[Any], fate: Fate) -> Reply:
        def reply(value: Any, error: BaseException | None) -> None:
            if fate is not Fate.REPLY_LOST and (caller.name, server) not in self.cut:
                self.later(self.latency(), _settle, answer, value, error)

        return reply


def check_alive(process: Process) -> None:
    """A killed process only unwinds: nothing it still tries may have an effect. Raises CancelledError."""
    if not process.alive:
        raise asyncio.CancelledError


def _settle(answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)


def _give_up(answer: asyncio.Future[Any], server: str) -> None:
    if not answer.done():
        answer.set_exception(Unavailable(f"the {server} did not answer in time"))
