"""Connections with deadlines: whoever asks gets an answer or Unavailable, never a wait without end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from agent_engines.adapters.clock import SystemClock
from agent_engines.domain.errors import ConfigurationError, Unavailable
from agent_engines.runtime.dependency import Dependency
from agent_engines.runtime.local import LocalTelemetry

from .arrays import teach
from .keeper import Keeper
from .queries import queries

Answer = TypeVar("Answer")
Connection = PoolConnectionProxy
Row = asyncpg.Record

ASK_SECONDS = 2.0
"""How long a caller of the API waits for a free connection."""
RECORD_SECONDS = 10.0
"""How long the recorder does: it has nothing better to do, and the bus keeps its reports meanwhile."""
CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 10.0
"""The server gives up a statement after this; the client a second later, in case the server cannot say so."""
CLOSE_SECONDS = 1.0
"""Engines have ended what they asked for before they close; a server that stands still does not even say goodbye."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

TRANSIENT = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    # A migration changed a table under a prepared statement; the second attempt prepares it again.
    asyncpg.InvalidCachedStatementError,
    # An agent's row was deleted between its check and the commit.
    asyncpg.ForeignKeyViolationError,
    # Somebody committed the same key between our look and our insert; the second attempt sees it.
    asyncpg.UniqueViolationError,
)
BROKEN = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    ConnectionError,
)
AWAY = (
    *BROKEN,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.OperatorInterventionError,
    TimeoutError,
    OSError,
)
ANSWERS = (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.ReadOnlySQLTransactionError)
"""Errors by which the server proves that it is there."""
UNSTORABLE = (
    asyncpg.DataError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.CheckViolationError,
    UnicodeError,
)
"""What was to be written cannot be: trying again will not help, leaving it out will."""
REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
)
ATTEMPTS = 10
"""Each one lost to a key somebody else committed is progress of somebody else: with many at the same keys a few are lost."""


