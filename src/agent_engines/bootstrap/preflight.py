"""The preflight: asks every server side by side, each within its time, and lets the rules judge what came back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_engines.adapters.consul_inspection import read_consul
from agent_engines.adapters.jetstream.inspection import read_nats
from agent_engines.adapters.jetstream.streams import MAX_ACK_PENDING
from agent_engines.adapters.postgres.inspection import read_postgres
from agent_engines.adapters.redis_inspection import read_redis
from agent_engines.config import Config
from agent_engines.config.own_side import read_own_side
from agent_engines.domain.errors import ConfigurationError, Unavailable
from agent_engines.domain.preflight import cache, consul, local, nats, postgres
from agent_engines.domain.preflight.finding import Facts, Finding, Rule, Severity, judged
from agent_engines.domain.preflight.report import Profile, Report
from agent_engines.domain.redaction import redacted_text

from .connect import bus_security

READ_SECONDS = 8.0
"""For all of one server; they are asked side by side."""
PARTS: dict[str, Sequence[Rule]] = {
    local.PART: local.RULES,
    postgres.PART: postgres.RULES,
    nats.PART: nats.RULES,
    cache.PART: cache.RULES,
    consul.PART: consul.RULES,
}
NEEDED = {postgres.PART: "POSTGRES_URL", nats.PART: "NATS_URL"}


@dataclass(frozen=True, slots=True)
class Places:
    """Where the servers are; an empty one is not configured. `monitors`: NATS monitoring addresses, none: the usual port."""

    nats: str = ""
    postgres: str = ""
    redis: str = ""
    consul: str = ""
    monitors: tuple[str, ...] = ()

    @property
    def urls(self) -> dict[str, str]:
        """By variable, those that are there."""
        named = {"NATS_URL": self.nats, "POSTGRES_URL": self.postgres, "REDIS_URL": self.redis}
        return {name: url for name, url in named.items() if url}


@dataclass(slots=True)
class _Reading:
    """What one server told, and what went wrong."""

    part: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    away: dict[str, str] = field(default_factory=dict[str, str])


async def preflight(
    config: Config, places: Places, profile: Profile, *, only: Sequence[str] = (), accepted: Sequence[str] = ()
) -> Report:
    """Never raises for what a server does: it is in the report. `only`: parts to look at, none: all of them."""
    wanted = [part for part in PARTS if not only or part in only]
    ours = {**read_own_side(config, places.urls), "our.max_ack_pending": MAX_ACK_PENDING}
    readings = await asyncio.gather(*(_read(part, config, places, ours) for part in wanted if _has_place(part, places)))
    findings = [finding for one in readings if one.facts for finding in _said(one, accepted)]
    findings.sort(key=lambda one: (list(Severity).index(one.severity), one.accepted))
    return Report(
        profile=profile,
        parts={one.part: redacted_text(_place(one.part, places)) for one in readings},
        findings=findings,
        unreachable={name: redacted_text(why) for one in readings for name, why in one.away.items()},
    )


def _said(reading: _Reading, accepted: Sequence[str]) -> list[Finding]:
    """Of a server that went away only what it had told: that the rest could not be read is said once, by `unreachable`."""
    found = judged(reading.part, PARTS[reading.part], reading.facts, accepted)
    gone = reading.part in reading.away
    return [one for one in found if not (gone and one.severity is Severity.UNREAD)]


def findings_by_part(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """In the order of PARTS."""
    return {part: found for part in PARTS if (found := [one for one in findings if one.part == part])}


def _has_place(part: str, places: Places) -> bool:
    """A server that is needed is looked at without an address too, and found missing."""
    return part == local.PART or part in NEEDED or _place(part, places) not in ("", "memory://")


def _place(part: str, places: Places) -> str:
    return "this machine" if part == local.PART else getattr(places, part)


async def _read(part: str, config: Config, places: Places, ours: Facts) -> _Reading:
    reading = _Reading(part)
    if part == local.PART:
        reading.facts.update(ours)
        return reading
    if not _place(part, places):
        reading.away[part] = f"{NEEDED[part]} is not set; on a machine of agents alone: --only local --only nats"
        return reading
    facts: dict[str, Any] = {}
    try:
        async with asyncio.timeout(READ_SECONDS):
            await _ask(part, config, places, facts)
    except TimeoutError:
        reading.away[part] = f"it answers, but not within {READ_SECONDS:g} s"
    except (Unavailable, ConfigurationError) as error:
        reading.away[part] = str(error)
    reading.away |= {f"{part} ({host})": why for host, why in facts.pop("servers_away", {}).items()}
    reading.facts = (
        {**ours, **facts} if facts.keys() - {"our.sslmode", "our.streams", "servers_named", "tls", "local"} else {}
    )
    return reading


def _ask(part: str, config: Config, places: Places, facts: dict[str, Any]) -> Awaitable[None]:
    if part == nats.PART:
        return read_nats(places.nats, bus_security(config), facts, monitors=places.monitors)
    if part == postgres.PART:
        return read_postgres(places.postgres, facts)
    if part == cache.PART:
        return read_redis(places.redis, facts)
    return read_consul(places.consul, config.consul_http_token, facts)
