"""A process that is kept running: whatever ends it, it comes back until we stop it.

        start()               it dies                    stop()
stopped ───────► running ◄──────────────► pausing ───────────────► stopped
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent_engines.domain.errors import EmbeddedServerError
from agent_engines.ports.telemetry import Log

from .child import Child, Command
from .restart_pause import RestartPause

OnChange = Callable[[str, int | None], None]


class KeptProcess:
    """Starts `command()`, starts it again when it dies. `on_change(name, pid)` hears of every birth, and of deaths as None."""

    def __init__(
        self,
        name: str,
        command: Callable[[], Command],
        *,
        on_change: OnChange,
        log: Log,
        pause: RestartPause,
        clean: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self.restarts = 0
        self._command = command
        self._on_change = on_change
        self._log = log
        self._pause = pause
        self._clean = clean
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def stop_signal(self) -> int:
        return int(self._command().stop_signal)

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and self._child.running else None

    def spawn(self) -> Child:
        """Start it once, without keeping it yet. Raises EmbeddedServerError."""
        self._child = Child.spawn(self._command())
        self._tell(self._child.pid)
        return self._child

    def keep(self) -> None:
        """From now on it is started again when it dies."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=f"keep-{self.name}")

    async def stop(self, grace: float) -> None:
        """End it cleanly, or by force after `grace` seconds. May be called twice."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        child = self._child
        if child is not None:
            # It stays ours until it has ended: `kill` may come meanwhile.
            await child.stop(grace)
            self._child = None
            self._tell(None)

    def kill(self) -> None:
        """Force the end now; `stop` still has to be awaited."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._child is not None:
            self._child.kill()

    def _tell(self, pid: int | None) -> None:
        try:
            self._on_change(self.name, pid)
        except Exception as error:
            # A full disk under the listener's file is no reason to leave a process down.
            self._log.error("A change of processes could not be told", process=self.name, pid=pid, error=repr(error))

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        born = loop.time()
        while True:
            if self._child is not None:
                code = await self._child.wait()
                self._log.warning("A process died and starts again", process=self.name, code=code)
                self._tell(None)
            await asyncio.sleep(self._pause.after(loop.time() - born))
            born = loop.time()
            try:
                if self._clean is not None:
                    await self._clean()
                self.spawn()
                self.restarts += 1
            except (EmbeddedServerError, OSError) as error:
                self._child = None
                self._log.error("A process could not be started again", process=self.name, error=str(error))
