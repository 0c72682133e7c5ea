"""Where lines go: a file descriptor that must never hold up the event loop."""

from __future__ import annotations

import os
import select
import stat
import threading

PATIENCE_SECONDS = 0.05


class LogSink:
    """Writes whole lines. A reader that has stalled costs 50 ms once; after that lines are dropped until it reads again.

    `take_dropped()` gives how many were dropped since it was last asked.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._dropped = 0
        self._stalled = False
        # A regular file is always ready; asking each time would only cost.
        self._poll = None if _is_regular(descriptor) else select.poll()
        if self._poll is not None:
            self._poll.register(descriptor, select.POLLOUT)

    def write(self, line: bytes) -> None:
        with self._lock:
            if not self._ready():
                self._dropped += 1
                return
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                self._dropped += 1

    def take_dropped(self) -> int:
        if not self._dropped or self._stalled:
            return 0
        with self._lock:
            count, self._dropped = self._dropped, 0
        return count

    def _ready(self) -> bool:
        if self._poll is None:
            return True
        waiting = 0.0 if self._stalled else PATIENCE_SECONDS * 1000
        self._stalled = not self._poll.poll(waiting)
        return not self._stalled


def _is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)
