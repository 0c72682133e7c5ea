"""One breaker on many routers: everybody sees the same state, one of them tries, trouble falls back to each its own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest

from agent_engines.domain import subjects
from agent_engines.domain.breaker_word import LONGEST_SECONDS, BreakerWord, read_word
from agent_engines.domain.decisions import DecisionContext
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import ReportKind
from agent_engines.domain.tasks import TaskError, TaskStatus
from agent_engines.runtime.outcomes import Outcome
from agent_engines.runtime.shared_breakers import AGAIN_SECONDS, KEEP_SECONDS
from routing_house import RoutingHouse, settle

KEY = subjects.agent_breaker("a")
TIMEOUT = TaskError("Timeout", "too slow", retryable=True)


def ended(agent: str, task_id: str, status: TaskStatus) -> Outcome:
    error = None if status is TaskStatus.SUCCESS else TIMEOUT
    return Outcome(kind=ReportKind.FINAL, task_id=task_id, task_type="echo", agent=agent, status=status, error=error)


class Routers:
    """Several routers that share one bus's settings and one clock; agents `a` to `d` are known to all."""

    def __init__(self, number: int = 3) -> None:
        self.houses = [RoutingHouse(seed=seed) for seed in range(number)]
        first = self.houses[0]
        self.clock, self.settings = first.clock, first.bus.settings
        for house in self.houses[1:]:
            self._join(house)
        self._stack = AsyncExitStack()

    def _join(self, house: RoutingHouse) -> None:
        house.bus.settings = self.settings
        house.fleet._clock = house.clock = self.clock
        house.dispatcher._clock = house.dispatcher._decider._clock = self.clock
        house.fleet._breakers._settings = self.settings
        house.fleet._breakers._clock = self.clock

    async def __aenter__(self) -> Routers:
        # Whoever stops first must not take the shared settings along.
        for house in self.houses:
            await self._stack.enter_async_context(house)
        await self.beat()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def another(self) -> RoutingHouse:
        house = RoutingHouse(seed=len(self.houses))
        self._join(house)
        await self._stack.enter_async_context(house)
        self.houses.append(house)
        await self.beat()
        return house

    async def beat(self) -> None:
        for house in self.houses:
            for agent in "abcd":
                await house.beat(agent)

    async def pass_seconds(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        await self.beat()

    def states(self, agent: str = "a") -> list[str]:
        return [house.fleet.agent(agent).breaker for house in self.houses]

    def gauges(self, agent: str = "a") -> list[int]:
        return [house.telemetry.breakers[agent] for house in self.houses]

    def fail(self, house: RoutingHouse, times: int = 3) -> None:
        """Agent `a` fails; it did well before, so that routers would still like to choose it."""
        for one in self.houses:
            one.fleet.learned([ended("a", f"g{number}", TaskStatus.SUCCESS) for number in range(60)])
        house.fleet.learned([ended("a", f"f{number}", TaskStatus.DEAD_LETTER) for number in range(times)])

    async def word(self) -> BreakerWord | None:
        stored = await self.settings.get(KEY)
        return None if stored is None else msgspec.json.decode(stored[0], type=BreakerWord)

    async def chosen(self, house: RoutingHouse, times: int = 20) -> list[str | None]:
        found: list[str | None] = []
        for _ in range(times):
            found.append((await house.submit()).selected_agent)
            await settle()
        return found


async def test_what_one_router_counts_opens_the_breaker_on_all_until_the_same_moment() -> None:
    async with Routers() as routers:
        assert routers.gauges() == [0, 0, 0]
        routers.fail(routers.houses[1])
        await settle()
        assert routers.states() == ["open"] * 3
        assert routers.gauges() == [2, 2, 2]
        views = [house.fleet.agent("a") for house in routers.houses]
        assert {view.breaker_cause for view in views} == {"3 failures of Timeout"}
        assert {view.breaker_until for view in views} == {routers.clock.now() + 60.0}
        word = await routers.word()
        assert word is not None
        assert (word.state, word.opened, word.turn) == ("open", 1, 1)


async def test_routers_that_open_at_once_agree_on_one_word() -> None:
    async with Routers() as routers:
        for house in routers.houses:
            routers.fail(house)
        await settle(60)
        word = await routers.word()
        assert word is not None
        assert word.turn == word.opened == 1
        assert len({house.fleet.agent("a").breaker_until for house in routers.houses}) == 1


async def test_a_router_that_starts_later_knows_open_breakers_before_it_hears_the_agent() -> None:
    async with Routers(1) as routers:
        routers.fail(routers.houses[0])
        await settle()
        await routers.clock.advance(10.0)
        late = await routers.another()
        view = late.fleet.agent("a")
        assert (view.breaker, view.breaker_until) == ("open", routers.clock.now() + 50.0)
        assert late.telemetry.breakers["a"] == 2
        assert "a" not in await routers.chosen(late)


async def test_a_decision_tells_why_and_for_how_long_an_agent_is_out() -> None:
    async with Routers(1) as routers:
        house = routers.houses[0]
        routers.fail(house)
        await routers.clock.advance(16.0)
        decision = house.dispatcher.decide(_context())
        assert [(r.agent, r.reason) for r in decision.rejected] == [
            ("a", "breaker open: 3 failures of Timeout, tried again in 44 s")
        ]


async def test_one_router_alone_takes_the_trial_and_its_success_closes_all() -> None:
    async with Routers() as routers:
        routers.fail(routers.houses[0])
        await settle()
        await routers.pass_seconds(61.0)
        assert routers.states() == ["half-open"] * 3
        assert routers.gauges() == [1, 1, 1]
        chosen = [await routers.chosen(house) for house in routers.houses]
        assert sum(found.count("a") for found in chosen) == 1
        (owner,) = (house for house, found in zip(routers.houses, chosen, strict=True) if "a" in found)
        (message,) = await owner.queued("a")
        word = await routers.word()
        assert word is not None
        assert word.state == "half-open"
        for house in routers.houses:
            house.fleet.learned([ended("a", message.task_id, TaskStatus.SUCCESS)])
        await settle()
        assert routers.states() == ["closed"] * 3
        assert routers.gauges() == [0, 0, 0]
        assert {house.fleet.agent("a").breaker_cause for house in routers.houses} == {""}


async def test_an_agent_with_nothing_but_failures_is_tried_too_and_by_a_task_not_by_a_question() -> None:
    async with Routers(1) as routers:
        house = routers.houses[0]
        house.fleet.learned([ended("a", f"f{number}", TaskStatus.DEAD_LETTER) for number in range(40)])
        await settle()
        await routers.pass_seconds(61.0)
        house.dispatcher.decide(_context())
        await settle()
        asked = [house.dispatcher.decide(_context()) for _ in range(20)]
        assert "a" not in {decision.selected_agent for decision in asked}
        chosen = await routers.chosen(house, 20)
        assert (chosen[0], chosen.count("a")) == ("a", 1)
        (message,) = await house.queued("a")
        trial = await house.ledger.decisions.decision(message.request_id)
        assert (trial.propensity, [one.reason for one in trial.rejected]) == (1.0, ["this task tries a again"] * 3)
        assert (
            "This task is a trial: a breaker half-open: 3 failures of Timeout, one trial at a time." in trial.reasoning
        )
        house.fleet.learned([ended("a", message.task_id, TaskStatus.SUCCESS)])
        assert routers.states() == ["closed"]


async def test_a_failed_trial_opens_all_again_and_counts() -> None:
    async with Routers(2) as routers:
        routers.fail(routers.houses[0])
        await settle()
        await routers.pass_seconds(61.0)
        assert "a" in await routers.chosen(routers.houses[1])
        (message,) = await routers.houses[1].queued("a")
        routers.houses[1].fleet.learned([ended("a", message.task_id, TaskStatus.DEAD_LETTER)])
        await settle()
        assert routers.states() == ["open"] * 2
        word = await routers.word()
        assert word is not None
        assert (word.opened, word.cause) == (2, "a trial failed of Timeout")


async def test_a_trial_whose_owner_is_gone_is_given_up_and_taken_by_another() -> None:
    async with Routers(2) as routers:
        one, other = routers.houses
        routers.fail(one)
        await settle()
        await routers.pass_seconds(61.0)
        assert "a" in await routers.chosen(one)
        assert "a" not in await routers.chosen(other)
        # Nothing is ever heard of the trial again.
        await routers.pass_seconds(61.0)
        assert (await routers.chosen(other)).count("a") == 1
        assert "a" not in await routers.chosen(one)


async def test_a_trial_that_could_not_be_sent_may_be_taken_again() -> None:
    async with Routers(1) as routers:
        house = routers.houses[0]
        routers.fail(house)
        await routers.pass_seconds(61.0)
        house.fleet.sent("a", "trial")
        await settle()
        assert "a" not in await routers.chosen(house)
        house.fleet.unsent("a", "trial")
        assert (await routers.chosen(house)).count("a") == 1


async def test_a_late_answer_to_a_trial_that_was_given_up_changes_nothing() -> None:
    async with Routers(2) as routers:
        one, other = routers.houses
        routers.fail(one)
        await settle()
        await routers.pass_seconds(61.0)
        await routers.chosen(one)
        (message,) = await one.queued("a")
        await routers.pass_seconds(61.0)
        await routers.chosen(other)
        one.fleet.learned([ended("a", message.task_id, TaskStatus.DEAD_LETTER)])
        await settle()
        assert routers.states() == ["half-open"] * 2


async def test_a_bus_that_is_away_leaves_each_router_its_own_breaker_and_learns_the_news_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Routers(2) as routers:
        one, other = routers.houses
        put = routers.settings.put

        async def away(*_: object, **__: object) -> int:
            raise Unavailable("the bus is away")

        monkeypatch.setattr(routers.settings, "put", away)
        routers.fail(one)
        await settle()
        assert routers.states() == ["open", "closed"]
        await routers.pass_seconds(61.0)
        assert "a" not in await routers.chosen(one, 1)
        await routers.pass_seconds(AGAIN_SECONDS)
        # The trial is taken without asking: there is nobody to ask.
        assert (await routers.chosen(one)).count("a") == 1
        monkeypatch.setattr(routers.settings, "put", put)
        await routers.pass_seconds(2.0)
        assert other.fleet.agent("a").breaker == "half-open"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"state":"ajar"}',
        b'{"state":"open","until":1e300}',
        b'{"state":"open","until":1e999}',
        b'{"state":"open","until":"tomorrow"}',
        b'{"state":"open","turn":-1}',
        b'{"state":"open","until":1,"cause":"' + b"x" * 300 + b'"}',
    ],
)
async def test_words_that_make_no_sense_are_ignored_and_told(value: bytes) -> None:
    async with Routers(2) as routers:
        await routers.settings.put(KEY, value)
        await settle()
        assert routers.states() == ["closed"] * 2
        told = routers.houses[0].telemetry.messages("warning")
        assert "A breaker's shared state could not be read and is ignored" in told
        # The next real word replaces it.
        routers.fail(routers.houses[0])
        await settle()
        assert routers.states() == ["open"] * 2


