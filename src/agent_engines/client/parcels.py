"""Parcels: very many ids in little memory, by neighbours; whoever names one finds those beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

PARCEL = 500
MOST_PARCELS = 2_000
"""A million ids of 37 bytes; of older ones it is forgotten that they were here."""


class _Parcel:
    __slots__ = ("_high", "_low", "_text")

    def __init__(self, ids: Sequence[str]) -> None:
        self.keep(ids)

    def keep(self, ids: Sequence[str]) -> None:
        self._low, self._high = min(ids), max(ids)
        self._text = f" {' '.join(ids)} "

    def ids(self) -> list[str]:
        return self._text.split()

    def __contains__(self, task_id: str) -> bool:
        return self._low <= task_id <= self._high and f" {task_id} " in self._text


class Parcels:
    """Ids (text without blanks) in the order in which they were added."""

    def __init__(self) -> None:
        self._sealed: deque[_Parcel] = deque()
        self._open: list[str] = []

    def add(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            self._open.append(task_id)
            if len(self._open) == PARCEL:
                self._sealed.append(_Parcel(self._open))
                self._open = []
                if len(self._sealed) > MOST_PARCELS:
                    self._sealed.popleft()

    def take(self, wanted: Sequence[str], room: int) -> list[str]:
        """Take these out, and up to `room` of those beside them, which are returned: the next ones first."""
        left = set(wanted)
        beside: list[str] = []
        for task_id in wanted:
            if task_id not in left:
                continue
            if task_id in self._open:
                self._open = _parted(self._open, task_id, left, beside, room)
            elif parcel := next((one for one in self._sealed if task_id in one), None):
                if rest := _parted(parcel.ids(), task_id, left, beside, room):
                    parcel.keep(rest)
                else:
                    self._sealed.remove(parcel)
        return beside


def _parted(ids: list[str], task_id: str, left: set[str], beside: list[str], room: int) -> list[str]:
    """What stays when all that are `left` are taken from `ids`, and those after `task_id` move to `beside`."""
    at = ids.index(task_id)
    others = [one for one in (*ids[at:], *ids[:at]) if one not in left]
    left.difference_update(ids)
    free = max(0, room - len(beside))
    beside += others[:free]
    return others[free:]
