"""One operating system process that we started: spawned so that it dies with us, watched without polling."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from agent_engines.domain.errors import EmbeddedServerError

from .accounts import Account

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: after it, a child may not take the locks that loading takes.
_libc: ctypes.CDLL | None = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run and how. `log` None: our own output is inherited.

    `stop_signal` asks for a clean end; `orphan_signal` is what it gets when we die without a word.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path | None = None
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGTERM
    stdin: Path | None = None


class Child:
    """A running process. The thread that spawns it must live as long as it does (prctl(2), PR_SET_PDEATHSIG)."""

    def __init__(self, process: subprocess.Popen[bytes], command: Command) -> None:
        self._process = process
        self._command = command
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watch()

    @classmethod
    def spawn(cls, command: Command) -> Child:
        """Start it in a session of its own, so that a Ctrl-C reaches us only. Raises EmbeddedServerError."""
        account = command.account
        try:
            with ExitStack() as stack:
                output = None if command.log is None else stack.enter_context(command.log.open("ab"))
                given = subprocess.DEVNULL if command.stdin is None else stack.enter_context(command.stdin.open("rb"))
                process = subprocess.Popen(
                    command.argv,
                    env=dict(command.env),
                    cwd=command.cwd,
                    stdin=given,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    umask=0o077,
                    user=account.uid if account else None,
                    group=account.gid if account else None,
                    extra_groups=[] if account else None,
                    # Runs after the change of user, which would clear the flag.
                    preexec_fn=die_with_parent(command.orphan_signal),  # noqa: PLW1509  it takes no lock
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedServerError(f"cannot start {command.argv[0]}: {error}") from error
        return cls(process, command)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return not self._ended.done()

    async def wait(self) -> int:
        """Its return code, negative for a signal."""
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        """Does nothing once it has ended."""
        if self.running:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it by force, now."""
        self.signal(signal.SIGKILL)

    async def stop(self, grace: float) -> int:
        """Ask for a clean end, after `grace` seconds force it."""
        self.signal(self._command.stop_signal)
        try:
            async with asyncio.timeout(grace):
                return await self.wait()
        except TimeoutError:
            self.kill()
            return await self.wait()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(self.pid) if sys.platform == "linux" else -1
        except OSError:
            descriptor = -1
        if descriptor >= 0:
            loop.add_reader(descriptor, self._collect, descriptor)
            return

        def wait_in_thread() -> None:
            code = self._process.wait()
            # A loop that is closed has nobody left to tell.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._end, code)

        threading.Thread(target=wait_in_thread, name=f"wait-{self.pid}", daemon=True).start()

    def _collect(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._end(self._process.wait())

    def _end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn`: the child gets this signal when the thread that started it ends. None where the system has no such thing."""
    libc, parent = _libc, os.getpid()
    if libc is None:
        return None

    def set_flag() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        # We may have died between the fork and the call.
        if os.getppid() != parent:
            os._exit(1)

    return set_flag
