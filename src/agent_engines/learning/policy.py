"""The interface of a policy of one's own: plain mappings in, three values out. Nothing here needs a server.

A package offers its policy by an entry point; the name is what `ROUTING_STRATEGY` and the field `strategy` call it:

    [project.entry-points."agent_engines.policies"]
    mine = "my_package.routing:make_policy"

`make_policy(seed)` returns an object with the two methods of RoutingPolicy, or the four of HedgingPolicy. `agent_engines.testing.check_policy` tells whether it behaves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

ENTRY_POINT_GROUP = "agent_engines.policies"


class RoutingPolicy(Protocol):
    """Chooses one of the candidates, and hears what came of it. Called from one thread; must not block.

    context: `task_id`, `task_type`, `requirements`, `priority`, `deadline_s` (epoch seconds or None), `now` (epoch seconds),
    `features` (numbers or None), `payload_bytes`, `work_hint` (seconds a task of this type takes, None: not known).
    candidate: `agent`, `cls` (which kind it is a replica of), `parent` (the kind it is a new version of, or None), `cost`,
    `slots`, `in_flight`, `completion` (expected seconds until one more task is done), `success` (share of successes, 0..1),
    `quality` (mean judged quality or None), `metadata`.
    outcome: `success`, `error` (its type or None), `quality` (0..1 or None), `cost`, `service` and `latency` (seconds of
    work, and since the decision), `cancelled`, `now`.
    """

    def choose(self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> tuple[str, float, float]:
        """(agent, confidence, propensity): the name of one candidate; P(success) and the probability of this choice, in (0, 1]."""
        ...

    def learn(self, decision: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """`decision`: `context`, `candidates`, `agent`, `confidence`, `propensity`, as they were."""
        ...


@runtime_checkable
class HedgingPolicy(RoutingPolicy, Protocol):
    """A policy that also says when a task is so late that another agent should be asked too."""

    def hedge_after(self, decision: Mapping[str, Any]) -> float | None:
        """Seconds to wait for the first agent, above 0; None: no hedge. Asked when the task is sent, and when the wait is over.

        `decision`: as `learn` gets it. The router hedges idempotent task types only, at most one decision in twenty.
        """
        ...

    def hedged(self) -> None:
        """Another agent is asked too: `choose` follows, among the others."""
        ...


def checked_wait(answer: Any) -> float | None:
    """Seconds. Raises ValueError saying what is wrong with the answer."""
    if answer is None:
        return None
    try:
        wait = float(answer)
    except (TypeError, ValueError):
        raise ValueError(f"hedge_after must return seconds or None, not {_shown(answer)}") from None
    if not 0.0 < wait < math.inf:
        raise ValueError(f"hedge_after returned {wait}, it must be a finite number of seconds above 0")
    return wait


def checked_answer(answer: Any, agents: Sequence[str]) -> tuple[int, float, float]:
    """(position of the agent, confidence, propensity). Raises ValueError saying what is wrong with the answer."""
    try:
        agent, confidence, propensity = answer
    except (TypeError, ValueError):
        raise ValueError(f"choose must return (agent, confidence, propensity), not {_shown(answer)}") from None
    if agent not in agents:
        raise ValueError(f"{_shown(agent)} is none of the candidates")
    found = [_share("confidence", confidence), _share("propensity", propensity)]
    return agents.index(agent), found[0], found[1]


def _share(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {_shown(value)}, it must be a number") from None
    if not 0.0 < number <= 1.0:
        raise ValueError(f"{name} is {number}, it must be above 0 and at most 1")
    return number


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
