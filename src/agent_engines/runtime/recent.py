"""What was done lately: a task that arrives again although its outcome is durable is acknowledged, not run."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .attempt import Key


class Recent:
    """The last `size` keys."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys: set[Key] = set()
        self._order: deque[Key] = deque()

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def add(self, keys: Sequence[Key]) -> None:
        self._keys.update(keys)
        self._order.extend(keys)
        while len(self._order) > self._size:
            self._keys.discard(self._order.popleft())
