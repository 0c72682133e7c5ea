"""A ledger that can be taken away and brought back, as a bus can: `MemoryLedger` behind a switch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from agent_engines.adapters.memory.ledger import MemoryLedger
from agent_engines.domain.errors import Unavailable
from agent_engines.ports.ledger import Ledger


class _Part:
    def __init__(self, switch: SwitchedLedger, part: Any) -> None:
        self._switch = switch
        self._part = part

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **named: Any) -> Any:
            self._switch.calls += 1
            if self._switch.away:
                raise Unavailable("the ledger is away", retry_after=2.0)
            return await getattr(self._part, name)(*arguments, **named)

        return call


class SwitchedLedger:
    """`away`: every call raises Unavailable. `known`: callers are told before they ask, as by an open breaker."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self.real = ledger
        self.away = False
        self.known = False
        self.calls = 0

    def __getattr__(self, name: str) -> _Part:
        return _Part(self, getattr(self.real, name))

    async def check(self) -> bool:
        return not self.away

    def refusal(self) -> Unavailable | None:
        return Unavailable("the ledger is away", retry_after=2.0) if self.away and self.known else None

    async def close(self) -> None:
        """Nothing to let go of."""

    def port(self) -> Ledger:
        return cast("Ledger", self)
