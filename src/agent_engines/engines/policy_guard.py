"""The guard of a promotion: looks after each round what the promoted policy has earned, and rolls it back on a breach.

A rollback is a change like an operator's, written by compare-and-set: of several optimizing engines one writes it, and an
operator who was faster has the last word. After a rollback nothing is guarded until the next promotion.
"""

from __future__ import annotations

from agent_engines.domain.errors import Conflict, Unavailable
from agent_engines.domain.guardrail import Comparison, compared
from agent_engines.domain.policy_word import PolicyChange, changed
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Log
from agent_engines.runtime.policy_board import PolicyBoard

from .outcomes import OutcomeLog

BY = "the guard"


class PolicyGuard:
    """`comparison`: of the promotion that is guarded now; None: there is none, or nothing to compare yet."""

    def __init__(self, board: PolicyBoard, clock: Clock, log: Log) -> None:
        self._board = board
        self._clock = clock
        self._log = log
        self.comparison: Comparison | None = None

    async def look(self, outcomes: OutcomeLog) -> None:
        """Compare, and roll back on a breach; while the bus is away the next round does it."""
        self.comparison = None
        change = self._board.word.guarded
        if change is None:
            return
        found = self.comparison = compared(change.baseline, outcomes.earned(change.version, change.at))
        if found is not None and found.breach:
            try:
                await self._roll_back(change, found)
            except Unavailable as error:
                self._log.warning("A promoted policy does worse and could not be rolled back yet", error=str(error))

    async def _roll_back(self, promotion: PolicyChange, found: Comparison) -> None:
        word, revision = await self._board.read()
        if word.guarded != promotion:
            return
        change = PolicyChange(
            turn=word.turn + 1,
            verb="rollback",
            source=promotion.to,
            to=word.before or promotion.source,
            version="",
            at=self._clock.now(),
            by=BY,
            reason=f"guardrail: {found}",
        )
        try:
            await self._board.write(changed(word, change), revision)
        except Conflict:
            return
        self._log.warning(
            "A promoted policy did measurably worse and was rolled back",
            policy=promotion.to,
            back_to=change.to,
            reason=change.reason,
        )
