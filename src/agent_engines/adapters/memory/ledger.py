"""The ledger in memory: dictionaries under the same rules, for tests and for life in one process."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent_engines.domain.agents import AgentMode, AgentProfile, modes_noted
from agent_engines.domain.errors import Unavailable
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import AgentRecord
from agent_engines.ports.retention import Purged

from .feedback import MemoryFeedback
from .learned import MemoryLearned
from .ledger_reader import MemoryDecisionLog, MemoryTaskReader
from .ledger_tables import Tables
from .ledger_writer import MemoryTaskLedger
from .redrives import MemoryRedrives
from .schedules import MemorySchedules
from .secrets import MemorySecrets
from .tenants import MemoryTenants


class MemoryLedger:
    """See ports/ledger.py: Ledger. Nothing here awaits, so every call is a transaction."""

    def __init__(self, clock: Clock) -> None:
        tables = self.tables = Tables(clock)
        self.tasks = MemoryTaskLedger(tables)
        self.reader = MemoryTaskReader(tables)
        self.decisions = MemoryDecisionLog(tables)
        self.agents = MemoryAgentDirectory(tables)
        self.retention = MemoryRetention(tables)
        self.schedules = MemorySchedules()
        self.redrives = MemoryRedrives()
        self.tenants = MemoryTenants(tables)
        self.feedback = MemoryFeedback(tables)
        self.secrets = MemorySecrets()
        self.learned = MemoryLearned()

    async def check(self) -> bool:
        return True

    def refusal(self) -> Unavailable | None:
        return None

    async def close(self) -> None:
        """Nothing to let go of."""


class MemoryAgentDirectory:
    """See ports/ledger.py: AgentDirectory."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def register(self, profiles: Sequence[AgentProfile], now: float) -> dict[str, AgentMode]:
        for profile in profiles:
            known = self._tables.agents.get(profile.name)
            self._tables.agents[profile.name] = AgentRecord(
                name=profile.name,
                agent_type=profile.agent_type,
                status="healthy" if known is None else known.status,
                capabilities=msgspec.to_builtins(profile.capabilities),
                metadata=profile.metadata,
                created_at=now if known is None else known.created_at,
                last_seen=max(now, (known and known.last_seen) or now),
            )
        return modes_noted((profile.name, self._tables.agents[profile.name].status) for profile in profiles)

    async def seen(self, names: Sequence[str], now: float) -> None:
        for name in names:
            known = self._tables.agents.get(name)
            if known is not None:
                last_seen = max(now, known.last_seen or now)
                self._tables.agents[name] = msgspec.structs.replace(known, last_seen=last_seen)

    async def set_status(self, name: str, status: str) -> None:
        known = self._tables.agents.get(name)
        if known is None:
            self._tables.agents[name] = AgentRecord(
                name=name,
                agent_type="custom",
                status=status,
                capabilities=[],
                metadata={},
                created_at=self._tables.clock.now(),
                last_seen=None,
            )
        else:
            self._tables.agents[name] = msgspec.structs.replace(known, status=status)

    async def agents(self) -> list[AgentRecord]:
        return [self._tables.agents[name] for name in sorted(self._tables.agents)]


class MemoryRetention:
    """See ports/retention.py: Retention."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def purge(self, older_than: float) -> Purged:
        tables = self._tables
        old = [task_id for task_id, outcome in tables.outcomes.items() if outcome.recorded_at < older_than]
        tasks = 0
        for task_id in old:
            del tables.outcomes[task_id]
            tables.attempts.pop(task_id, None)
            tables.letters.pop(task_id, None)
            for key in [key for key in tables.feedback if key[0] == task_id]:
                del tables.feedback[key]
            tasks += tables.tasks.pop(task_id, None) is not None
        stale = [
            name
            for name, row in tables.decisions.items()
            if row.decision.created_at < older_than and row.decision.task_id not in tables.tasks
        ]
        for name in stale:
            del tables.decisions[name]
        return Purged(tasks, len(old), len(stale))
