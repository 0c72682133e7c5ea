"""From text to checked values. Each parser returns the value or raises ValueError saying what would be right."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from agent_engines.domain.agents import AGENT_ID
from agent_engines.domain.hints import STRATEGY
from agent_engines.domain.redaction import MASK, redacted_text

Parser = Callable[[str], Any]

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_LOST_PASSWORD = re.compile(r"(://[^:@/]+):(?![0-9]{1,9}(?:[/?,]|$))[^@]*$")
_HOST = re.compile(r"[A-Za-z0-9._:%-]+|\[[0-9a-fA-F:.%]+\]")


def whole(low: int, high: int) -> Parser:
    """A whole number from `low` to `high`."""
    allowed = f"a whole number from {low} to {high}"

    def parse(text: str) -> int:
        if re.fullmatch(r"[+-]?[0-9]{1,18}", text) is None or not low <= int(text) <= high:
            raise ValueError(allowed)
        return int(text)

    return parse


def seconds(low: float, high: float) -> Parser:
    """A number of seconds from `low` to `high`, fractions allowed."""
    allowed = f"a number of seconds from {low:g} to {high:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(allowed) from None
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(allowed)
        return value

    return parse


def number(low: float, high: float) -> Parser:
    """A finite number from `low` to `high`."""
    allowed = f"a number from {low:g} to {high:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(allowed) from None
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(allowed)
        return value

    return parse


def strategy(text: str) -> str:
    """The name of a strategy, as it may stand in a request."""
    if STRATEGY.fullmatch(text):
        return text
    raise ValueError("1 to 64 letters, digits, '_', '-' or '.'")


def pairs(form: str, value: Parser) -> Parser:
    """`key=value,...` as a mapping; every key once."""

    def parse(text: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for entry in text.split(","):
            key, equals, told = (part.strip() for part in entry.partition("="))
            if not key or not equals or not told or key in found:
                raise ValueError(f"a comma list of {form}, each once")
            found[key] = value(told)
        return found

    return parse


def choice(*allowed: str, fold: Callable[[str], str] = str.lower) -> Parser:
    """One of a few words, upper or lower case."""

    def parse(text: str) -> str:
        if fold(text) not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return fold(text)

    return parse


def switch(text: str) -> bool:
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise ValueError("true or false")


def anything(text: str) -> str:
    return text


def agent_id(text: str) -> str:
    if AGENT_ID.fullmatch(text) is None:
        raise ValueError("1 to 64 letters, digits, '-' or '_', starting with a letter or digit")
    return text


def host(text: str) -> str:
    if _HOST.fullmatch(text) is None:
        raise ValueError("a host name or an IP address, such as 127.0.0.1")
    return text


def url(*schemes: str, example: str) -> Parser:
    """One URL with one of these schemes and a host."""

    def parse(text: str) -> str:
        _split(text, schemes, example)
        return text

    return parse


def url_list(*schemes: str, example: str) -> Parser:
    """URLs separated by commas."""

    def parse(text: str) -> str:
        parts = [part.strip() for part in text.split(",")]
        for part in parts:
            _split(part, schemes, example)
        return ",".join(parts)

    return parse


def keys(most: int, least_length: int) -> Parser:
    """Secret keys separated by commas, as text without spaces."""
    allowed = f"1 to {most} keys separated by a comma, each of at least {least_length} characters"

    def parse(text: str) -> str:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > most or any(len(part) < least_length for part in parts) or len(set(parts)) < len(parts):
            raise ValueError(allowed)
        return ",".join(parts)

    return parse


def postgres_url(text: str) -> str:
    example = "postgresql://user:password@host:5432/database?sslmode=verify-full"
    parts = _split(text, ("postgresql", "postgres"), example, host_needed=False)
    if "@" in parts.path:
        raise ValueError("%40, %2F and %23 for '@', '/' and '#' in a password")
    mode = parse_qs(parts.query).get("sslmode", ["prefer"])[-1]
    if mode not in SSL_MODES:
        raise ValueError("a URL whose sslmode is one of " + ", ".join(SSL_MODES))
    return text


def redis_url(text: str) -> str:
    """Single servers, clusters (`redis+cluster://a,b`), sentinels (`redis+sentinel://a,b/service`), sockets, memory."""
    example = "redis://:password@host:6379/0"
    plain = ("redis", "rediss")
    schemes = (*plain, *(f"{name}+cluster" for name in plain), *(f"{name}+sentinel" for name in plain))
    scheme = text.partition("://")[0].lower()
    if scheme in ("unix", "memory"):
        return text
    # Several hosts in one URL: each is checked, the others' form is the first one's.
    head, _, rest = text.partition("://")
    userinfo, at, hosts = rest.rpartition("@")
    authority, slash, path = hosts.partition("/")
    for one in authority.split(","):
        _split(f"{head}://{userinfo}{at}{one.strip()}{slash}{path}", schemes, example)
    return text


def shown(text: str, *, secret: bool = False, is_url: bool = False) -> str:
    """A wrong value as an error may show it: no secret, no password, one line, at most 120 characters."""
    if secret:
        return "(hidden)"
    if is_url and "://" not in text:
        return "(hidden: it has no scheme)"
    if is_url:
        # Without '@' the text after the colon may be a password whose host was forgotten.
        text = _LOST_PASSWORD.sub(rf"\1:{MASK}", re.sub(r"[\s\x00-\x1f\x7f]", "", text))
    line = redacted_text(text).encode("unicode_escape").decode("ascii")
    return repr(line if len(line) <= 120 else line[:117] + "...").replace("\\\\", "\\")


def _split(text: str, schemes: tuple[str, ...], example: str, *, host_needed: bool = True) -> SplitResult:
    allowed = f"a URL like {example} ({', '.join(name + '://' for name in schemes)})"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(allowed) from None
    if parts.scheme not in schemes or (host_needed and not parts.hostname) or port == 0 or re.search(r"\s", text):
        raise ValueError(allowed)
    return parts
