"""Outcomes: the few fields of recorded reports that routers, waiters and statistics need, decoded without the rest."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from agent_engines.domain.messages import Judge, Report, ReportKind
from agent_engines.domain.tasks import TaskError, TaskStatus


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One recorded report, without its result."""

    kind: ReportKind
    task_id: str
    task_type: str
    agent: str | None = None
    attempt: int = 1
    generation: int = 1
    status: TaskStatus = TaskStatus.RUNNING
    error: TaskError | None = None
    execution_time_ms: float | None = None
    quality: float | None = None
    cost: float | None = None
    tokens: int | None = None
    judge: Judge | None = None
    """Of feedback: who said it."""


def outcome_of(report: Report) -> Outcome:
    """A report without its result."""
    return Outcome(
        kind=report.kind,
        task_id=report.task_id,
        task_type=report.task_type,
        agent=report.agent,
        attempt=report.attempt,
        generation=report.generation,
        status=report.status,
        error=report.error,
        execution_time_ms=report.execution_time_ms,
        quality=report.quality,
        cost=report.cost,
        tokens=report.tokens,
        judge=report.judge,
    )


class _Outcomes(msgspec.Struct, frozen=True):
    reports: msgspec.Raw
    seal: str = ""


_decode = msgspec.json.Decoder(_Outcomes).decode
_decode_reports = msgspec.json.Decoder(tuple[Outcome, ...]).decode


def decode_outcomes(data: bytes) -> tuple[Outcome, ...]:
    """Outcomes of one ReportBatch. Raises msgspec.MsgspecError."""
    return _decode_reports(_decode(data).reports)


def decode_sealed(data: bytes, sealed: Callable[[bytes, str], bool]) -> tuple[tuple[Outcome, ...], bool]:
    """Outcomes of one ReportBatch, and whether `sealed(reports, seal)` says that a router wrote it. Raises msgspec.MsgspecError."""
    batch = _decode(data)
    return _decode_reports(batch.reports), bool(batch.seal) and sealed(bytes(batch.reports), batch.seal)
