"""Readiness computed from progress: what stops it, and that it comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import operator
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from engine_bench import Bench

from agent_engines.domain.errors import Unavailable
from agent_engines.runtime import vitals
from agent_engines.runtime.vitals import Vitals

PATIENCE = 30.0


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A started engine with bounds that a test can wait for."""
    for name in ("LAG_SECONDS", "SILENCE_SECONDS", "REFUSED_SECONDS"):
        monkeypatch.setattr(vitals, name, 0.3)
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(Bench())

        @one.engine.task("work")
        async def work(seconds: float) -> None:
            time.sleep(seconds)

        await one.start()
        yield one


async def reason(bench: Bench, wanted: Callable[[str], bool]) -> str:
    """The reason why it is not ready, as soon as it fits; empty: it is ready."""
    async with asyncio.timeout(PATIENCE):
        while not wanted(found := (await bench.engine.ready()).detail):
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize(
    ("signs", "complaint"),
    [
        ({}, ""),
        ({"loop_lag": 5.0, "pull_silence": 15.0, "reports_refused": 5.0}, ""),
        ({"loop_lag": 5.1}, "event loop is 5.1 s late"),
        ({"pull_silence": 15.1}, "answered no pull for 15 s"),
        ({"reports_refused": 5.1}, "taken no report for 5 s"),
        ({"reports_congested": True}, "too many reports"),
    ],
)
def test_each_sign_has_its_bound_and_its_sentence(signs: dict[str, Any], complaint: str) -> None:
    found = Vitals(**signs).complaint
    assert complaint in found if complaint else not found


async def test_an_idle_engine_stays_ready(bench: Bench) -> None:
    for _ in range(20):
        assert (await bench.engine.ready()).status == "ready"
        await asyncio.sleep(0.05)


async def test_pulls_that_nobody_answers_are_noticed_and_forgotten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bus says that it is connected, and answers nothing."""
    inbox = bench.engine._hosting._inbox  # type: ignore[union-attr]
    pull = inbox.pull  # type: ignore[union-attr]

    async def silent(*_: object) -> list[object]:
        await asyncio.sleep(0.1)
        raise Unavailable("no answer")

    monkeypatch.setattr(inbox, "pull", silent)
    assert "answered no pull" in await reason(bench, bool)
    monkeypatch.setattr(inbox, "pull", pull)
    assert await reason(bench, operator.not_) == ""


async def test_reports_the_bus_does_not_take_are_noticed_and_forgotten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise Unavailable("no answer")

    reporter = bench.engine._hosting._worker.reporter  # type: ignore[union-attr]
    with monkeypatch.context() as patch:
        patch.setattr(bench.bus.reports, "publish_reports", refuse)
        await bench.send("t1", payload=0)
        assert "taken no report" in await reason(bench, bool)
        assert len(reporter) == 1
    assert await reason(bench, operator.not_) == ""
    await bench.empty()


async def test_a_blocked_loop_is_noticed_and_forgotten(bench: Bench) -> None:
    await bench.send("t1", payload=1.5)
    # Nobody can ask while it is blocked; what is seen right afterwards is how late the loop was.
    assert "event loop" in await reason(bench, bool)
    assert await reason(bench, operator.not_) == ""
    await bench.empty()
