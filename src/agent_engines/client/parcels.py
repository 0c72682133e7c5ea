"""Parcels: very many ids in little memory, by neighbours; whoever names one finds those beside it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

PARCEL = 500
MOST_PARCELS = 2_000
"""A million ids of 37 bytes; of older ones it is forgotten that they were here."""
SLOTS = 1 << 22
"""Of two bytes. Where two ids meet the later one has the slot: the other is found with its neighbours only."""
NUMBERS = 1 << 16


class Parcels:
    """Ids (text without blanks) in the order in which they were added."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._sealed: dict[int, str] = {}
        """By their numbers, 1 to 65,535 in turn; the oldest first."""
        self._number = 0
        self._slots = array("H")
        """The number of the parcel that an id with this hash is in, or was; 0: none."""

    def add(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            self._open.append(task_id)
            if len(self._open) == PARCEL:
                self._seal()

    def take(self, wanted: Sequence[str], room: int) -> list[str]:
        """Take these out, and up to `room` of those beside them, which are returned: the next ones first."""
        gone = frozenset(wanted)
        beside: list[str] = []
        for number in dict.fromkeys(self._slots[hash(one) % SLOTS] for one in wanted) if self._slots else ():
            if number in self._sealed:
                ids = self._sealed[number].split()
                if rest := _parted(ids, gone, beside, room):
                    self._sealed[number] = " ".join(rest)
                else:
                    del self._sealed[number]
        self._open = _parted(self._open, gone, beside, room)
        return beside

    def _seal(self) -> None:
        if not self._slots:
            self._slots = array("H", [0]) * SLOTS
        self._number = self._number % (NUMBERS - 1) + 1
        for task_id in self._open:
            self._slots[hash(task_id) % SLOTS] = self._number
        self._sealed[self._number] = " ".join(self._open)
        self._open = []
        if len(self._sealed) > MOST_PARCELS:
            del self._sealed[next(iter(self._sealed))]


def _parted(ids: list[str], gone: frozenset[str], beside: list[str], room: int) -> list[str]:
    """What stays when those that are `gone` are taken from `ids`, and what comes after the first of them moves to `beside`."""
    at = next((place for place, task_id in enumerate(ids) if task_id in gone), None)
    if at is None:
        return ids
    others = [one for one in (*ids[at:], *ids[:at]) if one not in gone]
    free = max(0, room - len(beside))
    beside += others[:free]
    return others[free:]
