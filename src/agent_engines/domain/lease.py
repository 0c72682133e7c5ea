"""Leases: the rule by which of many processes at most one believes that it leads.

The store keeps a key for `ttl` seconds from when it takes a write, and takes a write only over the revision the writer
knows. Whoever asked at `asked_at` by its own monotonic clock and was granted the key therefore has it until
`asked_at + ttl` at least; it believes so for a shorter time (HOLD_SHARE), which leaves room for clocks that run apart
and for the last step of what it is doing. A pause, a slow answer or a lost one can only make it believe less.
"""

from __future__ import annotations

HOLD_SHARE = 0.8
REFRESHES = 3
"""Refreshes in one `ttl`: two may be lost before leadership is."""


class Lease:
    """One candidate's knowledge. Times are seconds of its own monotonic clock."""

    __slots__ = ("_until", "refresh_seconds", "revision", "ttl")

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        self.refresh_seconds = ttl / REFRESHES
        self.revision: int | None = None
        """Of the key as far as we know it is ours; None: it is not, and may be made when nobody has it."""
        self._until = float("-inf")

    def holds(self, now: float) -> bool:
        """Whether nobody else can lead now."""
        return now < self._until

    def granted(self, asked_at: float, revision: int) -> None:
        """The store took a write that was sent at `asked_at`."""
        self.revision = revision
        self._until = asked_at + self.ttl * HOLD_SHARE

    def refused(self) -> None:
        """The store did not take a write: the key is not as we know it."""
        self.revision = None
        self._until = float("-inf")

    def found_ours(self, revision: int) -> None:
        """The key carries our name (an answer was lost): refresh it, then it counts."""
        self.revision = revision

    def give_up(self) -> int | None:
        """Stop believing; returns the revision to delete, if the key may still be ours."""
        revision = self.revision
        self.refused()
        return revision
