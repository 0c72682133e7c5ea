"""The field: those one decision chooses from, as the strategies read them; worked out once for a roster, not for a task."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from agent_engines.domain.budgets import Spend
from agent_engines.domain.decisions import Candidate
from agent_engines.domain.estimates import Track

from .fleet_member import Member

MOST_PARTS = 32
"""Parts of a field that are remembered: who is out changes seldom, but each retry avoids somebody else."""


class Field:
    """`mappings` are the same objects from decision to decision, so that a strategy knows them again by identity."""

    __slots__ = ("_parts", "_places", "agents", "dearest", "mappings", "members", "notes")

    def __init__(self, members: Sequence[Member], mappings: Sequence[Mapping[str, Any]] | None = None) -> None:
        self.members = tuple(members)
        self.agents = tuple(member.name for member in members)
        made = (member.mapping() for member in members) if mappings is None else mappings
        self.mappings: tuple[Mapping[str, Any], ...] = tuple(made)
        self.dearest = Spend(
            cost=max((member.price.cost for member in members), default=0.0),
            tokens=max((member.price.tokens for member in members), default=0),
        )
        """No task takes more than this, whoever does it."""
        self.notes = tuple(note for member in members for note in member.notes)
        self._places = {name: place for place, name in enumerate(self.agents)}
        self._parts: dict[Hashable, Field] = {}

    def __contains__(self, agent: str) -> bool:
        return agent in self._places

    def member(self, agent: str) -> Member:
        """Raises KeyError for one that is not in it."""
        return self.members[self._places[agent]]

    def without(self, agents: Iterable[str]) -> Field:
        """The same without these. Remembered: in an incident every decision leaves the same ones out."""
        gone = frozenset(agents)
        return self.part(gone, lambda member: member.name not in gone)

    def part(self, key: Hashable, wanted: Callable[[Member], bool]) -> Field:
        """Those who are wanted, remembered under `key`; what `wanted` looks at must not change while the roster holds."""
        part = self._parts.get(key)
        if part is None:
            if len(self._parts) >= MOST_PARTS:
                self._parts.clear()
            part = self._parts[key] = self._of([place for place, member in enumerate(self.members) if wanted(member)])
        return part

    def only(self, agents: Sequence[str]) -> Field:
        """The part of it that consists of these, in its order."""
        wanted = set(agents)
        return self._of([place for place, name in enumerate(self.agents) if name in wanted])

    def candidates(self, task_type: str, usual: Track | None, now: float) -> list[Candidate]:
        """Everybody with the numbers of this moment. `now`: monotonic seconds."""
        return [member.candidate(task_type, usual, now) for member in self.members]

    def _of(self, places: Sequence[int]) -> Field:
        return Field([self.members[place] for place in places], [self.mappings[place] for place in places])
