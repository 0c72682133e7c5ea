"""The protocol parser reads the same messages however the network cuts them."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from agent_engines.adapters.jetstream.parser import MAX_LINE, Parser

Seen = tuple[Any, ...]

words = st.text("abcdefgh.$_*-0123456789", min_size=1, max_size=20).map(str.encode)
bodies = st.binary(max_size=200) | st.sampled_from([b"", b"\r\n", b"MSG a 1 5\r\nhello\r\n", b"PING\r\n"])


class Listener:
    """Keeps what the parser found; even sids are "ours", odd ones go the base class's way."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes, header: bytes | None) -> bool:
        if sid % 2 == 0:
            self.seen.append(("msg", sid, subject, reply, data, header or b""))
        return sid % 2 == 0

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self.seen.append(("msg", sid, subject, reply, data, headers))

    async def _process_ping(self) -> None:
        self.seen.append(("ping",))

    async def _process_pong(self) -> None:
        self.seen.append(("pong",))

    async def _process_err(self, err_msg: str) -> None:
        self.seen.append(("err", err_msg))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.seen.append(("info", info))


@st.composite
def commands(draw: st.DrawFn) -> tuple[bytes, Seen | None]:
    """(bytes on the wire, what must be seen)"""
    kind = draw(st.sampled_from(["msg", "hmsg", "ping", "pong", "ok", "err", "info"]))
    if kind in ("msg", "hmsg"):
        sid = draw(st.integers(0, 9))
        subject, reply, body = draw(words), draw(words | st.just(b"")), draw(bodies)
        target = b"%b %d %b" % (subject, sid, reply + b" " if reply else b"")
        if kind == "msg":
            return b"MSG %b%d\r\n%b\r\n" % (target, len(body), body), ("msg", sid, subject, reply, body, b"")
        header = b"NATS/1.0\r\nA: " + draw(words) + b"\r\n\r\n"
        line = b"HMSG %b%d %d\r\n" % (target, len(header), len(header) + len(body))
        return line + header + body + b"\r\n", ("msg", sid, subject, reply, body, header)
    return {
        "ping": (b"PING\r\n", ("ping",)),
        "pong": (b"PONG\r\n", ("pong",)),
        "ok": (b"+OK\r\n", None),
        "err": (b"-ERR 'Stale Connection'\r\n", ("err", "'stale connection'")),
        "info": (b'INFO {"max_payload":1048576}\r\n', ("info", {"max_payload": 1048576})),
    }[kind]


async def read(chunks: list[bytes]) -> list[Seen]:
    listener = Listener()
    parser = Parser(listener)
    for chunk in chunks:
        await parser.parse(chunk)
    return listener.seen


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


@given(st.lists(commands(), max_size=12), st.lists(st.integers(0, 5_000), max_size=30))
def test_any_cut_of_the_stream_gives_the_same_messages(
    sent: list[tuple[bytes, Seen | None]], places: list[int]
) -> None:
    stream = b"".join(wire for wire, _ in sent)
    expected = [seen for _, seen in sent if seen is not None]
    assert asyncio.run(read(cut(stream, places))) == expected


@given(st.lists(commands(), min_size=1, max_size=3))
def test_one_byte_at_a_time_gives_the_same_messages(sent: list[tuple[bytes, Seen | None]]) -> None:
    stream = b"".join(wire for wire, _ in sent)
    expected = [seen for _, seen in sent if seen is not None]
    assert asyncio.run(read([bytes([byte]) for byte in stream])) == expected


@pytest.mark.parametrize(
    "noise", [b"HELLO\r\n", b"MSG a b c\r\n", b"MSG a\r\n", b"HMSG a 1 x 3\r\n", b"\r\n", b"x" * (MAX_LINE + 1)]
)
async def test_what_is_not_the_protocol_is_an_error(noise: bytes) -> None:
    with pytest.raises(ProtocolError):
        await read([noise])


async def test_a_reset_forgets_the_rest_of_the_old_connection() -> None:
    listener = Listener()
    parser = Parser(listener)
    await parser.parse(b"MSG a 2 100\r\nonly the beginning")
    parser.reset()
    await parser.parse(b"PING\r\n")
    assert listener.seen == [("ping",)]


async def test_the_chunks_of_a_large_message_are_put_together_once() -> None:
    """Joined at each arrival, a message of a MiB in 16 chunks was copied eight times over."""
    listener = Listener()
    parser = Parser(listener)
    whole = b"MSG a 2 1000000\r\n" + b"x" * 1_000_000 + b"\r\n"
    chunks = [whole[at : at + 65_536] for at in range(0, len(whole), 65_536)]
    for number, chunk in enumerate(chunks[:-1], 1):
        await parser.parse(chunk)
        assert (len(parser._chunks), listener.seen) == (number, [])
    await parser.parse(chunks[-1])
    assert listener.seen == [("msg", 2, b"a", b"", b"x" * 1_000_000, b"")]
