"""Leases of what a worker holds: renewed from a thread that no handler can block, and known to be lost when they are.

held ──a third of the lease old──> renewed ──...──> let go
  │                                                   ├ its handler runs on past its time and OVERTIME_SECONDS
  │                                                   └ it only waits, and the event loop stands still
  └ unrenewed for a whole lease (paused, cut off, let go): lost. Somebody else may have the task; see Worker.

A task that ends within a third of the lease is never looked at twice.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from agent_engines.domain.errors import AgentEnginesError
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.bus import Delivery, LeaseLine, TaskInbox
from agent_engines.ports.telemetry import Telemetry

from .attempt import Attempt, Key, Outcome
from .background import Background
from .executor import ExecutorParts

OVERTIME_SECONDS = 10.0
"""How long past its timeout a handler may still clean up before its task is left to somebody else."""
LOOKS = 6
"""Looks a lease: the oldest lease is renewed at half its length, which leaves the other half for a bus that is away."""
STOP_SECONDS = 3.0
FAILURES = frozenset({TaskStatus.RETRYING, TaskStatus.FAILED, TaskStatus.DEAD_LETTER})
_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


def boot_time() -> float:
    """Seconds that no pause of the process or the machine stops, where the system has such a clock."""
    return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)


class Leases:
    """`held` is the worker's own; `inbox.line()` None, or `clock` given: renewed from the loop (repeatable runs).

    `measured` is the clock of `Attempt.measured_from`.
    """

    def __init__(
        self,
        held: Mapping[Key, Attempt],
        inbox: TaskInbox,
        *,
        seconds: float,
        agent: str,
        telemetry: Telemetry,
        measured: Callable[[], float],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.clock: Callable[[], float] = clock or boot_time
        self._held = held
        self._inbox = inbox
        self._seconds = seconds
        self._agent = agent
        self._telemetry = telemetry
        self._log = telemetry.log(agent)
        self._measured = measured
        self._line: LeaseLine | None = None if clock is not None else inbox.line()
        self._background = Background(self._log)
        self._loop = asyncio.get_running_loop()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._loop_seen_at = 0.0
        self._failing = False

    @classmethod
    def of(
        cls, parts: ExecutorParts, held: Mapping[Key, Attempt], inbox: TaskInbox, *, seconds: float, threads: bool
    ) -> Leases:
        """Those of one worker; without `threads`, from the loop and on its clock."""
        return cls(
            held,
            inbox,
            seconds=seconds,
            agent=parts.agent,
            telemetry=parts.telemetry,
            measured=parts.clock.monotonic,
            clock=None if threads else parts.clock.monotonic,
        )

    def start(self) -> None:
        """Renew from now on; from the loop the worker runs in."""
        self._loop_seen_at = self.clock()
        if self._line is None:
            self._background.keep("leases", self._keep_here)
            return
        name = f"leases-{self._agent}"
        self._thread = threading.Thread(target=self._keep_there, args=(self._line,), name=name, daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Renew no more; no thread is left. May be called twice."""
        self._ended.set()
        await self._background.stop()
        thread, self._thread = self._thread, None
        if self._line is not None:
            self._line.close()
        until = self._loop.time() + STOP_SECONDS
        while thread is not None and thread.is_alive() and self._loop.time() < until:
            await asyncio.sleep(0.002)

    def lapsed(self, leased_at: float) -> bool:
        """Is a lease that was given or renewed at `leased_at` over for certain?"""
        return self.clock() - leased_at > self._seconds

    def lost(self, attempt: Attempt) -> bool:
        """Has this attempt's lease ended under it? Then its task is, or will be, somebody else's too. Counted once."""
        if not self.lapsed(attempt.leased_at):
            return False
        if not attempt.lease_lost:
            attempt.lease_lost = True
            self.count(1)
        return True

    def outlived(self, attempt: Attempt, outcome: Outcome) -> bool:
        """True: it ran longer than its lease, and failed. That is not told: it must burn no retry of whoever has it now.

        A late success counts (RELIABILITY 4.3), and so does an end that was ordered.
        """
        failed = outcome.status in FAILURES
        # A success that took less than a lease need not ask the clock: at worst its end is a repeated one.
        if not failed and (attempt.elapsed or 0.0) < self._seconds:
            return False
        if not self.lost(attempt):
            return False
        task_id = attempt.message.task_id
        self._log.warning("A task outlived its lease", task_id=task_id, status=outcome.status, told=not failed)
        return failed

    def count(self, tasks: int) -> None:
        self._telemetry.count("agent_lease_lost_total", tasks, agent_name=self._agent)

    def due(self, *, loop_lives: bool) -> list[Attempt]:
        """What is to be renewed now. Those that are lost or let go are not: a renewal would take them from their new owner."""
        now, measured = self.clock(), self._measured()
        found: list[Attempt] = []
        for attempt in _values(self._held):
            age = now - attempt.leased_at
            if age < self._seconds / 3.0 or self.lost(attempt):
                continue
            if attempt.task is None or attempt.elapsed is not None:
                if loop_lives:
                    found.append(attempt)
            elif measured - attempt.measured_from <= attempt.timeout + OVERTIME_SECONDS:
                found.append(attempt)
        return found

    async def _keep_here(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / LOOKS)
            attempts = self.due(loop_lives=True)
            if not attempts:
                continue
            now = self.clock()
            try:
                await self._inbox.extend([attempt.delivery for attempt in attempts])
            except AgentEnginesError as error:
                self._failed(len(attempts), error)
            else:
                self._renewed(attempts, now)

    def _keep_there(self, line: LeaseLine) -> None:
        pause = self._seconds / LOOKS
        while not self._ended.wait(pause):
            try:
                self._look(line)
            except Exception as error:
                # The end of this thread would be the end of every longer task's lease.
                self._failed(0, error)

    def _look(self, line: LeaseLine) -> None:
        self._loop.call_soon_threadsafe(self._loop_seen)
        attempts = self.due(loop_lives=not self.lapsed(self._loop_seen_at))
        if not attempts:
            return
        deliveries: Sequence[Delivery] = [attempt.delivery for attempt in attempts]
        now = self.clock()
        try:
            line.renew(deliveries)
        except AgentEnginesError as error:
            if not self._ended.is_set():
                self._failed(len(attempts), error)
            return
        self._renewed(attempts, now)

    def _renewed(self, attempts: Sequence[Attempt], now: float) -> None:
        for attempt in attempts:
            # A newer arrival of the same task may have brought a newer lease meanwhile.
            attempt.leased_at = max(attempt.leased_at, now)
        if self._failing:
            self._failing = False
            self._log.info("Leases are renewed again", tasks=len(attempts))

    def _failed(self, tasks: int, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            self._log.warning("Leases could not be renewed", tasks=tasks, error=str(error) or repr(error))

    def _loop_seen(self) -> None:
        self._loop_seen_at = self.clock()


def _values(held: Mapping[Key, Attempt]) -> list[Attempt]:
    """A snapshot of what another thread changes."""
    while True:
        try:
            return list(held.values())
        except RuntimeError:
            # It changed under our eyes; look again.
            continue
