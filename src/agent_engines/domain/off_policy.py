"""What would another policy have earned? Estimates from logged decisions with their exact propensities.

A row's weight is (probability that the target policy makes the logged choice) / (probability it was made with).

- IPS: mean of weight * reward (Horvitz and Thompson 1952); unbiased, noisy.
- SNIPS: the same divided by the mean weight (Swaminathan and Joachims, NeurIPS 2015); a small bias, far less noise.
- DR: a reward model's prediction, corrected by the weighted errors it makes on what was logged (Dudik et al., ICML 2011).

Standard errors: of the mean (IPS, DR), by the delta method (SNIPS; Owen, Monte Carlo theory, 9.2). The 95 % interval is
value +- 1.96 standard errors, and on the side of the long tail z^2/2 * (third / second central moment) / rows more: few rows
with large weights are a skewed sum whose standard error is small just when the large ones are missing. For a plain share
this is the shift of Wilson's interval; the other end stays, so that no policy looks better by it. When all rewards that count are equal and lie in 0..1, the standard error is a false 0
and the interval is Wilson's for a share seen in as many rows as the effective sample size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from .errors import InvalidRequest

Floats: TypeAlias = NDArray[np.float64]
Z95 = 1.959963984540054
LEAST_ESS = 100.0
MOST_SHARE = 0.05
MEAN_WEIGHT_Z = 3.0


class Method(StrEnum):
    IPS = "ips"
    SNIPS = "snips"
    DR = "dr"


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """`value` and its interval are None when no logged choice could have been the target's."""

    method: Method
    rows: int
    value: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    effective_sample_size: float
    """(sum of weights)^2 / (sum of squared weights), Kish 1965."""
    mean_weight: float
    """Close to 1 when the propensities are right and the target only does what could be logged."""
    max_weight_share: float
    warnings: tuple[str, ...] = ()


def weights(target: Sequence[float] | Floats, propensity: Sequence[float | None] | Floats) -> Floats:
    """Target probability of each logged choice over its propensity. Raises InvalidRequest naming the first bad row."""
    wanted, logged = np.asarray(target, dtype=np.float64), _propensities(propensity)
    if wanted.shape != logged.shape or wanted.ndim != 1:
        raise InvalidRequest("target probabilities and propensities must be one number for each row", field="target")
    bad = ~((wanted >= 0.0) & (wanted <= 1.0 + 1e-9))
    if bad.any():
        row = int(bad.argmax())
        raise InvalidRequest(f"row {row}: target probability {wanted[row]} is not in 0..1", field="target")
    return wanted / logged


def ips(weight: Floats, reward: Floats) -> Estimate:
    """Inverse propensity score: the mean of weight * reward."""
    rewards = _rewards(weight, reward)
    return _doubted(_of_terms(Method.IPS, weight, weight * rewards), weight, rewards)


def snips(weight: Floats, reward: Floats) -> Estimate:
    """Self-normalised IPS: never leaves the range of the rewards."""
    rewards = _rewards(weight, reward)
    if not weight.any():
        return _nothing(Method.SNIPS, len(weight))
    share = _scaled(weight)
    total = float(share.sum())
    value = float(share @ rewards) / total
    error = math.sqrt(float(np.square(share) @ np.square(rewards - value))) / total
    low, high = value - Z95 * error, value + Z95 * error
    if _all_alike(weight, rewards) and 0.0 <= value <= 1.0:
        low, high = _wilson(value, effective_sample_size(weight))
    else:
        low, high = _stretched(low, high, share * (rewards - value) / total)
    return _estimate(Method.SNIPS, weight, value, (error, low, high))


def doubly_robust(weight: Floats, reward: Floats, predicted_logged: Floats, predicted_target: Floats) -> Estimate:
    """DR: `predicted_logged` is the model's reward for the logged choice, `predicted_target` its mean under the target."""
    rewards = _rewards(weight, reward)
    residual = rewards - np.asarray(predicted_logged, dtype=np.float64)
    terms = np.asarray(predicted_target, dtype=np.float64) + weight * residual
    return _doubted(_of_terms(Method.DR, weight, terms), weight, rewards)


def gain(weight: Floats, reward: Floats, predicted_logged: Floats, predicted_target: Floats) -> Estimate:
    """By how much the target would have earned more than what was logged, row by row (DR minus the reward itself)."""
    rewards = _rewards(weight, reward)
    residual = rewards - np.asarray(predicted_logged, dtype=np.float64)
    terms = np.asarray(predicted_target, dtype=np.float64) + weight * residual - rewards
    return _of_terms(Method.DR, weight, terms)


def effective_sample_size(weight: Floats) -> float:
    if not weight.any():
        return 0.0
    share = _scaled(weight)
    return float(share.sum()) ** 2 / float(share @ share)


def _scaled(weight: Floats) -> Floats:
    """The weights with the largest made 1: squares of very small ones would vanish."""
    return weight / weight.max()


