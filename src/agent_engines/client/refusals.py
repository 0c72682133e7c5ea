"""From what the server said to the error that is raised here."""

from __future__ import annotations

from typing import Any

from agent_engines.domain.errors import (
    AgentEnginesError,
    BudgetSpent,
    BudgetTooSmall,
    Conflict,
    InvalidRequest,
    Malformed,
    NoEligibleAgent,
    NotFound,
    QueueFull,
    TooLarge,
    Unavailable,
)
from agent_engines.domain.messages import Refusal

# Only a slug tells two errors of one status apart; other servers in between (proxies) send no slug at all.
_BY_SLUG = {
    "queue-full": "QueueFull",
    "no-eligible-agent": "NoEligibleAgent",
    "malformed": "Malformed",
    "budget-too-small": "BudgetTooSmall",
    "budget-spent": "BudgetSpent",
}
_BY_STATUS = {
    400: "Malformed",
    404: "NotFound",
    409: "Conflict",
    413: "TooLarge",
    422: "InvalidRequest",
    429: "QueueFull",
    502: "Unavailable",
    503: "Unavailable",
    504: "Unavailable",
}


def error_of(refusal: Refusal) -> AgentEnginesError:
    """The error a refusal stands for; `kind` is its class's name."""
    later = refusal.retry_after if refusal.retry_after is not None else 1.0
    match refusal.kind:
        case "QueueFull":
            return QueueFull(refusal.detail, retry_after=later)
        case "BudgetSpent":
            return BudgetSpent(refusal.detail, retry_after=later)
        case "BudgetTooSmall":
            return BudgetTooSmall(refusal.detail, field=refusal.field)
        case "NoEligibleAgent":
            return NoEligibleAgent(refusal.detail, retry_after=later)
        case "Unavailable":
            return Unavailable(refusal.detail, retry_after=later)
        case "Malformed":
            return Malformed(refusal.detail, field=refusal.field)
        case "TooLarge":
            return TooLarge(refusal.detail, field=refusal.field)
        case "InvalidRequest":
            return InvalidRequest(refusal.detail, field=refusal.field)
        case "Conflict":
            return Conflict(refusal.detail)
        case "NotFound":
            return NotFound(refusal.detail)
        case _:
            return AgentEnginesError(refusal.detail)


def error_of_problem(status: int, problem: dict[str, Any], retry_after: str | None) -> AgentEnginesError:
    """The error an RFC 9457 problem stands for. `retry_after` is the header, in seconds."""
    slug = str(problem.get("type", "")).rpartition("problem-")[2]
    kind = _BY_SLUG.get(slug) or _BY_STATUS.get(status, "")
    detail = str(problem.get("detail") or problem.get("title") or f"the server answered {status}")
    if not kind and status in (401, 403):
        detail = f"not allowed ({status}): {detail}"
    return error_of(
        Refusal(kind=kind, detail=detail, field=problem.get("field"), retry_after=_seconds(problem, retry_after))
    )


def _seconds(problem: dict[str, Any], header: str | None) -> float | None:
    for value in (header, problem.get("retry_after")):
        try:
            if value is not None:
                return max(0.0, min(float(value), 3600.0))
        except (TypeError, ValueError):
            # The header may be a date (RFC 9110); the default pause is as good.
            continue
    return None
