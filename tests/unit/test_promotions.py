"""Promotion over the in-memory bus: two routers, a judge that says what the test wants, and words that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from random import Random
from typing import Any

import pytest

from agent_engines.adapters.memory.bus import MemoryBus
from agent_engines.adapters.memory.clock import ManualClock
from agent_engines.adapters.memory.telemetry import NullTelemetry
from agent_engines.domain import subjects
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import Conflict, NotFound, Unavailable
from agent_engines.domain.guardrail import Earned
from agent_engines.domain.policy_word import PolicyChange, PolicyOrder
from agent_engines.domain.promotion import Evidence, Gain
from agent_engines.runtime.active_policy import ActivePolicy
from agent_engines.runtime.background import Background
from agent_engines.runtime.learned import Learned
from agent_engines.runtime.policy_board import PolicyBoard, Standing
from agent_engines.runtime.promotions import Promotions
from agent_engines.runtime.shipped_strategies import PolicyMaker, makers
from agent_engines.runtime.strategies import Strategies, StrategyChoice

PLAIN = PolicyOrder(by="ann", reason="a test")
FORCED = PolicyOrder(by="ann", reason="I know better", force=True)
BETTER = Gain(
    rows=2000, value=0.1, interval=(0.05, 0.15), effective_sample_size=900.0, mean_weight=1.0, mean_weight_error=0.05,
    max_weight_share=0.01,
)  # fmt: skip
CONTEXT = DecisionContext(request_id="r", task_type="echo")


class First:
    """The first candidate, always."""

    def __init__(self, seed: int) -> None:
        self.version = "mine-7"

    def choose(self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> tuple[str, float, float]:
        return candidates[0]["agent"], 0.5, 1.0

    def learn(self, decision: Mapping[str, Any], outcome: Mapping[str, Any]) -> None: ...


def broken(seed: int) -> Any:
    raise RuntimeError("the model file is gone")


class Router:
    def __init__(self, town: Town, name: str, policies: Mapping[str, PolicyMaker], setting: str = "adaptive") -> None:
        self.telemetry = NullTelemetry()
        log = self.telemetry.log("intelligence")
        self.strategies = Strategies(
            makers(Random(1), Learned(), price=0.1, policies=policies),
            StrategyChoice(default=setting),
            telemetry=self.telemetry,
            rng=Random(1),
        )
        board = PolicyBoard(town.bus.settings, town.clock, log)
        self.active = ActivePolicy(board, self.strategies, log, router=name)
        self.service = Promotions(self.active, self.strategies, town.judge, town.clock)

    @property
    def decides(self) -> str:
        return self.strategies.named(CONTEXT)


class Town:
    """`gains`: what the judge says; `judging`: what it does before that."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(clock=self.clock)
        self.gains: list[Gain] | Exception = [BETTER]
        self.earned = (Earned(task_type="echo", rows=900, mean=0.8), Earned(task_type="seldom", rows=49, mean=0.1))
        self.asked: list[str] = []
        self.routers: list[Router] = []
        self.gate: asyncio.Event | None = None

    async def judge(self, policy: str) -> Evidence:
        self.asked.append(policy)
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.gains, Exception):
            raise self.gains
        return Evidence(gains=tuple(self.gains), earned=self.earned)

    async def router(self, name: str, policies: Mapping[str, PolicyMaker] | None = None, **more: Any) -> Router:
        router = Router(self, name, {"mine": First} if policies is None else policies, **more)
        await router.active.start()
        self.routers.append(router)
        return router

    async def agree(self, policy: str) -> None:
        async with asyncio.timeout(5):
            while any(router.decides != policy for router in self.routers):
                await asyncio.sleep(0)


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    found = Town()
    await found.bus.provision()
    yield found
    for router in found.routers:
        await router.active.stop()
    await found.bus.close()


async def standings(town: Town, count: int) -> list[Standing]:
    """What the routers say, once so many say that they have dealt with the newest word."""
    background, log = Background(NullTelemetry().log("test")), NullTelemetry().log("test")
    board = PolicyBoard(town.bus.settings, town.clock, log)
    await board.load()
    board.start(background, lambda: None)
    try:
        async with asyncio.timeout(5):
            while sum(one.turn == board.word.turn for one in board.standings) < count:
                await asyncio.sleep(0)
        return board.standings
    finally:
        await background.stop()


