"""The group commit: entries of many submissions into the ledger in one transaction, one word about each."""

from __future__ import annotations

from collections.abc import Sequence

from agent_engines.domain.errors import AgentEnginesError, InvalidRequest, Unavailable
from agent_engines.ports.ledger import Entry, Known, TaskLedger
from agent_engines.ports.telemetry import Log


class GroupCommit:
    """Call it with a batch; what a Batcher flushes with."""

    def __init__(self, tasks: TaskLedger, log: Log) -> None:
        self._tasks = tasks
        self._log = log

    async def __call__(self, entries: Sequence[Entry]) -> list[Known | BaseException | None]:
        """Of two entries with one task id the first is written, the second learns of it. Raises Unavailable."""
        first: dict[str, Entry] = {}
        for entry in entries:
            first.setdefault(entry.task.task_id, entry)
        again = [entry for entry in entries if first[entry.task.task_id] is not entry]
        try:
            known = {found.task_id: found for found in await self._tasks.accept(list(first.values()))}
            # Asked by itself, so that the ledger knows: the first one must not be withdrawn any more.
            told = {found.task_id: found for found in await self._tasks.accept(again)} if again else {}
        except Unavailable:
            raise
        except Exception as error:
            if len(entries) == 1:
                raise
            # One entry the ledger cannot take must not refuse the hundreds that travel with it.
            self._log.error("A batch was refused by the ledger and is tried one by one", error=repr(error))
            return [await self._alone(entry) for entry in entries]
        return [(known if first[entry.task.task_id] is entry else told).get(entry.task.task_id) for entry in entries]

    async def _alone(self, entry: Entry) -> Known | BaseException | None:
        try:
            found = await self._tasks.accept([entry])
        except AgentEnginesError as error:
            return error
        except Exception as error:
            self._log.error("The ledger refused a task", task_id=entry.task.task_id, error=repr(error))
            return InvalidRequest(f"the ledger cannot store this task: {error}")
        return found[0] if found else None
