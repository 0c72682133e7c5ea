"""Lease renewals over a plain blocking socket: a connection of its own, because the loop's may stand still.

Opened when the first lease is old enough to be renewed, closed when none was for a while. It only says CONNECT, PUB
and PING; the PONG behind the renewals is their confirmation.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from agent_engines.domain.errors import Unavailable
from agent_engines.ports.bus import Delivery
from agent_engines.ports.telemetry import Log

from .connection import Connection
from .parser import MAX_LINE

RENEW_SECONDS = 4.5
STEP_SECONDS = 2.0
"""One wait for the server, connecting included."""
IDLE_SECONDS = 60.0
"""A socket unused for longer is made anew: its server may have given up on the pings nobody answered."""
VERB = b" 4\r\n+WPI\r\n"


class SocketLine:
    """Implements ports.bus.LeaseLine: for one thread; `close` may come from another."""

    def __init__(self, connection: Connection, log: Log) -> None:
        self._connection = connection
        self._log = log
        self._socket: socket.socket | None = None
        self._rest = b""
        self._used_at = 0.0
        self._turn = 0
        self._closed = False
        self._busy = False

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        self._busy = True
        try:
            if self._closed:
                raise Unavailable("the line is closed")
            if deliveries:
                self._renew(deliveries)
        finally:
            self._busy = False
            if self._closed:
                self._drop()

    def close(self) -> None:
        self._closed = True
        line = self._socket
        if line is not None:
            # Wakes the thread that waits in it, which then closes it; closing under its feet would not.
            with suppress(OSError):
                socket.socket.shutdown(line, socket.SHUT_RDWR)
        if not self._busy:
            self._drop()

    def _renew(self, deliveries: Sequence[Delivery]) -> None:
        block = b"".join([b"PUB %b%b" % (cast("bytes", delivery.token), VERB) for delivery in deliveries])
        until = time.monotonic() + RENEW_SECONDS
        if self._socket is not None and time.monotonic() - self._used_at > IDLE_SECONDS:
            self._drop()
        known = self._socket is not None
        try:
            self._send(block, until)
        except (OSError, ValueError) as error:
            self._drop()
            # Another server, or the same one after a restart: a socket that was open says nothing about now.
            if not known or self._closed or time.monotonic() > until:
                raise Unavailable(f"leases could not be renewed: {error or type(error).__name__}") from error
            try:
                self._send(block, until)
            except (OSError, ValueError) as again:
                self._drop()
                raise Unavailable(f"leases could not be renewed: {again or type(again).__name__}") from again

    def _send(self, block: bytes, until: float) -> None:
        """Raises OSError, ValueError."""
        if self._socket is None:
            self._connect(until)
        line = self._socket
        if line is None or self._closed:
            raise ConnectionError("the line is closed")
        _patience(line, until)
        line.sendall(block + b"PING\r\n")
        self._until_pong(line, until)
        self._used_at = time.monotonic()

    def _connect(self, until: float) -> None:
        servers = self._connection.servers
        url = urlsplit(servers[self._turn % len(servers)])
        self._turn += 1
        host, port = url.hostname or "", url.port or 4222
        line = socket.create_connection((host, port), timeout=max(0.1, min(STEP_SECONDS, until - time.monotonic())))
        self._socket = line
        try:
            if self._closed:
                raise ConnectionError("the line is closed")
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._greet(line, host, until)
        except BaseException:
            self._drop()
            raise
        # The next attempt after a failure is with the next server; after a success with this one.
        self._turn -= 1

    def _greet(self, line: socket.socket, host: str, until: float) -> None:
        tls, first = self._connection.encryption
        if tls is not None and first:
            line = self._encrypted(tls, host, until)
        word, _, rest = self._line(line, until).partition(b" ")
        if word.upper() != b"INFO":
            raise ConnectionError("this is not a NATS server")
        info: dict[str, Any] = msgspec.json.decode(rest)
        if not first and (tls is not None or info.get("tls_required")):
            if not (info.get("tls_required") or info.get("tls_available")):
                raise ConnectionError("TLS was asked for but the server offers none; no credentials were sent")
            line = self._encrypted(tls or ssl.create_default_context(), host, until)
        line.sendall(self._connection.introduction(info))

    def _encrypted(self, tls: ssl.SSLContext, host: str, until: float) -> socket.socket:
        plain = self._socket
        if plain is None:
            raise ConnectionError("the line is closed")
        _patience(plain, until)
        self._socket = tls.wrap_socket(plain, server_hostname=host)
        return self._socket

    def _until_pong(self, line: socket.socket, until: float) -> None:
        while True:
            word = self._line(line, until)
            if word == b"PONG":
                return
            if word == b"PING":
                line.sendall(b"PONG\r\n")
            elif word.startswith(b"-ERR"):
                # A refused renewal does not end the connection; refused credentials do, and then there is no PONG.
                self._log.warning("The bus refused a renewal", error=word[5:].decode("utf-8", "replace"))

    def _line(self, line: socket.socket, until: float) -> bytes:
        """The next control line. Nothing else comes: this connection subscribes to nothing."""
        while (end := self._rest.find(b"\r\n")) < 0:
            _patience(line, until)
            data = line.recv(4096)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._rest += data
            if len(self._rest) > MAX_LINE:
                raise ConnectionError("this is not a NATS server")
        word, self._rest = self._rest[:end], self._rest[end + 2 :]
        return word

    def _drop(self) -> None:
        line, self._socket, self._rest = self._socket, None, b""
        if line is not None:
            with suppress(OSError):
                line.close()


def _patience(line: socket.socket, until: float) -> None:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    line.settimeout(min(STEP_SECONDS, left))