def test_a_word_reaches_no_further_than_the_longest_timeout() -> None:
    now = 1_700_000_000.0
    word = BreakerWord(state="open", until=now + LONGEST_SECONDS)
    assert read_word(msgspec.json.encode(word), now) == word
    with pytest.raises(ValueError, match="range"):
        read_word(msgspec.json.encode(word), now - 1.0)


async def test_deleting_the_word_closes_the_breaker_everywhere() -> None:
    async with Routers(2) as routers:
        routers.fail(routers.houses[0])
        await settle()
        await routers.settings.delete(KEY)
        await settle()
        assert routers.states() == ["closed"] * 2
        assert routers.gauges() == [0, 0]


async def test_words_about_agents_that_are_gone_are_forgotten() -> None:
    async with Routers(1) as routers:
        routers.fail(routers.houses[0])
        await settle()
        await routers.clock.advance(60.0 + KEEP_SECONDS + 1.0)
        assert await routers.settings.get(KEY) is None


async def test_an_old_word_that_arrives_late_does_not_undo_a_newer_one() -> None:
    async with Routers(2) as routers:
        routers.fail(routers.houses[0])
        await settle()
        breakers = routers.houses[1].fleet._breakers
        breakers._heard(breakers.of("a"), BreakerWord(turn=1))
        assert routers.states() == ["open"] * 2


