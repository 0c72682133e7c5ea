"""Hints: what a caller says about the choice itself. By which strategy, and what the task looks like in numbers.

| field | accepted |
| --- | --- |
| strategy | 1 to 64 letters, digits, `_`, `-`, `.`; which names there are is the router's to say |
| features | 1 to 256 finite numbers, in an order that is the same for every task of a type |
| embedding | 1 to 4,096 finite numbers |
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from .errors import InvalidRequest

MOST_FEATURES = 256
MOST_EMBEDDING = 4_096
LARGEST = 1e12
"""Larger numbers would swamp every other one in a learner's arithmetic."""
STRATEGY = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Hints(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Kept with the task, so that a retry is decided by the same words."""

    strategy: str | None = None
    features: tuple[float, ...] | None = None
    embedding: tuple[float, ...] | None = None


def checked_hints(strategy: Any, features: Any, embedding: Any) -> Hints | None:
    """What was said, checked; None when nothing was. Raises InvalidRequest naming the field."""
    if strategy is None and features is None and embedding is None:
        return None
    return Hints(
        strategy=checked_strategy(strategy),
        features=_numbers("features", features, MOST_FEATURES),
        embedding=_numbers("embedding", embedding, MOST_EMBEDDING),
    )


def checked_strategy(name: Any) -> str | None:
    """Raises InvalidRequest."""
    if name is None or (isinstance(name, str) and STRATEGY.fullmatch(name)):
        return name
    raise InvalidRequest("strategy must have 1 to 64 letters, digits, '_', '-' or '.'", field="strategy")


def _numbers(field: str, values: Any, most: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise InvalidRequest(f"{field} must be a list of numbers, not {type(values).__name__}", field=field)
    if not 1 <= len(values) <= most:
        raise InvalidRequest(f"{field} has {len(values)} numbers, 1 to {most} are accepted", field=field)
    for place, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequest(f"{field}[{place}] is not a number", field=f"{field}[{place}]")
        if not math.isfinite(value) or abs(value) > LARGEST:
            raise InvalidRequest(
                f"{field}[{place}] must be a finite number within {LARGEST:g}", field=f"{field}[{place}]"
            )
    return tuple(map(float, values))
