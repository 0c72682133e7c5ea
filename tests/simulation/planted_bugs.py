"""Ways to break a promise, each as small as the mistake a tired person makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.memory.ledger_tables import TaskRow
from agent_engines.adapters.memory.ledger_writer import MemoryTaskLedger
from agent_engines.domain.errors import AgentEnginesError, QueueFull, Unavailable
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.bus import ReportDelivery, ReportInbox
from agent_engines.ports.clock import Clock
from agent_engines.ports.connections import Connections
from agent_engines.ports.ledger import Entry, Known, StoredTask, Verdict
from agent_engines.runtime.attempt import Attempt, Outcome
from agent_engines.runtime.dispatcher import Dispatcher, Draft
from agent_engines.runtime.engine import Engine
from agent_engines.runtime.recorder import Recorder
from agent_engines.runtime.redispatch import Redispatcher
from agent_engines.runtime.reporter import Reporter
from agent_engines.runtime.worker import Worker
from agent_engines.testing.simulation.hosts import Parts
from agent_engines.testing.simulation.world import Planted


class AcksBeforeCommit(Recorder):
    """Acknowledges reports before they are in the ledger: a crash in between loses them."""

    async def _record(self, inbox: ReportInbox, batch: list[ReportDelivery], *, again: bool) -> None:
        await inbox.ack(batch)
        await super()._record(inbox, batch, again=again)


class _OtherWorker(Engine):
    """Hosts a worker that was tampered with."""

    async def start(self, connections: Connections) -> None:
        await super().start(connections)
        hosting = self._hosting
        assert hosting is not None
        assert hosting._worker is not None
        self.tamper(hosting._worker)

    def tamper(self, worker: Worker) -> None:
        raise NotImplementedError


class AcksBeforeReport(_OtherWorker):
    """Acknowledges a task as soon as its handler returned, before anybody else knows the outcome."""

    def tamper(self, worker: Worker) -> None:
        finish = worker._finish

        def hasty(attempt: Attempt, outcome: Outcome) -> None:
            worker._loop.create_task(worker._ack([attempt.delivery]))
            finish(attempt, outcome)

        worker._finish = hasty  # type: ignore[method-assign]


class DropsReports(_OtherWorker):
    """Gives up on a report the bus did not take, and settles its task all the same."""

    def tamper(self, worker: Worker) -> None:
        reporter: Reporter = worker.reporter
        bus = reporter._bus

        async def once(reports: list[Report]) -> None:
            try:
                await bus.publish_reports(reporter._agent, reports)
            except Unavailable:
                return

        reporter._insist = once  # type: ignore[method-assign]


class NeverReconciles(Redispatcher):
    """Nobody looks for tasks that went missing."""

    async def _follow_stranded(self) -> None:
        await self._clock.sleep(1e9)


class WithdrawsTooEagerly(Dispatcher):
    """Takes an unanswered publish for a refused one."""

    async def _publish(self, drafts: Sequence[Draft]) -> list[AgentEnginesError | None]:
        errors = await super()._publish(drafts)
        return [QueueFull("no answer") if isinstance(error, Unavailable) else error for error in errors]


class ForgetsKeys(Dispatcher):
    """Gives every submission an id of its own, whatever its key."""

    def _drafts(self, requests: Any, begin: int, turn: Any, submission: Any) -> Any:
        keyless = [msgspec.structs.replace(request, idempotency_key=None) for request in requests]
        drafts = super()._drafts(keyless, begin, turn, submission)
        for draft in drafts:
            key = requests[draft.place - begin].idempotency_key
            msgspec.structs.force_setattr(draft.task, "idempotency_key", key)
        return drafts


class _OtherLedger(MemoryLedger):
    """A ledger whose writer is a faulty one."""

    writer: type[MemoryTaskLedger]

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.tasks = self.writer(self.tables)


def ledger_with(faulty: type[MemoryTaskLedger]) -> type[MemoryLedger]:
    return type(faulty.__name__, (_OtherLedger,), {"writer": faulty})


class NoFence(MemoryTaskLedger):
    """Takes a failure from whichever generation it comes."""

    async def record(self, reports: Sequence[Report]) -> list[Verdict]:
        rows = self._tables.tasks
        return [
            self._record(report if (row := rows.get(report.task_id)) is None else self._as_if_current(report, row))
            for report in reports
        ]

    def _as_if_current(self, report: Report, row: TaskRow) -> Report:
        generation, row.generation = row.generation, report.generation
        try:
            self._record(report)
        finally:
            row.generation = generation
        return report


class LastWriterWins(MemoryTaskLedger):
    """Overwrites the end of a task with a later one."""

    def _record_final(self, report: Report) -> Verdict:
        if report.task_id in self._tables.outcomes and report.status.terminal:
            self._tables.end(report)
            return Verdict.RECORDED
        return super()._record_final(report)


class CountsTwice(MemoryTaskLedger):
    """Does not know a repeated report again: what is there already is written once more."""

    def _record_final(self, report: Report) -> Verdict:
        verdict = super()._record_final(report)
        if verdict is not Verdict.DUPLICATE:
            return verdict
        self._tables.end(report)
        return Verdict.RECORDED


class CancelsWithoutWriting(MemoryTaskLedger):
    """Says "cancelled" and only marks the task."""

    async def cancel(self, task_id: str, now: float) -> TaskStatus:
        row = self._tables.open.get(task_id)
        if row is not None and row.status is not TaskStatus.RUNNING:
            return TaskStatus.CANCELLED
        return await super().cancel(task_id, now)


class SameGeneration(MemoryTaskLedger):
    """Sends tasks again under the number they had."""

    def _claim(self, row: TaskRow, now: float, *, retry: bool) -> StoredTask | None:
        stored = super()._claim(row, now, retry=retry)
        if stored is None:
            return None
        row.generation -= 1
        return row.stored()


class BurnsTwo(MemoryTaskLedger):
    """Counts a retry when it is reported and again when it is claimed."""

    def _record_retry(self, report: Report) -> Verdict:
        verdict = super()._record_retry(report)
        if verdict is Verdict.RECORDED and report.kind is ReportKind.RETRY:
            row = self._tables.open.get(report.task_id)
            if row is not None:
                row.attempt += 1
        return verdict


class WithdrawsRegardless(MemoryTaskLedger):
    """Forgets a task although a second caller was told about it."""

    async def withdraw(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            row = self._tables.open.get(task_id)
            if row is not None:
                row.updated_at = row.task.submitted_at
        await super().withdraw(task_ids)


class LosesAcceptances(MemoryTaskLedger):
    """Answers before the commit: one acceptance in twenty is not written."""

    async def accept(self, entries: Sequence[Entry]) -> list[Known]:
        kept = [entry for entry in entries if sum(entry.task.task_id.encode()) % 20]
        return await super().accept(kept)


class EachLegRetries(MemoryTaskLedger):
    """Takes the failure of one leg of a hedged task for that of its attempt."""

    def _record_retry(self, report: Report) -> Verdict:
        row = self._tables.open.get(report.task_id)
        if row is not None and row.legs is not None and report.generation in row.legs:
            row.legs = {report.generation: row.legs[report.generation]}
        return super()._record_retry(report)


class LoserOverwrites(MemoryTaskLedger):
    """Of two legs that succeed the later one counts."""

    def _record_final(self, report: Report) -> Verdict:
        row = self._tables.tasks.get(report.task_id)
        hedged = row is not None and row.legs is not None and report.generation in row.legs
        if hedged and report.task_id in self._tables.outcomes and report.status is TaskStatus.SUCCESS:
            self._tables.end(report)
            return Verdict.RECORDED
        return super()._record_final(report)


PLANTED: dict[str, Planted] = {
    "the recorder acknowledges before the commit": Planted(parts=Parts(recorder=AcksBeforeCommit)),
    "the agent acknowledges before its report is durable": Planted(parts=Parts(engine=AcksBeforeReport)),
    "the reporter drops what the bus did not take": Planted(parts=Parts(engine=DropsReports)),
    "the reconciler is off": Planted(parts=Parts(redispatcher=NeverReconciles)),
    "a task is withdrawn after an unanswered publish": Planted(
        parts=Parts(dispatcher=WithdrawsTooEagerly), ledger=ledger_with(WithdrawsRegardless)
    ),
    "idempotency keys are forgotten": Planted(parts=Parts(dispatcher=ForgetsKeys)),
    "failures of superseded generations count": Planted(ledger=ledger_with(NoFence)),
    "a terminal row can be overwritten": Planted(ledger=ledger_with(LastWriterWins)),
    "a repeated report is written again": Planted(ledger=ledger_with(CountsTwice)),
    "a cancellation is confirmed and not written": Planted(ledger=ledger_with(CancelsWithoutWriting)),
    "a redispatch keeps its generation": Planted(ledger=ledger_with(SameGeneration)),
    "a retry burns two attempts": Planted(ledger=ledger_with(BurnsTwo)),
    "a full queue drops its oldest": Planted(discard_old=True),
    "each failing leg of a hedge starts a retry": Planted(ledger=ledger_with(EachLegRetries)),
    "the loser of a hedge overwrites the winner": Planted(ledger=ledger_with(LoserOverwrites)),
    "one acceptance in twenty is not committed": Planted(ledger=ledger_with(LosesAcceptances)),
}