async def test_a_promoted_policy_decides_on_all_routers_and_a_rollback_leads_back(town: Town) -> None:
    one, two = await town.router("one"), await town.router("two")
    change = await one.service.promote("c3", PLAIN)
    assert one.decides == "c3", "the router that was asked has changed over when it answers"
    assert (change.source, change.to, change.version, change.by, change.reason, change.forced) == (
        "adaptive", "c3", "c3-1", "ann", "a test", False,
    )  # fmt: skip
    assert change.evidence == (BETTER,)
    await town.agree("c3")
    await two.service.promote("prequal-1", PLAIN)
    await town.agree("prequal")
    assert (await one.service.rollback("prequal", PLAIN)).to == "c3"
    await town.agree("c3")
    assert (await two.service.rollback("c3-1", PLAIN)).to == "adaptive"
    await town.agree("adaptive")
    word, _ = await one.active.board.read()
    assert [(each.verb, each.source, each.to) for each in word.changes] == [
        ("promote", "adaptive", "c3"),
        ("promote", "c3", "prequal"),
        ("rollback", "prequal", "c3"),
        ("rollback", "c3", "adaptive"),
    ]


async def test_a_promotion_remembers_what_was_earned_before_it_unless_nobody_is_to_guard_it(town: Town) -> None:
    router = await town.router("one")
    watched = await router.service.promote("c3", PLAIN)
    assert (watched.guarded, watched.baseline) == (True, town.earned[:1])
    free = await router.service.promote("prequal", PolicyOrder(guard=False))
    assert (free.guarded, free.baseline) == (False, ())
    town.earned = ()
    assert not (await router.service.promote("mine", PLAIN)).guarded, "there is nothing to compare with"


async def test_a_request_and_a_task_type_keep_their_word(town: Town) -> None:
    router = await town.router("one")
    await router.service.promote("c3", PLAIN)
    assert router.strategies.named(DecisionContext(request_id="r", task_type="echo", strategy="random")) == "random"


async def test_evidence_that_does_not_speak_for_it_refuses_with_the_numbers_and_changes_nothing(town: Town) -> None:
    router = await town.router("one")
    town.gains = [Gain(rows=90, value=-0.2, interval=(-0.3, -0.1), effective_sample_size=44.0, mean_weight=1.0, mean_weight_error=0.1, max_weight_share=0.02)]  # fmt: skip
    with pytest.raises(Conflict) as refused:
        await router.service.promote("c3", PLAIN)
    for number in ("44 is under 500", "gain -0.2000", "-0.3000 to -0.1000"):
        assert number in str(refused.value)
    assert router.decides == "adaptive"
    assert await town.bus.settings.get(subjects.POLICY) is None
    change = await router.service.promote("c3", FORCED)
    assert (change.forced, change.reason, len(change.objections)) == (True, "I know better", 2)
    assert router.decides == "c3"


@pytest.mark.parametrize("error", [NotFound("nobody can judge it"), Conflict("it failed"), Unavailable("away")])
async def test_what_nobody_could_judge_is_promoted_by_force_only_and_the_record_says_so(
    town: Town, error: Exception
) -> None:
    router = await town.router("one")
    town.gains = error
    with pytest.raises(Unavailable if isinstance(error, Unavailable) else Conflict, match=str(error)):
        await router.service.promote("c3", PLAIN)
    change = await router.service.promote("c3", FORCED)
    assert str(error) in change.objections[0]
    assert change.evidence == ()


@pytest.mark.parametrize("policy", ["uniform", "always:a"])
async def test_a_yardstick_is_refused_with_what_can_be_promoted_instead(town: Town, policy: str) -> None:
    router = await town.router("one")
    for call in (router.service.promote, router.service.rollback):
        with pytest.raises(Conflict, match=r"cannot be routed by; there are adaptive, c3, .*mine"):
            await call(policy, PLAIN)
    assert town.asked == []


async def test_what_makes_no_sense_is_refused_by_name(town: Town) -> None:
    router = await town.router("one")
    with pytest.raises(NotFound, match="magic"):
        await router.service.promote("magic", PLAIN)
    with pytest.raises(NotFound, match="adaptive-2"):
        await router.service.promote("adaptive-2", PLAIN)
    with pytest.raises(Conflict, match="adaptive is active already"):
        await router.service.promote("adaptive-3", PLAIN)
    with pytest.raises(Conflict, match="nothing is promoted"):
        await router.service.rollback("c3", PLAIN)
    await router.service.promote("c3", PLAIN)
    with pytest.raises(Conflict, match="c3 is active already"):
        await router.service.promote("c3-1", PLAIN)
    with pytest.raises(Conflict, match="prequal is not active and cannot be left: c3 is active"):
        await router.service.rollback("prequal", PLAIN)


