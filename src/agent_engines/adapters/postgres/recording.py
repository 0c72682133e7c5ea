"""Applying reports: many at once, in the order they came, each one's fate known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from agent_engines.domain.legs import LOST
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import NO_PAYLOAD, TaskError
from agent_engines.ports.ledger import Verdict
from agent_engines.ports.telemetry import Log

from . import rows
from .feedback_store import feedback_columns
from .pool import RECORD_SECONDS, TRANSIENT, UNSTORABLE, Connection, Pool
from .queries import queries
from .tenant_store import spending_columns

SECOND_LOOKS = 10_000
"""How many outcomes that came before their task are remembered, to put its hint right with the next batch."""
EARLY_SECONDS = 60.0
"""How long a retry waits here for its task; an acceptance that takes longer was given up by the database long before."""
CONTESTED_ATTEMPTS = 3

_QUERY = {
    ReportKind.FINAL: "record_finals",
    ReportKind.RETRY: "record_retries",
    ReportKind.STARTED: "record_starts",
    ReportKind.FEEDBACK: "record_feedback",
}
_OF_LEGS = frozenset({"leg", "outrun"})
_Wave = dict[ReportKind, list[int]]


class Recording:
    """Keeps nothing but hints: what it forgets in a crash is healed when stranded tasks are looked for."""

    def __init__(self, pool: Pool, *, log: Log | None = None) -> None:
        self._pool = pool
        self._log = log
        self._orphans: list[str] = []
        self._early: dict[str, Report] = {}

    async def record(self, reports: Sequence[Report]) -> list[Verdict]:
        """One verdict each, in order. One round trip when all are finals of different tasks; one transaction always."""
        if not reports:
            return []
        try:
            return await self._record(reports)
        except UNSTORABLE as error:
            if len(reports) == 1:
                return [await self._record_purified(reports[0], error)]
        return [verdict for report in reports for verdict in await self.record([report])]

    async def look_again(self, now: float) -> None:
        """Make retries due that were recorded while their task's acceptance had not committed yet. Raises Unavailable."""
        if not self._early:
            return
        early, self._early = sorted(self._early.values(), key=lambda report: report.task_id), {}
        try:
            odd = await self._pool.run(lambda connection: self._run(connection, ReportKind.RETRY, early, []))
        except BaseException:
            self._remember(early)
            raise
        missing = [early[index] for index, _ in odd]
        self._remember([report for report in missing if now - (report.completed_at or 0.0) < EARLY_SECONDS])

    async def _record(self, reports: Sequence[Report]) -> list[Verdict]:
        places = range(len(reports))
        verdicts = [Verdict.STALE] * len(reports)
        for _ in range(CONTESTED_ATTEMPTS):
            places = await self._apply(reports, places, verdicts)
            if not places:
                break
        return verdicts

    async def _apply(self, reports: Sequence[Report], places: Sequence[int], verdicts: list[Verdict]) -> list[int]:
        """Fill in verdicts; returns the places of those another recorder was faster with, to be looked at again."""
        waves = _waves(reports, places)
        looks: list[str] = []
        if any(ReportKind.FINAL in wave for wave in waves):
            looks, self._orphans = self._orphans, looks
        contested, orphans, early = list[int](), list[str](), list[Report]()

        async def work(connection: Connection) -> None:
            contested.clear()
            orphans.clear()
            early.clear()
            for wave in waves:
                for kind, members in wave.items():
                    odd = await self._run(connection, kind, [reports[place] for place in members], looks)
                    for place in members:
                        verdicts[place] = Verdict.RECORDED
                    for index, verdict in odd:
                        place = members[index]
                        if verdict == "early":
                            early.append(reports[place])
                        elif verdict == "orphan":
                            orphans.append(reports[place].task_id)
                        elif verdict == "lost":
                            contested.append(place)
                            verdicts[place] = Verdict.STALE
                        else:
                            verdicts[place] = Verdict(verdict)
            await self._spend(connection, [reports[place] for place in places if verdicts[place].spent])

        single = len(waves) == 1 and len(waves[0]) == 1 and not spending_columns(reports)
        try:
            await self._committed(work, verdicts, single=single)
        except BaseException:
            self._orphans += looks
            raise
        self._orphans = (self._orphans + orphans)[-SECOND_LOOKS:]
        self._remember(early)
        if contested:
            await self._pool.fetch("heal", [reports[place].task_id for place in contested])
        return contested

    async def _committed(
        self, work: Callable[[Connection], Awaitable[None]], verdicts: list[Verdict], *, single: bool
    ) -> None:
        tries = _Tries(work)
        await (self._pool.run if single else self._pool.in_transaction)(tries, wait=RECORD_SECONDS, insist=True)
        if tries.doubtful:
            # What is there already is what the first try committed before its answer was lost; nobody was told of it.
            verdicts[:] = [Verdict.RECORDED if one is Verdict.DUPLICATE else one for one in verdicts]

    async def _run(
        self, connection: Connection, kind: ReportKind, reports: Sequence[Report], looks: list[str]
    ) -> list[tuple[int, str]]:
        """The reports that were not simply recorded, as (index, what happened)."""
        match kind:
            case ReportKind.FINAL:
                agents = list({report.agent for report in reports if report.agent is not None})
                columns = [*rows.final_columns(reports), looks, agents, rows.tokens_column(reports)]
            case ReportKind.RETRY:
                columns = rows.retry_columns(reports)
            case ReportKind.STARTED:
                columns = rows.start_columns(reports)
            case ReportKind.FEEDBACK:
                columns = feedback_columns(reports)
        found = await connection.fetch(queries()[_QUERY[kind]], *columns)
        odd = [(row["place"], row["verdict"]) for row in found]
        return await self._legs(connection, reports, odd) if any(verdict in _OF_LEGS for _, verdict in odd) else odd

    async def _legs(
        self, connection: Connection, reports: Sequence[Report], odd: Sequence[tuple[int, str]]
    ) -> list[tuple[int, str]]:
        """Note the legs of hedged tasks that failed or lost; one that turned out to be the last is to be looked at again."""
        fallen = [index for index, verdict in odd if verdict == "leg"]
        outrun = [index for index, verdict in odd if verdict == "outrun"]
        verdicts = dict(odd) | dict.fromkeys(outrun, "stale") | dict.fromkeys(fallen, "fallen")
        if outrun:
            columns = rows.retry_columns([reports[index] for index in outrun])
            await connection.fetch(queries()["record_outrun"], *columns, LOST)
        if fallen:
            columns = rows.retry_columns([reports[index] for index in fallen])
            last = await connection.fetch(queries()["record_falls"], *columns)
            verdicts |= {fallen[row["place"]]: "lost" for row in last}
        return list(verdicts.items())

    async def _spend(self, connection: Connection, reports: Sequence[Report]) -> None:
        """Add what these attempts used up to the accounts of their tenants."""
        columns = spending_columns(reports)
        if columns:
            await connection.fetch(queries()["spending_add"], *columns)

    def _remember(self, early: Sequence[Report]) -> None:
        for report in early[: SECOND_LOOKS - len(self._early)]:
            self._early.setdefault(report.task_id, report)

    async def _record_purified(self, report: Report, error: Exception) -> Verdict:
        """A report the database cannot hold ends its task all the same, with the reason in the place of the result."""
        if self._log is not None:
            self._log.warning("A report cannot be stored as it came", task_id=report.task_id, error=str(error))
        try:
            return (await self._record([_purified(report, error)]))[0]
        except UNSTORABLE:
            # Not even its identifiers can be stored, so there is no task it could be about.
            return Verdict.STALE


