"""How honest the doubly robust interval is: coverage, false promotions and power, on a table of answers where the truth is known.

    python benchmarks/off_policy.py TABLE.csv.gz [--rows 5000] [--runs 400] [--seed 0]

The table: task_type, and for each agent a column of quality (0..1) with <agent>_cost beside it. Tasks are drawn from it with
replacement; a logging policy (softmax of each type's mean qualities, mixed with a floor) chooses; the estimator sees only
what was chosen. The true gain of a target is known from the whole table. Three targets: one that is exactly 0.02 better, one
that differs and is worth exactly the same, and one that is 0.02 worse. Every line ends with its verdict.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from routing import Answers, Floats

from agent_engines.testing.evaluation import estimate_gain

GAIN = 0.02
FLOOR = 0.05
TEMPERATURE = 0.15
COVERAGE, FALSE, POWER = (0.93, 0.98), 0.025, 0.65


class Table:
    """Qualities of every agent for every task, and policies that look at the task type alone."""

    def __init__(self, path: Path) -> None:
        answers = Answers(path)
        self.agents, self.types, self.quality = answers.names, answers.types, answers.quality
        names = sorted(set(self.types))
        member = np.array([[kind == name for name in names] for kind in self.types])
        means = np.array([self.quality[member[:, place]].mean(0) for place in range(len(names))])
        self._of_type = means[member.argmax(1)]

    def logging(self) -> Floats:
        """Probability of each agent for each task."""
        shares = np.exp((self._of_type - self._of_type.max(1, keepdims=True)) / TEMPERATURE)
        return FLOOR / len(self.agents) + (1.0 - FLOOR) * shares / shares.sum(1, keepdims=True)

    def greedy(self, sign: float) -> Floats:
        """The best (1) or the worst (-1) agent of each type, always."""
        return np.eye(len(self.agents))[(sign * self._of_type).argmax(1)]

    def value(self, policy: Floats) -> float:
        return float((policy * self.quality).sum(1).mean())


def targets(table: Table) -> dict[float, Floats]:
    """By true gain over the logging policy. Raises SystemExit where the table leaves no room for it."""
    logged = table.logging()
    base = table.value(logged)
    up, down = table.value(table.greedy(1)) - base, table.value(table.greedy(-1)) - base
    if up < GAIN or down > -GAIN:
        raise SystemExit(f"no policy by task type alone is {GAIN} better and another worse here: {up:.4f}, {down:.4f}")

    def mixed(best: float, worst: float) -> Floats:
        return (1.0 - best - worst) * logged + best * table.greedy(1) + worst * table.greedy(-1)

    # Half of the room towards the best, and as much towards the worst as takes it back.
    best = 0.5 / (1.0 - up / down)
    return {GAIN: mixed(GAIN / up, 0.0), 0.0: mixed(best, -best * up / down), -GAIN: mixed(0.0, -GAIN / down)}


def drawn(table: Table, logged: Floats, rows: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """Logs as a router would keep them."""
    at = random.integers(0, len(table.types), rows)
    chosen = (logged[at].cumsum(1) > random.random((rows, 1))).argmax(1)
    candidates = [{"agent": name} for name in table.agents]
    return [
        {
            "context": {"task_type": table.types[task], "task": int(task)},
            "candidates": candidates,
            "agent": table.agents[agent],
            "propensity": float(logged[task, agent]),
            "reward": float(table.quality[task, agent]),
        }
        for task, agent in zip(at, chosen, strict=True)
    ]


def judged(table: Table, gain: float, target: Floats, rows: int, runs: int, seed: int) -> dict[str, float]:
    """Shares of runs: the interval holds the truth; it promises a gain; and the mean of what was estimated."""
    random = np.random.default_rng(seed)
    logged = table.logging()
    covered, promoted, values = 0, 0, list[float]()
    for _ in range(runs):
        logs = drawn(table, logged, rows, random)
        found = estimate_gain(logs, lambda context, candidates: target[context["task"]].tolist())
        low, high = found.interval
        assert low is not None
        assert high is not None
        assert found.value is not None
        covered += low <= gain <= high
        promoted += low > 0.0
        values.append(found.value)
    return {"coverage": covered / runs, "promoted": promoted / runs, "mean": float(np.mean(values))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = Table(given.table)
    for gain, target in targets(table).items():
        found = judged(table, gain, target, given.rows, given.runs, given.seed)
        held = {f"coverage {COVERAGE[0]}..{COVERAGE[1]}": COVERAGE[0] <= found["coverage"] <= COVERAGE[1]}
        if gain > 0.0:
            held[f"power >= {POWER}"] = found["promoted"] >= POWER
        else:
            held[f"false promotions <= {FALSE}"] = found["promoted"] <= FALSE
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
        verdicts = "; ".join(f"{name}: {'reached' if reached else 'NOT reached'}" for name, reached in held.items())
        print(f"true gain {gain:+.2f}  {numbers}  {verdicts}", flush=True)


if __name__ == "__main__":
    main()
