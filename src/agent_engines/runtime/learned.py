"""Learned: what lessons made of the shared values, and how far in the log of lessons that is."""

from __future__ import annotations

from agent_engines.learning.values import Values


class Learned:
    """What all routers learn in the same order: values, and the sequence of the last message in them."""

    def __init__(self, values: Values | None = None) -> None:
        self.values = values or Values()
        self.sequence = 0
        self._empty = self.values.snapshot()

    def forget(self) -> None:
        """Know nothing again."""
        self.values.restore(self._empty)
        self.sequence = 0

    def restore(self, sequence: int, state: bytes) -> None:
        """Raises ValueError when the state cannot be read; then nothing has changed."""
        self.values.restore(state)
        self.sequence = sequence
