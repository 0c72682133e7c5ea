"""Clients: they submit, repeat, cancel, read and reopen, and remember every word they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any

from agent_engines.domain.errors import AgentEnginesError, Conflict, NotFound
from agent_engines.domain.messages import SubmitResult
from agent_engines.domain.tasks import TaskRequest, TaskStatus
from agent_engines.ports.clock import Clock
from agent_engines.testing.history import Call, Op, Phase

from .hosts import TASK_TYPE, RouterHost, RouterParts

PATIENCE_SECONDS = 8.0
CERTAIN = frozenset({"InvalidRequest", "NoEligibleAgent", "Conflict", "ContractViolation", "TooLarge"})
"""Refusals that say: nothing was done. The others (the bus is full, a server did not answer) leave it open."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How the clients of one run behave: shares of requests."""

    keyed: float
    repeats: float
    """Keyed requests sent twice at the same time."""
    other_body: float
    cancels: float
    reopens: float
    fails: float
    kills: float
    deadlines: float
    slow: float

    @classmethod
    def of(cls, rng: Random) -> Habits:
        def maybe(most: float) -> float:
            return rng.random() * most if rng.random() < 0.6 else 0.0

        return cls(
            keyed=rng.random(),
            repeats=maybe(0.6),
            other_body=maybe(0.2),
            cancels=maybe(0.4),
            reopens=maybe(0.5),
            fails=maybe(0.5),
            kills=maybe(0.15),
            deadlines=maybe(0.3),
            slow=maybe(0.5),
        )


