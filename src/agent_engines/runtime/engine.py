"""The engine: a name, some handlers, and a life.

STARTING ──start──> READY ──first task──> RUNNING ──drain──> DRAINING ──> STOPPED
    └──────────────────── stop (from any state) ─────────────────────────────^
"""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from agent_engines.domain.agents import AgentProfile, AgentState, Capability, Load
from agent_engines.domain.errors import AgentEnginesError, Conflict, InvalidRequest, Unavailable
from agent_engines.domain.tasks import TaskRequest
from agent_engines.ports.connections import Connections
from agent_engines.ports.service import Health, Readiness

from .agent_config import AgentConfig
from .context import TaskContext
from .executor import Executor, ExecutorParts
from .handlers import Handler
from .hosting import Hosted, Hosting
from .local import LocalClock, LocalRunner, LocalTelemetry
from .results import first_unstorable
from .threads import MAX_THREADS, HandlerThreads

__all__ = ["AgentConfig", "Engine", "TaskContext"]

MAX_METADATA_BYTES = 64 * 1024
THREAD_SECONDS = 1.0
LEAST_STOP_SECONDS = 1.0
"""For `on_stop`, when the grace is over already; and again after its ledger was closed."""
FOR_INFORMATION = frozenset({"consul"})
"""Checks that do not make an engine unhealthy: nothing it does depends on them."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Engine:
    """Hosts handlers. `Engine("hello")` is short for `Engine(AgentConfig(agent_id="hello"))`. Raises InvalidRequest.

    Subclasses that are no task performers override `on_start` and `on_stop`; without handlers no inbox is opened.
    """

    def __init__(
        self,
        config: AgentConfig | str,
        agent_type: str = "custom",
        metadata: dict[str, Any] | None = None,
        *,
        rng: random.Random | None = None,
    ) -> None:
        """`rng`: for repeatable runs, see Hosted.rng."""
        self.config = AgentConfig(agent_id=config) if isinstance(config, str) else config
        self.agent_type = agent_type
        self.metadata = _checked_metadata(metadata or {})
        self._rng_given = rng
        self._handlers: dict[str, Handler] = {}
        self._life = AgentState.STARTING
        self._threads = HandlerThreads(self.config.max_concurrent_tasks, name=f"{self.config.agent_id}-handler")
        self._hosting: Hosting | None = None
        self._local: LocalRunner | None = None
        self._start_work: asyncio.Task[None] | None = None
        self._stop_work: asyncio.Task[None] | None = None

    def task(
        self,
        task_type: str,
        *,
        max_attempts: int = 3,
        idempotent: bool = False,
        timeout_seconds: float | None = None,
    ) -> Callable[[Function], Function]:
        """Register the decorated function for a task type; it is returned unchanged.

        `timeout_seconds` None: the agent's `task_timeout_seconds`. Raises InvalidRequest, Conflict (already started).
        """
        rules = Capability(
            task_type=task_type, max_attempts=max_attempts, idempotent=idempotent, timeout_seconds=timeout_seconds
        )

        def register(function: Function) -> Function:
            if self._life is not AgentState.STARTING or self._start_work is not None:
                raise Conflict(f"{task_type!r} comes too late: register tasks before the engine starts")
            if task_type in self._handlers:
                raise InvalidRequest(f"task type {task_type!r} has a handler already", field="task_type")
            # Annotations may name classes that are local to the function in which the handler is defined.
            self._handlers[task_type] = Handler(function, rules, names=sys._getframe(1).f_locals)
            return function

        return register

    def performs(self, function: object) -> bool:
        """Whether this is the function of one of its handlers."""
        return any(handler.function is function for handler in self._handlers.values())

    @property
    def state(self) -> AgentState:
        """READY becomes RUNNING with the first task."""
        ready = self._life is AgentState.READY and self._hosting is not None
        return AgentState.RUNNING if ready and self._hosting and self._hosting.busy_once else self._life

    @property
    def profile(self) -> AgentProfile:
        """What the fleet is told about this agent."""
        return AgentProfile(
            name=self.config.agent_id,
            agent_type=self.agent_type,
            capabilities=tuple(handler.capability for handler in self._handlers.values()),
            metadata=self.metadata,
        )

    @property
    def replica(self) -> str:
        """The name of this replica within its agent; empty before the start."""
        return "" if self._hosting is None else self._hosting.replica

    def load(self) -> Load:
        """How busy this replica is."""
        if self._hosting is not None:
            return self._hosting.load()
        return Load(slots=self.config.max_concurrent_tasks, queue_size=self.config.queue_size)

    async def on_start(self, connections: Connections) -> None:
        """For subclasses: get ready, before the first task arrives. Raising ends the start; `on_stop` is called then too."""

    async def on_stop(self) -> None:
        """For subclasses: let go of what `on_start` took, after the last task ended."""

    async def start(self, connections: Connections) -> None:
        """Connect and take work. Raises Unavailable (try again), Conflict (started or stopped already)."""
        if self._life is not AgentState.STARTING or self._start_work is not None:
            raise Conflict(f"the engine {self.config.agent_id} is {self.state}; only a new one can be started")
        work = asyncio.get_running_loop().create_task(self._start(connections), name="engine-start")
        self._start_work = work
        try:
            await work
        except asyncio.CancelledError:
            if self._stop_work is not None:
                raise Unavailable(f"the engine {self.config.agent_id} was stopped while it started") from None
            raise
        finally:
            self._start_work = None

    async def drain(self) -> None:
        """Take no more work and hand back what has not begun; what runs goes on. Returns when intake has stopped."""
        if self._life is AgentState.READY and self._hosting is not None:
            self._life = AgentState.DRAINING
            await self._hosting.drain()

    async def stop(self, grace: float | None = None) -> None:
        """Drain, let running handlers end within `grace` seconds (default: the configured ones), then stop everything.

        May be called twice, before the start, and during it; returns when nothing of the engine runs any more.
        """
        if self._stop_work is None:
            seconds = self.config.shutdown_grace_seconds if grace is None else grace
            self._stop_work = asyncio.get_running_loop().create_task(self._stop(seconds), name="engine-stop")
        # A caller that gives up must not leave half an engine behind.
        await asyncio.shield(self._stop_work)

    async def health(self) -> Health:
        """A real look at every server this engine uses."""
        checks = {} if self._hosting is None else await _checks(self._hosting.connections)
        needed = (good for name, good in checks.items() if name not in FOR_INFORMATION)
        healthy = all(needed) and self._life is not AgentState.STOPPED
        return Health("healthy" if healthy else "unhealthy", checks)

    async def ready(self) -> Readiness:
        """Ready means: started, not draining, connected to the bus, and getting on (see Vitals)."""
        if self._life is not AgentState.READY or self._hosting is None:
            return Readiness("not_ready", f"the engine is {self.state}")
        if not self._hosting.connections.bus.connected:
            return Readiness("not_ready", "the bus is not connected")
        if complaint := self._hosting.vitals.complaint:
            return Readiness("not_ready", complaint)
        return Readiness("ready")

    async def handle_task(self, request: TaskRequest) -> dict[str, Any]:
        """Run one task here and now, without any server, by the rules that hold in production.

        {"status": "success", "result", "task_id", "execution_time_ms", "attempts"} or {"status": "failed" | "expired" |
        "cancelled", "error": {"type", "message", "retryable"}, ...}. Failed attempts are retried as far as they are due
        within 5 seconds. Raises InvalidRequest, Unavailable (stopped).
        """
        if self._life is AgentState.STOPPED:
            raise Unavailable(f"the engine {self.config.agent_id} has stopped")
        if self._local is None:
            self._local = LocalRunner(Executor(self._local_parts()))
        return await self._local.run(request)

    async def _start(self, connections: Connections) -> None:
        hosted = Hosted(
            config=self.config,
            handlers=self._handlers,
            threads=self._threads,
            profile=lambda: self.profile,
            state=lambda: self.state,
            rng=self._rng_given,
        )
        self._hosting = Hosting(hosted, connections)
        # The environment may have given it other slots than the code that made it: a task that has a slot and waits for a
        # thread waits inside its time limit.
        self._threads.resize(self.config.max_concurrent_tasks)
        self._warn_of_few_threads(connections)
        try:
            await self.on_start(connections)
            # READY before the first heartbeat, which is what makes routers send work.
            self._life = AgentState.READY
            await self._hosting.start()
        except BaseException:
            self._life = AgentState.STARTING
            await asyncio.shield(self._take_down(self._hosting, 0.0))
            self._hosting = None
            raise

    def _warn_of_few_threads(self, connections: Connections) -> None:
        plain = sorted(name for name, handler in self._handlers.items() if not handler.is_async)
        if plain and self.config.max_concurrent_tasks > MAX_THREADS:
            connections.telemetry.log(self.config.agent_id).warning(
                "Plain handlers have fewer threads than there are slots; the others wait inside their time limit",
                threads=MAX_THREADS,
                slots=self.config.max_concurrent_tasks,
                task_types=plain,
            )

    async def _stop(self, grace: float) -> None:
        starting = self._start_work
        if starting is not None and not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
        if self._hosting is not None:
            if self._life is AgentState.READY:
                self._life = AgentState.DRAINING
            await self._take_down(self._hosting, grace)
        self._life = AgentState.STOPPED
        if self._local is not None:
            await self._local.close()
        left = await self._threads.closed(THREAD_SECONDS)
        if left and self._hosting is not None:
            log = self._hosting.connections.telemetry.log(self.config.agent_id)
            log.error("Handlers still run in threads that nobody can stop", threads=left)

    async def _take_down(self, hosting: Hosting, grace: float) -> None:
        until = asyncio.get_running_loop().time() + grace
        await hosting.stop_work(grace)
        await self._let_go(hosting.connections, until)
        await hosting.close()

    async def _let_go(self, connections: Connections, until: float) -> None:
        """`on_stop` until this loop time; a ledger that has not answered by then is closed under whoever waits for it."""
        log = connections.telemetry.log(self.config.agent_id)
        letting_go = asyncio.ensure_future(self.on_stop())
        left = max(LEAST_STOP_SECONDS, until - asyncio.get_running_loop().time())
        await asyncio.wait({letting_go}, timeout=left)
        if not letting_go.done() and connections.ledger is not None:
            log.warning("The grace is over: what waits for the ledger is given up and handed back")
            await connections.ledger.close()
            await asyncio.wait({letting_go}, timeout=LEAST_STOP_SECONDS)
        if not letting_go.done():
            letting_go.cancel()
            await asyncio.wait({letting_go}, timeout=LEAST_STOP_SECONDS)
        if not letting_go.done() or letting_go.cancelled():
            log.error("on_stop did not come to its end, the engine stops anyway")
        elif (error := letting_go.exception()) is not None:
            log.error("on_stop failed, the engine stops anyway", error=repr(error))

    def _local_parts(self) -> ExecutorParts:
        return ExecutorParts(
            agent=self.config.agent_id,
            replica="local",
            handlers=self._handlers,
            telemetry=LocalTelemetry(),
            clock=LocalClock(),
            threads=self._threads,
            rng=random.Random(secrets.randbits(64)),
            task_timeout=self.config.task_timeout_seconds,
        )


async def _checks(connections: Connections) -> dict[str, bool]:
    parts = {
        "nats": connections.bus,
        "postgres": connections.ledger,
        "redis": connections.cache,
        "consul": connections.discovery,
    }
    used = {name: part for name, part in parts.items() if part is not None}
    answers = await asyncio.gather(*(part.check() for part in used.values()), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, AgentEnginesError | OSError):
            raise answer
    return {name: answer is True for name, answer in zip(used, answers, strict=True)}


def _checked_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    place = first_unstorable(metadata, "metadata")
    if place is not None:
        raise InvalidRequest(f"metadata has {place}", field="metadata")
    try:
        size = len(msgspec.json.encode(metadata))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"metadata is not a JSON object: {error}", field="metadata") from error
    if size > MAX_METADATA_BYTES:
        raise InvalidRequest(f"metadata is {size} bytes, the limit is {MAX_METADATA_BYTES}", field="metadata")
    return metadata
