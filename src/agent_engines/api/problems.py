"""Problems: every error as RFC 9457 `application/problem+json`, from one table of error to status.

`type` leads to the paragraph about the problem on the `/docs` page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

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

MEDIA_TYPE = b"application/problem+json"


class Forbidden(AgentEnginesError):
    """A page of another site asked a browser to do this."""


class MethodNotAllowed(AgentEnginesError):
    """The path exists, the method does not."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method} is not possible here, only {', '.join(allowed)}")
        self.allowed = allowed


class NotAcceptable(AgentEnginesError):
    """The caller accepts no media type this route speaks."""


class BodyTimeout(AgentEnginesError):
    """The body did not arrive in time."""


class UnsupportedMediaType(AgentEnginesError):
    """The body is declared as something else than JSON."""


class Kind(NamedTuple):
    """A row of the table. `advice` says what the caller should do next."""

    status: int
    slug: str
    title: str
    advice: str


INTERNAL = Kind(500, "internal", "Internal error", "Report it with the request id; the log has the cause under it.")

PROBLEMS: dict[type[AgentEnginesError], Kind] = {
    Malformed: Kind(400, "malformed", "Malformed request", "The body is not valid JSON in UTF-8. Fix it; sending it again does not help."),
    Forbidden: Kind(403, "cross-site", "Cross-site request refused", "Call the API from a page it serves, or from a program."),
    NotFound: Kind(404, "not-found", "Not found", "Check the path and the identifier."),
    MethodNotAllowed: Kind(405, "method-not-allowed", "Method not allowed", "The Allow header lists what is possible."),
    NotAcceptable: Kind(406, "not-acceptable", "Not acceptable", "Accept application/json."),
    BodyTimeout: Kind(408, "body-timeout", "Request timeout", "Send the body faster, or in one piece."),
    Conflict: Kind(409, "conflict", "Conflict", "It already is: the same idempotency key with another body, or a task that has ended."),
    TooLarge: Kind(413, "too-large", "Content too large", "Send a reference to the data in the payload instead of the data."),
    UnsupportedMediaType: Kind(415, "unsupported-media-type", "Unsupported media type", "Send application/json."),
    BudgetTooSmall: Kind(422, "budget-too-small", "Budget too small", "The detail says what the cheapest agent would take. Raise the budget named in `field`, or ask for less."),
    InvalidRequest: Kind(422, "invalid-request", "Invalid request", "Fix the field named in `field` and send it again."),
    BudgetSpent: Kind(429, "budget-spent", "Budget spent", "Nothing was accepted. The tenant's next period begins after Retry-After seconds; an operator may raise its budget."),
    QueueFull: Kind(429, "queue-full", "Queue full", "Nothing was accepted. Try again after Retry-After seconds."),
    NoEligibleAgent: Kind(503, "no-eligible-agent", "No eligible agent", "Nothing was accepted. Start or resume an agent for this task type, or try again after Retry-After seconds."),
    Unavailable: Kind(503, "unavailable", "Unavailable", "Nothing was accepted. Try again after Retry-After seconds."),
}  # fmt: skip

_BY_NAME = {error.__name__: kind for error, kind in PROBLEMS.items()}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457. `field` names what is wrong in a 422, `retry_after` (seconds) comes with 429 and 503."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    field: str | None = None
    retry_after: int | None = None
    results: list[Any] | None = None
    """Only for a batch of which nothing was accepted: one entry for each task, in order."""


def problem(error: BaseException, request_id: str) -> Problem:
    """What the caller may know about `error`: nothing at all when it is not one of ours."""
    kind = kind_of(error)
    if kind is INTERNAL:
        return _problem(kind, "something went wrong here; it is logged under the request id", request_id)
    return _problem(
        kind, str(error), request_id, getattr(error, "field", None), retry_after=getattr(error, "retry_after", None)
    )


def problem_of(kind: str, detail: str, request_id: str, field: str | None, *, retry_after: float | None) -> Problem:
    """The same for a refusal that came over the bus, where `kind` is the error class's name."""
    return _problem(_BY_NAME.get(kind, INTERNAL), detail, request_id, field, retry_after=retry_after)


def kind_of(error: BaseException) -> Kind:
    for ancestor in type(error).__mro__:
        kind = PROBLEMS.get(ancestor)
        if kind is not None:
            return kind
    return INTERNAL


def _problem(
    kind: Kind, detail: str, request_id: str, field: str | None = None, *, retry_after: float | None = None
) -> Problem:
    if kind.status in (429, 503):
        retry_after = max(1, math.ceil(retry_after if retry_after is not None else 1))
    return Problem(
        type=f"/docs#problem-{kind.slug}",
        title=kind.title,
        status=kind.status,
        # A detail may quote the caller; what cannot be written as UTF-8 is replaced.
        detail=detail.encode("utf-8", "replace").decode(),
        request_id=request_id,
        field=field,
        retry_after=int(retry_after) if retry_after is not None else None,
    )
