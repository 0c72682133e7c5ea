"""The field: those one decision chooses from, as the strategies read them; worked out once for a roster, not for a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_engines.domain.decisions import Candidate
from agent_engines.domain.estimates import Track

from .fleet_member import Member


class Field:
    """`mappings` are the same objects from decision to decision, so that a strategy knows them again by identity."""

    __slots__ = ("agents", "mappings", "members", "notes")

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self.agents = tuple(member.name for member in members)
        self.mappings: tuple[Mapping[str, Any], ...] = tuple(member.mapping() for member in members)
        self.notes = tuple(note for member in members for note in member.notes)

    def without(self, agent: str) -> Field:
        """The same without one agent."""
        return Field([member for member in self.members if member.name != agent])

    def candidates(self, task_type: str, usual: Track | None, now: float) -> list[Candidate]:
        """Everybody with the numbers of this moment. `now`: monotonic seconds."""
        return [member.candidate(task_type, usual, now) for member in self.members]
