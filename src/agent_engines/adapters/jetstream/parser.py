"""The server's side of the NATS protocol, read in one pass over each chunk.

nats-py tries a regular expression and awaits a coroutine for every message, which is half of the cost of a task on the
bus; here a message is two searches and two slices. What is not a message goes to the client as before.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from nats.errors import ProtocolError

MAX_LINE = 65_536
"""A control line longer than this is not NATS (an INFO line of a large cluster has some thousand bytes)."""


MESSAGES = frozenset({b"MSG ", b"HMSG"})


class Receiver(Protocol):
    """What the parser needs from the client; `deliver` says False when the base class must handle the message."""

    def deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes, header: bytes | None) -> bool: ...

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None: ...

    async def _process_ping(self) -> None: ...

    async def _process_pong(self) -> None: ...

    async def _process_err(self, err_msg: str) -> None: ...

    async def _process_info(self, info: dict[str, Any]) -> None: ...


class Parser:
    """Keeps what is incomplete until the next chunk."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._chunks: list[bytes] = []
        self._have = 0
        self._wanted = 0
        """Bytes of the chunks, and how many of them the first message needs to be complete; 0: not known."""

    def reset(self) -> None:
        """Forget the rest of a connection that went."""
        self._keep(b"", 0)

    async def parse(self, data: bytes = b"") -> None:
        """Raises ProtocolError."""
        # A large message arrives in many chunks: they are put together once, when it is complete.
        self._chunks.append(data)
        self._have += len(data)
        if self._have < self._wanted:
            return
        buffer = data if len(self._chunks) == 1 else b"".join(self._chunks)
        at = 0
        deliver = self._receiver.deliver
        while (end := buffer.find(b"\r\n", at)) >= 0:
            kind = buffer[at : at + 4]
            if kind in MESSAGES:
                words = buffer[at:end].split()
                begin = end + 2
                sid, reply, head, size = _sizes(words)
                stop = begin + size
                if len(buffer) < stop + 2:
                    self._keep(buffer[at:], stop + 2 - at)
                    return
                header = buffer[begin : begin + head] if head else None
                payload = buffer[begin + head : stop]
                if not deliver(sid, words[1], reply, payload, header):
                    await self._receiver._process_msg(sid, words[1], reply, payload, header or b"")
                at = stop + 2
            else:
                line = buffer[at:end]
                at = end + 2
                await self._control(line)
        self._keep(buffer[at:], 0)
        if self._have > MAX_LINE:
            raise ProtocolError("nats: unknown protocol")

    def _keep(self, rest: bytes, wanted: int) -> None:
        self._chunks = [rest] if rest else []
        self._have, self._wanted = len(rest), wanted

    async def _control(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        word = word.upper()
        if word == b"PING":
            await self._receiver._process_ping()
        elif word == b"PONG":
            await self._receiver._process_pong()
        elif word == b"-ERR":
            await self._receiver._process_err(rest.decode("utf-8", "replace").lower())
        elif word == b"INFO":
            await self._receiver._process_info(msgspec.json.decode(rest))
        elif word != b"+OK":
            raise ProtocolError("nats: unknown protocol")


def _sizes(words: list[bytes]) -> tuple[int, bytes, int, int]:
    """(sid, reply, header size, total size) of `MSG subject sid [reply] size` or `HMSG .. header-size size`."""
    try:
        if words[0] == b"MSG":
            reply = words[3] if len(words) == 5 else b""
            return int(words[2]), reply, 0, int(words[-1])
        reply = words[3] if len(words) == 6 else b""
        return int(words[2]), reply, int(words[-2]), int(words[-1])
    except (ValueError, IndexError):
        raise ProtocolError("nats: malformed MSG") from None
