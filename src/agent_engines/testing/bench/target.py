"""What is measured: a system that was named, one that runs here, or none yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_engines.adapters.embedded.endpoints import Endpoints
from agent_engines.domain.errors import InvalidRequest

BUS = ("nats://", "tls://")


@dataclass(frozen=True, slots=True)
class Target:
    """`url`: http(s):// or nats://. Of servers and processes only what can be seen from here is known.

    `folder`: where an installation on this machine keeps its data.
    """

    url: str
    nats_url: str | None = None
    nats_monitor_url: str | None = None
    postgres_url: str | None = None
    folder: Path | None = None
    pids: Mapping[str, int] = field(default_factory=dict[str, int])
    own: bool = False

    @property
    def way(self) -> str:
        return "nats" if self.url.startswith(BUS) else "http"


def local(endpoints: Endpoints, folder: Path, *, over: str | None = None, own: bool = False) -> Target:
    """An installation on this machine; `over` nats: by its bus instead of HTTP."""
    return Target(
        endpoints.nats_url if over == "nats" else endpoints.http_url or "",
        endpoints.nats_url,
        endpoints.nats_monitor_url,
        endpoints.postgres_url,
        folder,
        endpoints.pids,
        own,
    )


def at(url: str, endpoints: Endpoints | None, folder: Path, postgres_url: str | None, nats_url: str | None) -> Target:
    """A system by its address. When that is the one of the installation in `folder`, everything of it is known."""
    if endpoints is not None and url.rstrip("/") in (endpoints.http_url, endpoints.nats_url):
        return local(endpoints, folder, over="nats" if url.rstrip("/") == endpoints.nats_url else None)
    return Target(url, url if url.startswith(BUS) else nats_url, None, postgres_url)


def require_performer(agents: Sequence[Mapping[str, Any]], task_type: str) -> None:
    """Raises InvalidRequest, saying what can be done there, when none of these agents performs it."""
    known: Collection[str] = {name for agent in agents for name in agent.get("capabilities", ())}
    if task_type in known:
        return
    there = f"there are: {', '.join(sorted(known))}; choose one with --task-type" if known else "there is no agent"
    raise InvalidRequest(
        f"nobody performs {task_type!r} ({there}, or start who does with `engines run MODULE:ATTR`)", field="task_type"
    )
