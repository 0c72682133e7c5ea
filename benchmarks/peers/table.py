"""The results as tables of Markdown: medians over runs with their spread. Pure but for `render_into`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .statistics import median, spread

BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"
NONE = "-"
LATENCIES = ("p50", "p95", "p99", "p99_9")
Record = dict[str, Any]


def render_into(page: Path, results: Path) -> None:
    """Replace what stands between the page's marks. Raises ValueError where they are missing."""
    records = [json.loads(line) for line in results.read_text().splitlines() if line]
    text = page.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{page} needs the lines {BEGIN} and {END}")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{head}{BEGIN}\n{render(records)}{END}{tail}")


def render(records: Sequence[Record]) -> str:
    """Every section, ending with a newline."""
    systems = {record["system"]: record for record in records if record["record"] == "system"}
    measures = [record for record in records if record["record"] == "measure"]
    order = sorted(systems, key=lambda name: -(_middle(_of(measures, name, "batch"), "per_second") or 0))
    sections = [
        _machine(records),
        _section("Throughput and cost", _throughput(systems, measures, order)),
        _section("Latency, milliseconds", _latency(systems, measures, order)),
        _section(
            "Open loop: latency from the moment a task was due, p50 / p99 milliseconds", _open(systems, measures, order)
        ),
        _backlog(systems, measures, order),
        _section("What each promises, and how it was set up", _promises(systems, order)),
        _problems(records, systems),
    ]
    return "\n".join(section for section in sections if section)


def _throughput(systems: Record, measures: Sequence[Record], order: Sequence[str]) -> list[list[str]]:
    rows = [
        [
            "system",
            "tasks/s, 1 worker",
            "2 workers",
            "10 ms handlers, tasks/s",
            "CPU s per 1,000",
            "CPU s per 1,000, 32 outstanding",
            "memory MiB: workers",
            "memory MiB: all",
        ]
    ]
    for name in order:
        batch = _of(measures, name, "batch")
        closed = _of(measures, name, "closed-32")
        everything = [one for one in measures if one["system"] == name and one["workers"] == 1]
        rows.append(
            [
                systems[name]["label"],
                _with_spread(batch, "per_second", 0),
                _with_spread(_of(measures, name, "batch", workers=2), "per_second", 0),
                _with_spread(_of(measures, name, "pause-10ms"), "per_second", 0),
                _with_spread(batch, "cpu_per_1000", 2),
                _with_spread(closed, "cpu_per_1000", 2),
                _number(_most_by_run(everything, "workers_mib"), 0),
                _number(_most_by_run(everything, "total_mib"), 0),
            ]
        )
    return rows


def _latency(systems: Record, measures: Sequence[Record], order: Sequence[str]) -> list[list[str]]:
    titles = " / ".join(name.replace("_", ".") for name in LATENCIES)
    rows = [["system", f"1 outstanding: {titles}", f"32 outstanding: {titles}", "fan-out of 1,000, all back: p50"]]
    for name in order:
        cells = [systems[name]["label"]]
        for scenario in ("closed-1", "closed-32"):
            found = _of(measures, name, scenario)
            cells.append(" / ".join(_number(_middle(found, latency), 2) for latency in LATENCIES))
        cells.append(_with_spread(_of(measures, name, "fan-out-1000"), "p50", 0))
        rows.append(cells)
    return rows


def _open(systems: Record, measures: Sequence[Record], order: Sequence[str]) -> list[list[str]]:
    found = {one["scenario"] for one in measures if one["scenario"].startswith("open-")}
    scenarios = sorted(found, key=lambda name: int(name.split("-")[1]))
    if not scenarios:
        return []
    rows = [["system", *(f"{name.split('-')[1]}/s" for name in scenarios)]]
    for name in order:
        cells = [systems[name]["label"]]
        for scenario in scenarios:
            some = _of(measures, name, scenario)
            cells.append(f"{_number(_middle(some, 'p50'), 1)} / {_number(_middle(some, 'p99'), 1)}" if some else NONE)
        rows.append(cells)
    return rows


def _backlog(systems: Record, measures: Sequence[Record], order: Sequence[str]) -> str:
    found = [one for one in measures if one["scenario"].startswith("backlog-")]
    if not found:
        return ""
    rows = [["system", "tasks", "submitted/s", "all results, tasks/s", "CPU s per 1,000", "memory MiB: all"]]
    for name in order:
        some = [one for one in found if one["system"] == name]
        if some:
            submitted = [{"rate": one["tasks"] / one["submit_seconds"]} for one in some]
            rows.append(
                [
                    systems[name]["label"],
                    _number(_middle(some, "tasks"), 0),
                    _with_spread(submitted, "rate", 0),
                    _with_spread(some, "per_second", 0),
                    _with_spread(some, "cpu_per_1000", 2),
                    _number(_middle(some, "total_mib"), 0),
                ]
            )
    return _section("A backlog: everything handed in, then everything taken", rows)


def _promises(systems: Record, order: Sequence[str]) -> list[list[str]]:
    rows = [["system", "durability", "set up", "versions"]]
    rows += [[systems[name][field] for field in ("label", "durability", "settings", "versions")] for name in order]
    return rows


def _machine(records: Sequence[Record]) -> str:
    found = [record for record in records if record["record"] == "machine"]
    if not found:
        return ""
    one = found[-1]
    busy = (
        "**The machine was busy with other work:** compare within this table only. "
        if one["load_before"] > one["cores"]
        else ""
    )
    return (
        f"{one['cores']} cores ({one['processor']}), {one['memory_gib']} GiB, {one['system']}, Python {one['python']}; "
        f"load before the first run {one['load_before']:.1f}; {one['runs']} alternating run{'s' if one['runs'] != 1 else ''}. "
        f"Medians; in brackets the least and the most. {busy}".rstrip()
        + "\n"
    )


def _problems(records: Sequence[Record], systems: Record) -> str:
    lines = [
        f"- {systems[one['system']]['label']}: {one['scenario']} with {one['workers']} worker(s), run {one['run']}: {one['reason']}"
        for one in records
        if one["record"] == "failed"
    ]
    lines += [f"- {one['system']} was left out: {one['reason']}" for one in records if one["record"] == "missing"]
    return "### What failed or was left out\n\n" + "\n".join(lines) + "\n" if lines else ""


def _section(title: str, rows: Sequence[Sequence[str]]) -> str:
    if len(rows) < 2:
        return ""
    lines = [_line(rows[0]), _line(["---"] * len(rows[0])), *(_line(row) for row in rows[1:])]
    return f"### {title}\n\n" + "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _of(measures: Sequence[Record], system: str, scenario: str, workers: int = 1) -> list[Record]:
    wanted = (system, scenario, workers)
    return [one for one in measures if (one["system"], one["scenario"], one["workers"]) == wanted]


def _values(found: Sequence[Record], field: str) -> list[float]:
    return [one[field] for one in found if one[field] is not None]


def _middle(found: Sequence[Record], field: str) -> float | None:
    return median(_values(found, field))


def _most_by_run(found: Sequence[Record], field: str) -> float | None:
    """The middle of the runs' greatest values."""
    return median([max(one[field] for one in found if one["run"] == run) for run in {one["run"] for one in found}])


def _with_spread(found: Sequence[Record], field: str, digits: int) -> str:
    values = _values(found, field)
    ends = spread(values)
    if ends is None:
        return NONE
    middle = _number(median(values), digits)
    return middle if len(values) == 1 else f"{middle} ({_number(ends[0], digits)}-{_number(ends[1], digits)})"


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"
