"""One agent's breaker as this router holds it: its own counts, and the word all routers share.

            counted here                      told by others (`adopt`)
CLOSED ──> OPEN ──────────────> HALF_OPEN ──> CLOSED
               time, the same       │ one router claims the trial; the others wait for what it says,
               on all routers       │ or until its claim has lapsed
"""

from __future__ import annotations

from collections.abc import Callable

from agent_engines.domain.breaker import Breaker, BreakerState, Permit
from agent_engines.domain.breaker_word import MAX_CAUSE, SILENT, BreakerWord
from agent_engines.ports.clock import Clock


class AgentBreaker:
    """Ask `admits` before choosing the agent, tell `sent`, `unsent` and `judged` afterwards.

    `moved` and `wanted` are called with this object when it changed by itself, and when it needs a claim for a trial.
    """

    def __init__(
        self,
        agent: str,
        breaker: Breaker,
        clock: Clock,
        *,
        moved: Callable[[AgentBreaker], None],
        wanted: Callable[[AgentBreaker], None],
    ) -> None:
        self.agent = agent
        self.word: BreakerWord = SILENT
        """The last word this router wrote or took over."""
        self._breaker = breaker
        self._clock = clock
        self._moved = moved
        self._wanted = wanted
        self._trial: tuple[str, Permit] | None = None
        self._mine_until = 0.0

    def state(self, now: float) -> BreakerState:
        return self._breaker.state(now)

    @property
    def cause(self) -> str:
        """Why it is not closed."""
        return self._breaker.cause

    @property
    def open_until(self) -> float:
        """Monotonic seconds of this router."""
        return self._breaker.open_until

    def until(self, now: float) -> float | None:
        """Epoch seconds at which an open breaker is tried again; None when it is not open."""
        if self._breaker.state(now) is not BreakerState.OPEN:
            return None
        return self._clock.now() + self._breaker.open_until - now

    def shut(self, now: float) -> str:
        """Why the agent is not chosen, as a sentence of a decision record."""
        cause = f": {self.cause}" if self.cause else ""
        if self._breaker.state(now) is BreakerState.OPEN:
            return f"breaker open{cause}, tried again in {max(1.0, self._breaker.open_until - now):.0f} s"
        return f"breaker half-open{cause}, one trial at a time"

    def admits(self, now: float) -> bool:
        """May the agent be chosen? A half-open one by the router that holds the claim alone."""
        state = self._breaker.state(now)
        if state is not BreakerState.HALF_OPEN:
            return state is BreakerState.CLOSED
        if self.claimed(now):
            return self._breaker.allows(now)
        if not self.claimed_elsewhere:
            self._wanted(self)
        return False

    def tries(self, now: float) -> bool:
        """Half-open, and the next task may be its trial."""
        return self._breaker.state(now) is BreakerState.HALF_OPEN and self.admits(now)

    def claimed(self, now: float) -> bool:
        """This router holds the trial."""
        return now < self._mine_until

    @property
    def claimed_elsewhere(self) -> bool:
        """Another router holds the trial."""
        if self.word.state != "half-open" or self.claimed(self._clock.monotonic()):
            return False
        return self._clock.now() < self.word.until

    def sent(self, task_id: str, now: float) -> None:
        """A task goes to the agent; the first one of a half-open breaker is its trial."""
        if self._breaker.state(now) is not BreakerState.HALF_OPEN or self.claimed_elsewhere:
            return
        permit = self._breaker.permit(now)
        if permit is None or not permit.probe:
            return
        self._trial = task_id, permit
        if not self.claimed(now):
            # All others are out too, so it was sent without waiting for the claim.
            self._wanted(self)

    def unsent(self, task_id: str) -> None:
        """It did not go after all."""
        if self._trial is not None and self._trial[0] == task_id:
            self._drop_trial()

    def judged(self, task_id: str, good: bool | None, now: float, why: str = "") -> None:
        """What came of a task: None says nothing about the agent; `why` names the kind of failure."""
        if good and self._trial is None and self._breaker.worked(now):
            return
        permit = self._permit_of(task_id, now)
        if permit is None:
            return
        before = self._breaker.state(now)
        if good is None:
            self._breaker.unused(permit)
        elif good:
            self._breaker.succeeded(permit, now)
        else:
            self._breaker.failed(permit, now, why)
        if self._breaker.state(now) is not before:
            self._mine_until = 0.0
            self._moved(self)

    def says(self, by: str) -> BreakerWord:
        """The word that tells the others where this router's counts have led."""
        now = self._clock.monotonic()
        if self._breaker.state(now) is BreakerState.CLOSED:
            return BreakerWord(opened=self.word.opened, by=by, turn=self.word.turn + 1)
        return BreakerWord(
            state="open",
            until=self._clock.now() + self._breaker.open_until - now,
            opened=self.word.opened + 1,
            cause=self.cause[:MAX_CAUSE],
            by=by,
            turn=self.word.turn + 1,
        )

    def claims(self, by: str, seconds: float) -> BreakerWord:
        """The word that takes the trial for this router."""
        return BreakerWord(
            state="half-open",
            until=self._clock.now() + seconds,
            opened=self.word.opened,
            cause=self.cause[:MAX_CAUSE],
            by=by,
            turn=self.word.turn + 1,
        )

    def own_trial(self, seconds: float) -> None:
        """The trial is this router's for so long."""
        self._mine_until = self._clock.monotonic() + seconds

    def adopt(self, word: BreakerWord) -> None:
        """Take over what another router said; what was counted here gives way."""
        now = self._clock.monotonic()
        self.word = word
        self._mine_until = 0.0
        self._drop_trial()
        if word.state == "closed":
            if self._breaker.state(now) is not BreakerState.CLOSED:
                self._breaker.close()
            return
        ahead = max(0.0, word.until - self._clock.now()) if word.state == "open" else 0.0
        self._breaker.open(now, until=now + ahead, cause=word.cause)

    def _drop_trial(self) -> None:
        if self._trial is not None:
            self._breaker.unused(self._trial[1])
            self._trial = None

    def _permit_of(self, task_id: str, now: float) -> Permit | None:
        trial = self._trial
        if trial is not None and trial[0] == task_id:
            self._trial = None
            return trial[1]
        return self._breaker.permit(now) if self._breaker.state(now) is BreakerState.CLOSED else None
