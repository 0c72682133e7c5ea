"""Measure our system and its peers, or write the table from what was measured.

python -m benchmarks.peers run --quick
python -m benchmarks.peers run --systems ours_bus,taskiq --scenarios batch,closed-32 --runs 3 --seconds 5
python -m benchmarks.peers render
python -m benchmarks.peers list
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop

from .environments import HERE, ROOT, known_systems
from .plan import Scenario, scenarios
from .runner import Journal, Runner
from .table import render_into

RESULTS = HERE / "results.jsonl"
PAGE = ROOT / "docs" / "explain" / "benchmarks.md"
HOME = ROOT / ".venv-peers"
FULL_RUNS, FULL_SECONDS = 5, 6.0
QUICK_RUNS, QUICK_SECONDS, QUICK_MINUTES = 1, 2.0, 13.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="measure; results go to --out")
    run.add_argument("--quick", action="store_true", help=f"{QUICK_RUNS} run of {QUICK_SECONDS:g} s a scenario")
    run.add_argument("--runs", type=int, help=f"alternating runs ({FULL_RUNS})")
    run.add_argument("--seconds", type=float, help=f"about how long a scenario lasts ({FULL_SECONDS:g})")
    run.add_argument("--systems", help="names, separated by commas; all without it")
    run.add_argument("--scenarios", help="names, separated by commas; all without it")
    run.add_argument("--minutes", type=float, help=f"begin nothing later than that ({QUICK_MINUTES:g} with --quick)")
    run.add_argument("--workers", type=int, choices=(1, 2), help="only scenarios of so many worker processes")
    run.add_argument(
        "--backlog", type=int, default=0, help="also this many tasks at once (1000000); slow ones take long"
    )
    run.add_argument("--environments", type=Path, default=HOME, help="where the peers are installed (.venv-peers)")
    run.add_argument("--out", type=Path, default=RESULTS)
    run.add_argument("--logs", type=Path, help="folder for what the systems print; a new one without it")
    render = actions.add_parser("render", help="write the tables into docs/explain/benchmarks.md")
    render.add_argument("--results", type=Path, default=RESULTS)
    render.add_argument("--page", type=Path, default=PAGE)
    actions.add_parser("list", help="the systems and scenarios there are")
    options = parser.parse_args()
    if options.action == "run":
        measure(options)
    elif options.action == "render":
        render_into(options.page, options.results)
    else:
        print("systems:  ", " ".join(known_systems()))
        print("scenarios:", " ".join(dict.fromkeys(one.name for one in scenarios(1.0))))


def measure(options: argparse.Namespace) -> None:
    seconds = options.seconds or (QUICK_SECONDS if options.quick else FULL_SECONDS)
    runs = options.runs or (QUICK_RUNS if options.quick else FULL_RUNS)
    minutes = options.minutes or (QUICK_MINUTES if options.quick else None)
    systems = _chosen(options.systems, known_systems(), "--systems")
    every = scenarios(seconds, backlog=options.backlog)
    names = _chosen(options.scenarios, list(dict.fromkeys(one.name for one in every)), "--scenarios")
    wanted: list[Scenario] = [one for one in every if one.name in names and options.workers in (None, one.workers)]
    logs = options.logs or Path(tempfile.mkdtemp(prefix="bench-logs-"))
    logs.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"results: {options.out}\nlogs of the systems: {logs}\n")
    runner = Runner(Journal(options.out), logs=logs, home=options.environments, minutes=minutes)
    try:
        uvloop.run(_until_told_to_end(runner.run(systems, wanted, runs)))
    except asyncio.CancelledError:
        sys.exit("told to end: what was measured so far is in the results")


async def _until_told_to_end(work: Coroutine[Any, Any, None]) -> None:
    """SIGTERM ends servers and systems in order, as Ctrl-C does."""
    job = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, job.cancel)
    await job


def _chosen(text: str | None, known: list[str], option: str) -> list[str]:
    wanted = known if text is None else text.split(",")
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"{option}: {', '.join(unknown)} is not known; there are {', '.join(known)}")
    return wanted


if __name__ == "__main__":
    main()
