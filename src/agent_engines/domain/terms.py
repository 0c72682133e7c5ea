"""Terms: on whose account a task runs, what it may cost, and which agent it would like to meet again.

| field | accepted |
| --- | --- |
| tenant | 1 to 64 letters, digits, `.`, `_`, `-`; `default` when nothing is said |
| budget | `{"cost"?: above 0, "tokens"?: 1 and up, "attempts"?: 1 to 100}` |
| affinity | `{"key": 1 to 255 printable characters, "mode"?: "soft" or "hard"}` |
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from .errors import InvalidRequest

DEFAULT_TENANT = "default"
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_TOKENS = 10**15
MOST_COST = 1e12
MOST_ATTEMPTS = 100
KEY_LENGTH = 255


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one task may use up, all its attempts together. `cost`: in the fleet's currency. None: no bound."""

    cost: Annotated[float, Meta(gt=0, le=MOST_COST, description="in the fleet's currency")] | None = None
    tokens: Annotated[int, Meta(ge=1, le=MOST_TOKENS)] | None = None
    attempts: Annotated[int, Meta(ge=1, le=MOST_ATTEMPTS)] | None = None


class AffinityMode(StrEnum):
    SOFT = "soft"
    """Preferred, unless it is much worse or overloaded."""
    HARD = "hard"
    """This agent or none."""


class Affinity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Tasks with the same key meet the same agent (domain/affinity.py)."""

    key: Annotated[str, Meta(min_length=1, max_length=KEY_LENGTH, description="such as a session's id")]
    mode: AffinityMode = AffinityMode.SOFT


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Written without its defaults; nothing at all for most tasks."""

    tenant: str = DEFAULT_TENANT
    budget: Budget | None = None
    affinity: Affinity | None = None


NO_TERMS = Terms()


def terms_of(tenant: str | None, budget: Budget | None, affinity: Affinity | None) -> Terms:
    """NO_TERMS itself when nothing is said, so that the common case costs a comparison. Raises InvalidRequest."""
    if budget is None and affinity is None and tenant in (None, DEFAULT_TENANT):
        return NO_TERMS
    name = DEFAULT_TENANT if tenant is None else tenant
    check_tenant(name)
    if budget is not None:
        _check_budget(budget)
    if affinity is not None:
        _check_affinity(affinity)
    return Terms(tenant=name, budget=budget, affinity=affinity)


def check_tenant(name: object, field: str = "tenant") -> None:
    """Raises InvalidRequest."""
    if not isinstance(name, str) or not TENANT.fullmatch(name):
        raise InvalidRequest(
            f"{field} must have 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit", field=field
        )


def _check_budget(budget: Budget) -> None:
    if budget.cost is not None and not (_number(budget.cost) and 0 < budget.cost <= MOST_COST):
        raise InvalidRequest(f"budget.cost must be above 0 and at most {MOST_COST:g}", field="budget.cost")
    for name, most in (("tokens", MOST_TOKENS), ("attempts", MOST_ATTEMPTS)):
        value = getattr(budget, name)
        if value is not None and not (isinstance(value, int) and _number(value) and 1 <= value <= most):
            raise InvalidRequest(f"budget.{name} must be a whole number from 1 to {most}", field=f"budget.{name}")


def _check_affinity(affinity: Affinity) -> None:
    key = affinity.key
    if not _is_text(key) or not 1 <= len(key) <= KEY_LENGTH or not key.isprintable():
        raise InvalidRequest(f"affinity.key must have 1 to {KEY_LENGTH} printable characters", field="affinity.key")
    if affinity.mode not in set(AffinityMode):
        raise InvalidRequest("affinity.mode must be soft or hard", field="affinity.mode")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
