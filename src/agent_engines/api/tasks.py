"""Task routes: submit, follow, list, cancel, retry."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from agent_engines.domain.errors import AgentEnginesError, InvalidRequest
from agent_engines.domain.messages import Acceptance, Refusal
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.domain.terms import DEFAULT_TENANT, check_tenant
from agent_engines.domain.validation import request_from_json
from agent_engines.ports.ledger import TaskFilter
from agent_engines.ports.service import IntelligenceService

from .exchange import Call, Reply, json_reply, problem_reply
from .limits import ApiLimits
from .models import Accepted, Listing, TaskBody, TaskState, TaskSubmission, Waited
from .problems import problem_of
from .routing import Operation
from .times import parsed_time

JSON = "application/json"
KEY_HELP = {
    "Idempotency-Key": "the same key with the same body is the same task; with another body it is a 409",
    "X-Tenant": "the tenant, where the body names none",
}
SUBMIT_PROBLEMS = (400, 403, 406, 408, 409, 413, 415, 422, 429, 503)


class WaitQuery(msgspec.Struct, frozen=True):
    wait: Annotated[float, Meta(ge=0, le=300, description="seconds to wait for the task to end")] = 0.0


class TasksQuery(msgspec.Struct, frozen=True):
    status: TaskStatus | None = None
    task_type: str | None = None
    agent: str | None = None
    since: Annotated[str | None, Meta(description="submitted at or after: ISO 8601, or epoch seconds")] = None
    cursor: Annotated[str | None, Meta(description="`next_cursor` of the page before")] = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class TaskRoutes:
    """Everything under /v1/tasks but batches and event streams, and /route-task."""

    def __init__(self, service: IntelligenceService, limits: ApiLimits) -> None:
        self._service = service
        self._limits = limits

    def operations(self) -> list[Operation]:
        return [*self._writing(), *self._reading(), *self._steering()]

    def _writing(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/route-task",
                handler=self.route,
                summary="Route, accept durably and dispatch a task; with wait, also its outcome",
                tag="tasks",
                body=TaskSubmission,
                query=WaitQuery,
                headers=KEY_HELP,
                replies={200: (Accepted, Waited)},
                problems=SUBMIT_PROBLEMS,
            ),
            Operation(
                method="POST",
                path="/v1/tasks",
                handler=self.submit,
                summary="Submit a task; Location leads to it",
                tag="tasks",
                body=TaskSubmission,
                headers=KEY_HELP,
                replies={202: Accepted},
                problems=SUBMIT_PROBLEMS,
            ),
        ]

    def _reading(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/tasks/{task_id}",
                handler=self.show,
                summary="A task as it is now, or, with wait, as soon as it has ended",
                tag="tasks",
                query=WaitQuery,
                replies={200: TaskBody},
                problems=(404, 406, 422, 503),
            ),
            Operation(
                method="GET",
                path="/v1/tasks",
                handler=self.list,
                summary="Tasks, newest first, without their results",
                tag="tasks",
                query=TasksQuery,
                replies={200: Listing[TaskBody]},
                problems=(406, 422, 503),
            ),
        ]

    def _steering(self) -> list[Operation]:
        return [
            Operation(
                method="DELETE",
                path="/v1/tasks/{task_id}",
                handler=self.cancel,
                summary="Cancel a task: at once when it waits, soon when it runs",
                tag="tasks",
                replies={202: TaskState},
                problems=(403, 404, 406, 409, 503),
            ),
            Operation(
                method="POST",
                path="/v1/tasks/{task_id}:retry",
                handler=self.retry,
                summary="Run a task that ended without success again",
                tag="tasks",
                replies={202: TaskBody},
                problems=(403, 404, 406, 409, 429, 503),
            ),
        ]

    async def route(self, call: Call) -> Reply:
        call.accept(JSON)
        wait = waited(call, self._limits)
        accepted = await self._submit(call)
        if isinstance(accepted, Reply):
            return accepted
        if wait <= 0:
            return json_reply(200, Accepted.of(accepted), *_replayed(accepted))
        view = await call.unless_gone(self._service.task(accepted.task_id, wait))
        return json_reply(200, Waited.after(accepted, view), *_replayed(accepted))

    async def submit(self, call: Call) -> Reply:
        call.accept(JSON)
        accepted = await self._submit(call)
        if isinstance(accepted, Reply):
            return accepted
        location = (b"location", b"/v1/tasks/" + accepted.task_id.encode())
        return json_reply(202, Accepted.of(accepted), location, *_replayed(accepted))

    async def show(self, call: Call) -> Reply:
        call.accept(JSON)
        wait = waited(call, self._limits)
        task_id = task_id_of(call)
        if wait > 0:
            view = await call.unless_gone(self._service.task(task_id, wait))
        else:
            view = await self._service.task(task_id)
        return json_reply(200, TaskBody.of(view))

    async def list(self, call: Call) -> Reply:
        call.accept(JSON)
        query = call.query(TasksQuery)
        page = await self._service.tasks(
            TaskFilter(
                status=query.status,
                task_type=query.task_type,
                agent=query.agent,
                since=parsed_time(query.since, field="since") if query.since is not None else None,
                cursor=query.cursor,
                limit=query.limit,
            )
        )
        return json_reply(200, Listing.of(page, TaskBody))

    async def cancel(self, call: Call) -> Reply:
        call.accept(JSON)
        task_id = task_id_of(call)
        status = await self._service.cancel(task_id)
        return json_reply(202, TaskState(task_id, status))

    async def retry(self, call: Call) -> Reply:
        call.accept(JSON)
        view = await self._service.retry(task_id_of(call))
        return json_reply(202, TaskBody.of(view))

    async def _submit(self, call: Call) -> Acceptance | Reply:
        request = request_from_json(await call.body(self._limits.body_bytes))
        request = with_header_tenant(with_header_key(request, call), call)
        results = await self._service.submit([request], traceparent=call.traceparent)
        result = results[0]
        if result.accepted is not None:
            return result.accepted
        return refused(result.refused, call.request_id)


def task_id_of(call: Call) -> str:
    """Ids are written in lower case; a caller may shout."""
    return call.params["task_id"].lower()


def waited(call: Call, limits: ApiLimits) -> float:
    """The `wait` parameter in seconds. Raises InvalidRequest."""
    wait = call.query(WaitQuery).wait
    if math.isfinite(wait) and wait <= limits.wait_seconds:
        return wait
    raise InvalidRequest(f"wait must be 0 to {limits.wait_seconds:g} seconds", field="wait")


def with_header_key(request: TaskRequest, call: Call) -> TaskRequest:
    """The request with the key of the Idempotency-Key header. Raises InvalidRequest when the body names another one."""
    key = call.header(b"idempotency-key")
    if key is None or key == request.idempotency_key:
        return request
    if request.idempotency_key is not None:
        raise InvalidRequest("the Idempotency-Key header and idempotency_key differ", field="Idempotency-Key")
    if not 1 <= len(key) <= 255 or not (key.isascii() and key.isprintable()):
        raise InvalidRequest("Idempotency-Key must have 1 to 255 printable ASCII characters", field="Idempotency-Key")
    return replace(request, idempotency_key=key)


def with_header_tenant(request: TaskRequest, call: Call) -> TaskRequest:
    """The request with the tenant of the X-Tenant header. Raises InvalidRequest when the body names another one."""
    name = call.header(b"x-tenant")
    if name is None or name == request.tenant:
        return request
    check_tenant(name, "X-Tenant")
    if request.tenant != DEFAULT_TENANT:
        raise InvalidRequest("the X-Tenant header and tenant differ", field="X-Tenant")
    return replace(request, tenant=name)


def refused(refusal: Refusal | None, request_id: str) -> Reply:
    if refusal is None:
        raise AgentEnginesError("the service answered with neither an acceptance nor a refusal")
    return problem_reply(
        problem_of(refusal.kind, refusal.detail, request_id, refusal.field, retry_after=refusal.retry_after)
    )


def _replayed(accepted: Acceptance) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"idempotency-replayed", b"true"),) if accepted.existing else ()
