"""Judgements: feedback on finished work as a lesson for every router, taught by the one that leads.

feedback recorded -> the decision it is about (ledger) -> Lesson with its kind and features -> the log of lessons

Every router hears of it and remembers it for KEPT_SECONDS: whoever leads teaches it, at once or when it begins to lead. The
lesson's name is the same from everybody and the bus drops a second one of that name for longer than that, so it is taught
once, also when the leader before had taught it already. The outcome's own lesson stays beside it: a success nobody had judged
counted as 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from agent_engines.domain.decisions import Decision
from agent_engines.domain.errors import NotFound, Unavailable
from agent_engines.domain.feedback import DEFAULT_SOURCE
from agent_engines.domain.messages import ReportKind
from agent_engines.learning.lesson import Lesson
from agent_engines.learning.task_features import task_vector
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import Ledger
from agent_engines.ports.telemetry import Log

from .background import Background
from .outcomes import Outcome

KEPT_SECONDS = 60.0
"""Longer than nobody leads after a leader's death (14 s); half of the time for which the bus knows a lesson's name again."""
LOOK_SECONDS = 2.0
MOST_KEPT = 10_000


class Judgements:
    """`leads`: whether this router speaks for all; `teach` takes lessons that all routers learn once. `stop` it at the end."""

    def __init__(
        self, ledger: Ledger, *, teach: Callable[[Lesson], None], leads: Callable[[], bool], clock: Clock, log: Log
    ) -> None:
        self._ledger = ledger
        self._teach = teach
        self._leads = leads
        self._clock = clock
        self._log = log
        self._background = Background(log)
        self._kept: deque[tuple[float, Outcome]] = deque(maxlen=MOST_KEPT)
        """Heard and not taught by this router, with the time until which it may be."""
        self._looking = False

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Take in what the recorder committed; only feedback is looked at."""
        for outcome in outcomes:
            if outcome.kind is ReportKind.FEEDBACK and outcome.quality is not None:
                until = self._clock.monotonic() + KEPT_SECONDS
                if self._leads():
                    self._spawn(outcome, outcome.quality, until)
                else:
                    self._keep(outcome, until)

    async def stop(self) -> None:
        """May be called twice."""
        await self._background.stop()

    def _spawn(self, outcome: Outcome, quality: float, until: float) -> None:
        self._background.spawn(f"judgement-{outcome.task_id}", self._judge(outcome, quality, until))

    def _keep(self, outcome: Outcome, until: float) -> None:
        self._kept.append((until, outcome))
        if not self._looking:
            self._looking = True
            self._background.spawn("judgements-kept", self._look())

    async def _look(self) -> None:
        """Wait until this router leads, or until none is left that may still be taught."""
        while self._kept:
            await self._clock.sleep(LOOK_SECONDS)
            now = self._clock.monotonic()
            fresh = [(until, outcome) for until, outcome in self._kept if until > now]
            self._kept.clear()
            if not self._leads():
                self._kept.extend(fresh)
                continue
            for until, outcome in fresh:
                if outcome.quality is not None:
                    self._spawn(outcome, outcome.quality, until)
        self._looking = False

    async def _judge(self, outcome: Outcome, quality: float, until: float) -> None:
        """While the ledger is away it is kept: what cannot be taught in time teaches nothing, and stays stored."""
        try:
            decision = await self._decision(outcome)
        except NotFound:
            self._log.warning("A judgement's decision is gone, nothing is learned", task_id=outcome.task_id)
        except Unavailable as error:
            self._log.warning("A judgement waits for the ledger", task_id=outcome.task_id, error=str(error))
            self._keep(outcome, until)
        else:
            if decision.selected_agent == outcome.agent:
                self._teach(lesson_of(decision, quality, name_of(outcome)))

    async def _decision(self, outcome: Outcome) -> Decision:
        """Raises NotFound, Unavailable."""
        task = await self._ledger.reader.task(outcome.task_id)
        request_id = task.request_id if outcome.generation == 1 else f"{task.request_id}:{outcome.generation}"
        return await self._ledger.decisions.decision(request_id)


def name_of(outcome: Outcome) -> str:
    """What tells this judgement from all others, on every router."""
    source = DEFAULT_SOURCE if outcome.judge is None else outcome.judge.source
    return f"{outcome.task_id}:{outcome.generation}:{source}"


def lesson_of(decision: Decision, quality: float, name: str) -> Lesson:
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
        id=name,
        kind=(chosen.kind if chosen is not None else "") or decision.selected_agent,
        task_type=decision.task_type,
        quality=quality,
        features=None if features is None else tuple(features.tolist()),
    )
