"""JSON text: looks at the bytes of what callers send. Cheap ones for everything, exact and slow ones where those see something."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, cast

import msgspec

from .errors import InvalidRequest, Malformed
from .kernel import seen, shallow
from .looks import DEEP, NOT_ASCII, NUL, NUMBER

# Possessive and closed by the end of the text too: linear on any input, or a body of quotes would cost minutes.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_LONG_NUMBER = re.compile(rb"(?<!\d)\d{309}")
_EXPONENT = re.compile(rb"[eE][+-]?0*(\d+)")
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_SHAPE = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_SHAPED_STRINGS = re.compile(rb'"[^"]*(?:"|\Z)')

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def json_of(field: str, value: Any) -> bytes:
    """JSON of a Python value. Raises InvalidRequest, which names the place in it.

    msgspec writes NaN and infinity as null, so a null is looked at twice.
    """
    try:
        data = _encode(value)
    except UnicodeEncodeError:
        where = _find(field, value, _has_surrogate) or field
        raise InvalidRequest(f"{where} has half of a surrogate pair", field=where) from None
    except RecursionError:
        raise InvalidRequest(f"{field} is nested too deeply", field=field) from None
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise InvalidRequest(f"{field} cannot be written as JSON: {error}", field=field) from None
    if b"null" in data:
        where = _find(field, value, _is_not_finite)
        if where is not None:
            raise InvalidRequest(f"{where} is not a finite number", field=where)
    return data


def check_json(field: str, data: bytes, depth: int) -> None:
    """One look at JSON bytes that a decoder has already taken, exact ones for what it has seen."""
    suspect = seen(data, depth)
    if not suspect:
        return
    if suspect & NOT_ASCII:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"{field} is not UTF-8: {error.reason} at byte {error.start}", field=field) from None
    if suspect & NUL:
        where = _find(field, _decode(data), _has_nul)
        if where is not None:
            raise InvalidRequest(f"{where} contains a NUL character", field=where)
    if suspect & DEEP:
        check_depth(data, depth, field)
    if suspect & NUMBER:
        _check_numbers(field, data)


def _check_numbers(field: str, data: bytes) -> None:
    """Refuse numbers a double cannot hold: other parsers on the way would read them as infinity, zero or an error."""
    bare = _STRINGS.sub(b"", data)
    huge = any(len(found) > 3 or int(found) > 340 for found in _EXPONENT.findall(bare))
    try:
        if not huge and not _LONG_NUMBER.search(bare):
            _decode(data)
            return
    except msgspec.MsgspecError:
        pass
    raise InvalidRequest(f"{field} has a number that is out of range", field=field)


def check_depth(data: bytes, limit: int, field: str | None) -> None:
    """Count levels without recursion: an innermost pair of brackets disappears each round."""
    if shallow(data, limit):
        return
    if b"\\" in data:
        # From the left, as a reader pairs them: what is left of a run before a quote is that quote's.
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Strings are taken out of what is left of the text, a small part of it mostly.
    brackets = _SHAPED_STRINGS.sub(b"", data.translate(_BRACKETS, _NOT_SHAPE))
    for _ in range(limit):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    # Text that does not balance leaves a rest without pairs: the decoder says what is wrong with it, unless it is deep.
    if b"[]" in brackets or brackets.count(b"[") > limit:
        where = field or "the body"
        raise Malformed(f"{where} is nested more than {limit} levels deep", field=field)


def lone_surrogate(body: bytes) -> bool:
    return re.search(rb"\\u[dD][89a-fA-F]", body) is not None


def _find(path: str, value: Any, wrong: Callable[[Any], bool]) -> str | None:
    """Path of the first scalar (or key) that is wrong, without recursion: the value may be as deep as it likes."""
    waiting: list[tuple[str, Any]] = [(path, value)]
    while waiting:
        where, item = waiting.pop()
        if isinstance(item, dict):
            pairs = list(cast("dict[Any, Any]", item).items())
            if any(wrong(key) for key, _ in pairs):
                return f"a key of {where}"
            waiting.extend((f"{where}.{key}", inner) for key, inner in reversed(pairs))
        elif isinstance(item, list | tuple | set | frozenset):
            inner_items = list(cast("list[Any]", item))
            waiting.extend((f"{where}[{index}]", inner) for index, inner in reversed(list(enumerate(inner_items))))
        elif wrong(item):
            return where
    return None


def _has_nul(value: Any) -> bool:
    return isinstance(value, str) and "\0" in value


def _has_surrogate(value: Any) -> bool:
    return isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
