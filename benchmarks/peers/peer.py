"""What a system under test is to the benchmark, and what most of them need to be one. Only the standard library."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.workloads import Submitter

SLOTS = 100
"""Tasks a worker runs at a time, where a system lets one say."""
WINDOW = 256
"""Submissions under way at a time for systems that take one task a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a reader has to know.

    `servers`: which of nats, postgres, redis it uses, of those the benchmark starts; `most_workers`: with more it has
    nothing to do by itself; `other_parts`: what else its version is made of, beside the Python `packages`.
    """

    label: str
    servers: tuple[str, ...]
    durability: str
    settings: str
    packages: tuple[str, ...]
    other_parts: tuple[str, ...] = ()
    most_workers: int = 2

    def versions(self) -> str:
        found = [f"{name} {importlib.metadata.version(name)}" for name in self.packages]
        return ", ".join([*self.other_parts, *found])


class Peer(Submitter, Protocol):
    """One system. A module of `systems` has it under the name `System`."""

    facts: Facts

    async def start(self, workers: int) -> None:
        """Make its tables or streams and start `workers` worker processes; addresses come from `address`."""
        ...

    def worker_pids(self) -> Sequence[int]:
        """The processes that run handlers; those below them are counted too."""
        ...

    async def stop(self) -> None:
        """End what `start` began."""
        ...


def address(server: str) -> str:
    """The URL of nats, postgres or redis for this run; a placeholder while only the facts are asked for."""
    return os.environ.get(f"BENCH_{server.upper()}_URL", f"{server}://127.0.0.1:1")


class Workers:
    """Worker processes of a system, in its own environment; what they print goes to the driver's log."""

    GRACE = 10.0

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, count: int, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """`command`: as in a shell; a first word without a slash is looked for beside this Python."""
        program = command[0] if "/" in command[0] else str(Path(sys.executable).parent / command[0])
        for _ in range(count):
            self._processes.append(
                subprocess.Popen([program, *command[1:]], env={**os.environ, **(environment or {})}, stdout=2)
            )

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def check(self) -> None:
        """Raises RuntimeError when one has ended."""
        for process in self._processes:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args[0]} ended with {process.returncode}")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for those that need longer than 10 s."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        until = time.monotonic() + self.GRACE
        for process in self._processes:
            while process.poll() is None and time.monotonic() < until:
                await asyncio.sleep(0.05)
            if process.poll() is None:
                process.kill()
                process.wait()


class OneByOne:
    """The bulk half of a submitter for an API that takes one task a call: `WINDOW` calls under way at a time."""

    async def submit(self, kind: str, payload: str) -> Any:
        raise NotImplementedError

    async def result(self, handle: Any) -> str | None:
        raise NotImplementedError

    async def submit_many(self, kind: str, payloads: Sequence[str]) -> list[Any]:
        return await windowed(lambda payload: self.submit(kind, payload), payloads)

    async def results(self, handles: Sequence[Any]) -> list[str | None]:
        return await windowed(self.result, handles)


async def windowed(call: Any, items: Sequence[Any], window: int = WINDOW) -> list[Any]:
    """`call(item)` for all, at most `window` at a time; the answers in order."""
    answers: list[Any] = [None] * len(items)
    coming = iter(enumerate(items))

    async def lane() -> None:
        for index, item in coming:
            answers[index] = await call(item)

    lanes = [asyncio.ensure_future(lane()) for _ in range(min(window, len(items)))]
    try:
        await asyncio.gather(*lanes)
    finally:
        for one in lanes:
            one.cancel()
    return answers


class Blocking:
    """A submitter over a client whose calls block: single tasks in threads of their own, bulk in one thread.

    A system gives `call` (submit and wait), `send` (submit all) and `collect` (wait for all).
    """

    CALLERS = 256

    def __init__(self) -> None:
        self._callers = ThreadPoolExecutor(self.CALLERS, thread_name_prefix="caller")
        # Handles of such clients are often bound to the thread that made them.
        self._bulk = ThreadPoolExecutor(1, thread_name_prefix="bulk")

    def call(self, kind: str, payload: str) -> str | None:
        raise NotImplementedError

    def send(self, kind: str, payloads: Sequence[str]) -> list[Any]:
        raise NotImplementedError

    def collect(self, handles: Sequence[Any]) -> list[str | None]:
        raise NotImplementedError

    async def submit(self, kind: str, payload: str) -> Any:
        return asyncio.get_running_loop().run_in_executor(self._callers, self.call, kind, payload)

    async def result(self, handle: Any) -> str | None:
        return await handle

    async def submit_many(self, kind: str, payloads: Sequence[str]) -> list[Any]:
        return await asyncio.get_running_loop().run_in_executor(self._bulk, self.send, kind, payloads)

    async def results(self, handles: Sequence[Any]) -> list[str | None]:
        return await asyncio.get_running_loop().run_in_executor(self._bulk, self.collect, handles)
