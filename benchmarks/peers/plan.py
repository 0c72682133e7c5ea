"""What is measured: scenarios of a full and of a quick run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.workloads.shapes import PAUSE

RATES = (50, 200, 1000, 4000)
"""Tasks a second of the open loop."""
ROOM = 0.7
"""An open loop is run at rates up to this share of what the same session's batch reached; above it, queues grow for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`workers` processes, one shape of load. `limit` seconds until it is given up; `rate` for open loops."""

    name: str
    shape: str
    workers: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)
    limit: float = 90.0
    rate: float | None = None

    def fits(self, batch_rate: float | None) -> bool:
        """Whether a system that took `batch_rate` tasks a second in a batch may be given this."""
        return self.rate is None or (batch_rate is not None and self.rate <= ROOM * batch_rate)


BATCH = "batch"


def scenarios(seconds: float, *, most: int = 100_000, backlog: int = 0) -> list[Scenario]:
    """All of them, in order: those of one worker first. `seconds`: about how long each; `backlog` tasks, 0: none."""
    found = [
        Scenario(name=BATCH, shape="batch", arguments={"seconds": seconds, "most": most}),
        Scenario(name="closed-1", shape="closed", arguments={"outstanding": 1, "seconds": seconds}),
        Scenario(name="closed-32", shape="closed", arguments={"outstanding": 32, "seconds": seconds}),
        Scenario(name="fan-out-1000", shape="fan_out", arguments={"width": 1000, "seconds": seconds}),
        Scenario(name="pause-10ms", shape="batch", arguments={"seconds": seconds, "most": most, "kind": PAUSE}),
    ]
    found += [
        Scenario(name=f"open-{rate}", shape="open_loop", arguments={"rate": rate, "seconds": seconds}, rate=rate)
        for rate in RATES
    ]
    if backlog:
        limit = 60 + backlog / 200
        found.append(Scenario(name=f"backlog-{backlog}", shape="backlog", arguments={"tasks": backlog}, limit=limit))
    found.append(Scenario(name="batch", shape="batch", workers=2, arguments={"seconds": seconds, "most": most}))
    return found
