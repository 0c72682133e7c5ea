"""Call and Reply: one HTTP request as a handler sees it, and its answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from agent_engines.domain.errors import InvalidRequest, Malformed
from agent_engines.domain.traces import TRACEPARENT

from .intake import Intake
from .problems import MEDIA_TYPE, NotAcceptable, Problem, UnsupportedMediaType

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

Shape = TypeVar("Shape")
Value = TypeVar("Value")

_PLACE = re.compile(r" - at `(?:key in )?\$(?P<place>.*)`$")
_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]*)`")
_MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")

encode = msgspec.json.encode


class ClientGone(Exception):
    """The caller hung up; there is nobody left to answer."""


class Call:
    """One request. `params` are the parts of the path, as matched."""

    __slots__ = ("_headers", "_receive", "_scope", "intake", "params", "request_id")

    def __init__(self, scope: Scope, receive: Receive, intake: Intake) -> None:
        self._scope = scope
        self._receive = receive
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self.intake = intake
        self.params: dict[str, str] = {}
        self.request_id = ""

    @property
    def method(self) -> str:
        return self._scope["method"]

    @property
    def path(self) -> str:
        return self._scope["path"]

    def header(self, name: bytes) -> str | None:
        """By lower case name."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context when it is well formed, else None: a broken one starts a new trace."""
        value = self.header(b"traceparent")
        return value if value is not None and TRACEPARENT.fullmatch(value) else None

    async def body(self, limit: int) -> bytes:
        """The whole JSON body. Raises TooLarge, BodyTimeout, UnsupportedMediaType."""
        media_type = self._headers.get(b"content-type")
        if media_type is not None and not _is_json(media_type):
            raise UnsupportedMediaType(f"the body must be application/json, not {media_type.decode('latin-1')[:100]}")
        return await self.intake.read(self._headers, self._receive, limit)

    def query(self, shape: type[Shape]) -> Shape:
        """The query string as a struct. Raises InvalidRequest naming the parameter."""
        raw: bytes = self._scope.get("query_string", b"")
        if not raw:
            # Every parameter of every route has a default.
            return shape()
        given = dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True))
        for name, value in given.items():
            # PostgreSQL text cannot hold NUL, so nothing can be filed under such a value.
            if "\0" in value:
                raise InvalidRequest(f"{name} must not contain NUL characters", field=name)
        try:
            return msgspec.convert(given, shape, strict=False)
        except msgspec.ValidationError as error:
            raise invalid(error) from None

    def accept(self, *media_types: str) -> None:
        """Raises NotAcceptable when the Accept header excludes all of these."""
        wanted = self._headers.get(b"accept")
        if wanted is None or wanted == b"*/*" or _accepts(wanted.decode("latin-1").lower(), media_types):
            return
        raise NotAcceptable(f"this route answers with {' or '.join(media_types)}")

    async def gone(self) -> None:
        """Return when the caller has hung up. Only after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def unless_gone(self, work: Coroutine[Any, Any, Value]) -> Value:
        """The result of `work`, or ClientGone: nobody waits on for a caller who left."""
        job = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self.gone())
        try:
            await asyncio.wait((job, gone), return_when=asyncio.FIRST_COMPLETED)
            if job.done():
                return job.result()
            raise ClientGone
        finally:
            job.cancel()
            gone.cancel()
            await asyncio.gather(job, gone, return_exceptions=True)


class Reply:
    """A complete answer. `headers` may be added to until it is written."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes = b"", media_type: bytes | None = None) -> None:
        self.status = status
        self.body = body
        self.headers: list[tuple[bytes, bytes]] = []
        if media_type is not None:
            self.headers.append((b"content-type", media_type))

    async def write(self, call: Call, send: Send) -> None:
        if self.status != 204:
            self.headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


def json_reply(status: int, value: Any, *headers: tuple[bytes, bytes]) -> Reply:
    reply = Reply(status, encode(value), b"application/json")
    reply.headers.extend(headers)
    return reply


def problem_reply(problem: Problem, *headers: tuple[bytes, bytes]) -> Reply:
    reply = Reply(problem.status, encode(problem), MEDIA_TYPE)
    if problem.retry_after is not None:
        reply.headers.append((b"retry-after", b"%d" % problem.retry_after))
    reply.headers.extend(headers)
    return reply


def decoded(body: bytes, shape: type[Shape]) -> Shape:
    """The body as a struct. Raises Malformed, or InvalidRequest naming the field."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the body is not valid JSON: {error}") from None


def invalid(error: msgspec.ValidationError) -> InvalidRequest:
    """`Expected int - at $.limit` as an InvalidRequest with the field `limit`."""
    text = str(error)
    if unknown := _UNKNOWN.search(text):
        return InvalidRequest(f"there is no field {unknown['name']!r}", field=unknown["name"])
    if missing := _MISSING.search(text):
        return InvalidRequest(f"{missing['name']} is missing", field=missing["name"])
    place = _PLACE.search(text)
    field = place["place"].lstrip(".") if place else "body"
    detail = text[: place.start()] if place else text
    return InvalidRequest(f"{field}: {detail}", field=field)


def _is_json(media_type: bytes) -> bool:
    essence = media_type.split(b";", 1)[0].strip().lower()
    return essence == b"application/json" or (essence.startswith(b"application/") and essence.endswith(b"+json"))


def _accepts(wanted: str, offered: tuple[str, ...]) -> bool:
    for item in wanted.split(","):
        media_range, *options = (part.strip() for part in item.split(";"))
        if any(option.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for option in options):
            continue
        if media_range == "*/*" or any(
            media_range in (media_type, media_type.split("/")[0] + "/*") for media_type in offered
        ):
            return True
    return False
