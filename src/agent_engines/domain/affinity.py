"""Affinity: tasks with the same key meet the same agent, so that what it remembers (a cache, a session) is of use again.

Rendezvous hashing (Thaler and Ravishankar, 1998): every agent gets a number from the key and its name, the highest one is
the key's agent. When an agent comes or goes, only the keys move that are or were its own. The numbers are given to all that
could do the task whatever their state, so that a key does not move while its agent restarts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b

from .decisions import Candidate

MUCH_WORSE = 0.2
"""Expected success times quality that a warm cache does not make up for."""
OVERLOADED_TIMES = 2.0
OVERLOADED_MS = 250.0
"""Overloaded: later than twice the soonest and this much."""


def ranked(key: str, names: Iterable[str]) -> list[str]:
    """Names by their number for this key, the key's agent first."""
    head = key.encode("utf-8", "surrogatepass") + b"\0"
    return sorted(names, key=lambda name: (blake2b(head + name.encode(), digest_size=8).digest(), name), reverse=True)


def home(key: str, able: Iterable[str], eligible: Collection[str]) -> str | None:
    """The first in the key's order that may be chosen now; None when nobody may."""
    return next((name for name in ranked(key, able) if name in eligible), None)


def unfit(candidate: Candidate, candidates: Sequence[Candidate]) -> str:
    """Why the key's agent is not preferred now; empty when it is.

    What is not known of it yet speaks for it: nothing but tasks can tell, and a key that waits for them moves about.
    """
    best = max(_worth(one) for one in candidates)
    hoped = _worth(candidate, candidate.doubt)
    if hoped < best - MUCH_WORSE:
        return f"worth {hoped:.2f} at most, the best {best:.2f}"
    soonest = min(one.completion_ms for one in candidates)
    if candidate.completion_ms > OVERLOADED_TIMES * soonest + OVERLOADED_MS:
        return f"expected in {candidate.completion_ms:.0f} ms, the soonest in {soonest:.0f} ms"
    return ""


def _worth(candidate: Candidate, doubt: float = 0.0) -> float:
    return min(1.0, candidate.success + doubt) * (1.0 if candidate.quality is None else candidate.quality)
