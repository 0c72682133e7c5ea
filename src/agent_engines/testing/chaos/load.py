"""The load of a fault run: submits batches, reads tasks back, and keeps what it was told."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

from agent_engines.client.plain_http import HttpFailure, PlainHttp, plain_http
from agent_engines.domain.tasks import TaskStatus
from agent_engines.testing.history import Call, Op, Phase

CERTAIN = frozenset({400, 401, 403, 404, 409, 413, 422, 429})
"""Answers after which nothing was done."""
INSIST_SECONDS = 60.0
"""How long a batch with keys is sent again."""
RECENT = 500

Task = dict[str, Any]
Make = Callable[[int, Random], Task]


def work(n: int, rng: Random) -> Task:
    return {"task_type": "work", "payload": {"n": n, "pause": rng.uniform(0.0, 0.2)}, "priority": rng.randint(1, 5)}


def some_flaky(n: int, rng: Random) -> Task:
    """Three in ten fail once."""
    failures = 1 if rng.random() < 0.3 else 0
    return {"task_type": "flaky", "payload": {"n": n, "pause": rng.uniform(0.0, 0.05), "failures": failures}}


class Load:
    """Submits batches and reads tasks back; half the batches carry keys and insist, the others take the first answer.

    Every task has a nonce, `prefix` and its number: with it a row is found although its answer was lost.
    """

    def __init__(
        self, url: str, rng: Random, make: Make = work, *, prefix: str = "task", api_key: str | None = None
    ) -> None:
        self._url = url
        self._rng = rng
        self._make = make
        self._prefix = prefix
        self._api_key = api_key
        self._count = 0
        self.calls: list[Call] = []
        self.accepted: dict[str, str] = {}
        """Task id by nonce."""
        self.answers: Counter[str] = Counter()
        """Answers of submissions, by status code or error class."""

    @property
    def prefix(self) -> str:
        return self._prefix

    @property
    def sent(self) -> int:
        """Tasks that were submitted at least once."""
        return self._count

    def http(self) -> PlainHttp:
        return plain_http(self._url, api_key=self._api_key)

    async def run(self, until: asyncio.Event, *, rate: float = 200.0, batch: int = 20, lanes: int = 4) -> None:
        """Submit about `rate` tasks a second until the event; what is under way then comes to its end."""
        async with self.http() as http, asyncio.TaskGroup() as group:
            for lane in range(lanes):
                group.create_task(self._submit_all(http, until, f"lane-{lane}", batch * lanes / rate, batch))
            group.create_task(self._read_all(http, until))

    async def amount(self, count: int, *, batch: int = 20, seconds: float = 0.0) -> None:
        """Submit until `count` tasks were sent altogether, as fast as they are taken or spread over `seconds`."""
        began = time.monotonic()
        async with self.http() as http:
            while self._count < count:
                due = began + seconds * self._count / count
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._submit(http, "lane-0", self._next(min(batch, count - self._count)), keyed=True)

    async def _submit_all(self, http: PlainHttp, until: asyncio.Event, client: str, period: float, batch: int) -> None:
        while not until.is_set():
            began = time.monotonic()
            await self._submit(http, client, self._next(batch), keyed=self._rng.random() < 0.5)
            with suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), max(0.0, began + period - time.monotonic()))

    def _next(self, batch: int) -> dict[str, Task]:
        tasks: dict[str, Task] = {}
        for _ in range(batch):
            nonce = f"{self._prefix}-{self._count}"
            made = self._make(self._count, self._rng)
            tasks[nonce] = {**made, "metadata": {**made.get("metadata", {}), "nonce": nonce}}
            self._count += 1
        return tasks

    async def _submit(self, http: PlainHttp, client: str, tasks: dict[str, Task], *, keyed: bool) -> None:
        if keyed:
            tasks = {nonce: {**task, "idempotency_key": nonce} for nonce, task in tasks.items()}
        end = time.monotonic() + INSIST_SECONDS
        while tasks:
            done = await self._post(http, client, tasks)
            tasks = {nonce: task for nonce, task in tasks.items() if nonce not in done}
            if not keyed or time.monotonic() > end:
                return
            if tasks:
                await asyncio.sleep(0.2)

    async def _post(self, http: PlainHttp, client: str, tasks: dict[str, Task]) -> set[str]:
        """The nonces that were accepted."""
        began = time.monotonic()
        body: dict[str, Any]
        try:
            answer = await http.post("/v1/tasks:batch", json={"tasks": list(tasks.values())})
            code, body = answer.status_code, answer.json()
        except (HttpFailure, ValueError) as error:
            code, body = 0, {"error": type(error).__name__}
        entries: list[dict[str, Any]] = body.get("results") or [{"error": body}] * len(tasks)
        done: set[str] = set()
        for (nonce, task), entry in zip(tasks.items(), entries, strict=True):
            phase = self.submitted(client, nonce, task, (code, entry), began)
            if phase is Phase.OK:
                done.add(nonce)
        return done

    def submitted(self, client: str, nonce: str, task: Task, answer: tuple[int, dict[str, Any]], began: float) -> Phase:
        """Note one submission. `answer`: status code of the response (0: none), and what it says about this task."""
        code, entry = answer
        phase, said = _judged(entry, code)
        self.answers[said] += 1
        self.calls.append(
            Call(
                client=client,
                op=Op.SUBMIT,
                began=began,
                ended=time.monotonic(),
                phase=phase,
                task_id=entry.get("task_id"),
                request_id=nonce,
                key=task.get("idempotency_key"),
                body=json.dumps(task["payload"], sort_keys=True),
            )
        )
        if phase is Phase.OK:
            self.accepted[nonce] = entry["task_id"]
        return phase

    async def _read_all(self, http: PlainHttp, until: asyncio.Event) -> None:
        while not until.is_set():
            if self.accepted:
                await self.read(http, self._rng.choice(list(self.accepted.values())[-RECENT:]))
            await asyncio.sleep(0.05)

    async def read(self, http: PlainHttp, task_id: str) -> TaskStatus | None:
        """The task's status as the API tells it; None without an answer."""
        began = time.monotonic()
        try:
            answer = await http.get(f"/v1/tasks/{task_id}")
            status = TaskStatus(answer.json()["status"]) if answer.status_code == 200 else None
        except (HttpFailure, ValueError):
            status = None
        phase = Phase.UNKNOWN if status is None else Phase.OK
        self.note("reader", Op.READ, began, phase, task_id, status)
        return status

    def note(
        self, client: str, op: Op, began: float, phase: Phase, task_id: str, status: TaskStatus | None = None
    ) -> None:
        call = Call(
            client=client, op=op, began=began, ended=time.monotonic(), phase=phase, task_id=task_id, status=status
        )
        self.calls.append(call)


def _judged(entry: dict[str, Any], code: int) -> tuple[Phase, str]:
    if "task_id" in entry:
        return Phase.OK, "accepted"
    problem = entry.get("error", {})
    status = problem.get("status", code) if isinstance(problem, dict) else code
    said = str(status or problem.get("error", "no answer"))
    return (Phase.FAIL if status in CERTAIN else Phase.UNKNOWN), said


async def during(load: Load, harm: Awaitable[None], *, rate: float = 200.0) -> None:
    """Load for as long as `harm` takes."""
    until = asyncio.Event()

    async def do_harm() -> None:
        try:
            await harm
        finally:
            until.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(until, rate=rate))
        group.create_task(do_harm())
