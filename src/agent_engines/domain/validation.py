"""Requests: the one place where what a caller sends becomes a task, or an error that names the field.

| field | accepted |
| --- | --- |
| task_type | 1 to 128 printable characters, no space at either end |
| payload | any JSON value: finite numbers a double can hold, at most 32 levels deep, no NUL, no lone surrogate |
| requirements, metadata | objects of at most 64 keys and 16 KiB, same rules |
| priority | 1 (first) to 5 (last) |
| timeout_seconds | above 0, at most 7 days |
| deadline | in the future: epoch seconds or ISO 8601 with an offset |
| run_at | the same, at most 366 days ahead and before the deadline; the past means now |
| max_attempts | 1 to 100 |
| idempotency_key, request_id | 1 to 255 printable characters |
| strategy, features, embedding | see domain/hints.py |
| tenant, budget, affinity | see domain/terms.py |
| traceparent | a W3C trace context header |

Unknown fields are refused: a misspelt `priorty` that is silently ignored is worse than a 422. Of repeated keys the last
one counts. The hot path looks at bytes only; the exact, slow checks run when the bytes look suspicious.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from .errors import InvalidRequest, Malformed, TooLarge
from .hints import checked_hints
from .json_text import check_depth, check_json, json_of, lone_surrogate
from .moments import check_deadline, check_run_at, parsed_moment
from .task_names import task_id_of
from .tasks import DEFAULT_PRIORITY, MAX_TASK_TYPE_LENGTH, NO_PAYLOAD, Task, TaskRequest
from .terms import DEFAULT_TENANT, NO_TERMS, Affinity, Budget, terms_of
from .traces import TRACEPARENT

_DAY = 86_400.0
_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`")
_MISSING_FIELD = re.compile(r"missing required field `([^`]*)`")
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_NO_NUMBER = re.compile(rb"[-\s:,\[]*(?:NaN|Infinity)")
_AT_BYTE = re.compile(r"\(byte (\d+)\)")

NOT_FINITE = "JSON has no NaN and no Infinity"

_decode = msgspec.json.Decoder().decode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on one request. Bytes are of JSON text."""

    body_bytes: int = 1_048_576
    depth: int = 32
    keys: int = 64
    mapping_bytes: int = 16_384
    timeout_seconds: float = 7 * _DAY
    attempts: int = 100
    name_length: int = 255


DEFAULT_LIMITS = Limits()


class RequestBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """TaskRequest as it stands in a JSON body; `payload` stays the caller's bytes."""

    task_type: str
    payload: msgspec.Raw = NO_PAYLOAD
    requirements: dict[str, Any] | None = None
    priority: int | None = None
    timeout_seconds: float | None = None
    deadline: float | str | None = None
    idempotency_key: str | None = None
    max_attempts: int | None = None
    metadata: dict[str, Any] | None = None
    request_id: str | None = None
    run_at: float | str | None = None
    strategy: str | None = None
    features: list[float] | None = None
    embedding: list[float] | None = None
    tenant: str | None = None
    budget: Budget | None = None
    affinity: Affinity | None = None
    traceparent: str | None = None


_decode_body = msgspec.json.Decoder(RequestBody).decode


def request_from_json(body: bytes, *, limits: Limits = DEFAULT_LIMITS) -> TaskRequest:
    """Decode the JSON body of one submission. Raises Malformed, TooLarge, InvalidRequest (the field named)."""
    if len(body) > limits.body_bytes:
        raise TooLarge(f"the body has {len(body)} bytes, at most {limits.body_bytes} are accepted")
    try:
        parsed = decode_json(body, _decode_body, limits)
    except Malformed as error:
        if NOT_FINITE in error.args[0] and (field := _not_finite(body)):
            raise InvalidRequest(f"{field} is not a finite number, and {NOT_FINITE}", field=field) from None
        raise
    return request_of(parsed)


def request_of(parsed: RequestBody) -> TaskRequest:
    """What a decoded body asks for. Raises InvalidRequest (the field named)."""
    return TaskRequest(
        task_type=parsed.task_type,
        payload=parsed.payload,
        requirements=parsed.requirements or {},
        priority=DEFAULT_PRIORITY if parsed.priority is None else parsed.priority,
        timeout_seconds=parsed.timeout_seconds,
        deadline=None if parsed.deadline is None else parsed_moment("deadline", parsed.deadline),
        idempotency_key=parsed.idempotency_key,
        max_attempts=parsed.max_attempts,
        metadata=parsed.metadata or {},
        request_id=parsed.request_id,
        run_at=None if parsed.run_at is None else parsed_moment("run_at", parsed.run_at),
        strategy=parsed.strategy,
        features=parsed.features,
        embedding=parsed.embedding,
        tenant=DEFAULT_TENANT if parsed.tenant is None else parsed.tenant,
        budget=parsed.budget,
        affinity=parsed.affinity,
        traceparent=parsed.traceparent,
    )


