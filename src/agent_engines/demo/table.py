"""The table at the end of the demo, for people; `results.summarize` has the same numbers for programs."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

DASH = "–"


def end_table(summary: dict[str, Any]) -> RenderableType:
    """What `results.summarize` counted: agents, then totals, then what it compares with."""
    parts: list[RenderableType] = [_agents(summary), Text(), _totals(summary)]
    if summary["references"] is not None:
        parts += [Text(), _compared(summary), Text(), _earned(summary)]
    return Group(*parts)


def _agents(summary: dict[str, Any]) -> Table:
    table = Table(title="Who did the work", title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("agent", no_wrap=True)
    for name in ("tasks", "share", "quality", "cost/task", "p50", "p95", "p99", "work p50"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in summary["agents"]:
        table.add_row(row["agent"], f"{row['tasks']:,}", _percent(row["share"]), *_numbers(row))
    table.add_section()
    done = sum(row["tasks"] for row in summary["agents"])
    table.add_row("all", f"{done:,}", _percent(1.0 if done else None), *_numbers(summary), style="bold")
    return table


def _numbers(row: dict[str, Any]) -> list[str]:
    times = [_milliseconds(row["latency_ms"][name]) for name in ("p50", "p95", "p99")]
    return [_percent(row["quality"]), _money(row["cost"]), *times, _milliseconds(row["work_ms"]["p50"])]


def _totals(summary: dict[str, Any]) -> Text:
    rate = summary["throughput_per_s"]
    speed = DASH if rate is None else f"{rate:,.0f} tasks/s"
    lost = summary["lost"]
    lines = [
        f"tasks       {summary['tasks']:,} sent, {summary['terminal']:,} ended in {summary['seconds']:.1f} s, {speed}",
        "ended as    " + (", ".join(f"{n:,} {status}" for status, n in sorted(summary["by_status"].items())) or DASH),
        f"cost        {_money(summary['total_cost'])} in all",
    ]
    if summary["refused"]:
        why = f" ({summary['refusals'][0]})" if summary["refusals"] else ""
        lines.append(f"refused     {summary['refused']:,}{why}")
    text = Text("\n".join(lines) + "\n")
    text.append(f"lost        {lost:,}", style="bold green" if lost == 0 else "bold red")
    return text


def _compared(summary: dict[str, Any]) -> Table:
    known = summary["references"]
    table = Table(title="On the same tasks", title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("chooser", no_wrap=True)
    for name in ("quality", "cost/task"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("this run", _percent(summary["quality"]), _money(summary["cost"]), style="bold")
    for one in sorted(known["single"], key=lambda one: -one["quality"]):
        best = " (best single agent)" if one["name"] == known["best_single"]["name"] else ""
        table.add_row(f"always {one['name']}{best}", _percent(one["quality"]), _money(one["cost"]))
    random, oracle = known["random"], known["oracle"]
    table.add_row("any agent at random", _percent(random["quality"]), _money(random["cost"]))
    table.add_row("oracle, knowing the answers", _percent(oracle["quality"]), _money(oracle["cost"]), style="dim")
    return table


def _earned(summary: dict[str, Any]) -> Text:
    """What choosing was worth, in words, and how it got better on the way."""
    known, quality, cost = summary["references"], summary["quality"], summary["cost"]
    text = Text("What routing earned\n", style="bold")
    lines: list[str] = []
    last = summary["curve"][-1] if summary["curve"] else {}
    for what, part in (("all tasks", {"cost": cost, **known}), ("the last fifth", last)):
        mixed, spent = part.get("equal_quality_cost"), part.get("cost")
        if mixed and spent is not None:
            lines.append(
                f"{what}: the same quality by a blind mix of agents costs {_money(mixed)}, here {_money(spent)}, "
                f"{_change(spent, mixed)}"
            )
    for name, what in (("best_single", "the best single agent"), ("random", "any agent at random")):
        one = known[name]
        if quality is not None and cost is not None and one["cost"] > 0:
            points = 100 * (quality - one["quality"])
            lines.append(f"against {what}: {points:+.1f} points of quality, {_change(cost, one['cost'])} cost")
    curve = ", ".join(f"{_percent(part['quality'])} at {_money(part['cost'])}" for part in summary["curve"])
    lines.append(f"learning curve, a fifth of the tasks each: {curve or DASH}")
    text.append("\n".join(lines), style="not bold")
    return text


def _change(value: float, before: float) -> str:
    return f"{100 * (value / before - 1):+.0f} %"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"


def _money(value: float | None) -> str:
    return DASH if value is None else f"{value:.4g}"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return DASH
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"
