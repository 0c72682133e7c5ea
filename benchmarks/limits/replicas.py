"""What more replicas of an engine cost or bring: tasks a second and CPU of 1,000 tasks with 1, 2 and 4 of one kind.

    python benchmarks/limits/replicas.py [--engines agent,intelligence,performance,optimizing] [--replicas 1,2,4] [--rounds 3] [--count 10000]

One installation as in `run.py`; the further processes are started beside it as on other machines, the numbers of replicas take
turns. On a machine whose cores are full with one of each, nothing can get faster: what is to be seen there is whether a task
stays as cheap when its work is shared.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

from run import Figures, System, note, process

TARGETS = {"agent": "noop:engine"}
"""What `engines run` is told, where it is not the engine's own name."""
SETTLE_SECONDS = 3.0
"""Until a further process is there: it imports, connects and is heard of."""


def measured(system: System, engine: str, replicas: int, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "agent_engines.cli", "run", TARGETS.get(engine, engine)]
    environment = {
        **system.environment(),
        "POSTGRES_URL": system.postgres,
        "REDIS_URL": system.known["redis_url"],
        "ENGINES_CAPABILITY_KEY": system.key,
    }
    with contextlib.ExitStack() as exits:
        more = [exits.enter_context(process(command, **environment)) for _ in range(replicas - 1)]
        time.sleep(SETTLE_SECONDS)
        gone = [one for one in more if one.poll() is not None]
        if gone:
            sys.exit(f"a replica of {engine} ended with {gone[0].returncode}")
        return system.drive("ours-many", count, [*system.pids, *(one.pid for one in more)])


def show(figures: Figures, engines: list[str], numbers: list[int]) -> None:
    print(
        f"\n{'engine':<14} {'replicas':>8} {'tasks/s':>9} {'CPU ms a task':>14} {'tasks/s to one':>15} {'CPU to one':>11}"
    )
    for engine in engines:
        rates = [statistics.median(figures[f"{engine}*{number}.per_s"]) for number in numbers]
        costs = [statistics.median(figures[f"{engine}*{number}.cpu_per_1000"]) for number in numbers]
        for number, rate, cost in zip(numbers, rates, costs, strict=True):
            print(
                f"{engine:<14} {number:>8} {rate:>9.0f} {cost:>14.3f} {rate / rates[0]:>15.2f} {cost / costs[0]:>11.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="agent,intelligence,performance,optimizing")
    parser.add_argument("--replicas", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=10_000, help="tasks of one measurement")
    options = parser.parse_args()
    engines = options.engines.split(",")
    numbers = [int(number) for number in options.replicas.split(",")]
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with System(Path(folder) / "data") as system:
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
                for engine in engines:
                    for replicas in numbers:
                        note(figures, f"{engine}*{replicas}", measured(system, engine, replicas, options.count))
    show(figures, engines, numbers)


if __name__ == "__main__":
    main()
