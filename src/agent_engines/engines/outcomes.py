"""Outcomes: a bounded, compact log of decisions with what they earned, and what other policies would have earned.

Pure: fed by the optimizing engine with what the ledger has, asked for a list of estimates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from agent_engines.domain.off_policy import Estimate, Floats, snips, weights
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.ledger import LoggedDecision

MOST_ROWS = 50_000


class Row(msgspec.Struct, frozen=True):
    """One decision with its outcome. `eligible` holds who could have been chosen; equal tuples are shared."""

    request_id: str
    task_type: str
    chosen: str
    propensity: float
    eligible: tuple[str, ...]
    reward: float
    cost: float | None
    created_at: float
    certain: bool = False
    """No chance took part although there was a choice."""


OPEN = frozenset({None, TaskStatus.QUEUED, TaskStatus.RUNNING})


def has_ended(logged: LoggedDecision) -> bool:
    """What this decision dispatched has come to an end: also when another attempt is due, which is another decision."""
    return logged.status not in OPEN


def reward_of(logged: LoggedDecision) -> float | None:
    """Quality when the handler told it, else 1 for success and 0 for any other end; None: not ended, or cancelled."""
    if not has_ended(logged) or logged.status is TaskStatus.CANCELLED:
        return None
    if logged.quality is not None:
        return logged.quality
    return 1.0 if logged.status is TaskStatus.SUCCESS else 0.0


class OutcomeLog:
    """The newest rows, at most `most`, none older than what `expire` was last told."""

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._rows: deque[Row] = deque()
        self._most = most
        self._known: set[str] = set()
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.refused = 0
        """Decisions that cannot be judged: no usable propensity."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(self._rows)

    @property
    def deterministic(self) -> int:
        """Rows in which no chance took part."""
        return sum(row.certain for row in self._rows)

    def knows(self, request_id: str) -> bool:
        return request_id in self._known

    def add(self, logged: LoggedDecision) -> bool:
        """Take one decision that has ended; False when it has not, or is known, or cannot be judged."""
        decision, reward = logged.decision, reward_of(logged)
        if reward is None or decision.request_id in self._known:
            return False
        if not 0.0 < decision.propensity <= 1.0:
            self.refused += 1
            return False
        eligible = decision.agents
        self._rows.append(
            Row(
                request_id=decision.request_id,
                task_type=decision.task_type,
                chosen=decision.selected_agent,
                propensity=decision.propensity,
                eligible=self._shared.setdefault(eligible, eligible),
                reward=reward,
                cost=logged.cost,
                created_at=decision.created_at,
                certain=decision.deterministic,
            )
        )
        self._known.add(decision.request_id)
        if len(self._rows) > self._most:
            self._drop_oldest()
        return True

    def expire(self, before: float) -> bool:
        """Drop rows made before this time; True when there were any."""
        count = len(self._rows)
        while self._rows and self._rows[0].created_at < before:
            self._drop_oldest()
        if not self._rows:
            self._shared.clear()
        return len(self._rows) < count

    def _drop_oldest(self) -> None:
        self._known.discard(self._rows.popleft().request_id)


def judge_policies(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What each simple policy would have earned, over everything and for each task type.

    Policies: "logged" (what really decided), "uniform" (any candidate alike), "always:<agent>" (that agent whenever it
    was a candidate, otherwise what was logged, so that all policies are compared over the same tasks).
    """
    found = _judge(rows, None)
    by_type: dict[str, list[Row]] = {}
    for row in rows:
        by_type.setdefault(row.task_type, []).append(row)
    for task_type, some in sorted(by_type.items()):
        found.extend(_judge(some, task_type))
    return found


def _judge(rows: Sequence[Row], task_type: str | None) -> list[dict[str, Any]]:
    if not rows:
        return []
    columns = _Columns(rows)
    estimates = [columns.estimate("logged", task_type, columns.propensity, 1.0)]
    usable = [row for row in rows if not row.certain]
    if not usable:
        return [_flagged(one, len(rows)) for one in estimates]
    columns = _Columns(usable)
    estimates.append(columns.estimate("uniform", task_type, 1.0 / columns.choices, 1.0))
    for agent in columns.agents:
        eligible = columns.eligible(agent)
        target = np.where(eligible, columns.chose(agent), columns.propensity)
        estimates.append(columns.estimate(f"always:{agent}", task_type, target, float(eligible.mean())))
    return [_flagged(one, len(rows) - len(usable)) for one in estimates]


def _flagged(estimate: dict[str, Any], certain: int) -> dict[str, Any]:
    """Say how many rows could not judge anybody, because no chance took part in them."""
    if certain:
        used = "used here, but" if estimate["policy"] == "logged" else "left out:"
        warning = f"{certain} rows {used} no chance took part in them, so they tell nothing of other choices"
        estimate["warnings"] = [*estimate["warnings"], warning]
    return estimate


class _Columns:
    """Rows as arrays. Candidate sets repeat, so each agent's eligibility is looked up by set and not by row."""

    def __init__(self, rows: Sequence[Row]) -> None:
        sets: dict[tuple[str, ...], int] = {}
        self._set = np.array([sets.setdefault(row.eligible, len(sets)) for row in rows], dtype=np.int64)
        self._sets = [frozenset(names) for names in sets]
        self.agents = sorted(frozenset[str]().union(*self._sets))
        number = {agent: i for i, agent in enumerate(self.agents)}
        self._chosen = np.array([number.get(row.chosen, -1) for row in rows], dtype=np.int64)
        self._number = number
        self.propensity: Floats = np.array([row.propensity for row in rows], dtype=np.float64)
        self.reward: Floats = np.array([row.reward for row in rows], dtype=np.float64)
        self.cost: Floats = np.array([np.nan if row.cost is None else row.cost for row in rows], dtype=np.float64)
        self.choices: Floats = np.array([max(1, len(row.eligible)) for row in rows], dtype=np.float64)

    def chose(self, agent: str) -> Floats:
        return (self._chosen == self._number[agent]).astype(np.float64)

    def eligible(self, agent: str) -> Floats:
        return np.array([agent in names for names in self._sets], dtype=np.float64)[self._set]

    def estimate(self, policy: str, task_type: str | None, target: Floats, eligible_share: float) -> dict[str, Any]:
        weight = weights(target, self.propensity)
        found = snips(weight, self.reward)
        told = ~np.isnan(self.cost)
        total = float(weight[told].sum())
        return {
            "policy": policy,
            "task_type": task_type,
            "method": found.method,
            "value": _rounded(found.value),
            "standard_error": _rounded(found.standard_error),
            "interval": _interval(found),
            "effective_sample_size": round(found.effective_sample_size, 1),
            "rows": found.rows,
            "eligible_share": round(eligible_share, 4),
            "mean_cost": _rounded(float(weight[told] @ self.cost[told]) / total) if total > 0 else None,
            "warnings": list(found.warnings),
        }


def _interval(found: Estimate) -> list[float] | None:
    """Rewards lie in 0..1, so nothing outside can be true."""
    if found.low is None or found.high is None:
        return None
    return [round(max(0.0, found.low), 6), round(min(1.0, found.high), 6)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
