"""Eligibility: who may do a task, and a readable reason for everyone who may not.

A requirement is a key with what is wanted of an agent's metadata:

| wanted | holds when the offered value |
| --- | --- |
| `"eu"`, `3`, `true` | equals it, or is a list that contains it |
| `["eu", "us"]` | is one of them, or is a list with one of them |
| `{">=": 8000}` | compares so; operators `>= <= > < == != in`, several must all hold |

Requirements that nothing can meet, such as `{">=": 5, "<": 5}`, `{"==": "eu", "!=": "eu"}` or an empty list, are refused.

Keys with a meaning of their own: `agent` (a name or a list of names), `agent_type`, `exclude_agents` (list of names) and
`capabilities` (a list: all of them are needed). A key the agent does not offer makes it ineligible.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from .decisions import Rejection
from .errors import InvalidRequest

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One agent as the eligibility rules see it. `blocked` says why nothing may be sent to it now; empty: it may."""

    name: str
    agent_type: str
    capabilities: frozenset[str]
    metadata: Mapping[str, Any]
    blocked: str = ""
    suspect: bool = False
    """Silent for a few seconds: used only when no agent is that is not."""


class Screening(msgspec.Struct, frozen=True):
    """Positions of the eligible offers, and why the others fell."""

    eligible: tuple[int, ...]
    rejected: tuple[Rejection, ...]


def screen(task_type: str, requirements: Mapping[str, Any], offers: Sequence[Offer]) -> Screening:
    """Sort the fleet into those who may do this task now and those who may not. Raises InvalidRequest."""
    if requirements:
        check_requirements(requirements)
    able: list[int] = []
    rejected: list[Rejection] = []
    for position, offer in enumerate(offers):
        reason = rejection(task_type, requirements, offer)
        if reason:
            rejected.append(Rejection(offer.name, reason))
        else:
            able.append(position)
    healthy = [position for position in able if not offers[position].suspect]
    if healthy and len(healthy) < len(able):
        rejected.extend(
            Rejection(offers[position].name, "suspect: no heartbeat for some seconds while others are heard")
            for position in able
            if offers[position].suspect
        )
        able = healthy
    return Screening(tuple(able), tuple(rejected))


def inability(task_type: str, requirements: Mapping[str, Any], offer: Offer) -> str:
    """Why this agent could not do this task at any time; empty when it could."""
    if task_type not in offer.capabilities:
        return f"does not perform {task_type!r}"
    for key, wanted in requirements.items():
        reason = _unmet(key, wanted, offer)
        if reason:
            return reason
    return ""


def rejection(task_type: str, requirements: Mapping[str, Any], offer: Offer) -> str:
    """Why this agent may not do this task now; empty when it may."""
    return inability(task_type, requirements, offer) or offer.blocked


