"""Results: what a handler returned, as the JSON bytes that are stored and shown.

Everything a store or a caller would choke on later is refused here, with the place: what JSON cannot say (sets of
objects, NaN), what PostgreSQL cannot hold (NUL, lone surrogates), what the bus does not take (too large).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

from agent_engines.domain.errors import InvalidRequest
from agent_engines.domain.retry import readable
from agent_engines.domain.tasks import NO_PAYLOAD, TaskError
from agent_engines.domain.validation import Limits, decode_json

MAX_RESULT_BYTES = 1024 * 1024

MAX_DEPTH = 128
"""Readers on the way (PostgreSQL, browsers, our own decoder) all take this many levels; some do not take thousands."""

NULL = b"null"
ESCAPED_NUL = b"\\u0000"
LARGEST = 10**308
LONG_NUMBER = re.compile(rb"\d{309}")


class BadResult(Exception):
    """The handler's result cannot be used; `error` is what the task fails with."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.error = TaskError(type=kind, message=readable(detail), retryable=False)


def _encode_other(value: Any) -> Any:
    """Pydantic models anywhere inside a result; other types are refused by name."""
    dump = getattr(value, "model_dump_json", None)
    if dump is None or isinstance(value, type):
        raise TypeError(f"{type(value).__qualname__} is not a JSON value")
    return msgspec.Raw(dump().encode())


def _builtin_other(value: Any) -> Any:
    return value.model_dump()


_encode: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=_encode_other).encode
_skim: Callable[[bytes], msgspec.Raw] = msgspec.json.Decoder(msgspec.Raw).decode


def encoded(value: Any, *, limit: int = MAX_RESULT_BYTES) -> msgspec.Raw:
    """JSON bytes of a result. Raises BadResult: UnserializableResult (with type and place), ResultTooLarge."""
    if value is None:
        return NO_PAYLOAD
    try:
        data = _encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise BadResult("UnserializableResult", _why_not(value, error)) from error
    if len(data) > limit:
        raise BadResult("ResultTooLarge", f"the result is {len(data)} bytes of JSON, the limit is {limit}")
    try:
        # Raw values and models bring JSON of their own; one malformed result would spoil the whole batch it travels in.
        raw = _skim(data)
        if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
            decode_json(data, _nothing, Limits(depth=MAX_DEPTH))
        if not data.isascii():
            data.decode()
    except (msgspec.DecodeError, ValueError, RecursionError, InvalidRequest) as error:
        raise BadResult("UnserializableResult", _why_not(value, error)) from error
    # msgspec writes NaN as null and NUL as an escape: only output that has one of them is worth a closer look.
    if NULL in data or ESCAPED_NUL in data or (len(data) > 309 and LONG_NUMBER.search(data)):
        _refuse_unstorable(value)
    return raw


def _nothing(data: bytes) -> None:
    """The depth is checked before decoding; nothing is decoded."""


def _why_not(value: Any, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"the result ({type(value).__qualname__}) contains itself or is nested too deeply"
    place = first_unstorable(value)
    if place is not None:
        return f"the result has {place}"
    return f"the result ({type(value).__qualname__}) cannot be written as JSON: {error}"


def _refuse_unstorable(value: Any) -> None:
    try:
        plain = msgspec.to_builtins(value, enc_hook=_builtin_other)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadResult("UnserializableResult", _why_not(value, error)) from error
    place = first_unstorable(plain)
    if place is not None:
        raise BadResult("UnserializableResult", f"the result has {place}")


def first_unstorable(value: Any, path: str = "$") -> str | None:
    """Name the first thing JSON or a store cannot hold, with its place ("NaN at $.rows[3]"); None when all is well."""
    if isinstance(value, str):
        return _bad_text(value, path)
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value} at {path}"
    if isinstance(value, int):
        return None if -LARGEST < value < LARGEST else f"a number of more than 308 digits at {path}"
    if isinstance(value, dict):
        for key, inner in value.items():
            found = _bad_text(key, f"a key of {path}") if isinstance(key, str) else None
            found = found or first_unstorable(inner, f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]")
            if found is not None:
                return found
        return None
    if isinstance(value, list | tuple | set | frozenset):
        for index, inner in enumerate(value):
            found = first_unstorable(inner, f"{path}[{index}]")
            if found is not None:
                return found
        return None
    return _first_in_object(value, path)


def _first_in_object(value: Any, path: str) -> str | None:
    """Structs and dataclasses: the encoder failed on them, so they are still objects here."""
    if isinstance(value, msgspec.Struct):
        names: tuple[str, ...] = value.__struct_fields__
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = tuple(field.name for field in dataclasses.fields(value))
    else:
        known = value is None or isinstance(value, bytes | msgspec.Raw)
        # Dates, UUIDs, enums and the like are fine for the encoder; whatever is not, it named itself.
        return None if known else _bad_leaf(value, path)
    for name in names:
        found = first_unstorable(getattr(value, name, None), f"{path}.{name}")
        if found is not None:
            return found
    return None


def _bad_leaf(value: Any, path: str) -> str | None:
    try:
        _encode(value)
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__qualname__} at {path}, which is not a JSON value"
    return None


def _bad_text(text: str, path: str) -> str | None:
    if "\x00" in text:
        return f"a NUL character at {path}"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return f"a lone surrogate at {path}"
    return None
