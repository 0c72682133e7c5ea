"""Counting: what a run of the demo came to, agent by agent, and what it is compared with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agent_engines.domain.percentiles import nearest_rank
from agent_engines.domain.tasks import TaskStatus, TaskView

PARTS = 5
"""Parts of the learning curve."""


class Reference(msgspec.Struct, frozen=True):
    """Mean quality and mean cost of one way to choose; `name` is the agent, or "oracle"."""

    name: str
    quality: float
    cost: float


class References(msgspec.Struct, frozen=True):
    """Every agent alone, and the oracle: the cheapest of the best for each task. Nobody can know it beforehand."""

    single: tuple[Reference, ...]
    oracle: Reference

    @classmethod
    def of(cls, quality: Mapping[str, Sequence[float]], cost: Mapping[str, Sequence[float]]) -> References:
        """From what each agent would reach and cost on each task, in the same order. Needs one agent and one task."""
        agents = list(quality)
        tasks = len(quality[agents[0]])
        best = [min(agents, key=lambda agent: (-quality[agent][task], cost[agent][task])) for task in range(tasks)]
        return cls(
            tuple(Reference(agent, _mean(quality[agent]), _mean(cost[agent])) for agent in agents),
            Reference(
                "oracle",
                _mean([quality[agent][task] for task, agent in enumerate(best)]),
                _mean([cost[agent][task] for task, agent in enumerate(best)]),
            ),
        )

    @property
    def random(self) -> Reference:
        """Any agent alike."""
        return Reference(
            "random", _mean([one.quality for one in self.single]), _mean([one.cost for one in self.single])
        )

    def cost_of(self, quality: float) -> float | None:
        """What the cheapest mix of two agents costs that reaches this quality by chance alone; None: no mix does."""
        found = [one.cost for one in self.single if one.quality >= quality]
        for better in self.single:
            for worse in self.single:
                if better.quality > quality > worse.quality:
                    share = (quality - worse.quality) / (better.quality - worse.quality)
                    found.append(share * better.cost + (1.0 - share) * worse.cost)
        return min(found, default=None)

    @property
    def best_single(self) -> Reference:
        """The best on average, the cheaper one of equals."""
        return max(self.single, key=lambda one: (one.quality, -one.cost))


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. `terminal` is counted in the ledger, never taken from `views`."""

    submitted: int
    accepted: int
    terminal: int
    seconds: float
    views: tuple[TaskView, ...]
    refusals: tuple[str, ...] = ()


def summarize(run: Run, references: References | None = None) -> dict[str, Any]:
    """The `--json` form.

    {"tasks": submitted, "refused", "terminal", "lost": accepted - terminal, "by_status": {status: n}, "seconds",
     "throughput_per_s", "quality", "cost", "total_cost", "latency_ms": {"p50", "p95", "p99"},
     "curve": [{"tasks", "quality", "cost", "equal_quality_cost"}] a fifth of the tasks each, in the order they were sent,
     "agents": [{"agent", "tasks", "share", "quality", "cost", "latency_ms": {..}, "work_ms": {..}}],
     "references": {"single": [{"name", "quality", "cost"}], "best_single": {..}, "random": {..}, "oracle": {..},
                    "equal_quality_cost": what a blind mix of agents with this run's quality costs a task | null} | null}
    Latency is from submission to outcome as the ledger has it, work is the handler's own time; `quality` counts a task
    whose handler told none as 1 or 0 by its success. Means and percentiles are null when there is nothing to count.
    """
    by_agent: dict[str, list[TaskView]] = {}
    for view in run.views:
        by_agent.setdefault(view.selected_agent or "nobody", []).append(view)
    agents = [
        {"agent": agent, "tasks": len(views), "share": len(views) / len(run.views), **_figures(views)}
        for agent, views in sorted(by_agent.items())
    ]
    return {
        "tasks": run.submitted,
        "refused": run.submitted - run.accepted,
        "refusals": list(run.refusals),
        "terminal": run.terminal,
        "lost": run.accepted - run.terminal,
        "by_status": dict(Counter(view.status.value for view in run.views)),
        "seconds": run.seconds,
        "throughput_per_s": run.terminal / run.seconds if run.seconds > 0 else None,
        **_figures(run.views),
        "total_cost": math.fsum(view.cost or 0.0 for view in run.views),
        "curve": _curve(run.views, references),
        "agents": agents,
        "references": None if references is None else _references(references, _figures(run.views)["quality"]),
    }


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Nearest rank: p50, p95, p99 are values that occurred."""
    ordered = sorted(values)
    return {name: nearest_rank(ordered, share) for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))}


def _figures(views: Sequence[TaskView]) -> dict[str, Any]:
    qualities = [_quality(view) for view in views if view.status is not TaskStatus.CANCELLED]
    costs = [view.cost for view in views if view.cost is not None]
    latency = [1000 * (v.completed_at - v.submitted_at) for v in views if v.completed_at is not None]
    work = [view.execution_time_ms for view in views if view.execution_time_ms is not None]
    return {
        "quality": _mean(qualities) if qualities else None,
        "cost": _mean(costs) if costs else None,
        "latency_ms": percentiles(latency),
        "work_ms": percentiles(work),
    }


def _quality(view: TaskView) -> float:
    if view.quality is not None:
        return view.quality
    return 1.0 if view.status is TaskStatus.SUCCESS else 0.0


def _curve(views: Sequence[TaskView], references: References | None) -> list[dict[str, Any]]:
    """How the choices got on while they were learned from."""
    ordered = sorted(views, key=lambda view: view.submitted_at)
    size = math.ceil(len(ordered) / PARTS)
    parts = [ordered[at : at + size] for at in range(0, len(ordered), size)] if size else []
    found: list[dict[str, Any]] = []
    for part in parts:
        figures = _figures(part)
        quality = figures["quality"]
        mixed = None if references is None or quality is None else references.cost_of(quality)
        found.append({"tasks": len(part), "quality": quality, "cost": figures["cost"], "equal_quality_cost": mixed})
    return found


def _references(references: References, quality: float | None) -> dict[str, Any]:
    return {
        "random": msgspec.structs.asdict(references.random),
        "equal_quality_cost": None if quality is None else references.cost_of(quality),
        "single": [msgspec.structs.asdict(one) for one in references.single],
        "best_single": msgspec.structs.asdict(references.best_single),
        "oracle": msgspec.structs.asdict(references.oracle),
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
