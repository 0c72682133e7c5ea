"""What operators said about agents: on the bus for all routers at once, noted in the ledger for a bus that is new."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentMode
from agent_engines.domain.errors import Conflict
from agent_engines.ports.bus import Bus
from agent_engines.ports.clock import Clock
from agent_engines.ports.ledger import AgentDirectory
from agent_engines.ports.telemetry import Log

MODE_SUFFIX = ".mode"
AGAIN_SECONDS = 1.0


class AgentModes:
    """`follow` runs for as long as the router does; `changed(agent, mode)` hears every change."""

    def __init__(
        self,
        bus: Bus,
        directory: AgentDirectory,
        clock: Clock,
        log: Log,
        changed: Callable[[str, AgentMode], None],
    ) -> None:
        self._bus = bus
        self._directory = directory
        self._clock = clock
        self._log = log
        self._changed = changed
        self._said: dict[str, AgentMode] = {}

    def of(self, name: str) -> AgentMode:
        return self._said.get(name, AgentMode.ACTIVE)

    async def say(self, name: str, mode: AgentMode) -> None:
        """On every router, and in the ledger. Raises Unavailable."""
        await self._bus.settings.put(subjects.agent_mode(name), str(mode).encode())
        self._heard(name, mode)
        await self._directory.set_status(name, _noted_as(mode))

    async def recall(self, noted: Mapping[str, AgentMode]) -> None:
        """Tell the bus what the ledger noted where the bus has no word: it is new, as after a restore. Its own word counts more.

        Raises Unavailable.
        """
        for name, mode in noted.items():
            key = subjects.agent_mode(name)
            try:
                await self._bus.settings.put(key, str(mode).encode(), revision=0)
            except Conflict:
                found = await self._bus.settings.get(key)
                said = self._read(name, found[0] if found else None)
                if said is not mode:
                    await self._directory.set_status(name, _noted_as(said))
                self._heard(name, said)
            else:
                self._heard(name, mode)

    async def follow(self) -> None:
        while True:
            async for key, value in self._bus.settings.watch(subjects.AGENT_MODES):
                if not key.endswith(MODE_SUFFIX):
                    continue
                name = key[len(subjects.AGENT_MODES) : -len(MODE_SUFFIX)]
                self._heard(name, self._read(name, value))
            await self._clock.sleep(AGAIN_SECONDS)

    def _read(self, name: str, value: bytes | None) -> AgentMode:
        if value is None:
            return AgentMode.ACTIVE
        try:
            return AgentMode(value.decode())
        except ValueError:
            self._log.warning("An agent's mode could not be read and is ignored", agent=name, value=repr(value[:64]))
            return self.of(name)

    def _heard(self, name: str, mode: AgentMode) -> None:
        self._said[name] = mode
        self._changed(name, mode)


def _noted_as(mode: AgentMode) -> str:
    return "healthy" if mode is AgentMode.ACTIVE else str(mode)
