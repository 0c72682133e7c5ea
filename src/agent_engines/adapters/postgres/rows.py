"""Nouns to columns and rows to nouns. Times are epoch seconds outside and timestamptz in the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec
from msgspec.structs import astuple

from agent_engines.adapters.task_view import attempts_made, trace_id
from agent_engines.domain.budgets import Spend
from agent_engines.domain.decisions import Decision, DecisionContext
from agent_engines.domain.hints import Hints
from agent_engines.domain.messages import Report
from agent_engines.domain.tasks import DEFAULT_MAX_ATTEMPTS, NO_PAYLOAD, Task, TaskError, TaskStatus, TaskView
from agent_engines.domain.terms import NO_TERMS, Terms
from agent_engines.ports.ledger import StoredTask

from .pool import Row
from .system_state import States, SystemState, as_jsonb

_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_any = msgspec.json.Decoder().decode
_decode_context = msgspec.json.Decoder(DecisionContext).decode
_decode_names = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_terms = msgspec.json.Decoder(Terms).decode
_decode_hints = msgspec.json.Decoder(Hints).decode
_decode_state = msgspec.json.Decoder(SystemState).decode
_state_text = States().text
TINY = 1e-37
"""Smaller numbers are out of the range of `real`, and PostgreSQL refuses them instead of taking them for 0."""
_CONTEXT = as_jsonb({*DecisionContext.__struct_fields__} - {"features", "embedding"})
"""What has no column of its own."""
_context = itemgetter(*map(DecisionContext.__struct_fields__.index, _CONTEXT))
_StoredContext = msgspec.defstruct("_StoredContext", [(name, Any, None) for name in _CONTEXT], omit_defaults=True)
"""A context without its nulls: a key that is not there reads the same in SQL, and to every version of this program."""


def json_text(value: Any) -> str:
    return _encode(value).decode()


def mapping_text(mapping: Mapping[str, Any]) -> str:
    """Most tasks have neither requirements nor metadata."""
    return json_text(mapping) if mapping else "{}"


def shared(values: list[Any]) -> list[Any]:
    """The first value alone when all are equal; for columns without nulls, which the query fills up from it.

    Each element of an array costs the client several times what reading the value does, and most columns of a batch
    have one value.
    """
    return values[:1] if values.count(values[0]) == len(values) else values


def sparse(values: list[Any]) -> list[Any]:
    """Nothing when all are None: `unnest` fills the shorter column with nulls."""
    return values if values.count(None) < len(values) else []


def raw_text(raw: msgspec.Raw) -> str:
    """The JSON text in `raw`. Raises UnicodeDecodeError."""
    return str(bytes(raw), "utf-8")


def result_text(raw: msgspec.Raw) -> str | None:
    """None for a JSON null: an absent result and an empty one are the same to readers."""
    return None if raw == NO_PAYLOAD else raw_text(raw)


def task_columns(tasks: Sequence[Task]) -> list[list[Any]]:
    """Arguments 1 to 15 of `accept` and `plan`. Raises ValueError for no tasks."""
    if not tasks:
        raise ValueError("there are no tasks to write")
    return [
        [task.task_id for task in tasks],
        [task.request_id for task in tasks],
        shared([task.task_type for task in tasks]),
        [raw_text(task.payload) for task in tasks],
        shared([mapping_text(task.requirements) for task in tasks]),
        shared([mapping_text(task.metadata) for task in tasks]),
        shared([task.priority for task in tasks]),
        sparse([task.timeout_seconds for task in tasks]),
        sparse([task.deadline for task in tasks]),
        sparse([task.idempotency_key for task in tasks]),
        shared([task.body_hash for task in tasks]),
        sparse([task.max_attempts for task in tasks]),
        [task.submitted_at for task in tasks],
        shared([task.origin for task in tasks]),
        sparse([task.traceparent for task in tasks]),
    ]


def hints_column(tasks: Sequence[Task]) -> list[str | None]:
    """What the submitter said about the choice; None for most."""
    return sparse([None if task.hints is None else json_text(task.hints) for task in tasks])


def terms_column(tasks: Sequence[Task]) -> list[str | None]:
    """NULL for tasks without terms, which most are."""
    return sparse([None if task.terms == NO_TERMS else json_text(task.terms) for task in tasks])


def decision_columns(decisions: Sequence[Decision]) -> list[list[Any]]:
    """What every query that stores decisions takes, in its order: decision_id to state_sequence. None without decisions."""
    if not decisions:
        return [[] for _ in range(14)]
    contexts = [decision.context for decision in decisions]
    return [
        [decision.request_id for decision in decisions],
        shared([decision.selected_agent for decision in decisions]),
        [decision.confidence for decision in decisions],
        shared([decision.propensity for decision in decisions]),
        shared([decision.strategy for decision in decisions]),
        shared([decision.policy_version for decision in decisions]),
        shared([decision.explored for decision in decisions]),
        [decision.reasoning for decision in decisions],
        sparse([None if context is None else _context_text(context) for context in contexts]),
        [_state_text(decision) for decision in decisions],
        [decision.created_at for decision in decisions],
        sparse([None if context is None else _array_text(context.features) for context in contexts]),
        sparse([None if context is None else _array_text(context.embedding) for context in contexts]),
        sparse([decision.state_sequence for decision in decisions]),
    ]


def _context_text(context: DecisionContext) -> str:
    return json_text(_StoredContext(*_context(astuple(context))))


def _array_text(numbers: Sequence[float] | None) -> str | None:
    """An array as PostgreSQL reads it from text: rows of arrays of different lengths cannot travel as an array."""
    if numbers is None:
        return None
    return "{" + ",".join([repr(number) if abs(number) > TINY else "0" for number in numbers]) + "}"


def final_columns(reports: Sequence[Report]) -> list[list[Any]]:
    """Arguments 1 to 21 of `record_finals`; the place is the position in `reports`."""
    errors = [report.error for report in reports]
    return [
        list(range(len(reports))),
        [report.task_id for report in reports],
        [report.request_id for report in reports],
        shared([report.task_type for report in reports]),
        [report.agent for report in reports],
        shared([report.replica for report in reports]),
        shared([report.generation for report in reports]),
        shared([report.attempt for report in reports]),
        shared([report.delivery for report in reports]),
        shared([report.status.value for report in reports]),
        sparse([result_text(report.result) for report in reports]),
        sparse([error and error.message for error in errors]),
        sparse([error and error.type for error in errors]),
        sparse([error and error.retryable for error in errors]),
        sparse([report.started_at for report in reports]),
        sparse([report.completed_at for report in reports]),
        sparse([report.execution_time_ms for report in reports]),
        sparse([report.quality for report in reports]),
        sparse([report.cost for report in reports]),
        shared([report.priority for report in reports]),
        [report.submitted_at for report in reports],
    ]


def tokens_column(reports: Sequence[Report]) -> list[int | None]:
    return [report.tokens for report in reports]


def _attempt_columns(reports: Sequence[Report]) -> list[list[Any]]:
    return [
        list(range(len(reports))),
        [report.task_id for report in reports],
        [report.agent for report in reports],
        [report.replica for report in reports],
        [report.generation for report in reports],
        [report.attempt for report in reports],
        [report.delivery for report in reports],
    ]


def retry_columns(reports: Sequence[Report]) -> list[list[Any]]:
    """Arguments of `record_retries`."""
    return [
        *_attempt_columns(reports),
        [report.error and report.error.message for report in reports],
        [report.error and report.error.type for report in reports],
        [report.started_at for report in reports],
        [report.completed_at for report in reports],
        [report.retry_at for report in reports],
        [report.cost for report in reports],
        tokens_column(reports),
    ]


def start_columns(reports: Sequence[Report]) -> list[list[Any]]:
    """Arguments of `record_starts`."""
    return [*_attempt_columns(reports), [report.started_at for report in reports]]


def read_decision(row: Row) -> Decision:
    state = _decode_state(row["system_state"])
    context = None if row["context_data"] is None else _decode_context(row["context_data"])
    features, embedding = row.get("features"), row.get("embedding")
    if context is not None and (features is not None or embedding is not None):
        context = msgspec.structs.replace(context, features=_floats(features), embedding=_floats(embedding))
    return Decision(
        request_id=row["request_id"],
        task_id=row["task_id"],
        task_type=row["task_type"],
        selected_agent=row["selected_agent"],
        confidence=row["confidence"],
        propensity=row["propensity"],
        strategy=row["strategy"],
        policy_version=row["policy_version"],
        reasoning=row["reasoning"],
        candidates=state.restore(),
        rejected=state.rejected,
        explored=row["explored"],
        created_at=row["created_at"].timestamp(),
        context=context,
        eligible=state.eligible,
        terms=state.terms,
        fallback=state.fallback,
        state_sequence=row.get("state_sequence"),
        hedge=state.hedge,
    )


def read_outline(row: Row) -> Decision:
    """A decision with everybody's name and nobody's numbers, without its words and its context."""
    return Decision(
        request_id=row["request_id"],
        task_id=row["task_id"],
        task_type=row["task_type"],
        selected_agent=row["selected_agent"],
        confidence=row["confidence"],
        propensity=row["propensity"],
        strategy=row["strategy"],
        policy_version=row["policy_version"],
        reasoning="",
        candidates=(),
        explored=row["explored"],
        created_at=row["created_at"].timestamp(),
        eligible=_decode_names(row["agents"] or "[]"),
    )


def _floats(numbers: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if numbers is None else tuple(numbers)


def read_task(row: Row) -> StoredTask:
    task = Task(
        task_id=row["task_id"],
        request_id=row["request_id"],
        task_type=row["task_type"],
        payload=msgspec.Raw(row["payload"].encode()),
        requirements=_decode_object(row["requirements"]),
        priority=row["priority"],
        timeout_seconds=row["timeout_seconds"],
        deadline=seconds(row["deadline"]),
        idempotency_key=row["idempotency_key"],
        body_hash=row["body_hash"],
        max_attempts=row["max_attempts"],
        metadata=_decode_object(row["metadata"]),
        submitted_at=row["submitted_at"].timestamp(),
        origin=row["origin"],
        traceparent=row["traceparent"],
        hints=None if row["hints"] is None else _decode_hints(row["hints"]),
        terms=read_terms(row),
    )
    return StoredTask(
        task=task,
        status=TaskStatus(row["status"]),
        generation=row["generation"],
        attempt=row["attempt"],
        max_attempts=task.max_attempts or DEFAULT_MAX_ATTEMPTS,
        last_agent=row["selected_agent"],
    )


def read_view(row: Row) -> TaskView:
    status = TaskStatus(row["status"])
    metadata, result = row["metadata"], row["result"]
    return TaskView(
        task_id=row["task_id"],
        request_id=row["request_id"],
        task_type=row["task_type"],
        status=status,
        selected_agent=row["selected_agent"],
        priority=row["priority"],
        attempts=attempts_made(status, attempt=row["attempt"], last=row["last_attempt"], delivery=row["delivery"]),
        submitted_at=row["submitted_at"].timestamp(),
        started_at=seconds(row["started_at"]),
        completed_at=seconds(row["completed_at"]),
        execution_time_ms=row["execution_time_ms"],
        result=None if result is None else _decode_any(result),
        error=read_error(row["error_type"], row["error"], row["retryable"]),
        trace_id=trace_id(row["traceparent"]),
        deadline=seconds(row["deadline"]),
        metadata={} if metadata is None else _decode_object(metadata),
        quality=row["quality"],
        cost=row["cost"],
        run_at=seconds(row["run_at"]),
        terms=read_terms(row),
        spent=_spent(row),
    )


def read_terms(row: Row) -> Terms:
    text = row["terms"]
    return NO_TERMS if text is None else _decode_terms(text)


def _spent(row: Row) -> Spend | None:
    """What all attempts used up; only where one task is shown, and it has terms."""
    used = row.get("used_cost")
    if used is None or row["terms"] is None:
        return None
    return Spend(cost=used + (row["cost"] or 0.0), tokens=row["used_tokens"] + (row["tokens"] or 0))


def read_error(kind: str | None, message: str | None, retryable: bool | None) -> TaskError | None:
    return None if kind is None else TaskError(kind, message or "", bool(retryable))


def seconds(moment: Any) -> float | None:
    return None if moment is None else moment.timestamp()
