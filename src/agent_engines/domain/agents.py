"""Agents: who can do what, how busy they are, and whether they may be chosen."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec

from .budgets import Spend
from .errors import InvalidRequest

AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

LONGEST_KIND = 128
MOST_SLOTS = 100_000
"""Slots one replica may claim (the bound of AGENT_MAX_CONCURRENT_TASKS); more is taken for this."""


class AgentState(StrEnum):
    """The life of one engine process, in order."""

    STARTING = "starting"
    READY = "ready"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


class AgentMode(StrEnum):
    """What an operator decided about an agent; every router obeys it."""

    ACTIVE = "active"
    DRAINING = "draining"
    QUARANTINED = "quarantined"


NOTED = {str(mode): mode for mode in AgentMode if mode is not AgentMode.ACTIVE}
"""How the ledger notes it; every other status of an agent there is no operator's word."""


def modes_noted(agents: Iterable[tuple[str, str]]) -> dict[str, AgentMode]:
    """What operators said, of (name, status) in the ledger."""
    return {name: NOTED[status] for name, status in agents if status in NOTED}


class Capability(msgspec.Struct, frozen=True, kw_only=True):
    """One task type an agent performs, with the retry and time rules of its handler."""

    task_type: str
    max_attempts: int = 3
    idempotent: bool = False
    timeout_seconds: float | None = None


class AgentProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says about itself; the same for all its replicas."""

    name: str
    agent_type: str = "custom"
    capabilities: tuple[Capability, ...] = ()
    metadata: dict[str, Any] = {}

    @property
    def cost_per_task(self) -> float:
        """Declared price of one task in the fleet's currency; 0 when not declared."""
        value = self.metadata.get("cost_per_task", 0.0)
        return float(value) if _is_cost(value) else 0.0

    @property
    def price(self) -> Spend:
        """What one task is declared to take: `cost_per_task` and `tokens_per_task`."""
        tokens = self.metadata.get("tokens_per_task", 0)
        whole = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0
        return Spend(cost=self.cost_per_task, tokens=tokens if whole else 0)

    @property
    def kind(self) -> str:
        """What it is a replica of, when it says so: agents of one kind give the same answers. Empty: its own kind."""
        return self._kind_under("kind")

    @property
    def follows(self) -> str:
        """The kind that this one is a new version of: what is known of that is where it starts from. Empty: none."""
        return self._kind_under("follows")

    @property
    def oddities(self) -> tuple[str, ...]:
        """What it declares that routing cannot use, and what is taken instead."""
        found: list[str] = []
        cost = self.metadata.get("cost_per_task", 0.0)
        if not _is_cost(cost):
            found.append(f"{self.name} declares cost_per_task {_shown(cost)}, which counts as 0")
        for field in ("kind", "follows"):
            value = self.metadata.get(field, "")
            if value != self._kind_under(field):
                found.append(f"{self.name} declares {field} {_shown(value)}, which is no short text and is ignored")
        return tuple(found)

    def _kind_under(self, field: str) -> str:
        value = self.metadata.get(field, "")
        return value if isinstance(value, str) and len(value) <= LONGEST_KIND else ""


def _is_cost(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How busy one replica is at one moment."""

    slots: int = 1
    running: int = 0
    queued: int = 0
    queue_size: int = 1000
    service_ms: float | None = None
    """Moving average of handler time, milliseconds; None before the first outcome."""
    loop_lag_ms: float = 0.0
    paused: str = ""
    """Why it takes no work although it could; empty: it does."""


def validated_agent_id(value: str) -> str:
    """Return `value` if it can name an agent.

    Agent names become parts of bus subjects and durable names, hence no dots, spaces or wildcards.
    Raises InvalidRequest.
    """
    if AGENT_ID.fullmatch(value):
        return value
    raise InvalidRequest(
        f"agent id {value!r} is not usable: use 1 to 64 letters, digits, '-' or '_', starting with a letter or digit",
        field="agent_id",
    )
