"""Schedule routes: tasks that are made again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.iso_times import iso
from agent_engines.domain.schedules import CatchUp, Schedule, ScheduleDraft, TaskTemplate
from agent_engines.domain.tasks import DEFAULT_PRIORITY
from agent_engines.domain.terms import DEFAULT_TENANT, Affinity, Budget
from agent_engines.domain.validation import decode_json
from agent_engines.ports.service import IntelligenceService

from .exchange import Call, Reply, json_reply
from .limits import ApiLimits
from .models import Accepted, Listing, TenantName
from .routing import Operation
from .tasks import JSON, refused
from .times import iso_always

WRITE_PROBLEMS = (400, 403, 406, 408, 413, 415, 422, 503)


class ScheduledTask(msgspec.Struct, frozen=True, kw_only=True):
    """What every task of a schedule asks for."""

    task_type: Annotated[str, Meta(min_length=1, max_length=128)]
    payload: Annotated[Any, Meta(description="any JSON value, at most 32 levels deep")] = None
    requirements: dict[str, Any] = {}
    priority: Annotated[int, Meta(ge=1, le=5)] = DEFAULT_PRIORITY
    timeout_seconds: Annotated[float, Meta(gt=0, le=604_800)] | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=100)] | None = None
    metadata: dict[str, Any] = {}
    strategy: Annotated[str | None, Meta(description="by which strategy the agent is chosen")] = None
    features: Annotated[list[float] | None, Meta(description="1 to 256 finite numbers")] = None
    embedding: Annotated[list[float] | None, Meta(description="1 to 4,096 finite numbers")] = None
    tenant: TenantName = DEFAULT_TENANT
    budget: Annotated[Budget | None, Meta(description="what all attempts of one task may use up")] = None
    affinity: Annotated[Affinity | None, Meta(description="tasks with the same key meet the same agent")] = None

    @classmethod
    def of(cls, template: TaskTemplate) -> ScheduledTask:
        return cls(**msgspec.structs.asdict(template))


class ScheduleChange(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it shall be."""

    cron: Annotated[
        str,
        Meta(min_length=1, max_length=255, description="minute hour day month weekday, or a name such as @daily"),
    ]
    task: ScheduledTask
    timezone: Annotated[str, Meta(description="IANA name")] = "UTC"
    enabled: bool = True
    catch_up: Annotated[CatchUp, Meta(description="after downtime: the latest missed occurrence, or all of them")] = (
        CatchUp.SKIP
    )


class ScheduleSubmission(ScheduleChange, frozen=True, kw_only=True):
    """A new schedule."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class ScheduleBody(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it is. `next_run_at` is null while it is paused; `last_error` says why its last task was not made."""

    name: str
    cron: str
    timezone: str
    task: ScheduledTask
    enabled: bool
    catch_up: CatchUp
    next_run_at: str | None
    last_run_at: str | None
    last_task_id: str | None
    last_error: str | None
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, schedule: Schedule) -> ScheduleBody:
        return cls(
            name=schedule.name,
            cron=schedule.cron,
            timezone=schedule.timezone,
            task=ScheduledTask.of(schedule.task),
            enabled=schedule.enabled,
            catch_up=schedule.catch_up,
            next_run_at=iso(schedule.next_run_at),
            last_run_at=iso(schedule.last_run_at),
            last_task_id=schedule.last_task_id,
            last_error=schedule.last_error,
            created_at=iso_always(schedule.created_at),
            updated_at=iso_always(schedule.updated_at),
        )