class Clients:
    """`run` submits `count` tasks over `seconds`; `calls` is their history."""

    def __init__(self, routers: list[RouterHost], clock: Clock, rng: Random, habits: Habits) -> None:
        self.calls: list[Call] = []
        self._routers = routers
        self._clock = clock
        self._rng = rng
        self._habits = habits
        self._number = 0

    async def run(self, count: int, seconds: float) -> None:
        starts = sorted(self._rng.random() * seconds for _ in range(count))
        async with asyncio.TaskGroup() as group:
            for number, at in enumerate(starts):
                group.create_task(self._life(number, at, Random(self._rng.getrandbits(64))), name=f"client-{number}")

    async def _life(self, number: int, at: float, rng: Random) -> None:
        """One client with one task."""
        await self._clock.sleep(at)
        habits, name = self._habits, f"client-{number}"
        request = self._request(number, rng)
        if request.idempotency_key is not None and rng.random() < habits.repeats:
            again = self._again(request, number, rng)
            both = await asyncio.gather(self._submit(name, request, rng), self._late(name, again, rng))
            task_id = both[0] or both[1]
        else:
            task_id = await self._submit(name, request, rng)
        if task_id is None:
            return
        if rng.random() < habits.cancels:
            await self._clock.sleep(rng.random() * rng.choice((0.02, 1.0, 10.0)))
            await self._told(name, Op.CANCEL, task_id, rng, lambda router: router.desk.cancel(task_id))
        for _ in range(rng.randrange(3)):
            await self._clock.sleep(rng.random() * 10.0)
            status = await self._read(name, task_id, rng)
            if status is not None and status.terminal and rng.random() < habits.reopens:
                await self._reopen(name, task_id, rng)

    def _request(self, number: int, rng: Random) -> TaskRequest:
        habits = self._habits
        payload: dict[str, Any] = {"n": number, "seconds": rng.random() * rng.choice((0.01, 0.1, 2.0))}
        if rng.random() < habits.slow:
            payload["seconds"] = rng.random() * 7.0
        if rng.random() < habits.fails:
            payload["fails"] = rng.randrange(1, 5)
        elif rng.random() < habits.fails / 2:
            payload["hopeless"] = True
        if rng.random() < habits.kills:
            payload["kills"] = rng.choice((0.5, 1.0))
        deadline = self._clock.now() + rng.random() * 20.0 if rng.random() < habits.deadlines else None
        return TaskRequest(
            task_type=TASK_TYPE,
            payload=payload,
            priority=rng.randrange(1, 6),
            deadline=deadline,
            idempotency_key=f"key-{number}" if rng.random() < habits.keyed else None,
            max_attempts=rng.choice((None, 1, 2, 3)),
            request_id=f"request-{number}",
        )

    def _again(self, request: TaskRequest, number: int, rng: Random) -> TaskRequest:
        payload = request.payload
        if rng.random() < self._habits.other_body:
            payload = {**payload, "n": -1}
        return TaskRequest(
            task_type=request.task_type,
            payload=payload,
            priority=request.priority,
            deadline=request.deadline,
            idempotency_key=request.idempotency_key,
            max_attempts=request.max_attempts,
            request_id=f"request-{number}-again",
        )

    async def _late(self, name: str, request: TaskRequest, rng: Random) -> str | None:
        await self._clock.sleep(rng.random() * rng.choice((0.0, 0.02, 1.0)))
        return await self._submit(f"{name}-again", request, rng)

    async def _submit(self, name: str, request: TaskRequest, rng: Random) -> str | None:
        """The task's id once it is accepted. A client with a key repeats, as long as its patience lasts."""
        for _ in range(rng.choice((1, 2, 6)) if request.idempotency_key is not None else 1):
            call, retry = await self._submit_once(name, request, rng)
            self.calls.append(call)
            if call.phase is Phase.OK:
                return call.task_id
            if not retry:
                return None
            await self._clock.sleep(0.5 + rng.random() * 3.0)
        return None

    async def _submit_once(self, name: str, request: TaskRequest, rng: Random) -> tuple[Call, bool]:
        began = self._clock.monotonic()
        result: SubmitResult | None = None
        phase, error = Phase.UNKNOWN, ""
        try:
            results = await self._ask(rng, lambda router: router.dispatcher.submit([request]))
            result = results[0]
        except ConnectionRefusedError:
            phase, error = Phase.FAIL, "ConnectionRefused"
        except (TimeoutError, ConnectionError, AgentEnginesError) as trouble:
            error = type(trouble).__name__
        accepted = None if result is None else result.accepted
        if result is not None and result.refused is not None:
            error = result.refused.kind
            phase = Phase.FAIL if error in CERTAIN else Phase.UNKNOWN
        call = Call(
            client=name,
            op=Op.SUBMIT,
            began=began,
            ended=self._clock.monotonic(),
            phase=phase if accepted is None else Phase.OK,
            task_id=None if accepted is None else accepted.task_id,
            request_id=request.request_id,
            key=request.idempotency_key,
            body=repr(request.payload),
            error=error,
        )
        return call, error != "Conflict"

    async def _read(self, name: str, task_id: str, rng: Random) -> TaskStatus | None:
        wait = rng.choice((0.0, 0.0, 3.0))

        async def status(router: RouterParts) -> TaskStatus:
            return (await router.desk.task(task_id, wait)).status

        return await self._told(name, Op.READ, task_id, rng, status)

    async def _reopen(self, name: str, task_id: str, rng: Random) -> None:
        async def reopen(router: RouterParts) -> TaskStatus:
            return (await router.desk.retry(task_id)).status

        await self._told(name, Op.REOPEN, task_id, rng, reopen)

    async def _told(
        self,
        name: str,
        op: Op,
        task_id: str,
        rng: Random,
        work: Callable[[RouterParts], Coroutine[Any, Any, TaskStatus]],
    ) -> TaskStatus | None:
        began = self._clock.monotonic()
        status: TaskStatus | None = None
        phase, error = Phase.UNKNOWN, ""
        try:
            status = await self._ask(rng, work)
            phase = Phase.OK
        except (Conflict, NotFound, ConnectionRefusedError) as trouble:
            phase, error = Phase.FAIL, type(trouble).__name__
        except (TimeoutError, ConnectionError, AgentEnginesError) as trouble:
            error = type(trouble).__name__
        self.calls.append(
            Call(
                client=name,
                op=op,
                began=began,
                ended=self._clock.monotonic(),
                phase=phase,
                task_id=task_id,
                status=status,
                error=error,
            )
        )
        return status

    def _ask(self, rng: Random, work: Callable[[RouterParts], Coroutine[Any, Any, Any]]) -> Awaitable[Any]:
        return rng.choice(self._routers).ask(work, PATIENCE_SECONDS)
