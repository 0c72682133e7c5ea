"""The router's span: where a submission's trace comes from, and what the span tells about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from agent_engines.domain.messages import SubmitResult
from agent_engines.domain.tasks import TaskRequest
from agent_engines.domain.traces import TRACEPARENT


def parent_of(requests: Sequence[TaskRequest], traceparent: str | None) -> tuple[str | None, Sequence[TaskRequest]]:
    """The trace all of a submission belong to, and the requests without it: the router's own span stands between.

    Where they belong to several, each keeps its own.
    """
    named = {request.traceparent for request in requests}
    shared = named.pop() if len(named) == 1 else None
    # What is none is left where it stands: the request is refused for it, by name.
    if shared is None or not TRACEPARENT.fullmatch(shared):
        return traceparent, requests
    return shared, [replace(request, traceparent=None) for request in requests]


def told_of(results: Sequence[SubmitResult]) -> dict[str, Any]:
    """What a span says about a submission: of a single task the choice, of many how many were taken."""
    taken = [result.accepted for result in results if result.accepted is not None]
    told: dict[str, Any] = {"accepted": len(taken), "refused": len(results) - len(taken)}
    if len(results) == 1 and taken:
        one = taken[0]
        told |= {"task_id": one.task_id, "selected_agent": one.selected_agent, "strategy": one.strategy}
        told |= {"confidence": one.confidence, "propensity": one.propensity}
    return told
