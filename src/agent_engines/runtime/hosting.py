"""Hosting: all the moving parts of one started engine, put up in order and taken down in the reverse."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from agent_engines.domain import subjects
from agent_engines.domain.agents import AgentProfile, AgentState, Load
from agent_engines.domain.errors import AgentEnginesError
from agent_engines.domain.messages import CancelOrder, Progress
from agent_engines.ports.bus import Subscription, TaskInbox
from agent_engines.ports.connections import Connections

from .agent_config import AgentConfig
from .executor import Executor, ExecutorParts
from .handlers import Handler
from .heartbeats import Heartbeats, Pulse
from .loop_watchdog import LoopWatchdog
from .results import MAX_RESULT_BYTES
from .threads import HandlerThreads
from .vitals import Vitals
from .worker import Worker

REPORT_HEADROOM_BYTES = 16 * 1024
"""What a report needs around its result."""
THREAD_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosted:
    """The engine's side of hosting."""

    config: AgentConfig
    handlers: Mapping[str, Handler]
    threads: HandlerThreads
    profile: Callable[[], AgentProfile]
    state: Callable[[], AgentState]
    rng: random.Random | None = None
    """For repeatable runs: names and jitter come from it, and no thread watches the loop."""


class Hosting:
    """One replica on one set of connections. `replica` is its name within the agent, new at every start."""

    def __init__(self, hosted: Hosted, connections: Connections) -> None:
        self.connections = connections
        self._rng = hosted.rng or random.Random(secrets.randbits(64))
        self.replica = f"{self._rng.getrandbits(48):012x}"
        self.executor: Executor | None = None
        self._hosted = hosted
        self._agent = hosted.config.agent_id
        self._log = connections.telemetry.log(self._agent)
        self._watchdog = LoopWatchdog(connections.telemetry, self._agent)
        self._worker: Worker | None = None
        self._inbox: TaskInbox | None = None
        self._cancels: Subscription | None = None
        self._orders = msgspec.json.Decoder(CancelOrder)
        self._over = False
        pulse = Pulse(
            replica=self.replica,
            interval=hosted.config.heartbeat_interval,
            profile=hosted.profile,
            state=self._state,
            load=self.load,
        )
        self._heartbeats = Heartbeats(
            pulse,
            connections.bus.signals,
            telemetry=connections.telemetry,
            clock=connections.clock,
            rng=self._rng,
        )

    @property
    def busy_once(self) -> bool:
        """Has any attempt begun since the start?"""
        return self._worker is not None and self._worker.begun > 0

    def load(self) -> Load:
        lag = self._watchdog.lag_ms
        if self._worker is not None:
            return self._worker.load(lag)
        config = self._hosted.config
        return Load(slots=config.max_concurrent_tasks, queue_size=config.queue_size, loop_lag_ms=lag)

    @property
    def vitals(self) -> Vitals:
        """Is it getting on?"""
        lag = self._watchdog.lag_ms / 1000.0
        if self._worker is None:
            return Vitals(loop_lag=lag)
        reporter = self._worker.reporter
        return Vitals(
            loop_lag=lag,
            pull_silence=self._worker.intake.silence,
            reports_refused=reporter.refused_seconds,
            reports_congested=reporter.congested,
        )

    async def start(self) -> None:
        """Open the inbox (when there are handlers), beat, take work. Raises Unavailable."""
        if self._hosted.rng is None:
            self._watchdog.start()
        if self._hosted.handlers:
            bus = self.connections.bus
            self._inbox = await bus.tasks.open_inbox(self._agent)
            self._worker = Worker(
                self._executor(),
                bus,
                self._inbox,
                config=self._hosted.config,
                threads=self._hosted.rng is None,
                spool=self.connections.spool,
            )
            self._cancels = await bus.signals.listen(subjects.cancel(self._agent), self._cancel)
        await self._heartbeats.start()
        if self._worker is not None:
            await self._worker.start()

    async def drain(self) -> None:
        """Take no more work, hand back what has not begun."""
        await self._heartbeats.beat(full=True)
        if self._worker is not None:
            await self._worker.drain()

    async def stop_work(self, grace: float) -> None:
        """End all work: see Worker.stop."""
        if self._worker is not None:
            await self._heartbeats.beat(full=True)
            await self._worker.stop(grace)

    async def close(self) -> None:
        """Say goodbye and let go of everything. May be called twice."""
        self._over = True
        await self._heartbeats.stop()
        cancels, self._cancels = self._cancels, None
        inbox, self._inbox = self._inbox, None
        for closing in (cancels, inbox):
            if closing is None:
                continue
            try:
                await closing.close()
            except AgentEnginesError as error:
                self._log.warning("The bus did not take the goodbye", error=str(error))
        await self._watchdog.stop()

    def _executor(self) -> Executor:
        hosted, connections = self._hosted, self.connections
        parts = ExecutorParts(
            agent=self._agent,
            replica=self.replica,
            handlers=hosted.handlers,
            telemetry=connections.telemetry,
            clock=connections.clock,
            threads=hosted.threads,
            rng=self._rng,
            task_timeout=hosted.config.task_timeout_seconds,
            max_result_bytes=min(MAX_RESULT_BYTES, connections.bus.max_message_bytes - REPORT_HEADROOM_BYTES),
            progress=self._progress,
            price=hosted.profile().price,
        )
        self.executor = Executor(parts)
        return self.executor

    def _state(self) -> AgentState:
        return AgentState.STOPPED if self._over else self._hosted.state()

    async def _progress(self, progress: Progress) -> None:
        try:
            await self.connections.bus.reports.publish_progress(progress)
        except AgentEnginesError as error:
            self.connections.telemetry.count("agent_progress_lost_total", agent_name=self._agent)
            self._log.debug("Progress was not sent", task_id=progress.task_id, error=str(error))

    async def _cancel(self, subject: str, data: bytes) -> bytes | None:
        try:
            order = self._orders.decode(data)
        except (msgspec.MsgspecError, ValueError) as error:
            self._log.warning("An order to cancel cannot be read", error=str(error))
            return None
        if self._worker is not None:
            await self._worker.cancel(order)
        return None
