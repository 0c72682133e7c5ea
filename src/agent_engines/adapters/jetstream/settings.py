"""Shared settings in a JetStream key-value bucket (the layout every NATS client understands)."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from agent_engines.domain import subjects
from agent_engines.domain.errors import Conflict, InvalidRequest
from agent_engines.ports.telemetry import Log

from .api import JetStreamApi
from .connection import Connection
from .ordered import OrderedReader
from .requests import Outgoing, Requests

STREAM = f"KV_{subjects.SETTINGS_BUCKET}"
PREFIX = f"$KV.{subjects.SETTINGS_BUCKET}."
KEY = re.compile(r"[A-Za-z0-9_=/-]+(\.[A-Za-z0-9_=/-]+)*")
DELETED = b"KV-Operation: DEL"
GONE = (b"KV-Operation: DEL", b"KV-Operation: PURGE", b"Nats-Marker-Reason:")
"""Headers of messages that say a key is not there: deleted, purged, or expired by the server."""
MIN_TTL_SECONDS = 1.0
"""The server's smallest time to live."""


class JetStreamSettings:
    """Implements ports.bus.Settings."""

    def __init__(self, connection: Connection, requests: Requests, api: JetStreamApi, log: Log) -> None:
        self._connection = connection
        self._requests = requests
        self._api = api
        self._log = log

    async def get(self, key: str) -> tuple[bytes, int] | None:
        value, revision = await self._last(key)
        return None if value is None else (value, revision)

    async def put(self, key: str, value: bytes, *, revision: int | None = None, ttl: float | None = None) -> int:
        lines: list[str] = []
        if ttl is not None:
            lines.append(f"Nats-TTL: {round(max(MIN_TTL_SECONDS, ttl) * 1000)}ms")
        if revision is None:
            return await self._write(key, value, lines)
        try:
            return await self._write(key, value, [*lines, _expected(revision)])
        except Conflict:
            if revision != 0:
                raise
            # "Only if absent" also holds for a key that was deleted: its marker is what the server compares with.
            stored, marker = await self._last(key)
            if stored is not None:
                raise
            return await self._write(key, value, [*lines, _expected(marker)])

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        lines = [DELETED.decode()]
        if revision is not None:
            lines.append(_expected(revision))
        await self._write(key, b"", lines)

    async def watch(self, prefix: str) -> AsyncGenerator[tuple[str, bytes | None], None]:
        # Subjects are filtered by whole tokens; the rest of the prefix is compared here.
        head = prefix[: prefix.rfind(".") + 1]
        if head and not KEY.fullmatch(head[:-1]):
            raise InvalidRequest(f"{prefix!r} is not a prefix of settings", field="prefix")
        reader = OrderedReader(
            self._connection,
            self._api,
            STREAM,
            subject=f"{PREFIX}{head}>",
            start={"deliver_policy": "last_per_subject"},
            log=self._log,
        )
        known: set[str] = set()
        async with aclosing(reader.read()) as arrivals:
            async for _, arrival in arrivals:
                key = arrival.subject.decode().removeprefix(PREFIX)
                if not key.startswith(prefix):
                    continue
                if not _says_gone(arrival.header):
                    known.add(key)
                    yield key, arrival.data
                elif key in known:
                    known.discard(key)
                    yield key, None

    async def _last(self, key: str) -> tuple[bytes | None, int]:
        """(value, or None when the key is not there; sequence of the last message, 0 when there never was one)"""
        found = await self._api.find(f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": f"{PREFIX}{_valid(key)}"})
        if found is None:
            return None, 0
        message: dict[str, Any] = found["message"]
        header = base64.b64decode(message.get("hdrs") or "")
        value = None if _says_gone(header) else base64.b64decode(message.get("data") or "")
        return value, int(message["seq"])

    async def _write(self, key: str, value: bytes, lines: list[str]) -> int:
        header = "".join(f"{line}\r\n" for line in lines)
        block = f"NATS/1.0\r\n{header}\r\n".encode() if lines else b""
        return await self._requests.publish(Outgoing(f"{PREFIX}{_valid(key)}".encode(), value, block))


def _expected(revision: int) -> str:
    return f"Nats-Expected-Last-Subject-Sequence: {revision}"


def _says_gone(header: bytes | None) -> bool:
    return bool(header) and any(mark in header for mark in GONE)


def _valid(key: str) -> str:
    """Raises InvalidRequest."""
    if KEY.fullmatch(key):
        return key
    raise InvalidRequest(f"{key!r} is not a settings key", field="key")
