"""Redispatch: retries that are due and tasks without news are decided again and published as the next generation.

Two sources, both claimed from the ledger, which raises the generation, so that two routers never take the same task:

- *due*: the retry time an agent reported has come. The recorder arms the clock; a poll each second is the net below it.
  What exceeds the retry budget (domain/retry_budget.py) and half of the fleet's free slots waits in the ledger.
- *stranded*: no news for `2 x lease + longest task timeout`, stretched by twice the time the busiest agent needs for its
  queue: a task that merely waits its turn is not lost. A repeated run is possible (at least once), a lost task is not.
  The leader looks for them, and takes only what somebody may do now and what is past its deadline.

What cannot be sent now stays here and is tried again each second; after its deadline it ends as `expired`. A process that
stops sends what it is sending and hands back the rest, for any router to claim within a second. If it dies, the task becomes
stranded and another router finds it. So does, when somebody may do it again, what nobody may do now and what there is no room
for here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import msgspec

from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import AgentEnginesError, BudgetSpent, BudgetTooSmall, NoEligibleAgent, Unavailable
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.retry import readable
from agent_engines.domain.tasks import TaskError, TaskStatus
from agent_engines.ports.bus import Bus
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import Ledger, StoredTask, Verdict
from agent_engines.ports.telemetry import Telemetry

from .background import Background
from .broadcasts import broadcast
from .dispatcher import Dispatcher
from .fleet import Fleet
from .naps import nap
from .outcomes import Outcome
from .retry_throttle import RetryThrottle
from .undivided import Undivided

POLL_SECONDS = 1.0
STRANDED_SECONDS = 10.0
AGAIN_SECONDS = 1.0
CLAIM = 200
WINDOW = 32
"""Publishes under way at once."""
MAX_HELD = 2000
"""Claimed tasks that wait here; beyond this nothing more is claimed."""
HELD_FOR_AGENTS = 1000
"""Of them for an agent that may do them; others of that sort go back to the ledger, or they would keep all others waiting."""
BUDGET_SPENT = "BudgetSpent"
"""Error type of a task that has attempts left and no money for them."""
DEFAULT_TIMEOUT_SECONDS = 300.0
"""AGENT_TASK_TIMEOUT_SECONDS' default: tasks that name no timeout end by it."""
FINISH_SECONDS = 1.0
"""How long a process that stops goes on sending what it has claimed."""


class RedispatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`longest_timeout`: seconds an attempt may take that names no timeout. `leads`: whether this process leads now."""

    longest_timeout: float = DEFAULT_TIMEOUT_SECONDS
    leads: Callable[[], bool] = lambda: True


DEFAULT_OPTIONS = RedispatchOptions()


class Redispatcher:
    """Start it once per process; `arm` tells when the next retry is due."""

    def __init__(
        self,
        bus: Bus,
        ledger: Ledger,
        dispatcher: Dispatcher,
        fleet: Fleet,
        *,
        clock: Clock,
        telemetry: Telemetry,
        options: RedispatchOptions = DEFAULT_OPTIONS,
    ) -> None:
        self._bus = bus
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._fleet = fleet
        self._clock = clock
        self._options = options
        self._throttle = RetryThrottle(ledger.tasks, fleet, dispatcher.retry_budget, clock=clock, telemetry=telemetry)
        self._telemetry = telemetry
        self._log = telemetry.log("intelligence")
        self._background = Background(self._log)
        self._next_due: float | None = None
        self._armed = asyncio.Event()
        self._held: dict[str, StoredTask] = {}
        self._sending: dict[str, StoredTask] = {}
        self._undivided = Undivided()
        """From a claim to the end of its sending."""
        self._left = 0
        """Claimed tasks that were left to the ledger, since the beginning."""

    async def start(self) -> None:
        self._background.keep("redispatch-due", self._follow_due)
        self._background.keep("redispatch-stranded", self._follow_stranded)
        self._background.keep("redispatch-held", self._follow_held)

    async def stop(self) -> None:
        """Finish what is being sent, within FINISH_SECONDS, and hand back what waits for an agent."""
        await self._undivided.close(FINISH_SECONDS)
        await self._background.stop()
        held, self._held = list(self._held.values()), {}
        try:
            await self._ledger.tasks.hand_back(held, self._clock.now())
        except Unavailable as error:
            self._log.warning("Tasks were not handed back and count as stranded", tasks=len(held), error=str(error))

    def arm(self, retry_at: float) -> None:
        """A retry is due at `retry_at` (epoch seconds)."""
        if self._next_due is None or retry_at < self._next_due:
            self._next_due = retry_at
            self._armed.set()

    async def send(self, tasks: Sequence[StoredTask], *, reason: str, elsewhere: bool = False) -> None:
        """Publish claimed tasks again; `elsewhere`: prefer another agent than the last one. Nothing is dropped.

        `reason` is counted: due, stranded, abandoned, held or reopened.
        """
        sent: list[tuple[str, Decision]] = []
        self._sending.update((stored.task.task_id, stored) for stored in tasks)
        waiting = iter(tasks)

        async def work() -> None:
            for stored in waiting:
                decision = await self._send_one(stored, elsewhere) if self._wanted(stored) else None
                if decision is not None:
                    sent.append((stored.task.task_id, decision))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(WINDOW, len(tasks))):
                    group.create_task(work())
        finally:
            for stored in tasks:
                if self._wanted(stored):
                    del self._sending[stored.task.task_id]
        if sent:
            self._telemetry.count("tasks_redispatched_total", len(sent), reason=reason)
            try:
                await self._ledger.tasks.redispatched(sent)
            except Unavailable as error:
                # The dispatch is true without its note; reports carry the agent.
                self._log.warning("New decisions were not noted", tasks=len(sent), error=str(error))

    @property
    def held(self) -> int:
        """Claimed tasks that wait for an agent."""
        return len(self._held)

    def forget(self, task_id: str) -> None:
        """Do not send a task that is held here, or on its way: it was cancelled."""
        self._held.pop(task_id, None)
        self._sending.pop(task_id, None)

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Hear what any router has recorded: what has ended, or was taken up by another one, is not sent from here."""
        if not self._held:
            return
        for outcome in outcomes:
            stored = self._held.get(outcome.task_id)
            if stored is not None and _settles(outcome, stored.generation):
                self.forget(outcome.task_id)

    def _wanted(self, stored: StoredTask) -> bool:
        """Whether it is still to be sent: nobody cancelled it since, or claimed it once more."""
        return self._sending.get(stored.task.task_id) is stored

    def _hold(self, stored: StoredTask) -> None:
        if self._wanted(stored):
            self._held[stored.task.task_id] = stored

    async def _send_one(self, stored: StoredTask, elsewhere: bool) -> Decision | None:
        task = stored.task
        if task.deadline is not None and task.deadline <= self._clock.now():
            gone = TaskError("DeadlinePassed", "the deadline passed before an agent could take the task")
            await self._end(stored, TaskStatus.EXPIRED, gone)
            return None
        try:
            decision = await self._dispatcher.send_again(stored, avoid=stored.last_agent if elsewhere else None)
        except (BudgetTooSmall, BudgetSpent) as error:
            await self._end(stored, TaskStatus.DEAD_LETTER, TaskError(BUDGET_SPENT, readable(str(error))))
            return None
        except AgentEnginesError as error:
            self._hold_or_leave(stored, error)
            return None
        self._held.pop(task.task_id, None)
        return decision

    def _hold_or_leave(self, stored: StoredTask, error: AgentEnginesError) -> None:
        """Keep what could not be sent, unless nobody may do it and as many of its sort as may wait here are waiting."""
        task_id = stored.task.task_id
        crowded = task_id not in self._held and len(self._held) >= HELD_FOR_AGENTS
        if isinstance(error, NoEligibleAgent) and crowded and self._fleet.heard_from:
            self._left += 1
            return
        self._hold(stored)
        self._log.warning("A task waits for an agent", task_id=task_id, error=str(error))

    async def _end(self, stored: StoredTask, status: TaskStatus, error: TaskError) -> None:
        """The task will not be sent any more."""
        task = stored.task
        report = Report(
            kind=ReportKind.FINAL,
            task_id=task.task_id,
            request_id=task.request_id,
            task_type=task.task_type,
            agent=stored.last_agent,
            generation=stored.generation,
            attempt=stored.attempt,
            delivery=0,
            status=status,
            error=error,
            completed_at=self._clock.now(),
            priority=task.priority,
            submitted_at=task.submitted_at,
            origin=task.origin,
            traceparent=task.traceparent,
        )
        try:
            verdicts = await self._ledger.tasks.record([report])
        except Unavailable:
            self._hold(stored)
            return
        self._held.pop(task.task_id, None)
        if verdicts == [Verdict.RECORDED]:
            await broadcast(self._bus, task.origin, report)

    async def _follow_due(self) -> None:
        while True:
            await self._wait_until_due()
            while len(self._held) < MAX_HELD:
                allowed, left = self._throttle.allowed(), self._left
                async with self._undivided:
                    due = await self._ledger.tasks.claim_due(self._clock.now(), CLAIM, retries=allowed)
                    retries = sum(stored.generation > 1 for stored in due)
                    self._throttle.spent(retries)
                    if due:
                        await self.send(due, reason="due", elsewhere=True)
                if self._left > left:
                    # The rest at the next poll: agents that have just not been heard from may be heard meanwhile.
                    self._log.warning("Tasks nobody may do wait in the ledger", tasks=self._left - left)
                    break
                if len(due) < CLAIM and not (retries >= allowed and await self._throttle.wait()):
                    break

    async def _wait_until_due(self) -> None:
        """Until the armed time, at most one poll interval."""
        self._armed.clear()
        until = self._clock.now() + POLL_SECONDS
        while (now := self._clock.now()) < until:
            if self._next_due is not None and self._next_due <= now:
                break
            end = until if self._next_due is None else min(until, self._next_due)
            await nap(self._clock, end - now, self._armed)
            self._armed.clear()
        if self._next_due is not None and self._next_due <= self._clock.now():
            self._next_due = None

    async def _follow_stranded(self) -> None:
        while True:
            await self._clock.sleep(STRANDED_SECONDS)
            # After a restore everything that was open is stranded: batch after batch, not one batch each look.
            while await self._send_stranded() == CLAIM:
                pass

    async def _send_stranded(self) -> int:
        """How many were claimed."""
        if len(self._held) >= MAX_HELD or not self._fleet.heard_from or not self._options.leads():
            return 0
        older_than = self._clock.now() - self.patience_seconds
        # What nobody may do now is best off where it is: taken, it would only make the dispatch that waits stale.
        kinds = [kind for kind in await self._ledger.tasks.stranded_kinds(older_than) if self._fleet.takes(kind)]
        async with self._undivided:
            stranded = await self._ledger.tasks.claim_stranded(older_than, CLAIM, kinds=kinds)
            if stranded:
                self._log.warning("Tasks without news are sent again", tasks=len(stranded))
                await self.send(stranded, reason="stranded")
        return len(stranded)

    @property
    def patience_seconds(self) -> float:
        """How long a task may be silent before it counts as stranded."""
        timeout = max(self._options.longest_timeout, self._fleet.longest_timeout_seconds)
        return 2 * self._bus.tasks.lease_seconds + timeout + 2 * self._fleet.longest_drain_seconds

    async def _follow_held(self) -> None:
        while True:
            await self._clock.sleep(AGAIN_SECONDS)
            async with self._undivided:
                if self._held:
                    await self.send(list(self._held.values()), reason="held", elsewhere=True)


def _settles(outcome: Outcome, generation: int) -> bool:
    """Whether a claim of this generation need not be sent: its task has ended, or an agent has it (the bus took it after all)."""
    if outcome.kind is ReportKind.FEEDBACK:
        return False
    if outcome.kind is ReportKind.FINAL and outcome.status in (TaskStatus.SUCCESS, TaskStatus.CANCELLED):
        return True
    return outcome.generation >= generation
