"""Real servers for tests: started once, kept running in a thread of their own while tests come and go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from agent_engines.adapters.embedded import EmbeddedServers, Endpoints

Result = TypeVar("Result")


class BackgroundServers:
    """Embedded servers whose supervision does not depend on the event loop of any test.

    The thread lives from `start` to `stop`: the servers are told to die when the thread that started them ends.
    """

    def __init__(self, data_dir: Path, *, ephemeral: bool = True) -> None:
        self._servers = EmbeddedServers(data_dir, ephemeral=ephemeral)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="embedded-servers", daemon=True)

    def __enter__(self) -> BackgroundServers:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoints(self) -> Endpoints:
        """With the process ids of this moment."""
        return self._call(self._read_endpoints())

    def start(self) -> Endpoints:
        """Raises EmbeddedServerError."""
        self._thread.start()
        try:
            return self._call(self._servers.start())
        except BaseException:
            self._end_thread()
            raise

    def stop(self) -> None:
        """May be called twice."""
        if self._thread.is_alive():
            self._call(self._servers.stop())
            self._end_thread()

    def ready(self) -> None:
        """Return when all serve again after a test killed one. Raises EmbeddedServerError."""
        self._call(self._servers.ready())

    async def _read_endpoints(self) -> Endpoints:
        return self._servers.endpoints

    def _call(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
