"""A stream read in order from somewhere on: what is stored, then what comes, over reconnects, without gaps."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from agent_engines.domain.errors import Unavailable
from agent_engines.ports.telemetry import Log

from .api import NANOSECONDS, JetStreamApi
from .connection import Connection
from .lane import Arrival, Lane

BATCH = 256
WAIT_SECONDS = 30.0
FORGET_SECONDS = 60
"""The server drops the consumer of a reader that vanished after this long."""


class OrderedReader:
    """Reads one filtered subject by a short-lived consumer that is made again, further on, whenever one may have a gap."""

    def __init__(
        self, connection: Connection, api: JetStreamApi, stream: str, *, subject: str, start: dict[str, Any], log: Log
    ) -> None:
        self._connection = connection
        self._api = api
        self._stream = stream
        self._subject = subject
        self._start = start
        self._log = log
        self._name = ""
        self._last = 0
        self._expected = 1

    async def read(self) -> AsyncGenerator[tuple[int, Arrival], None]:
        """(stream sequence, arrival) for ever; ends nothing but itself when closed. Raises Unavailable at the start only."""
        # The consumer has no copy: when its server is gone it is gone.
        lane = Lane(self._connection, self._stream, self._ensure, self._log, patience=0.0)
        await lane.open()
        seen = lane.interruptions
        try:
            while True:
                try:
                    if lane.interruptions != seen:
                        await lane.renew()
                        seen = lane.interruptions
                    arrivals = await lane.pull(BATCH, WAIT_SECONDS)
                except Unavailable as error:
                    self._log.info("Reading a stream waits for the bus", stream=self._stream, error=error.detail)
                    await self._connection.until_connected(WAIT_SECONDS)
                    continue
                for arrival in arrivals:
                    sequence, count = arrival.sequences
                    if count != self._expected:
                        lane.interruptions += 1
                        break
                    self._expected += 1
                    self._last = sequence
                    yield sequence, arrival
        finally:
            await lane.close()
            await self._forget()

    async def _ensure(self) -> str:
        """A consumer that starts after the last message that was read."""
        await self._forget()
        start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last + 1} if self._last else self._start
        name = self._connection.new_inbox().rpartition(".")[2]
        await self._api.ensure_consumer(
            self._stream,
            name,
            {
                "ack_policy": "none",
                "replay_policy": "instant",
                "max_deliver": 1,
                "mem_storage": True,
                "num_replicas": 1,
                "inactive_threshold": FORGET_SECONDS * NANOSECONDS,
                "filter_subject": self._subject,
                **start,
            },
        )
        self._name = name
        self._expected = 1
        return name

    async def _forget(self) -> None:
        name, self._name = self._name, ""
        if not name or not self._connection.connected:
            return
        try:
            await self._api.drop_consumer(self._stream, name)
        except Unavailable as error:
            self._log.debug("A reader's consumer is left to expire", stream=self._stream, error=error.detail)
