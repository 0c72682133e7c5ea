"""Waits: the outcomes of up to 1,000 tasks in one answer."""

from __future__ import annotations

import re

import msgspec

from agent_engines.domain.errors import InvalidRequest
from agent_engines.ports.ledger import Several
from agent_engines.ports.service import IntelligenceService

from .exchange import Call, Reply, decoded, encode, json_reply
from .limits import ApiLimits
from .models import EndedQuestion, EndedTasks, TaskBody
from .routing import UUID, Operation
from .tasks import JSON

_is_uuid = re.compile(UUID).fullmatch


class _Answer(msgspec.Struct):
    """EndedTasks, its items written already."""

    items: list[msgspec.Raw]
    more: bool


class WaitRoutes:
    """POST /v1/tasks:wait."""

    def __init__(self, service: IntelligenceService, limits: ApiLimits) -> None:
        self._service = service
        self._limits = limits

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/tasks:wait",
                handler=self.ended,
                summary="Which of up to 1,000 tasks have ended, with their results; with wait, as soon as one has",
                tag="tasks",
                body=EndedQuestion,
                replies={200: EndedTasks},
                problems=(400, 403, 406, 408, 413, 415, 422, 503),
            )
        ]

    async def ended(self, call: Call) -> Reply:
        call.accept(JSON)
        question = decoded(await call.body(self._limits.body_bytes), EndedQuestion)
        task_ids = self._checked(question)
        if question.wait > 0:
            found = await call.unless_gone(self._service.ended(task_ids, question.wait))
        else:
            found = await self._service.ended(task_ids)
        return json_reply(200, self._cut(found))

    def _checked(self, question: EndedQuestion) -> list[str]:
        """The ids as they are stored. Raises InvalidRequest."""
        most = self._limits.wait_seconds
        if question.wait > most:
            raise InvalidRequest(f"wait must be 0 to {most:g} seconds", field="wait")
        for place, task_id in enumerate(question.task_ids):
            if not _is_uuid(task_id):
                raise InvalidRequest(f"task_ids[{place}] is not a UUID", field=f"task_ids[{place}]")
        return [task_id.lower() for task_id in question.task_ids]

    def _cut(self, found: Several) -> _Answer:
        """Results may be megabytes each; what does not fit is asked for again."""
        items: list[msgspec.Raw] = []
        size = 0
        for view in found.items:
            if size >= self._limits.ended_bytes:
                return _Answer(items, more=True)
            item = encode(TaskBody.of(view))
            size += len(item)
            items.append(msgspec.Raw(item))
        return _Answer(items, found.more)
