"""The guardrail of a promotion: does the promoted policy earn measurably less than what was logged before it?

Before and after are compared within task types, weighted by what comes after, so that another mix of work is no fault of the
policy. Rewards lie in 0..1, which bounds their variance by 1/4 and nothing more is assumed of them:

- before: a fixed sample; its error is bounded by Hoeffding's inequality;
- after: looked at again and again, so the bound must hold at all times at once: Robbins' normal mixture (Howard et al.,
  Annals of Statistics 2021, eq. 14).

Each bound fails in at most 1 of 100 promotions, so a policy that is no worse is rolled back in at most 2 of 100.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

ERROR = 0.01
VARIANCE = 0.25
MIXTURE = 20.0
"""Where the bound is tightest: at about a thousand outcomes. There a loss of 0.06 is seen, at ten thousand one of 0.02."""
LEAST_BEFORE = 50
"""Outcomes of a task type before the promotion; with fewer it is not compared."""
MOST_TYPES = 20


class Earned(msgspec.Struct, frozen=True, kw_only=True):
    """Mean reward (0..1) of so many outcomes of a task type."""

    task_type: str
    rows: int
    mean: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`mean`: of the outcomes since; `expected`: what the same mix of work earned before; `bound`: a mean below it is a breach."""

    rows: int
    mean: float
    expected: float
    bound: float

    @property
    def breach(self) -> bool:
        return self.mean < self.bound

    def __str__(self) -> str:
        return (
            f"{self.rows} outcomes earned {self.mean:.4f} in the mean, before it the same work earned {self.expected:.4f}; "
            f"below {self.bound:.4f} is no chance"
        )


def baseline(earned: Iterable[Earned]) -> tuple[Earned, ...]:
    """What is remembered of the time before a promotion: the most frequent task types with enough outcomes."""
    enough = [one for one in earned if one.rows >= LEAST_BEFORE]
    return tuple(sorted(enough, key=lambda one: (-one.rows, one.task_type))[:MOST_TYPES])


def compared(before: Sequence[Earned], after: Iterable[Earned]) -> Comparison | None:
    """None while there is nothing to compare."""
    known = {one.task_type: one for one in before}
    common = [(known[one.task_type], one) for one in after if one.task_type in known and one.rows > 0]
    rows = sum(now.rows for _, now in common)
    if rows == 0:
        return None
    shares = [now.rows / rows for _, now in common]
    expected = sum(share * then.mean for share, (then, _) in zip(shares, common, strict=True))
    mean = sum(share * now.mean for share, (_, now) in zip(shares, common, strict=True))
    spread = sum(share**2 * VARIANCE / then.rows for share, (then, _) in zip(shares, common, strict=True))
    before_error = math.sqrt(2.0 * math.log(1.0 / ERROR) * spread)
    return Comparison(rows=rows, mean=mean, expected=expected, bound=expected - before_error - _at_any_time(rows))


def _at_any_time(rows: int) -> float:
    """How far a mean of so many may be from the truth, whenever one looks."""
    spread = rows * VARIANCE + MIXTURE
    return math.sqrt(spread * math.log(spread / (MIXTURE * ERROR**2))) / rows
