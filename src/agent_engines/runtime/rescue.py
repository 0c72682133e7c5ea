"""Rescue: the tasks of an agent that is gone, with all its replicas, are decided again and run elsewhere.

gone: no heartbeat for a lease (at least GONE_SECONDS), though this router listened all that time and hears others

What waits in the queue of such an agent would wait for ever, and what it was doing nobody does. The leader claims those
tasks as the next generation, if somebody else may do them. An agent that comes back finds its old messages: what
it finishes of them may still end a task first, everything else it says about them is stale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent_engines.ports.bus import Bus
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import Ledger
from agent_engines.ports.telemetry import Telemetry

from .background import Background
from .fleet import FORGET_SECONDS, Fleet
from .redispatch import CLAIM, FINISH_SECONDS, MAX_HELD, Redispatcher
from .undivided import Undivided

GONE_SECONDS = 7.0
"""Two seconds past the silence that makes an agent suspect: heartbeats come every 1 to 2 seconds."""
LOOK_SECONDS = 1.0
DEAF_SECONDS = 3.0
"""Looks further apart than this: this process stood still, and its picture of the others is as old."""
JUST_SENT_SECONDS = 2.0
"""News this young may be on its way into or out of the ledger."""
LONGEST_PAUSE = 30.0
"""Between looks into the ledger while the same agents are gone and nothing is found."""


class Rescue:
    """Start it once per process; it acts while this process leads."""

    def __init__(
        self,
        bus: Bus,
        ledger: Ledger,
        redispatcher: Redispatcher,
        fleet: Fleet,
        *,
        clock: Clock,
        telemetry: Telemetry,
        leads: Callable[[], bool],
    ) -> None:
        self._bus = bus
        self._ledger = ledger
        self._redispatcher = redispatcher
        self._fleet = fleet
        self._clock = clock
        self._leads = leads
        self._log = telemetry.log("intelligence")
        self._background = Background(self._log)
        self._listening_since = clock.monotonic()
        self._looked_at = self._listening_since
        self._remembered = False
        self._earlier: frozenset[str] = frozenset()
        self._gone: frozenset[str] = frozenset()
        self._present: frozenset[str] = frozenset()
        self._pause = LOOK_SECONDS
        self._next_claim = 0.0
        self._undivided = Undivided()

    async def start(self) -> None:
        self._background.keep("rescue", self._follow)

    async def stop(self) -> None:
        """What was claimed is sent, or held by the redispatcher, which hands it back."""
        await self._undivided.close(FINISH_SECONDS)
        await self._background.stop()

    @property
    def gone_seconds(self) -> float:
        """Silence after which an agent's tasks are taken elsewhere."""
        return max(GONE_SECONDS, self._bus.tasks.lease_seconds)

    async def _follow(self) -> None:
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            if self._can_tell() and self._leads():
                await self._look()

    def _can_tell(self) -> bool:
        """Whether silence means anything: this router has listened long enough, without a break."""
        now = self._clock.monotonic()
        if now - self._looked_at > DEAF_SECONDS or not self._bus.connected:
            self._listening_since = now
        self._looked_at = now
        return now - self._listening_since >= self.gone_seconds

    async def _look(self) -> None:
        silences = self._fleet.silences()
        if not self._remembered:
            await self._remember()
        present = frozenset(name for name, seconds in silences.items() if seconds < self.gone_seconds)
        gone = (frozenset(silences) | self._earlier) - present
        if gone != self._gone or present != self._present:
            # Somebody went or came: look into the ledger at once, and often at first.
            self._gone, self._present = gone, present
            self._pause, self._next_claim = LOOK_SECONDS, 0.0
        if not gone or not present or self._clock.monotonic() < self._next_claim:
            return
        rescued = await self._rescue(sorted(gone), present)
        self._pause = LOOK_SECONDS if rescued else min(self._pause * 2, LONGEST_PAUSE)
        self._next_claim = self._clock.monotonic() + self._pause

    async def _remember(self) -> None:
        """Who was there before this router was: they may have gone while nobody looked."""
        since = self._clock.now() - FORGET_SECONDS
        known = await self._ledger.agents.agents()
        self._earlier = frozenset(one.name for one in known if one.last_seen is not None and one.last_seen > since)
        self._remembered = True

    async def _rescue(self, gone: Sequence[str], present: frozenset[str]) -> int:
        older_than = self._clock.now() - JUST_SENT_SECONDS
        kinds = [
            kind
            for kind in await self._ledger.tasks.stranded_kinds(older_than, agents=gone)
            if self._fleet.takes(kind, among=present)
        ]
        rescued = 0
        while kinds and self._leads() and self._redispatcher.held < MAX_HELD:
            async with self._undivided:
                found = await self._ledger.tasks.claim_stranded(older_than, CLAIM, kinds=kinds, agents=gone)
                if found:
                    await self._redispatcher.send(found, reason="abandoned", elsewhere=True)
            rescued += len(found)
            if len(found) < CLAIM:
                break
        if rescued:
            self._log.warning("Tasks of agents that are gone are sent elsewhere", tasks=rescued, agents=list(gone)[:10])
        return rescued