async def test_breakers_take_out_a_quarter_at_most_and_one_at_least() -> None:
    async with Routers(1) as routers:
        house = routers.houses[0]
        for number, agent in enumerate("abc"):
            await routers.clock.advance(float(number))
            house.fleet.learned([ended(agent, f"{agent}{n}", TaskStatus.DEAD_LETTER) for n in range(3)])
        await routers.beat()
        assert [house.fleet.agent(agent).breaker for agent in "abcd"] == ["open", "open", "open", "closed"]
        decision = house.dispatcher.decide(_context())
        # Of four one may be out: the one that was opened last; the others come back first.
        assert [rejection.agent for rejection in decision.rejected] == ["c"]


async def test_nothing_is_written_while_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Routers(2) as routers:
        writes: list[str] = []
        put = routers.settings.put

        async def counted(key: str, *arguments: object, **options: object) -> int:
            writes.append(key)
            return await put(key, *arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(routers.settings, "put", counted)
        for number in range(50):
            status = TaskStatus.SUCCESS if number % 3 else TaskStatus.DEAD_LETTER
            routers.houses[0].fleet.learned([ended("a", str(number), status)])
        await asyncio.sleep(0)
        await routers.chosen(routers.houses[0])
        assert writes == []


def _context() -> DecisionContext:
    return DecisionContext(request_id="r", task_type="echo")
