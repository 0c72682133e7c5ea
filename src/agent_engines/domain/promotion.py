"""Promotion: when recorded decisions speak for another policy. Pure numbers in, sentences out.

The gain of a policy is what it would have earned more than what was logged, row by row and doubly robust (off_policy.py). It may
take over when there is enough to judge it by, when the logged propensities fit, and when the lower end of the 95 % interval
of its gain is above 0; in no task type that is seen often may that end be below a small loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from .guardrail import Earned

LEAST_SAMPLE = 500.0
"""Effective sample size: (sum of weights)^2 / (sum of squared weights)."""
MOST_SHARE = 0.05
"""Of the total weight, on one row."""
MEAN_WEIGHT_Z = 3.0
"""Standard errors the mean weight may lie away from 1."""
FAMILY_ROWS = 500
"""A task type with more rows than this is judged by itself, too."""
FAMILY_LOSS = 0.01
KEPT_GAINS = 6
"""So many gains are kept with a change: the one over all and those of the worst task types."""


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """Mean reward (0..1) of a policy minus the logged one, with its 95 % interval. `task_type` None: over all.

    `value`, `interval` None: nothing the policy would choose was ever logged.
    """

    task_type: str | None = None
    rows: int
    value: float | None
    interval: tuple[float, float] | None
    effective_sample_size: float
    mean_weight: float
    mean_weight_error: float
    """Its standard error."""
    max_weight_share: float


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What recorded decisions say of a policy, and what was earned in them by task type, whoever decided."""

    gains: tuple[Gain, ...] = ()
    earned: tuple[Earned, ...] = ()


def objections(gains: Sequence[Gain]) -> tuple[str, ...]:
    """Why the recorded decisions do not speak for a policy, with the numbers; empty: it may be promoted."""
    whole = next((gain for gain in gains if gain.task_type is None), None)
    if whole is None or whole.value is None or whole.interval is None:
        rows = 0 if whole is None else whole.rows
        return (f"no overlap: of {rows} decisions that can judge it none could have been its own",)
    return (*_untrusted(whole), *_unproven(whole), *_worse_types(gains))


def kept(gains: Iterable[Gain]) -> tuple[Gain, ...]:
    """What is written down of many gains: over all, then the task types with the lowest lower ends."""
    ranked = sorted(gains, key=lambda gain: (gain.task_type is not None, _low(gain)))
    return tuple(ranked[:KEPT_GAINS])


def _untrusted(gain: Gain) -> Iterator[str]:
    # Written so that what is no number objects, too.
    if not gain.effective_sample_size >= LEAST_SAMPLE:
        yield f"too thin: effective sample size {gain.effective_sample_size:.0f} is under {LEAST_SAMPLE:.0f}"
    if not gain.max_weight_share <= MOST_SHARE:
        yield f"one decision carries {gain.max_weight_share:.1%} of the weight, over {MOST_SHARE:.0%}"
    if not abs(gain.mean_weight - 1.0) <= MEAN_WEIGHT_Z * gain.mean_weight_error + 1e-9:
        yield f"mean weight {gain.mean_weight:.3f} +- {gain.mean_weight_error:.3f} is not 1: propensities or overlap are wrong"


def _unproven(gain: Gain) -> Iterator[str]:
    if not _low(gain) > 0.0:
        yield f"not shown to be better than what was logged: gain {_shown(gain)}"


def _worse_types(gains: Sequence[Gain]) -> Iterator[str]:
    for gain in gains:
        if gain.task_type is not None and gain.rows > FAMILY_ROWS and not _low(gain) > -FAMILY_LOSS:
            yield f"may be worse at {gain.task_type}: gain {_shown(gain)}"


def _low(gain: Gain) -> float:
    return float("-inf") if gain.interval is None else gain.interval[0]


def _shown(gain: Gain) -> str:
    if gain.value is None or gain.interval is None:
        return f"unknown in {gain.rows} decisions"
    low, high = gain.interval
    return f"{gain.value:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, {gain.rows} decisions"