async def test_of_two_promotions_at_once_one_wins_and_the_other_names_it(town: Town) -> None:
    one, two = await town.router("one"), await town.router("two")
    town.gate = asyncio.Event()
    first = asyncio.ensure_future(one.service.promote("c3", PLAIN))
    second = asyncio.ensure_future(two.service.promote("prequal", PolicyOrder(by="bob")))
    while len(town.asked) < 2:
        await asyncio.sleep(0)
    town.gate.set()
    ended = await asyncio.gather(first, second, return_exceptions=True)
    (won,) = [each for each in ended if isinstance(each, PolicyChange)]
    (lost,) = [each for each in ended if isinstance(each, Conflict)]
    assert f"adaptive gave way to {won.to} (promote by {won.by}" in str(lost)
    await town.agree(won.to)


async def test_a_word_that_was_stored_though_the_bus_could_not_say_so_is_no_conflict(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = await town.router("one")
    put = town.bus.settings.put

    async def twice(key: str, value: bytes, *, revision: int | None = None, ttl: float | None = None) -> int:
        await put(key, value, revision=revision, ttl=ttl)
        return await put(key, value, revision=revision, ttl=ttl)

    monkeypatch.setattr(town.bus.settings, "put", twice)
    assert (await router.service.promote("c3", PLAIN)).to == "c3"


async def test_a_router_that_starts_later_begins_with_the_active_policy(town: Town) -> None:
    one = await town.router("one")
    await one.service.promote("mine", PLAIN)
    assert one.strategies.named_by("mine-7") == "mine"
    two = await town.router("two", setting="random")
    assert two.decides == "mine"
    assert (await two.service.rollback("mine-7", PLAIN)).to == "random", "the setting of the router that was asked"


@pytest.mark.parametrize("policies", [{}, {"mine": broken}], ids=["not installed", "cannot be made"])
async def test_a_router_that_cannot_run_it_stays_with_what_it_has_and_says_so(
    town: Town, policies: dict[str, PolicyMaker]
) -> None:
    one, two = await town.router("one"), await town.router("two", policies)
    await one.service.promote("c3", PLAIN)
    await town.agree("c3")
    await one.service.promote("mine", PLAIN)
    found = await standings(town, 2)
    assert [(each.router, each.policy, each.version) for each in found] == [("one", "mine", "mine-7"), ("two", "c3", "c3-1")]  # fmt: skip
    assert found[0].problem == ""
    assert "mine cannot be run here" in found[1].problem
    assert two.decides == "c3"
    assert "The active policy cannot be run here, the one before goes on" in two.telemetry.messages("error")
    late = await town.router("late", policies, setting="random")
    assert late.decides == "random"
    await two.service.rollback("mine", PLAIN)
    assert two.active.problem == ""
    assert one.decides == two.decides == "c3"


async def test_what_cannot_be_made_here_is_not_promoted_here(town: Town) -> None:
    router = await town.router("one", {"mine": broken})
    with pytest.raises(Conflict, match="mine cannot be run on this router: the model file is gone"):
        await router.service.promote("mine", FORCED)
    assert await town.bus.settings.get(subjects.POLICY) is None


async def test_a_deleted_word_is_back_to_the_setting_and_nonsense_is_ignored(town: Town) -> None:
    one = await town.router("one")
    await one.service.promote("c3", PLAIN)
    await town.bus.settings.put(subjects.POLICY, b"nonsense")
    await town.bus.settings.put(subjects.router_policy("two"), b"nonsense")
    async with asyncio.timeout(5):
        while "A router's policy could not be read" not in one.telemetry.messages("warning"):
            await asyncio.sleep(0)
    assert "The shared routing policy could not be read and is ignored" in one.telemetry.messages("warning")
    assert one.decides == "c3"
    await town.bus.settings.delete(subjects.POLICY)
    await town.agree("adaptive")


async def test_a_router_that_starts_without_the_bus_takes_the_policy_when_it_is_back(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await town.router("one")
    await one.service.promote("c3", PLAIN)
    get = town.bus.settings.get

    async def away(key: str) -> None:
        raise Unavailable("the bus is away")

    monkeypatch.setattr(town.bus.settings, "get", away)
    two = await town.router("two")
    assert two.decides == "adaptive"
    assert "Which policy is active is not known yet; this router begins with its own setting" in two.telemetry.messages("warning")  # fmt: skip
    monkeypatch.setattr(town.bus.settings, "get", get)
    await town.agree("c3")


async def test_nothing_is_written_while_nothing_was_promoted_and_nothing_left_by_who_is_gone(town: Town) -> None:
    one = await town.router("one")
    for _ in range(20):
        await asyncio.sleep(0)
    assert await town.bus.settings.get(subjects.router_policy("one")) is None
    await one.service.promote("c3", PLAIN)
    async with asyncio.timeout(5):
        while await town.bus.settings.get(subjects.router_policy("one")) is None:
            await asyncio.sleep(0)
    await one.active.stop()
    assert await town.bus.settings.get(subjects.router_policy("one")) is None
