"""The bus way: submissions as one message of many, outcomes by one subscription."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.decisions import Decision, DecisionContext, Recommendation
from agent_engines.domain.errors import AgentEnginesError, InvalidRequest, Unavailable, Unreachable
from agent_engines.domain.feedback import FeedbackDraft
from agent_engines.domain.iso_times import with_iso_times
from agent_engines.domain.messages import (
    VERSION,
    Acceptance,
    AgentQuery,
    Answer,
    DecisionQuery,
    EventQuery,
    FeedbackOrder,
    PageQuery,
    ReportBatch,
    ReportQuery,
    SubmitReply,
    SubmitResult,
    TaskQuery,
)
from agent_engines.domain.tasks import TERMINAL, TaskRequest, TaskStatus, TaskView
from agent_engines.ports.bus import Bus, Subscription
from agent_engines.ports.ledger import DecisionFilter, TaskFilter
from agent_engines.ports.service import TaskEvent

from .bus_outcomes import BusOutcomes
from .encoding import encoded
from .options import ClientOptions
from .refusals import error_of

Shape = TypeVar("Shape")

_encode = msgspec.json.Encoder().encode
_read_reports = msgspec.json.Decoder(ReportBatch).decode
_read_reply = msgspec.json.Decoder(SubmitReply).decode
_read_answer = msgspec.json.Decoder(Answer).decode


class BusTransport:
    """Outcomes of what this client submits come back on a subject of its own. Use `await BusTransport.open(bus)`."""

    def __init__(self, bus: Bus, options: ClientOptions, *, owns_bus: bool = True) -> None:
        self.options = options
        self.origin = f"client-{os.urandom(8).hex()}"
        self._bus = bus
        self._owns_bus = owns_bus
        self._outcomes = BusOutcomes(self._ask, asks=options.waits)
        self._subscription: Subscription | None = None

    @classmethod
    async def open(cls, bus: Bus, options: ClientOptions | None = None, *, owns_bus: bool = True) -> BusTransport:
        """With `owns_bus`, closing the transport closes the bus."""
        transport = cls(bus, options or ClientOptions(), owns_bus=owns_bus)
        transport._subscription = await bus.signals.listen(subjects.recorded(transport.origin), transport._recorded)
        return transport

    async def submit(
        self, requests: Sequence[TaskRequest], *, fresh: bool = False
    ) -> list[Acceptance | AgentEnginesError]:
        answers: list[Acceptance | AgentEnginesError | None] = [None] * len(requests)
        waiting: list[tuple[int, bytes]] = []
        size, most = 0, self._bus.max_message_bytes - 4096
        for index, request in enumerate(requests):
            try:
                raw = encoded(request)
            except AgentEnginesError as error:
                answers[index] = error
                continue
            if waiting and size + len(raw) > most:
                await self._send(waiting, answers, fresh=fresh)
                waiting, size = [], 0
            waiting.append((index, raw))
            size += len(raw) + 1
        if waiting:
            await self._send(waiting, answers, fresh=fresh)
        return [answer or AgentEnginesError("the router did not answer for this task") for answer in answers]

    async def task(self, task_id: str) -> TaskView:
        return await self._ask("task", TaskQuery(task_id=task_id), TaskView)

    async def outcome(self, task_id: str, timeout: float | None) -> TaskView:
        return await self._outcomes.outcome(task_id, timeout)

    async def cancel(self, task_id: str) -> TaskStatus:
        answer = await self._ask("cancel", TaskQuery(task_id=task_id), Any)
        return TaskStatus(answer["status"] if isinstance(answer, dict) else answer)

    async def events(self, task_id: str) -> AsyncIterator[TaskEvent]:
        """Of a task that has ended what HTTP tells; else progress as it comes, then the end.

        States in between are not signalled over the bus: use HTTP to watch those.
        """
        last = ""
        while told := await self._told(task_id, last):
            for event in told:
                yield event
            last = told[-1].id
            if told[-1].event in TERMINAL:
                return
        progress = aiter(self._bus.reports.follow_progress(task_id))
        ending = asyncio.ensure_future(self.outcome(task_id, None))
        coming: asyncio.Future[Any] = asyncio.ensure_future(anext(progress, None))
        try:
            while not ending.done():
                await asyncio.wait((ending, coming), return_when=asyncio.FIRST_COMPLETED)
                if coming.done() and coming.result() is not None:
                    sequence, step = coming.result()
                    yield TaskEvent(id=str(sequence), event="progress", data=_told_outside(step))
                    coming = asyncio.ensure_future(anext(progress, None))
                elif coming.done():
                    await asyncio.wait((ending,))
            view = ending.result()
            yield TaskEvent(id="end", event=view.status.value, data=_told_outside(view))
        finally:
            for job in (ending, coming):
                job.cancel()
            await asyncio.gather(ending, coming, return_exceptions=True)

    async def _told(self, task_id: str, after: str) -> list[TaskEvent]:
        """What the ledger tells of an ended task, past an event; nothing when it has not ended or nobody can say."""
        try:
            told = await self._ask("events", EventQuery(task_id=task_id, after=after), list[TaskEvent])
        except Unavailable:
            if after:
                raise
            return []
        return [msgspec.structs.replace(event, data=with_iso_times(event.data)) for event in told]

    async def recommend(self, context: DecisionContext) -> Recommendation:
        return Recommendation.of(await self._ask("recommend", context, Decision))

    async def read(self, what: str, query: Mapping[str, Any] | None = None) -> Any:
        head, _, rest = what.partition("/")
        name, question = _question(head, rest, {name: item for name, item in (query or {}).items() if item is not None})
        answer = await self._ask(name, question, Any)
        return {"items": answer, "next_cursor": None} if what == "agents" and isinstance(answer, list) else answer

    async def act(self, what: str) -> Any:
        head, _, rest = what.partition("/")
        subject, _, verb = rest.rpartition(":")
        modes = {"drain": "draining", "resume": "active", "quarantine": "quarantined"}
        if head == "agents" and verb in modes:
            return await self._ask("set_mode", AgentQuery(agent=subject, mode=modes[verb]), Any)
        if (head, verb) in (("tasks", "retry"), ("dead-letters", "redrive")):
            answer = await self._ask(verb, TaskQuery(task_id=subject), Any)
            self._outcomes.forget(subject)
            return answer
        raise InvalidRequest(f"{what} cannot be done over the bus: use an http:// URL", field="url")

    async def change(self, method: str, what: str, body: Any = None) -> Any:
        raise InvalidRequest(f"{method} {what} cannot be done over the bus: use an http:// URL", field="url")

    async def feedback(self, task_id: str, draft: FeedbackDraft) -> dict[str, Any]:
        order = FeedbackOrder(task_id=task_id, quality=draft.quality, source=draft.source, comment=draft.comment)
        return await self._ask("feedback", order, dict[str, Any])

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.close()
            self._subscription = None
        if self._owns_bus:
            await self._bus.close()
        await self._outcomes.close()

    async def _send(
        self,
        batch: list[tuple[int, bytes]],
        answers: list[Acceptance | AgentEnginesError | None],
        *,
        fresh: bool,
    ) -> None:
        requests = msgspec.Raw(b"[%b]" % b",".join([raw for _, raw in batch]))
        message = _encode({"v": VERSION, "origin": self.origin, "requests": requests, "fresh": fresh})
        try:
            data = await self._bus.signals.ask(subjects.SUBMIT, message, self.options.request_timeout)
            found: list[Acceptance | AgentEnginesError] = [_answer(result) for result in _read_reply(data).results]
            if len(found) != len(batch):
                found = [Unreachable("the router answered for another number of tasks")] * len(batch)
        except Unavailable as error:
            found = [Unreachable(f"no router answered: {error}")] * len(batch)
        except msgspec.DecodeError as error:
            found = [AgentEnginesError(f"the router's answer could not be read: {error}")] * len(batch)
        for (index, _), answer in zip(batch, found, strict=True):
            answers[index] = answer

    async def _recorded(self, _: str, data: bytes) -> None:
        self._outcomes.told(_read_reports(data).reports)

    async def _ask(self, what: str, question: msgspec.Struct, shape: type[Shape] | Any) -> Shape:
        subject = subjects.ask("intelligence", what)
        try:
            data = await self._bus.signals.ask(subject, _encode(question), self.options.request_timeout)
        except Unavailable as error:
            raise Unreachable(f"no router answered: {error}") from error
        answer = _read_answer(data)
        if answer.refused is not None:
            raise error_of(answer.refused)
        return msgspec.json.decode(answer.value, type=shape)


def _told_outside(step: msgspec.Struct) -> dict[str, Any]:
    """Times as over HTTP, where events are JSON for everybody."""
    return with_iso_times(msgspec.to_builtins(step))


class _Nothing(msgspec.Struct):
    pass


def _question(head: str, rest: str, query: dict[str, Any]) -> tuple[str, msgspec.Struct]:
    """What to ask the intelligence engine for a path of the HTTP API. Raises InvalidRequest."""
    match (head, bool(rest)):
        case ("tasks", False):
            return "tasks", msgspec.convert(query, TaskFilter, strict=False)
        case ("tasks", True):
            return "task", TaskQuery(task_id=rest)
        case ("decisions", False):
            return "decisions", msgspec.convert(query, DecisionFilter, strict=False)
        case ("decisions", True):
            return "decision", DecisionQuery(request_id=rest)
        case ("agents", False):
            return "agents", _Nothing()
        case ("agents", True):
            return "agent", AgentQuery(agent=rest)
        case ("dead-letters", False):
            return "dead_letters", msgspec.convert(query, PageQuery, strict=False)
        case ("dead-letters", True):
            return "dead_letter", TaskQuery(task_id=rest)
        case ("performance" | "scaling", False):
            return "report", ReportQuery(engine="performance", what="report" if head == "performance" else head)
        case ("policies" | "tuning", False):
            return "report", ReportQuery(engine="optimizing", what=head)
        case _:
            raise InvalidRequest(f"{head} cannot be read over the bus: use an http:// URL", field="url")


def _answer(result: SubmitResult) -> Acceptance | AgentEnginesError:
    if result.accepted is not None:
        return result.accepted
    return error_of(result.refused) if result.refused else AgentEnginesError("the router answered with nothing")
