"""Judgements: what feedback teaches, by the router that leads and by no other."""

from __future__ import annotations

from typing import NoReturn

import msgspec
import pytest

from agent_engines.adapters.wire import DUPLICATE_WINDOW_SECONDS
from agent_engines.domain.errors import Unavailable
from agent_engines.domain.messages import Judge, ReportKind
from agent_engines.domain.tasks import TaskStatus
from agent_engines.learning.lesson import Lesson
from agent_engines.learning.task_features import task_vector
from agent_engines.runtime.judgements import KEPT_SECONDS, LOOK_SECONDS, Judgements
from agent_engines.runtime.outcomes import Outcome
from agent_engines.runtime.strategies import StrategyChoice
from routing_house import RoutingHouse, until


def judged(task_id: str, quality: float, agent: str = "a", source: str | None = None) -> Outcome:
    return Outcome(
        kind=ReportKind.FEEDBACK,
        task_id=task_id,
        task_type="echo",
        agent=agent,
        status=TaskStatus.SUCCESS,
        quality=quality,
        judge=None if source is None else Judge(source),
    )


class Crown:
    """Who leads: nobody, or this router."""

    def __init__(self, *, worn: bool = True) -> None:
        self.worn = worn

    def __call__(self) -> bool:
        return self.worn


def judgements(house: RoutingHouse, taught: list[Lesson], *, leads: bool | Crown = True) -> Judgements:
    log = house.telemetry.log("intelligence")
    crown = leads if isinstance(leads, Crown) else Crown(worn=leads)
    return Judgements(house.ledger, teach=taught.append, leads=crown, clock=house.clock, log=log)


async def submitted(house: RoutingHouse) -> str:
    await house.beat("a", metadata={"kind": "small"})
    return (await house.submit(features=[1.0, 2.0])).task_id


async def test_a_judgement_teaches_about_the_kind_with_the_features_of_its_decision() -> None:
    async with RoutingHouse() as house:
        task_id, taught = await submitted(house), list[Lesson]()
        desk = judgements(house, taught)
        desk.recorded([judged(task_id, 0.25)])
        await until(lambda: bool(taught))
        await desk.stop()
        view = await house.ledger.reader.task(task_id)
        context = (await house.ledger.decisions.decision(view.request_id)).context
        assert context is not None
        expected = task_vector([1.0, 2.0], None, payload_bytes=context.payload_bytes, requirements={})
        assert expected is not None
        assert taught == [
            Lesson(
                id=f"{task_id}:1:caller",
                kind="small",
                task_type="echo",
                quality=0.25,
                features=tuple(expected.tolist()),
            ),
        ]


async def test_who_begins_to_lead_teaches_what_was_judged_while_nobody_led() -> None:
    async with RoutingHouse() as house:
        task_id, taught, crown = await submitted(house), list[Lesson](), Crown(worn=False)
        desk = judgements(house, taught, leads=crown)
        desk.recorded([judged(task_id, 0.25), judged(task_id, 0.75, source="reviewer")])
        await house.clock.advance(10.0)
        assert taught == []
        crown.worn = True
        await house.clock.advance(LOOK_SECONDS)
        await until(lambda: len(taught) == 2)
        await house.clock.advance(KEPT_SECONDS)
        await desk.stop()
        assert [(one.id, one.quality) for one in taught] == [
            (f"{task_id}:1:caller", 0.25),
            (f"{task_id}:1:reviewer", 0.75),
        ]


async def test_a_judgement_is_taught_under_one_name_by_the_old_leader_and_the_new_one() -> None:
    # The bus keeps one lesson of a name (tests/properties/test_lessons.py).
    async with RoutingHouse() as house:
        task_id, first, second, crown = await submitted(house), list[Lesson](), list[Lesson](), Crown(worn=False)
        old, new = judgements(house, first), judgements(house, second, leads=crown)
        for desk in (old, new):
            desk.recorded([judged(task_id, 0.25)])
        crown.worn = True
        await house.clock.advance(LOOK_SECONDS)
        await until(lambda: bool(first) and bool(second))
        await old.stop()
        await new.stop()
        assert first == second


async def test_what_the_bus_would_not_know_again_is_not_taught_any_more() -> None:
    assert 2 * KEPT_SECONDS <= DUPLICATE_WINDOW_SECONDS
    async with RoutingHouse() as house:
        task_id, taught, crown = await submitted(house), list[Lesson](), Crown(worn=False)
        desk = judgements(house, taught, leads=crown)
        desk.recorded([judged(task_id, 0.25)])
        await house.clock.advance(KEPT_SECONDS)
        crown.worn = True
        await house.clock.advance(2 * LOOK_SECONDS)
        desk.recorded([judged(task_id, 1.0)])
        await until(lambda: bool(taught))
        await desk.stop()
        assert [one.quality for one in taught] == [1.0]


async def test_a_judgement_waits_for_a_ledger_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RoutingHouse() as house:
        task_id, taught = await submitted(house), list[Lesson]()
        desk = judgements(house, taught)

        async def away(task_id: str) -> NoReturn:
            raise Unavailable("the ledger is away")

        with monkeypatch.context() as patched:
            patched.setattr(house.ledger.reader, "task", away)
            desk.recorded([judged(task_id, 0.25)])
            await house.clock.advance(LOOK_SECONDS)
        assert taught == []
        await house.clock.advance(LOOK_SECONDS)
        await until(lambda: bool(taught))
        await desk.stop()


@pytest.mark.parametrize(
    ("leads", "agent", "kind"),
    [(False, "a", ReportKind.FEEDBACK), (True, "b", ReportKind.FEEDBACK), (True, "a", ReportKind.FINAL)],
    ids=["another-router-leads", "about-another-agent", "an-outcome"],
)
async def test_nothing_else_teaches(leads: bool, agent: str, kind: ReportKind) -> None:
    async with RoutingHouse() as house:
        task_id, taught = await submitted(house), list[Lesson]()
        desk = judgements(house, taught, leads=leads)
        other = judgements(house, taught)
        outcome = judged(task_id, 0.25, agent)
        desk.recorded([msgspec.structs.replace(outcome, kind=kind)])
        # The second one has its lesson: the first, asked before, has had its time.
        other.recorded([judged(task_id, 1.0)])
        await until(lambda: bool(taught))
        await desk.stop()
        await other.stop()
        assert [lesson.quality for lesson in taught] == [1.0]


async def test_a_strategy_does_not_take_a_judgement_for_an_outcome() -> None:
    async with RoutingHouse(choice=StrategyChoice(default="adaptive")) as house:
        task_id = await submitted(house)
        house.strategies.learned([judged(task_id, 0.0)], house.clock.now(), lambda task_type: None)
        assert house.lessons == []
        [message] = await house.queued("a")
        final = house.report(message)
        outcome = Outcome(
            kind=final.kind, task_id=task_id, task_type="echo", agent=final.agent, status=TaskStatus.SUCCESS
        )
        house.strategies.learned([outcome], house.clock.now(), lambda task_type: None)
        assert [lesson.quality for lesson in house.lessons] == [1.0]