def check_requirements(requirements: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for requirements no rule can read."""
    for key, wanted in requirements.items():
        field = f"requirements.{key}"
        if key in {"agent", "agent_type"} and not _names(wanted):
            raise InvalidRequest(f"{field} must be a name or a list of names", field=field)
        if key in {"exclude_agents", "capabilities"} and not (isinstance(wanted, list) and _names(wanted)):
            raise InvalidRequest(f"{field} must be a list of names", field=field)
        if wanted == [] and key not in {"exclude_agents", "capabilities"}:
            raise InvalidRequest(f"{field} is an empty list: nothing is one of none", field=field)
        if isinstance(wanted, dict):
            bounds = cast("dict[str, Any]", wanted)
            _check_operators(field, bounds)
            _check_bounds(field, bounds)
            _check_choices(field, bounds)
    _check_names(requirements)


def _check_operators(field: str, wanted: dict[str, Any]) -> None:
    if not wanted:
        raise InvalidRequest(f"{field} has no operator; use one of {', '.join(_OPERATORS)}, in", field=field)
    for name, bound in wanted.items():
        if name == "in":
            if not isinstance(bound, list):
                raise InvalidRequest(f"{field}.in must be a list", field=field)
        elif name not in _OPERATORS:
            raise InvalidRequest(
                f"{field} has the unknown operator {name!r}; use one of {', '.join(_OPERATORS)}, in", field=field
            )


def _check_bounds(field: str, wanted: dict[str, Any]) -> None:
    """Refuse bounds that no value can keep: waiting for an agent that meets them would be in vain."""
    try:
        lowest = max((wanted[name], name == ">") for name in (">=", ">") if name in wanted)
        highest = min((wanted[name], name != "<") for name in ("<=", "<") if name in wanted)
        empty = lowest[0] > highest[0] or (lowest[0] == highest[0] and (lowest[1] or not highest[1]))
    except (TypeError, ValueError):
        # No two bounds, or bounds of another kind than numbers and texts: each agent is compared by itself.
        return
    if empty:
        raise _contradiction(field, wanted)


def _check_choices(field: str, wanted: dict[str, Any]) -> None:
    """Refuse values to choose from of which none can be."""
    choices: list[Any] = [wanted["=="]] if "==" in wanted else wanted.get("in", [])
    if "in" in wanted and not wanted["in"]:
        raise InvalidRequest(f"{field}.in is an empty list: nothing is one of none", field=field)
    if not choices:
        return
    # A list of an agent's may hold several of the values, but it is not compared by size: with a bound one value keeps all.
    left = [wanted[name] for name in (">=", "<=", ">", "<") if name in wanted]
    if any(not isinstance(bound, list) for bound in left):
        if not any(_meets(wanted, choice) for choice in choices):
            raise _contradiction(field, wanted)
    elif "!=" in wanted and all(_equals(choice, wanted["!="]) for choice in choices):
        raise _contradiction(field, wanted)


def _contradiction(field: str, wanted: dict[str, Any]) -> InvalidRequest:
    return InvalidRequest(f"{field} contradicts itself: nothing is {_shown(wanted)}", field=field)


def _check_names(requirements: Mapping[str, Any]) -> None:
    """Refuse to ask for agents and to exclude all of them."""
    asked = requirements.get("agent")
    if asked is None or "exclude_agents" not in requirements:
        return
    names: list[str] = asked if isinstance(asked, list) else [asked]
    if all(name in requirements["exclude_agents"] for name in names):
        raise InvalidRequest(
            "requirements.agent and requirements.exclude_agents contradict each other: everybody asked for is excluded",
            field="requirements.exclude_agents",
        )


def _names(wanted: Any) -> bool:
    values: list[Any] = wanted if isinstance(wanted, list) else [wanted]
    return all(isinstance(value, str) for value in values)


def _unmet(key: str, wanted: Any, offer: Offer) -> str:
    if key == "agent":
        return "" if _is_or_has(wanted, offer.name) else f"the task asks for agent {_shown(wanted)}"
    if key == "agent_type":
        return "" if _is_or_has(wanted, offer.agent_type) else f"is of type {offer.agent_type!r}, not {_shown(wanted)}"
    if key == "exclude_agents":
        return "excluded by the task" if offer.name in wanted else ""
    if key == "capabilities":
        missing = [name for name in wanted if name not in offer.capabilities]
        return f"does not perform {missing[0]!r}" if missing else ""
    if key not in offer.metadata:
        return f"offers no {key}"
    offered = offer.metadata[key]
    return "" if _meets(wanted, offered) else f"{key} is {_shown(offered)}, wanted {_shown(wanted)}"


def _is_or_has(wanted: Any, name: str) -> bool:
    return name in wanted if isinstance(wanted, list) else name == wanted


def _meets(wanted: Any, offered: Any) -> bool:
    if isinstance(wanted, dict):
        bounds = cast("dict[str, Any]", wanted)
        return all(_compares(name, offered, bound) for name, bound in bounds.items())
    choices: list[Any] = wanted if isinstance(wanted, list) else [wanted]
    return any(_equals(offered, choice) for choice in choices)


def _compares(name: str, offered: Any, bound: Any) -> bool:
    if name == "in":
        return any(_equals(offered, choice) for choice in bound)
    if name == "==":
        return _equals(offered, bound)
    if name == "!=":
        return not _equals(offered, bound)
    if isinstance(offered, bool) or isinstance(bound, bool):
        # True >= 1 in Python, but not in JSON.
        return False
    try:
        return bool(_OPERATORS[name](offered, bound))
    except TypeError:
        # 8000 <= "big" has no answer: an agent that offers another kind of value does not meet the bound.
        return False


def _equals(offered: Any, wanted: Any) -> bool:
    if isinstance(offered, list) and not isinstance(wanted, list):
        return any(_equals(item, wanted) for item in cast("list[Any]", offered))
    # True == 1 in Python, but not in JSON.
    return isinstance(offered, bool) == isinstance(wanted, bool) and bool(offered == wanted)


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."
