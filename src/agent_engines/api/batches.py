"""Batches: up to 1,000 tasks in one request, one answer for each."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from agent_engines.domain.errors import AgentEnginesError, InvalidRequest, Malformed
from agent_engines.domain.messages import Refusal, SubmitResult
from agent_engines.domain.tasks import TaskRequest
from agent_engines.domain.validation import request_from_json
from agent_engines.ports.service import IntelligenceService

from .exchange import Call, Reply, decoded, json_reply, problem_reply
from .limits import ApiLimits
from .models import Accepted, BatchAnswer, BatchSubmission, TaskSubmission
from .problems import Problem, problem, problem_of
from .routing import Operation
from .tasks import JSON, SUBMIT_PROBLEMS, with_header_tenant


class _Tasks(msgspec.Struct, forbid_unknown_fields=True):
    tasks: list[msgspec.Raw]


class BatchRoutes:
    """POST /v1/tasks:batch. A task that is refused does not keep the others from being accepted."""

    def __init__(self, service: IntelligenceService, limits: ApiLimits) -> None:
        self._service = service
        self._limits = limits

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/tasks:batch",
                handler=self.submit,
                summary="Submit up to 1,000 tasks; each is accepted or refused by itself",
                tag="tasks",
                body=(BatchSubmission, list[TaskSubmission]),
                replies={202: BatchAnswer},
                problems=SUBMIT_PROBLEMS,
            )
        ]

    async def submit(self, call: Call) -> Reply:
        call.accept(JSON)
        if call.header(b"idempotency-key") is not None:
            raise InvalidRequest("in a batch each task has its own idempotency_key", field="Idempotency-Key")
        parts = self._parts(await call.body(self._limits.batch_body_bytes))
        read = [_read(part, call) for part in parts]
        requests = [request for request in read if isinstance(request, TaskRequest)]
        answers = iter(await self._service.submit(requests, traceparent=call.traceparent) if requests else ())
        results = [
            _result(next(answers), call.request_id) if isinstance(item, TaskRequest) else problem(item, call.request_id)
            for item in read
        ]
        return _reply(results)

    def _parts(self, body: bytes) -> list[msgspec.Raw]:
        """The tasks as they stand. Raises Malformed, InvalidRequest."""
        bare = body.lstrip(b" \t\r\n").startswith(b"[")
        parts = decoded(body, list[msgspec.Raw]) if bare else decoded(body, _Tasks).tasks
        if 1 <= len(parts) <= self._limits.batch_tasks:
            return parts
        raise InvalidRequest(
            f"a batch has 1 to {self._limits.batch_tasks} tasks, this one has {len(parts)}", field="tasks"
        )


def _read(part: msgspec.Raw, call: Call) -> TaskRequest | AgentEnginesError:
    try:
        return with_header_tenant(request_from_json(bytes(part)), call)
    except Malformed:
        # The batch would be malformed as a whole, had it been read to the bottom at once.
        raise
    except AgentEnginesError as error:
        return error


def _result(result: SubmitResult, request_id: str) -> Accepted | Problem:
    if result.accepted is not None:
        return Accepted.of(result.accepted)
    refusal = result.refused or Refusal(kind="", detail="the service did not answer for this task")
    return problem_of(refusal.kind, refusal.detail, request_id, refusal.field, retry_after=refusal.retry_after)


def _reply(results: list[Accepted | Problem]) -> Reply:
    """202 as soon as one was accepted; otherwise the first refusal speaks for the whole, so that no 202 promises nothing."""
    entries: list[Any] = [item if isinstance(item, Accepted) else {"error": item} for item in results]
    refusals = [item for item in results if isinstance(item, Problem)]
    if len(refusals) < len(results):
        accepted = len(results) - len(refusals)
        return json_reply(202, BatchAnswer(accepted=accepted, refused=len(refusals), results=entries))
    first = refusals[0]
    detail = f"none of {len(results)} tasks was accepted; the first: {first.detail}"
    return problem_reply(replace(first, detail=detail, results=entries))
