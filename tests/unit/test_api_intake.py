"""Bodies are bounded in size, in time and together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from agent_engines.api.deadlines import Deadlines
from agent_engines.api.intake import BodyLost, Intake
from agent_engines.api.limits import ApiLimits
from agent_engines.api.problems import BodyTimeout
from agent_engines.domain.errors import InvalidRequest, TooLarge, Unavailable


class Sender:
    """A caller who sends these chunks; `taken` counts what was read of them."""

    def __init__(self, chunks: Iterable[bytes], *, hangs_up: bool = False) -> None:
        chunks = list(chunks)
        self._messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": hangs_up or index < len(chunks) - 1}
            for index, chunk in enumerate(chunks)
        ]
        if hangs_up:
            self._messages.append({"type": "http.disconnect"})
        self.taken = 0

    async def receive(self) -> dict[str, Any]:
        self.taken += 1
        return self._messages.pop(0)


async def never() -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize("chunks", [[b"abc"], [b"a", b"b", b"c"], [b"", b"abc", b""]])
async def test_a_body_is_the_same_in_one_piece_or_many(chunks: list[bytes]) -> None:
    assert await Intake(ApiLimits()).read({}, Sender(chunks).receive, 10) == b"abc"


async def test_a_declared_size_over_the_limit_is_refused_and_read_away() -> None:
    """Whoever is still sending gets to read the refusal only if someone reads what they send."""
    sender = Sender([b"x" * 10] * 3)
    with pytest.raises(TooLarge):
        await Intake(ApiLimits()).read({b"content-length": b"30"}, sender.receive, 10)
    assert sender.taken == 3


@pytest.mark.parametrize(
    "headers",
    [{b"content-length": b"30", b"expect": b"100-continue"}, {b"content-length": b"99999999999"}],
)
async def test_nothing_is_read_from_who_asked_first_or_from_a_giant(headers: dict[bytes, bytes]) -> None:
    sender = Sender([b"x" * 10] * 3)
    with pytest.raises(TooLarge):
        await Intake(ApiLimits()).read(headers, sender.receive, 10)
    assert sender.taken == 0


async def test_an_undeclared_body_over_the_limit_is_refused_while_it_arrives() -> None:
    intake = Intake(ApiLimits(drain_bytes=25))
    sender = Sender([b"x" * 10] * 100)
    with pytest.raises(TooLarge):
        await intake.read({}, sender.receive, 15)
    assert sender.taken <= 6
    assert intake.buffered == 0


async def test_one_piece_over_the_limit_is_refused() -> None:
    with pytest.raises(TooLarge):
        await Intake(ApiLimits()).read({}, Sender([b"x" * 11]).receive, 10)


@pytest.mark.parametrize("value", [b"-1", b"ten", b"1" * 20, b"\xb2"])
async def test_a_length_that_is_no_number_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match="Content-Length"):
        await Intake(ApiLimits()).read({b"content-length": value}, Sender([b""]).receive, 10)


async def test_a_body_that_does_not_come_times_out() -> None:
    intake = Intake(ApiLimits(body_seconds=0.01))
    with pytest.raises(BodyTimeout):
        await intake.read({}, never, 10)


async def test_a_body_that_trickles_times_out_and_frees_its_memory() -> None:
    intake = Intake(ApiLimits(body_seconds=0.02))
    chunks = iter([{"type": "http.request", "body": b"x", "more_body": True}])

    async def trickle() -> Any:
        message = next(chunks, None)
        return message if message is not None else await never()

    with pytest.raises(BodyTimeout):
        await intake.read({}, trickle, 10)
    assert intake.buffered == 0


async def test_a_caller_who_hangs_up_leaves_nothing() -> None:
    intake = Intake(ApiLimits())
    with pytest.raises(BodyLost):
        await intake.read({}, Sender([b"half"], hangs_up=True).receive, 10)
    assert intake.buffered == 0


async def test_all_unfinished_bodies_together_are_bounded() -> None:
    intake = Intake(ApiLimits(buffered_bytes=8))
    first = iter([{"type": "http.request", "body": b"12345", "more_body": True}])
    begun = asyncio.Event()

    async def half() -> Any:
        message = next(first, None)
        if message is not None:
            return message
        begun.set()
        return await never()

    holding = asyncio.create_task(intake.read({}, half, 100))
    await begun.wait()
    with pytest.raises(Unavailable):
        await intake.read({}, Sender([b"12", b"345"]).receive, 100)
    assert intake.buffered == 5
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert intake.buffered == 0


async def test_deadlines_end_only_what_is_late() -> None:
    deadlines = Deadlines(0.02)

    async def quick() -> str:
        return "quick"

    late = asyncio.create_task(deadlines.hold(never))
    assert await deadlines.hold(quick) == "quick"
    with pytest.raises(TimeoutError):
        await late
    assert not late.cancelled()


async def test_each_late_wait_ends_though_there_is_one_timer() -> None:
    deadlines = Deadlines(0.01)
    waits = [asyncio.create_task(deadlines.hold(never)) for _ in range(3)]
    await asyncio.sleep(0)
    later = asyncio.create_task(deadlines.hold(never))
    ended = await asyncio.gather(*waits, later, return_exceptions=True)
    assert [type(error) for error in ended] == [TimeoutError] * 4


async def test_a_cancellation_from_outside_stays_one() -> None:
    waiting = asyncio.create_task(Deadlines(60).hold(never))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert waiting.cancelled()
