"""Candidates as arrays: replicas ordered by kind, worked out once for each list of candidates that comes again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .arithmetic import Fleet
from .arrays import Floats, NDArrayInt, Rows, together
from .given import cost_of

MOST_FILLING = 4


class Candidates(NamedTuple):
    """`rows` are replicas' rows in the load model, `places` theirs in the caller's list, `starts` the first of each kind.

    `names`, `numbers` (in `Values`; `known` the same), `costs`, `starts` and `sizes` have one entry for each kind.
    """

    rows: NDArrayInt
    places: NDArrayInt
    starts: NDArrayInt
    sizes: NDArrayInt
    names: tuple[str, ...]
    numbers: NDArrayInt
    known: Rows
    costs: Floats
    whole: Fleet
    """What a decision is made of: costs, rows (as a slice where that can be), `starts`, `sizes`, and, for numpy, places in `rows` of each kind's replicas, the last
    repeated to fill up (None when that would be mostly filling)."""

    def any_of(self, chance: float) -> NDArrayInt:
        """One replica of each kind, picked by one number from 0 to 1."""
        return self.starts + (chance * self.sizes).astype(np.intp)


def arranged(
    candidates: Sequence[Mapping[str, Any]], rows: Sequence[int], number: Callable[[str, str | None], int]
) -> Candidates:
    """`rows`: the load model's row of each; `number`: of a kind, given its parent; kinds come in this order.

    Raises ValueError naming a cost that cannot be used.
    """
    ranks: dict[str, tuple[int, int]] = {}
    kinds = [kind_of(one) for one in candidates]
    for kind, one in zip(kinds, candidates, strict=True):
        if kind not in ranks:
            ranks[kind] = (number(kind, parent_of(one)), len(ranks))
    order = sorted(range(len(kinds)), key=[ranks[kind] for kind in kinds].__getitem__)
    names: list[str] = []
    begun: list[int] = []
    for at, place in enumerate(order):
        if not names or names[-1] != kinds[place]:
            names.append(kinds[place])
            begun.append(at)
    starts = np.array(begun)
    sizes = np.diff(starts, append=len(order))
    ordered = np.array([rows[place] for place in order])
    numbered = np.array([ranks[name][0] for name in names])
    part = together(ordered)
    costs = np.array([cost_of(candidates[order[at]]) for at in begun])
    return Candidates(
        ordered,
        np.array(order),
        starts,
        sizes,
        tuple(names),
        numbered,
        together(numbered),
        costs,
        (costs, part, starts, sizes, _grid(starts, sizes)),
    )


def _grid(starts: NDArrayInt, sizes: NDArrayInt) -> NDArrayInt | None:
    most = int(sizes.max())
    if most * len(sizes) > MOST_FILLING * int(sizes.sum()):
        return None
    return np.minimum(np.arange(most)[None, :], sizes[:, None] - 1) + starts[:, None]


def kind_of(candidate: Mapping[str, Any]) -> str:
    """Which kind it is a replica of; without one it is a kind of its own."""
    return str(candidate.get("cls") or candidate["agent"])


def parent_of(candidate: Mapping[str, Any]) -> str | None:
    """The kind whose experience it starts from while it has none of its own."""
    parent = candidate.get("parent")
    return None if parent is None else str(parent)
