"""Deaths in series: an agent that only kills its tasks stops taking them, before it has emptied the queue into dead letters.

taking ──> paused      more than half of the last 20 ends were deaths (RELIABILITY 4.6)
paused ──> probing     after 30 s, doubled each time up to 5 min
probing ─> taking      a task succeeded
        ─> paused      a task died, or failed and is to be tried again

What counts: dead letters (all attempts used up, or poison), and tasks that failed at once in the same way because of the agent:
a handler that wants to exit, a result that cannot be written. What a caller can bring about does not count: payloads
that do not fit, messages nobody can read, PermanentFailure, cancellations and deadlines.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from enum import Enum

from .tasks import TaskError, TaskStatus

WINDOW = 20
MOST_DEATHS = WINDOW // 2
PAUSE_SECONDS = 30.0
MAX_PAUSE_SECONDS = 300.0
MAX_STEP = 16
POISONED = "Poisoned"
OF_THE_AGENT = frozenset({"HandlerExit", "InvalidResult", "UnserializableResult"})
"""Errors of tasks that failed at once, through no fault of their callers."""
OF_THE_SENDER = frozenset({"Undecodable"})
LIVED = ""


class Intake(Enum):
    TAKING = "taking"
    PAUSED = "paused"
    PROBING = "probing"


def judged(status: TaskStatus, error: TaskError | None, task_type: str) -> str | None:
    """What an outcome says about the agent: LIVED, how it died, or None: nothing."""
    kind = error.type if error is not None else "unknown"
    if status is TaskStatus.DEAD_LETTER:
        return None if kind in OF_THE_SENDER else f"dead_letter by {kind} of {task_type}"
    if status is TaskStatus.FAILED and kind in OF_THE_AGENT:
        return f"failed by {kind} of {task_type}"
    return LIVED if status in (TaskStatus.SUCCESS, TaskStatus.FAILED) else None


class Series:
    """The last ends of one replica's tasks, and what follows. Times: seconds that do not run backwards."""

    __slots__ = ("_ends", "_until", "state", "step")

    def __init__(self) -> None:
        self.state = Intake.TAKING
        self.step = 0
        """Pauses in a row, 0 while taking."""
        self._ends: deque[str] = deque(maxlen=WINDOW)
        self._until = 0.0

    @property
    def troubled(self) -> bool:
        """Is there anything to watch? While not, ends of tasks that lived need not be told."""
        return self.state is not Intake.TAKING or len(self._ends) > 0

    @property
    def ends(self) -> tuple[str, ...]:
        """The oldest first."""
        return tuple(self._ends)

    @property
    def until(self) -> float:
        """The end of the present or last pause."""
        return self._until

    @property
    def reason(self) -> str:
        """Why it is paused; empty while it takes work, and while it tries one task.

        Routers send nothing to who is paused: one that had nothing left to try would wait for that task for ever.
        """
        if self.state is not Intake.PAUSED:
            return ""
        common = Counter(end for end in self._ends if end).most_common(1)
        worst = common[0][0] if common else "a probe failed"
        return f"{_deaths(self._ends)} of the last {len(self._ends)} tasks died, most of them: {worst}"

    def ended(self, said: str, now: float) -> bool:
        """Take in one end, as `judged` said; True when the state changed."""
        if said or self._ends:
            self._ends.append(said)
            if not any(self._ends):
                self._ends.clear()
        if self.state is Intake.PROBING:
            return self.probed(not said, now)
        if self.state is Intake.TAKING and _deaths(self._ends) > MOST_DEATHS:
            self._pause(now)
            return True
        return False

    def probed(self, well: bool, now: float) -> bool:
        """A task of the probing time ended; True when the state changed."""
        if self.state is not Intake.PROBING:
            return False
        if well:
            self.state, self.step = Intake.TAKING, 0
            self._ends.clear()
        else:
            self._pause(now)
        return True

    def probe(self, now: float) -> bool:
        """Begin to probe when the pause is over; True when it just began."""
        if self.state is not Intake.PAUSED or now < self._until:
            return False
        self.state = Intake.PROBING
        return True

    def restore(self, ends: Sequence[str], step: int, now: float) -> bool:
        """Go on with what another process of this agent remembered; True when the state changed."""
        self._ends = deque(ends, maxlen=WINDOW)
        if self.state is not Intake.TAKING or _deaths(self._ends) <= MOST_DEATHS:
            return False
        self.step = min(max(step, 0), MAX_STEP)
        self._pause(now)
        return True

    def _pause(self, now: float) -> None:
        self.state = Intake.PAUSED
        self._until = now + min(PAUSE_SECONDS * 2.0**self.step, MAX_PAUSE_SECONDS)
        self.step = min(self.step + 1, MAX_STEP)


def _deaths(ends: Sequence[str] | deque[str]) -> int:
    """Dead letters, and those who failed in the commonest way."""
    dead = sum(end.startswith("dead_letter") for end in ends)
    failed = Counter(end for end in ends if end.startswith("failed")).most_common(1)
    return dead + (failed[0][1] if failed else 0)
