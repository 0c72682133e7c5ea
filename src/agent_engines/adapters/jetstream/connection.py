"""One connection to NATS that notices when it is dead, comes back by itself, and says so once."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from nats.errors import Error

from agent_engines.domain.errors import ConfigurationError, Unavailable
from agent_engines.ports.telemetry import Log

from .client import RawClient, RawHandler

CONNECT_SECONDS = 3.0
PROBE_SECONDS = 3.0
"""How often the connection proves that it lives (RELIABILITY 3.1: a read loop may die while it says "connected")."""
PROBE_LIMIT_SECONDS = 2.0
FLUSH_SECONDS = 1.5
REFUSED = "the server refused the credentials"
MAX_LATE_BYTES = 4 << 20
"""Acknowledgements kept while the server is away; more are dropped, which only means redeliveries."""


@dataclass(frozen=True, slots=True)
class Security:
    """Who we are towards the server; a user and password may also stand in the URL."""

    credentials_file: str | None = None
    nkey_seed_file: str | None = None
    tls: ssl.SSLContext | None = None
    tls_first: bool = False
    inbox_prefix: str = "_INBOX"


@dataclass(frozen=True, slots=True)
class Address:
    """Server URLs without secrets, and the secret apart."""

    urls: list[str]
    user: str | None
    password: str | None = field(repr=False)
    token: str | None = field(repr=False)
    require_tls: bool

    @classmethod
    def parse(cls, servers: str) -> Address:
        """Split a comma list of nats:// or tls:// URLs. Raises ConfigurationError, never naming a secret."""
        urls: list[str] = []
        user = password = token = None
        require_tls = False
        for server in filter(None, map(str.strip, servers.split(","))):
            parts = urlsplit(server if "://" in server else f"nats://{server}")
            host = parts.hostname
            if parts.scheme not in ("nats", "tls") or not host or not _port_is_valid(parts):
                raise ConfigurationError(["NATS_URL has an entry that is not nats://host:port or tls://host:port"])
            require_tls = require_tls or parts.scheme == "tls"
            if parts.username and user is None and token is None:
                if parts.password is None:
                    token = unquote(parts.username)
                else:
                    user, password = unquote(parts.username), unquote(parts.password)
            host = f"[{host}]" if ":" in host else host
            urls.append(f"{parts.scheme}://{host}:{parts.port or 4222}")
        if not urls:
            raise ConfigurationError(["NATS_URL is empty; give nats://host:port"])
        return cls(urls, user, password, token, require_tls)

    @property
    def hosts(self) -> str:
        return ", ".join(url.partition("://")[2] for url in self.urls)


@dataclass(slots=True, eq=False)
class Feed:
    """A subscription that survives a rebuilt client."""

    subject: str
    queue: str
    handler: RawHandler
    number: int = 0


