"""What holds from the first moment: a process that is told to stop while it is still importing ends with 0, as it does later.

Imported before everything else (cli/__init__.py). Nothing has begun then, so nothing has to be ended; without this the default
action of the signal would end the process with -15, which a supervisor takes for a crash. bootstrap/process.py takes over.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

ENGINE = "run"
"""The command that becomes an engine's process."""


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)


if sys.argv[1:2] == [ENGINE]:
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
