"""Feedback: what somebody else says about the quality of a task's work after it ended.

One judgement for each source and each end of a task: the same one again changes nothing, another value is refused. A task
that was driven again has a new end (another generation) and can be judged again.
"""

from __future__ import annotations

import math

import msgspec

from .errors import Conflict, InvalidRequest
from .messages import Judge, Report, ReportKind
from .tasks import TaskStatus

DEFAULT_SOURCE = "caller"
SOURCE_LENGTH = 64
COMMENT_LENGTH = 2_000


class FeedbackDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller says. `quality`: 0 (useless) to 1 (perfect); `source`: who judges."""

    quality: float
    source: str = DEFAULT_SOURCE
    comment: str = ""


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """A stored judgement of one end of a task. Times: epoch seconds.

    `recorded_at`: when routers were told to learn from it; None: not yet. `agent` None: nobody did the work.
    """

    task_id: str
    generation: int
    attempt: int
    task_type: str
    agent: str | None
    status: TaskStatus
    source: str
    quality: float
    comment: str
    created_at: float
    recorded_at: float | None = None


def check_feedback(draft: FeedbackDraft) -> None:
    """Raises InvalidRequest, the field named."""
    if not _is_share(draft.quality):
        raise InvalidRequest(f"quality must be a number from 0 to 1, not {draft.quality!r}", field="quality")
    if not 1 <= len(draft.source) <= SOURCE_LENGTH or not draft.source.isprintable():
        raise InvalidRequest(f"source must have 1 to {SOURCE_LENGTH} printable characters", field="source")
    if len(draft.comment) > COMMENT_LENGTH:
        raise InvalidRequest(f"comment must have at most {COMMENT_LENGTH} characters", field="comment")
    if "\0" in draft.comment or any("\ud800" <= character <= "\udfff" for character in draft.comment):
        raise InvalidRequest(
            "comment has a character that is not text (NUL, or half of a surrogate pair)", field="comment"
        )


def _is_share(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0.0 <= value <= 1.0


def settled(known: Feedback, draft: FeedbackDraft) -> Feedback:
    """The judgement that is there, for a caller who says the same again. Raises Conflict for another one.

    What counts is the quality: a comment may be worded anew, the first one stays.
    """
    if known.quality == draft.quality:
        return known
    raise Conflict(
        f"{known.source!r} judged task {known.task_id} before, with quality {known.quality:g}: "
        "a judgement is final; another opinion needs another source"
    )


def feedback_report(feedback: Feedback, capability: str) -> Report:
    """The judgement as it travels to the routers, in the log of reports. `capability`: the mark of the judged dispatch."""
    return Report(
        kind=ReportKind.FEEDBACK,
        task_id=feedback.task_id,
        request_id=feedback.task_id,
        task_type=feedback.task_type,
        agent=feedback.agent,
        generation=feedback.generation,
        attempt=feedback.attempt,
        status=feedback.status,
        quality=feedback.quality,
        completed_at=feedback.created_at,
        capability=capability,
        judge=Judge(feedback.source, feedback.comment),
    )


def feedback_of(report: Report, recorded_at: float) -> Feedback:
    """The stored judgement a FEEDBACK report was made from: the log of reports alone can rebuild the table."""
    judge = report.judge or Judge(DEFAULT_SOURCE)
    return Feedback(
        task_id=report.task_id,
        generation=report.generation,
        attempt=report.attempt,
        task_type=report.task_type,
        agent=report.agent,
        status=report.status,
        source=judge.source,
        quality=report.quality or 0.0,
        comment=judge.comment,
        created_at=recorded_at if report.completed_at is None else report.completed_at,
        recorded_at=recorded_at,
    )
