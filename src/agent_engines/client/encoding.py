"""Requests as JSON: what Python can say and JSON cannot is refused here, before anything is sent."""

from __future__ import annotations

import math
from typing import Any, cast

import msgspec

from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.tasks import DEFAULT_PRIORITY, TaskRequest
from agent_engines.domain.terms import DEFAULT_TENANT


def _encodable(value: Any) -> Any:
    # pydantic models, known by shape so that the client needs no pydantic.
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


_encode = msgspec.json.Encoder(enc_hook=_encodable).encode


def encoded(request: TaskRequest) -> bytes:
    """The request as a JSON object without its empty fields. Raises InvalidRequest naming the field."""
    try:
        data = _encode(request)
    except (TypeError, ValueError, OverflowError, NotImplementedError, RecursionError):
        return _field_by_field(request)
    # A null may be a number that is not finite: only a look at each field tells.
    return _field_by_field(request) if b"null" in data else data


def _field_by_field(request: TaskRequest) -> bytes:
    body: dict[str, Any] = {"task_type": request.task_type, "payload": payload_bytes(request.payload)}
    if request.priority != DEFAULT_PRIORITY:
        body["priority"] = request.priority
    for name in ("requirements", "metadata"):
        mapping = getattr(request, name)
        if mapping:
            body[name] = _json(name, mapping)
    for name in (
        "timeout_seconds",
        "deadline",
        "idempotency_key",
        "max_attempts",
        "request_id",
        "run_at",
        "budget",
        "affinity",
        "traceparent",
    ):
        value = getattr(request, name)
        if value is not None:
            body[name] = value
    if request.strategy is not None:
        body["strategy"] = request.strategy
    for name in ("features", "embedding"):
        numbers = getattr(request, name)
        if numbers is not None:
            body[name] = _json(name, list(numbers))
    if request.tenant != DEFAULT_TENANT:
        body["tenant"] = request.tenant
    try:
        return _encode(body)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from None


def payload_bytes(payload: Any) -> msgspec.Raw:
    """Raises InvalidRequest for what JSON cannot carry: NaN, infinities, unknown types, lone surrogates."""
    return payload if isinstance(payload, msgspec.Raw) else _json("payload", payload)


def json_bytes(field: str, value: Any) -> bytes:
    """Raises InvalidRequest naming `field` for what JSON cannot carry."""
    return bytes(_json(field, value))


def _json(field: str, value: Any) -> msgspec.Raw:
    try:
        data = _encode(value)
    except (TypeError, ValueError, OverflowError, NotImplementedError, RecursionError) as error:
        raise InvalidRequest(f"{field} cannot be written as JSON: {error}", field=field) from None
    # The encoder writes NaN and infinities as null, which would silently change what the caller meant.
    if b"null" in data and _not_finite(value):
        raise InvalidRequest(f"{field} holds a number that is not finite (NaN or infinity)", field=field)
    return msgspec.Raw(data)


def _not_finite(value: Any) -> bool:
    plain = msgspec.to_builtins(value, builtin_types=(float,), enc_hook=_encodable)
    waiting: list[Any] = [plain]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                return True
        elif isinstance(item, dict):
            waiting.extend(cast("dict[Any, Any]", item).values())
        elif isinstance(item, list | tuple | set | frozenset):
            waiting.extend(cast("list[Any]", item))
    return False
