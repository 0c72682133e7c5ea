"""A process looks through all its objects once in a while, so that old rings of them do not stay."""

from __future__ import annotations

import asyncio
import gc
import weakref

from agent_engines.bootstrap.process import _collecting_until


class Ring:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


async def test_what_only_refers_to_itself_goes_although_it_is_old() -> None:
    stop = asyncio.Event()
    ring = Ring()
    # Old: it has survived collections while it was in use.
    gc.collect()
    gc.collect()
    weakref.finalize(ring, stop.set)
    gc.disable()
    try:
        del ring
        await asyncio.wait_for(_collecting_until(stop, 0.01), 10)
        assert stop.is_set()
    finally:
        gc.enable()


async def test_being_told_to_stop_ends_the_wait() -> None:
    stop = asyncio.Event()
    waiting = asyncio.ensure_future(_collecting_until(stop, 3600.0))
    await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(waiting, 10)
