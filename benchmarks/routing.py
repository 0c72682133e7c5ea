"""How well the adaptive policy routes, on data whose paths are given: tables of answers, multi-class sets, an arrival trace.

    python benchmarks/routing.py --seeds 0 1 --multiclass DIR/*.csv.gz --table FILE.csv.gz --trace FILE.csv.gz

multi-class: last column the class, the others end in |num or |cat; each class is an agent, loss is the share of wrong choices.
table: a task_type column, and for each agent a column of quality (0..1) with, if there is one, <agent>_cost.
trace: t (seconds), context_tokens, generated_tokens; twenty replicas with faults, two routers. `omniscient` knows each task's work
and all faults beforehand and sends it where it will be done first: what is left to gain.
speed: CPU time of one decision and one lesson on this machine, with and without features, collecting garbage as routers do. A machine
whose clock ticks a thousand times a second interrupts one loop in forty of 25 us: what it shows of a loop that does nothing stands beside.

Every line with a bar ends with its verdict.
"""

from __future__ import annotations

import argparse
import csv
import gc
import gzip
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from agent_engines.learning.adaptive import Adaptive, Options
from agent_engines.learning.baselines import RULES
from agent_engines.learning.kernel import COMPILED
from agent_engines.testing.evaluation import AdaptivePolicy, Policy, policy
from agent_engines.testing.fleet import Arrival, Fault, FleetRun, FleetShape, OmniscientRun

Floats = np.ndarray[Any, np.dtype[np.float64]]
Runs = dict[str, list[dict[str, float]]]
OMNISCIENT = "omniscient"
REPLICAS = 20
TASKS = 6000
SHAPES = ((10, 10, 0), (10, 10, 32), (100, 1, 0), (100, 1, 32), (100, 1, 64), (100, 10, 0), (1000, 1, 0))
"""Kinds, replicas of each, features: what a decision's speed is measured on."""


def rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def classes(path: Path) -> tuple[Floats, Floats]:
    found = rows(path)
    *columns, label = found[0]
    parts: list[Floats] = []
    for column in columns:
        values = [row[column] for row in found]
        if column.endswith("|num"):
            parts.append(np.array([float(value or "nan") if value != "?" else np.nan for value in values])[:, None])
        else:
            kinds = sorted(set(values))
            kept = kinds if len(kinds) > 2 else kinds[1:]
            parts.append(np.array([[float(value == kind) for kind in kept] for value in values]))
    names = sorted({row[label] for row in found})
    return np.nan_to_num(np.hstack(parts)), np.array([names.index(row[label]) for row in found])


class LinUcb:
    """The baseline on standardised features: ridge per class, alpha 0 is greedy."""

    def __init__(self, kinds: int, size: int, alpha: float, thompson: bool, seed: int) -> None:
        self.inverse, self.sums = np.stack([np.eye(size)] * kinds), np.zeros((kinds, size))
        self.weights, self.alpha, self.thompson = np.zeros((kinds, size)), alpha, thompson
        self.random = np.random.default_rng(seed)

    def choose(self, row: Floats) -> int:
        mean = self.weights @ row + 1e-9 * self.random.standard_normal(len(self.sums))
        width = self.alpha * np.sqrt(np.maximum((self.inverse @ row) @ row, 0.0))
        return int((mean + width * (self.random.standard_normal(len(mean)) if self.thompson else 1.0)).argmax())

    def learn(self, kind: int, row: Floats, reward: float) -> None:
        inverse = self.inverse[kind]
        gain = inverse @ row
        inverse -= np.outer(gain, gain) / (1.0 + row @ gain)
        self.sums[kind] += reward * row
        self.weights[kind] = inverse @ self.sums[kind]


BASELINES = {"greedy": (0.0, False), "linucb .25": (0.25, False), "linucb 1": (1.0, False), "lints .1": (0.1, True)}


