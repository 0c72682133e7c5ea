"""The HTTP server: uvicorn inside our own loop, under our own signals, bounded before a request even exists.

uvicorn guards neither the size of a request's head nor the time a client takes to send it, and answers protocol errors
in plain text; the protocol below adds that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from secrets import token_hex
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from agent_engines.domain.errors import ConfigurationError

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds on connections. Bytes and seconds."""

    head_bytes: int = 16 * 1024
    """Request line and headers: 431 beyond."""
    head_seconds: float = 5.0
    """A begun head must be complete by then; a new connection must have sent one."""
    keep_alive_seconds: int = 65
    """Above the 60 s that load balancers keep idle connections, so that it is they who close."""
    connections: int = 10_000
    backlog: int = 2048


class HttpServer:
    """Serves one ASGI application. Start once; stop as often as you like.

    `drain` tells the application that its end is near: event streams end, answers close their connections.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        host: str,
        port: int,
        drain: Callable[[], None] | None = None,
        limits: ServerLimits | None = None,
    ) -> None:
        self._drain = drain
        self._host = host
        self._port = port
        self._limits = limits or ServerLimits()
        self._config = uvicorn.Config(
            app,
            http=_bounded(self._limits),
            ws="none",
            loop="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=self._limits.backlog,
            timeout_keep_alive=self._limits.keep_alive_seconds,
        )
        self._server = _Server(self._config)
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port in use; what 0 was resolved to once started."""
        return self._port

    @property
    def url(self) -> str:
        everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where to reach it, not where to bind
        host = everywhere.get(self._host, self._host)
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Listen; requests are answered when this returns. Raises ConfigurationError when the address cannot be had."""
        listener = self._bind()
        self._port = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http-server")
        listening = asyncio.create_task(self._server.listening.wait(), name="http-listening")
        try:
            await asyncio.wait((self._serving, listening), return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
        if self._serving.done():
            listener.close()
            await self._serving

    def drain(self) -> None:
        """Still answer, but send callers elsewhere: /ready is 503 from here on. To be called at the first signal."""
        if self._drain is not None:
            self._drain()

    async def stop(self, grace_seconds: float = 20.0) -> None:
        """Close the listener, finish open requests within the grace, then cut what is left."""
        self.drain()
        if self._serving is None:
            return
        grace_seconds = max(0.0, grace_seconds)
        # uvicorn declares whole seconds and hands them to asyncio.wait_for, which takes fractions.
        self._config.timeout_graceful_shutdown = grace_seconds  # pyright: ignore[reportAttributeAccessIssue]
        self._server.should_exit = True
        await asyncio.wait((self._serving,))
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()  # pyright: ignore[reportOptionalMemberAccess]
        serving, self._serving = self._serving, None
        await serving

    def _bind(self) -> socket.socket:
        listener = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
        except (OSError, OverflowError) as error:
            listener.close()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigurationError(
                [f"AGENT_HTTP_HOST, AGENT_HTTP_PORT: cannot listen on {self._host}:{self._port}: {reason}"]
            ) from None
        listener.setblocking(False)
        return listener


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, telling when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


def _bounded(limits: ServerLimits) -> type[asyncio.Protocol]:
    return type("BoundedHttpProtocol", (_BoundedProtocol,), {"bounds": limits})


class _BoundedProtocol(HttpToolsProtocol):
    """Counts the bytes of a head and the seconds it takes.

    No timer is started for a head that arrives in one piece, which is nearly every one.
    """

    bounds: ServerLimits
    _in_head = True
    _arrived = 0
    """Bytes received while the head is incomplete: an endless header line is seen here."""
    _parsed = 0
    """Bytes of finished header lines: a large head that came in one piece is seen here."""
    _head_timer: asyncio.TimerHandle | None = None
    _verdict: HTTPStatus = HTTPStatus.BAD_REQUEST

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_head:
            self._arrived += len(data)
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        if self._arrived > self.bounds.head_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._head_timer is None:
            self._start_timer()

    def on_message_begin(self) -> None:
        self._in_head = True
        self._parsed = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._arrived = 0
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._verdict)

    def _count(self, size: int) -> None:
        self._parsed += size
        if self._parsed > self.bounds.head_bytes:
            self._verdict = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            # Raising inside a parser callback ends the parsing; uvicorn then asks for send_400_response.
            raise ValueError("the head of this request is too large")

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.bounds.head_seconds, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._in_head or self.transport.is_closing():
            return
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and not cycle.response_complete:
            # The answer to the request before has not been written yet; nothing may come in front of it.
            self._start_timer()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        # The same members as every other problem; nobody has read a request id yet.
        problem = {
            "type": "about:blank",
            "title": status.phrase,
            "status": int(status),
            "detail": status.description,
            "request_id": token_hex(8),
        }
        body = json.dumps(problem).encode()
        retry = b"retry-after: 1\r\n" if status is HTTPStatus.SERVICE_UNAVAILABLE else b""
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, status.phrase.encode(), retry, len(body), body)
        )
        self.transport.close()
