"""Promotions: an operator's word becomes the word of all routers, if the recorded decisions speak for it.

read the word -> is it a policy that can be run? -> what would it have gained? -> write, if nobody wrote meanwhile
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from agent_engines.domain.errors import Conflict, NotFound, Unavailable
from agent_engines.domain.guardrail import baseline
from agent_engines.domain.policy_word import PolicyChange, PolicyOrder, PolicyWord, changed, check_order
from agent_engines.domain.promotion import Evidence, kept, objections
from agent_engines.ports.clock import Clock

from .active_policy import ActivePolicy
from .shipped_strategies import SHIPPED_VERSIONS
from .strategies import Strategies
from .strategy import Strategy

TAKEN_SECONDS = 5.0
"""The answer waits this long for this router to change over; what is stored holds anyway."""
UNIFORM, ALWAYS = "uniform", "always:"
"""Yardsticks of the report that no router can route by."""
Judge = Callable[[str], Awaitable[Evidence]]
"""What recorded decisions say of a policy. Raises NotFound (cannot be judged), Conflict (it fails), Unavailable."""


class Promotions:
    """Implements ports.policies.PolicyService."""

    def __init__(self, active: ActivePolicy, strategies: Strategies, judge: Judge, clock: Clock) -> None:
        self._active = active
        self._board = active.board
        self._strategies = strategies
        self._judge = judge
        self._clock = clock

    async def promote(self, policy: str, order: PolicyOrder) -> PolicyChange:
        check_order(order)
        name = self._runnable(policy)
        word, revision = await self._board.read()
        source = word.active or self._active.setting
        if name == source:
            raise Conflict(f"{name} is active already")
        found, against = await self._evidence(name, order)
        if against and not order.force:
            raise Conflict(
                f"the recorded decisions do not speak for {name}: {'; '.join(against)}. Nothing was changed; "
                f"`engines replay --policy {name}` shows the estimates, force with a reason promotes it all the same"
            )
        strategy = await self._made(name)
        before = baseline(found.earned) if order.guard else ()
        change = PolicyChange(
            turn=word.turn + 1,
            verb="promote",
            source=source,
            to=name,
            version=strategy.version,
            at=self._clock.now(),
            by=order.by,
            reason=order.reason,
            forced=order.force,
            objections=against,
            evidence=kept(found.gains),
            guarded=bool(before),
            baseline=before,
        )
        return await self._write(word, revision, change)

    async def rollback(self, policy: str, order: PolicyOrder) -> PolicyChange:
        check_order(order)
        word, revision = await self._board.read()
        active = word.active
        if active is None:
            self._runnable(policy)
            raise Conflict(f"nothing is promoted that could be rolled back: {self._active.setting} is the setting")
        if policy not in (active, word.changes[-1].version if word.changes else active):
            name = self._runnable(policy)
            if name != active:
                raise Conflict(f"{name} is not active and cannot be left: {active} is active")
        strategy = await self._made(word.before or self._active.setting)
        change = PolicyChange(
            turn=word.turn + 1,
            verb="rollback",
            source=active,
            to=strategy.name,
            version=strategy.version,
            at=self._clock.now(),
            by=order.by,
            reason=order.reason,
        )
        return await self._write(word, revision, change)

    def _runnable(self, policy: str) -> str:
        """The strategy of that name or version. Raises NotFound, Conflict for what only the report knows."""
        found = self._strategies.named_by(policy) or SHIPPED_VERSIONS.get(policy)
        if found is not None:
            return found
        names = ", ".join(self._strategies.names)
        if policy == UNIFORM or policy.startswith(ALWAYS):
            raise Conflict(f"{policy} is a yardstick of the report and cannot be routed by; there are {names}")
        raise NotFound(f"there is no policy {policy!r} on this router; there are {names}")

    async def _evidence(self, name: str, order: PolicyOrder) -> tuple[Evidence, tuple[str, ...]]:
        """What it would have gained, and what speaks against it. Raises Unavailable, unless it is forced."""
        try:
            found = await self._judge(name)
        except (NotFound, Conflict) as error:
            return Evidence(), (str(error),)
        except Unavailable as error:
            if not order.force:
                raise
            return Evidence(), (f"nobody could judge it: {error}",)
        return found, objections(found.gains)

    async def _made(self, name: str) -> Strategy:
        try:
            return await self._strategies.make(name)
        except Exception as error:
            raise Conflict(f"{name} cannot be run on this router: {error}") from error

    async def _write(self, word: PolicyWord, revision: int, change: PolicyChange) -> PolicyChange:
        new = changed(word, change)
        try:
            await self._board.write(new, revision)
        except Conflict:
            # Ours may have been stored although the bus could not say so at first.
            stored, _ = await self._board.read()
            if stored != new:
                raise Conflict(f"another change was faster, nothing was changed: {_winner(stored)}") from None
        try:
            async with asyncio.timeout(TAKEN_SECONDS):
                await self._active.taken(change.turn)
        except TimeoutError:
            pass
        return change


def _winner(word: PolicyWord) -> str:
    if not word.changes:
        return "every promotion was undone"
    last = word.changes[-1]
    at = datetime.fromtimestamp(last.at, UTC).isoformat(timespec="seconds")
    return f"{last.source} gave way to {last.to} ({last.verb} by {last.by or 'somebody'} at {at})"
