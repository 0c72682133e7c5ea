"""Judgements: feedback on finished work as a lesson for every router, taught by the one that leads.

feedback recorded -> the decision it is about (ledger) -> Lesson with its kind and features -> the log of lessons

The outcome's own lesson stays beside it: a success nobody had judged counted as 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import NotFound
from agent_engines.domain.messages import ReportKind
from agent_engines.learning.lesson import Lesson
from agent_engines.learning.task_features import task_vector
from agent_engines.ports.ledger import Ledger
from agent_engines.ports.telemetry import Log

from .background import Background
from .outcomes import Outcome


class Judgements:
    """`leads`: whether this router speaks for all; `teach` takes lessons for all routers. `stop` it at the end."""

    def __init__(self, ledger: Ledger, *, teach: Callable[[Lesson], None], leads: Callable[[], bool], log: Log) -> None:
        self._ledger = ledger
        self._teach = teach
        self._leads = leads
        self._log = log
        self._background = Background(log)

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Take in what the recorder committed; only feedback is looked at."""
        for outcome in outcomes:
            if outcome.kind is ReportKind.FEEDBACK and outcome.quality is not None and self._leads():
                self._background.spawn(f"judgement-{outcome.task_id}", self._judge(outcome, outcome.quality))

    async def stop(self) -> None:
        """May be called twice."""
        await self._background.stop()

    async def _judge(self, outcome: Outcome, quality: float) -> None:
        """Raises Unavailable (logged by whoever runs it): then this judgement teaches nothing, and stays stored."""
        task = await self._ledger.reader.task(outcome.task_id)
        request_id = task.request_id if outcome.generation == 1 else f"{task.request_id}:{outcome.generation}"
        try:
            decision = await self._ledger.decisions.decision(request_id)
        except NotFound:
            self._log.warning("A judgement's decision is gone, nothing is learned", task_id=outcome.task_id)
            return
        if decision.selected_agent == outcome.agent:
            self._teach(lesson_of(decision, quality))


def lesson_of(decision: Decision, quality: float) -> Lesson:
    """What a judgement (0..1) of the work teaches about the kind that was chosen."""
    chosen = next((one for one in decision.candidates if one.agent == decision.selected_agent), None)
    context = decision.context
    features = None
    if context is not None:
        features = task_vector(
            context.features,
            context.embedding,
            payload_bytes=context.payload_bytes,
            requirements=context.requirements,
        )
    return Lesson(
        kind=(chosen.kind if chosen is not None else "") or decision.selected_agent,
        task_type=decision.task_type,
        quality=quality,
        features=None if features is None else tuple(features.tolist()),
    )
