"""Leadership: one of the routers does what need not be done twice, such as looking for stranded tasks.

The lease is a key in the bus's settings: made only if absent, refreshed over its own revision each third of its life,
deleted at the end. Its revision rises with every change of leader, which makes it a fencing token. When the leader
dies, another one leads within `ttl` plus a third; while the bus is away nobody leads, and afterwards somebody does.
"""

from __future__ import annotations

from agent_engines.domain import subjects
from agent_engines.domain.errors import Conflict, Unavailable
from agent_engines.domain.lease import Lease
from agent_engines.ports.bus import Settings
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Telemetry

from .background import Background

TTL_SECONDS = 10.0


class Leadership:
    """One candidate for a role. Ask `leads()` right before each step that only the leader takes."""

    def __init__(
        self,
        settings: Settings,
        role: str,
        name: str,
        *,
        clock: Clock,
        telemetry: Telemetry,
        ttl: float = TTL_SECONDS,
    ) -> None:
        self._settings = settings
        self._role = role
        self._name = name
        self._key = subjects.leader(role)
        self._clock = clock
        self._telemetry = telemetry
        self._log = telemetry.log("intelligence")
        self._lease = Lease(ttl)
        self._led = False
        self._background = Background(self._log)

    async def start(self) -> None:
        self._telemetry.gauge("engine_leader", 0, role=self._role)
        self._background.keep("leadership", self._campaign, pause=self._lease.refresh_seconds)

    async def stop(self) -> None:
        """Stop leading, then let go of the lease, so that another one need not wait for its end."""
        await self._background.stop()
        revision = self._lease.give_up()
        self._notice()
        if revision is None:
            return
        try:
            await self._settings.delete(self._key, revision=revision)
        except (Conflict, Unavailable) as error:
            self._log.debug("The leader's lease was not given back", role=self._role, error=str(error))

    def leads(self) -> bool:
        """Whether this process leads now, and nobody else."""
        holds = self._lease.holds(self._clock.monotonic())
        if holds is not self._led:
            self._notice()
        return holds

    @property
    def token(self) -> int | None:
        """The lease's revision while this process leads: higher than that of every leader before."""
        return self._lease.revision if self.leads() else None

    async def _campaign(self) -> None:
        while True:
            try:
                await self._ask()
            except Unavailable as error:
                # Whether it came through is unknown: what was granted before still holds until its own end.
                self._log.debug("The leader's lease could not be asked for", role=self._role, error=str(error))
            self.leads()
            await self._clock.sleep(self._lease.refresh_seconds)

    async def _ask(self) -> None:
        lease, key = self._lease, self._key
        if lease.revision is None:
            stored = await self._settings.get(key)
            if stored is not None and stored[0] != self._name.encode():
                return
            if stored is not None:
                lease.found_ours(stored[1])
        asked_at = self._clock.monotonic()
        try:
            revision = await self._settings.put(key, self._name.encode(), revision=lease.revision or 0, ttl=lease.ttl)
        except Conflict:
            lease.refused()
        else:
            lease.granted(asked_at, revision)

    def _notice(self) -> None:
        holds = self._lease.holds(self._clock.monotonic())
        if holds is self._led:
            return
        self._led = holds
        self._telemetry.gauge("engine_leader", int(holds), role=self._role)
        if holds:
            self._log.info("This router leads", role=self._role, router=self._name, token=self._lease.revision)
        else:
            self._log.info("This router does not lead any more", role=self._role, router=self._name)
