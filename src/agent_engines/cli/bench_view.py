"""What `engines bench` shows: progress while it measures, a table for people, one object for programs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from agent_engines.domain.redaction import redacted_text
from agent_engines.testing.bench.measurement import Measurement
from agent_engines.testing.bench.plan import Plan
from agent_engines.testing.bench.target import Target

from .tables import console, show_details, show_rows

COLUMNS = ("load", "tasks", "acc/s", "done/s", "accept", "p50", "p95", "p99", "max", "refused")
CAPTION = "tasks a second, and milliseconds until accepted (p50) and until ended"
"""Short, so that the table fits a terminal of 80 columns."""
LOOK_SECONDS = 0.2
UNKNOWN = "not to be seen from here"


def report(
    target: Target, measurement: Measurement, durable: Mapping[str, Any], *, interrupted: bool
) -> dict[str, Any]:
    """The `--json` form; `loads` as in testing/bench/tally.py, `tasks` all that were sent, warm-up and probes too."""
    tallies = measurement.all
    accepted = sum((tally.durability for tally in tallies), Counter[str]())
    return {
        "url": redacted_text(target.url),
        "way": target.way,
        "own_installation": target.own,
        "interrupted": interrupted,
        "complete": measurement.complete,
        "tasks": sum(tally.sent for tally in tallies),
        "refused": sum(tally.refused.total() for tally in tallies),
        "failed": sum(tally.bad for tally in tallies),
        "under_way": sum(tally.under_way for tally in tallies),
        "durability": {"acceptances": dict(accepted), **durable},
        "loads": measurement.figures(),
    }


def show(data: Mapping[str, Any]) -> None:
    """For a person."""
    whose = "an installation of our own, removed afterwards" if data["own_installation"] else data["url"]
    show_details({"system": whose, "tasks": f"{data['task_type']}, {data['bytes']:,} bytes, over {data['way']}"})
    console().print(f"\n{CAPTION}")
    show_rows(COLUMNS, [_row(load) for load in data["loads"]], empty="nothing was measured")
    for line in [line for load in data["loads"] for line in _troubles(load)]:
        console().print(line, style="yellow", markup=False)
    if not data["complete"] and not data["interrupted"]:
        console().print("no further load was put on a system that does not answer or end its tasks", style="yellow")
    _show_cpu(data["loads"])
    console().print()
    show_details(_durability(data["durability"]))
    if data["interrupted"]:
        console().print(f"interrupted; {data['under_way']:,} tasks were under way and go on", style="yellow")


@asynccontextmanager
async def watched(measurement: Measurement, plan: Plan) -> AsyncGenerator[None]:
    """A line on stderr that says what is being measured, when somebody looks at it."""
    if not sys.stderr.isatty():
        yield
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[ended]:,} done"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        looking = asyncio.ensure_future(_look(measurement, plan, progress))
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


async def _look(measurement: Measurement, plan: Plan, progress: Progress) -> None:
    line = progress.add_task("", total=len(plan.shapes), ended=0)
    while True:
        tallies = list(measurement.tallies.values())
        running = tallies[-1] if tallies and not tallies[-1].ended else None
        done = sum(bool(tally.ended) for tally in tallies)
        if running is not None:
            done += min(1.0, (time.perf_counter() - running.begun) / plan.share)
        ended = measurement.beside.done if running is None else running.done
        progress.update(line, description=measurement.stage, completed=done, ended=ended)
        await asyncio.sleep(LOOK_SECONDS)


def _row(load: Mapping[str, Any]) -> list[str]:
    latency = load["latency_ms"]
    rates = [_count(load["accepted_per_s"]), _count(load["done_per_s"])]
    times = [load["accept_ms"]["p50"], *(latency[name] for name in ("p50", "p95", "p99", "max"))]
    return [_name(load), _count(load["sent"]), *rates, *map(_time, times), _count(sum(load["refused"].values()))]


def _name(load: Mapping[str, Any]) -> str:
    match load["load"]:
        case "burst":
            return f"burst {load['tasks']:,}"
        case "open":
            return f"open {load['rate']:g}/s"
        case _:
            return f"{load['outstanding']:,} caller{'s' if load['outstanding'] > 1 else ''}"


def _troubles(load: Mapping[str, Any]) -> list[str]:
    said = [f"{count:,} {how}" for how, count in (load["refused"] | load["failed"]).items()]
    if load["unsent"]:
        said.append(f"{load['unsent']:,} were due and not sent, and count as slower than every other")
    return [f"{_name(load)}: {'; '.join(said)}"] if said else []


def _show_cpu(loads: Sequence[Mapping[str, Any]]) -> None:
    measured = [load for load in loads if load["cpu_s_per_1000"]]
    names = sorted({name for load in measured for name in load["cpu_s_per_1000"]})
    rows = [[name, *(_cpu(load["cpu_s_per_1000"].get(name)) for load in measured)] for name in names]
    if not rows:
        return
    if len(names) > 1:
        rows.append(["all", *(_cpu(sum(load["cpu_s_per_1000"].values())) for load in measured)])
    console().print("\nCPU seconds per 1,000 tasks done")
    show_rows(("process", *map(_name, measured)), rows)
    if len(names) == 1:
        console().print("of the system's processes none can be seen from here", style="dim")


def _durability(durable: Mapping[str, Any]) -> dict[str, Any]:
    postgres, bus = durable["postgres"], durable["bus"] or {}
    copies = None if bus.get("copies") is None else f"{bus['copies']} of each stream"
    synced = None if bus.get("synced") is None else f"synced to disk {bus['synced']}"
    return {
        "accepted as": ", ".join(f"{kind} {count:,}" for kind, count in durable["acceptances"].items()),
        "PostgreSQL": ", ".join(f"{name} {value}" for name, value in (postgres or {}).items())
        or f"{UNKNOWN}; POSTGRES_URL tells where it is",
        "bus": ", ".join(filter(None, (copies, synced))) or UNKNOWN,
        **({"data on": durable["filesystem"]} if durable["filesystem"] else {}),
    }


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def _time(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:,.1f}"


def _cpu(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3f}"
