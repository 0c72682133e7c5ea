"""Secrets in text: found by shape, replaced by `***`, before anything is logged, printed or raised."""

from __future__ import annotations

import re
from typing import Any

MASK = "***"

_SECRET_NAME = re.compile(r"passw|secret|token|api_?key|authorization|credential|private_?key", re.IGNORECASE)
# Userinfo reaches to the last '@' before white space, because passwords with '@' or '/' are common; a comma list of
# URLs is masked one URL at a time.
_USERINFO = re.compile(r"://(?:([^:@/\s]*):)?(?:(?!,[a-z][a-z0-9+]*://)[^\s])*@", re.IGNORECASE)
# The name may end in a quote, plain or escaped: most secrets in messages are in the repr of a mapping or in JSON.
_ASSIGNMENT = re.compile(
    r"""(?i)\b([\w.-]*(?:passw(?:or)?d|passwd|secret|token|api[_-]?key)[\w.-]*)(\\*["']?\s*[=:]\s*)"""
    r"""(b?"(?:\\.|[^"\\])*"|b?'(?:\\.|[^'\\])*'|\\+"(?:(?!\\+").)*\\+"|[^\s&,;]+)"""
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_SUSPECT = re.compile(r"(?i)://[^\s]*@|passw|secret|token|api[_-]?key|bearer\s|basic\s")
_MARK = re.compile(r"://|passw|secret|token|api|bearer|basic")
"""Is in every text the expression above finds, in small letters: without the cases a search takes a tenth of the time."""


def secret_name(name: str) -> bool:
    """Whether a value stored under this name must not be shown."""
    return _SECRET_NAME.search(name) is not None


def redacted_text(text: str) -> str:
    """The text with passwords in URLs, `password=...` pairs and bearer tokens masked."""
    if _harmless(text) or _SUSPECT.search(text) is None:
        return text
    text = _USERINFO.sub(_masked_userinfo, text)
    text = _ASSIGNMENT.sub(rf"\1\2{MASK}", text)
    return _BEARER.sub(rf"\1 {MASK}", text)


def _harmless(text: str) -> bool:
    """A first look at plain text; other letters have cases of their own, which only the expression knows."""
    return text.isascii() and _MARK.search(text.lower()) is None


def redacted(value: Any, *, depth: int = 6) -> Any:
    """The same value without secrets: strings are searched, mappings also judged by key; deeper than `depth` is cut."""
    if isinstance(value, str):
        return redacted_text(value)
    if isinstance(value, dict):
        if depth == 0:
            return "..."
        return {
            key: MASK if isinstance(key, str) and secret_name(key) else redacted(item, depth=depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return "..." if depth == 0 else [redacted(item, depth=depth - 1) for item in value]
    return value


def _masked_userinfo(match: re.Match[str]) -> str:
    # A lone user part is masked too: for the bus it is an access token.
    user = match.group(1)
    return f"://{MASK}@" if user is None else f"://{user}:{MASK}@"
