"""Decision routes: ask who should do something, and read what was decided and why."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import msgspec
from msgspec import Meta

from agent_engines.domain.errors import NotFound
from agent_engines.domain.validation import request_from_json, to_task
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import DecisionFilter
from agent_engines.ports.service import IntelligenceService
from agent_engines.runtime.dispatches import context_of

from .exchange import Call, Reply, json_reply
from .limits import ApiLimits
from .models import DecisionBody, Listing, TaskSubmission
from .routing import Operation
from .tasks import JSON
from .times import parsed_time


class DecisionsQuery(msgspec.Struct, frozen=True):
    task_type: str | None = None
    agent: str | None = None
    since: Annotated[str | None, Meta(description="decided at or after: ISO 8601, or epoch seconds")] = None
    cursor: Annotated[str | None, Meta(description="`next_cursor` of the page before")] = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class DecisionRoutes:
    """Everything under /v1/decisions."""

    def __init__(self, service: IntelligenceService, limits: ApiLimits, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._limits = limits

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/decisions",
                handler=self.recommend,
                summary="Who should do this? Decides and records, dispatches nothing",
                tag="decisions",
                body=TaskSubmission,
                replies={200: DecisionBody},
                problems=(400, 403, 406, 408, 409, 413, 415, 422, 429, 503),
            ),
            Operation(
                method="GET",
                path="/v1/decisions",
                handler=self.list,
                summary="Decisions, newest first",
                tag="decisions",
                query=DecisionsQuery,
                replies={200: Listing[DecisionBody]},
                problems=(406, 422, 503),
            ),
            Operation(
                method="GET",
                path="/v1/decisions/{request_id}",
                handler=self.show,
                summary="The full record of one decision",
                tag="decisions",
                replies={200: DecisionBody},
                problems=(404, 406, 503),
            ),
        ]

    async def recommend(self, call: Call) -> Reply:
        call.accept(JSON)
        request = request_from_json(await call.body(self._limits.body_bytes))
        # The same checks as for a submission, so that what is recommended could also be submitted.
        task = to_task(request, now=self._clock.now(), origin="", new_id=_new_id)
        decision = await self._service.recommend(
            msgspec.structs.replace(context_of(task, task.request_id), task_id=None)
        )
        return json_reply(200, DecisionBody.of(decision))

    async def list(self, call: Call) -> Reply:
        call.accept(JSON)
        query = call.query(DecisionsQuery)
        page = await self._service.decisions(
            DecisionFilter(
                task_type=query.task_type,
                agent=query.agent,
                since=parsed_time(query.since, field="since") if query.since is not None else None,
                cursor=query.cursor,
                limit=query.limit,
            )
        )
        return json_reply(200, Listing.of(page, DecisionBody))

    async def show(self, call: Call) -> Reply:
        call.accept(JSON)
        request_id = call.params["request_id"]
        if not request_id.isprintable():
            raise NotFound("there is no such decision")
        return json_reply(200, DecisionBody.of(await self._service.decision(request_id)))


def _new_id() -> str:
    return str(uuid4())
