"""Intake: bodies are read here, bounded in size, in time and in what all of them hold together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from agent_engines.domain.errors import InvalidRequest, TooLarge, Unavailable

from .deadlines import Deadlines
from .limits import ApiLimits
from .problems import BodyTimeout

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class BodyLost(Exception):
    """The caller hung up in the middle of the body."""


class Intake:
    """Reads bodies for one application. `buffered` is what unfinished bodies hold now, in bytes."""

    def __init__(self, limits: ApiLimits) -> None:
        self._limits = limits
        self._deadlines = Deadlines(limits.body_seconds)
        self.buffered = 0

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
        """The body, whole. Raises TooLarge, BodyTimeout, Unavailable (too many unfinished bodies), BodyLost."""
        declared = _declared(headers)

        async def whole() -> bytes:
            if declared is not None and declared > limit:
                await self._refuse(headers, receive, declared)
                raise _too_large(limit)
            message = await receive()
            if message["type"] != "http.request" or message.get("more_body", False):
                return await self._gather(message, receive, limit)
            body: bytes = message.get("body", b"")
            if len(body) > limit:
                raise _too_large(limit)
            return body

        try:
            return await self._deadlines.hold(whole)
        except TimeoutError:
            raise BodyTimeout(f"the body did not arrive within {self._limits.body_seconds:g} seconds") from None

    async def _gather(self, message: MutableMapping[str, Any], receive: Receive, limit: int) -> bytes:
        body = bytearray()
        try:
            while True:
                if message["type"] == "http.disconnect":
                    raise BodyLost
                chunk: bytes = message.get("body", b"")
                body += chunk
                self.buffered += len(chunk)
                if len(body) > limit:
                    await self._discard(receive, self._limits.drain_bytes)
                    raise _too_large(limit)
                if self.buffered > self._limits.buffered_bytes:
                    raise Unavailable("too many large bodies are arriving at once", retry_after=1.0)
                if not message.get("more_body", False):
                    return bytes(body)
                message = await receive()
        finally:
            self.buffered -= len(body)

    async def _refuse(self, headers: Mapping[bytes, bytes], receive: Receive, declared: int) -> None:
        # Closing on a caller who is still sending resets the connection, and the refusal is lost with it.
        # Whoever asked first (Expect: 100-continue) has not begun to send.
        if b"expect" not in headers and declared <= self._limits.drain_bytes:
            await self._discard(receive, declared)

    async def _discard(self, receive: Receive, most: int) -> None:
        seen = 0
        while seen <= most:
            message = await receive()
            seen += len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return


def _declared(headers: Mapping[bytes, bytes]) -> int | None:
    value = headers.get(b"content-length")
    if value is None:
        return None
    if not value.isdigit() or len(value) > 19:
        raise InvalidRequest("Content-Length must be a number of bytes", field="Content-Length")
    return int(value)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is over {limit} bytes")
