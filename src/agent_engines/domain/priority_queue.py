"""A bounded queue: most urgent first, tenants by their weights inside a level, and nobody waits for ever.

Ageing: a waiting item overtakes one level for every `ageing_seconds` it has waited longer. With 10 seconds, an item of
level 5 goes before an item of level 1 that came 40 seconds later. The order is fixed when an item arrives
(`arrived + level * ageing_seconds`), so nothing has to be re-sorted while it waits.

Tenants inside a level: start-time fair queueing (Goyal, Vin and Cheng, 1996), in tasks. Each item gets a virtual finishing
time when it arrives, 1/weight after its tenant's last one or after what is served now, whichever is later; the smallest goes
first. While two tenants wait, each is served in proportion to its weight, whatever the length of its queue; one tenant alone
is first come, first served. Levels are compared by the items that would go first.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from .errors import Conflict, QueueFull

Item = TypeVar("Item")

MOST_URGENT = 1
LEAST_URGENT = 5


class PriorityQueue(Generic[Item]):
    """Holds at most `capacity` items under distinct keys. `put`, `pop` and `remove` cost O(log n), amortised.

    `ageing_seconds` None: strict priorities, the lowest level may starve.
    """

    __slots__ = ("_ageing", "_capacity", "_entries", "_levels", "_now", "_sequence")

    def __init__(self, capacity: int, *, ageing_seconds: float | None = 10.0) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        if ageing_seconds is not None and not ageing_seconds > 0:
            raise ValueError(f"ageing_seconds must be above 0, not {ageing_seconds}")
        self._capacity = capacity
        self._ageing = ageing_seconds
        self._levels = [_Level() for _ in range(MOST_URGENT, LEAST_URGENT + 1)]
        self._entries: dict[Hashable, tuple[int, Item]] = {}
        self._sequence = 0
        self._now = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[Item]:
        """The waiting items, in no particular order."""
        return (item for _, item in self._entries.values())

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def full(self) -> bool:
        return len(self._entries) >= self._capacity

    def put(
        self, key: Hashable, item: Item, *, priority: int, now: float, tenant: str = "", weight: float = 1.0
    ) -> None:
        """Queue one item. `now`: seconds of a clock that does not run backwards; `weight` above 0: the tenant's share.

        Raises QueueFull, Conflict (same key).
        """
        if key in self._entries:
            raise Conflict(f"{key!r} is already queued")
        if len(self._entries) >= self._capacity:
            raise QueueFull(f"the queue is full: {self._capacity} tasks wait already")
        level = min(max(priority, MOST_URGENT), LEAST_URGENT)
        # A clock that stepped back must not let a newcomer overtake its own level.
        self._now = now = max(now, self._now)
        self._sequence += 1
        rank = float(level) if self._ageing is None else now + level * self._ageing
        self._entries[key] = (self._sequence, item)
        self._levels[level - MOST_URGENT].put(rank, self._sequence, key, tenant, weight)

    def pop(self) -> Item | None:
        """Take the most urgent item; None when empty."""
        best: _Level | None = None
        first: tuple[float, int] | None = None
        for level in self._levels:
            head = level.head(self._entries)
            if head is not None and (first is None or head < first):
                best, first = level, head
        if best is None:
            return None
        return self._entries.pop(best.take())[1]

    def remove(self, key: Hashable) -> Item | None:
        """Take one item out of the middle; None when it is not queued."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        # Removed entries stay in the heaps until popped; rebuilding at half keeps the cost and the memory bounded.
        if sum(map(len, self._levels)) > 2 * len(self._entries) + 16:
            for level in self._levels:
                level.compact(self._entries)
        return entry[1]

    def clear(self) -> list[Item]:
        """Take everything, most urgent first."""
        taken: list[Item] = []
        while (item := self.pop()) is not None:
            taken.append(item)
        return taken


class _Level:
    """What waits with one priority, in fair order: (virtual finishing time, sequence, rank, key)."""

    __slots__ = ("_finished", "_heap", "_time")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, float, Hashable]] = []
        self._finished: dict[str, float] = {}
        """By tenant, the virtual finishing time of its newest item."""
        self._time = 0.0
        """Virtual: where the item ends that was served last."""

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, rank: float, sequence: int, key: Hashable, tenant: str, weight: float) -> None:
        if not self._heap:
            # Nobody waits: what was served before gives nobody an advantage.
            self._finished.clear()
            self._time = 0.0
        finish = max(self._time, self._finished.get(tenant, 0.0)) + 1.0 / weight
        self._finished[tenant] = finish
        heapq.heappush(self._heap, (finish, sequence, rank, key))

    def head(self, alive: Mapping[Hashable, tuple[int, Any]]) -> tuple[float, int] | None:
        """Rank and sequence of the item that goes first; removed ones are dropped on the way. None: nothing waits."""
        while self._heap:
            _, sequence, rank, key = self._heap[0]
            entry = alive.get(key)
            if entry is not None and entry[0] == sequence:
                return rank, sequence
            heapq.heappop(self._heap)
        return None

    def take(self) -> Hashable:
        """The key that `head` told of."""
        finish, _, _, key = heapq.heappop(self._heap)
        self._time = finish
        if len(self._finished) > 2 * len(self._heap) + 16:
            self._finished = {tenant: at for tenant, at in self._finished.items() if at > finish}
        return key

    def compact(self, alive: Mapping[Hashable, tuple[int, Any]]) -> None:
        self._heap = [entry for entry in self._heap if entry[3] in alive and alive[entry[3]][0] == entry[1]]
        heapq.heapify(self._heap)
        if len(self._finished) > 2 * len(self._heap) + 16:
            # Tenants whose tasks were all taken out; forgetting the others' times with them costs one turn.
            self._finished.clear()
