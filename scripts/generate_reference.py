"""Write the reference pages that are made from the code: configuration and metrics. A test compares them."""

from __future__ import annotations

from pathlib import Path

from agent_engines.adapters.telemetry.metric_table import METRICS
from agent_engines.config.reference import reference

PAGES = Path(__file__).resolve().parent.parent / "docs" / "reference"

METRICS_HEAD = """\
# Metrics

<!-- Made by `make docs` from the table of metrics; a test compares it. -->

Every engine answers `GET /metrics` in Prometheus text. Labels are bounded by the size of the fleet: there are no task ids.

`agent_tasks_total` and `agent_task_duration_seconds` are on two kinds of pages: an agent's own tells what its process did, attempts
included; a router's tells what it recorded, each task once and for the whole fleet (over several routers: their sum). Sum over one kind, not both.

| name | kind | labels | meaning |
| --- | --- | --- | --- |
"""


def metrics_page() -> str:
    """One row for each metric of the package."""
    rows = (
        f"| `{name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels) or 'none'} | {metric.help} |\n"
        for name, metric in METRICS.items()
    )
    return METRICS_HEAD + "".join(rows)


PAGES_BY_NAME = {"configuration.md": reference, "metrics.md": metrics_page}

if __name__ == "__main__":
    for file, write in PAGES_BY_NAME.items():
        (PAGES / file).write_text(write())
