"""Feedback routes: what others say about finished work."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from agent_engines.domain.errors import InvalidRequest, Malformed
from agent_engines.domain.feedback import COMMENT_LENGTH, DEFAULT_SOURCE, SOURCE_LENGTH, Feedback, FeedbackDraft
from agent_engines.domain.tasks import TaskStatus
from agent_engines.domain.validation import decode_json
from agent_engines.ports.service import IntelligenceService

from .exchange import Call, Reply, json_reply
from .limits import ApiLimits
from .models import Listing
from .routing import Operation
from .tasks import JSON, task_id_of
from .times import iso_always

PATH = "/v1/tasks/{task_id}/feedback"
NOT_A_NUMBER = re.compile(rb'"quality"\s*:\s*-?(?:NaN|Infinity)')
"""What careless JSON writers make of a quality that is none."""


class FeedbackSubmission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A judgement of a task that has ended."""

    quality: Annotated[float, Meta(ge=0, le=1, description="0 useless, 1 perfect")]
    source: Annotated[str, Meta(min_length=1, max_length=SOURCE_LENGTH, description="who judges")] = DEFAULT_SOURCE
    comment: Annotated[str, Meta(max_length=COMMENT_LENGTH)] = ""


class FeedbackBody(msgspec.Struct, frozen=True, kw_only=True):
    """A stored judgement. `agent`: whose work it is about; null when nobody ran the task."""

    task_id: str
    source: str
    quality: float
    comment: str
    agent: str | None
    task_type: str
    status: TaskStatus
    attempt: int
    created_at: str

    @classmethod
    def of(cls, feedback: Feedback) -> FeedbackBody:
        return cls(
            task_id=feedback.task_id,
            source=feedback.source,
            quality=feedback.quality,
            comment=feedback.comment,
            agent=feedback.agent,
            task_type=feedback.task_type,
            status=feedback.status,
            attempt=feedback.attempt,
            created_at=iso_always(feedback.created_at),
        )


_decode = msgspec.json.Decoder(FeedbackSubmission).decode


class FeedbackRoutes:
    """Everything under /v1/tasks/{task_id}/feedback."""

    def __init__(self, service: IntelligenceService, limits: ApiLimits) -> None:
        self._service = service
        self._limits = limits

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path=PATH,
                handler=self.give,
                summary="Judge the work of a task that has ended; the same judgement again changes nothing",
                tag="tasks",
                body=FeedbackSubmission,
                replies={200: FeedbackBody},
                problems=(400, 403, 404, 406, 408, 409, 413, 415, 422, 503),
            ),
            Operation(
                method="GET",
                path=PATH,
                handler=self.list,
                summary="What was said about a task's work, oldest first",
                tag="tasks",
                replies={200: Listing[FeedbackBody]},
                problems=(404, 406, 503),
            ),
        ]

    async def give(self, call: Call) -> Reply:
        call.accept(JSON)
        submitted = _decoded(await call.body(self._limits.body_bytes))
        draft = FeedbackDraft(quality=submitted.quality, source=submitted.source, comment=submitted.comment)
        return json_reply(200, FeedbackBody.of(await self._service.feedback.give(task_id_of(call), draft)))

    async def list(self, call: Call) -> Reply:
        call.accept(JSON)
        found = await self._service.feedback.of(task_id_of(call))
        return json_reply(200, Listing([FeedbackBody.of(one) for one in found], None))


def _decoded(body: bytes) -> FeedbackSubmission:
    """Raises Malformed, InvalidRequest."""
    try:
        return decode_json(body, _decode)
    except Malformed:
        if NOT_A_NUMBER.search(body):
            raise InvalidRequest("quality must be a number from 0 to 1", field="quality") from None
        raise
