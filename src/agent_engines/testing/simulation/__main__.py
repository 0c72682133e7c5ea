"""Run one seed again, or a range of them: `python -m agent_engines.testing.simulation --seed 17 --mode safety --trace`."""

from __future__ import annotations

import argparse
import sys
import time

from .world import Mode, simulate


def main() -> int:
    """Exit code 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m agent_engines.testing.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1, help="how many seeds, from --seed on")
    parser.add_argument("--mode", type=Mode, choices=list(Mode), default=Mode.LIVENESS)
    parser.add_argument("--trace", action="store_true", help="print everything the servers did")
    options = parser.parse_args()
    began = time.perf_counter()
    broken = 0
    for seed in range(options.seed, options.seed + options.count):
        outcome = simulate(seed, options.mode, keep_trace=options.trace)
        for line in outcome.trace:
            print(line)  # noqa: T201 - this is what was asked for
        for violation in outcome.violations:
            print(f"seed {seed}: {violation}")  # noqa: T201
        broken += bool(outcome.violations)
        if options.count == 1:
            told = f"digest {outcome.digest}, {outcome.accepted} accepted, {outcome.executions} executions"
            print(f"seed {seed} {outcome.mode}: {told}")  # noqa: T201
    print(f"{options.count} seeds, {broken} with violations, {time.perf_counter() - began:.1f} s")  # noqa: T201
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
