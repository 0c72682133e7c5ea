"""The adaptive policy beside Vowpal Wabbit's SquareCB on tables of answers, both seeing the task type alone.

    pip install vowpalwabbit && python benchmarks/squarecb.py TABLE.csv.gz ... [--seeds 0 1 2 3 4]

Prints each policy's gain over the best single agent in hindsight (all tasks, second half, worst second half of the orders), and
the paired difference with its 95 % interval. Tables as for routing.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from routing import Answers, Floats, say

try:
    import vowpalwabbit  # pyright: ignore[reportMissingImports]
except ImportError:
    sys.exit("vowpalwabbit is not installed: pip install vowpalwabbit")

PRICES = (0.0, 0.1, 10.0)
ARGUMENTS = "--cb_explore_adf --squarecb -q ua --quiet"


class SquareCb:
    """One workspace; costs are negative utilities."""

    def __init__(self, names: list[str], seed: int) -> None:
        self._workspace: Any = vowpalwabbit.Workspace(f"{ARGUMENTS} --random_seed {seed}")
        self._random = np.random.default_rng(seed)
        self._names = names

    def choose(self, task_type: str) -> tuple[int, float]:
        shares = np.array(self._workspace.predict(self._example(task_type)))
        shares /= shares.sum()
        chosen = int(self._random.choice(len(shares), p=shares))
        return chosen, float(shares[chosen])

    def learn(self, task_type: str, chosen: int, share: float, utility: float) -> None:
        lines = self._example(task_type)
        lines[1 + chosen] = f"0:{-utility}:{share} {lines[1 + chosen]}"
        self._workspace.learn(lines)

    def _example(self, task_type: str) -> list[str]:
        word = "".join(char if char.isalnum() else "_" for char in task_type)
        return [f"shared |u type={word}", *(f"|a name={name}" for name in self._names)]


def squarecb(answers: Answers, order: Floats, seed: int, price: float) -> Floats:
    """The place of the agent it chose for each task of this order."""
    chooser = SquareCb(answers.names, seed)
    utility = answers.quality - price * answers.cost
    made: list[int] = []
    for at in order:
        chosen, share = chooser.choose(answers.types[at])
        chooser.learn(answers.types[at], chosen, share, float(utility[at, chosen]))
        made.append(chosen)
    return np.array(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    given = parser.parse_args()
    for path in given.tables:
        answers = Answers(path)
        for price in PRICES:
            ours: list[tuple[float, float]] = []
            theirs: list[tuple[float, float]] = []
            for seed in given.seeds:
                order = np.random.default_rng(seed).permutation(len(answers.types))
                ours.append(answers.gains(order, answers.adaptive(order, seed, price), price))
                theirs.append(answers.gains(order, squarecb(answers, order, seed, price), price))
            for name, gains in (("adaptive", np.array(ours)), ("squarecb", np.array(theirs))):
                means = gains.mean(0)
                said = {"gain": means[0], "second half": means[1], "worst second half": gains[:, 1].min()}
                say(f"{path.name} price {price:g} {name}", said)
            difference = np.array(ours)[:, 0] - np.array(theirs)[:, 0]
            spread = 1.96 * difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else float("nan")
            say("", {"adaptive - squarecb": difference.mean(), "+-": spread})


if __name__ == "__main__":
    main()
