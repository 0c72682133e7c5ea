"""The HTTP way: one pool of connections, batches of submissions, a bounded number of long waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec

from agent_engines.domain.decisions import DecisionContext, Recommendation
from agent_engines.domain.errors import AgentEnginesError, NotFound, TooLarge, Unavailable, Unreachable
from agent_engines.domain.feedback import FeedbackDraft
from agent_engines.domain.messages import Acceptance
from agent_engines.domain.redaction import redacted_text
from agent_engines.domain.tasks import TERMINAL, TaskRequest, TaskStatus, TaskView
from agent_engines.ports.service import TaskEvent

from .encoding import encoded, json_bytes
from .event_stream import task_events
from .http_outcomes import LONG_WAIT_SECONDS, RECONNECT_SECONDS, SHORT_WAIT_SECONDS, EndedAnswer, HttpOutcomes
from .options import ClientOptions
from .refusals import error_of_problem
from .views import task_view

BATCH_BYTES = 4 * 1024 * 1024
"""Half of what the server takes in one batch (api/limits.py)."""
SPARE_CONNECTIONS = 16
"""For event streams and single questions beside waits and batches. The pool looks at every one for each request."""


class HttpTransport:
    """`app`: an ASGI application to talk to in this process, instead of a server at `url`."""

    def __init__(self, url: str, options: ClientOptions | None = None, *, app: Any = None) -> None:
        self.options = options or ClientOptions()
        self._url = url.rstrip("/")
        self._waits = asyncio.Semaphore(self.options.waits)
        self._waiting = 0
        self._outcomes = HttpOutcomes(self._ended, self.task, lanes=self.options.waits)
        headers = {"accept": "application/json", "user-agent": "agent-engines-client"}
        if self.options.api_key:
            headers["authorization"] = f"Bearer {self.options.api_key}"
        connections = self.options.waits + self.options.lanes + SPARE_CONNECTIONS
        self._http = httpx2.AsyncClient(
            base_url=self._url,
            headers=headers,
            timeout=httpx2.Timeout(self.options.request_timeout, connect=self.options.connect_timeout, pool=None),
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            transport=None if app is None else httpx2.ASGITransport(app=app),
        )

    async def submit(
        self, requests: Sequence[TaskRequest], *, fresh: bool = False
    ) -> list[Acceptance | AgentEnginesError]:
        answers: list[Acceptance | AgentEnginesError | None] = [None] * len(requests)
        waiting: list[tuple[int, bytes]] = []
        size = 0
        for index, request in enumerate(requests):
            try:
                body = encoded(request)
            except AgentEnginesError as error:
                answers[index] = error
                continue
            if waiting and size + len(body) > BATCH_BYTES:
                await self._post_batch(waiting, answers)
                waiting, size = [], 0
            waiting.append((index, body))
            size += len(body)
        if waiting:
            await self._post_batch(waiting, answers)
        return [answer or AgentEnginesError("the server did not answer for this task") for answer in answers]

    async def task(self, task_id: str) -> TaskView:
        return task_view(await self.read(f"tasks/{quote(task_id, safe='')}"))

    async def outcome(self, task_id: str, timeout: float | None) -> TaskView:
        async with asyncio.timeout(timeout):
            return await self._outcomes.outcome(task_id) or await self._outcome_alone(task_id)

    async def cancel(self, task_id: str) -> TaskStatus:
        answer = await self._call("DELETE", f"/v1/tasks/{quote(task_id, safe='')}")
        return TaskStatus(answer["status"])

    async def events(self, task_id: str) -> AsyncIterator[TaskEvent]:
        path = f"/v1/tasks/{quote(task_id, safe='')}/events"
        last_id, silent = "", 0.0
        while True:
            headers = {"accept": "text/event-stream", **({"last-event-id": last_id} if last_id else {})}
            timeout = httpx2.Timeout(60.0, connect=self.options.connect_timeout, pool=None)
            try:
                async with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                    if response.status_code == 204:
                        return
                    if response.status_code != 200:
                        await response.aread()
                        raise _error(response)
                    async for event in task_events(response.aiter_lines()):
                        last_id, silent = event.id or last_id, 0.0
                        yield event
                        if event.event in TERMINAL:
                            return
            except (httpx2.TransportError, Unavailable) as error:
                if silent >= self.options.retry_seconds:
                    raise error if isinstance(error, Unavailable) else self._unreachable(error) from error
            await asyncio.sleep(RECONNECT_SECONDS)
            silent += RECONNECT_SECONDS

    async def recommend(self, context: DecisionContext) -> Recommendation:
        request = TaskRequest(
            task_type=context.task_type,
            requirements=context.requirements,
            priority=context.priority,
            deadline=context.deadline,
            request_id=context.request_id or None,
            strategy=context.strategy,
            features=None if context.features is None else list(context.features),
            embedding=None if context.embedding is None else list(context.embedding),
        )
        answer = await self._call("POST", "/v1/decisions", content=encoded(request))
        return msgspec.convert(answer, Recommendation)

    async def read(self, what: str, query: Mapping[str, Any] | None = None) -> Any:
        known = {name: value for name, value in (query or {}).items() if value is not None}
        return await self._call("GET", f"/v1/{what}", params=known)

    async def act(self, what: str) -> Any:
        answer = await self._call("POST", f"/v1/{what}")
        self._outcomes.forget(what.rpartition("/")[2].partition(":")[0])
        return answer

    async def change(self, method: str, what: str, body: Any = None) -> Any:
        options = {} if body is None else {"content": json_bytes("body", body)}
        response = await self._send(method, f"/v1/{what}", **options)
        return None if response.status_code == 204 else _checked(response)

    async def feedback(self, task_id: str, draft: FeedbackDraft) -> dict[str, Any]:
        return await self.change("POST", f"tasks/{quote(task_id, safe='')}/feedback", msgspec.to_builtins(draft))

    async def probe(self, path: str) -> tuple[int, Any]:
        """Status and JSON of `/health`, `/ready`: there a 503 is an answer, not an error."""
        response = await self._send("GET", path)
        return response.status_code, _json(response)

    async def close(self) -> None:
        await self._outcomes.close()
        await self._http.aclose()

    async def _outcome_alone(self, task_id: str) -> TaskView:
        """For servers that are asked about one task at a time."""
        path = f"tasks/{quote(task_id, safe='')}"
        self._waiting += 1
        try:
            while True:
                async with self._waits:
                    # When more wait than may ask, each asks briefly, so that none keeps the others from asking.
                    crowded = self._waiting > self.options.waits
                    view = await self._view(path, SHORT_WAIT_SECONDS if crowded else LONG_WAIT_SECONDS)
                if view is not None and view.status.terminal:
                    return view
        finally:
            self._waiting -= 1

    async def _ended(self, task_ids: Sequence[str], wait: float) -> EndedAnswer | None:
        content = msgspec.json.encode({"task_ids": task_ids, "wait": wait})
        timeout = wait + self.options.request_timeout
        response = await self._send("POST", "/v1/tasks:wait", content=content, timeout=timeout)
        if response.status_code in (404, 405):
            return None
        if not response.is_success:
            raise _error(response)
        try:
            return msgspec.json.decode(response.content, type=EndedAnswer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise AgentEnginesError(f"the server's answer to tasks:wait could not be read: {error}") from None

    async def _view(self, path: str, wait: float) -> TaskView | None:
        """None when the server is away for the moment: the task is accepted, so waiting on is right."""
        try:
            query = {"wait": f"{wait:g}"}
            response = await self._send("GET", f"/v1/{path}", params=query, timeout=wait + self.options.request_timeout)
            return task_view(_checked(response))
        except Unavailable as error:
            await asyncio.sleep(min(max(error.retry_after, RECONNECT_SECONDS), 5.0))
            return None

    async def _post_batch(
        self, batch: list[tuple[int, bytes]], answers: list[Acceptance | AgentEnginesError | None]
    ) -> None:
        body = b'{"tasks":[' + b",".join([body for _, body in batch]) + b"]}"
        try:
            response = await self._send("POST", "/v1/tasks:batch", content=body)
            results = _results(response)
            found = [_answer(result) for result in results] if results else [_error(response)] * len(batch)
            if len(found) != len(batch):
                found = [Unreachable("the server answered for another number of tasks")] * len(batch)
        except Unavailable as error:
            found = [error] * len(batch)
        if len(batch) > 1 and isinstance(found[0], TooLarge):
            for one in batch:
                await self._post_batch([one], answers)
            return
        self._outcomes.submitted(answer.task_id for answer in found if isinstance(answer, Acceptance))
        for (index, _), answer in zip(batch, found, strict=True):
            answers[index] = answer

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        return _checked(await self._send(method, path, **options))

    async def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        if "content" in options:
            options["headers"] = {"content-type": "application/json"}
        try:
            return await self._http.request(method, path, **options)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> Unreachable:
        reason = str(error) or type(error).__name__
        return Unreachable(f"{redacted_text(self._url)} does not answer: {redacted_text(reason)}")


def _checked(response: httpx2.Response) -> Any:
    if response.is_success:
        return _json(response)
    raise _error(response)


def _error(response: httpx2.Response) -> AgentEnginesError:
    content = _json(response)
    problem = content if isinstance(content, dict) else {}
    if response.status_code == 404 and not problem:
        return NotFound(f"{response.request.url.path} is not there: is this the URL of an intelligence engine?")
    return error_of_problem(response.status_code, problem, response.headers.get("retry-after"))


def _json(response: httpx2.Response) -> Any:
    try:
        return msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        if response.is_success:
            raise AgentEnginesError(
                f"{response.request.url.path} did not answer with JSON: is this the URL of an intelligence engine?"
            ) from None
        return None


def _results(response: httpx2.Response) -> list[Any]:
    content = _json(response)
    results = content.get("results") if isinstance(content, dict) else None
    return results if isinstance(results, list) else []


def _answer(result: dict[str, Any]) -> Acceptance | AgentEnginesError:
    problem = result.get("error")
    if problem is not None:
        return error_of_problem(int(problem.get("status", 500)), problem, None)
    return msgspec.convert(result, Acceptance)
