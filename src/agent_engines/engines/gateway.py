"""The bus gateway: what HTTP offers, for clients that sit on the bus.

`submit`: SubmitBatch -> SubmitReply. `ask.intelligence.<what>`: a question from domain/messages.py -> Answer. One router
of the queue group `intelligence` answers each message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol, cast

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentMode
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import AgentEnginesError, InvalidRequest
from agent_engines.domain.feedback import FeedbackDraft
from agent_engines.domain.messages import (
    AgentQuery,
    Answer,
    DecisionQuery,
    EventQuery,
    FeedbackOrder,
    PageQuery,
    Refusal,
    ReportQuery,
    SubmitReply,
    SubmitResult,
    TaskQuery,
    TasksQuery,
    TasksReply,
)
from agent_engines.domain.tasks import TaskRequest
from agent_engines.domain.validation import DEFAULT_LIMITS, RequestBody, decode_json, request_from_json, request_of
from agent_engines.ports.bus import Bus, Subscription
from agent_engines.ports.ledger import AttemptView, DeadLetter, DecisionFilter, LetterFilter, Several, TaskFilter
from agent_engines.ports.service import IntelligenceService
from agent_engines.ports.telemetry import Log
from agent_engines.runtime.answers import refusal

QUEUE_GROUP = "intelligence"
MAX_BATCH = 2_000
"""Answers without their reasoning are about 400 bytes; this many fit the smallest bus we run on (1 MiB a message)."""
MAX_TASKS = 1_000
"""In one question."""
ENVELOPE_BYTES = 4096
"""What an answer has around its items, and more."""

_encode = msgspec.json.Encoder().encode


class Service(IntelligenceService, Protocol):
    """The intelligence engine, with the reads only the bus offers."""

    async def several(self, task_ids: Sequence[str], most_bytes: int) -> Several: ...

    async def attempts(self, task_id: str) -> list[AttemptView]: ...

    async def dead_letter(self, task_id: str) -> DeadLetter: ...


class _Nothing(msgspec.Struct):
    """A question without arguments; whatever it carries is ignored."""


class _Submissions(msgspec.Struct, frozen=True):
    """SubmitBatch with each request still in bytes, so that one bad request refuses itself only."""

    origin: str
    requests: list[msgspec.Raw]
    fresh: bool = False


class _Readable(msgspec.Struct, frozen=True):
    """SubmitBatch read in one go, which takes that every request can be read."""

    origin: str
    requests: list[RequestBody]
    fresh: bool = False


_decode_submissions = msgspec.json.Decoder(_Submissions).decode
_decode_readable = msgspec.json.Decoder(_Readable).decode


class Gateway:
    """Start it once per router."""

    def __init__(self, service: Service, bus: Bus, log: Log) -> None:
        self._service = service
        self._bus = bus
        self._log = log
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        await self._listen(subjects.SUBMIT, self._submit)
        for what, (shape, answer) in self._questions().items():
            await self._listen(subjects.ask("intelligence", what), self._answering(shape, answer))

    async def stop(self) -> None:
        """Take no more; what is being answered is answered."""
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions.clear()

    async def _listen(self, subject: str, handler: Callable[[str, bytes], Awaitable[bytes | None]]) -> None:
        self._subscriptions.append(await self._bus.signals.listen(subject, handler, queue=QUEUE_GROUP))

    def _questions(self) -> dict[str, tuple[Any, Callable[[Any], Awaitable[Any]]]]:
        service = self._service
        return {
            "task": (TaskQuery, lambda query: service.task(query.task_id, query.wait_seconds)),
            "several": (TasksQuery, self._several),
            "attempts": (TaskQuery, lambda query: service.attempts(query.task_id)),
            "events": (EventQuery, self._events),
            "cancel": (TaskQuery, self._cancel),
            "retry": (TaskQuery, lambda query: service.retry(query.task_id)),
            "redrive": (TaskQuery, lambda query: service.redrive(query.task_id)),
            "feedback": (FeedbackOrder, self._feedback),
            "judgements": (TaskQuery, lambda query: service.feedback.of(query.task_id)),
            "dead_letter": (TaskQuery, lambda query: service.dead_letter(query.task_id)),
            "dead_letters": (PageQuery, lambda query: service.letters(LetterFilter(**msgspec.structs.asdict(query)))),
            "tasks": (TaskFilter, service.tasks),
            "counts": (_Nothing, lambda _: service.counts()),
            "recommend": (DecisionContext, service.recommend),
            "decision": (DecisionQuery, lambda query: service.decision(query.request_id)),
            "decisions": (DecisionFilter, service.decisions),
            "agents": (_Nothing, self._agents),
            "agent": (AgentQuery, self._agent),
            "set_mode": (AgentQuery, self._set_mode),
            "report": (ReportQuery, lambda query: service.report(query.engine, query.what)),
            "health": (_Nothing, lambda _: service.health()),
            "ready": (_Nothing, lambda _: service.ready()),
        }

    def _answering(
        self, shape: Any, answer: Callable[[Any], Awaitable[Any]]
    ) -> Callable[[str, bytes], Awaitable[bytes]]:
        decode = msgspec.json.Decoder(shape).decode

        async def reply(subject: str, data: bytes) -> bytes:
            try:
                question = decode_json(data or b"{}", decode)
                return _encode(Answer(value=msgspec.Raw(_encode(await answer(question)))))
            except AgentEnginesError as error:
                return _encode(Answer(refused=refusal(error)))
            except Exception as error:
                self._log.error("A question failed", subject=subject, error=repr(error))
                return _encode(Answer(refused=_internal()))

        return reply

    async def _submit(self, subject: str, data: bytes) -> bytes:
        try:
            results = await self._submit_readable(data)
        except AgentEnginesError as error:
            results = [SubmitResult(refused=refusal(error))]
        except Exception as error:
            self._log.error("A submission failed", subject=subject, error=repr(error))
            results = [SubmitResult(refused=_internal())]
        data = _encode(SubmitReply(results=tuple(results)))
        if len(data) > self._bus.max_message_bytes:
            # An answer the bus drops would be taken for no answer, and everything would be submitted again.
            data = _encode(SubmitReply(results=tuple([_brief(result) for result in results])))
        return data

    async def _submit_readable(self, data: bytes) -> list[SubmitResult]:
        """Raises InvalidRequest when the message as a whole cannot be read."""
        batch = _read(data)
        if len(batch.requests) > MAX_BATCH:
            raise InvalidRequest(f"a batch has at most {MAX_BATCH} requests", field="requests")
        requests: list[TaskRequest] = []
        refused: dict[int, SubmitResult] = {}
        for place, request in enumerate(batch.requests):
            try:
                whole = isinstance(request, RequestBody)
                requests.append(request_of(request) if whole else request_from_json(bytes(request)))
            except InvalidRequest as error:
                refused[place] = SubmitResult(refused=refusal(error))
        submitted = await self._service.submit(requests, origin=batch.origin, fresh=batch.fresh) if requests else []
        if not refused:
            return submitted
        taken = iter(submitted)
        return [refused[place] if place in refused else next(taken) for place in range(len(batch.requests))]

    async def _several(self, query: TasksQuery) -> TasksReply:
        """As many as fit into one message; who asked asks again for the others."""
        if len(query.task_ids) > MAX_TASKS:
            raise InvalidRequest(f"a question has at most {MAX_TASKS} tasks", field="task_ids")
        room = self._bus.max_message_bytes - ENVELOPE_BYTES
        found = await self._service.several(query.task_ids, room)
        items: list[msgspec.Raw] = []
        for view in found.items:
            item = _encode(view)
            if len(item) < room:
                room -= len(item) + 1
                items.append(msgspec.Raw(item))
        return TasksReply(items, more=found.more or len(items) < len(found.items))

    async def _cancel(self, query: TaskQuery) -> dict[str, str]:
        return {"task_id": query.task_id, "status": str(await self._service.cancel(query.task_id))}

    async def _events(self, query: EventQuery) -> list[msgspec.Raw]:
        if not (await self._service.task(query.task_id)).status.terminal:
            return []
        told: list[msgspec.Raw] = []
        room = self._bus.max_message_bytes - ENVELOPE_BYTES
        async with aclosing(cast("Any", self._service.events(query.task_id, query.after or None))) as events:
            async for event in events:
                raw = _encode(event)
                room -= len(raw) + 1
                if told and room < 0:
                    break
                told.append(msgspec.Raw(raw))
        return told

    async def _feedback(self, order: FeedbackOrder) -> Any:
        draft = FeedbackDraft(quality=order.quality, source=order.source, comment=order.comment)
        return await self._service.feedback.give(order.task_id, draft)

    async def _agents(self, _: _Nothing) -> Any:
        return self._service.agents()

    async def _agent(self, query: AgentQuery) -> Any:
        return self._service.agent(query.agent)

    async def _set_mode(self, query: AgentQuery) -> Any:
        try:
            mode = AgentMode(query.mode or "")
        except ValueError:
            raise InvalidRequest(f"mode must be one of {', '.join(AgentMode)}", field="mode") from None
        return await self._service.set_mode(query.agent, mode)


def _read(data: bytes) -> _Readable | _Submissions:
    """In one go, unless a request may have to be refused by itself: it cannot be read, or may be too large."""
    if len(data) <= DEFAULT_LIMITS.body_bytes:
        try:
            return decode_json(data, _decode_readable)
        except InvalidRequest:
            pass
    return decode_json(data, _decode_submissions)


def _brief(result: SubmitResult) -> SubmitResult:
    if result.accepted is None:
        return result
    return SubmitResult(accepted=msgspec.structs.replace(result.accepted, reasoning=""))


def _internal() -> Refusal:
    return Refusal(kind="AgentEnginesError", detail="this router failed to answer; its log says why")