class SchedulesQuery(msgspec.Struct, frozen=True):
    cursor: Annotated[str | None, Meta(description="`next_cursor` of the page before")] = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class _Template(TaskTemplate, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As it stands in a body; the payload stays the caller's bytes."""


class _Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cron: str
    task: _Template
    name: str | None = None
    timezone: str = "UTC"
    enabled: bool = True
    catch_up: CatchUp = CatchUp.SKIP


_decode = msgspec.json.Decoder(_Draft).decode


class ScheduleRoutes:
    """Everything under /v1/schedules."""

    def __init__(self, service: IntelligenceService, limits: ApiLimits) -> None:
        self._service = service
        self._limits = limits

    def operations(self) -> list[Operation]:
        return [*self._collection(), *self._one(), *self._steering()]

    def _collection(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/schedules",
                handler=self.list,
                summary="Schedules by name",
                tag="schedules",
                query=SchedulesQuery,
                replies={200: Listing[ScheduleBody]},
                problems=(406, 422, 503),
            ),
            Operation(
                method="POST",
                path="/v1/schedules",
                handler=self.add,
                summary="Make tasks by a cron expression; Location leads to the schedule",
                tag="schedules",
                body=ScheduleSubmission,
                replies={201: ScheduleBody},
                problems=(*WRITE_PROBLEMS, 409),
            ),
        ]

    def _one(self) -> list[Operation]:
        path = "/v1/schedules/{schedule}"
        return [
            Operation(
                method="GET",
                path=path,
                handler=self.show,
                summary="One schedule",
                tag="schedules",
                replies={200: ScheduleBody},
                problems=(404, 406, 503),
            ),
            Operation(
                method="PUT",
                path=path,
                handler=self.put,
                summary="Make or replace a schedule; an occurrence that is due is not lost by it",
                tag="schedules",
                body=ScheduleChange,
                replies={200: ScheduleBody},
                problems=(*WRITE_PROBLEMS, 404),
            ),
            Operation(
                method="DELETE",
                path=path,
                handler=self.remove,
                summary="Forget a schedule; the tasks it has made stay",
                tag="schedules",
                replies={204: None},
                problems=(403, 404, 406, 503),
            ),
        ]

    def _steering(self) -> list[Operation]:
        return [
            self._verb("pause", self.pause, "Make no more tasks until it is resumed", {200: ScheduleBody}, (403, 404, 406, 503)),
            self._verb("resume", self.resume, "Go on; what passed meanwhile is not made up for", {200: ScheduleBody}, (403, 404, 406, 422, 503)),
            self._verb("run", self.run, "Make one task now, beside its times", {202: Accepted}, (403, 404, 406, 422, 429, 503)),
        ]  # fmt: skip

    def _verb(
        self,
        verb: str,
        handler: Callable[[Call], Awaitable[Reply]],
        summary: str,
        replies: dict[int, Any],
        problems: tuple[int, ...],
    ) -> Operation:
        return Operation(
            method="POST",
            path="/v1/schedules/{schedule}:" + verb,
            handler=handler,
            summary=summary,
            tag="schedules",
            replies=replies,
            problems=problems,
        )

    async def list(self, call: Call) -> Reply:
        call.accept(JSON)
        query = call.query(SchedulesQuery)
        page = await self._service.schedules.schedules(query.limit, query.cursor)
        return json_reply(200, Listing.of(page, ScheduleBody))

    async def add(self, call: Call) -> Reply:
        call.accept(JSON)
        draft = await self._draft(call)
        if not draft.name:
            raise InvalidRequest("name is missing", field="name")
        schedule = await self._service.schedules.add(draft)
        return json_reply(201, ScheduleBody.of(schedule), (b"location", b"/v1/schedules/" + schedule.name.encode()))

    async def show(self, call: Call) -> Reply:
        call.accept(JSON)
        return json_reply(200, ScheduleBody.of(await self._service.schedules.schedule(_name(call))))

    async def put(self, call: Call) -> Reply:
        call.accept(JSON)
        draft = await self._draft(call)
        if draft.name and draft.name != _name(call):
            raise InvalidRequest("name differs from the one in the path; a schedule cannot be renamed", field="name")
        return json_reply(200, ScheduleBody.of(await self._service.schedules.put(replace(draft, name=_name(call)))))

    async def remove(self, call: Call) -> Reply:
        call.accept(JSON)
        await self._service.schedules.remove(_name(call))
        return Reply(204)

    async def pause(self, call: Call) -> Reply:
        call.accept(JSON)
        return json_reply(200, ScheduleBody.of(await self._service.schedules.pause(_name(call))))

    async def resume(self, call: Call) -> Reply:
        call.accept(JSON)
        return json_reply(200, ScheduleBody.of(await self._service.schedules.resume(_name(call))))

    async def run(self, call: Call) -> Reply:
        call.accept(JSON)
        result = await self._service.schedules.run(_name(call))
        if result.accepted is None:
            return refused(result.refused, call.request_id)
        location = (b"location", b"/v1/tasks/" + result.accepted.task_id.encode())
        return json_reply(202, Accepted.of(result.accepted), location)

    async def _draft(self, call: Call) -> ScheduleDraft:
        """`name` is empty when the body has none."""
        found = decode_json(await call.body(self._limits.body_bytes), _decode)
        return ScheduleDraft(
            name=found.name or "",
            cron=found.cron,
            task=found.task,
            timezone=found.timezone,
            enabled=found.enabled,
            catch_up=found.catch_up,
        )


def _name(call: Call) -> str:
    return call.params["schedule"]
