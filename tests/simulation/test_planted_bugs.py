"""The checker is only worth something if it finds what is wrong: every planted bug must be caught, within few seeds."""

from __future__ import annotations

import pytest

from agent_engines.testing.simulation.world import Mode, simulate
from planted_bugs import PLANTED

SEEDS = 200
"""A bug that hides longer than this from the simulation would hide from a nightly run of it too often."""
RULES = {
    "the recorder acknowledges before the commit": "acknowledged before commit",
    "the agent acknowledges before its report is durable": "acknowledged before report",
    "the reporter drops what the bus did not take": "acknowledged before report",
    "the reconciler is off": "stuck",
    "a task is withdrawn after an unanswered publish": "lost",
    "idempotency keys are forgotten": "two tasks for a key",
    "failures of superseded generations count": "stale end",
    "a terminal row can be overwritten": "end changed",
    "a repeated report is written again": "end changed",
    "a cancellation is confirmed and not written": "not cancelled",
    "a redispatch keeps its generation": "stuck",
    "a retry burns two attempts": "given up early",
    "a full queue drops its oldest": "dropped",
    "each failing leg of a hedge starts a retry": "retried beside a leg",
    "the loser of a hedge overwrites the winner": "end changed",
    "one acceptance in twenty is not committed": "lost",
}


@pytest.mark.parametrize("bug", PLANTED)
def test_the_checker_catches(bug: str) -> None:
    for seed in range(1, SEEDS + 1):
        found = simulate(seed, Mode.LIVENESS, PLANTED[bug]).violations
        if any(violation.startswith(f"{RULES[bug]}:") for violation in found):
            print(f"{bug}: caught with seed {seed} of at most {SEEDS}")
            return
    pytest.fail(f"{bug}: not caught in {SEEDS} seeds")


def test_twelve_bugs_and_four_more_are_planted() -> None:
    assert len(PLANTED) == 16
    assert set(RULES) == set(PLANTED)
