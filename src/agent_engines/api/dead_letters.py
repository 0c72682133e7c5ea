"""Dead letter routes: what was given up, and sending it on its way again, one by one or by the thousand."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from agent_engines.domain.redrives import DEFAULT_RATE, MAX_RATE, Redrive, RedriveOrder, RedriveState
from agent_engines.domain.validation import decode_json
from agent_engines.ports.ledger import LetterFilter
from agent_engines.ports.service import IntelligenceService

from .exchange import Call, Reply, json_reply
from .limits import ApiLimits
from .models import DeadLetterBody, Listing, TaskBody
from .routing import Operation
from .tasks import JSON, task_id_of
from .times import iso_always, parsed_time


class DeadLettersQuery(msgspec.Struct, frozen=True):
    task_type: str | None = None
    agent: str | None = None
    reason: Annotated[str | None, Meta(description="a part of the reason, in any case")] = None
    since: Annotated[str | None, Meta(description="given up at or after: ISO 8601, or epoch seconds")] = None
    waiting: Annotated[bool, Meta(description="only those that were not redriven yet")] = False
    cursor: Annotated[str | None, Meta(description="`next_cursor` of the page before")] = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class RedriveSubmission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters shall run again: those not redriven yet that match everything named here. {}: all of them."""

    task_type: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    agent: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    reason: (
        Annotated[str, Meta(min_length=1, max_length=255, description="a part of the reason, in any case")] | None
    ) = None
    since: Annotated[str | float | None, Meta(description="given up at or after: ISO 8601, or epoch seconds")] = None
    limit: Annotated[int, Meta(ge=1, le=1_000_000_000, description="at most so many, the newest first")] | None = None
    rate: Annotated[float, Meta(gt=0, le=MAX_RATE, description="dead letters a second")] = DEFAULT_RATE


class RedriveBody(msgspec.Struct, frozen=True, kw_only=True):
    """How far a redrive got. `skipped`: somebody else redrove them meanwhile, or what they were to do is not known any more."""

    id: str
    state: RedriveState
    matched: int
    redriven: int
    skipped: int
    rate: float
    task_type: str | None
    agent: str | None
    reason: str | None
    since: str | None
    limit: int | None
    started_at: str
    updated_at: str

    @classmethod
    def of(cls, redrive: Redrive) -> RedriveBody:
        order = redrive.order
        return cls(
            id=redrive.id,
            state=redrive.state,
            matched=redrive.matched,
            redriven=redrive.redriven,
            skipped=redrive.skipped,
            rate=order.rate,
            task_type=order.task_type,
            agent=order.agent,
            reason=order.reason,
            since=None if order.since is None else iso_always(order.since),
            limit=order.limit,
            started_at=iso_always(redrive.started_at),
            updated_at=iso_always(redrive.updated_at),
        )


_decode = msgspec.json.Decoder(RedriveSubmission).decode


class DeadLetterRoutes:
    """Everything under /v1/dead-letters."""

    def __init__(self, service: IntelligenceService, limits: ApiLimits) -> None:
        self._service = service
        self._limits = limits

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/dead-letters",
                handler=self.list,
                summary="Tasks that were given up, newest first",
                tag="dead letters",
                query=DeadLettersQuery,
                replies={200: Listing[DeadLetterBody]},
                problems=(406, 422, 503),
            ),
            Operation(
                method="POST",
                path="/v1/dead-letters/{task_id}:redrive",
                handler=self.redrive,
                summary="Run a dead letter again, with a new attempt budget",
                tag="dead letters",
                replies={202: TaskBody},
                problems=(403, 404, 406, 409, 429, 503),
            ),
            *self._many(),
        ]

    def _many(self) -> list[Operation]:
        path = "/v1/dead-letters:redrive"
        return [
            Operation(
                method="POST",
                path=path,
                handler=self.redrive_many,
                summary="Run many dead letters again, in the background, no faster than `rate`",
                tag="dead letters",
                body=RedriveSubmission,
                replies={202: RedriveBody},
                problems=(400, 403, 406, 408, 409, 413, 415, 422, 503),
            ),
            Operation(
                method="GET",
                path=path,
                handler=self.progress,
                summary="How far the redrive got that runs, or ran last",
                tag="dead letters",
                replies={200: RedriveBody},
                problems=(404, 406, 503),
            ),
            Operation(
                method="DELETE",
                path=path,
                handler=self.stop,
                summary="Stop the redrive that runs; what it has redriven stays so",
                tag="dead letters",
                replies={200: RedriveBody},
                problems=(403, 404, 406, 503),
            ),
        ]

    async def list(self, call: Call) -> Reply:
        call.accept(JSON)
        query = call.query(DeadLettersQuery)
        wanted = LetterFilter(
            task_type=query.task_type,
            agent=query.agent,
            reason=query.reason,
            since=None if query.since is None else parsed_time(query.since, field="since"),
            waiting=query.waiting,
            cursor=query.cursor,
            limit=query.limit,
        )
        return json_reply(200, Listing.of(await self._service.letters(wanted), DeadLetterBody))

    async def redrive(self, call: Call) -> Reply:
        call.accept(JSON)
        return json_reply(202, TaskBody.of(await self._service.redrive(task_id_of(call))))

    async def redrive_many(self, call: Call) -> Reply:
        call.accept(JSON)
        wanted = decode_json(await call.body(self._limits.body_bytes), _decode)
        order = RedriveOrder(
            task_type=wanted.task_type,
            agent=wanted.agent,
            reason=wanted.reason,
            since=None if wanted.since is None else parsed_time(str(wanted.since), field="since"),
            limit=wanted.limit,
            rate=wanted.rate,
        )
        return json_reply(202, RedriveBody.of(await self._service.redrives.begin(order)))

    async def progress(self, call: Call) -> Reply:
        call.accept(JSON)
        return json_reply(200, RedriveBody.of(await self._service.redrives.latest()))

    async def stop(self, call: Call) -> Reply:
        call.accept(JSON)
        return json_reply(200, RedriveBody.of(await self._service.redrives.end()))
