"""A spool in memory: what a file would keep, on a shelf that outlives its owners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent_engines.domain.errors import Unavailable
from agent_engines.ports.spool import MAX_REPORTS, Spooled


@dataclass(slots=True, eq=False)
class Box:
    """What one replica kept."""

    groups: list[tuple[Spooled, ...]] = field(default_factory=list[tuple[Spooled, ...]])
    owned: bool = True


@dataclass(slots=True)
class Shelf:
    """A machine's disk: the boxes of all replicas of one agent."""

    boxes: list[Box] = field(default_factory=list[Box])
    writable: bool = True


class MemorySpool:
    """Implements ports.spool.Spool."""

    def __init__(self, shelf: Shelf | None = None, *, max_reports: int = MAX_REPORTS) -> None:
        self.shelf = shelf or Shelf()
        self._max_reports = max_reports
        self._box: Box | None = None

    async def keep(self, group: Sequence[Spooled]) -> bool:
        if not self.shelf.writable:
            raise Unavailable("the spool cannot be used: it is switched off")
        if self._box is None:
            self._box = Box()
            self.shelf.boxes.append(self._box)
        if sum(map(len, self._box.groups)) + len(group) > self._max_reports:
            return False
        self._box.groups.append(tuple(group))
        return True

    async def clear(self) -> None:
        box, self._box = self._box, None
        if box is not None:
            self.shelf.boxes.remove(box)

    async def orphans(self) -> list[MemoryOrphan]:
        return [MemoryOrphan(self.shelf, box) for box in self.shelf.boxes if not box.owned]

    async def close(self) -> None:
        """Also what the end of the process does."""
        box, self._box = self._box, None
        if box is not None:
            box.owned = False


class MemoryOrphan:
    """Implements ports.spool.Orphan."""

    def __init__(self, shelf: Shelf, box: Box) -> None:
        box.owned = True
        self._shelf = shelf
        self._box = box
        self._at = 0

    async def read(self) -> tuple[Spooled, ...] | None:
        if self._at >= len(self._box.groups):
            return None
        self._at += 1
        return self._box.groups[self._at - 1]

    async def remove(self) -> None:
        if self._box in self._shelf.boxes:
            self._shelf.boxes.remove(self._box)

    async def leave(self) -> None:
        self._box.owned = False
