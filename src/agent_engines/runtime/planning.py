"""Planning: tasks that must not run before a moment wait in the ledger, with nothing on the bus.

request with `run_at` ahead -> Task -> ledger (its row only) -> Acceptance with who would be chosen now
when due: runtime/redispatch.py claims it, decides for real and publishes its first dispatch
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import AgentEnginesError, BudgetSpent, InvalidRequest, NoEligibleAgent
from agent_engines.domain.messages import Acceptance, SubmitResult
from agent_engines.domain.moments import check_run_at
from agent_engines.domain.tasks import Task, TaskRequest, TaskStatus
from agent_engines.domain.validation import to_task
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import Known, Ledger
from agent_engines.ports.telemetry import Telemetry

from .answers import accepted, first_answer, refusal
from .batching import Batcher
from .dispatcher import Dispatcher, checked_origin

MAX_BATCH = 500


class Plan(NamedTuple):
    """A request that waits. `place`: its position in the submission."""

    place: int
    task: Task


class Planner:
    """Takes submissions: those for now go to the dispatcher at once, those for later into the ledger."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        ledger: Ledger,
        *,
        clock: Clock,
        telemetry: Telemetry,
        new_id: Callable[[], str],
        on_planned: Callable[[float], None],
    ) -> None:
        """`on_planned(run_at)` hears when the next one is due."""
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._clock = clock
        self._log = telemetry.log("intelligence")
        self._new_id = new_id
        self._options = dispatcher.options
        self._on_planned = on_planned
        self._planning: Batcher[Task, Known | None] = Batcher(self._plan, max_batch=MAX_BATCH)

    async def submit(
        self,
        requests: Sequence[TaskRequest],
        *,
        origin: str | None = None,
        traceparent: str | None = None,
        fresh: bool = False,
    ) -> list[SubmitResult]:
        """One result for each request, in order; see Dispatcher.submit."""
        if all(request.run_at is None for request in requests):
            return await self._dispatcher.submit(requests, origin=origin, traceparent=traceparent, fresh=fresh)
        home = self._options.origin if origin is None else checked_origin(origin)
        results: dict[int, SubmitResult] = {}
        plans: list[Plan] = []
        now: list[int] = []
        for place, request in enumerate(requests):
            try:
                task = self._task_for_later(request, home, traceparent)
            except AgentEnginesError as error:
                results[place] = SubmitResult(refused=refusal(error))
                continue
            if task is None:
                now.append(place)
            else:
                plans.append(Plan(place, task))
        if plans:
            results.update(await self._keep(plans))
        if now:
            answers = await self._dispatcher.submit(
                [requests[place] for place in now], origin=origin, traceparent=traceparent, fresh=fresh
            )
            results.update(zip(now, answers, strict=True))
        return [results[place] for place in range(len(requests))]

    async def close(self) -> None:
        """Refuse new submissions for later and wait for those under way."""
        await self._planning.close()

    def _task_for_later(self, request: TaskRequest, origin: str, traceparent: str | None) -> Task | None:
        """None when it may run now. Raises InvalidRequest, TooLarge."""
        now = self._clock.now()
        run_at = request.run_at
        if run_at is None:
            return None
        check_run_at(run_at, request.deadline, now)
        if run_at <= now:
            return None
        self._dispatcher.check(request.strategy)
        return to_task(
            request,
            now=now,
            origin=origin,
            new_id=self._new_id,
            traceparent=traceparent,
            limits=self._options.limits,
        )

    async def _keep(self, plans: Sequence[Plan]) -> list[tuple[int, SubmitResult]]:
        answers = await asyncio.gather(*(self._keep_one(plan.task) for plan in plans))
        return [(plan.place, answer) for plan, answer in zip(plans, answers, strict=True)]

    async def _keep_one(self, task: Task) -> SubmitResult:
        try:
            known = await self._planning.put(task)
        except AgentEnginesError as error:
            return SubmitResult(refused=refusal(error))
        if known is not None and (known.decision is not None or known.body_hash != task.body_hash):
            return first_answer(task, known)
        assert task.run_at is not None
        if known is None:
            self._on_planned(task.run_at)
            self._log.info("Task planned", task_id=task.task_id, task_type=task.task_type, run_at=task.run_at)
        return SubmitResult(accepted=self._acceptance(task, existing=known is not None))

    def _acceptance(self, task: Task, *, existing: bool) -> Acceptance:
        """Who would be chosen now is a preliminary answer: the choice is made again when the task is due."""
        until = f"Waits for its time, {task.run_at:.3f}; the agent is chosen then."
        try:
            preliminary = self._dispatcher.decide(self._dispatcher.context(task, task.request_id))
        except (NoEligibleAgent, InvalidRequest, BudgetSpent) as error:
            return _undecided(task, f"{until} Nobody could take it now: {error}", existing)
        answer = accepted(task.task_id, preliminary, existing=existing)
        return msgspec.structs.replace(answer, reasoning=f"{until} Now it would be: {_said(preliminary)}")

    async def _plan(self, tasks: Sequence[Task]) -> list[Known | BaseException | None]:
        """Group commit. Of two tasks with one id the first is written, the second learns of it."""
        first: dict[str, Task] = {}
        for task in tasks:
            first.setdefault(task.task_id, task)
        known = {found.task_id: found for found in await self._ledger.tasks.plan(list(first.values()))}
        return [known.get(task.task_id) or _repeated(task, first[task.task_id]) for task in tasks]


def _repeated(task: Task, first: Task) -> Known | None:
    return None if task is first else Known(first.task_id, first.body_hash, TaskStatus.QUEUED, None)


def _said(decision: Decision) -> str:
    return decision.reasoning or decision.selected_agent


def _undecided(task: Task, reasoning: str, existing: bool) -> Acceptance:
    return Acceptance(
        task_id=task.task_id,
        request_id=task.request_id,
        status=TaskStatus.QUEUED,
        selected_agent=None,
        confidence=0.0,
        propensity=0.0,
        strategy="",
        reasoning=reasoning,
        policy_version="",
        existing=existing,
    )
