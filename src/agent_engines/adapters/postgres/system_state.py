"""What a choice was made from, as the ledger keeps it: the column `system_state` of decision_history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

import msgspec
from msgspec.structs import astuple

from agent_engines.domain.decisions import Candidate, Decision, Rejection

MOST_KEPT = 64
"""Tuples whose JSON is kept; of a thousand agents some hundred kilobytes."""


def as_jsonb(names: Iterable[str]) -> list[str]:
    """The order jsonb keeps keys in: shorter ones first. Keys that come in it need not be sorted by the server, which
    otherwise costs it a fifth of reading a decision.
    """
    return sorted(names, key=lambda name: (len(name), name))


_FIELDS = as_jsonb(Candidate.__struct_fields__)
_in_order = itemgetter(*map(Candidate.__struct_fields__.index, _FIELDS))
_Columns = msgspec.defstruct("_Columns", _FIELDS, frozen=True, gc=False)
"""A tuple for each number of the candidates, written under its name."""

_encode = msgspec.json.Encoder().encode


class SystemState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a choice was made from. One array for each number instead of one object for each candidate: half the bytes,
    half the time to store, and still readable with `system_state #> '{candidates,score}'`.
    """

    candidates: dict[str, Sequence[Any]]
    rejected: tuple[Rejection, ...] = ()
    eligible: tuple[str, ...] = ()
    terms: dict[str, float] = {}
    fallback: str = ""
    hedge: str = ""

    def restore(self) -> tuple[Candidate, ...]:
        """Columns this version does not know are left out, so that old and new programs read each other's rows."""
        names = [name for name in self.candidates if name in _FIELDS]
        values = zip(*(self.candidates[name] for name in names), strict=True)
        return msgspec.convert([dict(zip(names, row, strict=True)) for row in values], tuple[Candidate, ...])


class _Written(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A SystemState as it is written, in jsonb's order: `rejected` and `eligible` as JSON already."""

    hedge: str = ""
    terms: dict[str, float] = {}
    eligible: msgspec.Raw | tuple[()] = ()
    fallback: str = ""
    rejected: msgspec.Raw | tuple[()] = ()
    candidates: Any


class States:
    """SystemStates as JSON text. Who fell and who could have been chosen are the same tuples in decision after decision,
    hundreds of names each: their JSON is kept, by identity.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[tuple[Any, ...], msgspec.Raw]] = {}

    def text(self, decision: Decision) -> str:
        candidates = decision.candidates
        columns = _Columns(*_in_order(tuple(zip(*map(astuple, candidates), strict=True)))) if candidates else {}
        rejected, eligible = decision.rejected, decision.eligible
        return _encode(
            _Written(
                hedge=decision.hedge,
                terms=decision.terms,
                eligible=self._json(eligible) if eligible else (),
                fallback=decision.fallback,
                rejected=self._json(rejected) if rejected else (),
                candidates=columns,
            )
        ).decode()

    def _json(self, items: tuple[Any, ...]) -> msgspec.Raw:
        kept = self._kept.get(id(items))
        if kept is not None and kept[0] is items:
            return kept[1]
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        made = msgspec.Raw(_encode(items))
        self._kept[id(items)] = items, made
        return made
