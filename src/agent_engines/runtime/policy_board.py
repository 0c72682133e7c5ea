"""The policy board: what all routers route by and what each of them makes of it, in the shared settings.

routing.policy             PolicyWord, changed by compare-and-set, kept for ever
routing.router.<router>    Standing, told by the router itself once anything was promoted, gone soon after it
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.policy_word import NOTHING_PROMOTED, PolicyWord, read_policy_word
from agent_engines.ports.bus import Settings
from agent_engines.ports.clock import Clock
from agent_engines.ports.telemetry import Log

from .background import Background

AGAIN_SECONDS = 1.0
"""Between two tries to follow a bus that is away."""
STANDING_SECONDS = 90.0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """By which policy a router decides since which turn of the word; `problem`: why that is not the active one."""

    router: str
    turn: int
    policy: str
    version: str
    problem: str = ""


_encode = msgspec.json.Encoder().encode
_standing = msgspec.json.Decoder(Standing).decode


class PolicyBoard:
    """`word` is the newest one heard of. Follow it with `start`; `changed()` is told of every new word."""

    def __init__(self, settings: Settings, clock: Clock, log: Log) -> None:
        self._settings = settings
        self._clock = clock
        self._log = log
        self._standings: dict[str, Standing] = {}
        self._changed: Callable[[], None] = _nobody_listens
        self.word = NOTHING_PROMOTED

    @property
    def standings(self) -> list[Standing]:
        """Of all routers, in the order of their names."""
        return [self._standings[name] for name in sorted(self._standings)]

    def start(self, background: Background, changed: Callable[[], None]) -> None:
        """Follow the others until `background` ends."""
        self._changed = changed
        background.keep("policy-board", self._follow)

    async def read(self) -> tuple[PolicyWord, int]:
        """The stored word and its revision. Raises Unavailable; a word that cannot be read is none."""
        stored = await self._settings.get(subjects.POLICY)
        if stored is None:
            return NOTHING_PROMOTED, 0
        return self._read(stored[0]) or NOTHING_PROMOTED, stored[1]

    async def load(self) -> None:
        """Take the stored word over. Raises Unavailable."""
        self.word, _ = await self.read()

    async def write(self, word: PolicyWord, revision: int) -> None:
        """Raises Conflict when another one was faster, Unavailable. The word is heard like everybody's."""
        await self._settings.put(subjects.POLICY, _encode(word), revision=revision)

    async def tell(self, standing: Standing) -> None:
        """What this router makes of the word, for STANDING_SECONDS. Raises Unavailable."""
        await self._settings.put(subjects.router_policy(standing.router), _encode(standing), ttl=STANDING_SECONDS)

    async def leave(self, router: str) -> None:
        """The router is gone. Raises Unavailable."""
        await self._settings.delete(subjects.router_policy(router))

    async def _follow(self) -> None:
        while True:
            async for key, value in self._settings.watch(subjects.ROUTING):
                if key == subjects.POLICY:
                    self._heard(value)
                elif key.startswith(subjects.ROUTER_POLICIES):
                    self._stands(key[len(subjects.ROUTER_POLICIES) :], value)
            await self._clock.sleep(AGAIN_SECONDS)

    def _heard(self, value: bytes | None) -> None:
        """Without a value somebody deleted the word: every router is back to its own setting."""
        word = NOTHING_PROMOTED if value is None else self._read(value)
        if word is not None and word != self.word:
            self.word = word
            self._changed()

    def _stands(self, router: str, value: bytes | None) -> None:
        if value is None:
            self._standings.pop(router, None)
            return
        try:
            self._standings[router] = _standing(value)
        except msgspec.MsgspecError as error:
            self._log.warning("A router's policy could not be read", router=router, error=str(error))

    def _read(self, value: bytes) -> PolicyWord | None:
        try:
            return read_policy_word(value)
        except (msgspec.MsgspecError, ValueError) as error:
            self._log.warning("The shared routing policy could not be read and is ignored", error=str(error))
            return None


def _nobody_listens() -> None: ...