def _of_terms(method: Method, weight: Floats, terms: Floats) -> Estimate:
    """The estimate that is the plain mean of one term a row."""
    rows = len(terms)
    if rows == 0 or float(weight.sum()) <= 0.0:
        return _nothing(method, rows)
    value = float(terms.mean())
    error = float(terms.std(ddof=1)) / math.sqrt(rows) if rows > 1 else math.inf
    low, high = _stretched(value - Z95 * error, value + Z95 * error, (terms - value) / rows)
    return _estimate(method, weight, value, (error, low, high))


def _doubted(found: Estimate, weight: Floats, rewards: Floats) -> Estimate:
    """An interval at least as wide as Wilson's where all rewards that count are equal: a few rows are no certainty."""
    if found.value is None or found.low is None or found.high is None:
        return found
    if not _all_alike(weight, rewards) or not 0.0 <= found.value <= 1.0:
        return found
    low, high = _wilson(found.value, effective_sample_size(weight))
    return msgspec.structs.replace(found, low=min(low, found.low), high=max(high, found.high))


def _all_alike(weight: Floats, rewards: Floats) -> bool:
    return float(np.ptp(rewards[weight > 0.0])) == 0.0


def _stretched(low: float, high: float, parts: Floats) -> tuple[float, float]:
    """The interval with its end on the side of the long tail moved out; `parts` are each row's share of the error."""
    largest = float(np.abs(parts).max()) if len(parts) > 1 else 0.0
    if largest == 0.0 or not math.isfinite(low):
        return low, high
    scaled = parts / largest
    squares = float(scaled @ scaled)
    shift = Z95**2 / 2.0 * largest * float(np.square(scaled) @ scaled) / squares
    return low + min(0.0, shift), high + max(0.0, shift)


def _estimate(method: Method, weight: Floats, value: float, spread: tuple[float, float, float]) -> Estimate:
    error, low, high = spread
    total = float(weight.sum())
    return Estimate(
        method=method,
        rows=len(weight),
        value=value,
        standard_error=error if math.isfinite(error) else None,
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        effective_sample_size=effective_sample_size(weight),
        mean_weight=float(weight.mean()),
        max_weight_share=float(weight.max()) / total if total > 0 else 0.0,
        warnings=_warnings(weight),
    )


def _nothing(method: Method, rows: int) -> Estimate:
    text = "no rows" if rows == 0 else "no overlap: nothing the target would choose was ever logged"
    return Estimate(
        method=method,
        rows=rows,
        value=None,
        standard_error=None,
        low=None,
        high=None,
        effective_sample_size=0.0,
        mean_weight=0.0,
        max_weight_share=0.0,
        warnings=(text,),
    )


def _warnings(weight: Floats) -> tuple[str, ...]:
    """Why a reader should not lean on this estimate; empty when there is no known reason."""
    found: list[str] = []
    total, rows = float(weight.sum()), len(weight)
    size = effective_sample_size(weight)
    if size < LEAST_ESS:
        found.append(f"effective sample size {size:.0f} is under {LEAST_ESS:.0f}")
    if total > 0 and float(weight.max()) / total > MOST_SHARE:
        found.append(f"one row carries {float(weight.max()) / total:.0%} of the weight")
    error = float(weight.std(ddof=1)) / math.sqrt(rows) if rows > 1 else 0.0
    if error > 0 and abs(float(weight.mean()) - 1.0) > MEAN_WEIGHT_Z * error:
        found.append(f"mean weight {float(weight.mean()):.2f} is not 1: propensities or overlap are wrong")
    return tuple(found)


def _propensities(values: Sequence[float | None] | Floats) -> Floats:
    if not isinstance(values, np.ndarray):
        for row, value in enumerate(values):
            if value is None:
                raise InvalidRequest(f"row {row}: no propensity was logged", field="propensity")
    logged = np.asarray(values, dtype=np.float64)
    bad = ~((logged > 0.0) & (logged <= 1.0 + 1e-9))
    if bad.any():
        row = int(bad.argmax())
        raise InvalidRequest(f"row {row}: propensity {logged[row]} is not in (0, 1]", field="propensity")
    return logged


def _rewards(weight: Floats, reward: Floats) -> Floats:
    rewards = np.asarray(reward, dtype=np.float64)
    if rewards.shape != weight.shape:
        raise InvalidRequest("rewards and weights must be one number for each row", field="reward")
    bad = ~np.isfinite(rewards)
    if bad.any():
        raise InvalidRequest(f"row {int(bad.argmax())}: the reward is not a number", field="reward")
    return rewards


def _wilson(share: float, size: float) -> tuple[float, float]:
    """Wilson's 95 % interval for a share (Wilson 1927)."""
    scale = 1.0 + Z95**2 / size
    middle = (share + Z95**2 / (2 * size)) / scale
    half = Z95 / scale * math.sqrt(share * (1 - share) / size + Z95**2 / (4 * size**2))
    return max(0.0, middle - half), min(1.0, middle + half)
