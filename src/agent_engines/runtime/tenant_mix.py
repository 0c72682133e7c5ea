"""Whether tasks of more than one tenant come to this process: only then is it worth holding more than can start soon."""

from __future__ import annotations

MIXED_SECONDS = 10.0
TURNS = 10
"""Tasks held for each slot while tenants are mixed: what a fair order can be made of."""


class TenantMix:
    """Told of each arrival; `now`: seconds of the event loop's clock."""

    __slots__ = ("_latest", "_mixed_at")

    def __init__(self) -> None:
        self._latest: str | None = None
        self._mixed_at = float("-inf")

    def saw(self, tenant: str, now: float) -> None:
        if tenant != self._latest:
            if self._latest is not None:
                self._mixed_at = now
            self._latest = tenant

    def held(self, slots: int, now: float) -> int:
        """How many tasks may wait here for the sake of fairness."""
        return TURNS * slots if now - self._mixed_at < MIXED_SECONDS else 0