def decode_json(body: bytes, decode: Callable[[bytes], Any], limits: Limits = DEFAULT_LIMITS) -> Any:
    """Run a msgspec decoder and say what is wrong in our errors: Malformed for bytes, InvalidRequest for fields."""
    check_depth(body, limits.depth, None)
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from None
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except msgspec.DecodeError as error:
        reason = str(error)
        if ("truncated" in reason or "surrogate" in reason) and lone_surrogate(body):
            raise InvalidRequest("a string has half of a surrogate pair (\\ud800 to \\udfff)", field="body") from None
        place = _AT_BYTE.search(reason)
        if place is not None and _NO_NUMBER.match(body, max(0, int(place[1]) - 1)):
            reason = f"{reason}; {NOT_FINITE}"
        raise Malformed(f"the body is not JSON: {reason}") from None


def _not_finite(body: bytes) -> str:
    """Which number of a submission is none, as careless writers of JSON put it; empty: it is elsewhere."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for name in ("features", "embedding"):
        numbers = found.get(name) if isinstance(found, dict) else None
        for place, value in enumerate(numbers if isinstance(numbers, list) else []):
            if isinstance(value, float) and not math.isfinite(value):
                return f"{name}[{place}]"
    return ""


def to_task(
    request: TaskRequest,
    *,
    now: float,
    origin: str,
    new_id: Callable[[], str],
    traceparent: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Task:
    """Check one request and give it its identity. `now`: epoch seconds; `new_id` makes time-ordered UUIDs.

    With an idempotency key the task id is derived from it, so a repeated request is the same task.
    Raises InvalidRequest (the field named), TooLarge.
    """
    task = named_task(request, now=now, origin=origin, new_id=new_id, traceparent=traceparent, limits=limits)
    hash_body(task)
    return task


def named_task(
    request: TaskRequest,
    *,
    now: float,
    origin: str,
    new_id: Callable[[], str],
    traceparent: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Task:
    """`to_task` without its `hash_body`, for those who hash many at once."""
    _check_scalars(request, now, limits)
    terms = terms_of(request.tenant, request.budget, request.affinity)
    payload = _payload_bytes(request.payload, limits)
    if request.requirements:
        _check_mapping("requirements", request.requirements, limits)
    if request.metadata:
        _check_mapping("metadata", request.metadata, limits)
    key = request.idempotency_key
    # A repeated key is the same task but another request: each submission's decision has a name of its own.
    fresh = new_id()
    task_id = fresh if key is None else task_id_of(key, terms.tenant)
    return Task(
        task_id=task_id,
        request_id=request.request_id or fresh,
        task_type=request.task_type,
        payload=payload,
        requirements=request.requirements,
        priority=request.priority,
        timeout_seconds=request.timeout_seconds,
        deadline=request.deadline,
        idempotency_key=key,
        max_attempts=request.max_attempts,
        metadata=request.metadata,
        submitted_at=now,
        origin=origin,
        traceparent=request.traceparent or traceparent,
        run_at=request.run_at,
        hints=checked_hints(request.strategy, request.features, request.embedding),
        terms=terms,
    )


def hash_body(task: Task) -> None:
    """Set the hash of a task that has just been made: only a task with a key is ever compared by it."""
    if task.idempotency_key is not None:
        # Nobody else has seen this value yet; building it twice would cost more than all checks.
        force_setattr(task, "body_hash", body_hash(task))


def body_hash(task: Task) -> bytes:
    """16 bytes that are equal for requests that ask for the same: blake2b over the sorted JSON of what was asked."""
    asked = (
        task.task_type,
        _decode(task.payload),
        task.requirements,
        task.priority,
        task.timeout_seconds,
        task.deadline,
        task.max_attempts,
        task.metadata,
        # Only where it is asked for: hashes in ledgers of earlier releases were made without it.
        *(() if task.run_at is None else (task.run_at,)),
        *(() if task.hints is None else (task.hints,)),
        *(() if task.terms == NO_TERMS else (task.terms,)),
    )
    return blake2b(_encode_sorted(asked), digest_size=16).digest()


def check_name(field: str, value: object, longest: int) -> None:
    """Raise InvalidRequest unless `value` is a string of 1 to `longest` printable characters."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{field} must be a string, not {_kind(value)}", field=field)
    if not value or len(value) > longest:
        raise InvalidRequest(f"{field} must have 1 to {longest} characters, it has {len(value)}", field=field)
    if not value.isprintable():
        raise InvalidRequest(f"{field} has a control or unprintable character", field=field)


