"""One log line: the same seven keys always, secrets masked, control characters escaped. Two forms: JSON and console."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from agent_engines.domain.redaction import MASK, redacted, redacted_text, secret_name

Render = Callable[[float, str, str, str, dict[str, Any], tuple[str, str] | None], bytes]
"""(epoch seconds, level, logger, message, context, (trace id, span id)) -> the line with its newline."""

# JSON escapes what is below 0x20; DEL, C1 controls and the Unicode line separators would still reach a terminal.
_CONTROL_BYTES = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
_CONTROL_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN = frozenset({int, float, bool, type(None)})
_COLORS = {"DEBUG": "\x1b[2m", "INFO": "\x1b[32m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m"}
_RESET = "\x1b[0m"

_is_secret = lru_cache(maxsize=4096)(secret_name)


def json_line(
    at: float, level: str, logger: str, message: str, context: dict[str, Any], trace: tuple[str, str] | None
) -> bytes:
    """One JSON object: timestamp, level, logger, message, context, trace_id, span_id."""
    trace_id, span_id = trace or (None, None)
    line = {
        "timestamp": timestamp(at),
        "level": level,
        "logger": logger,
        "message": redacted_text(message),
        "context": clean(context),
        "trace_id": trace_id,
        "span_id": span_id,
    }
    try:
        encoded = _encode(line)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Something that is no JSON: lone surrogates, huge numbers, rings. The line still has to come out.
        line["message"], line["context"] = _text(message), {str(key): _text(value) for key, value in context.items()}
        encoded = _encode(redacted(line))
    if not encoded.isascii() or b"\x7f" in encoded:
        encoded = _CONTROL_BYTES.sub(_escaped_bytes, encoded)
    return encoded + b"\n"


def console_line(color: bool) -> Render:
    """Lines for people: time, level, logger, message, key=value."""

    def render(
        at: float, level: str, logger: str, message: str, context: dict[str, Any], trace: tuple[str, str] | None
    ) -> bytes:
        fields = {**clean(context), **({"trace_id": trace[0]} if trace else {})}
        shown = _CONTROL_TEXT.sub(_escaped_text, _text(redacted_text(message)))
        pairs = "".join(f" {key}={_CONTROL_TEXT.sub(_escaped_text, _text(item))}" for key, item in fields.items())
        painted = f"{_COLORS.get(level, '')}{level:<7}{_RESET}" if color else f"{level:<7}"
        return f"{timestamp(at)[11:23]} {painted} {logger}  {shown}{pairs}\n".encode()

    return render


def timestamp(at: float) -> str:
    """ISO 8601, UTC, milliseconds, Z."""
    milliseconds = int(at * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


def clean(context: dict[str, Any]) -> dict[str, Any]:
    """The context without secrets: judged by key, and strings by what they contain."""
    return {
        key: item if type(item) in _PLAIN else MASK if _is_secret(key) else redacted(item)
        for key, item in context.items()
    }


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def _text(value: Any) -> str:
    try:
        return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    except Exception as error:  # a foreign __str__ may do anything
        return f"<{type(value).__name__}: {type(error).__name__}>"


def _escaped_bytes(match: re.Match[bytes]) -> bytes:
    return b"".join(b"\\u%04x" % ord(char) for char in match[0].decode("utf-8"))


def _escaped_text(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


_encode = msgspec.json.Encoder(enc_hook=_text).encode
