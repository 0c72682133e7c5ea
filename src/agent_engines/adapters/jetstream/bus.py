"""The whole bus over one NATS connection."""

from __future__ import annotations

import asyncio

from agent_engines.domain.errors import Unavailable
from agent_engines.ports.telemetry import Log
from agent_engines.runtime.plain_log import PlainLog

from .api import JetStreamApi
from .connection import Address, Connection, Security
from .journal import JetStreamJournal
from .lessons import JetStreamLessons
from .report_bus import JetStreamReports
from .requests import Requests
from .settings import JetStreamSettings
from .signals import JetStreamSignals
from .streams import Limits, fewest_copies, provision
from .task_bus import JetStreamTasks

CHECK_SECONDS = 2.0
GATHERING_SECONDS = 30.0
"""How long a start waits for a cluster that elects its leaders."""
SAFE_COPIES = 3


class JetStreamBus:
    """Implements ports.bus.Bus. Made by `connect`."""

    def __init__(
        self, connection: Connection, requests: Requests, *, lease_seconds: float, limits: Limits, log: Log
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._lease_seconds = lease_seconds
        self._log = log
        self._safe = False
        self._api = JetStreamApi(requests)
        self.tasks = JetStreamTasks(connection, requests, self._api, lease_seconds=lease_seconds, log=log)
        self.reports = JetStreamReports(connection, requests, self._api, lease_seconds=lease_seconds, log=log)
        self.journal = JetStreamJournal(connection, requests, self._api, lease_seconds=lease_seconds, log=log)
        self.lessons = JetStreamLessons(connection, requests, self._api, log=log)
        self.signals = JetStreamSignals(connection, requests, log)
        self.settings = JetStreamSettings(connection, requests, self._api, log)

    @classmethod
    async def connect(
        cls,
        servers: str,
        *,
        name: str = "agent-engines",
        lease_seconds: float = 30.0,
        limits: Limits | None = None,
        security: Security | None = None,
        log: Log | None = None,
    ) -> JetStreamBus:
        """Connect to a comma list of nats:// or tls:// URLs. Raises ConfigurationError, Unavailable (within 3 s)."""
        log = log or PlainLog("bus")
        connection = Connection(Address.parse(servers), name, security or Security(), log)
        await connection.open()
        requests = Requests(connection)
        try:
            await requests.open()
        except BaseException:
            await connection.close()
            raise
        return cls(connection, requests, lease_seconds=lease_seconds, limits=limits or Limits(), log=log)

    @property
    def safe(self) -> bool:
        """Known after `provision`."""
        return self._safe

    @property
    def connected(self) -> bool:
        return self._connection.connected

    @property
    def max_message_bytes(self) -> int:
        return self._connection.max_payload

    @property
    def subscriptions(self) -> int:
        """How many are open: a leak shows here."""
        return self._connection.feeds

    async def check(self) -> bool:
        return await self._connection.ping(CHECK_SECONDS)

    async def provision(self) -> None:
        clustered = self._connection.clustered
        limits = self._limits.settled(clustered=clustered)
        end = asyncio.get_running_loop().time() + (GATHERING_SECONDS if clustered else 0.0)
        while True:
            try:
                return await self._provision(limits)
            except Unavailable as error:
                if asyncio.get_running_loop().time() >= end:
                    raise
                self._log.info("The streams wait for the cluster", error=error.detail)
            await asyncio.sleep(0.5)

    async def _provision(self, limits: Limits) -> None:
        await provision(self._api, limits, self._lease_seconds, self._log)
        self._safe = limits.sync_always or await fewest_copies(self._api) >= SAFE_COPIES

    async def copies(self) -> int:
        """Replicas of the stream that has the fewest. Raises Unavailable."""
        return await fewest_copies(self._api)

    async def close(self) -> None:
        await self.signals.close()
        await self._connection.close()
