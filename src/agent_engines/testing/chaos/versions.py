"""What a run was made on: versions of this package and of the servers."""

from __future__ import annotations

import asyncio
import platform
from importlib.metadata import version
from urllib.parse import urlsplit

import msgspec

NATS_PORT = 4222
ASK_SECONDS = 5.0


class _Info(msgspec.Struct):
    version: str = ""


async def versions(nats_url: str | None, postgres: str) -> dict[str, str]:
    """By name; a server that does not answer is "unknown"."""
    return {
        "agent-engines": version("agent-engines"),
        "python": platform.python_version(),
        "nats": "unknown" if nats_url is None else await nats_version(nats_url),
        "postgres": postgres,
    }


async def nats_version(url: str) -> str:
    """A NATS server introduces itself before anybody asks: `INFO {...}` is its first line."""
    parts = urlsplit(url.split(",", maxsplit=1)[0])
    try:
        async with asyncio.timeout(ASK_SECONDS):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or NATS_PORT)
            try:
                line = await reader.readline()
            finally:
                writer.close()
        return msgspec.json.decode(line.removeprefix(b"INFO "), type=_Info).version or "unknown"
    except (OSError, TimeoutError, ValueError):
        # Only a label of the report; the run itself says whether the bus works.
        return "unknown"
