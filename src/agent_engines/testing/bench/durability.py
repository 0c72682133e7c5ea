"""What "accepted" was worth while it was measured: read from the servers, never assumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent_engines.adapters.jetstream.bus import JetStreamBus
from agent_engines.adapters.jetstream.connection import Security
from agent_engines.adapters.postgres.evidence import LedgerEvidence
from agent_engines.client.plain_http import HttpFailure, plain_http
from agent_engines.domain.errors import AgentEnginesError

from .target import Target

NANOSECONDS = 1e9
ASK_SECONDS = 5.0
MOUNTS = Path("/proc/self/mounts")


async def durability(target: Target, security: Security | None = None) -> dict[str, Any]:
    """{"postgres": {setting: value}, "bus": {"copies": n, "synced": "always" | "every N s"}, "filesystem": name}.

    What cannot be read from here is null.
    """
    copies, synced = await _copies(target.nats_url, security), await _synced(target.nats_monitor_url)
    return {
        "postgres": await _postgres(target.postgres_url),
        "bus": None if copies is None and synced is None else {"copies": copies, "synced": synced},
        "filesystem": None if target.folder is None else _filesystem(target.folder),
    }


async def _postgres(url: str | None) -> dict[str, str] | None:
    if not url:
        return None
    try:
        ledger = await LedgerEvidence.connect(url)
        try:
            return await ledger.durability()
        finally:
            await ledger.close()
    except AgentEnginesError:
        # Not ours to read from here; the report says that it is not known.
        return None


async def _copies(url: str | None, security: Security | None) -> int | None:
    if not url:
        return None
    try:
        bus = await JetStreamBus.connect(url, name="engines-bench", security=security)
        try:
            return await bus.copies()
        finally:
            await bus.close()
    except AgentEnginesError:
        return None


async def _synced(monitor_url: str | None) -> str | None:
    if not monitor_url:
        return None
    try:
        async with plain_http(monitor_url, seconds=ASK_SECONDS) as http:
            config: dict[str, Any] = (await http.get("/jsz", params={"config": "1"})).json()["config"]
    except (HttpFailure, ValueError, KeyError):
        return None
    if config.get("sync_always"):
        return "always"
    interval = config.get("sync_interval")
    return None if interval is None else f"every {interval / NANOSECONDS:g} s"


def _filesystem(folder: Path) -> str | None:
    try:
        return filesystem_of(folder.resolve(), MOUNTS.read_text())
    except OSError:
        return None


def filesystem_of(folder: Path, mounts: str) -> str | None:
    """The type of the file system that holds an absolute `folder`. `mounts`: lines as in /proc/mounts."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        _, place, kind, *_ = line.split(" ")
        point = Path(place.replace("\\040", " "))
        # A later mount on the same point covers the earlier one.
        if folder.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = len(point.parts), kind
    return None if found is None else found[1]
