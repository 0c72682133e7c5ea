"""The loop watchdog: a thread that notices when a handler blocks the event loop, and says which line.

A blocked loop sends no heartbeats and renews no leases, so other replicas start to run this one's tasks.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from types import FrameType

from agent_engines.ports.telemetry import Telemetry

PROBE_SECONDS = 0.25
BLOCKED_SECONDS = 1.0
STACK_FRAMES = 12


class LoopWatchdog:
    """Asks the loop for a sign of life four times a second; `lag_ms` is how late the last one came."""

    def __init__(self, telemetry: Telemetry, agent: str, *, blocked_seconds: float = BLOCKED_SECONDS) -> None:
        self._telemetry = telemetry
        self._agent = agent
        self._log = telemetry.log(agent)
        self._blocked_seconds = blocked_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._answered = threading.Event()
        self._lag = 0.0
        self.blocks = 0
        """How often the loop was blocked for longer than the limit."""

    @property
    def lag_ms(self) -> float:
        return self._lag * 1000.0

    def start(self) -> None:
        """Watch the running loop, from the thread it runs in."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name=f"loop-watchdog-{self._agent}", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End the thread. May be called twice."""
        thread, self._thread = self._thread, None
        self._ended.set()
        self._answered.set()
        while thread is not None and thread.is_alive():
            await asyncio.sleep(0.001)

    def _watch(self) -> None:
        while not self._ended.wait(PROBE_SECONDS):
            self._answered.clear()
            asked = time.monotonic()
            loop = self._loop
            if loop is None or loop.is_closed():
                return
            try:
                loop.call_soon_threadsafe(self._answered.set)
            except RuntimeError:
                # Closed between the look and the call.
                return
            if not self._answered.wait(self._blocked_seconds):
                self._tell(time.monotonic() - asked)
                self._answered.wait()
            self._lag = time.monotonic() - asked

    def _tell(self, seconds: float) -> None:
        self.blocks += 1
        self._lag = seconds
        frame = sys._current_frames().get(self._loop_thread)
        self._telemetry.count("agent_loop_blocked_total", agent_name=self._agent)
        self._log.error(
            "The event loop is blocked: make this handler a plain def, or await what it waits for",
            handler=self._handler(),
            blocked_seconds=round(seconds, 3),
            stack=_stack(frame),
        )

    def _handler(self) -> str:
        """The name of the task the loop is in, e.g. "handle summarize"."""
        task = asyncio.current_task(self._loop) if self._loop is not None else None
        return "" if task is None else task.get_name()


def _stack(frame: FrameType | None) -> list[str]:
    if frame is None:
        return []
    return [f"{one.filename}:{one.lineno} {one.name}" for one in traceback.extract_stack(frame)[-STACK_FRAMES:]]
