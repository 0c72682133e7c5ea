"""Background work ends when it is told to, whatever it makes of its cancellation."""

from __future__ import annotations

import asyncio

from agent_engines.runtime.background import Background
from agent_engines.runtime.local import LocalTelemetry


async def test_work_whose_cancellation_came_out_as_another_error_is_not_started_again() -> None:
    """As a driver may do that times out while it cleans up."""
    begun = 0
    working = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        working.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if begun == 1:
                raise TimeoutError from None
            raise

    background = Background(LocalTelemetry().log("test"))
    background.keep("stubborn", work, pause=0.0)
    await working.wait()
    async with asyncio.timeout(5):
        await background.stop()
    assert begun == 1
    assert background.names == []
