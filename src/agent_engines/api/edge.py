"""Edge: the ASGI application around the operations. Every request gets an id, a bound, and an answer that is never a stack trace."""

from __future__ import annotations

import asyncio
import re
import secrets
import traceback
from collections.abc import MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from agent_engines.domain.errors import AgentEnginesError, Unavailable
from agent_engines.ports.telemetry import Log

from .exchange import Call, ClientGone, Receive, Reply, Scope, Send, problem_reply
from .intake import BodyLost, Intake
from .limits import ApiLimits
from .problems import BodyTimeout, Forbidden, MethodNotAllowed, TooLarge, kind_of, problem
from .routing import Operation, Routes

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_CLOSE = (b"connection", b"close")
_NOSNIFF = (b"x-content-type-options", b"nosniff")


class Edge:
    """An ASGI application. `begin_drain()` makes it ask every caller to go elsewhere while it finishes what it has."""

    def __init__(self, *, limits: ApiLimits, log: Log) -> None:
        self.draining = asyncio.Event()
        self.in_flight = 0
        self._routes = Routes(())
        self._limits = limits
        self._intake = Intake(limits)
        self._log = log
        self._id_prefix = secrets.token_hex(6)
        self._ids = 0

    def serve(self, operations: Sequence[Operation]) -> None:
        """Set what this application can do; before, everything is a 404."""
        self._routes = Routes(operations)

    def begin_drain(self) -> None:
        """From now on each answer closes its connection and event streams end, so that clients reconnect elsewhere."""
        self.draining.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _other_protocol(scope, receive, send)
            return
        call = Call(scope, receive, self._intake)
        call.request_id = self._request_id(call)
        try:
            reply = await self._answer(call)
        except (ClientGone, BodyLost):
            return
        reply.headers.append((b"x-request-id", call.request_id.encode()))
        reply.headers.append(_NOSNIFF)
        if self.draining.is_set():
            reply.headers.append(_CLOSE)
        await reply.write(call, send)

    async def _answer(self, call: Call) -> Reply:
        self.in_flight += 1
        try:
            operation, call.params = self._routes.find(call.method, call.path)
            if not operation.probe and self.in_flight > self._limits.in_flight:
                raise Unavailable("too many requests are being answered at once", retry_after=1.0)
            if call.method not in _SAFE:
                refuse_other_sites(call)
            return await operation.handler(call)
        except AgentEnginesError as error:
            return self._refusal(error, call)
        except (ClientGone, BodyLost):
            raise
        except Exception as error:
            return self._refusal(error, call)
        finally:
            self.in_flight -= 1

    def _refusal(self, error: Exception, call: Call) -> Reply:
        if kind_of(error).status == 500:
            self._log.error(
                "Request failed unexpectedly",
                request_id=call.request_id,
                method=call.method,
                path=call.path[:200],
                error=repr(error),
                traceback="".join(traceback.format_exception(error)),
            )
        reply = problem_reply(problem(error, call.request_id))
        if isinstance(error, MethodNotAllowed):
            reply.headers.append((b"allow", ", ".join(error.allowed).encode()))
        if isinstance(error, BodyTimeout | TooLarge):
            # The rest of the body may still be on its way; the connection is of no use any more.
            reply.headers.append(_CLOSE)
        return reply

    def _request_id(self, call: Call) -> str:
        given = call.header(b"x-request-id")
        if given is not None and REQUEST_ID.fullmatch(given):
            return given
        self._ids += 1
        return f"{self._id_prefix}-{self._ids:x}"


def refuse_other_sites(call: Call) -> None:
    """Raise Forbidden when a browser says that a page of another origin asks for this.

    The rule of Go's net/http.CrossOriginProtection: Sec-Fetch-Site when there is one, else Origin against Host. Programs
    send neither and pass.
    """
    site = call.header(b"sec-fetch-site")
    if site is not None:
        if site in ("same-origin", "none"):
            return
        raise Forbidden("a page of another origin cannot change anything here")
    origin = call.header(b"origin")
    if origin is not None and _authority(origin) != call.header(b"host"):
        raise Forbidden("a page of another origin cannot change anything here")


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _other_protocol(scope: Scope, receive: Receive, send: Send) -> None:
    """Lifespan is answered, since some servers insist; websockets are refused."""
    if scope["type"] == "lifespan":
        message: MutableMapping[str, Any] = {}
        while message.get("type") != "lifespan.shutdown":
            message = await receive()
            await send({"type": message["type"] + ".complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1003})
