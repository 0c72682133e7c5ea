"""The process of one system: starts it, then carries out one shape of load for each line it reads.

    python -m benchmarks.peers.driver NAME facts
    python -m benchmarks.peers.driver NAME serve WORKERS

Runs in the system's own environment. Lines in and out are JSON; everything else the system prints goes to stderr.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import traceback
from dataclasses import asdict
from typing import Any, TextIO

from benchmarks.processes import alive
from benchmarks.workloads import SHAPES
from benchmarks.workloads.shapes import NOOP, closed, payloads

from .peer import Peer

try:
    import uvloop
except ImportError:
    # Systems whose makers do not advise it run on the standard loop.
    uvloop = None

FIRST_RESULT_SECONDS = 180.0
WARM_UP_SECONDS = 1.5
SECOND_WORKER_SECONDS = 2.0


def main() -> None:
    name, what, *rest = sys.argv[1:]
    # Systems print as they like; the answers go where nobody else writes.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer: Peer = importlib.import_module(f"benchmarks.peers.systems.{name}").System()
    if what == "facts":
        _say(answers, {**asdict(peer.facts), "versions": peer.facts.versions()})
        return
    _run(serve(peer, int(rest[0]), answers))


async def serve(peer: Peer, workers: int, answers: TextIO) -> None:
    """Until the input ends."""
    loop = asyncio.get_running_loop()
    try:
        await peer.start(workers)
        await _warm_up(peer, workers)
        _say(answers, {"worker_pids": list(peer.worker_pids())})
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order: dict[str, Any] = json.loads(line)
            try:
                async with asyncio.timeout(order["limit"]):
                    measured = await SHAPES[order["shape"]](peer, **order["arguments"])
                _say(answers, asdict(measured))
            except Exception as error:
                traceback.print_exc()
                _say(answers, {"error": f"{type(error).__name__}: {error}"[:300]})
    finally:
        await peer.stop()


async def _warm_up(peer: Peer, workers: int) -> None:
    async with asyncio.timeout(FIRST_RESULT_SECONDS):
        await _first_result(peer)
        if workers > 1:
            # One answers; the others may still be starting, and nobody tells.
            await asyncio.sleep(SECOND_WORKER_SECONDS)
        await closed(peer, outstanding=32, seconds=WARM_UP_SECONDS)


async def _first_result(peer: Peer) -> None:
    async def one() -> None:
        await peer.result(await peer.submit(NOOP, payloads(1)[0]))

    coming = asyncio.ensure_future(one())
    while not coming.done():
        await asyncio.wait((coming,), timeout=0.5)
        if dead := [pid for pid in peer.worker_pids() if not alive(pid)]:
            coming.cancel()
            raise RuntimeError(f"worker processes ended at once: {dead}")
    coming.result()


def _say(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def _run(work: Any) -> None:
    (asyncio if uvloop is None else uvloop).run(work)


if __name__ == "__main__":
    main()