class Connection:
    """Owns the client, its feeds and the probe. `lost` callbacks run when the server goes away."""

    def __init__(self, address: Address, name: str, security: Security, log: Log) -> None:
        self._address = address
        self._name = name
        self._security = security
        self._log = log
        self._feeds: list[Feed] = []
        self._up = asyncio.Event()
        self._wake = asyncio.Event()
        self._closing = False
        self._probe: asyncio.Task[None] | None = None
        self._last_error = ""
        self._refused: asyncio.Event = asyncio.Event()
        self._client = RawClient(log, require_tls=address.require_tls)
        self.lost: list[Callable[[], None]] = []

    async def open(self) -> None:
        """Raises Unavailable with one readable line when no server answers within three seconds."""
        self._client = await self._dial()
        self._up.set()
        self._probe = asyncio.get_running_loop().create_task(self._watch(), name="bus-probe")

    @property
    def connected(self) -> bool:
        return self._client.alive and not self._closing

    @property
    def max_payload(self) -> int:
        return self._client.max_payload

    @property
    def clustered(self) -> bool:
        """Whether the server said that it belongs to a cluster."""
        return self._client.clustered

    @property
    def servers(self) -> list[str]:
        """URLs without secrets, at least one."""
        return self._address.urls

    @property
    def encryption(self) -> tuple[ssl.SSLContext | None, bool]:
        """What to encrypt with (None: only if the server wants it), and whether before the server's first word."""
        tls = self._security.tls
        if tls is None and self._address.require_tls:
            tls = ssl.create_default_context()
        return tls, self._security.tls_first

    def introduction(self, greeting: dict[str, Any]) -> bytes:
        """The CONNECT with our credentials, for another connection on which a server sent this INFO; in any thread."""
        return self._client.introduction(greeting)

    @property
    def feeds(self) -> int:
        """How many subscriptions are open."""
        return len(self._feeds)

    def new_inbox(self) -> str:
        return self._client.new_inbox()

    def require(self) -> None:
        """Raises Unavailable when there is no connection now."""
        if not self.connected:
            raise Unavailable(f"the bus at {self._address.hosts} is not connected", retry_after=1.0)

    async def until_connected(self, seconds: float) -> bool:
        if self.connected:
            return True
        # The client knows of a lost connection a little earlier than it tells.
        self._up.clear()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._up.wait()
        except TimeoutError:
            return False
        return self.connected

    def write(self, block: bytes) -> None:
        """Send protocol bytes; the caller has checked the connection and bounds how much is under way."""
        self._client.write(block)

    @property
    def clogged(self) -> bool:
        """True when the server takes nothing any more and much waits already."""
        return self._client.pending_data_size > MAX_LATE_BYTES

    def write_late(self, block: bytes) -> bool:
        """Send now or after the reconnect; False when too much waits already and this was dropped."""
        if self._closing or self._client.is_closed:
            return False
        if not self._client.is_connected and self._client.pending_data_size + len(block) > MAX_LATE_BYTES:
            return False
        self._client.write(block)
        return True

    async def feed(self, subject: str, handler: RawHandler, queue: str = "") -> Feed:
        """Subscribe for as long as this connection lives, over reconnects and rebuilds."""
        self.require()
        feed = Feed(subject, queue, handler)
        self._feeds.append(feed)
        try:
            feed.number = await self._client.feed(subject, handler, queue)
        except Error as error:
            self._feeds.remove(feed)
            raise Unavailable(f"the bus refused a subscription: {error}") from error
        return feed

    async def stop_feed(self, feed: Feed) -> None:
        if feed not in self._feeds:
            return
        self._feeds.remove(feed)
        try:
            await self._client.stop_feed(feed.number)
        except Error as error:
            self._log.debug("A subscription ended with its connection", error=str(error))

    async def ping(self, timeout: float) -> bool:
        return not self._closing and await self._client.ping(timeout)

    async def close(self) -> None:
        """Let the server confirm what was written, then cut; never longer than three seconds."""
        if self._closing:
            return
        if self._client.is_connected:
            await self._client.ping(FLUSH_SECONDS)
        self._closing = True
        self._up.clear()
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await self._discard(self._client)
        self._tell_lost()

    async def _dial(self) -> RawClient:
        """A connected client. Raises Unavailable."""
        client = RawClient(self._log, require_tls=self._address.require_tls)
        self._refused.clear()
        self._last_error = "no answer"
        dialing = asyncio.ensure_future(client.connect(**self._settings()))
        refused = asyncio.ensure_future(self._refused.wait())
        try:
            await asyncio.wait({dialing, refused}, timeout=CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if dialing.done() and dialing.exception() is None and client.is_connected:
                return client
            if self._refused.is_set():
                self._last_error = REFUSED
            elif dialing.done() and (error := dialing.exception()) is not None:
                self._last_error = str(error)
            problem = self._last_error
        finally:
            refused.cancel()
            if not client.is_connected:
                dialing.cancel()
                await asyncio.gather(dialing, return_exceptions=True)
                await self._discard(client)
        raise Unavailable(f"cannot connect to NATS at {self._address.hosts}: {problem}", retry_after=1.0)

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            # In an order of its own for each client, kept: after a loss the server that was lost is tried last.
            "servers": random.sample(self._address.urls, len(self._address.urls)),
            "dont_randomize": True,
            "name": self._name,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_lost,
            "reconnected_cb": self._on_back,
            "closed_cb": self._on_closed,
            "ping_interval": 5,
            "max_outstanding_pings": 2,
            "connect_timeout": 2,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.2 + random.uniform(0, 0.1),
            "pending_size": 1 << 20,
            "inbox_prefix": self._security.inbox_prefix,
            "tls_handshake_first": self._security.tls_first,
            "user": self._address.user,
            "password": self._address.password,
            "token": self._address.token,
            "user_credentials": self._security.credentials_file,
            "nkeys_seed": self._security.nkey_seed_file,
        }
        if self._security.tls is not None or self._address.require_tls:
            settings["tls"] = self._security.tls or ssl.create_default_context()
        return settings

    async def _watch(self) -> None:
        """Probe for ever; force a reconnect after two misses, build a new client when this one is beyond help."""
        misses = 0
        while True:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS if misses == 0 else 1.0):
                    await self._wake.wait()
            try:
                misses = await self._probe_once(misses)
            except Exception as error:
                self._log.error("The bus probe failed", error=repr(error))

    async def _probe_once(self, misses: int) -> int:
        """Returns how many probes in a row have failed now."""
        if self._client.beyond_help:
            await self._rebuild()
            return 0
        if not self._client.is_connected or await self._client.ping(PROBE_LIMIT_SECONDS):
            return 0
        if misses == 0:
            return 1
        self._log.warning("The bus does not answer; reconnecting", servers=self._address.hosts)
        await self._client.force_reconnect()
        return 0

    async def _rebuild(self) -> None:
        self._tell_lost()
        client: RawClient | None = None
        try:
            client = await self._dial()
            for feed in list(self._feeds):
                feed.number = await client.feed(feed.subject, feed.handler, feed.queue)
        except (Unavailable, Error, OSError) as error:
            if client is not None:
                await self._discard(client)
            self._log.warning("The bus connection could not be rebuilt", error=str(error))
            await asyncio.sleep(0.5 + random.uniform(0, 0.5))
            self._wake.set()
            return
        self._client = client
        self._log.info("The bus connection was rebuilt", servers=self._address.hosts)
        self._up.set()

    async def _discard(self, client: RawClient) -> None:
        try:
            async with asyncio.timeout(1.0):
                await client.close()
        except (TimeoutError, OSError, Error, AssertionError, AttributeError) as error:
            # A client that never connected lacks half of its parts.
            self._log.debug("A bus client did not close cleanly", error=repr(error))
        client.cut()

    def _tell_lost(self) -> None:
        self._up.clear()
        self._client.drop_pings()
        for callback in list(self.lost):
            callback()

    async def _on_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if "uthorization" in text or "uthentication" in text:
            self._refused.set()
            text = REFUSED
        if text != self._last_error:
            self._last_error = text
            self._log.warning("Bus error", error=text, servers=self._address.hosts)

    async def _on_lost(self) -> None:
        if not self._closing:
            self._log.warning("Bus connection lost", servers=self._address.hosts)
            self._tell_lost()

    async def _on_back(self) -> None:
        self._last_error = ""
        self._log.info("Bus connection is back", servers=self._address.hosts)
        self._up.set()

    async def _on_closed(self) -> None:
        self._wake.set()


def _port_is_valid(parts: Any) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False
