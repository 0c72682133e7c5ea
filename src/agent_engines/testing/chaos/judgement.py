"""The verdict of a fault run, counted in the ledger: everything accepted has one end, and the history contradicts nothing."""

from __future__ import annotations

import asyncio
import gzip
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from agent_engines.adapters.postgres.evidence import EvidenceRow, LedgerEvidence
from agent_engines.client.plain_http import HttpFailure, plain_http
from agent_engines.domain.errors import Unavailable
from agent_engines.testing.history import Execution, History, Row, Violation, check

from .engine import STARTS
from .load import Load
from .nemesis import Nemesis, Running
from .versions import versions

SETTLE_SECONDS = 60.0
"""Everything has ended a lease and a minute after the last fault (RELIABILITY R1)."""
LEASE_SECONDS = 30.0
"""What an installation has when nobody said otherwise."""
POLL_SECONDS = 0.25
HISTORIES = Path(tempfile.gettempdir()) / "agent-engines-chaos"
"""Where the history of a failed run is kept."""


@dataclass
class Verdict:
    """Counts of one run, all of them from the ledger except what the clients were told."""

    test: str
    accepted: int
    recorded: int
    lost: int
    duplicated: int
    late: int
    violations: list[Violation]
    statuses: dict[str, int]
    reruns: int
    settled_seconds: float
    answers: dict[str, int]
    faults: dict[str, int]
    reports: dict[str, float]
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    seed: int | str | None = None
    versions: dict[str, str] = field(default_factory=dict[str, str])
    history: str | None = None
    """The file the history was kept in."""

    @property
    def passed(self) -> bool:
        return not (self.lost or self.duplicated or self.violations) and self.accepted == self.recorded > 0

    def summary(self) -> dict[str, Any]:
        """The report line as data."""
        return {
            "test": self.test,
            "seed": self.seed,
            "versions": self.versions,
            "accepted": self.accepted,
            "recorded": self.recorded,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "stale": int(self.reports.get("stale", 0)),
            "late": self.late,
            "faults": self.faults,
            "statuses": self.statuses,
            "reruns": self.reruns,
            "answers": self.answers,
            "reports": self.reports,
            "settled_s": round(self.settled_seconds, 1),
            **self.more,
            "violations": [str(one) for one in self.violations[:5]],
            "history": self.history,
            "verdict": "pass" if self.passed else "FAIL",
        }

    def line(self) -> str:
        return msgspec.json.encode(self.summary()).decode()

    def say(self) -> None:
        """One line of JSON on standard output."""
        sys.stdout.write(f"\n{self.line()}\n")
        sys.stdout.flush()


async def verdict(
    test: str,
    system: Running,
    load: Load,
    nemesis: Nemesis,
    *,
    settle: float = SETTLE_SECONDS + LEASE_SECONDS,
    seed: int | str | None = None,
    alone: bool = True,
) -> Verdict:
    """Wait until every accepted task has its end, at most `settle` seconds, then count and check the history.

    `alone` False: others use this system too, only rows of this load are looked at. The history of a run that failed is
    kept in a file. Raises Unavailable when the ledger cannot be read for `settle` seconds.
    """
    ids = list(load.accepted.values())
    evidence = await _connected(system.endpoints["postgres_url"], settle)
    try:
        seconds = await _settled(evidence, ids, settle)
        found = await evidence.rows(prefix=None if alone else f"{load.prefix}-", task_ids=ids)
        recorded, doubles = await evidence.ended(ids)
        made_on = await versions(system.endpoints.get("nats_url"), await evidence.version())
    finally:
        await evidence.close()
    rows = [_row(row) for row in found]
    executions = await asyncio.to_thread(starts, system.data_dir)
    mine = set(ids)
    # Rows of ours may be more than was accepted: a commit whose answer never came back runs as well.
    judged = mine | {row.task_id for row in rows}
    noted = None if executions is None else [one for one in executions if alone or one.task_id in judged]
    history = History(calls=load.calls, rows=rows, executions=noted)
    keys = Counter(row.key for row in rows if row.key is not None)
    counted = Verdict(
        test=test,
        accepted=len(mine),
        recorded=recorded,
        lost=len(mine - {row.task_id for row in rows if row.end is not None and row.submitted}),
        duplicated=doubles + sum(count - 1 for count in keys.values()) + len(ids) - len(mine),
        late=sum(1 for row in rows if row.end_generation is not None and row.end_generation < row.generation),
        violations=check(history),
        statuses=dict(Counter(str(row.end) for row in rows if row.task_id in mine)),
        reruns=len(noted or ()) - len({(one.task_id, one.attempt) for one in noted or ()}),
        settled_seconds=seconds,
        answers=dict(load.answers),
        faults=dict(nemesis.faults),
        reports=await reports(system.url),
        seed=seed,
        versions=made_on,
    )
    if not counted.passed:
        counted.history = await asyncio.to_thread(keep, history, test, seed)
    return counted


def keep(history: History, test: str, seed: int | str | None) -> str:
    """Write a history as gzipped JSON; returns the path."""
    HISTORIES.mkdir(parents=True, exist_ok=True)
    safe = "".join(char if char.isalnum() else "-" for char in f"{test}-{seed}")
    path = HISTORIES / f"{safe}-{Random().getrandbits(32):08x}.json.gz"
    path.write_bytes(gzip.compress(msgspec.json.encode(history)))
    return str(path)


def starts(directory: Path) -> list[Execution] | None:
    """What handlers noted when they began; None where they could not note anything."""
    path = directory / STARTS
    if not path.exists():
        return None
    lines = path.read_text().splitlines()
    return [Execution(generation=0, **msgspec.json.decode(line)) for line in lines]


async def reports(url: str) -> dict[str, float]:
    """What became of reports, by verdict, as the router counts since its last start; empty when it does not say."""
    try:
        async with plain_http(url, seconds=10) as http:
            lines = (await http.get("/metrics")).text.splitlines()
    except HttpFailure:
        return {}
    found = [line for line in lines if line.startswith("reports_recorded_total{")]
    return {line.split('verdict="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1]) for line in found}


async def _connected(dsn: str, seconds: float) -> LedgerEvidence:
    """The database may just be on its way back."""
    end = time.monotonic() + seconds
    while True:
        try:
            return await LedgerEvidence.connect(dsn)
        except Unavailable:
            if time.monotonic() > end:
                raise
        await asyncio.sleep(POLL_SECONDS)


async def _settled(evidence: LedgerEvidence, ids: list[str], seconds: float) -> float:
    """How long it took until all had ended; `seconds` when they did not."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            ended, _ = await evidence.ended(ids)
        except Unavailable:
            ended = -1
        if ended >= len(ids):
            break
        # Counting a hundred thousand rows four times a second would slow down what is waited for.
        await asyncio.sleep(max(POLL_SECONDS, len(ids) / 50_000))
    return time.monotonic() - began


def _row(row: EvidenceRow) -> Row:
    return Row(
        task_id=row.task_id,
        request_id=row.nonce,
        key=row.key,
        submitted=row.submitted,
        generation=row.generation,
        max_attempts=row.max_attempts,
        end=row.status,
        end_generation=row.end_generation,
        end_delivery=row.end_delivery or 1,
        ends=0 if row.status is None else 1,
        result=row.result,
        error=row.error_type,
        deadline=row.deadline,
        legs=row.legs,
    )
