"""Unasked: outcomes that came before anybody asked for them, in bounded memory.

The latest are kept. Of older ones the id is known, and whoever asks the server for one of those asks for those beside
it too: a program that takes a million results one after the other needs a few thousand questions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from .parcels import Parcels

REMEMBERED = 50_000
REMEMBERED_BYTES = 64 * 1024 * 1024
"""Outcomes kept for handles that have not asked yet, and what their results may weigh."""
AHEAD = 10_000
AHEAD_BYTES = 16 * 1024 * 1024
"""The same for those that were asked for along with others."""
WORTH = 2
"""For each outcome somebody wanted so many may be asked for ahead: what is never taken, as when handles are looked at in
random order, must not cost more than it brings."""

Item = TypeVar("Item")


class _Kept(Generic[Item]):
    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._items: OrderedDict[str, tuple[Item, int]] = OrderedDict()
        self._bytes = 0

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._items

    def put(self, task_id: str, item: Item, size: int) -> list[str]:
        """The ids of those that had to go for it, the oldest ones."""
        self.take(task_id)
        self._items[task_id] = item, size
        self._bytes += size
        gone: list[str] = []
        while len(self._items) > self._most or (self._bytes > self._most_bytes and len(self._items) > 1):
            oldest = next(iter(self._items))
            self.take(oldest)
            gone.append(oldest)
        return gone

    def take(self, task_id: str) -> Item | None:
        item, size = self._items.pop(task_id, (None, 0))
        self._bytes -= size
        return item


class Unasked(Generic[Item]):
    """`beside`, the question, `bring` for what it brought and `missed` for the rest; `take` for whoever wants one."""

    def __init__(self) -> None:
        self._told: _Kept[Item] = _Kept(REMEMBERED, REMEMBERED_BYTES)
        self._ahead: _Kept[Item] = _Kept(AHEAD, AHEAD_BYTES)
        self._dropped = Parcels()
        self._coming: set[str] = set()
        self._credit = AHEAD
        self.dropped = False
        """Whether any outcome had to go: those are not told again."""

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._told or task_id in self._ahead

    def put(self, task_id: str, item: Item, size: int) -> None:
        """Keep what was told; the first word about a task counts until it is taken or forgotten. `size` in bytes."""
        if task_id not in self._told:
            self._ahead.take(task_id)
            self._coming.discard(task_id)
            if gone := self._told.put(task_id, item, size):
                self.drop(gone)

    def drop(self, task_ids: Iterable[str]) -> None:
        """There is no room for the outcomes of these."""
        self._dropped.add(task_ids)
        self.dropped = True

    def take(self, task_id: str) -> Item | None:
        item = self._told.take(task_id)
        if item is None and (item := self._ahead.take(task_id)) is not None:
            self._earn(1)
        return item

    def forget(self, task_id: str) -> None:
        """It runs again: what is kept, or on its way here, is not its outcome any more."""
        self._told.take(task_id)
        self._ahead.take(task_id)
        self._coming.discard(task_id)

    def beside(self, wanted: Sequence[str], room: int) -> list[str]:
        """Up to `room` more ids to ask for in a question about these, if these had to go."""
        self._earn(len(wanted))
        ids = self._dropped.take(wanted, min(room, self._credit))
        self._credit -= len(ids)
        self._coming.update(ids)
        return ids

    def bring(self, task_id: str, item: Item, size: int) -> bool:
        """The answer for one of `beside`; False when it is none of them, or not any more."""
        if task_id not in self._coming:
            return False
        self._coming.discard(task_id)
        self._dropped.add(self._ahead.put(task_id, item, size))
        return True

    def missed(self, task_ids: Iterable[str]) -> None:
        """Those of `beside` the answer did not bring: they are asked for another time."""
        left = [task_id for task_id in task_ids if task_id in self._coming]
        self._coming.difference_update(left)
        self._dropped.add(left)

    def _earn(self, wanted: int) -> None:
        self._credit = min(AHEAD, self._credit + WORTH * wanted)
