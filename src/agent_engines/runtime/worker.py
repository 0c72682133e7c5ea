"""The worker: holds the tasks of one agent's process from arrival to acknowledgement.

arrived -> queued (bounded, most urgent first) -> running -> reported -> acknowledged
   └ a copy of what is held or just done: run once, the newest lease counts       └ only after the report is durable

Between arrival and acknowledgement the lease is renewed; whatever this process does not finish comes back to the bus.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from agent_engines.domain.agents import Load
from agent_engines.domain.errors import AgentEnginesError, QueueFull
from agent_engines.domain.messages import CancelOrder
from agent_engines.domain.priority_queue import PriorityQueue
from agent_engines.domain.retry import readable
from agent_engines.domain.tasks import TaskError, TaskStatus
from agent_engines.ports.bus import Bus, Delivery, TaskInbox
from agent_engines.ports.spool import Spool

from .agent_config import AgentConfig
from .attempt import Attempt, Key, Outcome, Stop
from .executor import Executor
from .intake import CLASSES, Intake
from .leases import Leases
from .pace import Pace
from .pausing import Pausing
from .recent import Recent
from .reporter import Reporter
from .running import Running
from .salvage import salvaged
from .spooling import Adoption
from .starts import StartNotes
from .suspects import Host, Suspects
from .tenant_mix import TenantMix

CANCEL_SECONDS = 2.0
"""How long handlers may clean up after they were told to stop."""
FLUSH_SECONDS = 5.0
LEAST_FLUSH_SECONDS = 1.0
"""For the last reports, when the grace is over already."""
RECENT_TASKS = 20_000
RAW_LOGGED_BYTES = 64 * 1024


class Worker:
    """Runs tasks of one inbox. `start`, `drain` (hand back what has not begun), `stop`."""

    def __init__(
        self,
        executor: Executor,
        bus: Bus,
        inbox: TaskInbox,
        *,
        config: AgentConfig,
        threads: bool = True,
        spool: Spool | None = None,
    ) -> None:
        """`threads` False: everything happens in the loop, for repeatable runs."""
        parts = executor.parts
        self._executor = executor
        self._inbox = inbox
        self._config = config
        self._lease_seconds = bus.tasks.lease_seconds
        self._telemetry = parts.telemetry
        self._threads = parts.threads
        self._threads.on_return = self._freed
        self._rng = parts.rng
        self._log = executor.log
        self._held: dict[Key, Attempt] = {}
        self._leases = Leases.of(parts, self._held, inbox, seconds=self._lease_seconds, threads=threads)
        # Each class may always ask for one task, even when the queue is full at that moment.
        self._queue: PriorityQueue[Attempt] = PriorityQueue(config.queue_size + len(CLASSES))
        self._running = Running(self._announce)
        self._recent = Recent(RECENT_TASKS)
        self._pace, self._mix = Pace(), TenantMix()
        self._slots = config.max_concurrent_tasks
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended: deque[tuple[Attempt, Outcome]] = deque()
        self._handed_back: list[Attempt] = []
        self._active, self._closed = 0, False
        self.reporter = Reporter(
            bus.reports, parts.agent, settle=self._settle, telemetry=parts.telemetry, rng=parts.rng, spool=spool
        )
        self._adoption: Adoption | None = None
        if spool is not None:
            self._adoption = Adoption(
                spool, bus.reports, inbox, agent=parts.agent, log=self._log, told=self._recent.add
            )
            self.reporter.on_recovery = self._adoption.look
        self.reporter.on_relief = self._freed
        self._suspects, self._pausing = self._guards(bus)
        self.intake = self._intake = Intake(
            inbox, self._pausing, log=self._log, rng=parts.rng, clock=self._leases.clock
        )
        self.begun = 0
        """Attempts begun since the start."""

    def load(self, loop_lag_ms: float = 0.0) -> Load:
        """How busy this replica is now."""
        return Load(
            slots=self._slots,
            running=self._active,
            queued=len(self._queue) + len(self._suspects.waiting),
            queue_size=self._config.queue_size,
            service_ms=self._pace.service_ms,
            loop_lag_ms=loop_lag_ms,
            paused=self._pausing.reason,
        )

    async def start(self) -> None:
        """Tell what dead replicas kept, then take work."""
        if self._adoption is not None:
            await self._adoption.start()
        self._leases.start()
        self._pausing.start()
        self._intake.start()

    def wanted(self) -> int:
        """Free slots plus what the present pace will free within a round trip; see Intake."""
        if self.reporter.congested or not self._suspects.open:
            return 0
        held = max(self._pace.soon, self._mix.held(self._slots, self._loop.time()))
        return self._slots + min(held, self._config.queue_size) - self._busy() - len(self._queue)

    def room(self) -> int:
        return self._slots + self._config.queue_size - self._active - len(self._queue)

    def threshold(self) -> int:
        return max(1, min(self._pace.soon, self._config.queue_size) // 2)

    async def admit(self, deliveries: Sequence[Delivery], leased_at: float) -> None:
        """Take what the intake brought: run, queue, or hand back."""
        if self._leases.lapsed(leased_at):
            # This process stood still while they waited at its door: by now they are somebody else's.
            self._leases.count(len(deliveries))
            return
        if not self._intake.open:
            await self._release(deliveries, 0.0)
            return
        now = self._loop.time()
        known: list[Delivery] = []
        overflow: list[Delivery] = []
        for delivery in deliveries:
            message = delivery.message
            if message is None:
                await self._undecodable(delivery, leased_at)
                continue
            key = (message.task_id, message.generation)
            if (attempt := self._held.get(key)) is not None:
                attempt.delivery, attempt.leased_at, attempt.lease_lost = delivery, leased_at, False
            elif key in self._recent:
                known.append(delivery)
            else:
                attempt = Attempt(message, delivery, leased_at)
                self._mix.saw(message.tenant, now)
                if not self._take(attempt):
                    overflow.append(delivery)
        await self._ack(known)
        await self._release(overflow, 0.0)

    async def cancel(self, order: CancelOrder) -> None:
        """Stop what runs, take out what waits, and remember the order for what has not arrived yet."""
        self._executor.cancellations.remember(order, self._executor.parts.clock.now())
        wanted = set(order.task_ids)
        for key, attempt in list(self._held.items()):
            if key[0] not in wanted or not self._executor.cancellations.covers(attempt.message):
                continue
            if self._queue.remove(key) is not None or self._suspects.discard(attempt):
                attempt.stop = Stop.CANCELLED
                self._begin(attempt)
            elif attempt.task is not None and not attempt.task.done():
                self._running.interrupt(attempt, Stop.CANCELLED)
        self._freed()

    async def drain(self) -> None:
        """Take no more work and hand back what has not begun; what runs goes on."""
        stopping = asyncio.ensure_future(self._intake.stop())
        await self._release_queued()
        await stopping
        # A pull that was under way may have brought something while the queue was emptied.
        await self._release_queued()

    async def stop(self, grace: float) -> None:
        """Drain, let running work end within `grace` seconds, stop the rest, send the last reports. May be called twice."""
        until = self._loop.time() + grace
        draining = asyncio.ensure_future(self.drain())
        try:
            await self._wait_idle(grace)
            if not self._idle.is_set():
                await self._stop_running()
        finally:
            await draining
        self._conclude()
        await self._suspects.close()
        await self._suspects.withdraw(self._handed_back)
        await self._hand_back(self._handed_back, 1.0 + 2.0 * self._rng.random())
        self._handed_back.clear()
        if self._adoption is not None:
            await self._adoption.stop()
        left = await self.reporter.close(max(LEAST_FLUSH_SECONDS, min(FLUSH_SECONDS, until - self._loop.time())))
        if left:
            self._log.error(
                "Reports could not be sent: the next start tells them, or their tasks run again", reports=left
            )
        self._closed = True
        await self._suspects.close()
        self._running.close()
        await self._pausing.stop()
        await self._leases.stop()

    def _take(self, attempt: Attempt) -> bool:
        """Run or queue; False when neither is possible."""
        if self._busy() < self._slots and self._suspects.open:
            self._held[attempt.key] = attempt
            self._begin(attempt)
            return True
        try:
            attempt.wait_in(self._queue, self._loop.time())
        except QueueFull:
            return False
        self._held[attempt.key] = attempt
        return True

    def _begin(self, attempt: Attempt) -> None:
        outcome = self._executor.gate(attempt)
        if outcome is not None:
            self._finish(attempt, outcome)
            return
        if attempt.doubtful and attempt.place is None:
            self._suspects.examine(attempt)
            return
        assert attempt.handler is not None
        self.begun += 1
        self._active += 1
        self._idle.clear()
        self._running.add(attempt)
        attempt.task = self._loop.create_task(self._run(attempt), name=attempt.handler.label)

    async def _run(self, attempt: Attempt) -> None:
        try:
            outcome = await self._executor.run(attempt)
        except BaseException:
            # Not the handler's doing (the loop is being torn down): say nothing, the lease brings the task back.
            self._held.pop(attempt.key, None)
            raise
        finally:
            self._active -= 1
            self._running.discard(attempt)
            if not self._active:
                self._idle.set()
            if attempt.place is not None:
                self._suspects.ended(attempt)
        if outcome is None:
            self._handed_back.append(attempt)
            self._held.pop(attempt.key, None)
        elif not self._closed:
            if not self._ended:
                self._loop.call_soon(self._conclude)
            self._ended.append((attempt, outcome))

    def _conclude(self) -> None:
        """Tell what ended in this turn of the loop, then begin what may take its place: once for many."""
        try:
            while self._ended:
                self._finish(*self._ended.popleft())
        finally:
            if self._ended:  # One that cannot be told holds up no other.
                self._loop.call_soon(self._conclude)
        self._refill()
        self._intake.freed()

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        elapsed = attempt.elapsed
        if elapsed is not None and self._leases.outlived(attempt, outcome):
            self._held.pop(attempt.key, None)
            return
        self.reporter.put(self._executor.report(attempt, outcome), attempt)
        self._telemetry.task_done(self._config.agent_id, outcome.status, elapsed)
        self._pausing.ended(attempt, outcome)
        if elapsed is not None:
            self._pace.ended(elapsed, self._loop.time())
        message = attempt.message
        self._log.debug("Task ended", task_id=message.task_id, task_type=message.task_type, status=outcome.status)

    def _guards(self, bus: Bus) -> tuple[Suspects, Pausing]:
        parts = self._executor.parts
        host = Host(
            begin=self._begin,
            lost=self._leases.lost,
            bury=lambda attempt, reason: self._finish(attempt, self._executor.poisoned(reason)),
            hand_back=self._send_back,
            free=lambda: self._slots - self._busy(),
            running=lambda: self._active,
            freed=self._freed,
            idle=lambda: not (self._held or self._busy()),
            release_queued=self._release_queued,
        )
        notes = StartNotes(bus.settings, parts.replica, lease_seconds=self._lease_seconds, clock=parts.clock)
        suspects = Suspects(notes, host, agent=parts.agent, telemetry=parts.telemetry)
        return suspects, Pausing(self, host, self._inbox, bus.settings, agent=parts.agent, telemetry=parts.telemetry)

    async def _send_back(self, attempt: Attempt, delay: float) -> None:
        self._held.pop(attempt.key, None)
        await self._hand_back([attempt], delay)

    def _refill(self) -> None:
        if self._suspects.waiting:
            self._suspects.turn()
        while self._queue and self._busy() < self._slots and self._suspects.open:
            attempt = self._queue.pop()
            if attempt is None:
                continue
            if self._leases.lost(attempt):
                # Neither run nor handed back: it is with somebody else, or will come again.
                self._held.pop(attempt.key, None)
                continue
            self._begin(attempt)

    def _freed(self) -> None:
        if self._intake.open:
            self._refill()
            self._intake.freed()

    def _busy(self) -> int:
        return self._active + self._threads.abandoned + self._suspects.asking

    def _announce(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            self.reporter.put(self._executor.started(attempt), None)

    async def _settle(self, attempts: list[Attempt]) -> None:
        await self._ack([attempt.delivery for attempt in attempts])
        for attempt in attempts:
            self._held.pop(attempt.key, None)
            if attempt.starts is not None:
                self._suspects.settled(attempt)
        self._recent.add([attempt.key for attempt in attempts])

    async def _undecodable(self, delivery: Delivery, leased_at: float) -> None:
        """End a task whose message nobody can read, as far as its bytes say which one it is."""
        self._telemetry.count("agent_undecodable_tasks_total", agent_name=self._config.agent_id)
        raw = delivery.raw[:RAW_LOGGED_BYTES].decode("utf-8", "backslashreplace")
        self._log.error("A task message cannot be read", problem=delivery.problem, raw=raw, bytes=len(delivery.raw))
        message = salvaged(delivery.raw, self._config.agent_id)
        if message is None:
            await self._ack([delivery])
            return
        attempt = Attempt(message, delivery, leased_at)
        self._held[attempt.key] = attempt
        detail = readable(f"the task message cannot be read: {delivery.problem}")
        self._finish(attempt, Outcome(TaskStatus.DEAD_LETTER, error=TaskError("Undecodable", detail, retryable=False)))

    async def _release_queued(self) -> None:
        queued = [*self._queue.clear(), *self._suspects.clear()]
        for attempt in queued:
            self._held.pop(attempt.key, None)
        await self._hand_back(queued, 0.0)

    async def _stop_running(self) -> None:
        for attempt in self._running:
            self._running.interrupt(attempt, Stop.SHUTDOWN)
        await self._wait_idle(CANCEL_SECONDS)
        for attempt in self._running:
            assert attempt.handler is not None
            self._log.error("A handler does not stop", handler=attempt.handler.label, task_id=attempt.message.task_id)
            self._held.pop(attempt.key, None)
            self._handed_back.append(attempt)

    async def _wait_idle(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)

    async def _hand_back(self, attempts: Sequence[Attempt], delay: float) -> None:
        """Release those that are still ours: handing back what is somebody else's by now would start it once more."""
        await self._release([attempt.delivery for attempt in attempts if not self._leases.lost(attempt)], delay)

    async def _ack(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        try:
            await self._inbox.ack(deliveries)
        except AgentEnginesError as error:
            # They come back after their lease and are recognised as done.
            self._log.warning("Tasks could not be acknowledged", tasks=len(deliveries), error=str(error))

    async def _release(self, deliveries: Sequence[Delivery], delay: float) -> None:
        if not deliveries:
            return
        self._telemetry.count("agent_tasks_handed_back_total", len(deliveries), agent_name=self._config.agent_id)
        try:
            await self._inbox.release(deliveries, delay)
        except AgentEnginesError as error:
            self._log.warning("Tasks could not be handed back", tasks=len(deliveries), error=str(error))