class Pool:
    """Runs queries by name on pooled connections; see `connect`."""

    def __init__(self, pool: asyncpg.Pool, dsn: str, dependency: Dependency) -> None:
        self._pool = pool
        self._queries = queries()
        self._dsn = dsn
        self._dependency = dependency
        self._keeper = Keeper(dependency, self._probe, back=pool.expire_connections)
        self._keeper.start()

    @classmethod
    async def connect(
        cls, dsn: str, *, minimum: int = 1, maximum: int = 20, dependency: Dependency | None = None
    ) -> Pool:
        """Open `minimum` connections; `dependency` is told when the server goes and comes. Raises Unavailable, ConfigurationError (address or login is wrong)."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                pool = await asyncpg.create_pool(
                    dsn,
                    min_size=min(minimum, maximum),
                    max_size=maximum,
                    command_timeout=COMMAND_SECONDS + 1,
                    init=_begin_session,
                    reset=_end_use,
                    **connection_options(dsn),
                )
        except (*REFUSED, ValueError) as error:
            raise refused(dsn, error) from error
        except AWAY as error:
            raise unreachable(dsn, error) from error
        return cls(pool, dsn, dependency or Dependency("postgres", clock=SystemClock(), telemetry=LocalTelemetry()))

    def refusal(self) -> Unavailable | None:
        """What a call that does not insist would raise at once; None: the server is asked."""
        return self._dependency.refusal()

    async def fetch(self, name: str, *arguments: Any, wait: float = ASK_SECONDS, repeat: bool = True) -> list[Row]:
        """All rows of one query; `wait` and `repeat` as in `run`. Raises Unavailable."""
        text = self._queries[name]
        return await self.run(lambda connection: connection.fetch(text, *arguments), wait=wait, repeat=repeat)

    async def fetch_afresh(self, name: str, *arguments: Any) -> list[Row]:
        """As `fetch`, planned for these arguments: for lists, whose best plan depends on the filters. Raises Unavailable."""

        async def work(connection: Connection) -> list[Row]:
            await connection.execute(self._queries["plan_afresh"])
            return await connection.fetch(self._queries[name], *arguments)

        return await self.in_transaction(work)

    async def run(
        self,
        work: Callable[[Connection], Awaitable[Answer]],
        *,
        wait: float = ASK_SECONDS,
        repeat: bool = True,
        insist: bool = False,
    ) -> Answer:
        """Call `work(connection)`, again after a deadlock and, if it may be repeated, on a fresh connection after a break.

        Waits at most `wait` seconds for a connection. Raises Unavailable when the server does not answer; at once when
        it is known to be away, unless the caller insists.
        """
        refusal = None if insist else self._dependency.refusal()
        if refusal is not None:
            raise refusal
        attempt = 1
        while True:
            try:
                return await self._attempt(work, wait)
            except TRANSIENT as error:
                if attempt >= ATTEMPTS:
                    raise Unavailable(f"PostgreSQL could not settle concurrent writes: {error}") from error
                await asyncio.sleep(0.01 * attempt)
            except AWAY as error:
                _heed_cancellation(error)
                # One repetition: after a restart of the server every idle connection is broken, and a fresh one works.
                if not (repeat and attempt == 1 and isinstance(error, BROKEN)):
                    raise Unavailable(f"PostgreSQL does not answer: {_sentence(error)}") from error
            attempt += 1

    async def _attempt(self, work: Callable[[Connection], Awaitable[Answer]], wait: float) -> Answer:
        """One call, counted by what it says about the server."""
        answered = True
        self._keeper.began()
        try:
            async with self._pool.acquire(timeout=wait) as connection:
                answer = await work(connection)
            self._dependency.worked()
            return answer
        except asyncio.CancelledError:
            answered = False
            raise
        except AWAY as error:
            answered = isinstance(error, ANSWERS)
            _heed_cancellation(error)
            if answered:
                self._dependency.worked()
            else:
                self._dependency.failed(type(error).__name__)
            raise
        finally:
            self._keeper.ended(answered=answered)

    async def _probe(self) -> None:
        """A connection of its own and one query. Raises whatever goes wrong."""
        connection = await asyncpg.connect(self._dsn, **connection_options(self._dsn))
        try:
            await connection.fetchval("SELECT 1")
        finally:
            connection.terminate()

    async def in_transaction(
        self,
        work: Callable[[Connection], Awaitable[Answer]],
        *,
        wait: float = ASK_SECONDS,
        repeat: bool = True,
        insist: bool = False,
    ) -> Answer:
        """As `run`, with everything `work` does committed together."""

        async def committed(connection: Connection) -> Answer:
            async with connection.transaction():
                return await work(connection)

        return await self.run(committed, wait=wait, repeat=repeat, insist=insist)

    async def close(self) -> None:
        """Let what runs finish for CLOSE_SECONDS, then cut: whoever still waits gets Unavailable. May be called twice."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._keeper.stop()
                await self._pool.close()
        except (TimeoutError, *BROKEN):
            self._pool.terminate()
        except BaseException:
            # Whoever closes has run out of time.
            self._pool.terminate()
            raise


def _heed_cancellation(error: Exception) -> None:
    """Raises CancelledError when the caller is being cancelled.

    asyncpg, giving the connection back to a server that stands still, ends in a TimeoutError in its place.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


def connection_options(dsn: str) -> dict[str, Any]:
    """Options every connection shares, pooled or not.

    A loopback address without a word about TLS gets none: looking for certificates in a home directory that belongs to
    somebody else (containers, `setpriv`) ends in PermissionError.
    """
    options: dict[str, Any] = {"timeout": CONNECT_SECONDS}
    parts = urlsplit(dsn)
    if parts.hostname in LOOPBACK and "sslmode" not in parse_qs(parts.query):
        options["ssl"] = False
    return options


def refused(dsn: str, error: Exception) -> ConfigurationError:
    return ConfigurationError([f"POSTGRES_URL: {_place(dsn)} refuses us: {_sentence(error)}"])


def unreachable(dsn: str, error: BaseException) -> Unavailable:
    return Unavailable(f"PostgreSQL at {_place(dsn)} does not answer: {_sentence(error)}", retry_after=2.0)


def _place(dsn: str) -> str:
    """Host, port and database of an address, never the login."""
    try:
        parts = urlsplit(dsn)
        return f"{parts.hostname or 'the local socket'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return "the address"


def _sentence(error: BaseException) -> str:
    """First line of an error; a timeout has no text of its own."""
    lines = str(error).splitlines()
    return lines[0] if lines else "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


async def _begin_session(connection: Connection) -> None:
    teach(connection)
    limit = f"{COMMAND_SECONDS:g}s"
    await connection.fetch(queries()["session"], limit, "3s", "15s")


async def _end_use(connection: Connection) -> None:
    """Nothing to reset: no session state is ever changed, and the default costs a round trip for every query."""
    if connection.is_in_transaction():
        await connection.reset()
