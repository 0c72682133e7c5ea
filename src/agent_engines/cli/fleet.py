"""Which processes `engines up` starts, and with what environment."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent_engines.adapters.embedded import Endpoints
from agent_engines.domain.errors import ConfigurationError

ECHO = "echo"
BUILT_IN = ("performance", "optimizing", "intelligence")
MAX_REPLICAS = 64
_TARGET = re.compile(r"(?P<target>[^*\s]+)(?:\*(?P<replicas>[0-9]{1,3}))?")
# What `up` decides for its children; the caller's own values, also as files, must not reach them.
_DECIDED = ("NATS_URL", "POSTGRES_URL", "REDIS_URL", "AGENT_HTTP_PORT", "AGENT_ID")

_MODEST = {"POSTGRES_POOL_MIN": "2"}
"""On one machine an idle connection is memory somebody else could use; pools grow with the load. The caller's own value wins."""


@dataclass(frozen=True, slots=True)
class Member:
    """One process: its name in `endpoints.json`, its target for `engines run`, its HTTP port (0: any)."""

    name: str
    target: str
    port: int = 0

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "agent_engines.cli", "run", self.target)

    @property
    def built_in(self) -> bool:
        return self.name in BUILT_IN


def members(targets: Sequence[str], port: int, agent_id_of: Callable[[str], str]) -> list[Member]:
    """The built-in engines and the agents. `targets`: `module:attr`, `module:attr*2` for two replicas; none: one echo.

    `agent_id_of(target)` names an agent. Raises ConfigurationError.
    """
    found = [Member(name, name, port if name == "intelligence" else 0) for name in BUILT_IN]
    replicas: dict[str, int] = {}
    for text in targets or (ECHO,):
        match = _TARGET.fullmatch(text)
        count = int(match["replicas"] or 1) if match else 0
        if match is None or not 1 <= count <= MAX_REPLICAS:
            raise ConfigurationError(
                [
                    f"--engine {text!r} is not usable: write module:attr, or module:attr*N with N from 1 to {MAX_REPLICAS}"
                ]
            )
        agent = agent_id_of(match["target"])
        for _ in range(count):
            replicas[agent] = replicas.get(agent, 0) + 1
            found.append(Member(f"agent:{agent}:{replicas[agent]}", match["target"]))
    return found


def child_environment(endpoints: Endpoints, member: Member | None) -> dict[str, str]:
    """The whole environment of one process."""
    decided: Mapping[str, str] = {
        "NATS_URL": endpoints.nats_url,
        "POSTGRES_URL": endpoints.postgres_url,
        "REDIS_URL": endpoints.redis_url,
        "AGENT_HTTP_PORT": str(member.port if member is not None else 0),
    }
    dropped = {*_DECIDED, *(f"{name}_FILE" for name in _DECIDED)}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**_MODEST, **kept, **decided}
