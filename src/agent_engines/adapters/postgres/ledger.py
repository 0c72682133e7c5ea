"""The ledger on PostgreSQL: one pool of connections with its parts."""

from __future__ import annotations

import asyncio

from agent_engines.domain.errors import Unavailable
from agent_engines.ports.telemetry import Log
from agent_engines.runtime.dependency import Dependency

from .agent_directory import PostgresAgentDirectory
from .decision_log import PostgresDecisionLog
from .feedback_store import PostgresFeedback
from .learned_store import PostgresLearned
from .pool import ASK_SECONDS, Connection, Pool
from .redrive_store import PostgresRedrives
from .retention import PostgresRetention
from .schedule_store import PostgresSchedules
from .schema import require_schema
from .shared_secrets import PostgresSecrets
from .task_ledger import PostgresTaskLedger
from .task_reader import PostgresTaskReader
from .tenant_store import PostgresTenants


class PostgresLedger:
    """See ports/ledger.py: Ledger."""

    def __init__(self, pool: Pool, *, log: Log | None = None) -> None:
        self._pool = pool
        self.tasks = PostgresTaskLedger(pool, log=log)
        self.reader = PostgresTaskReader(pool)
        self.decisions = PostgresDecisionLog(pool)
        self.agents = PostgresAgentDirectory(pool)
        self.retention = PostgresRetention(pool)
        self.schedules = PostgresSchedules(pool)
        self.redrives = PostgresRedrives(pool)
        self.tenants = PostgresTenants(pool)
        self.feedback = PostgresFeedback(pool)
        self.secrets = PostgresSecrets(pool)
        self.learned = PostgresLearned(pool)

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        pool_min: int = 5,
        pool_max: int = 20,
        log: Log | None = None,
        dependency: Dependency | None = None,
    ) -> PostgresLedger:
        """`log` is told of reports that could not be stored as they came. Raises Unavailable (nobody answers), ConfigurationError (the address or the login is wrong)."""
        return cls(await Pool.connect(dsn, minimum=pool_min, maximum=pool_max, dependency=dependency), log=log)

    async def require_schema(self) -> None:
        """Raises ConfigurationError when `engines db migrate` has to run first, Unavailable."""
        await require_schema(self._pool)

    async def check(self) -> bool:
        """A real query within 2 seconds."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await self._pool.run(_ask, insist=True)
        except (TimeoutError, Unavailable):
            return False

    def refusal(self) -> Unavailable | None:
        return self._pool.refusal()

    async def close(self) -> None:
        await self._pool.close()


async def _ask(connection: Connection) -> bool:
    return await connection.fetchval("SELECT 1") == 1