def multiclass(path: Path, seeds: Iterable[int]) -> dict[str, float]:
    """Mean progressive loss of each learner."""
    matrix, labels = classes(path)
    scaled = np.hstack([(matrix - matrix.mean(0)) / (matrix.std(0) + 1e-9), np.ones((len(matrix), 1))])
    kinds = int(labels.max()) + 1
    loss: dict[str, list[float]] = {}
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(labels))
        for name, (alpha, thompson) in BASELINES.items():
            learner, wrong = LinUcb(kinds, scaled.shape[1], alpha, thompson, seed), 0
            for place in order:
                kind = learner.choose(scaled[place])
                wrong += kind != labels[place]
                learner.learn(kind, scaled[place], float(kind == labels[place]))
            loss.setdefault(name, []).append(wrong / len(labels))
        agents = [{"agent": str(kind), "cost": 0.0} for kind in range(kinds)]
        made = played(
            AdaptivePolicy(seed),
            agents,
            [
                ({"task_type": path.stem, "features": matrix[place]}, labels[place] == np.arange(kinds))
                for place in order
            ],
        )
        loss.setdefault("adaptive", []).append(1.0 - float(np.mean([quality for _, quality, _ in made])))
        told = np.array([(confidence, quality) for confidence, quality, _ in made])
        loss.setdefault("ECE", []).append(calibration_error([(told, quality) for told, quality, _ in made]))
        base = told[:, 1].mean()
        brier = np.square(told[:, 0] - told[:, 1]).mean() - np.square(base - told[:, 1]).mean()
        loss.setdefault("Brier - base", []).append(float(brier))
        # What a perfect forecaster with these confidences would show: the bins' own noise.
        ideal = np.random.default_rng(seed).random((9, len(told))) < told[:, 0]
        noise = [calibration_error(list(zip(told[:, 0], row, strict=True))) for row in ideal]
        loss.setdefault("ECE of a perfect one", []).append(float(np.mean(noise)))
    return {name: float(np.mean(values)) for name, values in loss.items()}


def played(chooser: Policy, agents: list[dict[str, Any]], tasks: Iterable[tuple[dict[str, Any], Floats]]) -> list[Any]:
    """(confidence, quality, agent's place) of each decision; the outcome is told before the next."""
    made: list[Any] = []
    places = {agent["agent"]: place for place, agent in enumerate(agents)}
    for number, (context, qualities) in enumerate(tasks):
        asked = {"task_id": str(number), "priority": 3, "deadline_s": None, **context}
        agent, confidence, propensity = chooser.choose(asked, agents)
        quality = float(qualities[places[agent]])
        decision = {"context": asked, "candidates": agents, "agent": agent, "confidence": confidence}
        chooser.learn({**decision, "propensity": propensity}, {"quality": quality, "success": True, "error": False})
        made.append((confidence, quality, places[agent]))
    return made


def calibration_error(pairs: list[tuple[float, float]]) -> float:
    """Expected calibration error over 15 bins of equal mass."""
    ordered = np.array(sorted(pairs, key=lambda pair: pair[0]))
    bins = np.array_split(ordered, 15)
    return float(sum(abs(part[:, 0].mean() - part[:, 1].mean()) * len(part) for part in bins) / len(ordered))


class Answers:
    """A table of answers: what each agent would have made of each task, and what it would have cost."""

    def __init__(self, path: Path) -> None:
        found = rows(path)
        self.names = [name for name in found[0] if f"{name}_cost" in found[0]] or list(found[0])[2:4]
        self.types = [row["task_type"] for row in found]
        self.quality = np.array([[float(row[name]) for name in self.names] for row in found])
        self.cost = np.array([[float(row.get(f"{name}_cost") or 0.0) for name in self.names] for row in found])

    def adaptive(self, order: Floats, seed: int, price: float) -> Floats:
        """The place of the agent the adaptive policy chose for each task of this order."""
        agents = [{"agent": name, "cost": float(self.cost[:, at].mean())} for at, name in enumerate(self.names)]
        tasks = [({"task_type": self.types[at], "features": None}, self.quality[at]) for at in order]
        return np.array([place for *_, place in played(AdaptivePolicy(seed, lam=price), agents, tasks)])

    def gains(self, order: Floats, chosen: Floats, price: float) -> tuple[float, float]:
        """Utility (quality - price * cost) over that of the best single agent in hindsight: all, second half."""
        value = (self.quality - price * self.cost)[order]
        got, half = value[np.arange(len(order)), chosen], len(order) // 2
        return float(got.mean() - value.mean(0).max()), float(got[half:].mean() - value[half:].mean(0).max())