class _Tries:
    """Work that the pool may call again; `doubtful`: an earlier call may have been committed without an answer."""

    def __init__(self, work: Callable[[Connection], Awaitable[None]]) -> None:
        self._work = work
        self._unheard = False
        self.doubtful = False

    async def __call__(self, connection: Connection) -> None:
        self.doubtful, self._unheard = self.doubtful or self._unheard, True
        try:
            await self._work(connection)
        except TRANSIENT:
            # Rolled back for certain.
            self._unheard = False
            raise


def _waves(reports: Sequence[Report], places: Sequence[int]) -> list[_Wave]:
    """Each wave has at most one report for a task; one statement cannot see what another part of it does."""
    waves: list[_Wave] = []
    depth: dict[str, int] = {}
    for place in places:
        report = reports[place]
        if report.kind is ReportKind.FINAL and not report.status.terminal:
            continue
        level = depth.get(report.task_id, 0)
        depth[report.task_id] = level + 1
        if level == len(waves):
            waves.append({})
        waves[level].setdefault(report.kind, []).append(place)
    for wave in waves:
        for members in wave.values():
            # The same order everywhere, so that two recorders wait for each other instead of dead-locking.
            members.sort(key=lambda place: reports[place].task_id)
    return waves


def _purified(report: Report, error: Exception) -> Report:
    note = f"the outcome could not be stored: {_clean(str(error).splitlines()[0])}"
    old = report.error
    return msgspec.structs.replace(
        report,
        agent=None if report.agent is None else _clean(report.agent),
        replica=_clean(report.replica),
        request_id=_clean(report.request_id),
        task_type=_clean(report.task_type),
        result=NO_PAYLOAD,
        error=TaskError("UnstorableResult", note)
        if old is None
        else TaskError(_clean(old.type), f"{_clean(old.message)} ({note})", old.retryable),
    )


def _clean(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
