"""Naps: a wait on the clock that an event may end early."""

from __future__ import annotations

import asyncio

from agent_engines.ports.clock import Clock


async def nap(clock: Clock, seconds: float, wakes: asyncio.Event) -> None:
    """Sleep so many seconds, or until `wakes` is set, which is left as it is."""
    sleeping = asyncio.ensure_future(clock.sleep(seconds))
    woken = asyncio.ensure_future(wakes.wait())
    try:
        await asyncio.wait([sleeping, woken], return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
        woken.cancel()