def _check_scalars(request: TaskRequest, now: float, limits: Limits) -> None:
    task_type = request.task_type
    check_name("task_type", task_type, MAX_TASK_TYPE_LENGTH)
    if task_type[0] == " " or task_type[-1] == " ":
        raise InvalidRequest("task_type begins or ends with a space", field="task_type")
    _check_whole("priority", request.priority, 1, 5)
    if request.timeout_seconds is not None:
        _check_timeout(request.timeout_seconds, limits)
    if request.deadline is not None:
        check_deadline(request.deadline, now)
    if request.run_at is not None:
        check_run_at(request.run_at, request.deadline, now)
    if request.max_attempts is not None:
        _check_whole("max_attempts", request.max_attempts, 1, limits.attempts)
    if request.idempotency_key is not None:
        check_name("idempotency_key", request.idempotency_key, limits.name_length)
    if request.request_id is not None:
        check_name("request_id", request.request_id, limits.name_length)
    if request.traceparent is not None and not TRACEPARENT.fullmatch(request.traceparent):
        raise InvalidRequest(
            "traceparent must be a W3C trace context header, 00-<trace>-<parent>-<flags>", field="traceparent"
        )


def _check_whole(field: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequest(f"{field} must be a whole number, not {_kind(value)}", field=field)
    if not low <= value <= high:
        raise InvalidRequest(f"{field} must be {low} to {high}", field=field)


def _check_number(field: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidRequest(f"{field} must be a number, not {_kind(value)}", field=field)
    if not math.isfinite(value):
        raise InvalidRequest(f"{field} must be a finite number", field=field)


def _check_timeout(value: float, limits: Limits) -> None:
    _check_number("timeout_seconds", value)
    if not 0 < value <= limits.timeout_seconds:
        raise InvalidRequest(
            f"timeout_seconds must be above 0 and at most {limits.timeout_seconds:.0f} (7 days)",
            field="timeout_seconds",
        )


def _payload_bytes(payload: Any, limits: Limits) -> msgspec.Raw:
    """The payload as bytes of its own: what was decoded is a view of all that came with it."""
    data = bytes(payload) if type(payload) is msgspec.Raw else json_of("payload", payload)
    if not data:
        return NO_PAYLOAD
    if len(data) > limits.body_bytes:
        raise TooLarge(f"the payload has {len(data)} bytes, at most {limits.body_bytes} are accepted", field="payload")
    check_json("payload", data, limits.depth)
    return msgspec.Raw(data)


def _check_mapping(field: str, value: Mapping[str, Any], limits: Limits) -> None:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field} must be an object, not {_kind(value)}", field=field)
    if len(value) > limits.keys:
        raise InvalidRequest(f"{field} has {len(value)} keys, at most {limits.keys} are accepted", field=field)
    data = json_of(field, value)
    if len(data) > limits.mapping_bytes:
        raise InvalidRequest(
            f"{field} has {len(data)} bytes of JSON, at most {limits.mapping_bytes} are accepted", field=field
        )
    check_json(field, data, limits.depth)


def _explained(text: str) -> InvalidRequest:
    """Turn msgspec's sentence into ours, the field taken from its path."""
    path = _PATH.search(text)
    above = f"{path[1]}." if path and path[1] else ""
    if unknown := _UNKNOWN_FIELD.search(text):
        return InvalidRequest(f"there is no field {above + unknown[1]!r}", field=_plain(above + unknown[1]))
    if missing := _MISSING_FIELD.search(text):
        return InvalidRequest(f"{above}{missing[1]} is missing", field=_plain(above + missing[1]))
    field = path[1] if path else "body"
    reason = text[: path.start()] if path else text
    return InvalidRequest(f"{field}: {reason[:1].lower()}{reason[1:]}", field=_plain(field))


def _plain(path: str) -> str:
    return path.replace("[...]", "")


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
