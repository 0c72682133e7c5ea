"""The ledger as one process sees it: the in-memory ledger behind the network, with everything it commits on record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.adapters.memory.ledger_tables import OutcomeRow
from agent_engines.domain.messages import Report
from agent_engines.ports.ledger import Ledger, StoredTask
from agent_engines.testing.evidence import Evidence

from .network import Network
from .process import Process

LEDGER = "ledger"
DISPATCHES = {"hedge": "hedged", "claim_due": "retried"}
"""Calls that give out dispatches, as the evidence calls them. Planned tasks are given out by `claim_due` too, as generation 1."""


class TerminalRows(dict[str, OutcomeRow]):
    """The table of terminal rows, telling of every write."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__()
        self._evidence = evidence

    def __setitem__(self, task_id: str, row: OutcomeRow) -> None:
        self._evidence.row("changed" if task_id in self else "written", task_id, row.report.status)
        super().__setitem__(task_id, row)

    def pop(self, key: str, *default: Any) -> Any:
        if key in self:
            self._evidence.row("removed", key, self[key].report.status)
        return super().pop(key, *default)

    def __delitem__(self, task_id: str) -> None:
        self._evidence.row("removed", task_id, self[task_id].report.status)
        super().__delitem__(task_id)


class LedgerServer:
    """One ledger, many processes. `view(process)` implements ports.ledger.Ledger."""

    def __init__(self, network: Network, ledger: MemoryLedger, evidence: Evidence) -> None:
        self.network = network
        self.ledger = ledger
        self.evidence = evidence
        ledger.tables.outcomes = TerminalRows(evidence)

    def view(self, process: Process) -> Ledger:
        return cast("Ledger", _View(self, process))


class _View:
    """Parts are looked up by name, so that the ledger's port stays described in one place."""

    def __init__(self, server: LedgerServer, process: Process) -> None:
        ledger = server.ledger
        self.tasks = _Part(server, process, ledger.tasks)
        self.reader = _Part(server, process, ledger.reader)
        self.decisions = _Part(server, process, ledger.decisions)
        self.agents = _Part(server, process, ledger.agents)

    async def check(self) -> bool:
        return True

    def refusal(self) -> None:
        """Every call finds out for itself."""

    async def close(self) -> None:
        """Nothing to let go of."""


class _Part:
    def __init__(self, server: LedgerServer, process: Process, part: Any) -> None:
        self._server = server
        self._process = process
        self._part = part

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._part, name)
        server, process = self._server, self._process

        async def remote(*arguments: Any, **options: Any) -> Any:
            def work() -> Any:
                value = _run(method(*arguments, **options))
                if name == "record":
                    reports: Sequence[Report] = arguments[0]
                    server.evidence.committed(reports)
                elif name in DISPATCHES:
                    claimed: Sequence[StoredTask] = value
                    again = [(one.task.task_id, one.generation) for one in claimed if one.generation > 1]
                    server.evidence.dispatched(DISPATCHES[name], again)
                return value

            return await server.network.call(process, LEDGER, _told(name, arguments), work)

        return remote


def _run(work: Any) -> Any:
    """The value of a coroutine that never waits: in memory, every call is a transaction."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    work.close()
    raise RuntimeError("the in-memory ledger must not wait")


def _told(name: str, arguments: tuple[Any, ...]) -> str:
    """A line for the log: what, and about which tasks."""
    first = arguments[0] if arguments else None
    if name == "accept":
        return f"accept {[entry.task.task_id for entry in first or ()]}"
    if name == "record":
        return f"record {[(r.task_id, r.generation, r.attempt, str(r.kind), str(r.status)) for r in first or ()]}"
    if name == "hedge":
        return f"hedge {[(one.decision.task_id, one.first, one.decision.selected_agent) for one in first or ()]}"
    if name == "redispatched":
        return f"redispatched {[(task_id, decision.selected_agent) for task_id, decision in first or ()]}"
    return (
        f"{name} {first if isinstance(first, str | list | tuple) and name in ('cancel', 'withdraw', 'reopen') else ''}"
    )
