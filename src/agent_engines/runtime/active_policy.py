"""The active policy on one router: every new word is taken over while tasks go on, and told.

A decision reads one reference, which is swapped when the strategy stands ready. What cannot be made here changes nothing
here: this router goes on with what it has, says why, and tries again later.
"""

from __future__ import annotations

import asyncio

from agent_engines.domain.errors import Unavailable
from agent_engines.domain.policy_word import PolicyWord
from agent_engines.ports.telemetry import Log

from .background import Background
from .policy_board import STANDING_SECONDS, PolicyBoard, Standing
from .strategies import Strategies

REFRESH_SECONDS = STANDING_SECONDS / 3
LEAVE_SECONDS = 1.0


class ActivePolicy:
    """`setting`: what this router goes by while nothing is promoted."""

    def __init__(self, board: PolicyBoard, strategies: Strategies, log: Log, *, router: str) -> None:
        self.board = board
        self.setting = strategies.default
        self.problem = ""
        self._strategies = strategies
        self._log = log
        self._router = router
        self._turn = 0
        self._background = Background(log)
        self._news = asyncio.Event()
        self._taken = asyncio.Event()

    async def start(self) -> None:
        """The first decision is made by the stored word's policy already, if the bus can say."""
        try:
            await self.board.load()
        except Unavailable as error:
            self._log.warning(
                "Which policy is active is not known yet; this router begins with its own setting",
                policy=self.setting,
                error=str(error),
            )
        await self._take_over()
        self.board.start(self._background, self._news.set)
        self._background.keep("active-policy", self._obey)

    async def stop(self) -> None:
        """May be called twice. What cannot be taken off the board at once goes by itself (STANDING_SECONDS)."""
        await self._background.stop()
        turn, self._turn = self._turn, 0
        if turn:
            try:
                async with asyncio.timeout(LEAVE_SECONDS):
                    await self.board.leave(self._router)
            except (Unavailable, TimeoutError) as error:
                self._log.debug("This router's policy was not taken off the board", error=repr(error))

    async def taken(self, turn: int) -> None:
        """Return when this router has dealt with the word of this turn."""
        while self._turn < turn:
            await self._taken.wait()

    async def _obey(self) -> None:
        while True:
            await self._tell()
            try:
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            await self._take_over()

    async def _take_over(self) -> None:
        word = self.board.word
        wanted, had = word.active or self.setting, self._strategies.default
        problem = ""
        if wanted != had:
            try:
                self._strategies.turn_to(await self._strategies.make(wanted))
            except Exception as error:
                problem = f"{wanted} cannot be run here: {error}"
            else:
                self._log.info("The routing policy changed", **_told(word), policy=wanted, instead_of=had)
        if problem and problem != self.problem:
            self._log.error("The active policy cannot be run here, the one before goes on", policy=had, error=problem)
        self.problem = problem
        self._turn = word.turn
        taken, self._taken = self._taken, asyncio.Event()
        taken.set()

    async def _tell(self) -> None:
        """While nothing was ever promoted there is nothing to tell."""
        if not self._turn:
            return
        strategy = await self._strategies.make(self._strategies.default)
        standing = Standing(
            router=self._router,
            turn=self._turn,
            policy=strategy.name,
            version=strategy.version,
            problem=self.problem,
        )
        try:
            await self.board.tell(standing)
        except Unavailable as error:
            self._log.debug("This router's policy could not be told", error=str(error))


def _told(word: PolicyWord) -> dict[str, object]:
    if not word.changes:
        return {"turn": word.turn}
    last = word.changes[-1]
    return {"turn": word.turn, "verb": last.verb, "by": last.by, "reason": last.reason}
