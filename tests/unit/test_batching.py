"""Group commit: everything that is put gets its own answer, however it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from agent_engines.domain.errors import QueueFull, Unavailable
from agent_engines.runtime.batching import Batcher


async def doubled(items: Sequence[int]) -> list[int]:
    await asyncio.sleep(0)
    return [item * 2 for item in items]


async def test_items_put_together_travel_together() -> None:
    """Whoever comes in the same turn of the loop shares one batch."""
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        return list(items)

    batcher = Batcher(flush)
    assert await asyncio.gather(*(batcher.put(n) for n in range(5))) == [0, 1, 2, 3, 4]
    assert batches == [[0, 1, 2, 3, 4]]


async def test_an_item_put_by_the_answer_of_the_last_one_is_not_forgotten() -> None:
    """A put in the very turn in which a lane ends still finds a lane."""
    batcher = Batcher(doubled)
    again: list[asyncio.Future[int]] = []
    for number in range(50):
        future = batcher.put(number)
        future.add_done_callback(lambda done: again.append(batcher.put(done.result())))
        await future
    async with asyncio.timeout(5):
        while len(again) < 50 or not all(future.done() for future in again):
            await asyncio.sleep(0)
    assert [future.result() for future in again] == [number * 4 for number in range(50)]


async def test_one_bad_item_fails_alone() -> None:
    """An answer that is an exception is raised to its own caller only."""

    async def flush(items: Sequence[int]) -> list[int | BaseException]:
        return [ValueError("odd") if item % 2 else item for item in items]

    batcher: Batcher[int, int] = Batcher(flush)
    answers = await asyncio.gather(*(batcher.put(n) for n in range(4)), return_exceptions=True)
    assert [answers[0], answers[2]] == [0, 2]
    assert all(isinstance(answers[n], ValueError) for n in (1, 3))


async def test_a_failing_flush_fails_its_batch_and_nothing_after_it() -> None:
    """The next batch starts afresh."""
    failures = [Unavailable("the database is away")]

    async def flush(items: Sequence[int]) -> list[int]:
        if failures:
            raise failures.pop()
        return list(items)

    batcher = Batcher(flush)
    with pytest.raises(Unavailable):
        await batcher.put(1)
    assert await batcher.put(2) == 2


async def test_too_many_waiting_items_are_refused() -> None:
    """The bound holds, and what was taken before it is still answered."""
    batcher = Batcher(doubled, max_waiting=2)
    taken = [batcher.put(1), batcher.put(2)]
    with pytest.raises(QueueFull):
        batcher.put(3)
    assert await asyncio.gather(*taken) == [2, 4]


async def test_closing_answers_what_was_taken_and_refuses_the_rest() -> None:
    """After close nothing runs and nothing is taken."""
    batcher = Batcher(doubled, max_batch=1)
    taken = [batcher.put(n) for n in range(5)]
    await batcher.close()
    assert [future.result() for future in taken] == [0, 2, 4, 6, 8]
    with pytest.raises(Unavailable):
        batcher.put(9)


async def test_what_is_posted_is_flushed_and_waited_for_at_the_end() -> None:
    """Nobody holds an answer; a failing flush disturbs nobody."""
    flushed: list[int] = []

    async def flush(items: Sequence[int]) -> list[None]:
        flushed.extend(items)
        if 3 in items:
            raise Unavailable("the bus is away")
        return [None] * len(items)

    batcher: Batcher[int, None] = Batcher(flush, max_batch=2)
    for number in range(6):
        batcher.post(number)
    await batcher.close()
    assert flushed == [0, 1, 2, 3, 4, 5]
    assert batcher.settled == 6


async def test_beside_another_a_batch_begins_only_for_a_crowd() -> None:
    """Few wait for the batch under way; many open a second one."""
    gate = asyncio.Event()
    sizes: list[int] = []

    async def flush(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        await gate.wait()
        return list(items)

    batcher = Batcher(flush, lanes=2, crowd=3)
    waiting = [batcher.put(0)]
    await asyncio.sleep(0.01)
    waiting += [batcher.put(1), batcher.put(2)]
    await asyncio.sleep(0.01)
    assert sizes == [1]
    waiting.append(batcher.put(3))
    await asyncio.sleep(0.01)
    assert sizes == [1, 3]
    gate.set()
    assert await asyncio.gather(*waiting) == [0, 1, 2, 3]


async def test_what_is_put_together_is_answered_together_in_order() -> None:
    """Over several batches and lanes, errors in their own places, also of a batch that failed as a whole."""
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> list[int | BaseException]:
        batches.append(list(items))
        # The first part of a group may end after its second.
        await asyncio.sleep(0.01 if 0 in items else 0)
        if 6 in items:
            raise Unavailable("the database is away")
        return [ValueError("odd") if item % 2 else item for item in items]

    batcher: Batcher[int, int] = Batcher(flush, max_batch=3, lanes=2)
    alone, together = batcher.put(10), batcher.put_all(range(8))
    answers = await together
    assert batches == [[10, 0, 1], [2, 3, 4], [5, 6, 7]]
    assert await alone == 10
    assert [answers[place] for place in (0, 2, 4)] == [0, 2, 4]
    assert all(isinstance(answers[place], ValueError) for place in (1, 3))
    assert all(isinstance(answers[place], Unavailable) for place in (5, 6, 7))
    assert batcher.settled == 9
    assert await batcher.put_all([]) == []


async def test_whoever_gives_up_on_a_group_disturbs_nobody_else() -> None:
    """Its items are flushed all the same, and the batcher goes on."""
    batcher = Batcher(doubled)
    together, alone = batcher.put_all([1, 2]), batcher.put(3)
    together.cancel()
    assert await alone == 6
    assert batcher.settled == 3
    with pytest.raises(asyncio.CancelledError):
        await together


async def test_a_group_asks_for_room_before_it_is_put() -> None:
    """One item beside those that will be put with it; closed, none is taken."""
    batcher = Batcher(doubled, max_waiting=3)
    taken = batcher.put(1)
    batcher.check(beside=1)
    with pytest.raises(QueueFull):
        batcher.check(beside=2)
    assert await taken == 2
    await batcher.close()
    with pytest.raises(Unavailable):
        batcher.check()