def table(path: Path, seeds: Iterable[int], price: float) -> dict[str, float]:
    """Means over the orders the seeds make, and the worst of them."""
    answers = Answers(path)
    orders = [(seed, np.random.default_rng(seed).permutation(len(answers.types))) for seed in seeds]
    gains = np.array([answers.gains(order, answers.adaptive(order, seed, price), price) for seed, order in orders])
    # Always the best of the whole table: what chance alone takes from a second half that is compared with its own best.
    best = np.full(len(answers.types), (answers.quality - price * answers.cost).mean(0).argmax())
    known = min(answers.gains(order, best, price)[1] for _, order in orders)
    return {
        "gain": gains[:, 0].mean(),
        "gain, second half": gains[:, 1].mean(),
        "worst": gains[:, 1].min(),
        "worst who knows the best": known,
    }


def trace(path: Path, seeds: Iterable[int], load: float) -> Runs:
    """p50, p99, p99.9 (seconds), errors and late (shares) of each policy at one utilisation, one entry for each seed."""
    found = rows(path)
    at = np.array([float(row["t"]) for row in found])
    prompt = 0.0002 * np.array([float(row["context_tokens"]) for row in found])
    work = prompt + 0.03 * np.array([float(row["generated_tokens"]) for row in found])
    hint = prompt + (work - prompt).mean()
    made: Runs = {}
    for seed in seeds:
        arrivals, shape = a_fleet(np.random.default_rng(seed), at, hint, work, load)
        for name in ("adaptive", *RULES):
            run = FleetRun(shape, lambda router, name=name, seed=seed: policy(name, seed=seed * 10 + router, routers=2))
            made.setdefault(name, []).append(run.run(arrivals).row())
        made.setdefault(OMNISCIENT, []).append(OmniscientRun(shape).run(arrivals).row())
    return made


def means(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([one[key] for one in runs])) for key in runs[0]}


def a_fleet(
    random: np.random.Generator, at: Floats, hint: Floats, work: Floats, load: float
) -> tuple[list[Arrival], FleetShape]:
    speeds, slots = random.choice([0.7, 1, 1, 1.5], REPLICAS), random.choice([2, 4, 8], REPLICAS)
    start = int(random.integers(0, len(at) - TASKS))
    part = slice(start, start + TASKS)
    times = at[part] - at[start]
    times *= work[part].sum() / (slots / speeds / (1 + 0.03 * slots)).sum() / load / times[-1]
    arrivals = [Arrival(*map(float, one)) for one in zip(times, hint[part], work[part], strict=True)]
    begins = random.uniform(0, times[-1] * 0.8, 4)
    faults = [
        Fault(int(random.integers(REPLICAS)), float(begin), float(begin + times[-1] * 0.1), kind)
        for begin, kind in zip(begins, ("slow", "failing", "stopped", "failing"), strict=True)
    ]
    return arrivals, FleetShape(speeds=speeds.tolist(), slots=slots.tolist(), faults=faults, routers=2)


def verdict(found: dict[str, float]) -> str:
    """Of one multi-class set."""
    best = min(found[name] for name in BASELINES)
    bars = {
        "loss <= 1.1 best": found["adaptive"] <= 1.1 * best,
        "ECE <= .015": found["ECE"] <= 0.015,
        "Brier <= base": found["Brier - base"] <= 0.0,
    }
    return "; ".join(f"{name}: {'reached' if held else 'NOT reached'}" for name, held in bars.items())


def trace_verdict(runs: Runs, load: float) -> str:
    """Against the best of the others, each figure by itself, in the mean and seed by seed."""
    found = {name: means(some) for name, some in runs.items()}
    others = ("c3", "prequal", "least_loaded", "power_of_two")
    wanted = {"p50": 0.05, "p99": 0.10, "p99.9": 0.35, "errors": 0.80} if load < 0.7 else {"late": 0.0, "errors": 0.35}
    said: list[str] = []
    for key, bar in wanted.items():
        rival = min(others, key=lambda name, key=key: found[name][key])
        best = max(1e-12, found[rival][key])
        less, most = (1.0 - found[name][key] / best for name in ("adaptive", OMNISCIENT))
        won = sum(own[key] < other[key] for own, other in zip(runs["adaptive"], runs[rival], strict=True))
        word = "reached" if less >= bar else "NOT reached"
        said.append(
            f"{key} {less:+.1%} better than {rival}, on {won} of {len(runs[rival])} seeds; "
            f"{most:.0%} who knows all beforehand (bar {bar:.0%}): {word}"
        )
    return "\n".join(f"{'':34} {one}" for one in said)


