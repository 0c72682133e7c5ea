"""What a NATS server says before anybody logs in, and whether it lets somebody in without credentials."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from agent_engines.domain.errors import Unavailable

from .connection import Address, Security

WORD_SECONDS = 2.0
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
NOBODY = b'CONNECT {"verbose":false,"pedantic":false,"lang":"python3","version":"1","name":"agent-engines-check"}\r\nPING\r\n'


@dataclass(frozen=True, slots=True)
class Greeting:
    """`anonymous`: accepted, refused, or why it could not be tried. `info`: the server's first word."""

    host: str
    info: dict[str, Any] = field(repr=False)
    encrypted: bool
    anonymous: str

    def shown(self) -> dict[str, Any]:
        """As rules read it."""
        required = self.encrypted or bool(self.info.get("tls_required"))
        return {
            "host": self.host,
            "version": str(self.info.get("version", "unknown")),
            "auth_required": bool(self.info.get("auth_required")),
            "anonymous": self.anonymous,
            "tls": "required" if required else "available" if self.info.get("tls_available") else "none",
            "local": urlsplit(f"//{self.host}").hostname in LOOPBACK,
            "max_payload": self.info.get("max_payload", 0),
        }


async def read_greetings(address: Address, security: Security) -> tuple[list[Greeting], dict[str, str]]:
    """Every server of the list; those that do not answer, with the reason. Raises Unavailable when none does."""
    answers = await asyncio.gather(*(_greeted(url, security) for url in address.urls), return_exceptions=True)
    away: dict[str, str] = {}
    greetings: list[Greeting] = []
    for url, answer in zip(address.urls, answers, strict=True):
        if isinstance(answer, Greeting):
            greetings.append(answer)
        elif isinstance(answer, OSError | TimeoutError | EOFError | msgspec.MsgspecError):
            away[url.partition("://")[2]] = str(answer) or "no answer in time"
        else:
            raise answer
    if not greetings:
        raise Unavailable(f"cannot connect to NATS at {address.hosts}: {next(iter(away.values()))}", retry_after=1.0)
    return greetings, away


async def _greeted(url: str, security: Security) -> Greeting:
    parts = urlsplit(url)
    first = security.tls_first
    context = _encryption(security) if first else None
    async with asyncio.timeout(WORD_SECONDS):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
        try:
            line = await reader.readuntil(b"\r\n")
            info = msgspec.json.decode(line.removeprefix(b"INFO ").strip(), type=dict[str, Any])
            anonymous = await _let_in(reader, writer, info, security)
        finally:
            writer.transport.abort()
    return Greeting(url.partition("://")[2], info, first, anonymous)


async def _let_in(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, info: dict[str, Any], security: Security
) -> str:
    """Try as nobody, the only way to know: a server may require a login and yet have a user for those without one."""
    try:
        if info.get("tls_required") and not security.tls_first:
            await writer.start_tls(_encryption(security))
        writer.write(NOBODY)
        while True:
            line = await reader.readline()
            if line.startswith(b"PONG"):
                return "accepted"
            if line.startswith(b"-ERR") or not line:
                return "refused"
    except (OSError, ssl.SSLError) as error:
        return f"could not be tried: {type(error).__name__}"


def _encryption(security: Security) -> ssl.SSLContext:
    """Made only when it is needed: reading the system's authorities takes a tenth of a second."""
    return security.tls or ssl.create_default_context()
