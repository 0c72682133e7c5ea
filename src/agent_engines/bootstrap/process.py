"""The life of one engine process: start, serve, drain on the first signal, leave at once on the second.

Order of a start: HTTP first (so that /livez answers and /ready says why not yet), then the engine.
Order of a stop: not ready, intake stops, running work ends within the grace, the rest is handed back, then HTTP, then connections.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import uvloop

from agent_engines.adapters.http_server import HttpServer
from agent_engines.domain.errors import AgentEnginesError, ConfigurationError, Unavailable
from agent_engines.ports.connections import Connections
from agent_engines.runtime.engine import Engine

FAREWELL_SECONDS = 1.5
"""After the grace: a process is gone two seconds after it (RELIABILITY 5.2, S1)."""
LEAST_SECONDS = 0.5
COLLECT_AFTER = (20_000, 10, 50)
"""New objects, young and middle collections until the next one. A batch of 500 tasks makes 10,000 objects that live until its
commit: by default (700, 10, 10) the collector walks them over and over, and with each tenth walk of the young all there is."""
COLLECT_ALL_SECONDS = 120.0
"""How often everything is looked through: what a lost connection leaves behind is a ring of old objects, and by the numbers above
the old are never looked at in a day. Some milliseconds, a tenth of a second with a long queue."""
NEXT_STEP = "is it running? `engines config show` tells which address is used, and where it came from"
EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Hosted:
    """An engine with everything it runs on; `close` releases connections and flushes telemetry, in this order.

    `announce` is called once the engine takes work.
    """

    engine: Engine
    connections: Connections
    server: HttpServer
    close: Callable[[], Awaitable[None]]
    announce: Callable[[], None]


def run(assemble: Callable[[], Awaitable[Hosted]]) -> int:
    """Assemble and host one engine until a signal comes; returns the exit code of the process."""
    try:
        return uvloop.run(_host(assemble))
    except Unavailable as error:
        print(f"engines: {error.detail}; {NEXT_STEP}", file=sys.stderr)  # noqa: T201 - the last word of a process
        return EXIT_UNREACHABLE
    except ConfigurationError as error:
        print(f"engines: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_USAGE
    except AgentEnginesError as error:
        print(f"engines: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED


async def _host(assemble: Callable[[], Awaitable[Hosted]]) -> int:
    stop = asyncio.Event()
    _listen_for_signals(stop)
    hosted = await _unless_stopped(assemble(), stop)
    if hosted is None:
        return EXIT_DONE
    log = hosted.connections.telemetry.log(hosted.engine.agent_type)
    try:
        await hosted.server.start()
        log.info(
            "Engine process is listening", url=hosted.server.url, agent=hosted.engine.config.agent_id, pid=os.getpid()
        )
        await hosted.engine.start(hosted.connections)
        hosted.announce()
        # What was imported lives as long as the process: the collector need not look at it again.
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        await _collecting_until(stop)
        log.info("Engine process drains", agent=hosted.engine.config.agent_id)
    finally:
        grace = hosted.engine.config.shutdown_grace_seconds
        until = asyncio.get_running_loop().time() + grace + FAREWELL_SECONDS
        # First of all callers go elsewhere; what they sent already is still answered.
        hosted.server.drain()
        if hosted.connections.discovery is not None:
            await hosted.connections.discovery.withdraw()
        await hosted.engine.stop()
        await _close(hosted, until)
    return EXIT_DONE


async def _collecting_until(stop: asyncio.Event, seconds: float = COLLECT_ALL_SECONDS) -> None:
    while not stop.is_set():
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            gc.collect()


async def _close(hosted: Hosted, until: float) -> None:
    """Answer the last requests and let go of the connections; whatever is not done at this loop time ends with the process."""
    loop = asyncio.get_running_loop()
    until = max(until, loop.time() + LEAST_SECONDS)
    try:
        async with asyncio.timeout_at(until):
            await hosted.server.stop(until - LEAST_SECONDS - loop.time())
            await hosted.close()
    except TimeoutError:
        log = hosted.connections.telemetry.log(hosted.engine.agent_type)
        log.warning("The grace is over: the process leaves without the last goodbyes")


async def _unless_stopped(assembling: Awaitable[Hosted], stop: asyncio.Event) -> Hosted | None:
    """The assembled engine, or None when a signal came first."""
    work: asyncio.Future[Hosted] = asyncio.ensure_future(assembling)
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if work.done():
        return work.result()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return None


def _listen_for_signals(stop: asyncio.Event) -> None:
    def on_signal() -> None:
        if stop.is_set():
            os._exit(EXIT_FAILED)
        stop.set()

    loop: Any = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
