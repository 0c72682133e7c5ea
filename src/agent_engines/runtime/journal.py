"""The task journal: what is accepted while the ledger is away, and how it comes into the ledger afterwards.

away:  agent's queue (without a key) -> JOURNAL -> the caller's answer says `durability: journal`
back:  JOURNAL -> ledger (accept, repeatable) -> agent's queue (with a key, if the ledger calls it new) -> ack

Only where the bus is safe by itself (ADR 0013). What was reported meanwhile waits in the report log and may be recorded
before or after the task: `accept` starts from what is there, whoever comes second.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent_engines.domain.errors import AgentEnginesError, Conflict, InvalidRequest, QueueFull, TooLarge, Unavailable
from agent_engines.domain.journal import JournalEntry
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.bus import Bus, JournalDelivery, JournalInbox
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import Entry, Known, TaskLedger
from agent_engines.ports.telemetry import Telemetry

from .background import Background
from .drafts import SAME_WRITE_SECONDS, Draft

PULL = 500
PULL_SECONDS = 5.0
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 2.0
SEND_AGAIN_SECONDS = 1.0
FULL_RETRY_SECONDS = 5.0


class TaskJournal:
    """Start it once per process; all routers share what waits."""

    def __init__(self, bus: Bus, ledger: TaskLedger, *, clock: Clock, telemetry: Telemetry) -> None:
        self._bus = bus
        self._ledger = ledger
        self._clock = clock
        self._telemetry = telemetry
        self._log = telemetry.log("intelligence")
        self._background = Background(self._log)
        self._inbox: JournalInbox | None = None

    @property
    def open(self) -> bool:
        """Whether a task may be accepted without the ledger."""
        return self._bus.safe

    async def start(self) -> None:
        """Entries may be left from a time when the bus was safe, so somebody always looks."""
        self._inbox = await self._bus.journal.open_journal()
        self._background.keep("journal-keeper", self._keep)

    async def stop(self) -> None:
        await self._background.stop()
        if self._inbox is not None:
            await self._inbox.close()
            self._inbox = None

    async def stand_in(
        self,
        drafts: Sequence[Draft],
        known: list[Known | AgentEnginesError | None],
        errors: Sequence[AgentEnginesError | None],
    ) -> set[int]:
        """Journal the drafts the ledger could not take; what that says replaces the ledger's word in `known`.

        `errors`: why a draft is not on its agent's queue; such a one is refused. Returns the places of the others.
        """
        if not self.open:
            return set()
        places = [at for at, said in enumerate(known) if isinstance(said, Unavailable) and errors[at] is None]
        if places:
            entries = [
                JournalEntry.of(draft.task, draft.decision, draft.message, sent=not draft.after_ledger)
                for draft in map(drafts.__getitem__, places)
            ]
            for at, said in zip(places, await self.write(entries), strict=True):
                known[at] = said
        return set(places)

    async def write(self, entries: Sequence[JournalEntry]) -> list[Known | AgentEnginesError | None]:
        """For each: None when it is durable, what the journal had already under its key, or why it was not accepted."""
        try:
            outcomes = await self._bus.journal.publish_entries(entries)
        except AgentEnginesError as error:
            outcomes = [error] * len(entries)
        answers = [await self._answer(entry, outcome) for entry, outcome in zip(entries, outcomes, strict=True)]
        written = answers.count(None)
        if written:
            self._telemetry.count("tasks_journaled_total", written)
        return answers

    async def bring(self, task_id: str) -> bool:
        """Bring one task into the ledger now, because somebody asks for it; False when the journal has none. Raises Unavailable."""
        if not self.open:
            return False
        try:
            entry = await self._bus.journal.find(task_id)
        except InvalidRequest:
            return False
        if entry is None:
            return False
        await self._ledger.accept([Entry(entry.task, entry.decision)])
        return True

    async def _answer(self, entry: JournalEntry, outcome: Exception | None) -> Known | AgentEnginesError | None:
        match outcome:
            case None:
                return None
            case Conflict():
                return await self._first(entry)
            case QueueFull():
                # Not the caller's doing, as a full queue is: the ledger is away, and there is no room to wait for it.
                return Unavailable("the ledger is away and the journal is full", retry_after=FULL_RETRY_SECONDS)
            case TooLarge() | Unavailable():
                return outcome
            case _:
                self._log.error("A task could not be journaled", task_id=entry.task.task_id, error=repr(outcome))
                return Unavailable("the ledger is away and the journal did not take the task")

    async def _first(self, entry: JournalEntry) -> Known | AgentEnginesError | None:
        """The entry that was there before; our own, if its acknowledgement was lost, is none."""
        try:
            first = await self._bus.journal.find(entry.task.task_id)
        except AgentEnginesError as error:
            return error
        if first is None:
            return Unavailable("the ledger is away and the journal has just forgotten this task")
        if first.task.request_id == entry.task.request_id and first.decision.created_at == entry.decision.created_at:
            return None
        return Known(first.task.task_id, first.task.body_hash, TaskStatus.QUEUED, first.decision)

    async def _keep(self) -> None:
        inbox = self._inbox
        if inbox is None:
            return
        while True:
            batch = await inbox.pull(PULL, PULL_SECONDS)
            if batch:
                await self._insist(inbox, batch)

    async def _insist(self, inbox: JournalInbox, batch: Sequence[JournalDelivery]) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                known = {one.task_id: one for one in await self._accept([delivery.entry for delivery in batch])}
                await self._ledger.renew([delivery.entry.task.task_id for delivery in batch], self._clock.now())
                break
            except Unavailable as error:
                # Held, not released: the ledger is away for everybody, and the bus delivers again if we die.
                self._log.info("The journal waits for the ledger", tasks=len(batch), error=str(error))
            await self._clock.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        unsent = await self._send(batch, known)
        await inbox.release(unsent, SEND_AGAIN_SECONDS)
        done = [delivery for delivery in batch if delivery not in unsent]
        await inbox.ack(done)
        if done:
            self._telemetry.count("journal_entries_settled_total", len(done))
            self._log.info("Journaled tasks are in the ledger", tasks=len(done), unsent=len(unsent))

    async def _accept(self, entries: Sequence[JournalEntry]) -> list[Known]:
        """All of them; one the ledger cannot store is left out. Raises Unavailable."""
        try:
            return await self._ledger.accept([Entry(entry.task, entry.decision) for entry in entries])
        except Unavailable:
            raise
        except Exception as error:
            if len(entries) == 1:
                # It was checked before it was accepted, so this is a defect; its bytes stay in the log.
                self._log.error(
                    "A journaled task is refused by the ledger", task=entries[0].task.task_id, error=repr(error)
                )
                return []
            middle = len(entries) // 2
            return await self._accept(entries[:middle]) + await self._accept(entries[middle:])

    async def _send(self, batch: Sequence[JournalDelivery], known: dict[str, Known]) -> list[JournalDelivery]:
        """Publish what waited for the ledger's word; returns what the bus did not take."""
        waiting = [
            (delivery, message)
            for delivery in batch
            if (message := delivery.entry.dispatch) is not None and _is_new(delivery.entry, known)
        ]
        if not waiting:
            return []
        outcomes = await self._bus.tasks.publish_tasks([message for _, message in waiting])
        return [delivery for (delivery, _), outcome in zip(waiting, outcomes, strict=True) if outcome is not None]


def _is_new(entry: JournalEntry, known: dict[str, Known]) -> bool:
    """Whether the ledger has the task by this very entry, and nothing has happened to it since."""
    found = known.get(entry.task.task_id)
    if found is None:
        return True
    if found.decision is None or found.status is not TaskStatus.QUEUED:
        return False
    same = found.decision.request_id == entry.decision.request_id
    return same and abs(found.decision.created_at - entry.decision.created_at) < SAME_WRITE_SECONDS
