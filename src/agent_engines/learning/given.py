"""What callers give: numbers and names out of plain mappings, or an error that says which field cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any


def number(field: str, value: Any) -> float | None:
    """A finite number; None stays None. Raises ValueError naming the field."""
    if value is None or (type(value) is float and isfinite(value)):
        return value
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{field} is {_shown(value)}, it must be a finite number") from None
    if not isfinite(found):
        raise ValueError(f"{field} is {found}, it must be a finite number")
    return found


def agent_of(candidate: Mapping[str, Any]) -> str:
    """Raises ValueError when it has no name."""
    agent = candidate.get("agent")
    if agent is None:
        raise ValueError(f"a candidate has no agent: {_shown(dict(candidate))}")
    return str(agent)


def cost_of(candidate: Mapping[str, Any]) -> float:
    """From 0 up, 0 where nothing is said. Raises ValueError naming the agent."""
    cost = number(f"cost of {candidate.get('agent')!r}", candidate.get("cost")) or 0.0
    if cost < 0.0:
        raise ValueError(f"cost of {candidate.get('agent')!r} is {cost}, it must be a finite number from 0 up")
    return cost


def slots_of(candidate: Mapping[str, Any]) -> float | None:
    """Above 0; None where nothing is said. Raises ValueError naming the agent."""
    slots = number(f"slots of {candidate.get('agent')!r}", candidate.get("slots"))
    if slots is not None and slots <= 0.0:
        raise ValueError(f"slots of {candidate.get('agent')!r} is {slots}, it must be a finite number above 0")
    return slots


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
