"""Hearing: what was recorded, here or by another router, told to those parts of this one that want to know.

recorder here ──────────────────────> take (strategies, fleet, desk ...), and the outcome feed for the others
`outcomes.<router>` of the others ──> take
`recorded.<this router>` of others ─> desk: somebody may wait here for what was handed in here
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.capability import Capabilities
from agent_engines.ports.bus import Subscription
from agent_engines.ports.connections import Connections

from .desk import TaskDesk
from .outcome_feed import OutcomeFeed
from .outcomes import Outcome, decode_outcomes, decode_sealed

Take = Callable[[Sequence[Outcome], bool], None]
"""Takes outcomes in; and whether they came through a router's gate, since nobody learns from others."""


class Hearing:
    """The listener of a recorder (see recorder.py): start it before that one. `home`: this router's name on the bus."""

    def __init__(
        self, connections: Connections, capabilities: Capabilities, *, home: str, take: Take, desk: TaskDesk
    ) -> None:
        self.home = home
        self._signals = connections.bus.signals
        self._log = connections.telemetry.log("intelligence")
        self._sealed = capabilities.sealed
        self._own = subjects.outcomes(home)
        self._take = take
        self._desk = desk
        self._feed = OutcomeFeed(connections.bus, capabilities, router=home, clock=connections.clock, log=self._log)
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Raises Unavailable; may be called again then."""
        wanted = ((subjects.OUTCOMES, self._on_outcomes), (subjects.recorded(self.home), self._on_recorded))
        for subject, handler in wanted[len(self._subscriptions) :]:
            self._subscriptions.append(await self._signals.listen(subject, handler))
        await self._feed.start()

    async def stop(self) -> None:
        """Tell the others what is left, listen no more. May be called twice."""
        await self._feed.stop()
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions = []

    def recorded(self, outcomes: Sequence[Outcome]) -> None:
        """What this router's recorder has committed; it came through the gate."""
        self._take(outcomes, True)
        self._feed.put(outcomes)

    async def _on_outcomes(self, subject: str, data: bytes) -> None:
        if subject == self._own:
            return
        try:
            outcomes, sealed = decode_sealed(data, self._sealed)
        except msgspec.MsgspecError as error:
            self._unreadable(subject, error)
            return
        self._take(outcomes, sealed)

    async def _on_recorded(self, subject: str, data: bytes) -> None:
        try:
            outcomes = decode_outcomes(data)
        except msgspec.MsgspecError as error:
            self._unreadable(subject, error)
            return
        self._desk.recorded(outcomes)

    def _unreadable(self, subject: str, error: Exception) -> None:
        self._log.warning("Outcomes could not be read", subject=subject, error=str(error))
