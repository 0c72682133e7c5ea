"""Verdicts: what the ledger did with a report."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What became of one report."""

    RECORDED = "recorded"
    DUPLICATE = "duplicate"
    """The same outcome is already there (a repeated message)."""
    LATE = "late"
    """Recorded, though its generation was superseded: a success while nothing else had ended the task."""
    STALE = "stale"
    """Refused: another terminal outcome exists, or the generation is superseded."""
    FALLEN = "fallen"
    """The failure of one leg of a hedged task: noted as an attempt, while the other leg goes on."""

    @property
    def kept(self) -> bool:
        """Whether the report changed what becomes of the task."""
        return self is Verdict.RECORDED or self is Verdict.LATE

    @property
    def spent(self) -> bool:
        """Whether what the attempt used up is booked with it."""
        return self.kept or self is Verdict.FALLEN
