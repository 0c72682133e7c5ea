"""Outcomes: a bounded, compact log of decisions with what they earned, and what other policies would have earned.

Pure: fed by the optimizing engine with what the ledger has, asked for a list of estimates.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from agent_engines.domain.guardrail import Earned
from agent_engines.domain.off_policy import Estimate, Floats, snips, weights
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.ledger import LoggedDecision

MOST_ROWS = 50_000
MOST_WAITING = 20_000
"""Decisions whose end is waited for; about 4 MB."""


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
    task_id: str | None = None
    certain: bool = False
    """No chance took part although there was a choice."""
    version: str = ""
    """Of the policy that decided."""


class Awaited(msgspec.Struct, frozen=True):
    """A decision that had not ended when it was last read."""

    created_at: float
    task_type: str
    version: str


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
    """The newest rows, at most `most`, none older than what `expire` was last told, and the decisions still waited for.

    Who is slow ends late, and who hangs ends last: a row that is left out because its end came late makes its agent look
    better than it is. So every decision that was read is kept in mind until it ends, and `unended` counts the others.
    """

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._rows: dict[str, Row] = {}
        self._most = most
        self._waiting: dict[str, Awaited] = {}
        self._given_up = float("-inf")
        self._refused: dict[str, None] = {}
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.refused = 0
        """Decisions that cannot be judged: no usable propensity."""
        self.unended = 0
        """Decisions that were given up before they had ended."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(self._rows.values())

    @property
    def deterministic(self) -> int:
        """Rows in which no chance took part."""
        return sum(row.certain for row in self._rows.values())

    @property
    def waiting(self) -> tuple[str, ...]:
        """Request ids of decisions that had not ended when they were last read."""
        return tuple(self._waiting)

    def knows(self, request_id: str) -> bool:
        return request_id in self._rows

    def earned(self, version: str, since: float) -> list[Earned]:
        """What the decisions of this version made since then have earned, by task type.

        What is waited for counts as if it will succeed: failures may be quicker, and alone they would tell a wrong story.
        """
        told = [(row.task_type, row.reward) for row in self._rows.values() if _is_of(row, version, since)]
        told += [(one.task_type, 1.0) for one in self._waiting.values() if _is_of(one, version, since)]
        return earned_by_type(told)

    def of_tasks(self, task_ids: Container[str]) -> list[str]:
        """Request ids of the rows of these tasks."""
        return [row.request_id for row in self._rows.values() if row.task_id and row.task_id in task_ids]

    def add(self, logged: LoggedDecision) -> bool:
        """Take one decision that was read; True when that changed a row. One that has not ended is waited for."""
        request_id, reward = logged.decision.request_id, reward_of(logged)
        if not has_ended(logged):
            if logged.decision.created_at < self._given_up:
                return False
            decision = logged.decision
            version = sys.intern(decision.policy_version)
            self._waiting[request_id] = Awaited(decision.created_at, decision.task_type, version)
            if len(self._waiting) > MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
                self.unended += 1
            return False
        self._waiting.pop(request_id, None)
        if reward is None:
            return False
        if not 0.0 < logged.decision.propensity <= 1.0:
            self._refuse(logged)
            return False
        row = self._row(logged, reward)
        if self._rows.get(request_id) == row:
            return False
        self._rows[request_id] = row
        if len(self._rows) > self._most:
            self._drop_oldest()
        return True

    def again(self, logged: LoggedDecision) -> bool:
        """As `add`, for one that is waited for or has its row: the end that was missing, or what others said of it later."""
        known = logged.decision.request_id in self._rows or logged.decision.request_id in self._waiting
        return known and self.add(logged)

    def give_up(self, before: float) -> None:
        """Wait no longer for decisions made before this time, also when they are read again."""
        self._given_up = before
        for request_id in [one for one, awaited in self._waiting.items() if awaited.created_at < before]:
            del self._waiting[request_id]
            self.unended += 1

    def expire(self, before: float) -> bool:
        """Drop rows made before this time; True when there were any."""
        count = len(self._rows)
        while self._rows and next(iter(self._rows.values())).created_at < before:
            self._drop_oldest()
        if not self._rows:
            self._shared.clear()
        return len(self._rows) < count

    def _row(self, logged: LoggedDecision, reward: float) -> Row:
        decision, eligible = logged.decision, logged.decision.agents
        return Row(
            request_id=decision.request_id,
            task_type=decision.task_type,
            chosen=decision.selected_agent,
            propensity=decision.propensity,
            eligible=self._shared.setdefault(eligible, eligible),
            reward=reward,
            cost=logged.cost,
            created_at=decision.created_at,
            task_id=decision.task_id,
            certain=decision.deterministic,
            version=sys.intern(decision.policy_version),
        )

    def _refuse(self, logged: LoggedDecision) -> None:
        """Count it once: the newest decisions are read more than once."""
        if logged.decision.request_id not in self._refused:
            self.refused += 1
            self._refused[logged.decision.request_id] = None
            if len(self._refused) > self._most:
                del self._refused[next(iter(self._refused))]

    def _drop_oldest(self) -> None:
        del self._rows[next(iter(self._rows))]


def _is_of(made: Row | Awaited, version: str, since: float) -> bool:
    return made.created_at >= since and made.version == version


def earned_by_type(rewards: Iterable[tuple[str, float]]) -> list[Earned]:
    """From (task type, reward) of each outcome."""
    sums: dict[str, tuple[int, float]] = {}
    for task_type, reward in rewards:
        rows, total = sums.get(task_type, (0, 0.0))
        sums[task_type] = rows + 1, total + reward
    return [Earned(task_type=name, rows=rows, mean=total / rows) for name, (rows, total) in sorted(sums.items())]


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
            "interval": interval_of(found),
            "effective_sample_size": round(found.effective_sample_size, 1),
            "rows": found.rows,
            "eligible_share": round(eligible_share, 4),
            "mean_cost": _rounded(float(weight[told] @ self.cost[told]) / total) if total > 0 else None,
            "warnings": list(found.warnings),
        }


def interval_of(found: Estimate) -> list[float] | None:
    """Rewards lie in 0..1, so nothing outside can be true."""
    if found.low is None or found.high is None:
        return None
    return [round(min(max(0.0, end), 1.0), 6) for end in (found.low, found.high)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
