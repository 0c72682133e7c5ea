"""The real runtime in a simulated world: no promise is broken, and every seed repeats bit for bit."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from agent_engines.testing.simulation.process import Process
from agent_engines.testing.simulation.virtual_loop import Stuck, VirtualLoop
from agent_engines.testing.simulation.world import Mode, simulate

SEEDS = range(1, 101)
CHUNK = 20


@pytest.mark.parametrize("first", SEEDS[::CHUNK])
@pytest.mark.parametrize("mode", Mode)
def test_no_seed_breaks_a_promise(mode: Mode, first: int) -> None:
    outcomes = [simulate(seed, mode) for seed in range(first, first + CHUNK)]
    broken = {f"--seed {one.seed} --mode {one.mode}": one.violations for one in outcomes if one.violations}
    assert not broken, "repeat with: python -m agent_engines.testing.simulation ... --trace"
    # A world in which nothing happens would prove nothing.
    assert sum(one.accepted for one in outcomes) > 5 * CHUNK
    assert sum(one.executions for one in outcomes) > 5 * CHUNK
    assert sum(one.hedges for one in outcomes) > 0


@pytest.mark.parametrize("mode", Mode)
def test_a_seed_repeats_bit_for_bit(mode: Mode) -> None:
    first, second = simulate(7, mode, keep_trace=True), simulate(7, mode, keep_trace=True)
    assert first == second
    assert len(first.trace) > 100
    assert simulate(8, mode).digest != first.digest


def test_a_seed_is_the_same_in_another_process() -> None:
    """Whatever order that process gives to its sets."""
    told = {
        subprocess.run(
            [sys.executable, "-m", "agent_engines.testing.simulation", "--seed", "7"],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed},
        ).stdout.splitlines()[0]
        for hash_seed in ("1", "2")
    }
    assert told == {f"seed 7 liveness: {_summary(7)}"}


def _summary(seed: int) -> str:
    outcome = simulate(seed, Mode.LIVENESS)
    return f"digest {outcome.digest}, {outcome.accepted} accepted, {outcome.executions} executions"


def test_time_jumps_instead_of_passing() -> None:
    loop = VirtualLoop()

    async def day() -> list[str]:
        order: list[str] = []

        async def at(seconds: float, name: str) -> None:
            await asyncio.sleep(seconds)
            order.append(name)

        await asyncio.gather(at(86_400.0, "day"), at(60.0, "minute"), at(3_600.0, "hour"))
        return order

    assert loop.run_until_complete(day()) == ["minute", "hour", "day"]
    assert loop.time() == 86_400.0
    assert loop.turns < 30


def test_a_world_that_waits_for_nothing_is_stuck() -> None:
    with pytest.raises(Stuck, match="nothing will ever happen"):
        VirtualLoop().run_until_complete(_for_ever())


def test_a_world_that_spins_is_stuck() -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="something spins"):
        VirtualLoop().run_until_complete(spin())


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_frozen_process_stands_still_and_goes_on_where_it_was() -> None:
    loop = VirtualLoop()
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(1.0)
            ticks.append(loop.time())

    async def story() -> None:
        process = Process("ticker")
        process.spawn(tick(), name="tick")
        await asyncio.sleep(2.5)
        process.freeze()
        await asyncio.sleep(10.0)
        loop.thaw(process)
        await asyncio.sleep(1.5)
        process.kill()
        await asyncio.sleep(5.0)
        assert not process.tasks

    loop.run_until_complete(story())
    assert ticks == [1.0, 2.0, 12.5, 13.5]