def speed(kinds: int, replicas: int, size: int, rounds: int = 2000) -> dict[str, float]:
    """Microseconds of one decision and one lesson, of this thread's own CPU time: others may be busy beside it."""
    random = np.random.default_rng(0)
    agents = tuple(
        {"agent": f"{kind}/{one}", "cls": str(kind), "cost": 0.1, "slots": 4}
        for kind in range(kinds)
        for one in range(replicas)
    )
    chooser = Adaptive(Options(), seed=1)
    chose: list[float] = []
    learned: list[float] = []
    for number in range(rounds):
        features = random.normal(size=size) if size else None
        now = number * 0.01
        context = {"task_id": str(number), "task_type": "t", "features": features, "now": now, "work_hint": 1.0}
        begun = time.thread_time()
        choice = chooser.choose(context, agents)
        chose.append(time.thread_time() - begun)
        outcome = {"quality": float(number % 3 > 0), "service": 1.0, "work": 1.0, "now": now}
        begun = time.thread_time()
        chooser.learn(context, agents[choice.position], outcome)
        learned.append(time.thread_time() - begun)
    late, taught = np.array(chose[rounds // 4 :]) * 1e6, np.array(learned[rounds // 4 :]) * 1e6
    return {
        "p50": float(np.percentile(late, 50)),
        "p99": float(np.percentile(late, 99)),
        "p99 of a plain loop as long": interrupted(float(np.percentile(late, 50))),
        "least": float(late.min()),
        "lesson p50": float(np.percentile(taught, 50)),
        "lesson least": float(taught.min()),
        "KiB an agent": len(chooser.values.snapshot()) / 1024 / len(agents),
    }


def interrupted(usual: float, rounds: int = 4000) -> float:
    """99th percentile of a plain loop whose median is `usual` microseconds: what this machine itself adds, by its clock's ticks."""

    def took(turns: int) -> Floats:
        found: list[float] = []
        for _ in range(rounds):
            begun = time.thread_time()
            for _ in range(turns):
                pass
            found.append(time.thread_time() - begun)
        return np.array(found) * 1e6

    turns = 1000
    for _ in range(2):
        turns = max(1, int(turns * usual / float(np.median(took(turns)))))
    return float(np.percentile(took(turns), 99))


def speed_verdict(found: dict[str, float], agents: int) -> str:
    bars = {"p50": 30.0, "p99": 50.0} if agents <= 100 else {"p50": 150.0}
    bars |= {"lesson p50": 25.0, "KiB an agent": 20.0}
    return "; ".join(
        f"{name} <= {bar:g}: {'reached' if found[name] <= bar else 'NOT reached'}" for name, bar in bars.items()
    )


def say(title: str, found: dict[str, float]) -> None:
    print(f"{title:34}", "  ".join(f"{name} {value:.4f}" for name, value in found.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--multiclass", type=Path, nargs="*", default=[])
    parser.add_argument("--table", type=Path, nargs="*", default=[])
    parser.add_argument("--trace", type=Path, nargs="*", default=[])
    parser.add_argument("--speed", action="store_true")
    given = parser.parse_args()
    for path in given.multiclass:
        found = multiclass(path, given.seeds)
        say(path.name, found)
        print(" " * 34, verdict(found), flush=True)
    for path in given.table:
        for price in (0.0, 0.1, 10.0):
            say(f"{path.name} price {price:g}", table(path, given.seeds, price))
    for path in given.trace:
        for load in (0.6, 0.8):
            fleets = trace(path, given.seeds, load)
            for name, runs in fleets.items():
                say(f"{name} at {load:g}", means(runs))
            print(trace_verdict(fleets, load), flush=True)
    if given.speed:
        gc.set_threshold(20_000, 10, 50)
        print("compiled arithmetic" if COMPILED else "numpy's arithmetic", flush=True)
        for kinds, replicas, size in SHAPES:
            found = speed(kinds, replicas, size)
            say(f"{kinds} kinds x {replicas}, {size} features", found)
            print(" " * 34, speed_verdict(found, kinds * replicas), flush=True)


if __name__ == "__main__":
    main()
