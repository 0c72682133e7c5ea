"""An installation of our own: `engines up` in a process of its own on a temporary folder, everything gone afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from agent_engines.adapters.embedded.child import Child, Command
from agent_engines.adapters.embedded.endpoints import Endpoints
from agent_engines.adapters.embedded.postgres_home import remove_home
from agent_engines.adapters.embedded.server import Place
from agent_engines.client.plain_http import HttpFailure, plain_http
from agent_engines.domain.errors import EmbeddedServerError, NotFound

START_SECONDS = 120.0
STOP_SECONDS = 60.0
PROBE_SECONDS = 0.1
LAST_WORDS = 500
"""Characters of its log that are told when it does not start."""


def new_folder(name: str) -> Path:
    """For an installation of our own. PostgreSQL, which is another account when we are root, may pass through it."""
    folder = Path(tempfile.mkdtemp(prefix=f"ae-{name}-"))
    folder.chmod(0o711)
    return folder


@asynccontextmanager
async def own_installation(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> AsyncGenerator[Endpoints]:
    """`engines up OPTIONS` on any port with its data in `folder`, ready when it is entered; then it and the folder are gone.

    SIGTERM meanwhile ends us as Ctrl-C does. Raises EmbeddedServerError with the last words of its log.
    """
    command = (sys.executable, "-m", "agent_engines.cli", "up", "--data-dir", str(folder), "--port", "0", *options)
    log = folder / "up.log"
    with _ended_by_sigterm():
        child = Child.spawn(Command(argv=command, env={**os.environ, **(environment or {})}, cwd=folder, log=log))
        try:
            yield await _ready(folder, child, log)
        finally:
            await child.stop(STOP_SECONDS)
            await asyncio.to_thread(_remove, folder)


@contextmanager
def _ended_by_sigterm() -> Generator[None]:
    """Told to end, we end as by Ctrl-C: what runs is cancelled, so that it is stopped and its folder removed."""
    loop, ours = asyncio.get_running_loop(), asyncio.current_task()
    terminated = asyncio.Event()

    def end() -> None:
        terminated.set()
        if ours is not None:
            ours.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        yield
    except asyncio.CancelledError:
        if terminated.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _ready(folder: Path, child: Child, log: Path) -> Endpoints:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and child.running:
        try:
            endpoints = Endpoints.read(folder / "endpoints.json")
            async with plain_http(endpoints.http_url or "", seconds=5) as http:
                if (await http.get("/ready")).status_code == 200:
                    return endpoints
        except (HttpFailure, NotFound):
            # Not there yet; when it never comes, its log says why.
            pass
        await asyncio.sleep(PROBE_SECONDS)
    said = (await asyncio.to_thread(log.read_text, errors="replace"))[-LAST_WORDS:].strip()
    raise EmbeddedServerError(f"our own installation does not start: {said}")


def _remove(folder: Path) -> None:
    # Where PostgreSQL keeps its data when its account cannot walk to the folder.
    remove_home(Place(root=folder, logs=folder, ephemeral=True))
    shutil.rmtree(folder, ignore_errors=True)
